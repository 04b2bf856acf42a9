"""RandomAgent: a uniformly random order of the candidates. The floor: Hit@1 is 1 / K whatever the data.

Turn t proposes the first candidate of that order which the user has not rejected (dislike or skip). A starred proposal
is not rejected, so it is made again. Reproduce its row by `python -m baselines.random_agent`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from coars_env import Action, FixedUser, Observation, Split, builder, evaluate, freeze, load_split, summarize


class RandomAgent:
    """A recommender that knows nothing."""

    num_parameters = 0

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0) -> "RandomAgent":
        """There is nothing to learn; split and seed are ignored."""
        return cls()

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._orders: dict[int, list[int]] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._propose(n, observation) for n, observation in observations.items()}

    def _propose(self, n: int, observation: Observation) -> Action:
        if n not in self._orders:
            self._orders[n] = self._rngs[n].permutation(len(observation["candidates"])).tolist()
        answers = zip(observation["proposals"].tolist(), observation["actions"].tolist(), strict=True)
        rejected = {item for item, action in answers if action in (0, 1)}  # dislike, skip
        order = self._orders[n]
        position = next((p for p in order if int(observation["candidates"][p]) not in rejected), order[0])
        return {"item": position, "message": "Picked at random from the list."}


def main() -> None:
    """Print the row of docs/baselines.md: ml-100k, leave-last, uniform candidates, 5 draws."""
    split = load_split("movielens", "leave_last")
    draws = [freeze(builder(split), "test", draw=draw) for draw in range(5)]
    print(summarize("random", evaluate(RandomAgent.fit(split), FixedUser(), draws)).to_markdown())


if __name__ == "__main__":
    main()
