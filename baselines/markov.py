"""Markov: the candidate that most often followed the last item of the history; popularity where that says nothing.

A first-order chain with counts as they are, without smoothing: score(c) = n(h, c), how often c came directly after h in
a training sequence, h being the last visible item; ties go by the training interactions of c. Most pairs never occur,
so ties decide often. The chain that is alike for all users, from which S. Rendle, C. Freudenthaler and L.
Schmidt-Thieme begin (WWW 2010, doi:10.1145/1772690.1772773).

Where rows have no order (`random_holdout`, LastFM) neighbours in a sequence are neighbours by chance: it then is a weak
item-kNN. Plays as `coars_env.GreedyRecommender`. Reproduce its row by `coars compare --systems markov`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from baselines.system import Resources, System
from coars_env import RECOMMENDER, GreedyRecommender, Item, Observation, Split, history_of, item_counts

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Markov(System):
    """A recommender that knows what followed what in training."""

    plays = (RECOMMENDER,)

    def __init__(self, followers: Sequence[Counter[int]], counts: FloatArray, items: Sequence[Item]) -> None:
        super().__init__(GreedyRecommender(self._score, self._reason))
        self._followers = followers  # [I] how often each item came directly after this one
        self._fractions = counts / (counts.max() + 1)  # [I] below 1, so that they decide between equal counts only
        self._items = items
        self.num_parameters = len(counts) + sum(map(len, followers))
        """The counts of items, and those of pairs that occur."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Count the neighbours in the sequences of the training part. Nothing is drawn: the seed is ignored."""
        followers: list[Counter[int]] = [Counter() for _ in split.dataset.items]
        for sequence in split.train:
            for item, following in pairwise(sequence.items):
                followers[item][following] += 1
        return cls(followers, item_counts(split), split.dataset.items)

    def scores(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """n(h, c) plus a fraction that grows with popularity. [M, I]"""
        found = np.tile(self._fractions, (len(histories), 1))
        for row, history in zip(found, histories, strict=True):
            if len(history):
                after = self._followers[history[-1]]
                row[list(after)] += list(after.values())
        return found

    def _score(self, history: IntArray, items: IntArray) -> FloatArray:
        return np.asarray(self.scores([history.tolist()])[0, items])

    def _reason(self, observation: Observation, item: int) -> str:
        history = history_of(observation)
        if history and item in self._followers[history[-1]]:
            return f"Others took it right after {self._items[history[-1]].title}."
        return "The one taken most often of what is left."
