"""How long does an epoch of SASRec take here, and in RecTools, on as many interactions as MovieLens 1M has?

    python -m venv .venv-rectools
    .venv-rectools/bin/pip install -c constraints.txt -e ".[llm]" "rectools[torch]==0.19.0"
    .venv-rectools/bin/python examples/benchmarks/vs_rectools.py --out docs/results

An environment of its own, since RecTools wants an older numpy and brings Lightning. Both get the same invented world,
the training part of leave_last: 6,040 users, 3,706 items, 1,000,000 interactions, in time order. Both have one block of
one head, width 64, dropout .1, a history of ten items, softmax over the catalogue, Adam, one thread. They take turns,
each epoch in a process of its own, whose highest memory is noted.

What they predict cannot be quite the same. Ours cuts a window of the last ten items before every item. RecTools reads
sessions of a fixed length and predicts each of their items but the first, and of a longer sequence it takes the end
only; so it is given the sequences in pieces of eleven items, ten targets each. Its histories are thus shorter, five
and a half items on average, and one pass serves ten targets. Batches hold as many targets: 256 windows, 26 sessions; a
second row gives RecTools its own 128 sessions. What is compared is the time per million targets. Ours includes the
validation after the epoch.
"""

import os
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro

import coars_env

HISTORY, WIDTH, DROPOUT = 10, 64, 0.1


@dataclass(frozen=True, kw_only=True)
class RecToolsConfig:
    """What is measured."""

    users: int = 6_040
    items: int = 3_706
    interactions: int = 1_000_000
    rounds: int = 3
    """Epochs of each."""
    out: Path | None = None
    """Folder for a page."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch cost."""

    targets: int
    processor: float
    """Seconds of processor time."""
    wall: float
    """Seconds on the clock."""
    memory: float
    """Highest resident memory of the process, libraries included, in GB."""


class Clock:
    """Processor and clock, from `start` to `stop`."""

    def start(self) -> None:
        self._processor, self._wall = time.process_time(), time.perf_counter()

    def stop(self, targets: int) -> Epoch:
        processor, wall = time.process_time() - self._processor, time.perf_counter() - self._wall
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        return Epoch(targets, processor, wall, memory)


def world(config: RecToolsConfig) -> coars_env.Split:
    return coars_env.load_split(
        "synthetic", "leave_last", users=config.users, items=config.items, interactions=config.interactions
    )


def ours(config: RecToolsConfig) -> Epoch:
    """In a process of its own."""
    import torch

    from agents.sequential import FitSettings, SasRecEncoder
    from agents.sequential.fit import Windows, cross_entropy, divide, new_net, new_optimizer, run_epochs

    torch.set_num_threads(1)
    split = world(config)
    train, held = divide(split, 0)
    windows = Windows.of(train, split.dataset.num_items)
    settings = FitSettings(hidden=WIDTH, dropout=DROPOUT, max_epochs=1)
    net = new_net(SasRecEncoder, windows, settings, 0)
    optimizer = new_optimizer(net, SasRecEncoder, settings)

    def step(places: torch.Tensor) -> float:
        loss = cross_entropy(net(windows.histories(places)), windows.targets(places)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    clock = Clock()
    clock.start()
    run_epochs(net, step, windows, held, settings, seed=0, title="ours")
    return clock.stop(len(windows.all_places))


def rectools(sessions: int, config: RecToolsConfig) -> Epoch:
    """In a process of its own. `sessions` is the batch."""
    import pandas as pd
    import pytorch_lightning as lightning
    import torch
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pieces = [
        sequence.items[first : first + HISTORY + 1]
        for sequence in world(config).train
        for first in range(0, len(sequence.items), HISTORY + 1)
    ]
    lengths = [len(piece) for piece in pieces]
    table = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(pieces)), lengths),
            Columns.Item: np.concatenate(pieces),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(np.arange(sum(lengths)), unit="s"),
        }
    )
    clock, found = Clock(), []

    class Timer(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            clock.start()

        def on_train_epoch_end(self, *_: Any) -> None:
            found.append(clock.stop(sum(length - 1 for length in lengths)))

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    model = SASRecModel(
        n_blocks=1,
        n_heads=1,
        n_factors=WIDTH,
        dropout_rate=DROPOUT,
        session_max_len=HISTORY,
        batch_size=sessions,
        get_trainer_func=lambda: lightning.Trainer(
            max_epochs=1, accelerator="cpu", enable_model_summary=False, callbacks=[Timer()], **quiet
        ),
    )
    model.fit(Dataset.construct(table))
    return found[0]


SYSTEMS = {
    "coars-env, 256 windows a batch": ours,
    "RecTools, 26 sessions a batch": partial(rectools, 26),
    "RecTools, 128 sessions a batch": partial(rectools, 128),
}


def table(epochs: dict[str, list[Epoch]]) -> str:
    """Medians, and how much longer than ours."""

    def per_million(of: list[Epoch]) -> float:
        return median(e.processor / e.targets for e in of) * 1e6

    first = per_million(next(iter(epochs.values())))
    header = ("system", "targets", "processor, s", "clock, s", "processor, s per million", "ratio", "memory, GB")
    rows = [
        (
            name,
            f"{of[0].targets:,}",
            f"{median(e.processor for e in of):.1f}",
            f"{median(e.wall for e in of):.1f}",
            f"{per_million(of):.1f}",
            f"{per_million(of) / first:.2f}",
            f"{max(e.memory for e in of):.2f}",
        )
        for name, of in epochs.items()
    ]
    return coars_env.markdown_table(header, rows)


def main() -> None:
    config = tyro.cli(RecToolsConfig, description=__doc__)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # of the processes to come
    epochs: dict[str, list[Epoch]] = {name: [] for name in SYSTEMS}
    for _ in range(config.rounds):
        for name, system in SYSTEMS.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                epochs[name].append(process.submit(system, config).result())
            print(f"{name}: {epochs[name][-1].processor:.1f} s", flush=True)
    print(table(epochs))
    if config.out:
        from coars_env import environment_info

        around = environment_info()
        lines = [
            f"- {name}: {', '.join(f'{e.processor:.1f}' for e in of)} s of processor time"
            for name, of in epochs.items()
        ]
        page = (
            "# How long does an epoch of SASRec take here, and in RecTools?\n\n"
            "Command: `python examples/benchmarks/vs_rectools.py --out docs/results`, commit "
            f"{around['commit']}, {around['machine']}, one thread, load {os.getloadavg()[0]:.1f} at the end (others' "
            f"work included), Python {around['python']}, torch {version('torch')}, numpy {version('numpy')}, RecTools "
            f"{version('rectools')}, pytorch-lightning {version('pytorch-lightning')}.\n\n"
            f"An invented world of {config.users:,} users, {config.items:,} items and {config.interactions:,} "
            "interactions, as many as MovieLens 1M has. One block of one head, width 64, ten items of history, "
            "softmax over the catalogue. The script says why the numbers of targets differ; the time per million "
            f"targets is what is compared. Medians of {config.rounds} epochs, taken in turns, each in a process of its "
            "own; memory is the highest. Seconds of processor time; the clock also ran while other programs had the "
            "processor.\n\n"
            f"{table(epochs)}\n\n" + "\n".join(lines) + "\n"
        )
        (config.out / f"sasrec_vs_rectools_cpu_{date.today().isoformat()}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
