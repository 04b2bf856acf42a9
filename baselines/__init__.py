"""Systems to compare with, one file each; every one hands on an agent."""

from importlib import import_module
from typing import Any

from coars_env import ConfigError

BASELINES = {
    "caser": "baselines.caser:Caser",
    "gru4rec": "baselines.gru4rec:Gru4Rec",
    "item_knn": "baselines.item_knn:ItemKnn",
    "popularity": "baselines.popularity:Popularity",
    "proxy": "baselines.sqn_sac:Proxy",
    "proxy-caser": "baselines.sqn_sac:ProxyCaser",
    "proxy-gru4rec": "baselines.sqn_sac:ProxyGru4Rec",
    "random": "baselines.random_agent:RandomAgent",
    "sac": "baselines.sqn_sac:Sac",
    "sac-caser": "baselines.sqn_sac:SacCaser",
    "sac-gru4rec": "baselines.sqn_sac:SacGru4Rec",
    "sasrec": "baselines.sasrec:SasRec",
    "sqn": "baselines.sqn_sac:Sqn",
    "sqn-caser": "baselines.sqn_sac:SqnCaser",
    "sqn-gru4rec": "baselines.sqn_sac:SqnGru4Rec",
}
"""Name -> import path of a class with `fit(split)`. Resolved on use: popularity must not load torch for another."""


def load_baseline(name: str) -> Any:
    """The class of a baseline.

    Raises:
        ConfigError: unknown name.
    """
    if name not in BASELINES:
        raise ConfigError(f"Unknown baseline. Expected one of {sorted(BASELINES)}, found {name!r}. Name one of them.")
    module, attribute = BASELINES[name].split(":")
    return getattr(import_module(module), attribute)
