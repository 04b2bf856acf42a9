"""BASELINES: the systems by name, and how a name becomes a class."""

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


def baseline_path(name: str) -> str:
    """The import path "module:Class" of a baseline; the path of a class of one's own is its own name.

    Raises:
        ConfigError: unknown name.
    """
    path = BASELINES.get(name, name)
    if ":" not in path:
        raise ConfigError(
            f"Unknown baseline. Expected one of {sorted(BASELINES)}, or a class of your own as module:Class, found "
            f"{name!r}. Name one of them."
        )
    return path


def load_baseline(name: str) -> Any:
    """The class of a baseline, see `baseline_path`."""
    module, attribute = baseline_path(name).split(":")
    return getattr(import_module(module), attribute)
