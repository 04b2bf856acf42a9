"""Coars: both agents trained by CoARS, arXiv:2604.10029, and without one of its parts.

Equations, settings and their origin: docs/methods.md. The paper's figures and code are not known to us.

    coars compare --systems coars coars-paper coars-no-distillation coars-no-interaction coars-recommender coars-user
"""

from dataclasses import dataclass

from agents.training.coars import Coars as CoarsRecipe
from agents.training.coars import RewardConfig
from agents.training.recipe import Setting, Training
from baselines.trained_pair import TrainedPair
from coars_env import outcome_terms


@dataclass(frozen=True, kw_only=True)
class OutcomeRecipe(CoarsRecipe):
    """CoARS without interaction rewards: the outcome of the dialogue pays every turn, see `coars_env.outcome_terms`."""

    def build(self, setting: Setting) -> Training:
        training = super().build(setting)
        return Training(training.players, outcome_terms, training.optimisation)


class Coars(TrainedPair):
    """Coupled interaction rewards, and the credit of hindsight."""

    recipe = CoarsRecipe()


class CoarsPaper(TrainedPair):
    """CoARS with the published rule of exclusion: neither side trains on a miss that the user liked."""

    recipe = CoarsRecipe(reward=RewardConfig(exclude_positive_miss=("recommender", "user")))


class CoarsWithoutDistillation(TrainedPair):
    """The rewards alone."""

    recipe = CoarsRecipe(credit="none")


class CoarsWithoutInteraction(TrainedPair):
    """The credit of hindsight, and the outcome in place of the interaction rewards."""

    recipe = OutcomeRecipe()


class CoarsRecommenderAlone(TrainedPair):
    """The user stays as it is."""

    recipe = CoarsRecipe(learners="recommender")


class CoarsUserAlone(TrainedPair):
    """The recommender stays as it is."""

    recipe = CoarsRecipe(learners="user")
