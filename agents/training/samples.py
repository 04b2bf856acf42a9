"""TrainingSample: one side of one dialogue as tokens, with the reward of each turn; and batches of them as tensors."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import Allowed, unique_prefixes
from agents.models.prompts import hindsight, verdict
from agents.players.llm_agent import Row
from coars_env import Item, RewardTerms, Role, ShapeError, Task, Transcript, Turn, user_of

PADDING = 2**30
"""A position nobody sees."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TurnSample:
    """One reply y_t in its row.

    Example (tokens of the row: 7 8 9 | 5 | 3 4 6, the reply header is 5): the reply 3 4 6 with 3 given and 4, 6 chosen
    has `context_end=3`, `start=4`, `end=7`, `columns=(5, 6)`.
    """

    context_end: int
    """Column where the context x_t ends; the reply header follows, a teacher's hindsight goes before it."""
    start: int
    end: int
    columns: tuple[int, ...]
    """Columns of the tokens the side chose itself; they alone are trained on."""
    reward: float
    hindsight: tuple[int, ...]
    """Tokens of d_t."""
    hit: bool = False
    """Whether the turn's proposal was the target."""
    weight: float = 1.0
    """Factor of the whole turn, reward and credit."""
    number: int = 1
    """Which turn of the dialogue it is, from 1."""
    question: bool = False
    """Whether the turn is a question, neither hit nor miss."""


@dataclass(frozen=True)
class TrainingSample:
    """One side of one dialogue. `turns` leaves out excluded ones: their tokens are context and nothing else.

    `token_ids`, `rollout_logprobs` and `allowed` have length L; see `Row`.
    """

    token_ids: list[int]
    rollout_logprobs: list[float]
    allowed: list[Allowed]
    turns: tuple[TurnSample, ...]
    opening: int = 0
    """Tokens that all dialogues of the task begin with; see `Row`."""

    @property
    def shared_prefix(self) -> tuple[int, ...]:
        """What may be read once for all samples that begin so. The token before the first scored one is not in it."""
        return tuple(self.token_ids[: min(self.opening, self.turns[0].start - 1)])


def training_sample(
    row: Row,
    role: Role,
    transcript: Transcript,
    terms: Sequence[RewardTerms],
    items: Sequence[Item],
    backbone: Backbone,
    *,
    diagnosed: bool = True,
) -> TrainingSample:
    """Join a side's tokens to the transcript by turn. Not diagnosed, their hindsight ends with the verdict, for
    `agents.training.hindsight` to go on from.

    A user of a group, "user_1" say, has its own rewards, and the hindsight of the dialogue as it had it alone.

    Raises:
        ShapeError: the row has another number of replies than the transcript has turns.
    """
    if transcript.ending == "failed" or len(row.replies) != len(transcript.turns):
        raise ShapeError(
            f"A row belongs to one finished dialogue. Expected {len(transcript.turns)} replies and no failure, found "
            f"{len(row.replies)} and ending {transcript.ending!r} ({transcript.cause}). Leave failed dialogues out."
        )
    turns, (task, played) = [], _as_played_by(role, transcript)
    for number, ((start, end), term) in enumerate(zip(row.replies, terms, strict=True), start=1):
        if role in term.excluded:
            continue
        told = (hindsight if diagnosed else verdict)(role, task, played[:number], items)
        turns.append(
            TurnSample(
                row.context_ends[number - 1],
                start,
                end,
                tuple(c for c in range(start, end) if row.sampled[c]),
                term.rewards[role],
                tuple(backbone.encode_all(told)),
                term.hit,
                number=number,
                question=transcript.turns[number - 1].question is not None,
            )
        )
    return TrainingSample(row.token_ids, row.logprobs, row.allowed, tuple(turns), row.opening)


def _as_played_by(role: Role, transcript: Transcript) -> tuple[Task, tuple[Turn, ...]]:
    """The task and the turns of an agent: those of the dialogue, and for a user of a group its own part of them."""
    place = user_of(role)
    if place is None or not transcript.task.others:
        return transcript.task, transcript.turns
    turns = tuple(replace(turn, answers=(turn.answers[place],)) for turn in transcript.turns)
    return transcript.task.for_user(place), turns


def balance_hits(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """The samples weighed so that turns with a hit and turns with a miss have equal weight in sum.

    With n turns, h of them hits: a hit weighs n / (2 h), a miss n / (2 (n - h)); 1 each where one kind is missing.
    Questions are neither and weigh 1.
    """
    hits = [turn.hit for sample in samples for turn in sample.turns if not turn.question]
    n, h = len(hits), sum(hits)
    weight = {True: n / (2 * h), False: n / (2 * (n - h))} if 0 < h < n else {True: 1.0, False: 1.0}

    def weighed(turn: TurnSample) -> TurnSample:
        return replace(turn, weight=1.0 if turn.question else weight[turn.hit])

    return [replace(sample, turns=tuple(map(weighed, sample.turns))) for sample in samples]


def sort_by_length(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Short ones first, for little padding in a pass; but samples with a shared prefix stay together, where the
    longest of them would stand.
    """
    _, of_row = unique_prefixes([sample.shared_prefix for sample in samples])
    longest = [0] * len(samples)
    for sample, number in zip(samples, of_row, strict=True):
        longest[number] = max(longest[number], len(sample.token_ids))
    order = sorted(range(len(samples)), key=lambda n: (longest[of_row[n]], of_row[n], len(samples[n].token_ids)))
    return [samples[n] for n in order]


def shard_samples(samples: Sequence[TrainingSample], index: int, size: int) -> list[TrainingSample]:
    """The share of one among `size`: every size-th sample, samples with a shared prefix counting as one. Of samples
    sorted `sort_by_length` all get as many tokens, nearly.
    """
    _, of_row = unique_prefixes([sample.shared_prefix for sample in samples])
    return [sample for sample, number in zip(samples, of_row, strict=True) if number % size == index]


Baseline = Callable[[Sequence[TrainingSample]], list[TrainingSample]]
"""Takes something off each reward: `batch_mean`, `group_mean`, `group_normalized`, or a function of one's own."""


def batch_mean(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Subtract the mean reward over all trained turns of the side."""
    return _subtract(samples, lambda sample, turn: None)


def group_mean(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Subtract the mean reward of turn t over the dialogues of one task.

    A turn that no other dialogue of the task reaches is left with a reward of 0. Turn by turn is our choice.
    """
    return _subtract(samples, lambda sample, turn: (sample.shared_prefix, turn.number))


def group_normalized(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Subtract the mean of `group_mean` and divide by the standard deviation of the group plus 1e-6.

    The advantage of GRPO, arXiv:2402.03300.
    """
    return _subtract(samples, lambda sample, turn: (sample.shared_prefix, turn.number), normalized=True)


def _subtract(
    samples: Sequence[TrainingSample],
    group: Callable[[TrainingSample, TurnSample], Hashable],
    *,
    normalized: bool = False,
) -> list[TrainingSample]:
    rewards: dict[Hashable, list[float]] = {}
    for sample in samples:
        for turn in sample.turns:
            rewards.setdefault(group(sample, turn), []).append(turn.reward)
    means = {key: sum(values) / len(values) for key, values in rewards.items()}
    scales = {key: float(np.std(rewards[key])) + 1e-6 if normalized else 1.0 for key in rewards}

    def less(sample: TrainingSample, turn: TurnSample) -> TurnSample:
        key = group(sample, turn)
        return replace(turn, reward=(turn.reward - means[key]) / scales[key])

    return [replace(s, turns=tuple(less(s, t) for t in s.turns)) for s in samples]


@dataclass(frozen=True)
class SharedPrefixes:
    """What rows have in common: U prefixes of up to P tokens, to be read before the rows, which hold the rest."""

    token_ids: Tensor  # [U, P] padded on the right
    of_row: Tensor  # [B] number of each row's prefix


@dataclass(frozen=True)
class Batch:
    """Samples as tensors, N scored tokens in all, in the order sample, turn, column.

    Where several samples have a shared prefix, the rows go on from `shared_prefixes`; otherwise each
    holds its whole dialogue.
    """

    token_ids: Tensor  # [B, L] padded on the right
    places: tuple[Tensor, Tensor]  # row and column of each scored token, [N] each
    allowed: list[Allowed]  # [N]
    rollout_logprobs: Tensor  # [N]
    rewards: Tensor  # [N] reward of the token's turn
    weights: Tensor  # [N] weight of the turn / |y_t|
    shared_prefixes: SharedPrefixes | None = None
    position_ids: Tensor | None = None  # [B, L] of rows that go on
    mask: Tensor | None = None  # [B, 1, L, P + L] bool: they see their shared prefix, and themselves up to each token


@dataclass(frozen=True)
class TeacherBatch:
    """The same N tokens with hindsight before each reply, to be read after the dialogues of `collate`, M columns wide,
    those of shared prefixes included.

    A row is one block a turn: hindsight, reply header, reply. A block goes on from the end of its turn's context, sees
    that and itself, and nothing else, so all turns of a dialogue are scored in one pass.
    """

    token_ids: Tensor  # [B, L]
    position_ids: Tensor  # [B, L]
    mask: Tensor  # [B, 1, L, M + L] bool
    places: tuple[Tensor, Tensor]
    allowed: list[Allowed]


def collate(samples: Sequence[TrainingSample], pad: int, device: torch.device) -> Batch:
    heads, distinct, of_row = _prefixes(samples)
    rows = [r for r, s in enumerate(samples) for t in s.turns for _ in t.columns]
    columns = [c for s in samples for t in s.turns for c in t.columns]
    token_ids = _padded([s.token_ids[head:] for s, head in zip(samples, heads, strict=True)], pad)
    shared_prefixes = position_ids = mask = None
    if distinct:
        shared_prefixes = SharedPrefixes(_padded(distinct, pad).to(device), torch.tensor(of_row, device=device))
        head, rest = torch.tensor(heads)[:, None], torch.arange(token_ids.shape[1])
        begun, own = torch.arange(max(heads)) < head, rest[:, None] >= rest  # [B, P], [L, L]
        sees = torch.cat((begun[:, None].expand(-1, len(rest), -1), own.expand(len(samples), -1, -1)), 2)
        position_ids, mask = (head + rest).to(device), sees[:, None].to(device)
    return Batch(
        token_ids.to(device),
        (
            torch.tensor(rows, dtype=torch.long, device=device),
            torch.tensor([c - heads[r] for r, c in zip(rows, columns, strict=True)], dtype=torch.long, device=device),
        ),
        [samples[r].allowed[c] for r, c in zip(rows, columns, strict=True)],
        torch.tensor([samples[r].rollout_logprobs[c] for r, c in zip(rows, columns, strict=True)], device=device),
        torch.tensor([t.reward for s in samples for t in s.turns for _ in t.columns], device=device),
        torch.tensor([t.weight / len(t.columns) for s in samples for t in s.turns for _ in t.columns], device=device),
        shared_prefixes,
        position_ids,
        mask,
    )


def _prefixes(samples: Sequence[TrainingSample]) -> tuple[list[int], list[tuple[int, ...]], list[int]]:
    """Length of what each sample begins with, the distinct prefixes, and the number of each sample's; no prefixes
    and lengths of 0 where nothing would be saved.
    """
    prefixes = [sample.shared_prefix for sample in samples]
    distinct, of_row = unique_prefixes(prefixes)
    if len(distinct) == len(samples):
        return [0] * len(samples), [], of_row
    return [len(prefix) for prefix in prefixes], distinct, of_row


def collate_teacher(samples: Sequence[TrainingSample], pad: int, device: torch.device) -> TeacherBatch:
    lines: list[list[int]] = []
    blocks: list[list[int]] = []  # number of the block a token stands in, from 1
    positions: list[list[int]] = []
    limits: list[list[int]] = []  # columns of the dialogue that a token may see
    rows: list[int] = []
    columns: list[int] = []
    allowed: list[Allowed] = []
    for row, sample in enumerate(samples):
        for store in (lines, blocks, positions, limits):
            store.append([])
        for number, turn in enumerate(sample.turns, start=1):
            block = [*turn.hindsight, *sample.token_ids[turn.context_end : turn.end]]
            shift = len(lines[row]) + len(turn.hindsight) - turn.context_end
            rows += [row] * len(turn.columns)
            columns += [c + shift for c in turn.columns]
            allowed += [sample.allowed[c] for c in turn.columns]
            lines[row] += block
            blocks[row] += [number] * len(block)
            positions[row] += range(turn.context_end, turn.context_end + len(block))
            limits[row] += [turn.context_end] * len(block)
    block_ids, position_ids, limit_ids = (_padded(x, 0) for x in (blocks, positions, limits))
    order = torch.arange(block_ids.shape[1])
    own = (order[:, None] >= order) & (block_ids[:, :, None] == block_ids[:, None, :])  # every query sees itself
    context = _columns(samples)[:, None] < limit_ids[:, :, None]
    return TeacherBatch(
        _padded(lines, pad).to(device),
        position_ids.to(device),
        torch.cat((context, own), 2)[:, None].to(device),
        (
            torch.tensor(rows, dtype=torch.long, device=device),
            torch.tensor(columns, dtype=torch.long, device=device),
        ),
        allowed,
    )


def _columns(samples: Sequence[TrainingSample]) -> Tensor:
    """Position of what stands in each of the M columns that `collate` makes; past all tokens where it only pads.
    [B, M], or [1, M] where the rows begin for themselves.
    """
    heads, distinct, _ = _prefixes(samples)
    width = max(len(s.token_ids) - head for s, head in zip(samples, heads, strict=True))
    if not distinct:
        return torch.arange(width)[None]
    head, begun = torch.tensor(heads)[:, None], torch.arange(max(heads))
    return torch.cat((torch.where(begun < head, begun, PADDING), head + torch.arange(width)), 1)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    out = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out)
