"""What a run writes down of its settings is read back as it was, for any recipe; and `coars train` finds them."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agents.runs.command import read_command, take_option
from agents.runs.config import AnyTrainConfig, DataConfig, TrainConfig, as_json, from_json, open_split, run_config
from agents.runs.run import load_partner
from agents.training.coars import Coars, RewardConfig
from agents.training.peers import PeersConfig
from agents.training.recipe import CoTraining, Setting, Training
from baselines.grpo import GrpoRecipe
from coars_env import CheckpointError, ConfigError, FixedUser, Split, kept_terms


@dataclass(frozen=True, kw_only=True)
class Inner:
    place: Path | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Own(CoTraining):
    """A recipe with nested settings."""

    inner: Inner = field(default_factory=Inner)

    def build(self, setting: Setting) -> Training:
        return Training(self.players(setting), kept_terms, self.optimisation())


def written(config: AnyTrainConfig, folder: Path) -> AnyTrainConfig:
    """As it comes back from a run folder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": as_json(config)}))
    return replace(run_config(folder, finished=False), out=config.out)


def test_settings_come_back_as_they_were(tmp_path: Path) -> None:
    coars = TrainConfig(
        recipe=Coars(steps=7, reward=RewardConfig(alpha=0.2, exclude_positive_miss=("user",))),
        peers=PeersConfig(opinions=False),
        partner="a:b",
    )
    assert written(coars, tmp_path / "a") == coars
    grpo = TrainConfig(recipe=GrpoRecipe(group_size=4))
    assert written(grpo, tmp_path / "b") == grpo
    assert from_json(Own, as_json(Own(inner=Inner(place=Path("x"), names=("a",))))) == Own(
        inner=Inner(place=Path("x"), names=("a",))
    )


def test_a_recipe_that_is_gone_is_named(tmp_path: Path) -> None:
    config: AnyTrainConfig = TrainConfig()
    body = as_json(config)
    body["recipe"]["class"] = "agents.training.coars:Gone"
    (tmp_path / "config.json").write_text(json.dumps({"config": body}))
    with pytest.raises(CheckpointError, match=r"cannot be made\. .*has no 'Gone'"):
        run_config(tmp_path, finished=False)


def test_the_options_are_those_of_the_recipe() -> None:
    assert read_command([]).config == TrainConfig()
    command = read_command(["--recipe", "baselines.grpo:GrpoRecipe", "--recipe.group-size", "4", "--out", "x"])
    assert command.config == TrainConfig(out=Path("x"), recipe=GrpoRecipe(group_size=4))
    words = ["--recipe.reward.exclude-positive-miss", "recommender", "user"]
    paper = RewardConfig(exclude_positive_miss=("recommender", "user"))
    assert read_command(words).config == TrainConfig(recipe=Coars(reward=paper))
    groups = read_command(["--num-users", "3"]).config
    assert groups == TrainConfig(data=DataConfig(num_users=3))
    nested = read_command(["--recipe.reward.alpha", "0.2", "--recipe.steps", "3"]).config
    assert nested == TrainConfig(recipe=Coars(steps=3, reward=RewardConfig(alpha=0.2)))


def test_an_option_is_taken_out_of_the_words() -> None:
    assert take_option(["--a", "1", "--recipe=x", "b"], "--recipe") == ("x", ["--a", "1", "b"])
    assert take_option(["--recipe", "x", "b"], "--recipe") == ("x", ["b"])
    assert take_option(["--recipe.steps", "3"], "--recipe") == (None, ["--recipe.steps", "3"])
    assert take_option(["--recipe"], "--recipe") == ("", [])


PARTNERS = """
from coars_env import FixedUser

ready = FixedUser()
nothing = 3


def of_split(split):
    return FixedUser(message=split.name)


def broken(split):
    return 3
"""


def test_a_partner_is_loaded_from_the_working_directory(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "partners_of_the_test.py").write_text(PARTNERS)
    monkeypatch.chdir(tmp_path)
    for name in ("ready", "of_split", "FixedUser"):
        assert isinstance(load_partner(f"partners_of_the_test:{name}", split), FixedUser)
    with pytest.raises(ConfigError, match="partners_of_the_test:nothing is 3, neither an Agent nor a function"):
        load_partner("partners_of_the_test:nothing", split)
    with pytest.raises(ConfigError, match="partners_of_the_test:broken makes 3, which has no methods start and act"):
        load_partner("partners_of_the_test:broken", split)
    with pytest.raises(ConfigError, match="'partners_of_the_test:gone' cannot be imported"):
        load_partner("partners_of_the_test:gone", split)


def test_kinds_that_the_data_lack_are_refused_before_a_base_is_built() -> None:
    with pytest.raises(ConfigError, match=r"kinds must be in the data, got 'colour' where the items have only 'genre'"):
        open_split(DataConfig(dataset="synthetic", instructions=("colour",)))
    with pytest.raises(ConfigError, match=r"noise must be a probability in \[0, 1\], got nan"):
        open_split(DataConfig(dataset="synthetic", instructions=("genre",), facet_noise=float("nan")))
