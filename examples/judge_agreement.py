"""Do the grades of a judge go with the outcome? Grades the dialogues of a finished comparison by the bare base, the
judge of grpo-judge, and lays them beside Hit@1.

    python examples/main_table.py --dataset movielens
    python examples/judge_agreement.py --runs runs/main/movielens
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro

from agents.models.backbones import load
from agents.models.policy import Policy
from agents.players.judge import Judge
from baselines.benchmark.cell import Cell
from coars_env import (
    ROLES,
    ConfigError,
    SplitName,
    Transcript,
    environment_info,
    load_split,
    markdown_table,
)

FloatArray = npt.NDArray[np.float64]
SIDES = ("recommender", "user")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is graded."""

    runs: Path
    """Folder of a finished `coars compare`."""
    systems: tuple[str, ...] = ("coars", "grpo", "grpo-judge", "zero_shot")
    seeds: tuple[int, ...] = (0, 1, 2)
    dataset: str = "movielens"
    variant: str | None = None
    split: SplitName | None = "llara"
    backbone: str = "pocket"
    """The judge."""
    out: Path = Path("docs/results")


def correlation(grades: FloatArray, hits: FloatArray, *, resamples: int = 2000) -> str:
    """Pearson's r of grade and hit over dialogues, with a 95 % interval.

    Args:
        grades: of the users' dialogues, [U, M].
        hits: 0 or 1, [U, M].
        resamples: of users.
    """
    sums = np.stack([x.sum(1) for x in (grades, hits, grades**2, hits**2, grades * hits)])  # [5, U]
    users = np.random.default_rng(0).integers(grades.shape[0], size=(resamples, grades.shape[0]))
    drawn = np.concatenate((sums.sum(1)[None], sums[:, users].sum(2).T)) / grades.size  # [1 + resamples, 5]
    g, h, gg, hh, gh = drawn.T
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (gh - g * h) / np.sqrt((gg - g**2) * (hh - h**2))
    low, high = np.nanquantile(r[1:], (0.025, 0.975)) if np.isfinite(r[1:]).any() else (np.nan, np.nan)
    return f"{r[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def graded(judge: Judge, transcripts: Sequence[Transcript]) -> FloatArray:
    """Mean over the turns of what each side earned, [2, N]."""
    earned = judge.score(transcripts)
    return np.array([[np.mean([term.rewards[role] for term in terms]) for terms in earned] for role in ROLES])


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    variant = {} if options.variant is None else {"variant": options.variant}
    split = load_split(options.dataset, options.split, **variant)
    judge = Judge(Policy(load(options.backbone, split)), split.dataset.items)
    rows = []
    for system in options.systems:
        cells = [Cell.of(options.runs, system, seed) for seed in options.seeds]
        played = [draw for cell in cells for draw in cell.transcripts()]
        if not played:
            raise ConfigError(
                f"Dialogues are graded that were played. Expected transcripts in {cells[0].folder}, found none. Run "
                "the comparison first, or name another --runs."
            )
        others = {one.provenance for part in played for one in part} - {split.dataset.provenance}
        if others:
            raise ConfigError(
                f"The judge reads titles. Expected dialogues on {split.dataset.provenance}, found {others}. Name the "
                "dataset and variant of the runs."
            )
        hits = np.array([[one.final_item == one.task.target for one in part] for part in played], dtype=float).T
        grades = np.stack([graded(judge, part) for part in played], axis=-1)  # [2, U, M]
        means = (f"{side[hits == hit].mean():.3f}" for side in grades for hit in (1, 0))
        rows.append((system, f"{hits.mean():.3f}", *means, *(correlation(side, hits) for side in grades)))
    columns = ("of hits", "of misses")
    head = ("system", "Hit@1", *(f"{side} {c}" for side in SIDES for c in columns), *(f"r, {side}" for side in SIDES))
    made, provenance = environment_info(), split.dataset.provenance
    lines = [
        f"# Grades of the judge beside Hit@1: {split.dataset.name}, {split.name}",
        f"{provenance.source.upper()} data {provenance.origin} ({provenance.sha256[:12]}); dialogues of "
        f"{options.runs}: {hits.shape[0]} users, {hits.shape[1]} dialogues each. {options.backbone} graded them: "
        "the mean grade of each side in dialogues that ended with the target and in others, and the correlation r of "
        "grade and hit. Intervals: 95 %, users resampled.",
        f"Command: `python examples/{made['command']}`, commit {made['commit']}, {date.today()}.",
        markdown_table(head, rows),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"judge_{options.dataset}.md"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"), path)


if __name__ == "__main__":
    main()
