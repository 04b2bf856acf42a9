"""ScoreTable: systems side by side, with intervals and paired differences; as markdown, CSV and in a terminal."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coars_env.errors import ConfigError, ShapeError
from coars_env.evaluation.intervals import Difference, Estimate, holm
from coars_env.evaluation.metrics import ANSWER_METRICS
from coars_env.evaluation.ranking import CUTOFFS
from coars_env.evaluation.reports import markdown_table
from coars_env.evaluation.scores import Cost, Scores
from coars_env.rules import PAPER, AnswerRule

if TYPE_CHECKING:
    from rich.console import Console

Line = dict[str, str]
"""Column -> cell, as people read it."""
RANKING = tuple(f"{measure}@{cut}" for cut in CUTOFFS for measure in ("HR", "NDCG"))
HITS = {"hit_final": "Hit@1, last", "hit_best": "Hit@1, best"}
"""Hit@1 by both rules of `Rules.answer`; the one that is the answer of the game has the column Hit@1."""
SHOWN_OF_PLAY = {"hit_first": "Hit@1, turn 1", "turns": "turns", "reward_recommender": "reward"}
"""Metrics of dialogues, and their columns; left out where all systems are answered by a click in turn 1."""
AS_IT_IS = "as it is"
"""How tables and pictures name a system with its own user, beside its controls."""
SHOWN_OF_WORDS = {"questions": "questions", "revealed": "revealed", "true_reveals": "true"}
"""Metrics of games with an instruction; left out where nothing was asked or revealed."""
PLAYED = (*HITS, *SHOWN_OF_PLAY, *SHOWN_OF_WORDS)
SHOWN_OF_RANKING = ("HR@10", "NDCG@10")
SHOWN_OF_USERS = ("auc", "acceptance", "ece", "unusable")
"""Of the test of users at its first ratio."""
USAGE = ("calls", "tokens_read", "tokens_written", "seconds", "money")


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One system, over the seeds that were played to their end."""

    system: str
    seeds: tuple[int, ...]
    """Empty if all failed; then there are no figures."""
    hit: Estimate | None
    """Hit@1 over seeds, users and draws, of the proposal that is the answer by the rules of the game."""
    difference: Difference | None
    """Hit@1 minus that of the reference, paired by user; None for the reference, or where one of them failed."""
    p_holm: float
    """p-value of the difference, corrected for all differences of the table; NaN without one."""
    played: dict[str, Estimate] = field(default_factory=dict)
    """By the names of `METRICS`."""
    ranking: dict[str, Estimate] = field(default_factory=dict)
    """`RANKING` by name; empty if the system does not score all items."""
    user: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """Ratio -> `SIMULATION_METRICS`, of the test of its user; empty for systems whose user was not asked."""
    user_differences: dict[str, Difference] = field(default_factory=dict)
    """Ratio -> F1 minus that of the first system of the table whose user was asked, paired by user."""
    cost: Cost | None = None
    """None if all failed, or where it was not measured."""
    notes: tuple[str, ...] = ()
    """Failures."""
    answer: AnswerRule = PAPER.answer
    """Which proposal Hit@1 is of, see `Rules.answer`."""


def table_rows(systems: Sequence[Scores], reference: str | None = None) -> list[TableRow]:
    """Estimate the figures of each system, and how it differs from the reference.

    Raises:
        ConfigError: two systems have one name, or none is the reference.
        ShapeError: they answered different questions, or by different rules.
    """
    named = {scores.name: scores for scores in systems}
    if len(named) < len(systems) or reference not in (None, *named):
        raise ConfigError(
            f"Systems need names of their own, one of them {reference!r}; got {[scores.name for scores in systems]}. "
            "Rename some, or name another reference."
        )
    if len(rules := {scores.answer for scores in systems if scores.metrics}) > 1:
        raise ShapeError(f"Systems of one table must answer by one rule, got {sorted(rules)}. Play all by the same.")
    base = None if reference is None else named[reference]
    others = [one for one in systems if base is not None and one is not base and one.metrics and base.metrics]
    differences = {one.name: one.minus(base) for one in others if base is not None}
    adjusted = dict(zip(differences, holm([d.p_value for d in differences.values()]).tolist(), strict=True))
    leader = next((scores for scores in systems if scores.users), None)
    rows = []
    for scores in systems:
        played = scores.estimates()
        rows.append(
            TableRow(
                system=scores.name,
                seeds=scores.seeds,
                hit=played.get(scores.hit),
                difference=differences.get(scores.name),
                p_holm=adjusted.get(scores.name, np.nan),
                played=played,
                ranking=scores.ranking_estimates(),
                user=scores.user_estimates(),
                user_differences={
                    ratio: scores.user_minus(leader, ratio)
                    for ratio in scores.users
                    if leader is not None and scores is not leader
                },
                cost=scores.cost,
                notes=scores.notes,
                answer=scores.answer,
            )
        )
    return rows


@dataclass(frozen=True)
class ScoreTable:
    """Systems side by side. Example: `print(ScoreTable.of([a.scores(), b.scores()], "a").to_markdown())`."""

    rows: tuple[TableRow, ...]
    reference: str | None = None
    """System that the others are compared with."""

    @classmethod
    def of(cls, systems: Sequence[Scores], reference: str | None = None) -> "ScoreTable":
        """Lay out systems, see `table_rows`."""
        return cls(tuple(table_rows(systems, reference)), reference)

    def systems(self) -> list[Line]:
        """The cells of the main table; an empty one where a figure is not defined. Columns without any are left out."""
        rows = self.rows
        talks = any(row.user or ("turns" in row.played and row.played["turns"].mean > 1) for row in rows)
        worded = any(name in row.played and row.played[name].mean > 0 for row in rows for name in SHOWN_OF_WORDS)
        play = {**_other_hit(next((row.answer for row in rows if row.hit), PAPER.answer)), **SHOWN_OF_PLAY}
        ranks, costs = any(row.ranking for row in rows), any(row.cost for row in rows)
        return [
            {
                "system": row.system,
                "Hit@1": "failed" if row.hit is None else str(row.hit),
                **({} if self.reference is None else self._compared(row)),
                **{column: _text(row.played.get(name)) for name, column in play.items() if talks},
                **{column: _text(row.played.get(name)) for name, column in SHOWN_OF_WORDS.items() if worded},
                **{name: _text(row.ranking.get(name)) for name in SHOWN_OF_RANKING if ranks},
                **(_measured(row.cost) if costs else {}),
                "seeds": ", ".join(map(str, row.seeds)),
            }
            for row in rows
        ]

    def _compared(self, row: TableRow) -> Line:
        difference = "" if row.difference is None else signed(row.difference)
        return {
            f"minus {self.reference}": difference,
            "p (Holm)": "" if math.isnan(row.p_holm) else f"{row.p_holm:.4f}",
        }

    def rankings(self) -> list[Line]:
        """The cells of the table of full rankings; systems that rank nothing have no line."""
        return [
            {"system": row.system, **{name: _text(row.ranking.get(name)) for name in RANKING}}
            for row in self.rows
            if row.ranking
        ]

    def users(self) -> list[Line]:
        """The cells of the table of users; systems whose user was not asked have no line.

        Where the table has a reference, F1 is compared with that of the first line.
        """
        tested = [row for row in self.rows if row.user]
        compared = self.reference is not None and len(tested) > 1
        return [
            {
                "system": row.system,
                **{f"F1 {ratio}": str(found["f1"]) for ratio, found in row.user.items()},
                **{
                    f"minus {tested[0].system}, {ratio}": signed(row.user_differences[ratio])
                    if ratio in row.user_differences
                    else ""
                    for ratio in row.user
                    if compared
                },
                **{name: str(next(iter(row.user.values()))[name]) for name in SHOWN_OF_USERS},
            }
            for row in tested
        ]

    def costs(self) -> list[Line]:
        """The cells of the table of costs; systems without a language model have no line."""
        return [_spent(row.system, row.cost) for row in self.rows if row.cost is not None and row.cost.usage]

    def to_markdown(self) -> str:
        """All tables that have lines, one below the other."""
        parts = (self.systems(), self.rankings(), self.users(), self.costs())
        return "\n\n".join(markdown_lines(lines) for lines in parts if lines)

    def show(self, console: "Console") -> None:
        """Print systems and users, and what failed."""
        for lines in (self.systems(), self.users()):
            print_lines(lines, console)
        for row in self.rows:
            for note in row.notes:
                console.print(f"{row.system}, {note}", markup=False, highlight=False)

    def records(self) -> list[dict[str, Any]]:
        """One number a column, "" where there is none; the same columns whatever the systems are."""
        return [_flat(row, self.reference) for row in self.rows]


def _other_hit(answer: AnswerRule) -> dict[str, str]:
    """Hit@1 by the rule that is not that of the game, and its column."""
    return {name: column for name, column in HITS.items() if name != ANSWER_METRICS[answer]}


def _measured(cost: Cost | None) -> Line:
    return {
        "parameters": "" if cost is None or cost.parameters is None else f"{cost.parameters:,}",
        "training, s": "" if cost is None else f"{cost.training_seconds / cost.seeds:.1f}",
        "memory, MB": "" if cost is None else f"{cost.memory_mb:.0f}",
    }


def _spent(system: str, cost: Cost) -> Line:
    usage, learning = cost.of_an_episode(), cost.of_learning()
    return {
        "system": system,
        "replies": f"{usage['calls']:.1f}",
        "tokens read": f"{usage['tokens_read']:.0f}",
        "tokens written": f"{usage['tokens_written']:.0f}",
        "seconds": f"{cost.episode_seconds / cost.episodes:.4f}",
        "dollars": f"{usage['money']:.5f}",
        "learning: replies": f"{learning['calls']:.0f}" if learning else "",
        "learning: tokens": f"{learning['tokens_read'] + learning['tokens_written']:.0f}" if learning else "",
    }


def _text(estimate: Estimate | None) -> str:
    return "" if estimate is None or math.isnan(estimate.mean) else str(estimate)


def signed(difference: Difference) -> str:
    """Return a difference as tables show it: "+0.375 [+0.125, +0.625]"."""
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _flat(row: TableRow, reference: str | None) -> dict[str, Any]:
    def spread(name: str, estimate: Estimate | None) -> dict[str, Any]:
        if estimate is None or math.isnan(estimate.mean):
            return dict.fromkeys((name, f"{name}_low", f"{name}_high"), "")
        values = (estimate.mean, estimate.low, estimate.high)
        return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))

    cost = row.cost
    usage, learning = (cost.of_an_episode(), cost.of_learning()) if cost else ({}, {})
    return {
        "system": row.system,
        "seeds": " ".join(map(str, row.seeds)),
        **spread("hit@1", row.hit),
        "answer": row.answer if row.hit else "",
        "reference": reference or "",
        **spread("difference", row.difference),
        "p": "" if row.difference is None else row.difference.p_value,
        "p_holm": "" if math.isnan(row.p_holm) else row.p_holm,
        **{key: value for name in RANKING for key, value in spread(name.lower(), row.ranking.get(name)).items()},
        **{key: value for name in PLAYED for key, value in spread(name, row.played.get(name)).items()},
        **{
            key: value
            for ratio in ("1:1", "1:3", "1:9")
            for name in ("f1", "precision", "recall", "auc", "acceptance", "accuracy", "ece", "unusable")
            for key, value in spread(f"user_{name}_{ratio}", row.user.get(ratio, {}).get(name)).items()
        },
        **{f"episode_{name}": usage.get(name, "") for name in USAGE},
        "episode_wall_seconds": cost.episode_seconds / cost.episodes if cost and cost.episodes else "",
        **{f"learning_{name}": learning.get(name, "") for name in USAGE},
        "parameters": "" if cost is None or cost.parameters is None else cost.parameters,
        "training_seconds": "" if cost is None else cost.training_seconds / cost.seeds,
        "memory_mb": "" if cost is None else cost.memory_mb,
    }


def comparison_lines(after: Scores, before: Scores) -> list[Line]:
    """The cells of a table of paired differences: Hit@1 of the answer, by the other rule and in turn 1, and F1 of the
    user by ratio.
    """
    hits = {**_other_hit(after.answer), "hit_first": SHOWN_OF_PLAY["hit_first"]}
    shared = {name: column for name, column in hits.items() if name in after.metrics and name in before.metrics}
    differences = {
        "Hit@1": after.minus(before),
        **{column: after.minus(before, name) for name, column in shared.items()},
        **{f"user F1 {ratio}": after.user_minus(before, ratio) for ratio in after.users if ratio in before.users},
    }
    head = f"{after.name} minus {before.name}"
    return [{"metric": name, head: f"{signed(d)} p={d.p_value:.4f}"} for name, d in differences.items()]


def control_lines(variants: Mapping[str, Scores]) -> list[Line]:
    """The cells of a table of controls: Hit@1 by both rules, and the difference to the system as it is.

    Args:
        variants: the system `AS_IT_IS` and with each of its `control_users`, by name.

    Raises:
        ConfigError: the system as it is is not among them.
        ShapeError: they answered different questions, or by different rules.
    """
    if AS_IT_IS not in variants:
        raise ConfigError(f"Controls are compared with the system {AS_IT_IS!r}, got {list(variants)}. Add it.")
    lines = []
    for name, scores in variants.items():
        found = scores.estimates()
        shown = {**HITS, "hit_first": SHOWN_OF_PLAY["hit_first"]}
        lines.append(
            {
                "user": name,
                "Hit@1": _text(found.get(scores.hit)),
                f"minus {AS_IT_IS}": "" if name == AS_IT_IS else signed(scores.minus(variants[AS_IT_IS])),
                **{column: _text(found.get(metric)) for metric, column in shown.items()},
            }
        )
    return lines


def markdown_lines(lines: Sequence[Line]) -> str:
    """Markdown of lines; columns in the order in which they come up, an empty cell where a line has none."""
    columns = list(dict.fromkeys(column for line in lines for column in line))
    return markdown_table(columns, [[line.get(column, "") for column in columns] for line in lines])


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """CSV of records that have the same columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def print_lines(lines: Sequence[Line], console: "Console") -> None:
    """Print lines as tables that fit the console: columns that do not are put below, beside the first column again."""
    from rich.table import Table  # not for those who only compute

    first, *columns = dict.fromkeys(column for line in lines for column in line) or [""]
    width = {c: 3 + max(len(text) for text in (c, *(line.get(c, "") for line in lines))) for c in (first, *columns)}
    while columns:
        taken, room = 1, console.width - width[first] - width[columns[0]] - 1
        while taken < len(columns) and width[columns[taken]] <= room:
            room -= width[columns[taken]]
            taken += 1
        table = Table()
        for column in (first, *columns[:taken]):
            table.add_column(column, overflow="fold")
        for line in lines:
            table.add_row(*(line.get(column, "") for column in (first, *columns[:taken])))
        console.print(table)
        columns = columns[taken:]
