"""run_training: training by a recipe in a run folder, safe to stop at any moment."""

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError

from agents.models.backbones import Backbone, load
from agents.models.policy import Policy
from agents.players.served import Server, ServerConfig
from agents.runs.card import adapter_cards
from agents.runs.checkpoint import (
    CHECKPOINT,
    SERVED_FOLDER,
    Checkpoint,
    Origin,
    alone_in,
    differences,
    is_finished,
    listed,
    new_run_folder,
    note_resumption,
    remove_leftovers,
    save_adapters,
    write_config,
)
from agents.runs.config import AnyTrainConfig, as_json, run_config
from agents.runs.loggers import Logger, open_logger
from agents.runs.plots import draw_curves
from agents.runs.record import Recorder, cut_metrics
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.peers import peers_of, settle
from agents.training.recipe import Setting, Training, build_training
from agents.training.sharding import shard
from agents.training.train import OnStep, train
from agents.training.update import Optimizers, StepMetrics, new_optimizers
from coars_env import Agent, CheckpointError, ConfigError, Split, TrainingError, builder, import_object


def open_backbone(config: AnyTrainConfig, split: Split, processes: ProcessGroup = SINGLE_PROCESS) -> Backbone:
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
    kinds = config.data.instructions
    if processes.sharded:
        return load(config.backbone, split, kinds=kinds, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    return load(config.backbone, split, kinds=kinds, device=device, bits=config.bits)


def device_of(config: AnyTrainConfig) -> str:
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def new_policy(config: AnyTrainConfig, split: Split, processes: ProcessGroup = SINGLE_PROCESS) -> Policy:
    """Base and untrained adapters, sharded where the process group says so. All processes call it together."""
    with processes.local_main_first():
        backbone = open_backbone(config, split, processes)
    policy = Policy(backbone, rank=config.lora_rank, alpha=2 * config.lora_rank, seed=config.recipe.seed)
    if processes.sharded:
        shard(policy, device_of(config), processes)
    return policy


def load_partner(path: str, split: Split) -> Agent:
    """Load the partner that `TrainConfig.partner` names.

    Raises:
        ConfigError: it cannot be imported or made, or is no Agent.
    """
    found = import_object(path)
    if isinstance(found, type) or not isinstance(found, Agent):
        if not callable(found):
            raise ConfigError(f"{path} is {found!r:.100}, neither an Agent nor a function of the split that makes one.")
        required = [p for p in inspect.signature(found).parameters.values() if p.default is p.empty]
        found = found(split) if required else found()
    if not isinstance(found, Agent):
        raise ConfigError(f"{path} makes {found!r:.100}, which has no methods start and act. See coars_env.Agent.")
    return found


def setting_of(config: AnyTrainConfig, split: Split, policy: Policy, server: Server | None = None) -> Setting:
    """Make what the recipe of a run is given.

    Raises:
        ConfigError: the partner cannot be loaded.
    """
    partner = None if config.partner is None else load_partner(config.partner, split)
    return Setting(policy=policy, split=split, opinions=config.peers.opinions, server=server, partner=partner)


@dataclass(frozen=True)
class _Run:
    """One training in its folder: everything that does not change while it goes."""

    config: AnyTrainConfig
    split: Split
    policy: Policy
    training: Training
    processes: ProcessGroup
    origin: Origin
    optimizers: Optimizers
    rows: list[StepMetrics] = field(default_factory=list)
    """Metrics of the updates so far."""

    def begin(self, *, resume: bool, held: contextlib.ExitStack) -> Checkpoint:
        """Take the folder and return the checkpoint to begin with. The main process calls it."""
        folder = self.config.out
        if not resume:
            new_run_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(alone_in(folder))
        remove_leftovers(folder)
        if not (folder / CHECKPOINT).exists():
            return Checkpoint.of(self.policy, self.optimizers, 0, self.origin)
        saved = Checkpoint.read(folder)
        saved.restore(self.policy, self.optimizers, self.origin)
        return saved

    def learn(self, on_step: OnStep) -> None:
        """Train from the first update that is not made yet."""
        config, processes = self.config, self.processes
        with processes.local_main_first():
            tasks = builder(
                self.split,
                config.data.candidates,
                peers=peers_of(config.peers, self.split),
                instructions=config.data.facets,
            )
        try:
            train(
                self.policy,
                tasks,
                self.training.players,
                reward=self.training.reward,
                optimisation=self.training.optimisation,
                optimizers=self.optimizers,
                first=len(self.rows),
                on_step=on_step,
                processes=processes,
            )
        except TrainingError as error:
            good = processes.broadcast_from_main(lambda: Checkpoint.read(config.out).step)
            raise TrainingError(
                f"{error} Update {len(self.rows)} was not saved. The last good checkpoint, after {good} updates, is "
                f"{config.out / CHECKPOINT}; `coars export` takes its adapters out."
            ) from error


def run_training(
    config: AnyTrainConfig,
    split: Split,
    policy: Policy,
    *,
    resume: bool = False,
    logger: Logger | None = None,
    console: Console | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Path:
    """Train by the recipe of a configuration and write the run folder.

    Whenever it is stopped, the same call with `resume` goes on from the last checkpoint, and ends bit-equal to a run
    that was not stopped as long as machine, device and libraries are the same. The configuration that is written names
    the peers that were used.

    Args:
        config: all settings; `out` is the folder.
        split: what `config.data` names.
        policy: base and untrained adapters, see `new_policy`.
        resume: go on with what the folder holds; without a checkpoint, begin.
        logger: receives the metrics, too; what `config.log` names by default.
        console: where the progress is shown.
        processes: that train together. The main process alone writes.

    Raises:
        ConfigError: not to be resumed, and the folder is not empty; a server for several processes, see `open_server`;
            a partner that cannot be loaded; or a recipe that cannot be built.
        CheckpointError: the folder holds a damaged checkpoint or one of other settings, data or base, its metrics.jsonl
            ends before it, or another process is training there.
        TrainingError: see `train`; the message names the last good checkpoint.
        BackboneError: there is to be a server, and it cannot be used, see `Server.publish`.
    """
    folder, provenance = config.out, split.dataset.provenance
    config = replace(config, peers=settle(config.peers, split))
    opening = open_server(config.server, policy, folder / SERVED_FOLDER, processes)
    server = opening if isinstance(opening, Server) else None
    training = build_training(config.recipe, setting_of(config, split, policy, server))  # before anything is written
    origin = Origin(as_json(config), provenance.sha256, policy.base)
    run = _Run(config, split, policy, training, processes, origin, new_optimizers(policy))
    with contextlib.ExitStack() as held:
        start, rows = processes.broadcast_from_main(
            lambda: (found := run.begin(resume=resume, held=held), cut_metrics(folder, found.step))
        )
        run.rows.extend(rows)
        if not processes.is_main:
            start.restore(policy, run.optimizers, origin)
            run.learn(lambda step, metrics, transcripts: run.rows.append(metrics))
            return folder
        logger = logger or open_logger(config.log, folder, origin.config, first=len(rows))
        if rows:
            note_resumption(folder, len(rows), processes=processes.world_size)
        else:
            write_config(folder, origin.config, provenance, processes=processes.world_size)
            start.write(folder)
        recorder = Recorder(
            folder,
            run.rows,
            logger,
            steps=config.recipe.steps,
            every=config.checkpoint_every,
            items=split.dataset.items,
            policy=policy,
            optimizers=run.optimizers,
            origin=origin,
            console=console,
        )
        with recorder as record, opening:
            try:
                run.learn(record)
            except (OSError, SafetensorError) as error:  # a disk that is full, or gone
                raise CheckpointError(
                    f"{folder} could not be written after update {len(run.rows)}: {error!r}. What was saved is whole; "
                    f"make room, then: coars train --resume {folder}"
                ) from error
        recipe = type(config.recipe).__name__
        title = f"{recipe} on {provenance.source} data: {provenance.origin}, {split.name}"
        draw_curves(run.rows, folder / "curves.png", title=title)
        save_adapters(policy, folder, adapter_cards(origin, split, run.rows))
        return folder


def open_server(
    config: ServerConfig, policy: Policy, folder: Path, processes: ProcessGroup
) -> contextlib.AbstractContextManager[Server | None]:
    """Open the server of a run, for a `with`; None where there is none.

    Raises:
        ConfigError: several processes are to share it, or the extra `server` is not installed.
    """
    if config.url is not None and processes.world_size > 1:
        raise ConfigError(
            f"A server samples for one process, but {processes.world_size} processes train with {config.url}. Train in "
            "one process."
        )
    return contextlib.nullcontext() if config.url is None else Server(policy, config, folder)


def train_seeds(config: AnyTrainConfig, split: Split, seeds: Sequence[int]) -> list[Path]:
    """A finished run of each seed, in the folders `config.out` and "-s" and the seed. See `train_once`."""
    name = config.out.name
    return [
        train_once(replace(config.with_seed(seed), out=config.out.with_name(f"{name}-s{seed}")), split)
        for seed in seeds
    ]


def train_once(config: AnyTrainConfig, split: Split) -> Path:
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
