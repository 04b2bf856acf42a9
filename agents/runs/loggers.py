"""Logger: where the metrics of a run go besides its metrics.jsonl; TensorBoard, Weights & Biases or trackio.

A Logger is any object with two methods. `run_training` takes one; `open_logger` makes those that have a name. Each
library is imported only when it is asked for.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

LogKind = Literal["tensorboard", "wandb", "trackio", "none"]


class Logger(Protocol):
    """Is told the metrics of every update. A run that goes on may tell some again, with equal values."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Update number `step`, from 0, is done."""

    def close(self) -> None:
        """There is nothing more to come. Not called if the run is killed."""


def open_logger(kind: LogKind, folder: Path, config: Mapping[str, Any], *, first: int = 0) -> Logger:
    """A logger by name.

    Args:
        kind: its name.
        folder: of the run.
        config: settings of the run, for display.
        first: number of the first update it will be told; others were told to an earlier one of the same folder.
    """
    if kind == "tensorboard":
        return TensorBoard(folder, first)
    if kind == "wandb":
        return Wandb(folder, config)
    if kind == "trackio":
        return Trackio(folder, config, first)
    return Nowhere()


class Nowhere:
    """Tells nobody."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what was told before a run was killed, and will be told again, is not to be shown twice
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of the project "coars" in Weights & Biases. `wandb login` and its own environment variables, such as
    WANDB_MODE=offline, say where it goes.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        # "auto" finds in the folder which run was killed there
        self._run = wandb.init(project="coars", name=folder.name, dir=folder, config=dict(config), resume="auto")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of the project "coars" in trackio, which keeps it on this machine: `trackio show --project coars`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], first: int) -> None:
        import trackio

        self._trackio = trackio
        place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]  # folders of one name are several runs
        resume = "allow" if first else "never"
        trackio.init(project="coars", name=f"{folder.name}-{place}", config=dict(config), resume=resume)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log(dict(metrics), step=step)

    def close(self) -> None:
        self._trackio.finish()
