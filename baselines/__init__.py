"""Systems to compare with, one file each; every one hands on an agent."""

from importlib import import_module
from typing import Any

from coars_env import ConfigError

BASELINES = {
    "bpr": "baselines.bpr:Bpr",
    "item_knn": "baselines.item_knn:ItemKnn",
    "markov": "baselines.markov:Markov",
    "popularity": "baselines.popularity:Popularity",
    "random": "baselines.random_agent:RandomAgent",
}
"""Name -> import path of a class with `fit(split, seed=...)`. Resolved on use: popularity must not load torch for
another."""


def load_baseline(name: str) -> Any:
    """The class of a baseline.

    Raises:
        ConfigError: unknown name.
    """
    if name not in BASELINES:
        raise ConfigError(f"Unknown baseline. Expected one of {sorted(BASELINES)}, found {name!r}. Name one of them.")
    module, attribute = BASELINES[name].split(":")
    return getattr(import_module(module), attribute)
