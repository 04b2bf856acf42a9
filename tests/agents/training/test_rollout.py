"""The dialogues of an update: exploration under the rules, and what later turns add to a reward."""

from typing import Any

import numpy as np
import pytest

from agents.training.learner import Optimisation
from agents.training.rollout import Explorer, discounted
from coars_env import RECOMMENDER, USER, ConfigError, RewardTerms
from coars_env.testing import ScriptedAgent


def terms(*rewards: float) -> list[RewardTerms]:
    return [RewardTerms(False, {RECOMMENDER: reward, USER: -2 * reward}) for reward in rewards]


def test_a_turn_earns_what_follows_it_discounted() -> None:
    """1 + .5 (2 + .5 * 4) = 3."""
    found = discounted(terms(1.0, 2.0, 4.0), 0.5)
    assert [term.rewards for term in found] == [
        {RECOMMENDER: 3.0, USER: -6.0},
        {RECOMMENDER: 4.0, USER: -8.0},
        {RECOMMENDER: 4.0, USER: -8.0},
    ]


def test_without_a_discount_every_turn_pays_for_itself() -> None:
    paid = terms(1.0, 2.0)
    assert discounted(paid, 0.0) == paid
    assert discounted([], 0.9) == []


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_a_discount_is_a_share(discount: float) -> None:
    with pytest.raises(ConfigError, match=r"discount must be in \[0, 1\], got"):
        Optimisation(discount=discount)


def test_exploration_keeps_questions_and_proposes_what_is_allowed() -> None:
    asking = {"ask": "genre", "message": "Which genre?"}
    observation: dict[str, Any] = {"candidates": np.array([4, 5, 6]), "allowed": np.array([0, 0, 1], np.int8)}
    explorer = Explorer(ScriptedAgent([asking, {"item": 0, "message": "Mine."}]), explored=1)
    explorer.start([(0, 0)])
    assert explorer.act({0: observation})[0] == asking
    assert explorer.act({0: observation})[0] == {"item": 2, "message": "Mine."}
