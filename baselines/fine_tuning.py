"""Supervised, RejectionSampling: fine-tuning of both agents on right choices, those of the logs or their own.

Supervised is an upper control, not a rival: it is told in training what the others have to find out. Reasons stay the
agent's own; only its choice is replaced (`agents.players.demonstrator`). A one-turn prototype of it reached .446 on
LLaRA's users.

Rejection sampling keeps the replies that were right and makes them likelier, as RAFT (arXiv:2304.06767) and ReST-EM
(arXiv:2312.06585); after every update new dialogues are sampled.
"""

from agents.training.train import CoarsConfig
from baselines.trained_pair import TrainedPair


class Supervised(TrainedPair):
    """The recommender is shown the item truly taken; the user clicks at it, and dislikes all others."""

    settings = CoarsConfig(paid_by="demonstration", credit="none")


class RejectionSampling(TrainedPair):
    """Right replies are imitated, others are left out, see `kept_terms`."""

    settings = CoarsConfig(paid_by="kept", credit="none")
