"""Train and evaluate on MovieLens 100K with several seeds, beside the baselines, and write the page of results.

    python examples/reproduce_movielens.py --split llara --out docs/results
    python examples/reproduce_movielens.py --split leave_last --out docs/results

Finished runs are kept and not repeated, and a run that was stopped goes on from its last checkpoint.
"""

import json
import shutil
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import tyro

from agents.runs.config import DataConfig, TrainConfig, open_split
from agents.runs.evaluate import describe, play_runs, play_untrained, where_it_ran
from agents.runs.run import train_seeds
from agents.sequential import load_sasrec
from agents.training.coars import Coars
from agents.training.peers import PeersConfig, peers_of
from baselines.item_knn import ItemKnn
from baselines.popularity import Popularity
from baselines.random_agent import RandomAgent
from baselines.sasrec import SasRec
from coars_env import (
    RECOMMENDER,
    Benchmark,
    CandidateRule,
    FixedUser,
    Scores,
    ScoreTable,
    Split,
    SplitName,
    comparison_lines,
    environment_info,
    markdown_lines,
)

KNN, SASREC = "item-kNN (last 10)", "SASRec, one seed"
QUOTED = "Quoted, not run here: SASRec .4105, GRU4Rec .4526 (arXiv:2410.20027, Table 4), these users, LLaRA's rule."


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seeds and place of the runs."""

    split: SplitName = "llara"
    candidates: CandidateRule = "uniform"
    """Candidates of the evaluation; "llara" is the rule behind the published figures. Training draws "uniform"."""
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 5
    runs: Path = Path("runs/movielens")
    """Folder of the training runs."""
    out: Path = Path("docs/results")
    base: TrainConfig[Coars] = field(
        default_factory=lambda: TrainConfig(data=DataConfig(source="real"), peers=PeersConfig(source="sasrec"))
    )
    """Settings of the runs, for instance --base.recipe.steps 60; split and folder are those above."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    base = options.base
    config = replace(base, data=replace(base.data, split=options.split), out=options.runs / options.split)
    split = open_split(config.data)
    folders = train_seeds(config, split, options.seeds)
    benchmark = Benchmark.of(
        split, draws=options.draws, candidates=options.candidates, peers=peers_of(config.peers, split)
    )
    before = play_untrained(config, split, benchmark, name="pocket before training").scores()
    after = play_runs(folders, split, benchmark, name="CoARS after training").scores()
    recommenders = {
        "random": RandomAgent.fit(split).agent(RECOMMENDER),
        "popularity": Popularity.fit(split).agent(RECOMMENDER),
        KNN: ItemKnn.fit(split).agent(RECOMMENDER),
        SASREC: SasRec(load_sasrec(split)).agent(RECOMMENDER),
    }
    baselines = [benchmark.play(name, agent, FixedUser()).scores() for name, agent in recommenders.items()]
    write_page(options, split, folders, baselines, before, after)


def write_page(
    options: Options, split: Split, folders: list[Path], baselines: list[Scores], before: Scores, after: Scores
) -> None:
    """One page: question, command, environment_info, table, differences, curves."""
    seeds = len(folders)
    systems = [*baselines, before, after]
    repeated = {s.name: s.repeated(seeds) for s in [*baselines, before]}
    stem = f"movielens_{options.split}_{options.candidates}_cpu_{date.today().isoformat()}"
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(folders[0] / "curves.png", options.out / f"{stem}.png")
    config = json.loads((folders[0] / "config.json").read_text())
    lines = [
        f"# MovieLens 100K, {options.split}, {options.candidates} candidates: does CoARS train both agents?",
        f"{describe(split, 'test', options.draws, seeds)}. Students only, greedy, no hindsight in any prompt. "
        "Intervals: 95 %, users and seeds resampled.",
        *where_it_ran(f"python examples/{environment_info()['command']}", folders),
        ScoreTable.of(systems).to_markdown(),
        "After minus before, paired by user:",
        markdown_lines(comparison_lines(after, repeated[before.name])),
        *(beside(after, repeated[name]) for name in (KNN, SASREC)),
        *([QUOTED] if options.split == "llara" else []),
        f"![learning curves of seed {options.seeds[0]}]({stem}.png)",
        "Configuration of the runs:",
        f"```json\n{json.dumps(config['config'], indent=1)}\n```",
    ]
    (options.out / f"{stem}.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print("\n\n".join(lines[:9]))


def beside(after: Scores, other: Scores) -> str:
    d = after.minus(other)
    told = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p_value:.4f}"
    return f"After minus {other.name}, final Hit@1, paired by user: {told}."


if __name__ == "__main__":
    main()
