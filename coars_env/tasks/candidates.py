"""CandidateSampler, ConfusableCandidates, TopCandidates: which items stand beside the target."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import OWN_KINDS, FloatArray, IntArray, Item
from coars_env.errors import ConfigError, TaskError, expect, whole_number
from coars_env.tasks.instruction import facet_kinds
from coars_env.tasks.instructions import LIKE, with_likes
from coars_env.tasks.splits import Split

CandidateSampler = Callable[[frozenset[int], int, np.random.Generator], IntArray]
"""(items that must not be drawn, how many, generator) -> distinct catalogue indices, shape [n]."""


CandidateRule = Literal["uniform", "popularity", "confusable", "llara"]


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
    counts = _popularity(split)

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        check_enough(len(counts) - len(forbidden), n)
        return _weighted(counts, forbidden, n, rng)

    return draw


def _popularity(split: Split) -> FloatArray:
    """Training interactions of each item, and .01. [I]."""
    counts = np.full(split.dataset.num_items, 0.01)
    for sequence in split.train:
        counts[list(sequence.items)] += 1.0  # an item stands once in a sequence
    return counts


def _weighted(weights: FloatArray, forbidden: Collection[int], n: int, rng: np.random.Generator) -> IntArray:
    """As many different allowed items, in proportion to their weights. [n]."""
    weights = weights.copy()
    weights[list(forbidden)] = 0.0
    return rng.choice(len(weights), size=n, replace=False, p=weights / weights.sum()).astype(np.int64)


class ConfusableCandidates:
    """Negatives that share facets with the target, so that one word does not decide.

    In the place of a sampler: `TaskBuilder(split, ConfusableCandidates(split))`. Four fifths (15 of 19) share at least
    one facet and are drawn in proportion to popularity times exp(.7 x shared facets), the others by popularity alone,
    which also fills up where too few share a facet. All three numbers are our choice.
    """

    SHARE = 0.8
    """Of the negatives that share a facet with the target."""
    PULL = 0.7
    """How much each shared facet adds to the logarithm of the weight."""

    def __init__(self, split: Split, kinds: Sequence[str] = OWN_KINDS) -> None:
        """Read popularity from the training part, and the facets of all items.

        Args:
            split: the data.
            kinds: which facets count; kinds that the data lack are left out.

        Raises:
            ConfigError: it is no split, or no item has a facet of these kinds.
        """
        expect(Split, split, "Candidates are drawn from a split.", "`coars_env.load_split` makes one.")
        self._items, self._counts = split.dataset.items, _popularity(split)
        holders: dict[tuple[str, str], list[int]] = {}
        for index, item in enumerate(self._items):
            for facet in ((kind, value) for kind in kinds for value in item.values(kind)):
                holders.setdefault(facet, []).append(index)
        if not holders:
            known = ", ".join(map(repr, facet_kinds(self._items))) or "none"
            raise ConfigError(
                f"Confusable candidates must share facets with the target, of which {split.dataset.name!r} has none of "
                f"kind {' or '.join(map(repr, kinds))}. Choose kinds that it has ({known}), or 'like' after "
                "`with_likes(split)`."
            )
        self._kinds = tuple(kinds)
        self._holders = {facet: np.array(indices, dtype=np.int64) for facet, indices in holders.items()}

    def of(self, target: int) -> CandidateSampler:
        """Return the sampler of a target."""
        item, shared = self._items[target], np.zeros(len(self._items))
        for facet in ((kind, value) for kind in self._kinds for value in item.values(kind)):
            shared[self._holders[facet]] += 1.0
        near = np.where(shared > 0, self._counts * np.exp(self.PULL * shared), 0.0)

        def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
            check_enough(len(near) - len(forbidden), n)
            allowed = np.count_nonzero(near) - np.count_nonzero(near[list(forbidden)])
            close = min(round(self.SHARE * n), int(allowed))
            first = _weighted(near, forbidden, close, rng) if close else np.empty(0, dtype=np.int64)
            rest = _weighted(self._counts, forbidden.union(first.tolist()), n - close, rng)
            return np.concatenate([first, rest])

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


AnySampler = CandidateSampler | ConfusableCandidates | TopCandidates
"""What a `TaskBuilder` draws candidates with."""


def sampler_of(
    rule: CandidateRule, split: Split, kinds: Sequence[str] | None = None
) -> CandidateSampler | ConfusableCandidates:
    """Return the sampler of a rule. "llara" draws uniformly, too; what it bars is the builder's affair.

    Args:
        rule: its name.
        split: the data.
        kinds: facets that "confusable" is about; None takes genre and decade, or "like" where items have neither.

    Raises:
        ConfigError: there is no such rule, or no item has a facet of these kinds.
    """
    if rule not in get_args(CandidateRule):
        raise ConfigError(
            f"Unknown candidate rule. Expected 'uniform', 'popularity', 'confusable' or 'llara', found {rule!r}. "
            "Name one of them, or pass a sampler."
        )
    if rule == "popularity":
        return popularity_candidates(split)
    if rule != "confusable":
        return uniform_candidates(split.dataset.num_items)
    if kinds is not None:
        return ConfusableCandidates(split, kinds)
    if set(OWN_KINDS).isdisjoint(facet_kinds(split.dataset.items)):
        return ConfusableCandidates(with_likes(split), (LIKE,))
    return ConfusableCandidates(split)


def check_enough(available: int, n: int) -> None:
    """Refuse to draw more items than there are."""
    if available < n:
        raise TaskError(
            f"There must be enough items to draw negatives from. Expected at least {n} that are not barred, found "
            f"{available}. Ask for fewer candidates."
        )
