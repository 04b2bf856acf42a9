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
from agents.runs.evaluate import (
    Scores,
    bench,
    comparison_rows,
    describe,
    markdown_rows,
    save_scores,
    score_agents,
    score_policy,
    show_tables,
    table_rows,
)
from agents.runs.run import DataConfig, TrainConfig, new_policy, open_split, run_training, told_dialogues
from agents.training.peers import peers_of
from agents.training.train import CoarsConfig
from baselines.item_knn import ItemKnn
from baselines.popularity import Popularity
from baselines.random_agent import RandomAgent
from baselines.system import System
from coars_env import Agent, FixedUser, Split, Transcript


def baselines(split: Split) -> dict[str, Agent]:
    """The recommenders beside which the demo is shown, fitted on the training part."""
    kinds: dict[str, type[System]] = {"random": RandomAgent, "popularity": Popularity, "item-kNN": ItemKnn}
    fitted = {name: kind.fit(split).recommender for name, kind in kinds.items()}
    return {name: recommender for name, recommender in fitted.items() if recommender is not None}


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Some minutes on two cores. Real MovieLens where it can be had, else a synthetic world that is named so."""

    out: Path = Path("runs/demo")
    """Folder for everything the demo writes; a number is appended if it is taken."""
    data: DataConfig = field(default_factory=lambda: DataConfig(split="llara"))
    coars: CoarsConfig = field(default_factory=lambda: CoarsConfig(steps=60))
    draws: int = 5
    """Candidate draws of the evaluation."""


def main(argv: Sequence[str]) -> None:
    """`coars demo`."""
    config = tyro.cli(DemoConfig, prog="coars demo", args=list(argv))
    console = Console()
    started = time.perf_counter()
    folder = _free_folder(config.out)
    new_run_folder(folder)
    split = open_split(config.data)
    title = describe(split, "test", config.draws, 1)
    console.print(Panel(title, title="CoARS: a recommender and a user learn from their conversations"))
    train_config = TrainConfig(out=folder / "training", data=config.data, coars=config.coars)
    policy = new_policy(train_config, split)
    questions = bench(split, draws=config.draws, peers=peers_of(train_config.peers, split))
    with console.status("playing the baselines and the agents before training"):
        systems = [score_agents(agent, FixedUser(), questions, name=name) for name, agent in baselines(split).items()]
        before = score_policy(policy, split, questions, name="before training")
    run_training(train_config, split, policy, console=console)
    with console.status("playing the agents after training"):
        after = score_policy(policy, split, questions, name="after CoARS")
    rows = table_rows([*systems, before, after])
    differences = comparison_rows(after, before)
    _show(console, split, rows, differences, after, title)
    _write(folder, [*systems, before, after], rows, differences, title)
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"Done in {minutes:.1f} minutes. Everything is in {folder}: table.md, training/curves.png, transcripts/"
    )


def _show(
    console: Console,
    split: Split,
    rows: list[dict[str, str]],
    differences: list[dict[str, str]],
    after: Scores,
    title: str,
) -> None:
    console.rule("three dialogues after training")
    console.print(told_dialogues(_telling(after.runs[0][0]), split.dataset.items), highlight=False, markup=False)
    show_tables(rows, differences, title=title, console=console)


def _write(
    folder: Path, systems: list[Scores], rows: list[dict[str, str]], differences: list[dict[str, str]], title: str
) -> None:
    for system in systems:
        save_scores(system, folder / "transcripts")
    text = f"{title}\n\n{markdown_rows(rows)}\n\n{markdown_rows(differences)}\n"
    (folder / "table.md").write_text(text, encoding="utf-8")


def _telling(transcripts: Sequence[Transcript], n: int = 3) -> list[Transcript]:
    """The first few, those with an objection that was heard put first."""
    return sorted(transcripts, key=lambda t: (t.final_item != t.task.target, -min(len(t.turns), 3)))[:n]


def _free_folder(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists() and any(candidate.iterdir()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
