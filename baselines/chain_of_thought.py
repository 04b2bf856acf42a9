"""ChainOfThought: zero-shot with room to think before the reason; J. Wei et al. 2022, arXiv:2201.11903.

One more free line, "Thought:", is written before the reply; the other side never reads it. The prompt of
recommendation is ours: the paper has none. A model that was never shown such a line, as pocket, gains nothing by it.
"""

from dataclasses import replace
from typing import Self

from agents.models.fields import Field, Text
from agents.models.replies import ReplyFormat
from agents.players.text_agent import PROMPTED_FORMATS, TextAgent
from baselines.system import Resources, System
from coars_env import ROLES, Role, Split

THOUGHT = Field("Thought", Text(max_tokens=256), hidden=True)


class ChainOfThought(System):
    """Both sides think aloud, without memory."""

    plays = ROLES

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Learn nothing; the seed changes nothing where decoding is greedy."""
        model, items = resources.language_model(split), split.dataset.items
        recommender, user = (TextAgent(model, role, items, reply_format=thinking(role)) for role in ROLES)
        return cls(recommender, user)


def thinking(role: Role) -> ReplyFormat:
    """Return the default format with a hidden thought before it."""
    default = PROMPTED_FORMATS[role]
    return replace(default, fields=(THOUGHT, *default.fields))
