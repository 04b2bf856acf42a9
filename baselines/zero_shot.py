"""ZeroShot: a language model as it is, prompted once for each reply.

The floor of every agent with the same backbone. Prompts are those of CoARS's agents, without memory; decoding is
greedy. Published Hit@1 with 20 candidates (AFL, arXiv:2410.20027, Table 4, LastFM / Steam / MovieLens): GPT-4o-mini
.3607 / .3350 / .1368, Llama3-8B .2131 / .1800 / .1368. Two unrelated models share that last cell, 13 of 95; it is to be
read with care. A user who always says yes has a recall of 1: see precision and acceptance beside F1.
"""

from typing import Self

from agents.players.text_agent import TextAgent
from baselines.system import Resources, System
from coars_env import ROLES, Split


class ZeroShot(System):
    """Both sides without memory."""

    plays = ROLES

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Learn nothing; the seed changes nothing where decoding is greedy."""
        model = resources.language_model(split)
        recommender, user = (TextAgent(model, role, split.dataset.items) for role in ROLES)
        return cls(recommender, user)
