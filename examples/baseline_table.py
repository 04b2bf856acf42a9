"""Play the untrained baselines on frozen episodes and print a markdown table of Hit@1.

    python examples/baseline_table.py --split llara --subset test --rule llara

The user clicks whatever comes first, so an episode is its first proposal. All systems play the same episodes, and each
is compared with the first one named, row by row.
"""

import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import tyro

from baselines import load_baseline
from coars_env import (
    FixedUser,
    builder,
    evaluate,
    freeze,
    load_split,
    markdown_table,
    metric_values,
    paired_difference,
    summarize,
)


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """What is played."""

    dataset: str = "movielens"
    """Name of the dataset."""
    variant: str | None = None
    """Version of it; None takes the dataset's first."""
    split: Literal["leave_last", "llara", "random_holdout", "published"] | None = None
    """Rule that says what is held out; None takes the one that fits the data."""
    subset: Literal["validation", "test"] = "test"
    """Held-out part that is played."""
    rule: Literal["uniform", "popularity", "llara"] = "uniform"
    """Rule by which the negatives are drawn."""
    draws: int = 10
    """Number of candidate draws."""
    systems: tuple[str, ...] = ("popularity", "item_knn", "random")
    """Names of the baselines; the first is the one the others are compared with."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """"real" fails where there are no real data, in place of playing a synthetic world."""
    data_dir: Path | None = None
    """Where the files lie; else COARS_DATA, else the user cache."""


def table(config: TableConfig) -> str:
    """Play every system and lay the results out."""
    variant = {} if config.variant is None else {"variant": config.variant}
    split = load_split(config.dataset, config.split, source=config.source, data_dir=config.data_dir, **variant)
    build = builder(split, config.rule)
    sets = [freeze(build, config.subset, rule=config.rule, draw=draw) for draw in range(config.draws)]
    rows, reference = [], None
    for system in config.systems:
        runs = evaluate(load_baseline(system).fit(split), FixedUser(), sets)
        hits = metric_values(runs)["hit_final"]  # [1, D, N]
        if reference is None:
            reference, gap = hits, ""
        else:
            difference = paired_difference(hits, reference)
            gap = f"{difference}, p = {difference.p_value:.4f}"
        rows.append((system, summarize(system, runs).estimates["hit_final"], gap))
    header = ("system", "Hit@1 [95 %]", f"minus {config.systems[0]} [95 %]")
    provenance = split.dataset.provenance
    where = f"{split.dataset.name}/{split.name}/{config.subset}/{config.rule}"
    return (
        f"{where}: {len(sets[0])} rows, {config.draws} draws; {provenance.source} data {provenance.origin} "
        f"({provenance.sha256[:12]}), draw 0 {sets[0].sha256[:12]}; {revision()}.\n\n{markdown_table(header, rows)}\n"
    )


def revision() -> str:
    """Commit of the checkout, else the version installed."""
    here = Path(__file__).parent
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else f"coars-env {version('coars-env')}"


if __name__ == "__main__":
    print(table(tyro.cli(TableConfig)))
