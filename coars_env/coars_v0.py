"""The game as PettingZoo names things, `parallel_env` and `env`."""

from numbers import Integral
from typing import Any

from coars_env.dialogue import MAX_TURNS
from coars_env.env import CoarsEnv
from coars_env.errors import ConfigError
from coars_env.make import Data, make
from coars_env.views.aec import AecEnv
from coars_env.views.numeric_env import NumericEnv

DATASETS = {"MovieLens": "movielens", "LastFM": "lastfm", "Instruments": "instruments", "Synthetic": "synthetic"}
"""As written in ids -> as known to `make`."""


def parallel_env(
    data: Data = "movielens", *, max_cycles: int = 2 * MAX_TURNS, view: str = "numeric", **options: Any
) -> CoarsEnv | NumericEnv:
    """The game in half-turns, both agents passing an action in each.

    In numbers, as RL libraries want it, while `coars_env.make` makes the game in words unless it is told otherwise.

    Args:
        data: name of a dataset, or an object, see `make`.
        max_cycles: half-turns at most, two for each turn; an accepted proposal ends the episode before.
        view: "numeric", "masked" or "text".
        options: go to `make`.

    Raises:
        CoarsError: as `make`; or a number of half-turns that makes no turns.
    """
    if not isinstance(max_cycles, Integral) or max_cycles < 2 or max_cycles % 2 or "max_turns" in options:
        raise ConfigError(
            f"A turn has two half-turns. Expected an even max_cycles >= 2, found {max_cycles!r}"
            f"{' and max_turns' if 'max_turns' in options else ''}. Pass 2 T for T turns."
        )
    env: CoarsEnv | NumericEnv = make(data, view=view, max_turns=max_cycles // 2, **options)
    return env


def env(data: Data = "movielens", **options: Any) -> AecEnv:
    """The same in turn order: of the half-turns each agent plays every second one. Options as `parallel_env`, and like
    there the view is the one in numbers unless `view=` says otherwise.
    """
    return AecEnv(parallel_env(data, **options))
