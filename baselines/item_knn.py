"""ItemKnn: the candidate most often taken together with the visible history. The strongest untrained reference.

Item-based collaborative filtering by the cosine of co-occurrence, summed over the history (B. Sarwar et al., WWW
2001, doi:10.1145/371920.372071): score(c) = sum over h in the history of |U_c and U_h| / sqrt(|U_c| |U_h|), where U_i
are the training users who took item i. All neighbours count; there is no k.

Plays as `coars_env.GreedyRecommender`. Reproduce its row by `coars compare --systems item_knn`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

from baselines.system import Resources, System
from coars_env import HISTORY_LENGTH, RECOMMENDER, GreedyRecommender, Observation, Split, history_of, item_counts

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class ItemKnn(System):
    """A recommender that knows which items were taken together in training."""

    plays = (RECOMMENDER,)

    def __init__(self, split: Split, *, last: int = HISTORY_LENGTH) -> None:
        """Note who took what in the training part.

        Args:
            split: only its training part is read.
            last: how many of the latest items of the visible history count; at most 10 are visible.
        """
        super().__init__(GreedyRecommender(self._score, self._reason))
        self._items = split.dataset.items
        self._last = last
        self._taken = [np.array(sequence.items) for sequence in split.train]
        self._owners: list[list[int]] = [[] for _ in self._items]  # of each item the rows of those who took it
        for row, sequence in enumerate(split.train):
            for item in sequence.items:
                self._owners[item].append(row)
        self._norms = np.sqrt(np.maximum(item_counts(split), 1))  # [I]
        self._row = lru_cache(max(1, 2**24 // len(self._items)))(self._cosines)  # at most 128 MB
        self.num_parameters = sum(map(len, self._taken))
        """It remembers every training interaction."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Note who took what in the training part. Nothing is drawn: the seed is ignored."""
        return cls(split)

    def similarity(self, items: Sequence[int] | IntArray, others: Sequence[int] | IntArray | None = None) -> FloatArray:
        """Cosine of co-occurrence in [0, 1], shape [items, others]; 0 for items never taken in training.

        Without `others` with every item of the catalogue.
        """
        rows = [self._row(int(item)) for item in items]
        every = np.stack(rows) if rows else np.zeros((0, len(self._items)))
        return every if others is None else every[:, others]

    def scores(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """Summed cosine of every item with each history. [M, I]"""
        return np.stack([self.similarity(history[-self._last :]).sum(0) for history in histories])

    def _cosines(self, item: int) -> FloatArray:
        """Of one item with all, [I]."""
        counts = np.zeros(len(self._items))
        if self._owners[item]:
            together = np.concatenate([self._taken[row] for row in self._owners[item]])
            counts += np.bincount(together, minlength=len(counts))
        return np.asarray(counts / (self._norms[item] * self._norms))

    def _score(self, history: IntArray, items: IntArray) -> FloatArray:
        return np.asarray(self.similarity(history[-self._last :], items).sum(0))

    def _reason(self, observation: Observation, item: int) -> str:
        shown = history_of(observation)[-self._last :]
        if not shown:
            return "A first guess."
        cosines = self.similarity(shown, [item])[:, 0]
        if not cosines.any():
            return "Nothing here goes with what you took; a guess."
        return f"Often taken together with {self._items[int(shown[cosines.argmax()])].title}."
