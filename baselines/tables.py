"""Row: what a comparison says of one system; table.csv, table.md and forest.png of many."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coars_env import Difference, Estimate, markdown_table

RANKING = tuple(f"{measure}@{cut}" for cut in (5, 10, 20) for measure in ("HR", "NDCG"))
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
    command: str
    """Makes this row again."""
    notes: tuple[str, ...] = ()
    """Failures."""


Line = dict[str, str]


def printed(rows: Sequence[Row], reference: str) -> list[Line]:
    """The cells of the table as people read them; an empty one where there is nothing to say."""
    return [
        {
            "system": row.system,
            "Hit@1": "failed" if row.hit is None else str(row.hit),
            f"minus {reference}": "" if row.difference is None else _signed(row.difference),
            "p (Holm)": "" if math.isnan(row.p_holm) else f"{row.p_holm:.4f}",
            **{name: str(row.ranking[name]) if name in row.ranking else "" for name in SHOWN},
            "parameters": "" if row.cost is None or row.cost.parameters is None else f"{row.cost.parameters:,}",
            "training, s": "" if row.cost is None else f"{row.cost.seconds:.1f}",
            "memory, MB": "" if row.cost is None else f"{row.cost.memory:.0f}",
            "seeds": ", ".join(map(str, row.seeds)),
        }
        for row in rows
    ]


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
        "parameters": row.cost and row.cost.parameters,
        "training_seconds": row.cost and row.cost.seconds,
        "memory_mb": row.cost and row.cost.memory,
        "command": row.command,
        "notes": "; ".join(row.notes),
    }


def to_markdown(
    rows: Sequence[Row], reference: str, *, title: str, head: Iterable[str], picture: str | None, digests: Iterable[str]
) -> str:
    """The page: what was asked and by what, the table, the picture, failures, and the command of every row."""
    lines = printed(rows, reference)
    table = markdown_table(list(lines[0]), [list(line.values()) for line in lines])
    parts = [
        f"# {title}",
        *head,
        table,
        f'Hit@1 is that of the final proposal before a user who clicks what comes first. "minus {reference}" is paired '
        "by user. Brackets: 95 % intervals, users and seeds resampled; p: users swapped, corrected by Holm for the "
        "differences of this table. HR and NDCG rank all items that the user does not own, ties in expectation. "
        "Training in seconds of processor time, mean over seeds; memory is the highest of the process. An empty cell: "
        "not defined.",
    ]
    if ranked := [(row.system, *(str(row.ranking.get(name, "")) for name in RANKING)) for row in rows if row.ranking]:
        parts += ["Full ranking:", markdown_table(("system", *RANKING), ranked)]
    if picture is not None:
        parts.append(f"![Hit@1 of every system, and its difference to {reference}]({picture})")
    notes = [f"- {row.system}: {note}" for row in rows for note in row.notes]
    if notes:
        parts.append("What failed:\n\n" + "\n".join(notes))
    parts.append("Each row again:\n\n```bash\n" + "\n".join(row.command for row in rows) + "\n```")
    parts.append("Episodes, and the beginning of their SHA-256:\n\n" + "\n".join(f"- {digest}" for digest in digests))
    return "\n\n".join(parts) + "\n"


def draw_forest(rows: Sequence[Row], reference: str, path: Path, *, title: str) -> None:
    """Hit@1 with its interval on the left, the difference to the reference on the right; written as PNG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and of an extra
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        colour = "tab:orange" if row.system == reference else "tab:blue"
        for axis, estimate in ((left, row.hit), (right, row.difference)):
            if estimate is not None:
                axis.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
                axis.plot(estimate.mean, place, "o", color=colour)
        if not math.isnan(row.p_holm):
            said = "p < 0.001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
            right.text(1.02, place, said, transform=right.get_yaxis_transform(), va="center", fontsize=9)
        if row.system == reference and row.hit is not None:
            left.axvline(row.hit.mean, color="tab:orange", linewidth=1, linestyle=":")
    right.axvline(0, color="tab:orange", linewidth=1, linestyle=":")
    names = [row.system if row.hit is not None else f"{row.system} (failed)" for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel("Hit@1, 95 % interval")
    right.set_xlabel(f"Hit@1 minus {reference}, 95 % interval; p after Holm")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
