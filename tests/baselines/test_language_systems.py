"""Systems with a language model: what they are told, and (slow) how they are compared."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents.models.backbones import load
from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.language_model import Reply, Request
from agents.models.policy import Policy
from agents.models.prompts import ASK_RECOMMENDER, ASK_USER
from agents.players.text_agent import TextAgent
from agents.runs.config import run_config
from agents.training.coars import Coars as CoarsRecipe
from agents.training.learner import learners_of
from agents.training.recipe import Setting
from baselines.afl import Afl, Prior
from baselines.benchmark.compare import CompareConfig, compare
from baselines.benchmark.game import Game
from baselines.system import SYSTEMS, Resources, load_system
from baselines.trained_pair import TrainedPair
from baselines.zero_shot import ZeroShot
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    CheckpointError,
    ConfigError,
    Dialogue,
    FacetInstructions,
    Rules,
    Split,
    builder,
    freeze,
    history_of,
    load_split,
    play,
    sample_train_tasks,
    user_simulation,
    user_test,
)


class Obedient:
    """Takes what it was suggested, else the first of the list; as a user it rejects all. Keeps its prompts."""

    name, separator = "obedient", "\n-"

    def __init__(self) -> None:
        self.told: list[str] = []

    def answer(self, requests: Any) -> list[Reply]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Reply:
        text = "".join(piece for message in request.messages for piece in message)
        self.told.append(text)
        options = request.fields[1].options or ()
        if len(request.fields) == 3:
            return Reply(("no", "skip", "0.30"), None, "")
        suggested = [o.strip() for o in options if f"Another model suggests {o}." in text]
        return Reply(("so", suggested[0] if suggested else options[0].strip()), None, "")


class Numbered:
    """A sequential model by whose scores the item with the highest number is the best."""

    def scorer(self, history: Any, items: Any) -> Any:
        return np.asarray(items, dtype=np.float64) - 0.5


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=80, interactions=1200)


def afl(split: Split, model: Obedient) -> Afl:
    """As `Afl.fit` makes it, with another prior."""
    memory: dict[tuple[int, ...], tuple[str, ...]] = {}
    prior = Prior(Numbered(), split.dataset.items)  # type: ignore[arg-type]
    return Afl(
        TextAgent(model, RECOMMENDER, split.dataset.items, notes=prior.pick),
        TextAgent(
            model,
            USER,
            split.dataset.items,
            notes=lambda o: (*prior.score(o), *memory.get(tuple(history_of(o)), ())),
        ),
        memory=memory,
    )


def test_afl_tells_the_pick_in_the_first_round_and_the_score_in_every_one(split: Split) -> None:
    model = Obedient()
    system = afl(split, model)
    (task,) = sample_train_tasks(builder(split), 1, np.random.default_rng(0), prefix="t")
    dialogue = Dialogue(task, split.dataset.items, max_turns=2)
    play([dialogue], system.recommender, system.user)
    best = max(task.candidates)
    assert [turn.proposal for turn in dialogue.turns] == [best, best]  # the conversation still holds the pick
    recommender, user = model.told[0], model.told[1]
    assert f"Another model suggests {split.dataset.items[best].title}.{ASK_RECOMMENDER}" in recommender
    assert f"Another model scores it {best - 0.5:.1f}; scores may be negative, and are hints.{ASK_USER}" in user
    assert model.told[2].count("Another model suggests") == 1
    assert model.told[3].count("Another model scores it") == 2


def test_the_user_of_afl_remembers_a_dialogue_that_was_played_before_its_test(split: Split) -> None:
    model = Obedient()
    system = afl(split, model)
    test = user_test(split)
    system.prepare_user_test(split, test, seed=0)
    assert set(system.memory) == {user.history for user in test.users if len(user.history) > 1}
    model.told.clear()
    user_simulation(system.user, test)
    remembered = [text.count("Before, you were recommended") for text in model.told]
    assert set(remembered) == {4}  # it rejected all of four rounds
    held_out = {user.history: user.positives[0] for user in test.users}
    for history, pieces in system.memory.items():
        assert f" {split.dataset.items[held_out[history]].title}" not in pieces


def test_zero_shot_plays_both_sides(split: Split) -> None:
    model = Obedient()
    system = ZeroShot.fit(split, resources=Resources(model))
    tasks = sample_train_tasks(builder(split), 2, np.random.default_rng(0), prefix="t")
    dialogues = [Dialogue(task, split.dataset.items, max_turns=2) for task in tasks]
    play(dialogues, system.recommender, system.user)
    assert [turn.proposal for turn in dialogues[1].turns] == [tasks[1].candidates[0]] * 2
    assert "suggests" not in "".join(model.told)


@pytest.fixture(scope="module")
def backbone(split: Split, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pocket")
    load_pocket(split, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=folder)
    (found,) = folder.iterdir()
    return str(found)


class Small(TrainedPair):
    recipe = CoarsRecipe(episodes_per_step=8, max_turns=2)


def test_a_trained_pair_is_what_it_was_when_it_was_saved(split: Split, backbone: str, tmp_path: Path) -> None:
    pair = Small.fit(split, seed=1, resources=Resources(backbone=backbone, updates=2))
    pair.save(tmp_path / "pair")
    again = Small.load(tmp_path / "pair", split)
    said = []
    for one in (pair, again):
        tasks = sample_train_tasks(builder(split), 4, np.random.default_rng(0), prefix="t")
        dialogues = [Dialogue(task, split.dataset.items) for task in tasks]
        play(dialogues, one.recommender, one.user)
        said.append([dialogue.turns for dialogue in dialogues])
    assert said[0] == said[1]
    assert again.history == pair.history
    assert len(pair.history["hit_first"]) == 2
    assert pair.recommender.usage.calls == sum(len(turns) for turns in said[0])
    (tmp_path / "pair" / "backbone.json").write_text('"pocket"')  # without the kinds of facets
    with pytest.raises(CheckpointError, match=r"backbone\.json"):
        Small.load(tmp_path / "pair", split)
    (tmp_path / "pair" / "history.json").unlink()
    with pytest.raises(CheckpointError, match=r"history\.json"):
        Small.load(tmp_path / "pair", split)


def test_a_pair_is_trained_in_the_game_that_is_played(split: Split, tmp_path: Path) -> None:
    wishes, rules = FacetInstructions(("genre", "decade"), most=1, noise=0.1), Rules(repeats="forbidden", answer="best")
    size = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8, kinds=wishes.kinds)
    load_pocket(split, size, cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()
    resources = Resources(
        backbone=str(backbone), updates=1, folder=tmp_path / "system", instructions=wishes, rules=rules
    )
    pair = Small.fit(split, seed=1, resources=resources)
    config = run_config(tmp_path / "system" / "run")
    assert (config.data.facets, config.recipe.rules) == (wishes, rules)
    pair.save(tmp_path / "pair")
    again = Small.load(tmp_path / "pair", split)
    tasks = freeze(builder(split, instructions=wishes), "test").tasks[:4]
    said = []
    for one in (pair, again):
        dialogues = [Dialogue(task, split.dataset.items, rules=rules) for task in tasks]
        play(dialogues, one.recommender, one.user)
        assert [dialogue.cause for dialogue in dialogues] == [None] * 4
        said.append([dialogue.turns for dialogue in dialogues])
    assert said[0] == said[1]


def test_every_trained_system_builds_what_can_be_trained(split: Split, backbone: str) -> None:
    """Its reward, the credit of its recommender if that learns, and how many dialogues play one task."""
    setting = Setting(policy=Policy(load(backbone, split)), split=split)
    found = {}
    for name in SYSTEMS:
        kind = load_system(name)
        if issubclass(kind, TrainedPair):
            training = kind.recipe.build(setting)
            learners = learners_of(setting.policy, training.players)
            reward: Any = training.reward
            paid = getattr(reward, "__name__", type(reward).__name__)
            credited = {type(one.credit.credit).__name__ if one.credit else None for one in learners.values()}
            found[name] = (paid, *credited, len(learners), training.optimisation.group_size)
    assert found == {
        "coars": ("CoarsReward", "ClippedLogRatio", 2, 1),
        "coars-no-distillation": ("CoarsReward", None, 2, 1),
        "coars-no-interaction": ("outcome_terms", "ClippedLogRatio", 2, 1),
        "coars-paper": ("CoarsReward", "ClippedLogRatio", 2, 1),
        "coars-recommender": ("CoarsReward", "ClippedLogRatio", 1, 1),
        "coars-user": ("CoarsReward", "ClippedLogRatio", 1, 1),
        "grpo": ("outcome_terms", None, 2, 8),
        "grpo-judge": ("Judge", None, 2, 8),
        "grpo-turn": ("turn_outcome_terms", None, 2, 8),
        "rejection_sampling": ("kept_terms", None, 2, 1),
        "supervised": ("kept_terms", None, 2, 1),
    }


@pytest.mark.slow
def test_one_table_holds_prompted_trained_and_plain_systems(split: Split, backbone: str, tmp_path: Path) -> None:
    config = CompareConfig(
        dataset="synthetic",
        systems=("zero_shot", "coars", "item_knn"),
        seeds=(0,),
        draws=2,
        backbone=backbone,
        updates=2,
        out=tmp_path / "out",
    )
    build = builder(split)
    draws = tuple(freeze(build, "test", draw=draw) for draw in range(2))
    console = Console(file=io.StringIO(), width=200)
    rows = compare(config, Game(split, "test", draws, backbone, 2), console=console).rows
    assert [row.notes for row in rows] == [(), (), ()]
    assert [set(row.user) for row in rows] == [{"1:1", "1:3", "1:9"}, {"1:1", "1:3", "1:9"}, set()]
    assert set(rows[1].user_differences) == {"1:1", "1:3", "1:9"}
    page = (config.out / "table.md").read_text()
    for part in ("F1 1:9", "minus zero_shot, 1:1", "tokens read", "curves.png", "cost.png"):
        assert part in page
    assert {path.name for path in config.out.glob("*.png")} == {"forest.png", "cost.png", "curves.png"}
    zero_shot, coars, knn = csv.DictReader(io.StringIO((config.out / "table.csv").read_text()))
    assert float(zero_shot["user_f1_1:1"]) >= 0
    assert float(coars["episode_tokens_written"]) > 0
    assert knn["user_f1_1:1"] == knn["episode_calls"] == ""


def test_an_endpoint_is_described_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.json"
    config = CompareConfig(dataset="synthetic", draws=1, api=file)
    for text, found in [
        ("{", "Expecting property name"),
        ('{"url": "http://localhost:1/v1"}', "model"),
        ("[]", "must"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"Expected settings of ApiConfig.*found .*{found}"):
            config.game()
    file.write_text('{"url": "http://localhost:1/v1", "model": "tiny"}')
    game = config.game()
    assert game.api == {"url": "http://localhost:1/v1", "model": "tiny"}
    assert game.settings(ROLES)["language model"].startswith("tiny at http://localhost:1/v1; trained: pocket")


def test_a_system_whose_training_was_stopped_goes_on_from_its_checkpoint(
    split: Split, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log ends the first training, as Ctrl-C would, after its first update; the second makes the other."""

    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("update 1 of 2"):
                raise KeyboardInterrupt

    log, stop = logging.getLogger("coars_env"), Stop()
    monkeypatch.setattr(log, "level", logging.INFO)
    resources = Resources(backbone=backbone, updates=2, folder=tmp_path / "system")
    log.addHandler(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            Small.fit(split, seed=1, resources=resources)
    finally:
        log.removeHandler(stop)
    again = Small.fit(split, seed=1, resources=resources)
    whole = Small.fit(split, seed=1, resources=Resources(backbone=backbone, updates=2))
    assert again.history["reward_user"] == whole.history["reward_user"]
    assert len(again.history["seconds"]) == 2
