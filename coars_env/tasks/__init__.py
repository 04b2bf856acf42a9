"""Task, EpisodeSet: one decision to be played, and a frozen, hashed list of them.

A split says which part of each user's sequence may be trained on and what is held out; a candidate sampler draws the
negatives; `VectorPeers` tell how alike peers are, for the user reward, and what they say, for the user. All three are
passed in, and what they return is stored in the task, so that a stored dialogue can be rewarded again without any of
them.
"""

from coars_env.tasks.builder import TaskBuilder, freeze, sample_train_tasks
from coars_env.tasks.candidates import (
    AnySampler,
    CandidateRule,
    CandidateSampler,
    ConfusableCandidates,
    Scorer,
    TopCandidates,
    popularity_candidates,
    sampler_of,
    scores_of,
    uniform_candidates,
)
from coars_env.tasks.groups import hold_out_groups
from coars_env.tasks.instruction import Instruction, facet_kinds, facet_vocabulary, has_facet
from coars_env.tasks.instructions import FacetInstructions, with_likes
from coars_env.tasks.peers import LEVEL_EDGES, Embed, PeersOf, SvdPeers, VectorPeers
from coars_env.tasks.splits import Split, UserSequence, leave_last, llara, published, random_holdout, split_users
from coars_env.tasks.task import (
    HISTORY_LENGTH,
    NUM_CANDIDATES,
    NUM_OPINIONS,
    OPINION_WIDTH,
    EpisodeSet,
    Member,
    Opinion,
    Task,
    read_opinions,
    task_from_row,
    task_row,
)

__all__ = [
    "HISTORY_LENGTH",
    "LEVEL_EDGES",
    "NUM_CANDIDATES",
    "NUM_OPINIONS",
    "OPINION_WIDTH",
    "AnySampler",
    "CandidateRule",
    "CandidateSampler",
    "ConfusableCandidates",
    "Embed",
    "EpisodeSet",
    "FacetInstructions",
    "Instruction",
    "Member",
    "Opinion",
    "PeersOf",
    "Scorer",
    "Split",
    "SvdPeers",
    "Task",
    "TaskBuilder",
    "TopCandidates",
    "UserSequence",
    "VectorPeers",
    "facet_kinds",
    "facet_vocabulary",
    "freeze",
    "has_facet",
    "hold_out_groups",
    "leave_last",
    "llara",
    "popularity_candidates",
    "published",
    "random_holdout",
    "read_opinions",
    "sample_train_tasks",
    "sampler_of",
    "scores_of",
    "split_users",
    "task_from_row",
    "task_row",
    "uniform_candidates",
    "with_likes",
]
