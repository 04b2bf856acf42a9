"""pocket: a small Qwen3-architecture model built on the spot from the training part of a split; runs on a CPU.

What it learns, and nothing else: the training users' sequences and the items' facts as running text; the form of the
dialogue from demonstrations whose choices are *random* (form without skill); and to use a hindsight text when one is
given, so that the teacher mode means something. Each title and each fixed phrase is one token, so a dialogue is short
and stays readable.
"""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from platformdirs import user_cache_path
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from agents.models.backbones.backbone import Backbone, quiet
from agents.models.backbones.demonstrations import Demonstrator, RowKind
from agents.models.backbones.knowledge import BOTH, FACET, NEXT, NO, REASONS, YES, Mark, knowledge
from agents.models.backbones.muon import Muon
from agents.models.backbones.pocket_wording import (
    POCKET_ACTIONS,
    POCKET_INSTRUCTED_PHRASES,
    POCKET_PHRASES,
    POCKET_SCORES,
)
from agents.models.prompts import question
from agents.models.wishes import facet_texts
from coars_env import BackboneError, Provenance, Split, SvdPeers, atomic_path

POCKET_VERSION = 12
INSTRUCTED_VERSION = 3
"""Of models with kinds of facets, beside `POCKET_VERSION`."""
INSTRUCTED_STEPS = 900
"""`PocketConfig.steps` of models with kinds of facets, which have more to learn."""
END, PAD = "<|end|>", "<|pad|>"
ROLE_MARKS = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class PocketConfig:
    """Size and schedule; the prototype's, widened by trial on LLaRA's validation users."""

    hidden: int = 96
    layers: int = 3
    heads: int = 4
    steps: int = 600
    batch: int = 96
    """Rows a step: five eighths knowledge, the rest demonstrations, see `KINDS`."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    sequence_length: int = 40
    """Titles in a row of sequence text."""
    seed: int = 0
    kinds: tuple[str, ...] = ()
    """Kinds of facets that it knows as words, for games with instructions; its demonstrations are of such games then.
    Without any it is the model of the paper's game."""

    def settings(self) -> dict[str, Any]:
        """All fields as a dictionary, kinds only if there are some: a model without keeps its name."""
        named = dataclasses.asdict(self)
        if not self.kinds:
            del named["kinds"]
        return named


def load_pocket(split: Split, config: PocketConfig | None = None, *, cache_dir: Path | None = None) -> Backbone:
    """The pocket backbone of a split, built at the first call and cached by the hash of everything it is made from."""
    config = config or PocketConfig()
    folder = (cache_dir or user_cache_path("coars") / "pocket") / content_hash(split, config)[:16]
    if not (folder / "pocket.json").exists():
        _build(split, config, folder)
    return open_pocket(folder)


def open_pocket(folder: Path) -> Backbone:
    """A pocket backbone by its folder, an ordinary transformers one."""
    try:
        card = json.loads((folder / "pocket.json").read_text(encoding="utf-8"))
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        provenance = Provenance(**card["provenance"])
    except Exception as error:  # json, safetensors, tokenizers and transformers each have errors of their own
        raise BackboneError(
            f"A pocket folder holds a model, a tokenizer and pocket.json. Expected them in {folder}, found {error!r}. "
            "Delete the folder: it is built again."
        ) from error
    return Backbone(model, tokenizer, list_separator="", max_reason_tokens=12, trained_on=provenance)


def content_hash(split: Split, config: PocketConfig) -> str:
    """SHA-256 of all that goes into the model: the training sequences, the catalogue, the wording, the settings."""
    h = hashlib.sha256()
    for part in (
        POCKET_VERSION,
        config.settings(),
        POCKET_PHRASES,
        REASONS,
        CHAT_TEMPLATE,
        split.dataset.items,
    ):
        h.update(repr(part).encode())
    for sequence in split.train:
        h.update(repr(sequence.items).encode())
    if config.kinds:
        values = [[item.values(kind) for kind in config.kinds] for item in split.dataset.items]
        h.update(repr((INSTRUCTED_VERSION, POCKET_INSTRUCTED_PHRASES, values)).encode())
    return h.hexdigest()


# --- tokenizer --------------------------------------------------------------------------------------------------------


def train_tokenizer(split: Split, kinds: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE on facts and wording; a title (with the blank before it) or a fixed phrase is one added token. So
    is a facet of one of `kinds`, and a question.
    """
    items = split.dataset.items
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [END, PAD, *ROLE_MARKS]
    words = [" ".join(i.genres) + (f" {i.year}" if i.year else "") for i in items] + ["".join(POCKET_PHRASES)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    reasons = [piece for group in REASONS.values() for reason in group for piece in reason if piece]
    fixed = [*POCKET_PHRASES, YES, NO, NEXT, *POCKET_SCORES, *reasons, *POCKET_ACTIONS]
    whole = [*fixed, *(" " + item.title for item in items)]
    if kinds:
        named = [" " + text for text in facet_texts(items, kinds).values()]
        whole += [*POCKET_INSTRUCTED_PHRASES, FACET, BOTH, *map(question, kinds), *named]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in dict.fromkeys(whole) if len(text) > 1])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, extra_special_tokens=list(ROLE_MARKS)
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


# --- model ------------------------------------------------------------------------------------------------------------


def new_model(vocabulary: int, config: PocketConfig, pad: int, end: int) -> Qwen3ForCausalLM:
    """Weights from a generator of our own: normal of .02 for matrices, ones for norms."""
    shape = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.hidden // config.heads,
        intermediate_size=config.hidden * 3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=end,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        model = Qwen3ForCausalLM(shape)
    generator = torch.Generator().manual_seed(config.seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.02, generator=generator)
        else:
            assert "norm" in name
            parameter.data.fill_(1.0)
    return model


Rows = tuple[list[list[int]], list[list[Mark]]]
"""Token ids, and which of them are learnt."""

KINDS: tuple[RowKind, ...] = ("guided", "plain", "guided", "guided", "diagnosis", "guided", "plain", "guided")
"""Demonstrations in turn. Most are guided: to find in a list what hindsight names takes the longest to learn."""


def batches(split: Split, backbone: Backbone, config: PocketConfig) -> Iterator[Rows]:
    """Rows of training text without end: of eight rows five are `knowledge`, three are demonstrations."""
    rng = np.random.default_rng([config.seed, 1])
    demonstrator = Demonstrator(split, backbone, rng, config.kinds)
    peers = SvdPeers(split)  # whatever the game's are: an SVD takes a moment
    train = [sequence for sequence in split.train if len(sequence.items) > 1]
    lengths = np.array([len(sequence.items) for sequence in train], dtype=np.float64)
    weights = lengths / lengths.sum()
    while True:
        ids: list[list[int]] = []
        learnt: list[list[Mark]] = []
        texts, demonstrations = count(), count()
        for row in range(config.batch):
            if row % 8 in (1, 4, 6):
                tokens, marks = demonstrator.row(KINDS[next(demonstrations) % len(KINDS)])
            else:
                sequence = train[int(rng.choice(len(train), p=weights))]
                items, length, kinds = split.dataset.items, config.sequence_length, config.kinds
                text, choices = knowledge(next(texts), sequence, items, peers, rng, length=length, kinds=kinds)
                tokens = backbone.encode_all(text)
                marks = [not choices] * len(tokens)
                for place, options in choices.items():  # each piece of such a text is one token
                    marks[place] = tuple(backbone.encode_all(options))
            ids.append(tokens)
            learnt.append(marks)
        yield ids, learnt


def text_loss(model: Qwen3ForCausalLM, rows: Rows, pad: int) -> Tensor:
    """Sum of the negative log-likelihoods of the learnt tokens."""
    ids, learnt = rows
    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), pad)
    mask = torch.zeros((len(ids), length), dtype=torch.bool)
    for row, (line, marks) in enumerate(zip(ids, learnt, strict=True)):
        tokens[row, : len(line)] = torch.tensor(line)
        mask[row, : len(line)] = torch.tensor(list(map(bool, marks)))
    mask[:, 0] = False
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[mask[:, 1:]])
    chosen = [mark for marks in learnt for mark in marks[1:] if mark]
    if choices := {place: mark for place, mark in enumerate(chosen) if isinstance(mark, tuple)}:
        others = torch.zeros(logits.shape, dtype=torch.bool)
        for place, options in choices.items():
            others[place] = True
            others[place, list(options)] = False
        logits = logits.masked_fill(others, -torch.inf)
    return nn.functional.cross_entropy(logits, tokens[:, 1:][mask[:, 1:]], reduction="sum")


def buckets(rows: Rows, most: int = 700) -> Iterator[Rows]:
    """The rows in groups of similar length, of at most `most` tokens with their padding unless one row is longer."""
    order = sorted(range(len(rows[0])), key=lambda r: len(rows[0][r]))
    part: list[int] = []
    for row in [*order, None]:
        if part and (row is None or (len(part) + 1) * len(rows[0][row]) > most):
            yield [rows[0][r] for r in part], [rows[1][r] for r in part]
            part = []
        if row is not None:
            part.append(row)


def new_optimizers(model: Qwen3ForCausalLM, config: PocketConfig) -> tuple[Muon, AdamW]:
    """Muon for the matrices between embedding and output, AdamW for the rest; norms do not decay. With Muon a step
    teaches more, above all to find in a list what hindsight names; see docs/log.md.
    """
    inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" in name]
    norms = [p for p in model.parameters() if p.dim() == 1]
    decay = config.weight_decay
    groups = [{"params": outer, "weight_decay": decay}, {"params": norms, "weight_decay": 0.0}]
    return (
        Muon(inner, lr=config.learning_rate, weight_decay=decay),
        AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98)),
    )


class Halves:
    """The gradient of a step, one half of its buckets on each of two threads of one core.

    So a step takes little more than half as long as with both cores on one bucket, and its bits depend on neither the
    number of cores nor which thread is the faster.
    """

    def __init__(self, model: Qwen3ForCausalLM, pad: int) -> None:
        self._model, self._pad = model, pad
        self._parameters = list(model.parameters())

    def __enter__(self) -> Self:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def backward(self, rows: Rows) -> float:
        """The mean loss of the learnt tokens; its gradient is in the parameters afterwards."""
        parts = list(buckets(rows))
        learnt = sum(sum(map(bool, marks[1:])) for marks in rows[1])
        first, second = self._pool.map(self._half, (parts[::2], parts[1::2]))
        for parameter, one, other in zip(self._parameters, first[1], second[1], strict=True):
            parameter.grad = (one + other) / learnt
        return (first[0] + second[0]) / learnt

    def _half(self, parts: Sequence[Rows]) -> tuple[float, list[Tensor]]:
        """Sums of the losses and of their gradients."""
        total, gradient = 0.0, [torch.zeros_like(parameter) for parameter in self._parameters]
        for part in parts:
            loss = text_loss(self._model, part, self._pad)
            for kept, more in zip(gradient, torch.autograd.grad(loss, self._parameters), strict=True):
                kept += more
            total += float(loss.detach())
        return total, gradient


@contextmanager
def ahead(stream: Iterator[Rows]) -> Iterator[Iterator[Rows]]:
    """The same stream, each item of it made while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:

        def made() -> Iterator[Rows]:
            coming = pool.submit(next, stream)
            while True:
                ready = coming.result()
                coming = pool.submit(next, stream)
                yield ready

        yield made()


def _build(split: Split, config: PocketConfig, folder: Path) -> None:
    tokenizer = train_tokenizer(split, config.kinds)
    pad, end = (tokenizer.get_vocab()[mark] for mark in (PAD, END))
    model = new_model(len(tokenizer), config, pad, end)
    backbone = Backbone(model, tokenizer, list_separator="", max_reason_tokens=12)
    model.requires_grad_(True)
    optimizers = new_optimizers(model, config)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
    rows = batches(split, backbone, config)
    with Progress(*columns) as progress, ahead(rows) as stream, Halves(model, pad) as halves:
        bar = progress.add_task("building the pocket backbone", total=config.steps, loss="")
        for step in range(config.steps):
            warm = min(1.0, (step + 1) / (0.05 * config.steps))
            rate = config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))
            for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
                group["lr"] = rate
            loss = halves.backward(next(stream))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            progress.update(bar, advance=1, loss=f"loss {loss:.3f}")
    _save(model, tokenizer, split, config, folder)


def _save(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, split: Split, config: PocketConfig, folder: Path
) -> None:
    card = {
        "version": POCKET_VERSION,
        "split": split.name,
        "provenance": dataclasses.asdict(split.dataset.provenance),
        "config": config.settings(),
        "content_hash": content_hash(split, config),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if not (folder / "pocket.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with atomic_path(folder) as part:
            with quiet():
                model.save_pretrained(part)
                tokenizer.save_pretrained(part)
            (part / "pocket.json").write_text(json.dumps(card, indent=2), encoding="utf-8")
    except OSError:
        if not (folder / "pocket.json").exists():  # else another process has built the same meanwhile
            raise
