"""ChainOfThought: zero-shot with room to think before the reason; J. Wei et al. 2022, arXiv:2201.11903.

One more free line, "Thought:", is written before the reply; the other side never reads it. The prompt of
recommendation is ours: the paper has none. A model that was never shown such a line, as pocket, gains nothing by it.
"""

from typing import Self

from agents.models.language_model import Field
from agents.players.text_agent import TextAgent
from baselines.system import Resources, System
from coars_env import ROLES, Split

THOUGHT = Field("Thought:", max_tokens=256)


class ChainOfThought(System):
    """Both sides think aloud, without memory."""

    plays = ROLES

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Learn nothing; the seed changes nothing where decoding is greedy."""
        model = resources.language_model(split)
        recommender, user = (TextAgent(model, role, split.dataset.items, first=THOUGHT) for role in ROLES)
        return cls(recommender, user)
