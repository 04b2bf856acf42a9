"""Grpo: group-relative policy optimisation, arXiv:2402.03300, of both agents, by the outcome, by turns, or by a judge.

    A = (r - mean(r)) / (std(r) + 1e-6)   over the dialogues of a task, for every token of the turn;   loss + .001 k3

Groups of eight and the weight of k3 are RetroAgent's and RecZero's (their code). A batch is used once, on the policy
that made it, so the clip of the ratio has nothing to do. Groups are compared turn by turn, and rewards are scaled to
[-1, 1]; both are ours. Where all dialogues of a group earn alike they teach nothing. An update has as many dialogues as
one of CoARS has, of an eighth of the tasks.

No published figure is of two agents that recommend. RetroAgent's GRPO row: ALFWorld 77.3, WebShop 66.9.
"""

from dataclasses import replace

from agents.training.train import CoarsConfig
from baselines.trained_pair import TrainedPair


class Grpo(TrainedPair):
    """By the outcome of the dialogue, see `outcome_terms`."""

    settings = CoarsConfig(paid_by="outcome", credit="none", group_size=8, baseline="group_normalized", kl=0.001)


class GrpoTurn(TrainedPair):
    """By what can be checked of each turn, see `turn_outcome_terms`."""

    settings = replace(Grpo.settings, paid_by="turn_outcome")


class GrpoJudge(TrainedPair):
    """By the grades of the bare base, see `agents.players.judge`; of pocket, which cannot judge, they are noise."""

    settings = replace(Grpo.settings, paid_by="judge")
