"""Asking, Listening, Instructed: scripted partners of games with instructions, and what training has to reach.

A belief over the candidates, from what followed what in the training part, that is sharpened by what the user says; see
`coars_env.AskingRecommender`. `asking` also asks where that pays more than a proposal, `listening` never does. The user
`instructed` says truthfully what it wants and clicks what has all of it, see `coars_env.InstructedUser`.

Reproduce their rows by `coars compare --instructions genre decade --systems asking listening --user instructed`.
"""

from typing import ClassVar, Self

from baselines.system import Resources, System
from coars_env import RECOMMENDER, USER, AskingRecommender, InstructedUser, Split, kernel_scorer


class Listening(System):
    """Proposes what is most probable after all that the user has said, and never asks."""

    plays = (RECOMMENDER,)
    asks: ClassVar[bool] = False

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Count what followed what in the training part; the noise of the instructions is known."""
        noise = 0.0 if resources.instructions is None else resources.instructions.noise
        return cls(AskingRecommender(kernel_scorer(split), split.dataset.items, noise=noise, asks=cls.asks))


class Asking(Listening):
    """Also asks for a kind of facet where that pays more than a proposal."""

    asks = True


class Instructed(System):
    """A user that knows what it wants and says so. Without an instruction it takes whatever comes."""

    plays = (USER,)

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Nothing is learnt: the items say what has the facets that are wanted."""
        return cls(user=InstructedUser(split.dataset.items))
