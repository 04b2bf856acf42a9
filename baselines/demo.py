"""`coars demo`: the main job from end to end on this machine: build the local model, train both agents, compare.

Prints a table of the agents before and after training beside three baselines on the same frozen episodes, a few
dialogues, and where the pictures and files lie.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.panel import Panel

from agents.runs.checkpoint import new_run_folder
from agents.runs.config import DataConfig, TrainConfig, open_split
from agents.runs.evaluate import describe, play_policy, save_dialogues, show_tables
from agents.runs.record import dialogues_text
from agents.runs.run import new_policy, run_training
from agents.training.coars import Coars
from agents.training.peers import peers_of
from baselines.item_knn import ItemKnn
from baselines.popularity import Popularity
from baselines.random_agent import RandomAgent
from baselines.system import System
from coars_env import (
    RECOMMENDER,
    Benchmark,
    FixedUser,
    Played,
    ScoreTable,
    Split,
    Transcript,
    comparison_lines,
    markdown_lines,
)

SYSTEMS: dict[str, type[System]] = {"random": RandomAgent, "popularity": Popularity, "item-kNN": ItemKnn}
"""The recommenders beside which the demo is shown."""


def play_baselines(split: Split, benchmark: Benchmark) -> list[Played]:
    """Fit and play the recommenders beside which the demo is shown."""
    return [benchmark.play(name, kind.fit(split).agent(RECOMMENDER), FixedUser()) for name, kind in SYSTEMS.items()]


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Some minutes on two cores. Real MovieLens where it can be had, else a synthetic world that is named so."""

    out: Path = Path("runs/demo")
    """Folder for everything the demo writes; a number is appended if it is taken."""
    data: DataConfig = field(default_factory=lambda: DataConfig(split="llara"))
    recipe: Coars = field(default_factory=lambda: Coars(steps=60))
    draws: int = 5
    """Candidate draws of the evaluation."""


def main(argv: Sequence[str]) -> None:
    """`coars demo`."""
    config = tyro.cli(DemoConfig, prog="coars demo", args=list(argv))
    console = Console()
    started = time.perf_counter()
    split = open_split(config.data)
    folder = _free_folder(config.out)
    new_run_folder(folder)
    title = describe(split, "test", config.draws, 1)
    console.print(Panel(title, title="CoARS: a recommender and a user learn from their conversations"))
    train_config = TrainConfig(out=folder / "training", data=config.data, recipe=config.recipe)
    policy = new_policy(train_config, split)
    benchmark = Benchmark.of(split, draws=config.draws, peers=peers_of(train_config.peers, split))
    with console.status("playing the baselines and the agents before training"):
        systems = play_baselines(split, benchmark)
        before = play_policy(policy, split, benchmark, name="before training")
    run_training(train_config, split, policy, console=console)
    with console.status("playing the agents after training"):
        after = play_policy(policy, split, benchmark, name="after CoARS")
    scores = [played.scores() for played in (*systems, before, after)]
    table, differences = ScoreTable.of(scores), comparison_lines(scores[-1], scores[-2])
    console.rule("three dialogues after training")
    console.print(dialogues_text(_telling(after.runs[0][0]), split.dataset.items), highlight=False, markup=False)
    show_tables(table, differences, title=title, console=console)
    for played in (*systems, before, after):
        save_dialogues(played, folder / "transcripts")
    text = f"{title}\n\n{table.to_markdown()}\n\n{markdown_lines(differences)}\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"Done in {minutes:.1f} minutes. Everything is in {folder}: table.md, training/curves.png, transcripts/"
    )


def _telling(transcripts: Sequence[Transcript], n: int = 3) -> list[Transcript]:
    """The first few, those with an objection that was heard put first."""
    return sorted(transcripts, key=lambda t: (t.answer_item != t.task.target, -min(len(t.turns), 3)))[:n]


def _free_folder(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists() and any(candidate.iterdir()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
