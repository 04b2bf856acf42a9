"""Evaluation: finished runs on a frozen benchmark, beside the same agents before training; `coars evaluate`.

Evaluation plays the student: greedy, no hindsight in any context.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.runs.checkpoint import ADAPTERS_FOLDER
from agents.runs.config import AnyTrainConfig, open_split, run_config
from agents.runs.record import read_metrics
from agents.runs.run import open_backbone, setting_of
from agents.training.peers import peers_of
from agents.training.recipe import greedy_players
from coars_env import (
    AS_IT_IS,
    RECOMMENDER,
    ROLES,
    USER,
    Agent,
    Benchmark,
    CandidateRule,
    ConfigError,
    Played,
    Role,
    ScoreTable,
    Split,
    comparison_lines,
    control_lines,
    environment_info,
    item_counts,
    markdown_lines,
    meter_report,
    print_lines,
    user_card,
    write_transcripts,
)


def play_policy(policy: Policy, split: Split, benchmark: Benchmark, *, name: str, opinions: bool = True) -> Played:
    """Play both adapters of a policy, greedy; with or without what peers say in the user's prompt."""
    recommender, user = (
        LLMAgent(policy, role, split.dataset.items, temperature=0.0, opinions=opinions) for role in (RECOMMENDER, USER)
    )
    return benchmark.play(name, recommender, user, ask_user=True)


def players_of_run(folder: Path, split: Split) -> dict[Role, Agent]:
    """The agents of a finished run, greedy, with its reply formats and its partner."""
    config = run_config(folder)
    policy = Policy.load(open_backbone(config, split), folder / ADAPTERS_FOLDER)
    return greedy_players(config.recipe, setting_of(config, split, policy))


def untrained_players(config: AnyTrainConfig, split: Split) -> dict[Role, Agent]:
    """The agents that a run of this configuration begins with, greedy."""
    return greedy_players(config.recipe, setting_of(config, split, Policy(open_backbone(config, split))))


def _play(players: Mapping[Role, Agent], benchmark: Benchmark, *, name: str) -> Played:
    """Play the agents of a run; the user of a partner is not tested."""
    return benchmark.play(name, *(players[role] for role in ROLES), ask_user=isinstance(players[USER], LLMAgent))


def play_untrained(config: AnyTrainConfig, split: Split, benchmark: Benchmark, *, name: str) -> Played:
    """Play the agents that a run of this configuration begins with."""
    return _play(untrained_players(config, split), benchmark, name=name)


def play_runs(folders: Sequence[Path], split: Split, benchmark: Benchmark, *, name: str) -> Played:
    """Play finished runs of one configuration, each a seed."""
    parts = [
        replace(_play(players_of_run(folder, split), benchmark, name=name), seeds=(run_config(folder).recipe.seed,))
        for folder in folders
    ]
    first, *others = parts
    return first.joined(*others)


def play_controls(folders: Sequence[Path], split: Split, benchmark: Benchmark) -> dict[str, Played]:
    """Play finished runs of one configuration with each of the `coars_env.control_users` in the place of the user.

    Raises:
        ConfigError: the game has no instructions.
    """
    parts = []
    for folder in folders:
        players, seed = players_of_run(folder, split), run_config(folder).recipe.seed
        found = benchmark.play_controls(players[RECOMMENDER], players[USER])
        parts.append({name: replace(played, seeds=(seed,)) for name, played in found.items()})
    first, *others = parts
    return {name: played.joined(*(part[name] for part in others)) for name, played in first.items()}


def show_tables(table: ScoreTable, differences: Sequence[dict[str, str]], *, title: str, console: Console) -> None:
    """Print a table of systems, one of their users, and one of differences."""
    console.print(f"{title}; mean and 95 % interval over users and seeds")
    table.show(console)
    print_lines(differences, console)


def save_dialogues(played: Played, folder: Path) -> None:
    """Write the transcripts of every seed and draw as JSONL."""
    stem = played.name.replace(" ", "_")
    for s, seed in enumerate(played.runs):
        for d, draw in enumerate(seed):
            write_transcripts(folder / f"{stem}-s{s}-d{d}.jsonl", draw)


def trust_page(systems: Sequence[Played], split: Split) -> str:
    """The meters of every system, and the card of every one that plays a user, as markdown; see docs/trust.md."""
    parts = []
    for system in systems:
        parts.append(meter_report(system.name, system.runs, split.dataset.items, item_counts(split)).to_markdown())
        if system.simulations:
            parts.append(user_card(system.name, system.simulations).to_markdown())
    return "\n".join(parts)


def benchmark_of(
    config: AnyTrainConfig, split: Split, subset: str, *, draws: int = 5, candidates: CandidateRule | None = None
) -> Benchmark:
    """Freeze the questions of the game that a configuration trains for.

    Args:
        config: of the training; it names peers, instructions and rules.
        split: the data.
        subset: "validation" or "test".
        draws: candidate draws.
        candidates: how the negatives are drawn; None for the rule of the training.
    """
    return Benchmark.of(
        split,
        subset,
        draws=draws,
        candidates=candidates or config.data.candidates,
        peers=peers_of(config.peers, split),
        instructions=config.data.facets,
        rules=getattr(config.recipe, "rules", None),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate finished runs of one configuration (several seeds) beside the same agents before training."""

    runs: tuple[Path, ...]
    """Folders written by `coars train`; runs that differ in their seed only are averaged."""
    draws: int = 5
    """Candidate draws."""
    subset: Literal["test", "validation"] = "test"
    """Part of the split."""
    candidates: CandidateRule | None = None
    """How the negatives are drawn; None for the rule of the training."""
    out: Path | None = None
    """Folder for table, meters, transcripts and a record; nothing is written without."""


def main(argv: Sequence[str]) -> None:
    """`coars evaluate --runs runs/a runs/b`."""
    config = tyro.cli(EvaluateConfig, prog="coars evaluate", args=list(argv))
    configs = [run_config(folder) for folder in config.runs]
    if len({(c.data, c.backbone, c.peers, getattr(c.recipe, "rules", None)) for c in configs}) != 1:
        raise ConfigError(
            "Runs that are evaluated together must share data, backbone, peers and rules. Expected one of each, found "
            f"several in {[str(f) for f in config.runs]}. Evaluate them one at a time."
        )
    console = Console()
    split = open_split(configs[0].data)
    console.print(f"peers: {configs[0].peers.source}")
    benchmark = benchmark_of(configs[0], split, config.subset, draws=config.draws, candidates=config.candidates)
    with console.status("playing the agents before training"):
        before = play_untrained(configs[0], split, benchmark, name="before")
    with console.status(f"playing {', '.join(str(folder) for folder in config.runs)}"):
        after = play_runs(config.runs, split, benchmark, name="after")
    scores = before.scores(), after.scores()
    table = ScoreTable.of(scores)
    differences = comparison_lines(scores[1], scores[0].repeated(len(after.seeds)))
    title = describe(split, config.subset, config.draws, len(after.seeds))
    show_tables(table, differences, title=title, console=console)
    controls: dict[str, Played] = {}
    if benchmark.episodes[0].kinds:
        with console.status("playing the controls"):
            controls = play_controls(config.runs, split, benchmark)
    variants = {AS_IT_IS: scores[1], **{name: played.scores() for name, played in controls.items()}}
    lines = control_lines(variants) if controls else []
    print_lines(lines, console)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        save_dialogues(before, config.out)
        save_dialogues(after, config.out)
        for played in controls.values():
            save_dialogues(played, config.out)
        parts = [table.to_markdown(), *(markdown_lines(part) for part in (differences, lines) if part)]
        text = "\n\n".join(parts) + "\n"
        (config.out / "table.md").write_text(text, encoding="utf-8")
        (config.out / "trust.md").write_text(trust_page([before, after], split), encoding="utf-8")
        record = {"config": dataclasses.asdict(config), **environment_info()}
        (config.out / "evaluation.json").write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")


def where_it_ran(command: str, folders: Sequence[Path]) -> list[str]:
    """Lines of a page of results: its command, where it and its runs were made, and how long training took."""
    around = environment_info()
    commits = [json.loads((folder / "config.json").read_text(encoding="utf-8"))["commit"] for folder in folders]
    rows = [read_metrics(folder, run_config(folder).recipe.steps) for folder in folders]
    seconds = [sum(row["seconds"] for row in metrics) for metrics in rows]
    versions = around["versions"]
    return [
        f"Command: `{command}`, commit {', '.join(dict.fromkeys(commits))} (training) and {around['commit']} (this "
        f"page), {around['machine']}, Python {around['python']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}.",
        f"Training took {', '.join(f'{s / 60:.1f}' for s in seconds)} minutes (one number a run, whatever else the "
        "machine did).",
    ]


def describe(split: Split, subset: str, draws: int, seeds: int) -> str:
    provenance = split.dataset.provenance
    kind = "REAL data" if provenance.source == "real" else f"{provenance.source.upper()} data"
    return f"{kind} {provenance.origin}, {split.name}, {subset}, {draws} draws, {seeds} seed(s)"
