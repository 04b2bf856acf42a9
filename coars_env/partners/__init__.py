"""Agent: the protocol of everything that can play a side; and scripted agents that cost nothing: numpy, seeded.

Users: `FixedUser`, `OracleUser`, `ScorerUser`; with an instruction `InstructedUser` and its controls `SilentUser` and
`ShuffledUser`. Recommenders: `RandomRecommender`, `FixedRecommender`, `GreedyRecommender`, `AskingRecommender`.
`Replay` plays either side as it was once played. A `coars_env.Scorer` says how well an item goes with a history;
`kernel_scorer`, `popularity_scorer` and `svd_scorer` are three, any function of two arrays is another.
"""

from coars_env.partners.agent import Agent, agent_seed, check_plays, copy_agent
from coars_env.partners.asking import AskingRecommender
from coars_env.partners.instructed import InstructedUser, ShuffledUser, SilentUser
from coars_env.partners.recommenders import FixedRecommender, GreedyRecommender, RandomRecommender
from coars_env.partners.replay import Replay
from coars_env.partners.scorers import item_counts, kernel_scorer, popularity_scorer, svd_scorer
from coars_env.partners.users import FixedUser, OracleUser, ScorerUser

__all__ = [
    "Agent",
    "AskingRecommender",
    "FixedRecommender",
    "FixedUser",
    "GreedyRecommender",
    "InstructedUser",
    "OracleUser",
    "RandomRecommender",
    "Replay",
    "ScorerUser",
    "ShuffledUser",
    "SilentUser",
    "agent_seed",
    "check_plays",
    "copy_agent",
    "item_counts",
    "kernel_scorer",
    "popularity_scorer",
    "svd_scorer",
]
