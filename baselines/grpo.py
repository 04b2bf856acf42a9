"""Grpo: group-relative policy optimisation, arXiv:2402.03300, of both agents, by the outcome, by turns, or by a judge.

    A = (r - mean(r)) / (std(r) + 1e-6)   over the dialogues of a task, for every token of the turn;   loss + .001 k3

Groups of eight and the weight of k3 are RetroAgent's and RecZero's (their code). A batch is used once, on the policy
that made it, so the clip of the ratio has nothing to do. Groups are compared turn by turn, and rewards are scaled to
[-1, 1] (our choices). Where all dialogues of a group earn the same they teach nothing. An update has as many dialogues
as one of CoARS has, of an eighth of the tasks.

No published figure is of two agents that recommend. RetroAgent's GRPO row: ALFWorld 77.3, WebShop 66.9.

    coars compare --systems grpo grpo-turn grpo-judge
"""

from dataclasses import dataclass

from agents.players.judge import Judge
from agents.training.recipe import CoTraining, Setting, Training
from agents.training.samples import group_normalized
from baselines.trained_pair import TrainedPair
from coars_env import TranscriptReward, outcome_terms, turn_outcome_terms


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(CoTraining):
    """GRPO by the outcome of the dialogue, see `coars_env.outcome_terms`."""

    group_size: int = 8
    """Dialogues of one task; RetroAgent's and RecZero's."""
    kl: float = 0.001
    """Weight of the divergence from the base; RetroAgent's and RecZero's."""

    def reward(self, setting: Setting) -> TranscriptReward:
        """Return what the turns of a dialogue earn."""
        return outcome_terms

    def build(self, setting: Setting) -> Training:
        optimisation = self.optimisation(group_size=self.group_size, baseline=group_normalized, kl=self.kl)
        return Training(self.players(setting), self.reward(setting), optimisation)


@dataclass(frozen=True, kw_only=True)
class GrpoTurnRecipe(GrpoRecipe):
    """GRPO by what can be checked of each turn, see `coars_env.turn_outcome_terms`."""

    def reward(self, setting: Setting) -> TranscriptReward:
        return turn_outcome_terms


@dataclass(frozen=True, kw_only=True)
class GrpoJudgeRecipe(GrpoRecipe):
    """GRPO by the grades of the bare base, see `agents.players.judge`; pocket cannot judge, so its grades are noise."""

    def reward(self, setting: Setting) -> TranscriptReward:
        return Judge(setting.policy, setting.split.dataset.items, self.learning_roles)


class Grpo(TrainedPair):
    """By the outcome of the dialogue."""

    recipe = GrpoRecipe()


class GrpoTurn(TrainedPair):
    """By what can be checked of each turn."""

    recipe = GrpoTurnRecipe()


class GrpoJudge(TrainedPair):
    """By the grades of the bare base."""

    recipe = GrpoJudgeRecipe()
