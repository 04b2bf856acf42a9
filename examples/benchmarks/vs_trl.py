"""How long does a whole training step take here, and in TRL? And a rollout of four turns, and by `generate`?

    python -m venv .venv-trl
    .venv-trl/bin/pip install -c constraints.txt -e ".[llm]" "trl==1.16.0"
    .venv-trl/bin/python examples/benchmarks/vs_trl.py --out docs/results
    python examples/benchmarks/vs_trl.py --systems ours alone carried again --tasks 2 --rounds 1    # without TRL

An environment of its own, since TRL brings datasets, pandas and pyarrow. All train the same random weights on the same
prompts: a Qwen3 of four layers of width 128, a vocabulary of 2,000, LoRA of rank 8 on all linear layers, fp32, one
thread; 16 prompts of 399 tokens, each answered 8 times with 32 tokens. They take turns, each in a process of its own,
whose highest memory is noted, and each after a step that is not counted.

ours        the project's own functions: `open_cache`, `write`, `student_logprobs`, `teacher_logprobs` with hindsight,
            `coars_loss`, AdamW. Live teacher.
alone       the same, but no dialogue knows that others begin as it does.
sdpo        TRL's SDPOTrainer: loss by sampled tokens, live teacher, as much hindsight after the prompt as ours.
grpo        TRL's GRPOTrainer. It has no teacher.
carried     four turns of dialogue, 32 tokens of one's own and 40 of the partner's in each: our rollout, its cache
            carried over the turns.
carried_alone   the same for dialogues that share nothing, as with one dialogue a task.
again       the same by `generate`, which reads each dialogue from its start at each turn.

TRL's passes hold 16 rows, which is what suits it on a CPU; ours hold `--micro-batch`.

Longer than 400 lines: seven systems are set up and timed on equal terms, and a reader checks that in one file.
"""

import os
import resource
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from coars_env import RECOMMENDER, environment_info, markdown_table

if TYPE_CHECKING:
    from agents.players.llm_agent import Row
    from agents.training.samples import TrainingSample

SystemName = Literal["ours", "alone", "sdpo", "grpo", "carried", "carried_alone", "again"]
VOCABULARY, WORDS_FROM = 2000, 8
RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class TrlConfig:
    """What is measured."""

    systems: tuple[SystemName, ...] = ("ours", "alone", "sdpo", "grpo", "carried", "carried_alone", "again")
    tasks: int = 16
    """Prompts of a step."""
    group: int = 8
    """Answers to each."""
    prompt: int = 399
    """Tokens of a prompt, the reply header included."""
    reply: int = 32
    """Tokens of an answer."""
    hindsight: int = 24
    """Tokens that the teacher is told."""
    turns: int = 4
    """Of the dialogues."""
    partner: int = 40
    """Tokens the partner says in a turn."""
    micro_batch: int = 32
    """Dialogues per forward pass of our update."""
    rounds: int = 3
    out: Path | None = None
    """Folder for a page."""


@dataclass(frozen=True)
class Cost:
    """What one step cost."""

    tokens: int
    """Tokens that were written."""
    processor: float
    """Seconds of processor time."""
    wall: float
    """Seconds on the clock."""
    memory: float
    """Highest resident memory of the process, libraries included, in GB."""
    parts: tuple[tuple[str, float], ...] = ()
    """Seconds of processor time of parts of it."""


class Clock:
    """Processor and clock from now on."""

    def __init__(self) -> None:
        self._processor, self._wall = time.process_time(), time.perf_counter()
        self._parts: list[tuple[str, float]] = []
        self._last = self._processor

    def lap(self, name: str) -> None:
        self._parts.append((name, time.process_time() - self._last))
        self._last = time.process_time()

    def stop(self, tokens: int) -> Cost:
        processor, wall = time.process_time() - self._processor, time.perf_counter() - self._wall
        names = dict.fromkeys(name for name, _ in self._parts)
        parts = tuple((name, sum(s for n, s in self._parts if n == name)) for name in names)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        return Cost(tokens, processor, wall, memory, parts)


class World:
    """The model, and what is said in it: words without meaning."""

    def __init__(self, config: TrlConfig) -> None:
        self.config = config
        rng = np.random.default_rng(0)
        self.prompts, self.hindsights = (
            rng.integers(WORDS_FROM, VOCABULARY, (config.tasks, n)).tolist()
            for n in (config.prompt - 1, config.hindsight)
        )
        self.partner = rng.integers(
            WORDS_FROM, VOCABULARY, (config.turns, config.tasks * config.group, config.partner)
        ).tolist()

    @cached_property
    def tokenizer(self) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        special = ["<pad>", "<end>", "<system>", "<user>", "<reply>"]
        words = [*special, "\n", *(f"w{n}" for n in range(len(special) + 1, VOCABULARY))]
        tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="w9"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
        tokenizer.decoder = decoders.Fuse()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
        fast.add_special_tokens({"additional_special_tokens": special[2:]})
        fast.chat_template = (
            "{% for m in messages %}{{ '<' + ('reply' if m['role'] == 'assistant' else m['role']) + '>' "
            "+ m['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '<reply>' }}{% endif %}"
        )
        return fast

    def model(self) -> Any:
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM

        shape = Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            intermediate_size=384,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
        with torch.random.fork_rng():
            model = Qwen3ForCausalLM(shape)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0.0, 0.02, generator=generator)
        return model

    def text(self, tokens: list[int]) -> str:
        return " ".join(self.tokenizer.convert_ids_to_tokens(tokens))


def reward_of(tokens: list[int]) -> float:
    """The share of even words: something to learn that costs nothing to find out."""
    return sum(token % 2 == 0 for token in tokens) / len(tokens)


class Ours:
    """A step of the project's functions on prompts of the benchmark."""

    def __init__(self, config: TrlConfig, *, shared: bool) -> None:
        import torch

        from agents.models.backbones.backbone import Backbone
        from agents.models.policy import Policy

        torch.set_num_threads(1)
        self.config, self.shared, self.world = config, shared, World(config)
        backbone = Backbone(self.world.model(), self.world.tokenizer)
        backbone.free_mask[backbone.newline] = False  # nobody stops early
        self.policy: Policy = Policy(backbone, rank=8, alpha=16)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(RECOMMENDER), lr=RATE, weight_decay=0.0)
        self.steps = 0

    def rollout(self, turns: int) -> "list[Row]":
        from agents.models.column_cache import ColumnCache
        from agents.models.decoding import Form, Free, decode, open_cache
        from agents.players.llm_agent import Row

        config, backbone, world = self.config, self.policy.backbone, self.world
        rows = [Row() for _ in range(config.tasks * config.group)]
        rngs = [np.random.default_rng([self.steps, n]) for n in range(len(rows))]
        starts = [0] * len(rows)
        with self.policy.use_adapter(RECOMMENDER) as model:
            cache = ColumnCache(0, 0)
            for turn in range(turns):
                for n, row in enumerate(rows):
                    row.read(world.partner[turn][n] if turn else world.prompts[n // config.group])
                    if not turn and self.shared:
                        row.opening = len(row.token_ids)
                    row.context_ends.append(len(row.token_ids))
                    row.read(backbone.header)
                if not turn:
                    cache, starts = open_cache(model, [row.token_ids[: row.opening] for row in rows])
                forms = [Form([Free(config.reply)], backbone.newline_ids, backbone.newline) for _ in rows]
                contexts = [row.token_ids[start:] for row, start in zip(rows, starts, strict=True)]
                decode(model, cache, starts, contexts, forms, rngs, backbone.free_mask, temperature=1.0)
                for row, form in zip(rows, forms, strict=True):
                    row.write(form)
        return rows

    def samples(self, rows: "list[Row]") -> "list[TrainingSample]":
        from agents.training.samples import TrainingSample, TurnSample

        found = []
        for n, row in enumerate(rows):
            ((start, end),) = row.replies
            columns = tuple(c for c in range(start, end) if row.sampled[c])
            reward = reward_of([row.token_ids[c] for c in columns])
            told = tuple(self.world.hindsights[n // self.config.group])
            turn = TurnSample(row.context_ends[0], start, end, columns, reward, told)
            found.append(TrainingSample(row.token_ids, row.logprobs, row.allowed, (turn,), row.opening))
        return found

    def step(self) -> Cost:
        from torch import nn
        from transformers import DynamicCache

        from agents.training.credit import distilled_advantages, student_logprobs, teacher_logprobs
        from agents.training.losses import coars_loss
        from agents.training.samples import collate, sort_by_length

        clock, policy, config = Clock(), self.policy, self.config
        rows = self.rollout(1)
        clock.lap("rollout")
        samples = sort_by_length(self.samples(rows))
        self.optimizer.zero_grad()
        for first in range(0, len(samples), config.micro_batch):
            part = samples[first : first + config.micro_batch]
            batch, read = collate(part, 0, policy.backbone.device), DynamicCache()
            logprobs = student_logprobs(policy, RECOMMENDER, batch, read=read)
            clock.lap("student forward")
            with_hindsight = teacher_logprobs(policy, RECOMMENDER, part, read=read)
            credit = distilled_advantages(with_hindsight, batch.rollout_logprobs)
            clock.lap("teacher")
            loss = coars_loss(
                logprobs, batch.rewards, credit, batch.weights, lam=0.1, num_episodes=config.tasks * config.group
            )
            loss.backward()
            clock.lap("backward")
        nn.utils.clip_grad_norm_(policy.parameters(RECOMMENDER), 1.0)
        self.optimizer.step()
        clock.lap("optimizer")
        self.steps += 1
        return clock.stop(sum(sum(row.sampled) for row in rows))

    def dialogues(self) -> Cost:
        clock = Clock()
        rows = self.rollout(self.config.turns)
        self.steps += 1
        return clock.stop(sum(sum(row.sampled) for row in rows))


def ours(config: TrlConfig, shared: bool = True) -> Cost:
    own = Ours(config, shared=shared)
    own.step()
    return own.step()


def alone(config: TrlConfig) -> Cost:
    return ours(replace(config, micro_batch=16), shared=False)  # what suits whole rows


def carried(config: TrlConfig, shared: bool = True) -> Cost:
    own = Ours(config, shared=shared)
    own.dialogues()
    return own.dialogues()


def carried_alone(config: TrlConfig) -> Cost:
    return carried(config, shared=False)


def again(config: TrlConfig) -> Cost:
    """The same adapter on the same base, by transformers' `generate`."""
    import torch

    own = Ours(config, shared=False)
    header = own.policy.backbone.header
    rows = [own.world.prompts[n // config.group] + header for n in range(config.tasks * config.group)]

    def play() -> Cost:
        clock, ids = Clock(), torch.tensor(rows)
        with own.policy.use_adapter(RECOMMENDER) as model, torch.no_grad():
            for turn in range(config.turns):
                if turn:
                    said = torch.tensor([line + header for line in own.world.partner[turn]])
                    ids = torch.cat((ids, said), 1)
                ids = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    top_k=0,
                    min_new_tokens=config.reply,
                    max_new_tokens=config.reply,
                )
        return clock.stop(len(rows) * config.turns * config.reply)

    play()
    return play()


def trl(config: TrlConfig, kind: Literal["sdpo", "grpo"]) -> Cost:
    """The second step of a trainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    world = World(config)
    header = world.tokenizer.convert_tokens_to_ids("<reply>")
    texts = [world.text([*prompt, header]) for prompt in world.prompts]
    assert [len(ids) for ids in world.tokenizer(text=texts)["input_ids"]] == [config.prompt] * config.tasks
    table = Dataset.from_dict({"prompt": texts, "privileged_context": [world.text(h) for h in world.hindsights]})
    written: list[int] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        written[:] = [len(ids) for ids in completion_ids]
        return [reward_of(list(ids)) for ids in completion_ids]

    costs: list[Cost] = []

    class Timer(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.clock = Clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            costs.append(self.clock.stop(sum(written)))

    rows = config.tasks * config.group
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": min(16, rows),
            "gradient_accumulation_steps": max(1, rows // 16),
            "num_generations": config.group,
            "max_completion_length": config.reply,
            "generation_kwargs": {"min_new_tokens": config.reply},
            "max_steps": 2,
            "learning_rate": RATE,
            "weight_decay": 0.0,
            "beta": 0.0,
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
        }
        given: dict[str, Any] = {
            "model": world.model(),
            "reward_funcs": reward,
            "train_dataset": table,
            "processing_class": world.tokenizer,
            "peft_config": lora,
            "callbacks": [Timer()],
        }
        if kind == "grpo":
            from trl import GRPOConfig, GRPOTrainer

            GRPOTrainer(args=GRPOConfig(**settings), **given).train()
        else:
            from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

            teacher = {
                "teacher_model_kind": "live",
                "include_environment_feedback": True,
                "use_successful_as_teacher": False,
                "feedback_template": " {feedback_raw}",
                "reprompt_template": "{prompt}{solution}{feedback}",
            }
            SDPOTrainer(args=SDPOConfig(**settings, **teacher), **given).train()
    return costs[1]


def sdpo(config: TrlConfig) -> Cost:
    return trl(config, "sdpo")


def grpo(config: TrlConfig) -> Cost:
    return trl(config, "grpo")


SYSTEMS = {
    "ours": ours,
    "alone": alone,
    "sdpo": sdpo,
    "grpo": grpo,
    "carried": carried,
    "carried_alone": carried_alone,
    "again": again,
}
NAMES = {
    "ours": "coars-env, prompts shared",
    "alone": "coars-env, nothing shared",
    "sdpo": "TRL SDPOTrainer",
    "grpo": "TRL GRPOTrainer, no teacher",
    "carried": "rollout, coars-env, prompts shared",
    "carried_alone": "rollout, coars-env, nothing shared",
    "again": "rollout, `generate` at each turn",
}


def table(costs: dict[SystemName, list[Cost]]) -> str:
    """Medians; how much longer than ours is the median of the rounds' ratios."""
    header = ("", "processor, s", "clock, s", "ratio", "clock's ratio", "useful tokens per second", "memory, GB")
    rows = []
    for name, of in costs.items():
        own = costs.get("ours" if name in ("ours", "alone", "sdpo", "grpo") else "carried", of)
        rows.append(
            (
                NAMES[name],
                f"{median(c.processor for c in of):.2f}",
                f"{median(c.wall for c in of):.2f}",
                f"{median(c.processor / o.processor for c, o in zip(of, own, strict=True)):.2f}",
                f"{median(c.wall / o.wall for c, o in zip(of, own, strict=True)):.2f}",
                f"{median(c.tokens / c.processor for c in of):.0f}",
                f"{max(c.memory for c in of):.2f}",
            )
        )
    return markdown_table(header, rows)


def parts(of: list[Cost]) -> str:
    """Where our step spends its time."""
    names = [name for name, _ in of[0].parts]
    seconds = {name: median(dict(c.parts)[name] for c in of) for name in names}
    rows = [(name, f"{s:.2f}", f"{s / sum(seconds.values()):.0%}") for name, s in seconds.items()]
    return markdown_table(("part of our step", "processor, s", "share"), rows)


def main() -> None:
    config = tyro.cli(TrlConfig, description=__doc__)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # of the processes to come
    costs: dict[SystemName, list[Cost]] = {name: [] for name in config.systems}
    for number in range(config.rounds):
        for name in config.systems[:: 1 if number % 2 else -1]:  # who goes first changes from round to round
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                costs[name].append(process.submit(SYSTEMS[name], config).result())
            print(f"{NAMES[name]}: {costs[name][-1].processor:.2f} s", flush=True)
    found = [table(costs), *([parts(costs["ours"])] if "ours" in costs else [])]
    print("\n\n".join(found))
    if config.out:
        around = environment_info()
        libraries = ("torch", "transformers", "peft", *(("trl",) if {"sdpo", "grpo"} & set(config.systems) else ()))
        lines = [f"- {NAMES[name]}: {', '.join(f'{c.processor:.2f}' for c in of)} s" for name, of in costs.items()]
        page = (
            "# How long does a training step take here, and in TRL?\n\n"
            f"Command: `python examples/benchmarks/{around['command']}`, commit "
            f"{around['commit']}, {around['machine']}, one thread, load {os.getloadavg()[0]:.1f} at the end (others' "
            f"work included), Python {around['python']}, "
            f"{', '.join(f'{name} {version(name)}' for name in libraries)}.\n\n"
            f"{config.tasks} prompts of {config.prompt} tokens, {config.group} answers to each, {config.reply} tokens "
            f"an answer, {config.hindsight} tokens of hindsight. Qwen3 of four layers of width 128, vocabulary "
            f"{VOCABULARY:,}, random weights, LoRA of rank 8, fp32; {config.micro_batch} dialogues a pass of ours, 16 "
            f"where nothing is shared and in TRL. The rollouts have {config.turns} turns and {config.partner} tokens "
            f"of the partner in each. Medians of {config.rounds} steps, taken in turns, each the second step of a "
            "process of its own; memory is the highest. Seconds of processor time; the clock also ran while other "
            "programs had the processor. The script says what each row is.\n\n" + "\n\n".join(found) + "\n\n"
            "All rounds, seconds of processor time:\n\n" + "\n".join(lines) + "\n"
        )
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / f"step_vs_trl_cpu_{date.today().isoformat()}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
