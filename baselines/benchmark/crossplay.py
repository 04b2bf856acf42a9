"""`coars crossplay`: the swap test. Do a recommender and a user do as well with partners they never trained with?

The recommender of every run meets the user of every run, and both meet partners that were not trained: the agents as
they were before training, or systems by name. If a run does better with its own partner than with that of another
seed, the two have a language of their own; if an untrained partner does as well, nothing was learnt together.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console

from agents.runs.config import AnyTrainConfig, open_split, run_config
from agents.runs.evaluate import benchmark_of, describe, players_of_run, untrained_players
from baselines.benchmark.page import ANSWERS
from baselines.benchmark.plots import draw_matrices
from baselines.system import FIXED_USER, Resources, load_system, load_user
from coars_env import (
    ANSWER_METRICS,
    RECOMMENDER,
    USER,
    Agent,
    Benchmark,
    CandidateRule,
    ConfigError,
    CrossPlay,
    Role,
    Split,
    bootstrap_interval,
    cross_play,
    csv_text,
    environment_info,
    markdown_lines,
    paired_difference,
    print_lines,
    signed,
    write_atomically,
)

UNTRAINED = "untrained"
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CrossplayConfig:
    """Play the recommender and the user of every run with those of every other run, and with untrained partners."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders written by `coars train`, of one game: the same data, peers and rules."""
    partners: tuple[str, ...] = (UNTRAINED,)
    """Who else plays: "untrained", both sides as the first run began; "fixed", a user that clicks whatever comes; and
    systems by name or as module:Class, on the sides that they play."""
    draws: int = 5
    """Candidate draws."""
    subset: Literal["test", "validation"] = "test"
    """Part of the split."""
    candidates: CandidateRule | None = None
    """How the negatives are drawn; None for the rule of the training."""
    out: Path = Path("runs/crossplay")
    """Folder for crossplay.md, crossplay.csv and crossplay.png."""


@dataclass(frozen=True)
class Swaps:
    """Every recommender with every user, and which of them were trained together."""

    matrix: CrossPlay
    runs: tuple[str, ...]
    """Names of the runs; a recommender and a user of one name were trained together."""

    def groups(self, metric: str) -> dict[str, FloatArray]:
        """A metric of each kind of pair, [P, D, N] for its P pairs: trained together, of different runs, and of a run
        and each partner.
        """
        values = self.matrix.values(metric)
        kinds: dict[str, list[FloatArray]] = {"own partner": []}
        for (recommender, user), found in values.items():
            sides = recommender in self.runs, user in self.runs
            if all(sides):
                kind = "own partner" if recommender == user else "partner of another run"
            elif any(sides):
                kind = f"user {user}" if sides[0] else f"recommender {recommender}"
            else:
                kind = f"{recommender} with {user}"
            kinds.setdefault(kind, []).append(found)
        return {kind: np.concatenate(found) for kind, found in kinds.items()}

    def lines(self) -> list[dict[str, str]]:
        """The cells of a table of kinds of pairs: Hit@1 by both rules, each with its difference to the own partner."""
        lines: dict[str, dict[str, str]] = {}
        for answer, metric in ANSWER_METRICS.items():
            groups = self.groups(metric)
            for kind, found in groups.items():
                own = kind == "own partner"
                compared = "" if own else signed(paired_difference(found, groups["own partner"]))
                line = lines.setdefault(kind, {"pairs": kind, "number": str(len(found))})
                line |= {f"Hit@1, {answer}": str(bootstrap_interval(found)), f"minus own, {answer}": compared}
        return list(lines.values())

    def records(self) -> list[dict[str, Any]]:
        """One pair a row: Hit@1 by both rules with its interval."""
        estimates = {metric: self.matrix.estimates(metric) for metric in ANSWER_METRICS.values()}
        return [
            {
                "recommender": recommender,
                "user": user,
                **{
                    f"{metric}{part}": getattr(found[recommender, user], name)
                    for metric, found in estimates.items()
                    for part, name in (("", "mean"), ("_low", "low"), ("_high", "high"))
                },
            }
            for recommender, user in self.matrix.runs
        ]


def swap(folders: Mapping[str, Path], partners: Sequence[str], split: Split, benchmark: Benchmark) -> Swaps:
    """Play the agents of runs, by name, and partners, see `CrossplayConfig.partners`, every one with every other.

    Raises:
        ConfigError: a partner is no system, has the name of a run, or is named twice.
        CheckpointError: a run is not finished.
    """
    names = (*folders, *partners)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"Runs and partners need names of their own, got {names}. Rename a folder, or name each once."
        )
    first = run_config(next(iter(folders.values())))
    sides: dict[str, Mapping[Role, Agent]] = {}
    for name, folder in folders.items():
        sides[name] = players_of_run(folder, split)
    for name in partners:
        sides[name] = untrained_players(first, split) if name == UNTRAINED else _partner(name, first, split)
    recommenders, users = (
        {name: agents[role] for name, agents in sides.items() if role in agents} for role in (RECOMMENDER, USER)
    )
    return Swaps(cross_play(recommenders, users, benchmark.episodes, rules=benchmark.rules), tuple(folders))


def _partner(name: str, config: AnyTrainConfig, split: Split) -> Mapping[Role, Agent]:
    kind = load_user(name) if name == FIXED_USER else load_system(name)
    rules = {"rules": config.recipe.rules} if hasattr(config.recipe, "rules") else {}
    resources = Resources(backbone=config.backbone, instructions=config.data.facets, **rules)
    system = kind.fit(split, resources=resources)
    return {role: system.agent(role) for role in kind.plays}


def page_of(swaps: Swaps, *, title: str, command: str, answer: str) -> str:
    """The page: kinds of pairs, then the matrix by both rules, and what made it."""
    around = environment_info()
    parts = [
        "# Swap test",
        f"{title}. Hit@1, mean and 95 % interval over users and pairs; differences are paired by user. The answer of "
        f"this game is {answer}.",
        markdown_lines(swaps.lines()),
        "Each recommender (rows) with each user (columns); intervals over users. Compare within a row or a column.",
        *(swaps.matrix.to_markdown(metric) for metric in ANSWER_METRICS.values()),
        "![Hit@1 of each recommender with each user](crossplay.png)",
        f"Command: `{command}`, commit {around['commit']}, {around['machine']}, Python {around['python']}.",
    ]
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str]) -> None:
    """`coars crossplay RUN RUN ...`."""
    config = tyro.cli(CrossplayConfig, prog="coars crossplay", args=list(argv))
    configs = [run_config(folder) for folder in config.runs]
    if not configs:
        raise ConfigError("A swap test needs at least one run. Name folders written by `coars train`.")
    if len({(c.data, c.peers, getattr(c.recipe, "rules", None)) for c in configs}) != 1:
        raise ConfigError(
            "Runs that are swapped must play one game, but data, peers or rules of "
            f"{[str(folder) for folder in config.runs]} differ. Name runs of one game."
        )
    console = Console()
    split = open_split(configs[0].data)
    benchmark = benchmark_of(configs[0], split, config.subset, draws=config.draws, candidates=config.candidates)
    short = [folder.resolve().name for folder in config.runs]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in config.runs]
    with console.status(f"playing {', '.join((*names, *config.partners))} with one another"):
        swaps = swap(dict(zip(names, config.runs, strict=True)), config.partners, split, benchmark)
    print_lines(swaps.lines(), console)
    title = f"{describe(split, config.subset, config.draws, len(names))}, {benchmark.episodes[0].name}"
    config.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["coars", "crossplay", *argv])
    page = page_of(swaps, title=title, command=command, answer=ANSWERS[benchmark.rules.answer])
    write_atomically(config.out / "crossplay.md", page)
    write_atomically(config.out / "crossplay.csv", csv_text(swaps.records()))
    matrices = {f"answer: the {answer} proposal": swaps.matrix.estimates(m) for answer, m in ANSWER_METRICS.items()}
    draw_matrices(matrices, config.out / "crossplay.png", title=title)
    console.print(f"crossplay.md, crossplay.csv and crossplay.png in {config.out}")
