"""A recommender and a user, both agents that talk, in one PettingZoo environment; CoARS (arXiv:2604.10029).

import coars_env

env = coars_env.make("movielens")
"""

from coars_env.datasets import Dataset, Item, Provenance
from coars_env.env import CoarsEnv, Dialogue
from coars_env.errors import (
    ActionError,
    BackboneError,
    CheckpointError,
    CoarsError,
    CoarsWarning,
    ConfigError,
    DatasetError,
    MissingDataError,
    ShapeError,
    TaskError,
    TranscriptError,
)
from coars_env.partners import Agent, FixedUser, RandomRecommender
from coars_env.rewards import CoarsReward, MirroredStage, RewardTerms, constant_stage
from coars_env.rollout import play, rollout
from coars_env.tasks import EpisodeSet, Split, Task, TaskBuilder, UserSequence, freeze, leave_last, sample_train_tasks
from coars_env.transcript import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Transcript,
    Turn,
    read_transcripts,
    write_transcripts,
)

__all__ = [
    "ACTIONS",
    "RECOMMENDER",
    "ROLES",
    "USER",
    "ActionError",
    "Agent",
    "BackboneError",
    "CheckpointError",
    "CoarsEnv",
    "CoarsError",
    "CoarsReward",
    "CoarsWarning",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "Dialogue",
    "EpisodeSet",
    "FixedUser",
    "Item",
    "MirroredStage",
    "MissingDataError",
    "Provenance",
    "RandomRecommender",
    "RewardTerms",
    "ShapeError",
    "Split",
    "Task",
    "TaskBuilder",
    "TaskError",
    "Transcript",
    "TranscriptError",
    "Turn",
    "UserSequence",
    "constant_stage",
    "freeze",
    "leave_last",
    "play",
    "read_transcripts",
    "rollout",
    "sample_train_tasks",
    "write_transcripts",
]
