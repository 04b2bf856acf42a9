"""Train and evaluate on MovieLens 100K with several seeds, beside the baselines, and write the page of results.

    python examples/reproduce_movielens.py --split llara --out docs/results
    python examples/reproduce_movielens.py --split leave_last --out docs/results

Finished runs are kept and not repeated, so an interrupted call goes on where it stopped.
"""

import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import tyro

from agents.backbones import load
from agents.checkpoint import ADAPTERS_FOLDER
from agents.evaluate import (
    Bench,
    Scores,
    bench,
    comparison_rows,
    describe,
    hit_difference,
    markdown_rows,
    score_agents,
    score_policy,
    table_rows,
)
from agents.policy import Policy
from agents.train import DataConfig, open_split
from baselines.item_knn import ItemKnn
from baselines.popularity import Popularity
from baselines.random_agent import RandomAgent
from coars_env import CandidateRule, FixedUser, Split, SplitName, surroundings

SASREC_PUBLISHED = 0.4105
"""Hit@1 of SASRec on LLaRA's 95 test users, arXiv:2410.20027, Table 4; quoted, not run here."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seeds and place of the runs."""

    split: SplitName = "llara"
    rule: CandidateRule = "uniform"
    """Candidates of the evaluation; "llara" is the rule behind the published figures. Training draws "uniform"."""
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 5
    runs: Path = Path("runs/movielens")
    """Folder of the training runs."""
    out: Path = Path("docs/results")
    extra: tuple[str, ...] = field(default=())
    """Further options of `coars train`, for instance --extra --coars.steps 100."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    folders = [train_once(options, seed) for seed in options.seeds]
    split = open_split(DataConfig(split=options.split, source="real"))
    questions = bench(split, draws=options.draws, rule=options.rule)
    before, after = score_runs(folders, split, questions)
    baselines = [
        score_agents(kind.fit(split), FixedUser(), questions, name=name)
        for name, kind in (("random", RandomAgent), ("popularity", Popularity), ("item-kNN (last 10)", ItemKnn))
    ]
    write_page(options, split, folders, baselines, before, after)


def train_once(options: Options, seed: int) -> Path:
    """Run `coars train` unless that run is finished."""
    folder = options.runs / f"{options.split}-s{seed}"
    if not (folder / ADAPTERS_FOLDER).is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        words = ["train", "--data.split", options.split, "--data.source", "real", "--coars.seed", str(seed)]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "coars_env.cli", *words, "--out", str(folder), *options.extra], check=True
        )
        (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started), encoding="utf-8")
    return folder


def score_runs(folders: list[Path], split: Split, questions: Bench) -> tuple[Scores, Scores]:
    """The untrained agents, and the trained ones of every seed."""
    before = score_policy(Policy(load("pocket", split)), split, questions, name="pocket before training")
    after: Scores | None = None
    for folder in folders:
        policy = Policy.load(load("pocket", split), folder / ADAPTERS_FOLDER)
        scores = score_policy(policy, split, questions, name="CoARS after training")
        after = scores if after is None else after.joined(scores)
    assert after is not None
    return before, after


def write_page(
    options: Options, split: Split, folders: list[Path], baselines: list[Scores], before: Scores, after: Scores
) -> None:
    """One page: question, command, surroundings, table, differences, curves."""
    seeds = len(folders)
    systems = [*baselines, before, after]
    repeated = {s.name: Scores(s.name, s.runs * seeds, s.simulations * seeds) for s in [*baselines, before]}
    knn = repeated["item-kNN (last 10)"]
    d = hit_difference(after, knn)
    around = surroundings()
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in folders]
    stem = f"movielens_{options.split}_{options.rule}_cpu_{date.today().isoformat()}"
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(folders[0] / "curves.png", options.out / f"{stem}.png")
    config = json.loads((folders[0] / "config.json").read_text())
    versions = around["versions"]
    minutes = ", ".join(f"{s / 60:.1f}" for s in seconds)
    commits = ", ".join(json.loads((folder / "config.json").read_text())["commit"] for folder in folders)
    lines = [
        f"# MovieLens 100K, {options.split}, {options.rule} candidates: does CoARS train both agents?",
        f"{describe(split, 'test', options.draws, seeds)}. Students only, greedy, no hindsight in any prompt. "
        "Intervals: 95 %, users and seeds resampled.",
        f"Command: `python examples/reproduce_movielens.py --split {options.split} --rule {options.rule}`, commit "
        f"{commits} (training) and {around['commit']} (this page), {around['machine']}, Python "
        f"{platform.python_version()}, torch {versions['torch']}, transformers {versions['transformers']}.",
        f"Training took {minutes} minutes (one number a seed; two runs side by side, one thread each).",
        markdown_rows(table_rows(systems)),
        "After minus before, paired by user:",
        markdown_rows(comparison_rows(after, repeated[before.name])),
        f"After minus item-kNN, final Hit@1, paired by user: {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], "
        f"p = {d.p_value:.4f}.",
        f"![learning curves of seed {options.seeds[0]}]({stem}.png)",
        "Configuration of the runs:",
        f"```json\n{json.dumps(config['config'], indent=1)}\n```",
    ]
    if options.split == "llara":
        lines.insert(8, f"Quoted, not run here: SASRec {SASREC_PUBLISHED} (arXiv:2410.20027, Table 4), LLaRA's rule.")
    (options.out / f"{stem}.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print("\n\n".join(lines[:9]))


if __name__ == "__main__":
    main()
