"""What does one setting of CoARS do? Trains a variant for each of its values, on one budget and the same seeds, plays
them on the same frozen draws, and writes a page with table and plot.

    python examples/ablation.py --what alpha
    python examples/ablation.py --what opinions --base.coars.steps 100

Finished runs are kept and not repeated, and a run that was stopped goes on from its last checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Literal

import tyro

from agents.evaluate import (
    Scores,
    bench,
    comparison_rows,
    describe,
    markdown_rows,
    score_runs,
    score_untrained,
    table_rows,
    where_it_ran,
)
from agents.peers import peers_of, settle
from agents.run import DataConfig, TrainConfig, open_split, train_seeds
from coars_env import Estimate, simulation_report, summarize, surroundings


def variants(base: TrainConfig) -> dict[str, dict[str, TrainConfig]]:
    """Ablation -> variant -> settings. The first variant is the one the others are compared with."""
    return {
        "alpha": {
            f"alpha {alpha}": replace(base, reward=replace(base.reward, alpha=alpha)) for alpha in (0.1, 0.0, 0.3)
        },
        "opinions": {
            "heard": replace(base, peers=replace(base.peers, opinions=True)),
            "not heard": replace(base, peers=replace(base.peers, opinions=False)),
        },
    }


QUESTIONS = {
    "alpha": "does the weight of the peers in the user's reward matter?",
    "opinions": "does the user gain by hearing what peers say?",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is varied, and what stays the same."""

    what: Literal["alpha", "opinions"] = "alpha"
    base: TrainConfig = field(
        default_factory=lambda: TrainConfig(out=Path("runs/ablation"), data=DataConfig(split="llara", source="real"))
    )
    """Settings of all variants, the budget among them; its `out` is the folder of the runs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    subset: Literal["test", "validation"] = "test"
    draws: int = 5
    out: Path = Path("docs/results")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    split = open_split(options.base.data)
    base = replace(options.base, peers=settle(options.base.peers, split))
    folders: list[Path] = []
    systems: list[Scores] = []
    questions = bench(split, subset=options.subset, draws=options.draws, peers=peers_of(base.peers, split))
    before = score_untrained(base, split, questions, name="before training")
    for name, config in variants(base)[options.what].items():
        config = replace(config, out=base.out / name.replace(" ", "_"))
        runs = train_seeds(config, split, options.seeds)
        systems.append(score_runs(runs, split, questions, name=name))
        folders += runs
    subject = describe(split, options.subset, options.draws, len(options.seeds))
    reference, *others = systems
    stem = f"ablation_{options.what}_{split.dataset.name}_{split.name}_cpu_{date.today().isoformat()}"
    lines = [
        f"# {options.what}: {QUESTIONS[options.what]}",
        f"{subject}. {base.coars.steps} updates of {base.coars.episodes_per_step} dialogues. Students only, greedy. "
        "Intervals: 95 %, users and seeds resampled.",
        *where_it_ran(f"python examples/{surroundings()['command']}", folders),
        markdown_rows(table_rows([before, *systems])),
        "Paired by user:",
        *(markdown_rows(comparison_rows(other, reference)) for other in others),
        f"![the variants side by side]({stem}.png)",
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    draw(systems, options.out / f"{stem}.png")
    (options.out / f"{stem}.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print("\n\n".join(lines))


def draw(systems: Sequence[Scores], path: Path) -> None:
    """Mean and interval of each variant, a panel for each headline metric."""
    from matplotlib.figure import Figure

    titles = ("Hit@1, last proposal", "Hit@1, first proposal", "user F1 at 1:1", "user AUC")
    panels: dict[str, list[Estimate]] = {title: [] for title in titles}
    for system in systems:
        played: Mapping[str, Estimate] = summarize(system.name, system.runs).estimates
        asked = simulation_report(system.name, system.simulations).estimates["1:1"]
        found = (played["hit_final"], played["hit_first"], asked["f1"], asked["auc"])
        for estimates, estimate in zip(panels.values(), found, strict=True):
            estimates.append(estimate)
    figure = Figure(figsize=(3 * len(panels), 3.2), layout="constrained")
    for axis, (title, estimates) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        means = [e.mean for e in estimates]
        errors = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        axis.errorbar(range(len(systems)), means, errors, fmt="o", capsize=4)
        axis.set_xticks(range(len(systems)), [system.name for system in systems])
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.3)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
