"""The game as PettingZoo names things, `parallel_env` and `env`; and its ids in the registries, entered on import."""

from itertools import product
from numbers import Integral
from typing import Any

import gymnasium
import pettingzoo

from coars_env.env import MAX_TURNS, CoarsEnv
from coars_env.errors import ConfigError
from coars_env.views import make
from coars_env.views.aec import AecEnv
from coars_env.views.numeric_env import NumericEnv

DATASETS = {"MovieLens": "movielens", "LastFM": "lastfm", "Instruments": "instruments", "Synthetic": "synthetic"}
"""As written in ids -> as known to `make`."""


def parallel_env(
    name: str = "movielens", *, max_cycles: int = 2 * MAX_TURNS, view: str = "numeric", **options: Any
) -> CoarsEnv | NumericEnv:
    """The game in half-turns, both agents passing an action in each.

    In numbers, as RL libraries want it, while `coars_env.make` makes the game in words unless it is told otherwise.

    Args:
        name: name of a dataset.
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
    env: CoarsEnv | NumericEnv = make(name, view=view, max_turns=max_cycles // 2, **options)
    return env


def env(name: str = "movielens", **options: Any) -> AecEnv:
    """The same in turn order: of the half-turns each agent plays every second one. Options as `parallel_env`, and like
    there the view is the one in numbers unless `view=` says otherwise.
    """
    return AecEnv(parallel_env(name, **options))


ENV_IDS = tuple(f"coars/{label}-{role.title()}-v0" for label in DATASETS for role in ("recommender", "user"))
"""Ids of `gymnasium.make`: coars/MovieLens-Recommender-v0 and so on. Options go to `single_agent`."""


def _register() -> None:
    """In Gymnasium, and in PettingZoo where it has registries (1.27): coars/MovieLens-Numeric-v0, -Masked-, -Text-."""
    for env_id in ENV_IDS:
        label, role, _ = env_id.removeprefix("coars/").split("-")
        kwargs = {"game": DATASETS[label], "role": role.lower()}
        gymnasium.register(env_id, entry_point="coars_env.views:single_agent", kwargs=kwargs)
    if hasattr(pettingzoo, "register"):
        for label, view in product(DATASETS, ("text", "numeric", "masked")):
            env_id, kwargs = f"coars/{label}-{view.title()}-v0", {"name": DATASETS[label], "view": view}
            pettingzoo.register("parallel", env_id, parallel_env, kwargs=kwargs)
            pettingzoo.register("aec", env_id, env, kwargs=kwargs)


_register()
