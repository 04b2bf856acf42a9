"""Ranks: where the target stands among all items; HR@k, NDCG@k and the expected Hit@1 over candidate lists.

Items with the same score stand in an order drawn at random, as the agents here break ties; every figure is the
expectation over that order. A model that says the same of all items is so at chance, neither at 0 nor at 1.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ConfigError, ShapeError, expect, whole_number
from coars_env.tasks import HISTORY_LENGTH, NUM_CANDIDATES, Split

CUTOFFS = (5, 10, 20)
"""The k of HR@k and NDCG@k."""


_PLACES = "Places are counted from 1."


@runtime_checkable
class Ranker(Protocol):
    """Whatever scores all items for a history."""

    def scores(self, histories: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        """Visible histories, oldest first, at most `HISTORY_LENGTH` items, maybe none -> [M, I], higher is better."""
        ...


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where M targets stand, each among its own others. Example: `target_ranks(scores, targets).hit_rate(10).mean()`.

    All three arrays are [M]. With `better` = 2 and `tied` = 1 the target is third or fourth, either with probability
    1/2, so that HR@3 is 1/2.
    """

    better: IntArray
    """Others with a higher score; -1 where there is no target, and then every figure is NaN."""
    tied: IntArray
    """Others with the same score."""
    others: IntArray
    """Items that are ranked, the target not counted."""

    def hit_rate(self, k: int) -> FloatArray:
        """HR@k: the probability that the target is among the first k, in [0, 1]; NaN without a target. [M]

        Raises:
            ConfigError: k is no whole number from 1 on.
        """
        return self._expected(np.ones(whole_number(_PLACES, "k", k, 1)))

    def ndcg(self, k: int) -> FloatArray:
        """NDCG@k: 1 / log2(1 + rank) if the target is among the first k, else 0; in [0, 1]; NaN without a target. [M]

        K. Jarvelin and J. Kekalainen (TOIS 2002, doi:10.1145/582415.582418) for one relevant item, whose ideal is 1.

        Raises:
            ConfigError: k is no whole number from 1 on.
        """
        return self._expected(1 / np.log2(np.arange(2, whole_number(_PLACES, "k", k, 1) + 2)))

    def _expected(self, gains: FloatArray) -> FloatArray:
        """Mean of the gain over the places that the target may have. `gains` [k]: of the first k places; 0 below."""
        sums = np.concatenate([[0.0], np.cumsum(gains)])
        first, last = (np.minimum(place, len(gains)) for place in (self.better, self.better + self.tied + 1))
        return np.where(self.better < 0, np.nan, (sums[last] - sums[first]) / (self.tied + 1))


def expected_hit(ranks: Ranks, *, num_candidates: int = NUM_CANDIDATES) -> FloatArray:
    """Hit@1 over all candidate lists: the target and K - 1 of its N others, every choice equally likely. [M]

    C(N - r, K - 1) / C(N, K - 1) with r better ones, since none of them may be in the list. With t ties the mean of
    that over r .. r + t, which telescopes to (C(N - r + 1, K) - C(N - r - t, K)) / ((t + 1) C(N, K - 1)). Where N is
    below K - 1 the list holds them all. Equal titles are not looked for. In [0, 1]; NaN without a target.

    Raises:
        ConfigError: fewer than two candidates.
    """
    num_candidates = whole_number("A choice needs candidates.", "num_candidates", num_candidates, 2)
    drawn, others = num_candidates - 1, ranks.others
    steps = np.arange(drawn)
    below = np.maximum(others, drawn)[:, None] - steps  # [M, K - 1] factors of C(N, K - 1)

    def lists(n: IntArray) -> FloatArray:
        """C(n, K) / C(N, K - 1) = n / K * C(n - 1, K - 1) / C(N, K - 1)."""
        factors = np.maximum(n[:, None] - 1 - steps, 0) / below
        return np.asarray(n / num_candidates * factors.prod(1))

    first = others - ranks.better + 1
    won = np.where(others < drawn, ranks.better == 0, lists(first) - lists(first - ranks.tied - 1))
    return np.where(ranks.better < 0, np.nan, won / (ranks.tied + 1))


def target_ranks(
    scores: npt.NDArray[Any], targets: Sequence[int] | IntArray, left_out: Sequence[Collection[int]] | None = None
) -> Ranks:
    """Where each target stands in its row.

    Args:
        scores: [M, I], higher is better.
        targets: [M], an index into the row; -1 where there is none.
        left_out: items of each row that are not ranked, such as those the user took before; the target always is.

    Raises:
        ShapeError: the arrays do not fit each other, or a score is NaN.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.dtype.kind not in "fiub" or (targets.size and targets.dtype.kind not in "iu"):
        raise ShapeError(
            f"Scores and targets are numbers. Expected arrays of numbers and of whole ones, found {scores.dtype} and "
            f"{targets.dtype}. Convert them."
        )
    targets = targets.astype(np.int64)
    rows = np.arange(len(targets))
    if scores.ndim != 2 or len(scores) != len(targets) or (left_out is not None and len(left_out) != len(targets)):
        raise ShapeError(
            f"A ranking needs a row of scores for each target. Expected [{len(targets)}, I] and as many lists of what "
            f"is left out, found {list(scores.shape)} and {len(left_out or ())}. Pass one a row."
        )
    outside = targets[(targets < -1) | (targets >= scores.shape[1])].tolist()
    outside += [item for items in left_out or () for item in items if not 0 <= item < scores.shape[1]]
    if outside or np.isnan(scores).any():
        raise ShapeError(
            f"Targets, and what is left out, are places in rows of numbers. Expected -1..{scores.shape[1] - 1} and no "
            f"NaN, found {outside[:10]} outside and {int(np.isnan(scores).sum())} NaN. Correct the model."
        )
    ranked = np.ones(scores.shape, dtype=np.bool_)
    for row, items in enumerate(left_out or ()):
        ranked[row, list(items)] = False
    ranked[rows, targets] = False  # of -1 the last item, which does not matter
    own = scores[rows, targets][:, None]
    better, tied = (np.count_nonzero(found & ranked, axis=1) for found in (scores > own, scores == own))
    missing = targets < 0
    return Ranks(np.where(missing, -1, better), np.where(missing, 0, tied), np.count_nonzero(ranked, axis=1))


def full_ranking(
    ranker: Ranker, split: Split, subset: Literal["validation", "test"] = "test", *, batch_size: int = 512
) -> Ranks:
    """Where the held-out items of a part of a split stand among all items that their users do not own, by row.

    Args:
        ranker: is asked for `batch_size` histories at a time.
        split: what is held out.
        subset: the part; its rows stand in the order of `freeze`.
        batch_size: changes speed and memory, not the result.

    Raises:
        ShapeError: the ranker does not give a number for each item.
        ConfigError: there is no such part, or it is no ranker or no split.
    """
    expect(Ranker, ranker, "A ranker has a method `scores`.", "See `coars_env.Ranker`.")
    expect(Split, split, "What is ranked is held out by a split.", "`load_split` makes one.")
    if subset not in ("validation", "test"):
        raise ConfigError(f"What is ranked was held out. Expected 'validation' or 'test', found {subset!r}.")
    sequences = split.validation if subset == "validation" else split.test
    batch_size = whole_number("A batch holds histories.", "batch_size", batch_size, 1)
    parts = [Ranks(*np.zeros((3, 0), dtype=np.int64))]
    for first in range(0, len(sequences), batch_size):
        batch = sequences[first : first + batch_size]
        scores = ranker.scores([s.items[:-1][-HISTORY_LENGTH:] for s in batch])
        if np.shape(scores) != (len(batch), split.dataset.num_items):
            raise ShapeError(
                f"A ranker scores all items. Expected [{len(batch)}, {split.dataset.num_items}], found "
                f"{list(np.shape(scores))}. Correct its scores."
            )
        parts.append(target_ranks(scores, [s.items[-1] for s in batch], [split.owned[s.user] for s in batch]))
    return Ranks(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("better", "tied", "others")))


def ranking_metrics(ranks: Ranks) -> dict[str, FloatArray]:
    """HR@k and NDCG@k for each k of `CUTOFFS`, [M] each: one value a user, ready for `bootstrap_interval`."""
    rates = {f"HR@{k}": ranks.hit_rate(k) for k in CUTOFFS}
    return rates | {f"NDCG@{k}": ranks.ndcg(k) for k in CUTOFFS}
