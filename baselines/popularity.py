"""Popularity: the candidate with most training interactions. The reference every recommender has to beat.

Uniform negatives are mostly rare items, so on them popularity is strong; with negatives drawn by popularity it is near
chance. The non-personalized TopPop of P. Cremonesi, Y. Koren and R. Turrin (RecSys 2010, doi:10.1145/1864708.1864721).

Plays as `coars_env.GreedyRecommender`. Reproduce its row by `coars compare --systems popularity`.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from baselines.system import Resources, System
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    GreedyRecommender,
    Observation,
    Split,
    item_counts,
    popularity_scorer,
)


class Popularity(System):
    """A recommender that knows how often each item was taken in training."""

    plays = (RECOMMENDER,)

    def __init__(self, split: Split) -> None:
        super().__init__(GreedyRecommender(popularity_scorer(split), _reason))
        self._counts = item_counts(split)  # [I]
        self.num_parameters = len(self._counts)

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Count the interactions of the training part. Nothing is drawn: the seed is ignored."""
        return cls(split)

    def scores(self, histories: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Training interactions of every item, whatever the history. [M, I]"""
        return np.tile(self._counts, (len(histories), 1))


def _reason(observation: Observation, item: int) -> str:
    rejected = np.isin(observation["actions"], [ACTIONS.index("dislike"), ACTIONS.index("skip")]).any()
    return f"Of {'what is left' if rejected else 'all these'}, the one taken most often."
