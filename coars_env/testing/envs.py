"""check_env: what the tests of PettingZoo do not ask of a parallel environment."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from coars_env.errors import expect

MakeEnv = Callable[[], ParallelEnv[str, Any, Any]]
_LONGEST = 10_000


def check_env(make: MakeEnv, *, episodes: int = 8, seed: int = 0) -> None:
    """Play sampled actions and ask of any view of the game what its users rely on.

    A space is the same object on every call; every observation lies in its space; the dicts name the agents that
    acted; rewards are finite; all agents end together. An episode can be played again by its seed; `reset()` without
    a seed goes on with the stream; unknown options are ignored; and two instances that are stepped by turns go as each
    does alone.

    An observation that is a mapping with the key `action_mask` has its action sampled under that mask.

    Args:
        make: returns a new instance at each call, all alike, with at least two tasks.
        episodes: how many are played in a row.
        seed: of the first reset and of the actions.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
        ConfigError: it is no function, or what it returns no parallel environment.
    """
    expect(Callable, make, "Several instances are played.", "Pass a function that makes one: `lambda: my_env()`.")
    env = make()
    expect(ParallelEnv, env, "A parallel environment of PettingZoo is checked.", "Return one.")
    for agent in env.possible_agents:
        for kind in ("observation_space", "action_space"):
            space = getattr(env, kind)
            assert space(agent) is space(agent), (
                f"A space is one object. Expected the same from {kind}({agent!r}) twice"
            )
    alone = [_Player(make(), seed).play(first, episodes) for first in (seed, seed + 1)]
    again = _Player(make(), seed).play(seed, episodes)
    _same("An episode can be played again by its seed.", alone[0], again)
    reset = [episode[0] for episode in again]
    assert any(not _equal(reset[0], other) for other in reset[1:]), (
        f"reset() without a seed goes on with the stream. Expected different episodes, found {episodes} alike"
    )
    optioned = _Player(make(), seed).play(seed, episodes, options={"no such option": 1})
    _same("Unknown options are ignored.", alone[0], optioned)
    players = [_Player(make(), seed), _Player(make(), seed)]
    together = [player.episodes(first, episodes) for player, first in zip(players, (seed, seed + 1), strict=True)]
    found: list[list[list[Any]]] = [[[] for _ in range(episodes)] for _ in together]
    for steps in zip_longest(*together):
        for side, said in enumerate(steps):
            if said is not None:
                found[side][said[0]].append(said[1])
    _same("Two instances go each as it does alone.", alone, found)


class _Player:
    """Plays sampled actions and looks at everything that comes back."""

    def __init__(self, env: ParallelEnv[str, Any, Any], seed: int) -> None:
        self._env = env
        self._spaces: dict[str, gymnasium.Space[Any]] = {}
        for number, agent in enumerate(env.possible_agents):
            self._spaces[agent] = copy.deepcopy(env.action_space(agent))  # its own generator
            self._spaces[agent].seed(seed + number)

    def play(self, seed: int, episodes: int, options: dict[str, Any] | None = None) -> list[list[Any]]:
        """What reset and each step of each episode returned."""
        said: list[list[Any]] = [[] for _ in range(episodes)]
        for number, step in self.episodes(seed, episodes, options):
            said[number].append(step)
        return said

    def episodes(self, seed: int, episodes: int, options: dict[str, Any] | None = None) -> Iterator[tuple[int, Any]]:
        """(number of the episode, what reset or a step returned), one by one. Only the first reset is seeded."""
        for number in range(episodes):
            observations, infos = self._reset(seed if number == 0 else None, options)
            yield number, copy.deepcopy((observations, infos))
            for _ in range(_LONGEST):
                if not self._env.agents:
                    break
                observations, *rest = self._step(observations)
                yield number, copy.deepcopy((observations, *rest))
            assert not self._env.agents, f"An episode ends. Expected an end, found none in {_LONGEST} steps"

    def _reset(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, Any]:
        observations, infos = self._env.reset(seed=seed, options=options)
        live = set(self._env.agents)
        assert live == set(self._env.possible_agents), f"All agents begin. Expected them live, found {sorted(live)}"
        self._look(observations, infos)
        return observations, infos

    def _step(self, observations: Mapping[str, Any]) -> tuple[Any, ...]:
        acting = list(self._env.agents)
        actions = {agent: self._sample(agent, observations[agent]) for agent in acting}
        said = self._env.step(actions)
        for returned in said:
            assert set(returned) == set(acting), f"Who acted is answered. Expected {acting}, found {sorted(returned)}"
        observations, rewards, terminations, truncations, infos = said
        self._look(observations, infos)
        assert all(map(math.isfinite, rewards.values())), f"Rewards are finite numbers. Expected some, found {rewards}"
        ended = {agent: bool(terminations[agent] or truncations[agent]) for agent in acting}
        assert len(set(ended.values())) == 1, f"All agents end together. Expected one answer, found {ended}"
        expected = [] if any(ended.values()) else acting
        assert sorted(self._env.agents) == sorted(expected), (
            f"`agents` names who acts next. Expected {expected}, found {list(self._env.agents)}"
        )
        return observations, rewards, terminations, truncations, infos

    def _look(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        assert set(observations) == set(infos), f"Every observation has its info. Expected {sorted(observations)}"
        for agent, observation in observations.items():
            space = self._env.observation_space(agent)
            assert space.contains(observation), (
                f"An observation lies in its space. Expected a member of {space} for {agent}, found {observation!r}"
            )

    def _sample(self, agent: str, observation: Any) -> Any:
        if isinstance(observation, Mapping) and "action_mask" in observation:
            return self._spaces[agent].sample(np.asarray(observation["action_mask"], dtype=np.int8))
        return self._spaces[agent].sample()


def _same(rule: str, expected: Any, found: Any) -> None:
    difference = _difference(expected, found, "")
    assert difference is None, f"{rule} {difference}"


def _equal(a: Any, b: Any) -> bool:
    return _difference(a, b, "") is None


def _difference(a: Any, b: Any, where: str) -> str | None:
    """Where two results first differ, in words; None if nowhere."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        pairs = [(f"{where}[{key!r}]", a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = [(f"{where}[{n}]", x, y) for n, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        is_array = isinstance(a, np.ndarray) or isinstance(b, np.ndarray)
        if np.array_equal(a, b) if is_array else (a == b or (a != a and b != b)):
            return None
        return f"Expected at {where} {a!r}, found {b!r}"
    return next((found for place, x, y in pairs if (found := _difference(x, y, place)) is not None), None)
