"""What a run writes while it goes: metrics, dialogues, checkpoints, progress."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agents.models.policy import Policy
from agents.runs.checkpoint import Checkpoint, Origin
from agents.runs.loggers import Logger
from agents.training.update import Optimizers, StepMetrics
from coars_env import USER, CheckpointError, Item, Transcript, dialogue_text, write_transcripts


class Recorder:
    """Writes each update of a run to its folder, its logger and a progress bar: `with Recorder(...) as record`."""

    def __init__(
        self,
        folder: Path,
        rows: list[StepMetrics],
        logger: Logger,
        *,
        steps: int,
        every: int,
        items: Sequence[Item],
        policy: Policy,
        optimizers: Optimizers,
        origin: Origin,
        console: Console | None,
    ) -> None:
        """Open nothing yet.

        Args:
            folder: of the run.
            rows: metrics of the updates that were made before; grows.
            logger: receives the metrics, and is closed in the end.
            steps: updates of the whole run.
            every: updates between two checkpoints.
            items: the catalogue, for dialogues.txt.
            policy: what a checkpoint holds,
            optimizers: with these,
            origin: and this.
            console: where the progress is shown.
        """
        self._folder, self._rows, self._logger = folder, rows, logger
        self._steps, self._every, self._items = steps, every, items
        self._policy, self._optimizers, self._origin = policy, optimizers, origin
        self._progress = Progress(
            MofNCompleteColumn(), TimeRemainingColumn(compact=True), TextColumn("{task.fields[state]}"), console=console
        )
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._open.callback(self._logger.close)
        path = self._folder / "metrics.jsonl"
        self._file = self._open.enter_context(path.open("a" if self._rows else "w", encoding="utf-8"))
        self._open.enter_context(self._progress)
        self._bar = self._progress.add_task("training", total=self._steps, completed=len(self._rows), state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, step: int, metrics: StepMetrics, transcripts: Sequence[Transcript]) -> None:
        """Take one update; an `OnStep` of `train`."""
        self._rows.append(metrics)
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        self._logger.log(step, metrics)
        self._progress.update(self._bar, advance=1, state=progress_text(self._rows))
        if len(self._rows) % self._every == 0 or len(self._rows) == self._steps:
            write_transcripts(self._folder / "transcripts" / "last_step.jsonl", transcripts)
            (self._folder / "dialogues.txt").write_text(dialogues_text(transcripts[:8], self._items), encoding="utf-8")
            os.fsync(self._file.fileno())  # a checkpoint is never ahead of the record
            Checkpoint.of(self._policy, self._optimizers, len(self._rows), self._origin).write(self._folder)


def read_metrics(folder: Path, step: int) -> list[StepMetrics]:
    """Read the metrics of the first `step` updates from metrics.jsonl.

    Raises:
        CheckpointError: there are fewer, or others.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines()[:step] if step else []
        rows = [json.loads(line) for line in lines]
        numbers, found = [row.pop("step") for row in rows], f"{len(rows)}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        numbers, found = [], repr(error)
    if numbers != list(range(step)):
        raise CheckpointError(
            f"{path} does not hold the {step} updates before the checkpoint, but {found}. Train again in a new folder."
        )
    return rows


def cut_metrics(folder: Path, step: int) -> list[StepMetrics]:
    """Read the metrics of the first `step` updates and cut off what was written after them."""
    rows, path = read_metrics(folder, step), folder / "metrics.jsonl"
    if path.exists():
        os.truncate(path, sum(map(len, path.read_bytes().splitlines(keepends=True)[:step])))
    return rows


def progress_text(rows: Sequence[StepMetrics]) -> str:
    """Average the last ten updates in one line, recommender before user.

    It fits a terminal of 100 columns beside the bar's own numbers.
    """
    recent = {key: float(np.nanmean([row.get(key, np.nan) for row in rows[-10:]])) for key in rows[-1]}
    parts = {
        "Hit@1": ("hit_final",),
        "reward": ("reward_recommender", "reward_user"),
        "entropy": ("rec_surprise", "user_surprise"),
        "KL": ("rec_kl", "user_kl"),
        "leak": ("target_named",),
    }
    shown = [
        f"{label} " + " ".join(f"{recent[key]:.2f}" for key in keys)
        for label, keys in parts.items()
        if all(key in recent for key in keys)
    ]
    return ", ".join([*shown, f"{recent['tokens_per_second']:.0f} tok/s"])


def dialogues_text(transcripts: Sequence[Transcript], items: Sequence[Item]) -> str:
    """Render dialogues to be read, with the item truly taken."""
    stories = []
    for transcript in transcripts:
        said = dialogue_text(transcript.task, transcript.turns, items, USER)
        truth = items[transcript.task.target].title
        stories.append(f"{said}\nTruly taken next: {truth}. Ended: {transcript.ending}.\n")
    return "\n".join(stories)
