"""Streams: the episodes to come of each game of a vector."""

from typing import Any

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import IntArray
from coars_env.dialogue import checked_seed
from coars_env.errors import ConfigError

ByRole = dict[str, npt.NDArray[Any]]
"""An array for each side; its first axis counts the games."""

_AHEAD = 64  # episodes drawn at once for each game


class Streams:
    """Each game's episodes to come, as a single environment of the same seed draws them: seed and place of the task."""

    def __init__(self, num_envs: int, num_tasks: int) -> None:
        self._highs = [2**31, num_tasks]
        self._rngs = np.random.default_rng().spawn(num_envs)
        self._ahead = np.zeros((num_envs, _AHEAD, 2), np.int64)
        self._used = np.full(num_envs, _AHEAD)

    def seed(self, seed: int) -> None:
        seed = checked_seed(seed)
        if seed + len(self._rngs) >= 2**63:
            raise ConfigError(f"The seeds of a vector are kept in 64 bits. Expected seed < 2**63 - N, found {seed}.")
        self._rngs = [np.random.default_rng(seed + n) for n in range(len(self._rngs))]
        self._ahead[:, -1] = [(seed + n, rng.integers(self._highs[1])) for n, rng in enumerate(self._rngs)]
        self._used[:] = _AHEAD - 1

    def draw(self, games: IntArray) -> IntArray:
        """The next episodes of these games. [games, 2]."""
        for n in games[self._used[games] == _AHEAD].tolist():
            self._ahead[n] = self._rngs[n].integers(self._highs, size=(_AHEAD, 2))
            self._used[n] = 0
        drawn: IntArray = self._ahead[games, self._used[games]]
        self._used[games] += 1
        return drawn
