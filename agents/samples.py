"""TrainingSample: one side of one dialogue as tokens, with the reward of each turn; and batches of them as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.backbones.backbone import Backbone
from agents.kv import Allowed
from agents.llm_agent import Row
from agents.prompts import hindsight
from coars_env import RECOMMENDER, Item, RewardTerms, Role, ShapeError, Transcript

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


@dataclass(frozen=True)
class TrainingSample:
    """One side of one dialogue. `turns` leaves out excluded ones: their tokens are context and nothing else.

    `token_ids`, `rollout_logprobs` and `allowed` have length L; see `Row`.
    """

    token_ids: list[int]
    rollout_logprobs: list[float]
    allowed: list[Allowed]
    turns: tuple[TurnSample, ...]


def training_sample(
    row: Row,
    role: Role,
    transcript: Transcript,
    terms: Sequence[RewardTerms],
    items: Sequence[Item],
    backbone: Backbone,
) -> TrainingSample:
    """Join a side's tokens to the transcript by turn.

    Raises:
        ShapeError: the row has another number of replies than the transcript has turns.
    """
    if transcript.ending == "failed" or len(row.replies) != len(transcript.turns):
        raise ShapeError(
            f"A row belongs to one finished dialogue. Expected {len(transcript.turns)} replies and no failure, found "
            f"{len(row.replies)} and ending {transcript.ending!r} ({transcript.cause}). Leave failed dialogues out."
        )
    turns = []
    for number, ((start, end), term) in enumerate(zip(row.replies, terms, strict=True), start=1):
        if role in term.excluded:
            continue
        told = hindsight(role, transcript.task, transcript.turns[:number], items)
        turns.append(
            TurnSample(
                row.context_ends[number - 1],
                start,
                end,
                tuple(c for c in range(start, end) if row.sampled[c]),
                term.recommender if role == RECOMMENDER else term.user,
                tuple(backbone.encode_all(told)),
                term.hit,
            )
        )
    return TrainingSample(row.token_ids, row.logprobs, row.allowed, tuple(turns))


def balanced(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """The samples weighed so that turns with a hit and turns with a miss have equal weight in sum.

    With n turns, h of them hits: a hit weighs n / (2 h), a miss n / (2 (n - h)); 1 each where one kind is missing.
    """
    hits = [turn.hit for sample in samples for turn in sample.turns]
    n, h = len(hits), sum(hits)
    weight = {True: n / (2 * h), False: n / (2 * (n - h))} if 0 < h < n else {True: 1.0, False: 1.0}
    return [
        replace(sample, turns=tuple(replace(turn, weight=weight[turn.hit]) for turn in sample.turns))
        for sample in samples
    ]


@dataclass(frozen=True)
class Batch:
    """Samples as tensors, N scored tokens in all, in the order sample, turn, column."""

    token_ids: Tensor  # [B, L] padded on the right
    places: tuple[Tensor, Tensor]  # row and column of each scored token, [N] each
    allowed: list[Allowed]  # [N]
    rollout_logprobs: Tensor  # [N]
    rewards: Tensor  # [N] reward of the token's turn
    weights: Tensor  # [N] weight of the turn / |y_t|


@dataclass(frozen=True)
class TeacherBatch:
    """The same N tokens with hindsight before each reply, to be read after the dialogues of `collate`, M columns wide.

    A row is one block a turn: hindsight, reply header, reply. A block goes on from the end of its turn's context, sees
    that and itself, and nothing else, so all turns of a dialogue are scored in one pass.
    """

    token_ids: Tensor  # [B, L]
    position_ids: Tensor  # [B, L]
    mask: Tensor  # [B, 1, L, M + L] bool
    places: tuple[Tensor, Tensor]
    allowed: list[Allowed]


def collate(samples: Sequence[TrainingSample], pad: int, device: torch.device) -> Batch:
    rows = [r for r, s in enumerate(samples) for t in s.turns for _ in t.columns]
    columns = [c for s in samples for t in s.turns for c in t.columns]
    return Batch(
        _padded([s.token_ids for s in samples], pad).to(device),
        (torch.tensor(rows, device=device), torch.tensor(columns, device=device)),
        [samples[r].allowed[c] for r, c in zip(rows, columns, strict=True)],
        torch.tensor([samples[r].rollout_logprobs[c] for r, c in zip(rows, columns, strict=True)], device=device),
        torch.tensor([t.reward for s in samples for t in s.turns for _ in t.columns], device=device),
        torch.tensor([t.weight / len(t.columns) for s in samples for t in s.turns for _ in t.columns], device=device),
    )


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
    context = torch.arange(max(len(s.token_ids) for s in samples)) < limit_ids[:, :, None]
    return TeacherBatch(
        _padded(lines, pad).to(device),
        position_ids.to(device),
        torch.cat((context, own), 2)[:, None].to(device),
        (torch.tensor(rows, device=device), torch.tensor(columns, device=device)),
        allowed,
    )


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    out = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out)
