"""Ids of the environments in the registries of Gymnasium and, from 1.27 on, PettingZoo; entered on import."""

from itertools import product

import gymnasium
import pettingzoo

from coars_env.coars_v0 import DATASETS, env, parallel_env

ENV_IDS = tuple(f"coars/{label}-{role.title()}-v0" for label in DATASETS for role in ("recommender", "user"))
"""Ids of `gymnasium.make`: coars/MovieLens-Recommender-v0 and so on. Options go to `single_agent`."""


def _register() -> None:
    """In Gymnasium, and in PettingZoo where it has registries (1.27): coars/MovieLens-Numeric-v0, -Masked-, -Text-."""
    for env_id in ENV_IDS:
        label, role, _ = env_id.removeprefix("coars/").split("-")
        kwargs = {"game": DATASETS[label], "role": role.lower()}
        gymnasium.register(env_id, entry_point="coars_env.make:single_agent", kwargs=kwargs)
    if hasattr(pettingzoo, "register"):
        for label, view in product(DATASETS, ("text", "numeric", "masked")):
            env_id, kwargs = f"coars/{label}-{view.title()}-v0", {"data": DATASETS[label], "view": view}
            pettingzoo.register("parallel", env_id, parallel_env, kwargs=kwargs)
            pettingzoo.register("aec", env_id, env, kwargs=kwargs)


_register()
