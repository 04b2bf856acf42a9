"""TrainConfig: all settings of a run, and how they are saved and read."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from agents.players.served import ServerConfig
from agents.runs.checkpoint import ADAPTERS_FOLDER, is_finished, read_config
from agents.runs.loggers import LogKind
from agents.training.coars import Coars
from agents.training.peers import PeersConfig
from agents.training.recipe import Recipe, find_recipe
from coars_env import (
    CandidateRule,
    CheckpointError,
    ConfigError,
    FacetInstructions,
    Source,
    Split,
    SplitName,
    hold_out_groups,
    load_split,
    with_likes,
)

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which users are trained on and which are held out."""

    dataset: str = "movielens"
    """Name of a dataset, see `coars_env.list_datasets`, or module:function of your own that returns a Dataset or a
    Split."""
    split: SplitName | None = None
    """"leave_last" holds out each user's last item, "random_holdout" one at random, "llara" a tenth of the users,
    "published" what the publisher does. None takes the one that fits the data, "leave_last" for MovieLens."""
    source: Source = "auto"
    """"auto" takes real data and, where none can be had, warns and plays a synthetic world; "real" fails instead."""
    data_dir: Path | None = None
    """Where the files are; else `COARS_DATA`, else the user cache, else the official archive."""
    candidates: CandidateRule = "uniform"
    """How the negatives of training tasks are drawn."""
    num_users: Annotated[int, tyro.conf.arg(prefix_name=False)] = 1
    """Users who decide together about an item that all took; 1 in the paper's game. One adapter plays them all."""
    instructions: Annotated[tuple[str, ...], tyro.conf.arg(prefix_name=False)] = ()
    """Kinds of facets that users want and the two sides can talk about, such as genre decade; none in the paper's
    game."""
    most_facets: Annotated[int, tyro.conf.arg(prefix_name=False)] = 2
    """Facets of an instruction at most."""
    facet_noise: Annotated[float, tyro.conf.arg(prefix_name=False)] = 0.0
    """Chance that a facet is drawn from another item than the target."""

    @property
    def facets(self) -> FacetInstructions | None:
        """What draws the instructions; None in the paper's game."""
        if not self.instructions:
            return None
        return FacetInstructions(self.instructions, most=self.most_facets, noise=self.facet_noise)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[R]):
    """Train by a recipe and write a run folder: config.json, metrics.jsonl, curves.png, transcripts, dialogues.txt,
    adapters/recommender and adapters/user, and a checkpoint from which a run that was stopped goes on.
    """

    out: Path = Path("runs/coars")
    """New folder for the run."""
    backbone: str = "pocket"
    """"pocket" builds the local model; else a folder, a hub name such as Qwen/Qwen3-0.6B, or module:function of your
    own that takes the split and returns a Backbone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a GPU if there is one."""
    bits: Literal[4, 8] | None = None
    """Keep the inner matrices of the base in 8 or 4 bits; needs the extra "quantized". None: fp32 on a CPU, bf16 on a
    GPU. Adapters and what is summed up are fp32 always."""
    lora_rank: int = 16
    """r (our choice). alpha is twice as large."""
    checkpoint_every: int = 10
    """Updates between two checkpoints (our choice). On pocket that is about a minute of work to lose, and writing takes
    hundredths of a second."""
    log: LogKind = "tensorboard"
    """Where metrics go besides metrics.jsonl. "wandb" and "trackio" need the extras of these names."""
    partner: str | None = None
    """module:name of an Agent, or of a function that takes the split and returns one. It plays the side that does not
    learn: --recipe.learners recommender or user."""
    data: DataConfig = field(default_factory=DataConfig)
    peers: PeersConfig = field(default_factory=PeersConfig)
    recipe: R = field(default_factory=Coars)  # type: ignore[assignment]
    """What is trained and how; its own settings."""
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise ConfigError(f"checkpoint_every must be at least 1, got {self.checkpoint_every}.")

    def with_seed(self, seed: int) -> "TrainConfig[R]":
        """Return the same settings under another seed."""
        return replace(self, recipe=with_settings(self.recipe, seed=seed))


AnyTrainConfig = TrainConfig[Any]


def with_settings(recipe: R, **settings: Any) -> R:
    """Return a recipe with some of its settings replaced."""
    changed: R = replace(recipe, **settings)  # type: ignore[type-var]
    return changed


def open_split(data: DataConfig) -> Split:
    """Load and divide the data that a configuration names, in groups where several users decide together; items know
    what they are like where users want that.

    Raises:
        ConfigError: the instructions are of kinds that the data lack.
    """
    split = load_split(data.dataset, data.split, source=data.source, data_dir=data.data_dir)
    split = split if data.num_users == 1 else hold_out_groups(split, data.num_users)
    split = with_likes(split) if "like" in data.instructions else split
    if data.facets is not None:
        data.facets.of(split.dataset.items)  # refuses kinds that the data lack before a base is built for them
    return split


def as_json(config: object) -> dict[str, Any]:
    """Return a dataclass as its file has it. A recipe is saved with the path of its class."""
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    body = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    assert isinstance(body, dict)
    if isinstance(config, TrainConfig):
        body["recipe"]["class"] = f"{type(config.recipe).__module__}:{type(config.recipe).__qualname__}"
    return body


def from_json(kind: type[Any], body: dict[str, Any]) -> Any:
    """Make a dataclass of what `as_json` wrote, nested ones included.

    Raises:
        TypeError, KeyError: fields are missing or unknown.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in body.items()})


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_json(hint, value)
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if Path in options and isinstance(value, str):
        return Path(value)
    return tuple(value) if isinstance(value, list) and typing.get_origin(hint) is tuple else value


def run_config(folder: Path, *, finished: bool = True) -> AnyTrainConfig:
    """Read the configuration of a run.

    Raises:
        CheckpointError: no run of this version; or one that was to be finished, and is not.
    """
    saved = read_config(folder)
    if finished and not is_finished(folder):
        raise CheckpointError(
            f"The run in {folder} is not finished: it has no {folder / ADAPTERS_FOLDER}. Go on with it: "
            f"coars train --resume {folder}"
        )
    try:
        recipe = saved.pop("recipe")
        made = from_json(find_recipe(recipe.pop("class")), recipe)
        config: AnyTrainConfig = from_json(TrainConfig, {**saved, "out": str(folder)})
        return replace(config, recipe=made)
    except ConfigError as error:  # the recipe is not found, or refuses its settings
        raise CheckpointError(f"The recipe of {folder} cannot be made. {error}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"The settings in {folder} do not fit the code ({error}): another version of it wrote them. Train again, "
            "or use that version."
        ) from error
