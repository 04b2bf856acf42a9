"""What does one part of CoARS do? Trains a variant for each of its values, on one budget and the same seeds, plays
them on the same frozen draws, and writes a page with table and plot.

    python examples/ablation.py --what parts
    python examples/ablation.py --what opinions --base.recipe.steps 100

Finished runs are kept and not repeated, and a run that was stopped goes on from its last checkpoint. Ablations share
the runs they have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import tyro

from agents.runs.config import AnyTrainConfig, DataConfig, TrainConfig, open_split, with_settings
from agents.runs.evaluate import benchmark_of, describe, play_controls, play_runs, play_untrained, where_it_ran
from agents.runs.run import train_seeds
from agents.training.coars import Coars
from agents.training.peers import settle
from baselines.coars import OutcomeRecipe
from coars_env import (
    AS_IT_IS,
    Estimate,
    Rules,
    ScoreTable,
    TableRow,
    comparison_lines,
    control_lines,
    environment_info,
    markdown_lines,
)

What = Literal["parts", "rules", "words", "credit", "exclusion", "teacher", "diagnosis", "stage", "alpha", "opinions"]


def variants(base: TrainConfig[Coars]) -> dict[What, dict[str, AnyTrainConfig]]:
    """Ablation -> variant -> settings. The others are compared with the first variant, the settings of `base`."""

    def coars(**settings: Any) -> AnyTrainConfig:
        return replace(base, recipe=with_settings(base.recipe, **settings))

    def reward(**settings: Any) -> AnyTrainConfig:
        return coars(reward=replace(base.recipe.reward, **settings))

    def by_outcome(**settings: Any) -> AnyTrainConfig:
        """The outcome pays in place of the interaction; all other settings are those of `base`."""
        kept = {field.name: getattr(base.recipe, field.name) for field in fields(base.recipe)}
        return replace(base, recipe=OutcomeRecipe(**{**kept, **settings}))

    return {
        "parts": {
            "CoARS": base,
            "recommender alone": coars(learners="recommender"),
            "user alone": coars(learners="user"),
            "outcome only": by_outcome(),
            "no self-distillation": coars(credit="none"),
            "GRPO, outcome": by_outcome(credit="none", group_size=8, baseline="group"),
        },
        "rules": {
            f"repeats {repeats}": coars(rules=Rules(repeats=repeats)) for repeats in ("paid", "unpaid", "forbidden")
        },
        "words": {"CoARS": base, "no self-distillation": coars(credit="none")},
        "credit": {
            "CoARS": base,
            "sign from reward": coars(
                credit="sign_from_reward", lambda_recommender=0.5, lambda_user=0.5, clip=0.2
            ),  # as RLSD published it
            "no self-distillation": coars(credit="none"),
        },
        "exclusion": {
            "CoARS": base,
            "by the recommender": reward(exclude_positive_miss=("recommender",)),
            "by both": reward(exclude_positive_miss=("recommender", "user")),
        },
        "teacher": {"CoARS": base, "live teacher": coars(teacher="live"), "EMA teacher": coars(teacher="ema")},
        "diagnosis": {"CoARS": base, "written by the model": coars(diagnosis="written")},
        "stage": {
            "CoARS": base,
            **{f"{stage} stage": reward(stage=stage) for stage in ("constant", "decreasing", "increasing")},
        },
        "alpha": {"CoARS": base, "alpha 0": reward(alpha=0.0), "alpha 0.3": reward(alpha=0.3)},
        "opinions": {"CoARS": base, "opinions not heard": replace(base, peers=replace(base.peers, opinions=False))},
    }


QUESTIONS: dict[What, str] = {
    "parts": "what is CoARS without each of its parts?",
    "rules": "what should a rejected item be worth when it is proposed again, and which proposal is the answer?",
    "words": "who teaches a user to reveal what it truly wants?",
    "credit": "what should hindsight add to the reward of a token?",
    "exclusion": "should a miss that the user liked be left out of training?",
    "teacher": "whose weights should read the hindsight?",
    "diagnosis": "who should write the diagnosis?",
    "stage": "what should a turn weigh by its place in the dialogue?",
    "alpha": "does the weight of the peers in the user's reward matter?",
    "opinions": "does the user gain by hearing what peers say?",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is varied, and what stays the same."""

    what: What = "parts"
    base: TrainConfig[Coars] = field(
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
    benchmark = benchmark_of(base, split, options.subset, draws=options.draws)
    controls: list[str] = []
    scores = [play_untrained(base, split, benchmark, name="before training").scores()]
    for name, config in variants(base)[options.what].items():
        config = replace(config, out=base.out / name.replace(",", "").replace(" ", "_"))
        runs = train_seeds(config, split, options.seeds)
        played_by = replace(benchmark, rules=config.recipe.rules)
        scores.append(play_runs(runs, split, played_by, name=name).scores())
        if base.data.facets is not None:
            others = {one: played.scores() for one, played in play_controls(runs, split, played_by).items()}
            controls += [f"{name}, with its user and with controls in the place of its user:"]
            controls += [markdown_lines(control_lines({AS_IT_IS: scores[-1], **others}))]
        folders += runs
    subject = describe(split, options.subset, options.draws, len(options.seeds))
    table = ScoreTable.of(scores)
    _, reference, *others = scores
    stem = f"ablation_{options.what}_{split.dataset.name}_{split.name}_cpu_{date.today().isoformat()}"
    lines = [
        f"# {options.what}: {QUESTIONS[options.what]}",
        f"{subject}. {base.recipe.steps} updates of {base.recipe.episodes_per_step} dialogues. Students only, greedy. "
        "Intervals: 95 %, users and seeds resampled.",
        *where_it_ran(f"python examples/{environment_info()['command']}", folders),
        table.to_markdown(),
        "Paired by user:",
        *(markdown_lines(comparison_lines(other, reference)) for other in others),
        *controls,
        f"![the variants side by side]({stem}.png)",
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    draw(table.rows[1:], options.out / f"{stem}.png")
    (options.out / f"{stem}.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print("\n\n".join(lines))


def draw(rows: Sequence[TableRow], path: Path) -> None:
    """Mean and interval of each variant, a panel for each headline metric."""
    from matplotlib.figure import Figure

    titles = ("Hit@1, last proposal", "Hit@1, first proposal", "user F1 at 1:1", "user AUC")
    panels: dict[str, list[Estimate]] = {title: [] for title in titles}
    for row in rows:
        asked = row.user["1:1"]
        found = (row.played["hit_final"], row.played["hit_first"], asked["f1"], asked["auc"])
        for estimates, estimate in zip(panels.values(), found, strict=True):
            estimates.append(estimate)
    figure = Figure(figsize=(3 * len(panels), 4), layout="constrained")
    for axis, (title, estimates) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        means = [e.mean for e in estimates]
        errors = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        axis.errorbar(range(len(rows)), means, errors, fmt="o", capsize=4)
        axis.set_xticks(range(len(rows)), [row.system for row in rows], rotation=90)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.3)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
