"""Coars: both agents trained by CoARS, arXiv:2604.10029, and without one of its parts.

Equations, settings and their origin: docs/methods.md. The paper's figures are not known to us, nor its code.
"""

from dataclasses import replace

from agents.training.train import CoarsConfig
from baselines.trained_pair import TrainedPair


class Coars(TrainedPair):
    """Coupled interaction rewards, and the credit of hindsight."""


class CoarsWithoutDistillation(TrainedPair):
    """The rewards alone."""

    settings = CoarsConfig(credit="none")


class CoarsWithoutInteraction(TrainedPair):
    """The credit of hindsight, and the outcome in place of the interaction rewards."""

    settings = CoarsConfig(paid_by="outcome")


class CoarsRecommenderAlone(TrainedPair):
    """The user stays as it is."""

    settings = CoarsConfig(trained="recommender")


class CoarsUserAlone(TrainedPair):
    """The recommender stays as it is."""

    settings = replace(CoarsRecommenderAlone.settings, trained="user")
