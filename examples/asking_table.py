"""MaskablePPO learns to ask: train it in games with instructions, with several seeds, and write the page of results.

    python examples/asking_table.py --source real --out docs/results

It is `with_sb3.py --instructions genre decade` on two rules of candidates, beside scripted recommenders that go by the
kernel over the last ten items. Choose settings with `--subset validation`; test users are for the page.
"""

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from held_out import Pair, Question
from tqdm import tqdm
from with_sb3 import Config, learn

from coars_env import (
    CandidateRule,
    ShuffledUser,
    SilentUser,
    Source,
    environment_info,
    evaluate,
    freeze,
    markdown_table,
    metric_values,
    paired_difference,
    summarize,
)

LIBRARIES = ("stable-baselines3", "sb3-contrib", "torch", "numpy", "gymnasium", "pettingzoo")
METRICS = ("hit_first_proposal", "questions", "turns", "reward_recommender")
BASE, TRAINED = "never asks", "MaskablePPO"


@dataclass(frozen=True, kw_only=True)
class Options:
    dataset: str = "movielens"
    source: Source = "auto"
    candidates: tuple[CandidateRule, ...] = ("uniform", "popularity")
    instructions: tuple[str, ...] = ("genre", "decade")
    subset: Literal["test", "validation"] = "test"
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 40_000
    draws: int = 5
    """Of candidates and instructions, in the episodes that are played."""
    out: Path | None = None
    """Folder of the page; without it the page is printed only."""

    def config(self, candidates: CandidateRule, seed: int) -> Config:
        return Config(
            dataset=self.dataset,
            source=self.source,
            candidates=candidates,
            instructions=self.instructions,
            subset=self.subset,
            seed=seed,
            steps=self.steps,
            progress=False,
        )


def played(options: Options, candidates: CandidateRule) -> tuple[dict[str, list[Any]], Question, float]:
    """Dialogues of each pair, [seeds][draws]; the last question; CPU seconds of training a seed."""
    runs: dict[str, list[Any]] = {}
    seconds = 0.0
    for seed in tqdm(options.seeds, desc=candidates):
        config = options.config(candidates, seed)
        question, began = config.question(), time.process_time()
        ((agent, partner),) = learn(question, config).values()
        seconds += (time.process_time() - began) / len(options.seeds)
        draws = [freeze(question.build, options.subset, draw=draw) for draw in range(options.draws)]
        items, tasks = question.test.items, [task for draw in draws for task in draw]
        pairs: dict[str, Pair] = {} if runs else question.scripted()
        pairs[TRAINED] = (agent, partner)
        pairs[f"{TRAINED}, user silent"] = (agent, SilentUser(items, volunteer=0.0))
        pairs[f"{TRAINED}, words of another task"] = (agent, ShuffledUser(items, tasks, volunteer=0.0))
        for name, pair in pairs.items():
            runs[name] = runs.get(name, []) + evaluate(*pair, draws, rules=question.rules)
    return runs, question, seconds


def table(runs: dict[str, list[Any]]) -> str:
    base, rows = metric_values(runs[BASE])["hit_best"], []
    for name, run in runs.items():
        estimates = summarize(name, run).estimates
        gap = "" if name == BASE else str(paired_difference(metric_values(run)["hit_best"], base))
        rows.append((name, estimates["hit_best"], gap, *(estimates[m] for m in METRICS)))
    columns = ("recommender", "Hit@1", "minus never asks", "first proposal", "questions", "turns", "reward")
    return markdown_table(columns, rows)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    parts, seconds, names = [], [], []
    for candidates in options.candidates:
        runs, question, spent = played(options, candidates)
        parts.append(f"## {candidates} candidates\n\n{table(runs)}")
        seconds.append(f"{spent:.0f} ({candidates})")
        names.append(question.test.name)
    origin, around = question.test.provenance, environment_info()
    config = options.config(options.candidates[0], 0)
    page = PAGE.format(
        dataset=options.dataset,
        data=f"{origin.source.upper()} data {origin.origin} ({origin.sha256[:12]})",
        who=f"{len(question.test)} {options.subset} users, {options.draws} candidate draws",
        seeds=", ".join(map(str, options.seeds)),
        steps=f"{options.steps:,}",
        config=config,
        seconds=", ".join(seconds),
        command=f"`python examples/{around['command']}`, commit {around['commit']}, {platform.system()} "
        f"{platform.machine()}, one thread, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        episodes=", ".join(f"`{name}`" for name in names),
        tables="\n\n".join(parts),
    )
    print(page)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"asking_rl_{options.dataset}.md").write_text(page, encoding="utf-8")


PAGE = """# {dataset}: MaskablePPO learns to ask

{data}, {who} (draws 0 up of {episodes}); training seeds {seeds}. Intervals: 95 %, users and seeds resampled.

Command: {command}.

Users want one genre and the decade of their target, answer when they are asked, volunteer nothing, and click the first
proposal that has all they want. Four turns; repeats forbidden; the answer is the accepted proposal, else the one
accepted most strongly. MaskablePPO of sb3-contrib sees the game in numbers: 64 directions of the kernel over the last
ten items, which the scripted recommenders go by, popularity, and what was revealed. {steps} steps on tasks of the
training part, {seconds} CPU seconds a seed; a question costs {config.question_cost}, the discount is {config.gamma}.

"greedy" and "never asks" propose by the kernel what was not rejected; as nothing is volunteered they are the same.
"asks" keeps a belief and asks where a question gains more than a proposal. Two controls: a silent user, which declines
every question, and one that answers by the instruction of another task; both judge as the user does. "reward" is the
mean over turns, without the cost of questions. Differences are paired by user.

Settings were chosen on validation users of leave_last_two, seed 0 and one draw: discounts of .95 and .99, questions at
0 and .1, 30,000 to 60,000 steps, a constant and a falling rate. Nothing was chosen on test users.

{tables}
"""


if __name__ == "__main__":
    main()
