"""BASELINES: the systems by name, and how a name becomes a class."""

from importlib import import_module
from typing import Any

from coars_env import ConfigError

BASELINES = {
    "afl": "baselines.afl:Afl",
    "agentcf": "baselines.agentcf:AgentCF",
    "agentcf-basic": "baselines.agentcf:AgentCFBasic",
    "agentcf-rag": "baselines.agentcf:AgentCFRag",
    "bpr": "baselines.bpr:Bpr",
    "caser": "baselines.caser:Caser",
    "chain_of_thought": "baselines.chain_of_thought:ChainOfThought",
    "coars": "baselines.coars:Coars",
    "coars-paper": "baselines.coars:CoarsPaper",
    "coars-no-distillation": "baselines.coars:CoarsWithoutDistillation",
    "coars-no-interaction": "baselines.coars:CoarsWithoutInteraction",
    "coars-recommender": "baselines.coars:CoarsRecommenderAlone",
    "coars-user": "baselines.coars:CoarsUserAlone",
    "grpo": "baselines.grpo:Grpo",
    "grpo-judge": "baselines.grpo:GrpoJudge",
    "grpo-turn": "baselines.grpo:GrpoTurn",
    "gru4rec": "baselines.gru4rec:Gru4Rec",
    "i2agent": "baselines.i2agent:I2Agent",
    "item_knn": "baselines.item_knn:ItemKnn",
    "markov": "baselines.markov:Markov",
    "memory_stream": "baselines.memory_stream:MemoryStream",
    "popularity": "baselines.popularity:Popularity",
    "proxy": "baselines.sqn_sac:Proxy",
    "proxy-caser": "baselines.sqn_sac:ProxyCaser",
    "proxy-gru4rec": "baselines.sqn_sac:ProxyGru4Rec",
    "random": "baselines.random_agent:RandomAgent",
    "reflexion": "baselines.reflexion:Reflexion",
    "rejection_sampling": "baselines.rejection_sampling:RejectionSampling",
    "sac": "baselines.sqn_sac:Sac",
    "sac-caser": "baselines.sqn_sac:SacCaser",
    "sac-gru4rec": "baselines.sqn_sac:SacGru4Rec",
    "sasrec": "baselines.sasrec:SasRec",
    "sqn": "baselines.sqn_sac:Sqn",
    "sqn-caser": "baselines.sqn_sac:SqnCaser",
    "sqn-gru4rec": "baselines.sqn_sac:SqnGru4Rec",
    "supervised": "baselines.supervised:Supervised",
    "zero_shot": "baselines.zero_shot:ZeroShot",
}
"""Name -> import path of a class with `fit(split, seed=...)`; see `baselines.benchmark.cell` for what else it may ask.
Resolved on use: popularity must not load torch for another."""


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
