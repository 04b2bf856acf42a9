"""Agent: the protocol of everything that can play a side."""

import copy
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from coars_env.dialogue import checked_seed
from coars_env.errors import expect
from coars_env.observation import Action, Observation


@runtime_checkable
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
    """Seed of one side (0 recommender, 1 user, 2 the second user of a group) in one dialogue.

    Ends in a mark of its own: three numbers seed the candidates of a task, and an agent must not share that stream.

    Raises:
        ConfigError: the seed is no whole number, or negative.
    """
    return (checked_seed(seed), side, number, 1)


def copy_agent(agent: Agent) -> Agent:
    """Return a copy that opens batches of its own; models, scorers and other objects are shared.

    Agents that an agent holds as attributes are copied, too. Whatever else an agent keeps of a dialogue, `start` must
    bind anew (`self._rngs = [...]`) and not change in place.
    """
    twin = copy.copy(agent)
    for name, value in vars(twin).items():
        if isinstance(value, Agent):
            object.__setattr__(twin, name, copy_agent(value))
    return twin


def check_plays(agent: object, name: str) -> None:
    """Refuse what cannot play a side, before anything is played.

    Raises:
        ConfigError: it is no `Agent`.
    """
    rule = f"{name} is an agent, with the methods `start` and `act`."
    expect(Agent, agent, rule, "Pass one, such as RandomRecommender() or FixedUser().")
