"""Popularity: the candidate with most training interactions. The reference every recommender has to beat.

Uniform negatives are mostly rare items, so on them popularity is strong; with negatives drawn by popularity it is near
chance. The non-personalized TopPop of P. Cremonesi, Y. Koren and R. Turrin (RecSys 2010, doi:10.1145/1864708.1864721).

Turn t proposes the most popular candidate which the user has not rejected (dislike or skip). A starred proposal is not
rejected, so it is made again. Reproduce its row by `python -m baselines.popularity`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from coars_env import Action, FixedUser, Observation, Split, builder, evaluate, freeze, load_split, summarize


class Popularity:
    """A recommender that knows how often each item was taken in training."""

    def __init__(self, counts: npt.NDArray[np.float64]) -> None:
        self._counts = counts  # [I]

    @classmethod
    def fit(cls, split: Split) -> "Popularity":
        """Count the interactions of the training part."""
        counts = np.zeros(split.dataset.num_items)
        for sequence in split.train:
            np.add.at(counts, list(sequence.items), 1.0)
        return cls(counts)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._orders: dict[int, list[int]] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._propose(n, observation) for n, observation in observations.items()}

    def _propose(self, n: int, observation: Observation) -> Action:
        candidates = observation["candidates"]
        if n not in self._orders:
            ties = self._rngs[n].permutation(len(candidates))
            self._orders[n] = np.lexsort((ties, -self._counts[candidates])).tolist()
        answers = zip(observation["proposals"].tolist(), observation["actions"].tolist(), strict=True)
        rejected = {item for item, action in answers if action in (0, 1)}  # dislike, skip
        order = self._orders[n]
        position = next((p for p in order if int(candidates[p]) not in rejected), order[0])
        message = f"Of {'what is left' if rejected else 'all these'}, the one taken most often."
        return {"item": position, "message": message}


def main() -> None:
    """Print the row of docs/baselines.md: ml-100k, leave-last, uniform candidates, 5 draws."""
    split = load_split("movielens", "leave_last")
    draws = [freeze(builder(split), "test", rule="uniform", draw=draw) for draw in range(5)]
    print(summarize("popularity", evaluate(Popularity.fit(split), FixedUser(), draws)).to_markdown())


if __name__ == "__main__":
    main()
