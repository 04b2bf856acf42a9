"""A run folder: the configuration, where it came from, and the adapters."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from agents.policy import Policy
from coars_env import CheckpointError, ConfigError, Provenance, surroundings

ADAPTERS_FOLDER = "adapters"


def new_run_folder(folder: Path) -> Path:
    """Create an empty folder for a run.

    Raises:
        ConfigError: there is something in it already; a finished run is never overwritten.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"A run is never overwritten. Expected an empty or new folder, found {folder} with files in it. "
            "Choose another --out, or remove it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_adapters(policy: Policy, folder: Path) -> None:
    """Both adapters in peft's format, all or nothing."""
    target = folder / ADAPTERS_FOLDER
    if target.exists():
        raise ConfigError(
            f"Adapters are written once. Expected none in {folder}, found {target}. Choose another folder."
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="adapters.part") as temporary:
        policy.save(Path(temporary) / ADAPTERS_FOLDER)
        (Path(temporary) / ADAPTERS_FOLDER).rename(target)


def write_config(folder: Path, config: object, provenance: Provenance) -> None:
    """config.json: a dataclass, the data it met, and its surroundings."""
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    body = {"config": dataclasses.asdict(config), "data": dataclasses.asdict(provenance), **surroundings()}
    (folder / "config.json").write_text(json.dumps(body, indent=2, default=str) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a finished run.

    Raises:
        CheckpointError: not the folder of a finished run.
    """
    try:
        body = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = body["config"]
        found = (folder / ADAPTERS_FOLDER).is_dir()
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"A run folder holds config.json and adapters. Expected them in {folder}, found {error!r}. "
            "Name the folder that `coars train` wrote."
        ) from error
    if not found:
        raise CheckpointError(
            f"A run folder holds adapters once the run is finished. Expected {folder / ADAPTERS_FOLDER}, found none. "
            "Run `coars train` to its end."
        )
    assert isinstance(config, dict)
    return config
