"""Train by a recipe and write a run folder, or go on with one; coars train."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from rich.console import Console

from agents.runs.checkpoint import CHECKPOINT, is_finished
from agents.runs.config import TrainConfig, open_split, run_config
from agents.runs.run import new_policy, run_training
from agents.training.coars import Coars
from agents.training.distributed import ProcessGroup
from agents.training.peers import settle
from agents.training.recipe import Recipe, find_recipe, recipe_names
from coars_env import CheckpointError, ConfigError

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True, kw_only=True)
class TrainCommand(Generic[R]):
    """Train and write a run folder, or go on with one."""

    resume: Path | None = None
    """Folder of a run that was stopped. It goes on under its own settings: beside this, only options that say where it
    runs and what it reports may be given (device, data.data-dir, log, checkpoint-every, server.*)."""
    config: Annotated[TrainConfig[R], tyro.conf.arg(name="")]


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


def read_command(argv: Sequence[str]) -> TrainCommand[Any]:
    """Read the words after `coars train`.

    `--recipe` says which options there are, so it is read first. With `--resume` the settings of that run are the
    defaults.

    Raises:
        ConfigError: no such recipe, or a recipe beside `--resume`.
        CheckpointError: there is nothing to resume in that folder.
    """
    name, words = take_option(argv, "--recipe")
    folder, _ = take_option(argv, "--resume")
    if folder is None:
        recipe = Coars() if name is None else find_recipe(name)()
        default = TrainCommand[Any](config=TrainConfig(recipe=recipe))
        return parse(type(recipe), words, default)
    saved = run_config(Path(folder), finished=False)
    if name is not None and find_recipe(name) is not type(saved.recipe):
        raise ConfigError(
            f"The run in {folder} keeps its recipe {type(saved.recipe).__name__}, but --recipe {name} was given. Leave "
            "it out."
        )
    if not (is_finished(Path(folder)) or (Path(folder) / CHECKPOINT).exists()):
        raise CheckpointError(
            f"There is nothing to resume: {Path(folder) / CHECKPOINT} does not exist. Train again in a new folder."
        )
    command = parse(type(saved.recipe), words, TrainCommand[Any](resume=Path(folder), config=saved))
    return replace(command, config=replace(command.config, out=saved.out))


def parse(recipe: type[Recipe], words: Sequence[str], default: TrainCommand[Any]) -> TrainCommand[Any]:
    """Read options; those of the recipe begin with `--recipe.`."""
    description = (
        f"{inspect.getdoc(TrainConfig)}\n\nThe options below are those of the recipe {recipe.__name__}: "
        f"{(inspect.getdoc(recipe) or '').partition(chr(10))[0]} Another one: --recipe NAME, one of "
        f"{', '.join(recipe_names())}, or module:Class."
    )
    kind: Any = TrainCommand[recipe]  # type: ignore[valid-type]
    found: TrainCommand[Any] = tyro.cli(
        kind, prog="coars train", description=description, args=list(words), default=default
    )
    return found


def take_option(words: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, None where it is not given, and the other words.

    >>> take_option(["--recipe", "grpo", "--out", "x"], "--recipe")
    ('grpo', ['--out', 'x'])
    """
    rest = list(words)
    for place, word in enumerate(rest):
        if word.startswith(f"{option}="):
            del rest[place]
            return word.partition("=")[2], rest
        if word == option:
            value = rest[place + 1 : place + 2]
            del rest[place : place + 2]
            return (value[0] if value else ""), rest
    return None, rest
