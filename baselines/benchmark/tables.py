"""Row: what a comparison says of one system; table.csv and table.md of many."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from coars_env import Difference, Estimate, markdown_table

FloatArray = npt.NDArray[np.float64]
RANKING = tuple(f"{measure}@{cut}" for cut in (5, 10, 20) for measure in ("HR", "NDCG"))
SHOWN_OF_PLAY = {"hit_first": "Hit@1, turn 1", "turns": "turns", "reward_recommender": "reward"}
"""Metrics of the dialogues, and their columns."""
SHOWN = ("HR@10", "NDCG@10")
"""Those that stand in the table itself."""


@dataclass(frozen=True)
class Cost:
    """What a system takes."""

    parameters: int | None
    """Learnt numbers; None if it does not say."""
    seconds: float
    """Processor time of a training, mean over seeds."""
    memory: float
    """Highest memory of a process in MB, over seeds."""
    usage: dict[str, float] = field(default_factory=dict)
    """What an episode asked of a language model, both sides together: the fields of `agents.models.usage.Usage`."""
    episode_seconds: float = 0.0
    """Of playing an episode, many at once."""
    learning: dict[str, float] = field(default_factory=dict)
    """What learning in text asked of it, mean over seeds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system, over the seeds that were played to their end."""

    system: str
    seeds: tuple[int, ...]
    """Empty if all failed; then there are no figures."""
    hit: Estimate | None
    """Hit@1 over seeds, users and draws."""
    difference: Difference | None
    """Hit@1 minus that of the reference, paired by user; None for the reference itself, or where one of them failed."""
    p_holm: float
    """p-value of the difference, corrected for all differences of the table; NaN without one."""
    ranking: dict[str, Estimate]
    """`RANKING` by name; empty if the system does not score all items."""
    cost: Cost | None
    """None if all failed."""
    played: dict[str, Estimate | None] = field(default_factory=dict)
    """`SHOWN_OF_PLAY` by name."""
    user: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """Ratio -> `coars_env.SIMULATION_METRICS`, of the test of its user; empty for systems without one."""
    user_differences: dict[str, Difference] = field(default_factory=dict)
    """Ratio -> F1 minus that of the first system of the table that plays a user, paired by user."""
    command: str
    """Makes this row again."""
    notes: tuple[str, ...] = ()
    """Failures."""


Line = dict[str, str]
USAGE = ("calls", "tokens_read", "tokens_written", "seconds", "money")


def printed(rows: Sequence[Row], reference: str) -> list[Line]:
    """The cells of the table as people read them; an empty one where there is nothing to say."""
    talks = any(row.user for row in rows)  # else turn 1 is all there is
    shown = SHOWN_OF_PLAY if talks else {}
    return [
        {
            "system": row.system,
            "Hit@1": "failed" if row.hit is None else str(row.hit),
            f"minus {reference}": "" if row.difference is None else _signed(row.difference),
            "p (Holm)": "" if math.isnan(row.p_holm) else f"{row.p_holm:.4f}",
            **{column: _told(row.played.get(name)) for name, column in shown.items()},
            **{name: str(row.ranking[name]) if name in row.ranking else "" for name in SHOWN},
            "parameters": "" if row.cost is None or row.cost.parameters is None else f"{row.cost.parameters:,}",
            "training, s": "" if row.cost is None else f"{row.cost.seconds:.1f}",
            "memory, MB": "" if row.cost is None else f"{row.cost.memory:.0f}",
            "seeds": ", ".join(map(str, row.seeds)),
        }
        for row in rows
    ]


def user_lines(rows: Sequence[Row]) -> list[Line]:
    """The cells of the table of users; systems that play none have no line."""
    tested = [row for row in rows if row.user]
    return [
        {
            "system": row.system,
            **{f"F1 {ratio}": str(found["f1"]) for ratio, found in row.user.items()},
            **{
                f"minus {tested[0].system}, {ratio}": _signed(row.user_differences[ratio])
                if ratio in row.user_differences
                else ""
                for ratio in row.user
            },
            **{name: str(next(iter(row.user.values()))[name]) for name in ("auc", "acceptance", "ece", "unusable")},
        }
        for row in tested
    ]


def cost_lines(rows: Sequence[Row]) -> list[Line]:
    """The cells of the table of costs; systems without a language model have no line."""
    return [
        {
            "system": row.system,
            "replies": f"{usage['calls']:.1f}",
            "tokens read": f"{usage['tokens_read']:.0f}",
            "tokens written": f"{usage['tokens_written']:.0f}",
            "seconds": f"{row.cost.episode_seconds:.4f}",
            "dollars": f"{usage['money']:.5f}",
            "learning: replies": f"{row.cost.learning['calls']:.0f}" if row.cost.learning else "",
            "learning: tokens": f"{row.cost.learning['tokens_read'] + row.cost.learning['tokens_written']:.0f}"
            if row.cost.learning
            else "",
        }
        for row in rows
        if row.cost is not None and (usage := row.cost.usage)
    ]


def _told(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def to_csv(rows: Sequence[Row], reference: str) -> str:
    """One number a column, empty where there is none, so that any program reads it."""
    text = io.StringIO()
    lines = [_flat(row, reference) for row in rows]
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Row, reference: str) -> dict[str, Any]:
    def spread(name: str, estimate: Estimate | None) -> dict[str, Any]:
        values = ("", "", "") if estimate is None else (estimate.mean, estimate.low, estimate.high)
        return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))

    return {
        "system": row.system,
        "seeds": " ".join(map(str, row.seeds)),
        **spread("hit@1", row.hit),
        "reference": reference,
        **spread("difference", row.difference),
        "p": "" if row.difference is None else row.difference.p_value,
        "p_holm": "" if math.isnan(row.p_holm) else row.p_holm,
        **{key: value for name in RANKING for key, value in spread(name.lower(), row.ranking.get(name)).items()},
        **{key: value for name in SHOWN_OF_PLAY for key, value in spread(name, row.played.get(name)).items()},
        **{
            key: value
            for ratio in ("1:1", "1:3", "1:9")
            for name in ("f1", "precision", "recall", "auc", "acceptance", "accuracy", "ece", "unusable")
            for key, value in spread(f"user_{name}_{ratio}", row.user.get(ratio, {}).get(name)).items()
        },
        **{f"episode_{name}": row.cost.usage.get(name, "") if row.cost else "" for name in USAGE},
        "episode_wall_seconds": row.cost.episode_seconds if row.cost else "",
        **{f"learning_{name}": row.cost.learning.get(name, "") if row.cost else "" for name in USAGE},
        "parameters": row.cost and row.cost.parameters,
        "training_seconds": row.cost and row.cost.seconds,
        "memory_mb": row.cost and row.cost.memory,
        "command": row.command,
        "notes": "; ".join(row.notes),
    }


PICTURES = {
    "forest.png": "Hit@1 of every system, and its difference to the reference",
    "cost.png": "Hit@1 against the tokens of an episode",
    "curves.png": "Hit@1 of the first proposal in training",
}


def to_markdown(
    rows: Sequence[Row],
    reference: str,
    *,
    title: str,
    head: Iterable[str],
    pictures: Sequence[str],
    digests: Iterable[str],
) -> str:
    """The page: what was asked and by what, the table, the picture, failures, and the command of every row."""
    lines = printed(rows, reference)
    table = markdown_table(list(lines[0]), [list(line.values()) for line in lines])
    parts = [
        f"# {title}",
        *head,
        table,
        "Hit@1 is that of the final proposal. Systems that play both sides speak with their own user; others meet a "
        f'user who clicks what comes first, so that turn 1 is all there is. "minus {reference}" is paired by user. '
        "Reward: the recommender's by Eq. 7, mean over turns. Brackets: 95 % intervals, users and seeds resampled; p: "
        "users swapped, corrected by Holm for the differences of this table. HR and NDCG rank all items that the user "
        "does not own, ties in expectation. Training in seconds of processor time, mean over seeds; memory is the "
        "highest of the process. An empty cell: not defined.",
    ]
    if ranked := [(row.system, *(str(row.ranking.get(name, "")) for name in RANKING)) for row in rows if row.ranking]:
        parts += ["Full ranking:", markdown_table(("system", *RANKING), ranked)]
    if asked := user_lines(rows):
        parts += [
            "The user by AFL's test: would this user take this item? F1 of yes, pooled, at three ratios; AUC, share of "
            "yes, calibration error and share of unusable answers at the first of them. Differences in F1 are paired "
            "by user.",
            markdown_table(list(asked[0]), [list(line.values()) for line in asked]),
        ]
    if spent := cost_lines(rows):
        parts += [
            "What an episode asks of the language model, both sides together, and what learning in text asked of it:",
            markdown_table(list(spent[0]), [list(line.values()) for line in spent]),
        ]
    parts += [f"![{PICTURES[picture]}]({picture})" for picture in pictures]
    notes = [f"- {row.system}: {note}" for row in rows for note in row.notes]
    if notes:
        parts.append("What failed:\n\n" + "\n".join(notes))
    parts.append("Each row again:\n\n```bash\n" + "\n".join(row.command for row in rows) + "\n```")
    parts.append("Episodes, and the beginning of their SHA-256:\n\n" + "\n".join(f"- {digest}" for digest in digests))
    return "\n\n".join(parts) + "\n"
