"""check_reward: what `Reward` promises, asked of any reward on the toy episodes."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np

from coars_env.datasets.dataset import Facet, FloatArray
from coars_env.errors import ConfigError, expect
from coars_env.rewards import BatchReward, Reward, RewardTerms, TurnArrays, check_terms
from coars_env.tasks import Task, task_from_row, task_row
from coars_env.testing.toys import toy_episodes, toy_instructed_episodes
from coars_env.transcript import ROLES, Answer, Transcript, Turn

_TOLERANCE = 1e-12
"""Largest difference between `turn` and `batch` that counts as rounding, absolute and relative (our choice)."""
_MAX_TURNS = 4


@dataclass(frozen=True)
class _Scored:
    """A turn of a toy episode and what the reward returns for it."""

    task: Task
    turn: Turn
    number: int
    terms: RewardTerms


def check_reward(reward: Reward) -> None:
    """Score every kind of turn of the toy episodes, questions included, and check what `Reward` promises.

    Each agent's reward is a finite number, the excluded agents exist, and a turn earns the same again after a round
    trip through JSON, so that stored dialogues can be scored. If there is a method `batch` (see `BatchReward`), it pays
    the same up to rounding (1e-12).

    Raises:
        AssertionError: a promise is broken; the message names the task, the turn and both values.
        ConfigError: it is no reward.
    """
    expect(Reward, reward, "A reward has a method `turn`.", "Write one as in `coars_env.Reward`.")
    answers = [Answer(action, s, "So.") for action, s in ((0, 0.1), (1, 0.3), (2, 0.6), (3, 0.9), (2, 0.5))]
    answers.append(Answer(None, None, "So.", "no action"))
    turns = [
        (task, number, Turn(proposal, "Why?", (answer,), "no item" if proposal is None else None))
        for task, number, answer in product(toy_episodes(), range(1, _MAX_TURNS + 1), answers)
        for proposal in (*task.candidates, None)
    ]
    wish, unread = Answer(None, None, "So.", reveal=Facet("genre", "Comedy")), Answer(None, None, "So.", "no answer")
    turns += [
        (task, number, Turn(None, "Which?", (answer,), question=kind))
        for task, number, answer in product(toy_instructed_episodes(), range(1, _MAX_TURNS), (wish, unread))
        for kind in ("genre", "decade")
    ]
    scored = [_Scored(task, turn, number, _check_turn(reward, task, turn, number)) for task, number, turn in turns]
    if hasattr(reward, "batch"):
        _check_batch(cast(BatchReward, reward), scored)


def _check_turn(reward: Reward, task: Task, turn: Turn, number: int) -> RewardTerms:
    terms = reward.turn(task, turn, number, _MAX_TURNS)
    try:
        check_terms(terms, reward, task, number)
    except ConfigError as error:
        raise AssertionError(f"{error} The turn: {turn}") from error
    stored = Transcript(task, _MAX_TURNS, (turn,), "failed", "", toy_episodes().provenance).to_json()
    stored_turn = Transcript.from_json(stored).turns[0]
    again = reward.turn(task_from_row(json.loads(json.dumps(task_row(task)))), stored_turn, number, _MAX_TURNS)
    assert again == terms, (
        f"The reward depends on more than the turn: task {task.task_id!r}, turn {number} earns {terms}, and {again} "
        "after it was stored and read"
    )
    return terms


def _check_batch(reward: BatchReward, scored: Sequence[_Scored]) -> None:
    paid = reward.batch(_arrays(scored), _MAX_TURNS)
    assert set(paid) == set(ROLES), f"`batch` must pay each of {list(ROLES)}, and pays {list(paid)}"
    for agent, together in paid.items():
        assert np.shape(together) == (len(scored),), (
            f"`batch` must pay {agent} an array of shape ({len(scored)},), and returns shape {np.shape(together)}"
        )
        for one, found in zip(scored, np.asarray(together, dtype=np.float64).tolist(), strict=True):
            alone = float(one.terms.rewards[agent])
            assert math.isclose(alone, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE), (
                f"`turn` and `batch` must pay the same: task {one.task.task_id!r}, turn {one.number} pays {agent} "
                f"{alone!r} by `turn` and {found!r} by `batch`. The turn: {one.turn}"
            )


def _arrays(scored: Sequence[_Scored]) -> TurnArrays:
    def column(values: Sequence[float | None], missing: float) -> FloatArray:
        return np.array([missing if value is None else value for value in values], dtype=np.float64)

    answers = [one.turn.answers[0] for one in scored]
    proposals = [one.turn.proposal for one in scored]
    return TurnArrays(
        hit=np.array([one.turn.proposal == one.task.target for one in scored]),
        named=np.array([proposal is not None for proposal in proposals]),
        question=np.array([one.turn.question is not None for one in scored]),
        unread=np.array([answer.error is not None for answer in answers]),
        action=column([answer.action for answer in answers], -1).astype(np.int64),
        strength=column([answer.strength for answer in answers], math.nan),
        peer_similarity=np.array(
            [0.0 if p is None else one.task.q(p) for p, one in zip(proposals, scored, strict=True)]
        ),
        number=np.array([one.number for one in scored]),
    )
