"""Every system on one data set, on the same frozen episodes: docs/results/main_<dataset>.md with its pictures.

    python examples/main_table.py --dataset movielens
    python examples/main_table.py --dataset lastfm

It is `coars compare` with all systems, compared with CoARS. What is finished stays, so an interrupted call goes on
where it stopped.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from baselines.benchmark.compare import CompareConfig, compare
from coars_env import CandidateRule, SplitName

SYSTEMS = (
    *("random", "popularity", "item_knn", "bpr", "sasrec", "gru4rec", "caser"),
    *("coars", "coars-no-distillation", "coars-no-interaction", "coars-recommender", "coars-user"),
    *("grpo", "grpo-turn", "grpo-judge", "rejection_sampling", "supervised"),
    *("zero_shot", "chain_of_thought", "afl", "reflexion", "agentcf", "memory_stream", "i2agent"),
)
GAMES: dict[str, tuple[str | None, SplitName | None, CandidateRule]] = {
    "movielens": (None, "llara", "llara"),
    "lastfm": ("afl", None, "llara"),
    "instruments": (None, None, "uniform"),
}
"""Version of the data, split and candidates."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is played."""

    dataset: Literal["movielens", "lastfm", "instruments"] = "movielens"
    systems: tuple[str, ...] = SYSTEMS
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 5
    updates: int = 40
    """Of the systems that train a language model; of 192 dialogues each. Most of what CoARS gains it has after 20."""
    backbone: str = "pocket"
    jobs: int = 2
    """Cells at a time, each on one thread."""
    runs: Path = Path("runs/main")
    out: Path = Path("docs/results")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    variant, split, candidates = GAMES[options.dataset]
    config = CompareConfig(
        dataset=options.dataset,
        variant=variant,
        split=split,
        candidates=candidates,
        source="real",
        systems=options.systems,
        seeds=options.seeds,
        reference="coars",
        draws=options.draws,
        updates=options.updates,
        backbone=options.backbone,
        jobs=options.jobs,
        out=options.runs / options.dataset,
    )
    compare(config, config.game(), console=Console())
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"main_{options.dataset}"
    page = (config.out / "table.md").read_text(encoding="utf-8")
    for picture in sorted(config.out.glob("*.png")):
        shutil.copy(picture, options.out / f"{stem}_{picture.name}")
        page = page.replace(f"]({picture.name})", f"]({stem}_{picture.name})")
    shutil.copy(config.out / "table.csv", options.out / f"{stem}.csv")
    (options.out / f"{stem}.md").write_text(page, encoding="utf-8")
    print(f"{options.out / stem}.md")


if __name__ == "__main__":
    main()
