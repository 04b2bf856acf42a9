"""Agent: the protocol of everything that can play a side; and the two simplest agents that satisfy it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from coars_env.env import Action, Observation
from coars_env.errors import ConfigError
from coars_env.transcript import ACTIONS


class Agent(Protocol):
    """Plays one side of many dialogues at once.

    `start` opens a batch of len(seeds) dialogues, numbered from 0; `act` answers for those whose half-turn it is. What
    an agent says in a dialogue may depend on that dialogue's observations and seed only, never on its neighbours: a
    batch of 8 then equals 8 batches of 1. `coars_env.testing.check_agent` asks for all this.
    """

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Open one dialogue per seed; each seed feeds one `numpy.random.default_rng`."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        """One action, a member of the side's action space, for every dialogue number in `observations`."""
        ...


def agent_seed(seed: int, side: int, number: int) -> tuple[int, ...]:
    """Seed of one side (0 recommender, 1 user) in one dialogue. Ends in a mark of its own: three numbers seed the
    candidates of a task, and an agent must not share that stream.
    """
    return (seed, side, number, 1)


class RandomRecommender:
    """Proposes a uniformly drawn candidate, in each turn anew."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {
            n: {"item": int(self._rngs[n].integers(len(o["candidates"]))), "message": "One of the list."}
            for n, o in observations.items()
        }


class FixedUser:
    """Answers every proposal alike, by default with a full-strength click: then the first proposal is the final one."""

    def __init__(self, action: str = "click", strength: float = 1.0, message: str = "Fine.") -> None:
        if action not in ACTIONS:
            raise ConfigError(
                f"A user acts in one of four ways. Expected one of {ACTIONS}, found {action!r}. Name one."
            )
        self._action: dict[str, Any] = {"action": ACTIONS.index(action), "strength": strength, "message": message}

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: dict(self._action) for n in observations}
