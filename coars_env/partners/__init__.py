"""Agent: the protocol of everything that can play a side; and scripted agents that cost nothing: numpy, seeded.

Users: `FixedUser`, `OracleUser`, `ScorerUser`. Recommenders: `RandomRecommender`, `FixedRecommender`,
`GreedyRecommender`. `Replay` plays either side as it was once played. A `coars_env.Scorer` says how well an item goes
with a history; `popularity_scorer` and `svd_scorer` are two, any function of two arrays is another.
"""

from coars_env.partners.agent import Agent, agent_seed, check_plays, copy_agent
from coars_env.partners.recommenders import FixedRecommender, GreedyRecommender, RandomRecommender
from coars_env.partners.replay import Replay
from coars_env.partners.scorers import item_counts, popularity_scorer, svd_scorer
from coars_env.partners.users import FixedUser, OracleUser, ScorerUser

__all__ = [
    "Agent",
    "FixedRecommender",
    "FixedUser",
    "GreedyRecommender",
    "OracleUser",
    "RandomRecommender",
    "Replay",
    "ScorerUser",
    "agent_seed",
    "check_plays",
    "copy_agent",
    "item_counts",
    "popularity_scorer",
    "svd_scorer",
]
