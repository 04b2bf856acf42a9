"""ChainOfThought: zero-shot with room to think before the reason; J. Wei et al. 2022, arXiv:2201.11903.

One more free line, "Thought:", is written before the reply; the other side never reads it. The prompt of
recommendation is ours: the paper has none. A model that was never shown such a line, as pocket, gains nothing by it.
"""

from agents.models.language_model import Field, LanguageModel
from agents.players.text_agent import TextAgent
from agents.players.text_system import TextSystem
from coars_env import RECOMMENDER, USER, Split

THOUGHT = Field("Thought:", max_tokens=256)


class ChainOfThought(TextSystem):
    """Both sides think aloud, without memory."""

    @classmethod
    def fit(cls, split: Split, *, model: LanguageModel, seed: int = 0) -> "ChainOfThought":
        """Nothing is learnt; the seed changes nothing where decoding is greedy."""
        recommender, user = (TextAgent(model, role, split.dataset.items, first=THOUGHT) for role in (RECOMMENDER, USER))
        return cls(recommender, user)
