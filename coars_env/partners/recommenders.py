"""Scripted recommenders: chance, a fixed place of the list, and the best by a score."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coars_env.datasets.dataset import IntArray
from coars_env.errors import ConfigError, expect, whole_number
from coars_env.observation import Action, Observation, as_one, histories_of
from coars_env.tasks import Scorer, scores_of
from coars_env.transcript import ACTIONS


class RandomRecommender:
    """Proposes a uniformly drawn candidate, in each turn anew, of those that may be proposed. Never asks."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: {"item": self._draw(n, o), "message": "One of the list."} for n, o in observations.items()}

    def _draw(self, n: int, observation: Observation) -> int:
        places = np.flatnonzero(observation.get("allowed", np.ones(len(observation["candidates"]))))
        return int(places[self._rngs[n].integers(len(places))])


class FixedRecommender:
    """Proposes the same place of the list in every turn, by default the first: at chance unless places tell.

    Where repeats are forbidden, what it proposes after a rejection is recorded as an error.

    Raises:
        ConfigError: no such place; in `act`, a place that the list does not have.
    """

    def __init__(self, position: int = 0, message: str = "Take this one.") -> None:
        self._position = whole_number("Places are counted from 0.", "position", position, 0)
        self._message = message

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._proposal(len(o["candidates"])) for n, o in observations.items()}

    def _proposal(self, num_candidates: int) -> Action:
        if self._position >= num_candidates:
            raise ConfigError(
                f"A list must have the place that is proposed. Expected position <= {num_candidates - 1} for "
                f"{num_candidates} candidates, found {self._position}. Lower it."
            )
        return {"item": self._position, "message": self._message}


Reason = Callable[[Observation, int], str]
"""(what the recommender sees, catalogue index of what it proposes) -> its message."""


class GreedyRecommender:
    """Proposes the candidate of the highest score that the user has not rejected (dislike or skip).

    Ties are drawn once a dialogue. A starred item is proposed again; when all are rejected, so is the best. For a group
    the score is the mean over the users, and what one of them rejects is rejected. Example:
    `GreedyRecommender(popularity_scorer(split))`.

    Raises:
        ConfigError: it is no scorer.
    """

    def __init__(self, scorer: Scorer, message: str | Reason = "The best of what is left.") -> None:
        expect(Callable, scorer, "What is recommended is scored.", "Pass a `Scorer`, such as popularity_scorer(split).")
        self._scorer = scorer
        self._reason: Reason = (lambda observation, item: message) if isinstance(message, str) else message

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._orders: dict[int, IntArray] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._propose(n, observation) for n, observation in observations.items()}

    def _propose(self, n: int, observation: Observation) -> Action:
        place = self._best(n, observation)
        return {"item": place, "message": self._reason(observation, int(observation["candidates"][place]))}

    def _best(self, n: int, observation: Observation) -> int:
        candidates = observation["candidates"]
        if n not in self._orders:
            scores = np.mean([scores_of(self._scorer, h, candidates) for h in histories_of(observation)], axis=0)
            self._orders[n] = np.lexsort((self._rngs[n].permutation(len(candidates)), -scores))  # places, best first
        order = self._orders[n]
        actions = as_one(observation)["actions"]
        answered = (actions >= 0) & (actions < ACTIONS.index("star"))
        left = order[~np.isin(candidates[order], observation["proposals"][answered])]
        return int(left[0] if len(left) else order[0])
