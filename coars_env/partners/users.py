"""Scripted users: one answer for all, one that knows the answer, and one that judges by a score.

Asked for a facet, they decline; `coars_env.partners.instructed` has users that answer.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coars_env.datasets.dataset import Facet
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan
from coars_env.observation import Action, Observation, history_of, kinds_of
from coars_env.rendering.wording import DECLINE, wish_text
from coars_env.tasks import Scorer, Task, scores_of
from coars_env.transcript import ACTIONS, STRENGTH_EDGES


def proposal_of(observation: Observation) -> int:
    """Return the catalogue index of what is on the table; -1 if the recommender asks, or named nothing."""
    return int(observation["proposals"][observation["turn"]])


def question_of(observation: Observation) -> str:
    """Return the kind of facet that the user is asked for; empty if it is not asked."""
    return str(observation["questions"][observation["turn"]]) if kinds_of(observation) else ""


def nothing_offered() -> Action:
    """Return the answer where the recommender named nothing."""
    return {"action": 0, "strength": 0.0, "message": "I was offered nothing."}


def decline(facet: Facet | None = None) -> Action:
    """Return the answer to a question: a facet that is revealed, or none."""
    if facet is None:
        return {"action": 0, "strength": 0.0, "message": DECLINE}
    return {"action": 0, "strength": 0.0, "message": wish_text(facet), "reveal": str(facet)}


class FixedUser:
    """Answers every proposal alike, by default with a full-strength click: then the first proposal is the final one.

    Raises:
        ConfigError: there is no such action, or the strength is not in [0, 1].
    """

    def __init__(self, action: str = "click", strength: float = 1.0, message: str = "Fine.") -> None:
        if action not in ACTIONS:
            raise ConfigError(
                f"A user acts in one of four ways. Expected one of {ACTIONS}, found {action!r}. Name one."
            )
        if not 0 <= number_or_nan(strength) <= 1:
            raise ConfigError(f"A strength is a share. Expected 0 <= strength <= 1, found {strength!r}. Use 1.0.")
        self._action: dict[str, Any] = {"action": ACTIONS.index(action), "strength": strength, "message": message}

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: decline() if question_of(o) else dict(self._action) for n, o in observations.items()}


class OracleUser:
    """Clicks what was truly taken next and dislikes the rest, but errs with probability `flip` in each answer.

    0 is an oracle, .2 an honest user that errs in one answer of five, 1 an adversary that takes every miss and refuses
    every hit. No observation holds the target, so the user gets the tasks beforehand and finds its own by the history
    it sees. Tasks that share a history cannot be told apart: there, the target of any of them is what was taken. Of an
    item it never says the name. Example: `OracleUser(episodes, flip=0.2)`.

    Raises:
        TaskError: in `act`, a history that belongs to none of the tasks.
        ConfigError: these are no tasks, or `flip` is no probability.
    """

    def __init__(self, tasks: Iterable[Task], *, flip: float = 0.0) -> None:
        if not 0 <= number_or_nan(flip) <= 1:
            raise ConfigError(f"An error rate is a probability. Expected 0 <= flip <= 1, found {flip!r}. Use 0.2.")
        self._flip = flip
        self._taken: dict[tuple[int, ...], set[int]] = {}
        for task in tasks:
            expect(Task, task, "What was taken next stands in tasks.", "Pass the episode set that is played.")
            for member in task.members:
                self._taken.setdefault(member.history, set()).add(task.target)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._answer(n, observation) for n, observation in observations.items()}

    def _answer(self, n: int, observation: Observation) -> Action:
        history = tuple(history_of(observation))
        if history not in self._taken:
            raise TaskError(
                f"An oracle must know the tasks it is asked about. Expected one of {len(self._taken)} histories, found "
                f"{history}. Build the user from the episode set that is played."
            )
        erring = self._rngs[n].random() < self._flip
        if question_of(observation):
            return decline()
        if proposal_of(observation) < 0:
            return nothing_offered()
        if (proposal_of(observation) in self._taken[history]) != erring:
            return {"action": ACTIONS.index("click"), "strength": 1.0, "message": "Yes, that one."}
        return {"action": ACTIONS.index("dislike"), "strength": 0.0, "message": "No, not that."}


class ScorerUser:
    """Judges a proposal by how well it goes with the history: strength = 1 / (1 + exp(-(score - threshold) / scale)).

    The action is the one in whose interval the strength lies, so above the threshold it stars or clicks, and more than
    1.1 scales above it clicks. A high threshold makes a picky user; `fit` finds one that accepts a given share of the
    candidates. Example: `ScorerUser.fit(svd_scorer(SvdPeers(split).directions), episodes, accept=0.1)`.

    Raises:
        ConfigError: it is no scorer, or a number that cannot be.
    """

    def __init__(self, scorer: Scorer, *, threshold: float, scale: float) -> None:
        expect(Callable, scorer, "Proposals are scored.", "Pass a `Scorer`, such as popularity_scorer(split).")
        if not number_or_nan(scale) > 0:
            raise ConfigError(f"Strengths rise with the score. Expected scale > 0, found {scale!r}. Raise it.")
        if math.isnan(number_or_nan(threshold)):
            raise ConfigError(f"A threshold is a score. Expected a number, found {threshold!r}. Use ScorerUser.fit.")
        self._scorer = scorer
        self.threshold = threshold
        self.scale = scale

    @classmethod
    def fit(cls, scorer: Scorer, tasks: Iterable[Task], *, accept: float) -> "ScorerUser":
        """The user that reacts well (star or click) to the share `accept` of the tasks' candidates.

        The scale is a quarter of the scores' standard deviation, 1 where there is none. No target is read.
        """
        if not 0 < number_or_nan(accept) < 1:
            raise ConfigError(f"A share lies between 0 and 1. Expected 0 < accept < 1, found {accept!r}. Use 0.1.")
        listed = [(np.array(m.history, np.int64), np.array(t.candidates, np.int64)) for t in tasks for m in t.members]
        scored = [scores_of(scorer, history, candidates) for history, candidates in listed]
        if not scored:
            raise TaskError("A threshold is found on tasks. Expected at least one, found none. Pass an episode set.")
        scores = np.concatenate(scored)
        return cls(scorer, threshold=float(np.quantile(scores, 1 - accept)), scale=float(scores.std() / 4) or 1.0)

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._answer(observation) for n, observation in observations.items()}

    def _answer(self, observation: Observation) -> Action:
        if question_of(observation):
            return decline()
        if proposal_of(observation) < 0:
            return nothing_offered()
        strength = self.strength(observation)
        action = sum(strength >= edge for edge in STRENGTH_EDGES) - 1
        message = "That goes with what I took." if strength >= STRENGTH_EDGES[2] else "That is not for me."
        return {"action": action, "strength": strength, "message": message}

    def strength(self, observation: Observation) -> float:
        """Return how much the user likes what is on the table, in [0, 1]."""
        item = np.array([proposal_of(observation)])
        score = float(scores_of(self._scorer, history_of(observation), item)[0])
        return float((1 + np.tanh((score - self.threshold) / self.scale / 2)) / 2)  # logistic; no overflow
