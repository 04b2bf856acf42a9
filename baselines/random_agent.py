"""RandomAgent: a uniformly random order of the candidates. The floor: Hit@1 is 1 / K whatever the data.

Turn t proposes the first candidate of that order which the user has not rejected (dislike or skip). A starred proposal
is not rejected, so it is made again. Reproduce its row by
`coars compare --systems random`.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from baselines.system import Resources, System
from coars_env import RECOMMENDER, Action, Observation, Split, as_one


class RandomAgent(System):
    """A recommender that knows nothing."""

    plays = (RECOMMENDER,)
    num_parameters = 0

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Ignore split and seed: there is nothing to learn."""
        return cls(_RandomOrder())


class _RandomOrder:
    """The player."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._orders: dict[int, list[int]] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._propose(n, observation) for n, observation in observations.items()}

    def _propose(self, n: int, observation: Observation) -> Action:
        if n not in self._orders:
            self._orders[n] = self._rngs[n].permutation(len(observation["candidates"])).tolist()
        answers = zip(observation["proposals"].tolist(), as_one(observation)["actions"].tolist(), strict=True)
        rejected = {item for item, action in answers if action in (0, 1)}  # dislike, skip
        order = self._orders[n]
        position = next((p for p in order if int(observation["candidates"][p]) not in rejected), order[0])
        return {"item": position, "message": "Picked at random from the list."}
