"""What a run leaves on disk: its configuration, the checkpoint it can go on from, and at its end the adapters.

Each appears under its name whole or not at all, however the run ends (`coars_env.atomic_path`). `remove_leftovers`
removes what a write that was cut off has left.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import AdamW

from agents.models.policy import ADAPTERS, Policy
from coars_env import (
    ROLES,
    CheckpointError,
    ConfigError,
    Provenance,
    Role,
    atomic_path,
    environment_info,
    write_atomically,
)

ADAPTERS_FOLDER = "adapters"
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
SERVED_FOLDER = "served.part"
"""Adapters for a server, as long as the run goes."""
FREE = (
    *("out", "device", "checkpoint_every", "log", "data.data_dir"),
    *("server.url", "server.concurrency", "server.timeout"),
)
"""Settings in which a run that goes on may differ: where it runs and what it reports, not what it computes."""


# --- the checkpoint ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """What a run is made of. A checkpoint goes on under the same alone."""

    config: dict[str, Any]
    """All settings, the seed among them, as JSON has them."""
    data: str
    """SHA-256 of catalogue and interactions, `Provenance.sha256`."""
    base: str
    """`fingerprint` of the base model, `Policy.base`."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after some updates: both adapters and the states of both optimizers.

    There is no state of a random generator in it: all chance of an update comes from its number and the seed, see
    `agents.training.train`.

    One file: tensors by name, such as `user/adapter/...lora_A...`, `user/exp_avg/...lora_A...`, and in its header, as
    JSON under "coars", everything else with a SHA-256 of all of it.
    """

    step: int
    """Updates made."""
    origin: Origin
    groups: dict[Role, list[dict[str, Any]]]
    """`param_groups` of each optimizer."""
    tensors: dict[str, Tensor]
    """On the CPU, wherever the policy is."""

    @classmethod
    def of(cls, policy: Policy, optimizers: Mapping[Role, AdamW], step: int, origin: Origin) -> "Checkpoint":
        """Copy both adapters and the states of their optimizers after `step` updates."""
        tensors: dict[str, Tensor] = {}
        groups = {}
        for role in ROLES:
            names = [name for name, _ in policy.named_parameters(role)]
            for name, parameter in policy.named_parameters(role):
                tensors[f"{ADAPTERS[role]}/adapter/{name}"] = parameter.detach().cpu()
            state = optimizers[role].state_dict()
            groups[role] = state["param_groups"]
            for number, moments in state["state"].items():  # nothing before the first update
                for key, tensor in moments.items():
                    tensors[f"{ADAPTERS[role]}/{key}/{names[number]}"] = tensor.cpu()
        return cls(step, origin, groups, tensors)

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Read the checkpoint of a run folder.

        Raises:
            CheckpointError: there is none, or a damaged one.
        """
        path = folder / CHECKPOINT
        try:
            with safe_open(path, "pt") as file:
                body = json.loads(file.metadata()["coars"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            digest = body.pop("sha256")
            if digest != _digest(body, tensors):
                raise ValueError("contents of another checksum")
            return cls(body["step"], Origin(**body["origin"]), body["groups"], tensors)
        except Exception as error:  # safetensors and json each have errors of their own
            raise CheckpointError(
                f"A run goes on from a whole checkpoint. Expected one in {path}, found {error!r}. Train again in a new "
                "folder."
            ) from error

    def write(self, folder: Path) -> None:
        """Take the place of the last checkpoint in one step, when all of it is on the disk.

        Raises:
            OSError, SafetensorError: it cannot be written, and the last checkpoint stays.
        """
        body: dict[str, Any] = {"step": self.step, "origin": dataclasses.asdict(self.origin), "groups": self.groups}
        body["sha256"] = _digest(body, self.tensors)
        with atomic_path(folder / CHECKPOINT) as part:
            save_file(self.tensors, part, metadata={"coars": json.dumps(body)})

    def restore(self, policy: Policy, optimizers: Mapping[Role, AdamW], origin: Origin) -> None:
        """Put a policy and its optimizers into the state of the checkpoint.

        Raises:
            CheckpointError: it is of a run of another origin, and nothing was changed.
        """
        self._check(origin)
        for role in ROLES:
            numbers = {name: number for number, (name, _) in enumerate(policy.named_parameters(role))}
            adapter = dict(policy.named_parameters(role))
            states: dict[int, dict[str, Tensor]] = {}
            for key, tensor in self.tensors.items():
                side, kind, name = key.split("/", 2)
                if side == ADAPTERS[role] and kind == "adapter":
                    adapter[name].data.copy_(tensor)
                elif side == ADAPTERS[role]:
                    states.setdefault(numbers[name], {})[kind] = tensor
            optimizers[role].load_state_dict({"state": states, "param_groups": self.groups[role]})

    def _check(self, origin: Origin) -> None:
        if differing := differences(self.origin.config, origin.config):
            raise CheckpointError(
                f"A run goes on under its own settings. Expected {listed(differing, 0)}, found {listed(differing, 1)}. "
                "Leave these settings out, or train in a new folder."
            )
        for what, mine, found in (
            ("data", self.origin.data, origin.data),
            ("base model", self.origin.base, origin.base),
        ):
            if mine != found:
                raise CheckpointError(
                    f"A run goes on with its own {what}. Expected digest {mine[:16]}, found {found[:16]}. Put the old "
                    f"{what} back, or train in a new folder."
                )


def _digest(body: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    h = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        h.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        h.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def differences(mine: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are not equal, by dotted name, without the free ones."""
    a, b = _flat(mine), _flat(found)
    names = sorted(name for name in a.keys() | b.keys() if name not in FREE)
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def listed(differing: Mapping[str, tuple[Any, Any]], side: int) -> str:
    """Write settings that differ in one line, with the values of one side."""
    return ", ".join(f"{name} {values[side]}" for name, values in differing.items())


# --- the folder -------------------------------------------------------------------------------------------------------


def new_run_folder(folder: Path) -> Path:
    """Create an empty folder for a run.

    Raises:
        ConfigError: there is something in it already; a run is never overwritten.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"A run is never overwritten. Expected an empty or new folder, found {folder} with files in it. "
            "Choose another --out, remove it, or go on with it by --resume."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no two processes train in it. What is killed holds nothing.

    Raises:
        CheckpointError: another process does.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"A run is trained by one command at a time. Expected nobody else in {folder}, found another process that "
            "is training there. Wait for it, or stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a run that was killed was writing, and what it had put down for a server."""
    patterns = [f".{name}.*/" for name in (CHECKPOINT, CONFIG, ADAPTERS_FOLDER)]
    for pattern in [*patterns, "transcripts/.last_step.jsonl.*/", f"{SERVED_FOLDER}/"]:
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def save_adapters(policy: Policy, folder: Path, cards: Mapping[str, str]) -> None:
    """Write both adapters in peft's format, with their cards by folder, all or nothing.

    Raises:
        ConfigError: there are adapters already.
    """
    target = folder / ADAPTERS_FOLDER
    if target.exists():
        raise ConfigError(
            f"Adapters are written once. Expected none in {folder}, found {target}. Choose another folder."
        )
    with atomic_path(target) as part:
        put_adapters(policy, part, cards)


def put_adapters(policy: Policy, folder: Path, cards: Mapping[str, str]) -> None:
    """Write what `save_adapters` does, straight into a folder."""
    policy.save(folder)
    for name, card in cards.items():  # in place of peft's, which are forms to be filled in
        (folder / name / "README.md").write_text(card, encoding="utf-8")


def write_config(folder: Path, config: Mapping[str, Any], provenance: Provenance, *, processes: int = 1) -> None:
    """Write config.json: the settings, the data, the environment, and how many processes train."""
    body = {"config": config, "data": dataclasses.asdict(provenance), "processes": processes, **environment_info()}
    _write_config_file(folder, body)


def note_resumption(folder: Path, step: int, *, processes: int = 1) -> None:
    """Add to config.json after which update a run went on, in how many processes, and in which environment_info."""
    body = _read_json(folder)
    body.setdefault("resumed", []).append({"step": step, "processes": processes, **environment_info()})
    _write_config_file(folder, body)


def _write_config_file(folder: Path, body: Mapping[str, Any]) -> None:
    write_atomically(folder / CONFIG, json.dumps(body, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a run, finished or not.

    Raises:
        CheckpointError: not the folder of a run.
    """
    config = _read_json(folder).get("config")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"A run folder names its settings. Expected them in {folder / CONFIG}, found none. Name the folder "
            "that `coars train` wrote."
        )
    return config


def is_finished(folder: Path) -> bool:
    """Find the adapters that a run writes last."""
    return (folder / ADAPTERS_FOLDER).is_dir()


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        body = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return dict(body)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"A run folder holds config.json. Expected it in {folder}, found {error!r}. Name the folder that "
            "`coars train` wrote."
        ) from error
