"""ZeroShot: a language model as it is, prompted once for each reply.

The floor of every agent with the same backbone. Prompts are those of CoARS's agents, without memory; decoding is
greedy. Published Hit@1 with 20 candidates (AFL, arXiv:2410.20027, Table 4, LastFM / Steam / MovieLens): GPT-4o-mini
.3607 / .3350 / .1368, Llama3-8B .2131 / .1800 / .1368. Two unrelated models share that last cell, 13 of 95; it is to be
read with care. A user who always says yes has a recall of 1: see precision and acceptance beside F1.
"""

from agents.models.language_model import LanguageModel
from agents.players.text_agent import TextAgent
from agents.players.text_system import TextSystem
from coars_env import RECOMMENDER, USER, Split


class ZeroShot(TextSystem):
    """Both sides without memory."""

    @classmethod
    def fit(cls, split: Split, *, model: LanguageModel, seed: int = 0) -> "ZeroShot":
        """Nothing is learnt; the seed changes nothing where decoding is greedy."""
        recommender, user = (TextAgent(model, role, split.dataset.items) for role in (RECOMMENDER, USER))
        return cls(recommender, user)
