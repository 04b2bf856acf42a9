"""Do tasks from 25,000,000 interactions take minutes and little memory, and does the cost grow with the interactions?

    python examples/benchmarks/growth.py --out docs/results
    python examples/benchmarks/growth.py --sizes 200000 400000

Invents a world of each size, with as many users and items for its interactions as MovieLens 25M (154 interactions a
user, 423 an item), holds out every user's last item, computes peers, freezes one test task of every user with uniform
candidates, and writes the file. Each size has a process of its own, with one thread, whose highest memory is noted.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import tyro

import coars_env

STAGES = ("invent the world", "divide it", "compute peers", "freeze the tasks", "write the file")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """What is measured."""

    sizes: tuple[int, ...] = (1_000_000, 5_000_000, 10_000_000, 25_000_000)
    """Interactions."""
    out: Path | None = None
    """Folder for a page and a plot; drawing needs matplotlib."""


@dataclass(frozen=True)
class Growth:
    """What one size cost."""

    interactions: int
    tasks: int
    megabytes: float
    """Of the episode file."""
    processor: tuple[float, ...]
    """Seconds of processor time of each of the `STAGES`."""
    wall: float
    """Seconds on the clock, imports left out."""
    memory: float
    """Highest resident memory of the process, in GB."""


def measure(interactions: int) -> Growth:
    """In a process of its own."""
    began, seconds = time.perf_counter(), []

    def timed(stage: Callable[[], T]) -> T:
        start = time.process_time()
        made = stage()
        seconds.append(time.process_time() - start)
        return made

    sizes = {"users": interactions // 154, "items": interactions // 423, "interactions": interactions}
    dataset = timed(lambda: coars_env.load("synthetic", **sizes))
    split = timed(lambda: coars_env.leave_last(dataset))
    build = timed(lambda: coars_env.builder(split))
    episodes = timed(lambda: coars_env.freeze(build, "test"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "episodes.jsonl")
        timed(lambda: episodes.save(path))
        megabytes = path.stat().st_size / 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    wall = time.perf_counter() - began
    return Growth(interactions, len(episodes), megabytes, tuple(seconds), wall, memory)


def table(grown: list[Growth]) -> str:
    header = ("interactions", "tasks", "file, MB", *STAGES, "processor, s", "s per million", "clock, s", "memory, GB")
    rows = [
        (
            f"{g.interactions:,}",
            f"{g.tasks:,}",
            f"{g.megabytes:.0f}",
            *(f"{seconds:.1f}" for seconds in g.processor),
            f"{sum(g.processor):.1f}",
            f"{sum(g.processor) / g.interactions * 1e6:.2f}",
            f"{g.wall:.1f}",
            f"{g.memory:.2f}",
        )
        for g in grown
    ]
    return coars_env.markdown_table(header, rows)


def draw(grown: list[Growth], path: Path) -> None:
    """Seconds by stage, and memory, over the interactions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    millions = [g.interactions / 1e6 for g in grown]
    left.stackplot(millions, *zip(*(g.processor for g in grown), strict=True), labels=STAGES)
    left.plot(millions, [sum(g.processor) for g in grown], "k.")
    left.set(xlabel="million interactions", ylabel="seconds of processor time", xlim=0, ylim=0)
    left.legend(loc="upper left", fontsize=8)
    right.plot(millions, [g.memory for g in grown], "k.-")
    right.set(xlabel="million interactions", ylabel="highest memory, GB", xlim=0, ylim=0)
    figure.savefig(path, dpi=120)


def main() -> None:
    config = tyro.cli(GrowthConfig, description=__doc__)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # of the processes to come
    grown = []
    for size in config.sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            grown.append(process.submit(measure, size).result())
        print(f"{size:,} interactions: {grown[-1].wall:.0f} s", flush=True)
    print(table(grown))
    if config.out:
        name = f"growth_cpu_{date.today().isoformat()}"
        draw(grown, config.out / f"{name}.png")
        around = coars_env.environment_info()
        page = (
            "# What do tasks cost, from one to 25 million interactions?\n\n"
            "Command: `python examples/benchmarks/growth.py --out docs/results`, commit "
            f"{around['commit']}, {around['machine']}, one thread, load {os.getloadavg()[0]:.1f} at the end (others' "
            f"work included), Python {around['python']}.\n\n"
            "Invented worlds with the users and items that MovieLens 25M has for its interactions; a test task of "
            "every user, with peer similarities, written to a file. Stages in seconds of processor time; the clock "
            "also ran while other programs had the processor.\n\n"
            f"{table(grown)}\n\n![seconds and memory over interactions]({name}.png)\n"
        )
        (config.out / f"{name}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
