"""check_reward: what `Reward` promises, asked of any reward on the toy episodes."""

import json
import math
from dataclasses import asdict
from itertools import product

from coars_env.rewards import Reward
from coars_env.tasks import task_from_row
from coars_env.testing.toys import toy_episodes
from coars_env.transcript import ROLES, Turn


def check_reward(reward: Reward) -> None:
    """Score every kind of turn of the toy episodes and ask for what `Reward` promises.

    Rewards are finite, the excluded roles exist, and a turn earns the same again after a trip through JSON, so that
    stored dialogues can be scored.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
    """
    strengths = (*((action, s) for action, s in enumerate((0.1, 0.3, 0.6, 0.9))), (2, 0.5), (None, None))
    for task, number, (action, strength) in product(toy_episodes(), range(1, 5), strengths):
        for proposal in (*task.candidates, None):
            unread = "no item" if proposal is None else None
            turn = Turn(proposal, "Why?", action, strength, "So.", unread, "no action" if action is None else None)
            terms = reward.turn(task, turn, number, 4)
            for name in ("recommender", "user"):
                paid = getattr(terms, name)
                assert math.isfinite(paid), f"A reward is a finite number. Expected one for {turn}, found {paid}"
            found = set(terms.excluded)
            assert found <= set(ROLES), f"Only the two sides can be excluded. Expected some of {ROLES}, found {found}"
            stored_task, stored_turn = json.loads(json.dumps([asdict(task), asdict(turn)]))
            again = reward.turn(task_from_row(stored_task), Turn(**stored_turn), number, 4)
            assert again == terms, f"A reward depends on the turn alone. Expected {terms} again, found {again}"
