"""Worlds and models small enough for a test: a synthetic split, a tiny pocket, and tiny Llama and Qwen3 models."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.causal_lm import load_causal_lm
from agents.models.backbones.pocket import PocketConfig, load_pocket, open_pocket
from agents.models.decoding import AnyBut
from agents.models.fields import Field, Number, OneOf, Ranking, Text
from agents.models.policy import Policy
from agents.models.prompts import PHRASES, Notes, no_notes
from agents.models.replies import ACTION_FIELD, DEFAULT_FORMATS, ReplyFormat
from agents.players.llm_agent import LLMAgent
from agents.players.served import Server
from agents.runs.config import AnyTrainConfig, TrainConfig
from agents.runs.run import train_seeds
from agents.training.coars import Coars
from agents.training.peers import PeersConfig
from agents.training.recipe import Recipe, Setting
from agents.training.samples import TrainingSample, training_sample
from agents.training.train import train
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    CoarsReward,
    Dialogue,
    Facet,
    Instruction,
    Role,
    Rules,
    Split,
    TaskBuilder,
    Transcript,
    TranscriptReward,
    builder,
    load_split,
    play,
    sample_train_tasks,
)

FACET_KINDS = ("genre", "decade")
TINY_POCKET = PocketConfig(hidden=32, layers=2, heads=2, steps=3, batch=16, sequence_length=12)
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen's, without its thinking."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def split() -> Split:
    return load_split("synthetic", users=40, items=60, interactions=1200)


@pytest.fixture(scope="session")
def build(split: Split) -> TaskBuilder:
    return builder(split, num_candidates=6)


def new_tokenizer(split: Split, *, vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the titles; nearly every title is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*(item.title for item in split.dataset.items), *PHRASES], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_causal_lm(kind: str, vocabulary: int) -> LlamaForCausalLM | Qwen3ForCausalLM:
    """Random weights, wide enough for clearly uneven probabilities; two heads share one head of keys and values."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
        "tie_word_embeddings": kind == "qwen3",
        "initializer_range": 0.15,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen3ForCausalLM(Qwen3Config(**shape))


def every_kind() -> dict[Role, ReplyFormat]:
    """A format of either side that has a field of every kind."""
    thought, reason = Field("Thought", Text(min_tokens=3, max_tokens=5), hidden=True), Field("Reason", Text(1, 4))
    mood, rating = Field("Mood", OneOf(("low", "low or high", "high"))), Field("Rating", Number(1, 5, 1))
    return {
        RECOMMENDER: ReplyFormat((thought, mood, rating, reason, Field("Ranking", Ranking(3)))),
        USER: ReplyFormat(
            (thought, reason, ACTION_FIELD, Field("Rating", Number(1, 5, 1, quarter_of="Action"))), strength="Rating"
        ),
    }


class Played(NamedTuple):
    agents: dict[Role, LLMAgent]
    dialogues: list[Dialogue]
    transcripts: list[Transcript]

    def samples(self, role: Role) -> list[TrainingSample]:
        agent = self.agents[role]
        return [
            training_sample(row, role, transcript, dialogue.terms, agent.items, agent.policy.backbone)
            for row, transcript, dialogue in zip(agent.rows, self.transcripts, self.dialogues, strict=True)
        ]


class Lab:
    """What the tests of this folder make again and again."""

    def __init__(self, split: Split, build: TaskBuilder, folder: Path) -> None:
        self.split, self.build, self._folder = split, build, folder
        self._made: dict[str, Path] = {}

    def folder(self, kind: str) -> Path:
        """Of a saved model: "pocket", "instructed" (a pocket that knows facets), "llama" or "qwen3"."""
        if kind not in self._made:
            self._made[kind] = self._folder / kind
            if kind in ("pocket", "instructed"):
                config = replace(TINY_POCKET, kinds=FACET_KINDS if kind == "instructed" else ())
                load_pocket(self.split, config, cache_dir=self._folder / kind)
                (self._made[kind],) = (self._folder / kind).iterdir()
            else:
                tokenizer = new_tokenizer(self.split)
                new_causal_lm(kind, len(tokenizer) + 3).save_pretrained(self._made[kind])  # rows without a token
                tokenizer.save_pretrained(self._made[kind])
        return self._made[kind]

    def backbone(self, kind: str = "pocket") -> Backbone:
        pocket = kind in ("pocket", "instructed")
        backbone = open_pocket(self.folder(kind)) if pocket else load_causal_lm(self.folder(kind))
        backbone.max_reason_tokens = 6
        return backbone

    def policy(self, kind: str = "pocket", *, scale: float = 0.3, seed: int = 0) -> Policy:
        """With adapters that are far from doing nothing; `scale=0` leaves them fresh."""
        policy = Policy(self.backbone(kind), rank=4, alpha=8, seed=seed)
        if scale:
            self.perturb(policy, scale=scale, seed=seed)
        return policy

    @staticmethod
    def perturb(policy: Policy, *, scale: float = 0.3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        for role in ROLES:
            for name, parameter in policy.named_parameters(role):
                if "lora_B" in name:
                    parameter.data.normal_(0.0, scale, generator=generator)

    @property
    def every_kind(self) -> dict[Role, ReplyFormat]:
        return every_kind()

    def dialogues(self, n: int, *, max_turns: int = 3, seed: int = 0) -> list[Dialogue]:
        tasks = sample_train_tasks(self.build, n, np.random.default_rng(seed), prefix="t")
        reward = CoarsReward()  # nothing is excluded, so every turn has something to train on
        return [Dialogue(task, self.split.dataset.items, max_turns=max_turns, reward=reward) for task in tasks]

    def instructed(self, n: int, *, max_turns: int = 4, seed: int = 0, rules: Rules | None = None) -> list[Dialogue]:
        """Dialogues whose users want the first genre and the decade of the target."""
        items, dialogues = self.split.dataset.items, self.dialogues(n, seed=seed)
        for number, task in enumerate([dialogue.task for dialogue in dialogues]):
            wants = tuple(Facet(kind, items[task.target].values(kind)[0]) for kind in FACET_KINDS)
            task = replace(task, instruction=Instruction(wants, FACET_KINDS))
            dialogues[number] = Dialogue(task, items, max_turns=max_turns, reward=CoarsReward(), rules=rules)
        return dialogues

    def play(
        self,
        policy: Policy,
        n: int = 6,
        *,
        temperature: float = 1.0,
        max_turns: int = 3,
        seed: int = 0,
        first: int = 0,
        dialogues: list[Dialogue] | None = None,
        formats: Mapping[Role, ReplyFormat] = DEFAULT_FORMATS,
        notes: Notes = no_notes,
    ) -> Played:
        dialogues = dialogues or self.dialogues(n, max_turns=max_turns, seed=seed)
        items = self.split.dataset.items
        agents = {
            role: LLMAgent(policy, role, items, temperature=temperature, reply_format=formats[role], notes=notes)
            for role in ROLES
        }
        numbers = range(first, first + len(dialogues))
        play(dialogues, agents[RECOMMENDER], agents[USER], seed=seed, numbers=numbers)
        assert [d.cause for d in dialogues] == [None] * len(dialogues)
        provenance = self.split.dataset.provenance
        return Played(agents, dialogues, [d.transcript(provenance, seed=seed) for d in dialogues])

    @staticmethod
    def train(
        policy: Policy,
        build: TaskBuilder,
        recipe: Recipe,
        *,
        reward: TranscriptReward | None = None,
        opinions: bool = True,
        server: Server | None = None,
        **options: Any,
    ) -> None:
        """Train by a recipe, with another reward if one is passed; `options` go to `train`."""
        training = recipe.build(Setting(policy=policy, split=build.split, opinions=opinions, server=server))
        paid = training.reward if reward is None else reward
        train(policy, build, training.players, reward=paid, optimisation=training.optimisation, **options)


@pytest.fixture(scope="session")
def lab(split: Split, build: TaskBuilder, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(split, build, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def plain_logprobs() -> Callable[..., list[float]]:
    """Log-probabilities of some columns of one row by the model's own forward pass, position after position."""

    @torch.no_grad()
    def compute(
        policy: Policy,
        role: Role | None,
        token_ids: list[int],
        columns: list[int],
        allowed: Any,
        temperature: float = 1.0,
    ) -> list[float]:
        free = policy.backbone.free_mask.nonzero()[:, 0].tolist()
        with policy.use_adapter(role) as model:
            logits: Tensor = model(input_ids=torch.tensor([token_ids])).logits[0]
        found = []
        for column, choices in zip(columns, allowed, strict=True):
            if isinstance(choices, AnyBut):
                choices = [token for token in free if token not in choices.tokens]
            choices = list(free if choices is None else choices)
            among = torch.log_softmax(logits[column - 1, choices] / temperature, -1)
            found.append(float(among[choices.index(token_ids[column])]))
        return found

    return compute


# A finished run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world() -> Split:
    """Large enough for lists of twenty."""
    return load_split("synthetic", users=24, items=80, interactions=400)


@pytest.fixture(scope="session")
def run_settings(world: Split, tmp_path_factory: pytest.TempPathFactory) -> AnyTrainConfig:
    """One update, at so high a rate that it changes what is said, of a user that hears no opinions."""
    folder = tmp_path_factory.mktemp("runs")
    load_pocket(world, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=folder / "pocket")
    (backbone,) = (folder / "pocket").iterdir()
    recipe = Coars(steps=1, episodes_per_step=8, max_turns=2, learning_rate_user=5.0)
    peers = PeersConfig(opinions=False)
    return TrainConfig(out=folder / "run", backbone=str(backbone), lora_rank=2, peers=peers, recipe=recipe, log="none")


@pytest.fixture(scope="session")
def finished_run(run_settings: AnyTrainConfig, world: Split) -> Path:
    (folder,) = train_seeds(run_settings, world, [3])
    return folder


# A model whose probabilities stand in a table -------------------------------------------------------------------------

LETTERS = {"<|pad|>": 0, "<|system|>": 1, "<|user|>": 2, "<|assistant|>": 3, "\n": 4, "a": 5, "b": 6, "c": 7}
BIGRAMS = {  # of "\n", a, b, c after each token
    3: (0.0, 0.5, 0.25, 0.25),
    4: (0.0, 0.5, 0.25, 0.25),
    5: (0.25, 0.125, 0.5, 0.125),
    6: (0.25, 0.25, 0.25, 0.25),
    7: (0.5, 0.25, 0.125, 0.125),
}


@pytest.fixture
def bigrams() -> Backbone:
    """A language of four letters whose next letter depends on the last one alone, by `BIGRAMS`.

    Hidden states are one-hot and their norm is 1/sqrt(8), so the output matrix is the table's logarithm over sqrt(8).
    The one layer adds nothing to a base without adapters.
    """
    tokenizer = Tokenizer(models.WordLevel(LETTERS, unk_token="c"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": list(LETTERS)[1:4]})
    fast.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    shape = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        rms_norm_eps=0.0,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
    table = torch.full((8, 8), 1e-12)
    for last, probabilities in BIGRAMS.items():
        table[4:, last] = torch.tensor(probabilities).clamp(min=1e-12)
    model.model.embed_tokens.weight.data.copy_(torch.eye(8))
    model.model.layers[0].self_attn.o_proj.weight.data.zero_()
    model.model.layers[0].mlp.down_proj.weight.data.zero_()
    model.lm_head.weight.data.copy_(table.log() / 8**0.5)
    return Backbone(model, fast, max_reason_tokens=4)
