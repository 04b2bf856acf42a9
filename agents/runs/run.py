"""A run folder: training with all its settings, safe to stop at any moment; coars train."""

import contextlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError

from agents.models.backbones import Backbone, load
from agents.models.policy import Policy
from agents.players.served import Server, ServerConfig
from agents.runs.card import adapter_cards
from agents.runs.checkpoint import (
    ADAPTERS_FOLDER,
    CHECKPOINT,
    PART,
    Checkpoint,
    Origin,
    alone_in,
    as_json,
    differences,
    is_finished,
    listed,
    new_run_folder,
    note_resumption,
    read_config,
    remove_leftovers,
    save_adapters,
    write_config,
)
from agents.runs.loggers import Logger, LogKind, open_logger
from agents.runs.plots import draw_curves
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.peers import PeersConfig, peers_of, settle
from agents.training.sharding import shard
from agents.training.train import CoarsConfig, StepMetrics, new_optimizers, train
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    CheckpointError,
    CoarsReward,
    ConfigError,
    Item,
    LinearStage,
    MirroredStage,
    Source,
    Split,
    SplitName,
    StageSensitivity,
    TrainingError,
    Transcript,
    builder,
    constant_stage,
    dialogue_text,
    load_split,
    write_transcripts,
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which users are trained on and which are held out."""

    dataset: str = "movielens"
    """Name of a dataset, see `coars_env.list_datasets`."""
    split: SplitName | None = None
    """"leave_last" holds out each user's last item, "random_holdout" one at random, "llara" a tenth of the users,
    "published" what the publisher does. None takes the one that fits the data, "leave_last" for MovieLens."""
    source: Source = "auto"
    """"auto" takes real data and, where none can be had, warns and plays a synthetic world; "real" fails instead."""
    data_dir: Path | None = None
    """Where the files lie; else `COARS_DATA`, else the user cache, else the official archive."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Settings of `CoarsReward`."""

    alpha: float = 0.1
    """Weight of the peer term; published."""
    stage: Literal["mirrored", "constant", "decreasing", "increasing"] = "mirrored"
    """What a turn weighs by its place in the dialogue; ours. "mirrored" pays early hits more and charges late misses
    more (`MirroredStage`), "decreasing" and "increasing" weigh hits and misses alike (`LinearStage`)."""
    beta: float = 1 / 3
    """Spread of the stage sensitivity; ours."""
    exclude_positive_miss: Literal["both", "recommender", "user", "off"] = "off"
    """Who does not train on a miss the user liked. The rule is published, its scope is not; ours is nobody. With "both"
    a user that accepts everything never meets a penalty, and that is what it learns; with "recommender" the other side
    soon learns from its hits alone; see docs/log.md."""

    def build(self) -> CoarsReward:
        scope = {"both": ROLES, "recommender": (RECOMMENDER,), "user": (USER,), "off": ()}[self.exclude_positive_miss]
        stages: dict[str, StageSensitivity] = {
            "mirrored": MirroredStage(self.beta),
            "constant": constant_stage,
            "decreasing": LinearStage(self.beta),
            "increasing": LinearStage(-self.beta),
        }
        return CoarsReward(alpha=self.alpha, stage=stages[self.stage], exclude_positive_miss=frozenset(scope))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train both agents by CoARS and write a run folder: config.json, metrics.jsonl, curves.png, transcripts,
    dialogues.txt, adapters/recommender and adapters/user, and a checkpoint from which a run that was stopped goes on.
    """

    out: Path = Path("runs/coars")
    """New folder for the run."""
    backbone: str = "pocket"
    """"pocket" builds the local model; else a folder or a hub name such as Qwen/Qwen3-0.6B."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a GPU if there is one."""
    bits: Literal[4, 8] | None = None
    """Keep the inner matrices of the base in 8 or 4 bits; needs the extra "quantized". None: fp32 on a CPU, bf16 on a
    GPU. Adapters and what is summed up are fp32 always."""
    lora_rank: int = 16
    """r; ours. alpha is twice as large."""
    checkpoint_every: int = 10
    """Updates between two checkpoints; ours. On pocket that is about a minute of work to lose, and writing takes
    hundredths of a second."""
    log: LogKind = "tensorboard"
    """Where metrics go besides metrics.jsonl. "wandb" and "trackio" need the extras of these names."""
    data: DataConfig = field(default_factory=DataConfig)
    peers: PeersConfig = field(default_factory=PeersConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    coars: CoarsConfig = field(default_factory=CoarsConfig)
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise ConfigError(
                "Checkpoints are counted in updates. Expected checkpoint_every >= 1, found "
                f"{self.checkpoint_every}. Pass a whole number from 1 on."
            )


def open_split(data: DataConfig) -> Split:
    return load_split(data.dataset, data.split, source=data.source, data_dir=data.data_dir)


def open_backbone(config: TrainConfig, split: Split, processes: ProcessGroup = SINGLE_PROCESS) -> Backbone:
    """The base that a configuration names, on its device; or, to be sharded, on the CPU.

    Raises:
        ConfigError: there is no such device, or a base of 8 or 4 bits is to be sharded.
        BackboneError: see `agents.models.backbones.load`.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "A device must be there. Expected a GPU that torch can use for device cuda, found none. Pass --device cpu, "
            "or install a torch that fits the GPU."
        )
    if processes.sharded and config.bits is not None:
        raise ConfigError(
            f"A base is shared out in whole numbers. Expected no bits with --use_fsdp, found {config.bits}. Leave "
            "--bits out, or launch with --multi_gpu."
        )
    device = device_of(config)
    if processes.sharded:
        return load(config.backbone, split, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    return load(config.backbone, split, device=device, bits=config.bits)


def device_of(config: TrainConfig) -> str:
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def new_policy(config: TrainConfig, split: Split, processes: ProcessGroup = SINGLE_PROCESS) -> Policy:
    """Base and untrained adapters, sharded where the process group says so. All processes call it together."""
    with processes.local_main_first():
        backbone = open_backbone(config, split, processes)
    policy = Policy(backbone, rank=config.lora_rank, alpha=2 * config.lora_rank, seed=config.coars.seed)
    if processes.sharded:
        shard(policy, device_of(config), processes)
    return policy


def run_training(
    config: TrainConfig,
    split: Split,
    policy: Policy,
    *,
    resume: bool = False,
    logger: Logger | None = None,
    console: Console | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Path:
    """Train and write the run folder. The configuration that is written names the peers that were used.

    Whenever it is stopped, the same call with `resume` goes on from the last checkpoint, and ends bit-equal to a run
    that was not stopped as long as machine, device and libraries are the same.

    Args:
        config: all settings; `out` is the folder.
        split: what `config.data` names.
        policy: base and untrained adapters, see `new_policy`.
        resume: go on with what the folder holds; without a checkpoint, begin.
        logger: is told the metrics, too; what `config.log` names by default.
        console: where the progress is shown.
        processes: the processes that train together. The main one writes and tells; what it finds in the folder, all
        go by.

    Raises:
        ConfigError: not to be resumed, and the folder is not empty; or a server for a processes, see `open_server`.
        CheckpointError: the folder holds a damaged checkpoint or one of other settings, data or base, its metrics.jsonl
            ends before it, or another process is training there.
        TrainingError: see `train`; the message names the last good checkpoint.
        BackboneError: there is to be a server, and it cannot be used, see `Server.publish`.
    """
    folder, provenance = config.out, split.dataset.provenance
    config = replace(config, peers=settle(config.peers, split))
    with processes.local_main_first():
        build = builder(split, peers=peers_of(config.peers, split))
    optimizers, origin = new_optimizers(policy), Origin.of(config, provenance, policy)
    opening = open_server(config.server, policy, folder / ("served" + PART), processes)
    held = contextlib.ExitStack()

    def begin() -> tuple[Checkpoint, list[StepMetrics]]:
        if not resume:
            new_run_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(alone_in(folder))
        remove_leftovers(folder)
        if not (folder / CHECKPOINT).exists():
            return Checkpoint.of(policy, optimizers, 0, origin), []
        saved = Checkpoint.read(folder)
        saved.restore(policy, optimizers, origin)
        return saved, cut_metrics(folder, saved.step)

    def learn(on_step: Callable[[int, StepMetrics, Sequence[Transcript]], None], server: Server | None = None) -> None:
        try:
            train(
                policy,
                build,
                config.coars,
                reward=config.reward.build(),
                opinions=config.peers.opinions,
                optimizers=optimizers,
                first=len(rows),
                server=server,
                on_step=on_step,
                processes=processes,
            )
        except TrainingError as error:
            good = processes.broadcast_from_main(lambda: Checkpoint.read(folder).step)
            raise TrainingError(
                f"{error} Update {len(rows)} was not saved. The last good checkpoint, after {good} updates, is "
                f"{folder / CHECKPOINT}; `coars export` takes its adapters out."
            ) from error

    with held:
        start, rows = processes.broadcast_from_main(begin)
        if not processes.is_main:
            start.restore(policy, optimizers, origin)
            learn(lambda step, metrics, transcripts: rows.append(metrics))
            return folder
        logger = logger or open_logger(config.log, folder, origin.config, first=len(rows))
        if rows:
            note_resumption(folder, len(rows), processes=processes.world_size)
        else:
            write_config(folder, config, provenance, processes=processes.world_size)
            start.write(folder)
        progress = Progress(
            MofNCompleteColumn(), TimeRemainingColumn(compact=True), TextColumn("{task.fields[told]}"), console=console
        )
        with (
            contextlib.closing(logger),
            (folder / "metrics.jsonl").open("a" if rows else "w", encoding="utf-8") as file,
            progress,
            opening as server,
        ):
            bar = progress.add_task("training", total=config.coars.steps, completed=len(rows), told="")

            def on_step(step: int, metrics: StepMetrics, transcripts: Sequence[Transcript]) -> None:
                rows.append(metrics)
                file.write(json.dumps({"step": step, **metrics}) + "\n")
                file.flush()
                logger.log(step, metrics)
                progress.update(bar, advance=1, told=progress_text(rows))
                if len(rows) % config.checkpoint_every == 0 or len(rows) == config.coars.steps:
                    write_transcripts(folder / "transcripts" / "last_step.jsonl", transcripts)
                    stories = told_dialogues(transcripts[:8], split.dataset.items)
                    (folder / "dialogues.txt").write_text(stories, encoding="utf-8")
                    os.fsync(file.fileno())  # a checkpoint is never ahead of the record
                    Checkpoint.of(policy, optimizers, len(rows), origin).write(folder)

            try:
                learn(on_step, server)
            except (OSError, SafetensorError) as error:  # a disk that is full, or gone
                raise CheckpointError(
                    f"A run writes as it goes. Expected room for it in {folder}, found {error!r} after update "
                    f"{len(rows)}. What was saved is whole; make room, then: coars train --resume {folder}"
                ) from error
        draw_curves(
            rows, folder / "curves.png", title=f"CoARS on {provenance.source} data: {provenance.origin}, {split.name}"
        )
        save_adapters(policy, folder, adapter_cards(origin, split, rows))
        return folder


def open_server(
    config: ServerConfig, policy: Policy, folder: Path, processes: ProcessGroup
) -> contextlib.AbstractContextManager[Server | None]:
    """The server of a run, for a `with`; None where there is none.

    Raises:
        ConfigError: several processes are to share it, or the extra `server` is not installed.
    """
    if config.url is not None and processes.world_size > 1:
        raise ConfigError(
            f"A server writes for one process. Expected no server.url, found {config.url} and "
            f"{processes.world_size} processes. Train in one process, which the server plays the dialogues for."
        )
    return contextlib.nullcontext() if config.url is None else Server(policy, config, folder)


def read_metrics(folder: Path, step: int) -> list[StepMetrics]:
    """The metrics of the first `step` updates, as metrics.jsonl has them.

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
            f"The record of a run goes as far as its checkpoint. Expected the updates before {step} in {path}, found "
            f"{found}. Train again in a new folder."
        )
    return rows


def cut_metrics(folder: Path, step: int) -> list[StepMetrics]:
    """`read_metrics`; and what was written after these updates is cut off."""
    rows, path = read_metrics(folder, step), folder / "metrics.jsonl"
    if path.exists():
        os.truncate(path, sum(map(len, path.read_bytes().splitlines(keepends=True)[:step])))
    return rows


def progress_text(rows: Sequence[StepMetrics]) -> str:
    """Means over the last ten updates in one line, recommender before user, short enough for a terminal of 100 columns
    with the bar's own numbers.
    """
    recent = {key: float(np.nanmean([row.get(key, np.nan) for row in rows[-10:]])) for key in rows[-1]}
    parts = {
        "Hit@1": ("hit_final",),
        "reward": ("reward_recommender", "reward_user"),
        "entropy": ("rec_surprise", "user_surprise"),
        "KL": ("rec_kl", "user_kl"),
        "leak": ("target_named",),
    }
    told = [
        f"{label} " + " ".join(f"{recent[key]:.2f}" for key in keys)
        for label, keys in parts.items()
        if all(key in recent for key in keys)
    ]
    return ", ".join([*told, f"{recent['tokens_per_second']:.0f} tok/s"])


def run_config(folder: Path, *, finished: bool = True) -> TrainConfig:
    """The TrainConfig of a run.

    Raises:
        CheckpointError: no run of this version; or one that was to be finished, and is not.
    """
    saved = read_config(folder)
    if finished and not is_finished(folder):
        raise CheckpointError(
            f"A run folder holds adapters once the run is finished. Expected {folder / ADAPTERS_FOLDER}, found none. "
            f"Go on with it: coars train --resume {folder}"
        )
    try:
        data, peers, coars, reward = (saved.pop(name) for name in ("data", "peers", "coars", "reward"))
        server = saved.pop("server", {})  # runs from before there were any have none
        data["data_dir"] = data["data_dir"] and Path(data["data_dir"])
        return TrainConfig(
            **{**saved, "out": folder},
            data=DataConfig(**data),
            peers=PeersConfig(**peers),
            coars=CoarsConfig(**coars),
            reward=RewardConfig(**reward),
            server=ServerConfig(**server),
        )
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"A run is read by the version that wrote it. Expected the settings of this one in {folder}, found other "
            f"ones ({error}). Train again, or use that version."
        ) from error


def train_seeds(config: TrainConfig, split: Split, seeds: Sequence[int]) -> list[Path]:
    """A finished run of each seed, in the folders `config.out` and "-s" and the seed. See `train_once`."""
    name = config.out.name
    return [
        train_once(
            replace(config, out=config.out.with_name(f"{name}-s{seed}"), coars=replace(config.coars, seed=seed)), split
        )
        for seed in seeds
    ]


def train_once(config: TrainConfig, split: Split) -> Path:
    """The folder of a finished run of this configuration; trains where there is none, and goes on with one that was
    stopped.

    Raises:
        ConfigError: the folder holds a finished run of another configuration.
        CheckpointError: see `run_training`.
    """
    if not is_finished(config.out):
        return run_training(config, split, new_policy(config, split), resume=True)
    asked = replace(config, peers=settle(config.peers, split))
    if differing := differences(as_json(asked), as_json(run_config(config.out))):
        raise ConfigError(
            f"A finished run is kept. Expected {listed(differing, 0)} in {config.out}, found {listed(differing, 1)}. "
            "Name another folder, or remove it."
        )
    return config.out


def told_dialogues(transcripts: Sequence[Transcript], items: Sequence[Item]) -> str:
    """Dialogues as a person reads them, with the item truly taken."""
    stories = []
    for transcript in transcripts:
        said = dialogue_text(transcript.task, transcript.turns, items, USER)
        truth = items[transcript.task.target].title
        stories.append(f"{said}\nTruly taken next: {truth}. Ended: {transcript.ending}.\n")
    return "\n".join(stories)


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train both agents by CoARS and write a run folder, or go on with one."""

    resume: Path | None = None
    """Folder of a run that was stopped. It goes on under its own settings: beside this, only options that say where it
    runs and what it reports may be given (device, data.data-dir, log, checkpoint-every, server.*)."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def main(argv: Sequence[str]) -> None:
    """`coars train`."""
    command = read_command(argv)
    config, resume = command.config, command.resume is not None
    processes = ProcessGroup.launched(config.device)
    console = Console(quiet=not processes.is_main)
    if resume and is_finished(config.out):
        console.print(f"{config.out} is finished; now: coars evaluate --runs {config.out}")
        return
    with processes.local_main_first():
        split = open_split(config.data)
    policy = new_policy(config, split, processes)
    console.print(f"peers: {settle(config.peers, split).source}")
    folder = run_training(config, split, policy, resume=resume, console=console, processes=processes)
    console.print(f"run written to {folder}; now: coars evaluate --runs {folder}")
    processes.destroy()


def read_command(argv: Sequence[str]) -> TrainCommand:
    """The words after `coars train`. With --resume the settings of that run stand in the place of the defaults.

    Raises:
        CheckpointError: there is nothing to resume in that folder.
    """

    def parse(default: TrainCommand) -> TrainCommand:
        return tyro.cli(
            TrainCommand, prog="coars train", description=inspect.getdoc(TrainConfig), args=list(argv), default=default
        )

    command = parse(TrainCommand())
    if command.resume is None:
        return command
    saved = run_config(command.resume, finished=False)
    if not (is_finished(command.resume) or (command.resume / CHECKPOINT).exists()):
        raise CheckpointError(
            f"A run goes on from a checkpoint. Expected {command.resume / CHECKPOINT}, found none. Train again in a "
            "new folder."
        )
    command = parse(TrainCommand(resume=command.resume, config=saved))
    return replace(command, config=replace(command.config, out=saved.out))
