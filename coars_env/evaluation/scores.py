"""Scores, Cost: the figures of one system on a benchmark as arrays, and what they took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coars_env.datasets.dataset import FloatArray
from coars_env.errors import ConfigError, ShapeError
from coars_env.evaluation.intervals import Difference, Estimate, bootstrap_interval, paired_difference
from coars_env.evaluation.metrics import ANSWER_METRICS
from coars_env.evaluation.reports import joint_estimates
from coars_env.evaluation.simulation_report import counted_difference, simulation_estimates
from coars_env.rules import PAPER, AnswerRule


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a system took, summed over `seeds` seeds."""

    parameters: int | None = None
    """Learnt numbers; None if unknown."""
    training_seconds: float = 0.0
    """Processor time."""
    memory_mb: float = 0.0
    """Highest memory of a process."""
    episodes: int = 0
    """Episodes that were played."""
    episode_seconds: float = 0.0
    """Wall time of playing them, many at once."""
    usage: Mapping[str, float] = field(default_factory=dict)
    """What playing asked of a language model, both sides together, by the fields of `agents.models.usage.Usage`."""
    learning: Mapping[str, float] = field(default_factory=dict)
    """What learning in text asked of it."""
    seeds: int = 1

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            parameters=self.parameters,
            training_seconds=self.training_seconds + other.training_seconds,
            memory_mb=max(self.memory_mb, other.memory_mb),
            episodes=self.episodes + other.episodes,
            episode_seconds=self.episode_seconds + other.episode_seconds,
            usage=_sums(self.usage, other.usage),
            learning=_sums(self.learning, other.learning),
            seeds=self.seeds + other.seeds,
        )

    def of_an_episode(self) -> dict[str, float]:
        """`usage`, mean over episodes; empty for systems without a language model."""
        return {name: value / self.episodes for name, value in self.usage.items()}

    def of_learning(self) -> dict[str, float]:
        """`learning`, mean over seeds; empty for systems that do not learn in text."""
        return {name: value / self.seeds for name, value in self.learning.items()}


def _sums(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in {**a, **b}}


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """The figures of one system on a benchmark: S seeds, D draws, N users. Without seeds it failed.

    Example: `benchmark.play("popularity", agent, FixedUser()).scores().estimates()["hit_final"]`.
    """

    name: str
    seeds: tuple[int, ...] = ()
    metrics: Mapping[str, FloatArray] = field(default_factory=dict)
    """[S, D, N] by the names of `METRICS` and of `hit_by_turn`, all of them or some."""
    users: Mapping[str, FloatArray] = field(default_factory=dict)
    """Ratio -> [S, U, C] counts of the test of users, see `simulation_counts`; empty where no user was asked."""
    ranking: Mapping[str, FloatArray] = field(default_factory=dict)
    """[S, N] by the names of `ranking_metrics`; empty for systems that do not rank all items."""
    answer: AnswerRule = PAPER.answer
    """Which proposal the dialogues answered, `Rules.answer` of the game; it decides what Hit@1 is, see `hit`."""
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    """What failed, a sentence each."""

    @staticmethod
    def joined(name: str, parts: "Sequence[Scores]") -> "Scores":
        """The figures of one system under several seeds, from those under some; without parts it failed.

        Raises:
            ShapeError: the parts are of different benchmarks, answered by different rules, or do not have the same
                figures.
        """
        costs = [part.cost for part in parts if part.cost is not None]
        answers = list(dict.fromkeys(part.answer for part in parts))
        if len(answers) > 1:
            raise ShapeError(
                f"The seeds of {name} answered by different rules: {answers}. Play all of them by the same rules."
            )
        return Scores(
            name=name,
            seeds=tuple(seed for part in parts for seed in part.seeds),
            metrics=_stacked(name, [part.metrics for part in parts]),
            users=_stacked(name, [part.users for part in parts]),
            ranking=_stacked(name, [part.ranking for part in parts]),
            answer=answers[0] if answers else PAPER.answer,
            cost=sum(costs[1:], costs[0]) if costs else None,
            notes=tuple(note for part in parts for note in part.notes),
        )

    def repeated(self, times: int) -> "Scores":
        """The same figures for each of several seeds: what has no seeds beside a system that was trained with some."""
        return replace(Scores.joined(self.name, [self] * times), notes=self.notes)

    @property
    def hit(self) -> str:
        """The metric that is Hit@1 of this game: `hit_final` where the last proposal is the answer, `hit_best` where
        the best one is.
        """
        return ANSWER_METRICS[self.answer]

    def by_turn(self) -> dict[str, FloatArray]:
        """Hit@1 by turn, see `hit_by_turn`; empty if it was not kept."""
        return {name: values for name, values in self.metrics.items() if "@" in name}

    def kept(self, metrics: Sequence[str]) -> "Scores":
        """The same with these metrics alone."""
        return replace(self, metrics={name: self.metrics[name] for name in metrics})

    def estimates(self) -> dict[str, Estimate]:
        """Mean and interval of each metric over users and seeds, see `bootstrap_interval`."""
        return joint_estimates(self.metrics) if self.metrics else {}

    def user_estimates(self) -> dict[str, dict[str, Estimate]]:
        """Ratio -> each of `SIMULATION_METRICS` with its interval."""
        return {ratio: simulation_estimates(counts) for ratio, counts in self.users.items()}

    def ranking_estimates(self) -> dict[str, Estimate]:
        """Mean and interval of each figure of the full ranking."""
        return {name: bootstrap_interval(values[:, None]) for name, values in self.ranking.items()}

    def minus(self, other: "Scores", metric: str | None = None) -> Difference:
        """A metric of this system minus that of another on the same benchmark, see `paired_difference`.

        None takes Hit@1 of the game, see `hit`.

        Raises:
            ConfigError: one of them has no such metric.
            ShapeError: they answered different questions; or, for Hit@1, by different rules.
        """
        if metric is None:
            if self.answer != other.answer:
                raise ShapeError(
                    f"{self.name} and {other.name} answered by different rules: {self.answer!r} and {other.answer!r}. "
                    "Name a metric, or play both by the same rules."
                )
            metric = self.hit
        for scores in (self, other):
            if metric not in scores.metrics:
                raise ConfigError(f"{scores.name} has no metric {metric!r}, only {list(scores.metrics)}. Name one.")
        return paired_difference(self.metrics[metric], other.metrics[metric])

    def user_minus(self, other: "Scores", ratio: str, metric: str = "f1") -> Difference:
        """A metric of the test of users minus that of another system, see `counted_difference`.

        Raises:
            ConfigError: the user of one of them was not asked at this ratio, or there is no such metric.
        """
        for scores in (self, other):
            if ratio not in scores.users:
                raise ConfigError(
                    f"The user of {scores.name} was not asked at {ratio!r}, only at {list(scores.users)}. Ask it first."
                )
        return counted_difference(self.users[ratio], other.users[ratio], metric)

    def to_dict(self) -> dict[str, Any]:
        """Arrays as lists, for a file of JSON; cost and notes are left out."""
        arrays = {"metrics": self.metrics, "users": self.users, "ranking": self.ranking}
        lists = {kind: {name: values.tolist() for name, values in found.items()} for kind, found in arrays.items()}
        return {"name": self.name, "seeds": list(self.seeds), "answer": self.answer, **lists}

    @staticmethod
    def from_dict(body: Mapping[str, Any]) -> "Scores":
        """What `to_dict` wrote."""
        metrics, users, ranking = (
            {name: np.array(values, dtype=np.float64) for name, values in body[kind].items()}
            for kind in ("metrics", "users", "ranking")
        )
        return Scores(
            name=body["name"],
            seeds=tuple(body["seeds"]),
            metrics=metrics,
            users=users,
            ranking=ranking,
            answer=body["answer"],
        )


def _stacked(name: str, parts: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Arrays of the same figures, joined along the seeds."""
    if not parts:
        return {}
    shapes = {tuple((figure, values.shape[1:]) for figure, values in part.items()) for part in parts}
    if len(shapes) != 1:
        raise ShapeError(
            f"The seeds of {name} have different figures or answered different questions: {sorted(shapes)!r:.300}. "
            "Play all on one benchmark."
        )
    return {figure: np.concatenate([part[figure] for part in parts]) for figure in parts[0]}
