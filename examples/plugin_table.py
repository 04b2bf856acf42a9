"""Train every stack of docs/plugins.md with a modest budget and several seeds, and write the page of results.

    python examples/plugin_table.py --source real --out docs/results

All play the frozen test episodes of draw 0. Each seed has training tasks of its own.
"""

import importlib
import platform
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from held_out import Question
from tqdm import tqdm

from baselines import load_system
from coars_env import (
    RECOMMENDER,
    FixedUser,
    Source,
    environment_info,
    evaluate,
    load_split,
    markdown_table,
    metric_values,
    paired_difference,
    summarize,
)

STACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("with_sb3", {"algorithm": "maskable", "steps": 16384}),
    ("with_sb3", {"algorithm": "maskable", "net": "mlp", "steps": 16384}),
    ("with_sb3", {"algorithm": "ppo", "steps": 16384}),
    ("with_sb3", {"algorithm": "both", "steps": 65536}),
    ("with_torchrl", {"steps": 16384}),
    ("with_tianshou", {"steps": 16384}),
    ("with_cleanrl", {"steps": 65536}),
)
"""Module and options; steps are counted as the library counts them."""
LIBRARIES = (
    *("stable-baselines3", "sb3-contrib", "supersuit", "torchrl", "tensordict", "tianshou", "torch", "numpy"),
    *("gymnasium", "pettingzoo"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    dataset: str = "movielens"
    source: Source = "auto"
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path | None = None
    """Folder of the page; without it the page is printed only."""


def main(options: Options) -> None:
    torch.set_num_threads(1)
    split = load_split(options.dataset, source=options.source)
    questions = [Question(split, seed=seed) for seed in options.seeds]
    test = questions[0].test
    runs: dict[str, list[Any]] = {
        name: evaluate(load_system(name).fit(split).agent(RECOMMENDER), FixedUser(), [test])
        for name in ("random", "popularity", "item_knn")
    }
    runs["random, random"] = evaluate(*questions[0].at_random()["random, random"], [test])
    taken: dict[str, tuple[int, float]] = {}
    work = [(stack, seed) for stack in STACKS for seed in options.seeds]
    for (module, words), seed in tqdm(work):
        example = importlib.import_module(module)
        config, began = example.Config(seed=seed, progress=False, **words), time.process_time()
        systems = example.learn(questions[options.seeds.index(seed)], config)
        seconds = time.process_time() - began
        for name, pair in systems.items():
            runs[name] = runs.get(name, []) + evaluate(*pair, [test])
            taken[name] = (config.steps, taken.get(name, (0, 0.0))[1] + seconds / len(options.seeds))
    page = "\n\n".join([*head(options, questions[0]), *tables(runs, taken)]) + "\n"
    print(page)
    if options.out:
        path = options.out / f"{options.dataset}_plugins_cpu_{date.today().isoformat()}.md"
        path.write_text(page, encoding="utf-8")


def head(options: Options, question: Question) -> list[str]:
    """What was asked, of what, by what."""
    provenance, libraries = question.test.provenance, ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"# {options.dataset}, leave_last, uniform candidates: other people's algorithms",
        f"{provenance.source.upper()} data {provenance.origin} ({provenance.sha256[:12]}), {len(question.test)} test "
        f"episodes ({question.test.sha256[:12]}), one draw; training seeds {', '.join(map(str, options.seeds))}. "
        "Trained on tasks of the training part, greedy in the test. Intervals: 95 %, users and seeds resampled; with "
        "one seed for what is not trained.",
        f"Command: `python examples/plugin_table.py --source {options.source} --out docs/results`, commit "
        f"{environment_info()['commit']}, {platform.system()} {platform.machine()}, one thread, "
        f"Python {platform.python_version()}, {libraries}.",
    ]


def tables(runs: dict[str, list[Any]], taken: dict[str, tuple[int, float]]) -> list[str]:
    """Recommenders before a user that clicks whatever comes first, and pairs that were trained together."""
    chance = metric_values(runs["random"])["hit_final"]
    alone, pairs = [], []
    for name, run in runs.items():
        steps, seconds = taken.get(name, ("", ""))
        budget = (steps, f"{seconds:.0f}" if taken.get(name) else "")
        estimates = summarize(name, run).estimates
        if ", " in name and not name.endswith(", clicks"):
            pairs.append((name, *(estimates[m] for m in ("hit_final", "turns", "reward_recommender", "reward_user"))))
        else:
            gap = "" if name == "random" else str(paired_difference(metric_values(run)["hit_final"], chance))
            alone.append((name.removesuffix(", clicks"), *budget, estimates["hit_final"], gap))
    return [
        "Before a user that clicks whatever comes first, so that the first proposal counts:",
        markdown_table(("recommender", "steps", "CPU seconds a seed", "Hit@1", "minus random"), alone),
        "Steps are counted as each library counts them: a proposal (MaskablePPO, PPO), one side's part of a half-turn "
        '(SuperSuit), or a half-turn of one game (the others). "minus random" is paired by user.',
        "Pairs that learnt together. The user is paid for telling hits from misses, and ends the game by a click:",
        markdown_table(("recommender, user", "Hit@1", "turns", "reward of the recommender", "of the user"), pairs),
        "Where all games last four turns, no user ever clicked: most proposals miss, and a user that refuses is mostly "
        "right.",
    ]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
