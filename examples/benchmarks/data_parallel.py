"""How much faster do several processes make an update of CoARS, with as many threads each as one alone?

    python examples/benchmarks/data_parallel.py
    python examples/benchmarks/data_parallel.py --dialogues 8 --rounds 1 --items 200

Starts itself by `accelerate launch`. In each round the main process makes an update alone while the others wait, and
all make the same update together, in changing order; medians are printed, and medians of the ratios. The learning rate
is 0, so all rounds have the same dialogues. The model is pocket's in size, with random weights, and the world is
invented, so it says nothing about quality.

Beside the clock stands processor time, of the busiest process where there are several. Their ratio is what the clock
would show on a machine that does nothing else, if waiting and sharing the memory cost nothing.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
import tyro

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.pocket import END, PAD, PocketConfig, new_model, train_tokenizer
from agents.models.policy import Policy
from agents.training.coars import Coars
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.recipe import Setting, run_recipe
from agents.training.update import StepMetrics
from coars_env import TaskBuilder, builder, environment_info, load_split, markdown_table

PART = ("playing", "learning", "the update")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """What is timed."""

    processes: int = 2
    threads: int = 1
    """Of each process."""
    dialogues: int = 192
    """Of an update, all processes together."""
    rounds: int = 5
    """After one that is not counted."""
    items: int = 1682
    """Films of the invented world: with the fixed phrases they make the vocabulary."""
    out: Path | None = None
    """Folder for a page."""


@dataclass(frozen=True)
class Cost:
    """What an update cost."""

    wall: tuple[float, float, float]
    """Seconds on the clock of the main process, of each of `PART`."""
    processor: float
    """Seconds of processor time of the busiest process."""
    found: StepMetrics
    """Metrics without times."""


def launch(config: ParallelConfig) -> int:
    """This script again, in several processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(config.processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", *sys.argv]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(config.threads)}, check=False).returncode


def update(
    policy: Policy, build: TaskBuilder, config: ParallelConfig, at_work: ProcessGroup, processes: ProcessGroup
) -> Cost:
    """One update of the processes at work, while the others wait."""
    rows: list[StepMetrics] = []
    recipe = Coars(steps=1, episodes_per_step=config.dialogues, learning_rate_recommender=0.0, learning_rate_user=0.0)
    processes.all_gather(None)  # all begin together
    processor, wall = time.process_time(), time.perf_counter()
    if at_work.world_size > 1 or processes.is_main:
        setting = Setting(policy=policy, split=build.split)
        run_recipe(recipe, setting, build, on_step=lambda step, metrics, _: rows.append(metrics), processes=at_work)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    busiest = max(processes.all_gather(processor if rows else 0.0))
    if not rows:
        return Cost((0.0, 0.0, 0.0), busiest, {})
    playing = rows[0]["seconds_rollout"]
    found = {name: value for name, value in rows[0].items() if "second" not in name}
    return Cost((playing, wall - playing, wall), busiest, found)


def measure(
    policy: Policy, build: TaskBuilder, config: ParallelConfig, processes: ProcessGroup
) -> dict[int, list[Cost]]:
    """By the number of processes at work."""
    costs: dict[int, list[Cost]] = {1: [], processes.world_size: []}
    for number in range(config.rounds + 1):
        for at_work in (SINGLE_PROCESS, processes)[
            :: 1 if number % 2 else -1
        ]:  # who goes first changes from round to round
            costs[at_work.world_size].append(update(policy, build, config, at_work, processes))
    return {size: made[1:] for size, made in costs.items()}  # the first round warms up


def pocket_like(items: int) -> tuple[TaskBuilder, Policy]:
    """Pocket's tokenizer and size, with the weights it has before it learns, in an invented world."""
    split = load_split("synthetic", users=943, items=items, interactions=30_000)
    tokenizer = train_tokenizer(split)
    pad, end = (tokenizer.get_vocab()[mark] for mark in (PAD, END))
    model = new_model(len(tokenizer), PocketConfig(), pad, end)
    return builder(split), Policy(Backbone(model, tokenizer, list_separator="", max_reason_tokens=12))


def report(config: ParallelConfig, policy: Policy, costs: dict[int, list[Cost]], load: float) -> str:
    """The table, under a line that says what was measured where."""
    alone, together = costs[1], costs[config.processes]
    rows = []
    for place, part in enumerate(PART):
        one, several = (np.array([cost.wall[place] for cost in made]) for made in (alone, together))
        rows.append((part, f"{np.median(one):.2f}", f"{np.median(several):.2f}", f"{np.median(one / several):.2f} x"))
    one, several = (np.array([cost.processor for cost in made]) for made in (alone, together))
    ratio = f"{np.median(one / several):.2f} x"
    rows.append(("processor time of the busiest", f"{np.median(one):.2f}", f"{np.median(several):.2f}", ratio))
    apart = max(abs(alone[0].found[name] - together[0].found[name]) for name in ("rec_gradient", "user_gradient"))
    same = all(alone[0].found[name] == together[0].found[name] for name in ("reward_recommender", "reward_user"))
    around = environment_info()
    head = (
        f"An update of {config.dialogues} dialogues, both sides, by one process and by {config.processes} of "
        f"{config.threads} thread(s) each, joined by gloo; model of "
        f"{sum(p.numel() for p in policy.backbone.model.parameters()):,} parameters with the adapters; {config.rounds} "
        f"rounds; commit {around['commit']}, {around['machine']}, {os.cpu_count()} processors, load {load:.1f} at the "
        f"start and {os.getloadavg()[0]:.1f} at the end (our own included), Python {around['python']}, torch "
        f"{around['versions']['torch']}."
    )
    table = markdown_table(("median seconds", "one process", f"{config.processes} processes", "median ratio"), rows)
    facts = f"- equal dialogues: {'yes' if same else 'no'}\n- largest difference of a gradient's norm: {apart:.1e}"
    return "\n\n".join([head, table, facts])


def main() -> int:
    config = tyro.cli(ParallelConfig, description=__doc__)
    processes = ProcessGroup.launched("cpu")
    if processes.world_size == 1:
        return launch(config)
    torch.set_num_threads(config.threads)
    load = os.getloadavg()[0]
    build, policy = pocket_like(config.items)
    costs = measure(policy, build, config, processes)
    if processes.is_main:
        told = report(config, policy, costs, load)
        print(told)
        if config.out:
            config.out.mkdir(parents=True, exist_ok=True)
            (config.out / f"data_parallel_cpu_{date.today().isoformat()}.md").write_text(
                "# How much faster are two processes?\n\n"
                f"Command: `python examples/benchmarks/data_parallel.py --out docs/results`.\n\n{told}\n",
                encoding="utf-8",
            )
    processes.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main())
