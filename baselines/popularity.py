"""Popularity: the candidate with most training interactions. The reference every recommender has to beat.

Uniform negatives are mostly rare items, so on them popularity is strong; with negatives drawn by popularity it is near
chance. The non-personalized TopPop of P. Cremonesi, Y. Koren and R. Turrin (RecSys 2010, doi:10.1145/1864708.1864721).

Plays as `coars_env.GreedyRecommender`. Reproduce its row by `python -m baselines.popularity`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from coars_env import (
    ACTIONS,
    Action,
    FixedUser,
    GreedyRecommender,
    Observation,
    Split,
    builder,
    evaluate,
    freeze,
    item_counts,
    load_split,
    popularity_scorer,
    summarize,
)


class Popularity:
    """A recommender that knows how often each item was taken in training."""

    def __init__(self, split: Split) -> None:
        self._counts = item_counts(split)  # [I]
        self._player = GreedyRecommender(popularity_scorer(split), _reason)
        self.num_parameters = len(self._counts)

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0) -> "Popularity":
        """Count the interactions of the training part. Nothing is drawn: the seed is ignored."""
        return cls(split)

    def scores(self, histories: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """Training interactions of every item, whatever the history. [M, I]"""
        return np.tile(self._counts, (len(histories), 1))

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._player.start(seeds)

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return self._player.act(observations)


def _reason(observation: Observation, item: int) -> str:
    rejected = np.isin(observation["actions"], [ACTIONS.index("dislike"), ACTIONS.index("skip")]).any()
    return f"Of {'what is left' if rejected else 'all these'}, the one taken most often."


def main() -> None:
    """Print the row of docs/baselines.md: ml-100k, leave-last, uniform candidates, 5 draws."""
    split = load_split("movielens", "leave_last")
    draws = [freeze(builder(split), "test", draw=draw) for draw in range(5)]
    print(summarize("popularity", evaluate(Popularity.fit(split), FixedUser(), draws)).to_markdown())


if __name__ == "__main__":
    main()
