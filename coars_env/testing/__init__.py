"""Checks for one's own agents, rewards, data and environments, and a game small enough to check by hand.

Each check raises AssertionError, and its message says what was expected and found: a test of an extension is one line.
"""

from coars_env.testing.agents import check_agent
from coars_env.testing.datasets import ID_RULES, check_dataset, check_ids, id_probe
from coars_env.testing.envs import check_env
from coars_env.testing.rewards import check_reward
from coars_env.testing.toys import NUM_CANDIDATES, ScriptedAgent, toy_dataset, toy_episodes, toy_instructed_episodes

__all__ = [
    "ID_RULES",
    "NUM_CANDIDATES",
    "ScriptedAgent",
    "check_agent",
    "check_dataset",
    "check_env",
    "check_ids",
    "check_reward",
    "id_probe",
    "toy_dataset",
    "toy_episodes",
    "toy_instructed_episodes",
]
