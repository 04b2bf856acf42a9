"""Evaluation: a pair of agents on frozen candidate draws and in AFL's user test; `coars evaluate` for finished runs.

Evaluation plays the student: greedy, no hindsight in any context.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.runs.checkpoint import ADAPTERS_FOLDER
from agents.runs.config import AnyTrainConfig, open_split, run_config
from agents.runs.record import read_metrics
from agents.runs.run import open_backbone
from agents.training.peers import peers_of
from coars_env import (
    RECOMMENDER,
    USER,
    Agent,
    CandidateRule,
    ConfigError,
    Difference,
    EpisodeSet,
    PeersOf,
    Simulation,
    Split,
    SvdPeers,
    Transcript,
    UserTest,
    builder,
    environment_info,
    evaluate,
    freeze,
    item_counts,
    meter_report,
    metric_values,
    paired_difference,
    simulation_difference,
    simulation_report,
    summarize,
    user_card,
    user_simulation,
    user_test,
    write_transcripts,
)

RATIOS = ("1:1", "1:3", "1:9")


@dataclass(frozen=True)
class Bench:
    """The frozen questions every system answers: D candidate draws of the episodes, D draws of the user test."""

    episodes: tuple[EpisodeSet, ...]
    user_tests: tuple[UserTest, ...]


@dataclass(frozen=True)
class Scores:
    """What one system did on a bench: S seeds, D draws. `simulations` is empty for systems that play no user."""

    name: str
    runs: list[list[list[Transcript]]]
    simulations: list[list[Simulation]] = field(default_factory=list)

    def joined(self, other: "Scores") -> "Scores":
        """The same system trained with more seeds."""
        return Scores(self.name, [*self.runs, *other.runs], [*self.simulations, *other.simulations])

    def repeated(self, seeds: int) -> "Scores":
        """What has no seeds of its own, beside a system that was trained with several."""
        return Scores(self.name, self.runs * seeds, self.simulations * seeds)


def bench(
    split: Split,
    *,
    subset: str = "test",
    draws: int = 5,
    candidates: CandidateRule = "uniform",
    peers: PeersOf = SvdPeers,
) -> Bench:
    """Freeze the questions. Draw d has the same candidates in every run of every system; the same peers speak in the
    episodes and in the user test.
    """
    build = builder(split, candidates, peers=peers)
    return Bench(
        tuple(freeze(build, subset, draw=draw) for draw in range(draws)),
        tuple(user_test(split, subset, draw=draw, peers=build.peers) for draw in range(draws)),
    )


def score_policy(
    policy: Policy, split: Split, questions: Bench, *, name: str, seed: int = 0, opinions: bool = True
) -> Scores:
    """Both adapters of a policy, greedy; with or without what peers say in the user's prompt."""
    recommender, user = (
        LLMAgent(policy, role, split.dataset.items, temperature=0.0, opinions=opinions) for role in (RECOMMENDER, USER)
    )
    return score_agents(recommender, user, questions, name=name, seed=seed, simulate=True)


def score_untrained(config: AnyTrainConfig, split: Split, questions: Bench, *, name: str) -> Scores:
    """The agents that a run of this configuration begins with."""
    policy = Policy(open_backbone(config, split))
    return score_policy(policy, split, questions, name=name, opinions=config.peers.opinions)


def score_runs(folders: Sequence[Path], split: Split, questions: Bench, *, name: str) -> Scores:
    """Finished runs of one configuration, each a seed."""
    scores: Scores | None = None
    for folder in folders:
        config = run_config(folder)
        policy = Policy.load(open_backbone(config, split), folder / ADAPTERS_FOLDER)
        found = score_policy(policy, split, questions, name=name, opinions=config.peers.opinions)
        scores = found if scores is None else scores.joined(found)
    assert scores is not None
    return scores


def score_agents(
    recommender: Agent, user: Agent, questions: Bench, *, name: str, seed: int = 0, simulate: bool = False
) -> Scores:
    """Any pair of agents; the user test only on demand, since a scripted user makes it meaningless."""
    runs = evaluate(recommender, user, questions.episodes, seeds=(seed,))
    asked = [[user_simulation(user, test, seed=seed) for test in questions.user_tests]] if simulate else []
    return Scores(name, runs, asked)


Row = dict[str, str]


def table_rows(systems: Sequence[Scores], reference: Scores | None = None) -> list[Row]:
    """One row a system: means with 95 % intervals over users and seeds, and paired differences to a reference."""
    rows = []
    for system in systems:
        report = summarize(system.name, system.runs)
        row = {"system": system.name}
        row |= {
            label: str(report.estimates[key])
            for label, key in (("Hit@1 final", "hit_final"), ("Hit@1 first", "hit_first"), ("turns", "turns"))
        }
        if system.simulations:
            simulated = simulation_report(system.name, system.simulations)
            row |= {f"user F1 {ratio}": str(simulated.estimates[ratio]["f1"]) for ratio in RATIOS}
            row["user AUC"] = str(simulated.estimates["1:1"]["auc"])
            row["user says yes 1:1"] = str(simulated.estimates["1:1"]["acceptance"])
        if reference is not None and system is not reference:
            row[f"Hit@1 minus {reference.name}"] = _told(hit_difference(system, reference))
        rows.append(row)
    return rows


def hit_difference(a: Scores, b: Scores, metric: str = "hit_final") -> Difference:
    """Paired by user, over seeds and draws."""
    return paired_difference(metric_values(a.runs)[metric], metric_values(b.runs)[metric])


def f1_difference(a: Scores, b: Scores, ratio: str) -> Difference:
    return simulation_difference(a.simulations, b.simulations, ratio)


def comparison_rows(after: Scores, before: Scores) -> list[Row]:
    """Each headline metric: after minus before, paired by user."""
    differences = {
        "Hit@1 final": hit_difference(after, before),
        "Hit@1 first": hit_difference(after, before, "hit_first"),
        **{f"user F1 {ratio}": f1_difference(after, before, ratio) for ratio in RATIOS},
    }
    return [{"metric": name, f"{after.name} minus {before.name}": _told(d)} for name, d in differences.items()]


def _told(difference: Difference) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] p={difference.p_value:.4f}"


def show_tables(rows: Sequence[Row], differences: Sequence[Row], *, title: str, console: Console) -> None:
    """`table_rows` and `comparison_rows` as three tables that fit a terminal of 80 columns."""
    console.print(f"{title}; mean and 95 % interval over users and seeds")
    users = [row for row in rows if "user AUC" in row]
    columns = [key for row in users[:1] for key in row if key.startswith("user ")]
    print_table([{k: v for k, v in row.items() if not k.startswith("user ")} for row in rows], console=console)
    print_table(
        [{"user test": key.removeprefix("user ")} | {row["system"]: row[key] for row in users} for key in columns],
        console=console,
    )
    print_table(differences, console=console)


def print_table(rows: Sequence[Row], *, console: Console) -> None:
    table = Table()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    console.print(table)


def markdown_rows(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save_scores(scores: Scores, folder: Path) -> None:
    """Transcripts of every seed and draw as JSONL."""
    stem = scores.name.replace(" ", "_")
    for s, seed in enumerate(scores.runs):
        for d, draw in enumerate(seed):
            write_transcripts(folder / f"{stem}-s{s}-d{d}.jsonl", draw)


def trust_page(systems: Sequence[Scores], split: Split) -> str:
    """The meters of every system, and the card of every one that plays a user, as markdown; see docs/trust.md."""
    parts = []
    for system in systems:
        parts.append(meter_report(system.name, system.runs, split.dataset.items, item_counts(split)).to_markdown())
        if system.simulations:
            parts.append(user_card(system.name, system.simulations).to_markdown())
    return "\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate finished runs of one configuration (several seeds) beside the same agents before training."""

    runs: tuple[Path, ...]
    """Folders written by `coars train`; runs that differ in their seed only are averaged."""
    draws: int = 5
    """Candidate draws."""
    subset: Literal["test", "validation"] = "test"
    """Part of the split."""
    candidates: CandidateRule = "uniform"
    """How the negatives are drawn."""
    out: Path | None = None
    """Folder for table, meters, transcripts and a record; nothing is written without."""


def main(argv: Sequence[str]) -> None:
    """`coars evaluate --runs runs/a runs/b`."""
    config = tyro.cli(EvaluateConfig, prog="coars evaluate", args=list(argv))
    configs = [run_config(folder) for folder in config.runs]
    if len({(c.data, c.backbone, c.peers) for c in configs}) != 1:
        raise ConfigError(
            "Runs that are evaluated together must share data, backbone and peers. Expected one of each, found several "
            f"in {[str(f) for f in config.runs]}. Evaluate them one at a time."
        )
    console = Console()
    split, peers = open_split(configs[0].data), configs[0].peers
    console.print(f"peers: {peers.source}")
    questions = bench(
        split, subset=config.subset, draws=config.draws, candidates=config.candidates, peers=peers_of(peers, split)
    )
    with console.status("playing the agents before training"):
        before = score_untrained(configs[0], split, questions, name="before")
    with console.status(f"playing {', '.join(str(folder) for folder in config.runs)}"):
        after = score_runs(config.runs, split, questions, name="after")
    repeated = before.repeated(len(after.runs))
    rows, differences = table_rows([before, after]), comparison_rows(after, repeated)
    title = describe(split, config.subset, config.draws, len(after.runs))
    show_tables(rows, differences, title=title, console=console)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        save_scores(before, config.out)
        save_scores(after, config.out)
        text = f"{markdown_rows(rows)}\n\n{markdown_rows(differences)}\n"
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
