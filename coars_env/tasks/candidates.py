"""CandidateSampler, TopCandidates: which items stand beside the target."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray, IntArray, Item
from coars_env.errors import TaskError, expect, whole_number
from coars_env.tasks.splits import Split

CandidateSampler = Callable[[frozenset[int], int, np.random.Generator], IntArray]
"""(items that must not be drawn, how many, generator) -> distinct catalogue indices, shape [n]."""


def uniform_candidates(num_items: int) -> CandidateSampler:
    """Every allowed item is equally likely.

    Raises:
        ConfigError: no number of items.
        TaskError: when drawing, fewer allowed items than are asked for.
    """
    num_items = whole_number("Candidates are drawn from a catalogue.", "num_items", num_items, 0)

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        check_enough(num_items - len(forbidden), n)
        chosen: dict[int, None] = {}
        while missing := n - len(chosen):
            drawn = rng.integers(num_items, size=missing).tolist()
            chosen.update((item, None) for item in drawn if item not in forbidden)
        return np.array(list(chosen), dtype=np.int64)

    return draw


def popularity_candidates(split: Split) -> CandidateSampler:
    """An allowed item is drawn in proportion to its training interactions (never-taken items count as .01).

    Raises:
        TaskError: when drawing, fewer allowed items than are asked for.
    """
    counts = np.full(split.dataset.num_items, 0.01)
    for sequence in split.train:
        counts[list(sequence.items)] += 1.0  # an item stands once in a sequence

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        check_enough(len(counts) - len(forbidden), n)
        weights = counts.copy()
        weights[list(forbidden)] = 0.0
        return rng.choice(len(weights), size=n, replace=False, p=weights / weights.sum()).astype(np.int64)

    return draw


Scorer = Callable[[IntArray, IntArray], FloatArray]
"""(history [H], oldest first; items [N]) -> scores [N], higher is better. All are catalogue indices; H may be 0."""


def scores_of(scorer: Scorer, history: npt.ArrayLike, items: IntArray) -> FloatArray:
    """What a scorer says of items, checked. Shape [N].

    Raises:
        TaskError: it does not say a number for each.
    """
    found = scorer(np.asarray(history, dtype=np.int64), items)
    try:
        scores = np.asarray(found, dtype=np.float64)
        wrong = scores.shape != items.shape or bool(np.isnan(scores).any())
    except (TypeError, ValueError):
        wrong = True
    if wrong:
        raise TaskError(
            f"A scorer must score what it is asked for. Expected {len(items)} numbers, none of them NaN, found "
            f"{found!r:.200}. Correct the scorer."
        )
    return scores


@dataclass(frozen=True)
class TopCandidates:
    """The items that a scorer likes best for a history: a list as hard as the scorer is good. Only its order is drawn.

    In the place of a sampler: `TaskBuilder(split, TopCandidates(scorer))`. What the builder bars is not offered. Equal
    scores go by catalogue index; scores that differ by rounding between machines should be rounded by the scorer.
    """

    scorer: Scorer
    keep_target: bool = True
    """True: the target takes the last place if the scorer did not put it among the best. False: the list is what the
    scorer retrieved, with or without the target, and tasks are marked as `retrieved`; the share of tasks that list
    their target then bounds every hit rate."""

    def __post_init__(self) -> None:
        expect(Callable, self.scorer, "The best items are those of a scorer.", "Pass a `Scorer`.")

    def best(self, history: Sequence[int], target: int, barred: frozenset[int], items: Sequence[Item]) -> Iterator[int]:
        """Items that are not barred, best first, each title once.

        The target is never barred, nor is its title given to another item.
        """
        scores = scores_of(self.scorer, np.array(history, dtype=np.int64), np.arange(len(items)))
        titles = {items[target].title}
        for item in np.argsort(-scores, kind="stable").tolist():
            if item == target or (item not in barred and items[item].title not in titles):
                titles.add(items[item].title)
                yield item


def check_enough(available: int, n: int) -> None:
    """Refuse to draw more items than there are."""
    if available < n:
        raise TaskError(
            f"There must be enough items to draw negatives from. Expected at least {n} that are not barred, found "
            f"{available}. Ask for fewer candidates."
        )
