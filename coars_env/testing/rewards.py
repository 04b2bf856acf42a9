"""check_reward: what `Reward` promises, asked of any reward on the toy episodes."""

import json
import math
from dataclasses import asdict
from itertools import product
from typing import cast

import numpy as np

from coars_env.datasets.dataset import FloatArray
from coars_env.errors import expect
from coars_env.rewards import BatchReward, Reward, TurnArrays
from coars_env.tasks import task_from_row
from coars_env.testing.toys import toy_episodes
from coars_env.transcript import ROLES, Turn


def check_reward(reward: Reward) -> None:
    """Score every kind of turn of the toy episodes and ask for what `Reward` promises.

    Rewards are finite, the excluded roles exist, and a turn earns the same again after a trip through JSON, so that
    stored dialogues can be scored. If there is a method `batch` (see `BatchReward`), it pays to the bit the same.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
        ConfigError: it is no reward.
    """
    expect(Reward, reward, "A reward has a method `turn`.", "Write one as in `coars_env.Reward`.")
    strengths = (*((action, s) for action, s in enumerate((0.1, 0.3, 0.6, 0.9))), (2, 0.5), (None, None))
    rows: list[tuple[float, ...]] = []
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
            answer = (-1, math.nan) if action is None or strength is None else (action, strength)
            q = 0.0 if proposal is None else task.q(proposal)
            hit = proposal == task.target
            rows.append((hit, proposal is not None, *answer, q, number, terms.recommender, terms.user))
    if hasattr(reward, "batch"):
        _check_batch(cast(BatchReward, reward), np.array(rows).T)


def _check_batch(reward: BatchReward, columns: FloatArray) -> None:
    """The columns are those of `TurnArrays` and then what the two sides were paid for each turn."""
    hit, named, action, strength, q, number, *expected = columns
    turns = TurnArrays(hit > 0, named > 0, action.astype(np.int64), strength, q, number.astype(np.int64))
    for role, alone, together in zip(ROLES, expected, reward.batch(turns, 4), strict=True):
        assert np.array_equal(alone, together), (
            f"Turns must earn the same one by one and at once. Expected {alone} for {role}, found {together}"
        )
