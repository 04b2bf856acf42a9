"""Other people's algorithms learn in the game: after a fixed budget each beats random on the same held-out episodes."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coars_env
from coars_env import Agent, ConfigError, FacetInstructions, FixedUser, RandomRecommender

pytestmark = [
    pytest.mark.plugins,
    pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version == 1.24.3"),
    pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase is deprecated"),
]

STACKS = [
    pytest.param("with_sb3", {"algorithm": "maskable", "steps": 4096}, id="MaskablePPO"),
    pytest.param("with_sb3", {"algorithm": "ppo", "steps": 4096}, id="PPO"),
    pytest.param("with_sb3", {"algorithm": "both", "steps": 16384}, id="PPO through SuperSuit"),
    pytest.param("with_torchrl", {"steps": 5120}, id="TorchRL"),
    pytest.param("with_tianshou", {"steps": 3200}, id="Tianshou"),
    pytest.param("with_cleanrl", {"steps": 16384}, id="CleanRL style"),
]


def measured(question: Any, recommender: Agent, user: Agent, metric: str) -> Any:
    return coars_env.metric_values(coars_env.evaluate(recommender, user, [question.test]))[metric]


@pytest.mark.parametrize(("module", "options"), STACKS)
def test_what_was_trained_beats_random(question: Any, module: str, options: dict[str, Any]) -> None:
    example = importlib.import_module(module)
    systems = list(example.learn(question, example.Config(progress=False, **options)).values())
    recommender, clicks = systems[0]
    hits = measured(question, recommender, clicks, "hit_final")
    by_chance = measured(question, RandomRecommender(), FixedUser(), "hit_final")
    assert coars_env.paired_difference(hits, by_chance).low > 0.3
    for _, user in systems[1:]:
        _, at_random = question.at_random()["random, random"]
        earned = measured(question, RandomRecommender(), user, "reward_user")
        by_chance = measured(question, RandomRecommender(), at_random, "reward_user")
        assert coars_env.paired_difference(earned, by_chance).low > 0.2


def test_an_example_prints_its_table() -> None:
    script = Path(importlib.import_module("with_cleanrl").__file__ or "")
    words = ["--dataset", "synthetic", "--steps", "512", "--no-progress"]
    ran = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "| random, clicks | 0." in ran.stdout
    assert "| PPO, PPO | 0." in ran.stdout


@pytest.fixture(scope="session")
def asking() -> Any:
    """A small world in which users want a genre and a decade."""
    from held_out import Question

    split = coars_env.load_split("synthetic", users=200, items=300, interactions=8000)
    instructions = FacetInstructions(("genre", "decade"))
    return Question(split, training_tasks=1000, candidates="popularity", instructions=instructions, question_cost=0.1)


def test_maskable_ppo_learns_to_ask_and_beats_who_never_asks(asking: Any) -> None:
    with_sb3 = importlib.import_module("with_sb3")
    ((agent, partner),) = with_sb3.learn(asking, with_sb3.Config(progress=False, steps=12288)).values()
    played, silent = (
        coars_env.metric_values(coars_env.evaluate(*pair, [asking.test], rules=asking.rules))
        for pair in ((agent, partner), asking.scripted()["never asks"])
    )
    assert played["questions"].mean() > 0.5
    assert silent["questions"].max() == 0
    assert coars_env.paired_difference(played["hit_best"], silent["hit_best"]).low > 0


def test_the_features_of_the_kernel_have_its_scores_as_products(asking: Any) -> None:
    held_out = importlib.import_module("held_out")
    features = held_out.kernel_features(asking.split)
    assert features.shape == (300, 65)
    assert np.abs(features).max() <= 1
    scorer, items = coars_env.kernel_scorer(asking.split), np.arange(300)
    scores = np.stack([scorer(np.array([item]), items) for item in items])
    off = ~np.eye(300, dtype=bool)  # an item never comes soon after itself
    products = (features[:, :-1] @ features[:, :-1].T)[off]
    assert np.corrcoef(products, ((scores + scores.T) / 2)[off])[0, 1] > 0.8


def test_both_sides_are_not_trained_where_users_want_something(asking: Any) -> None:
    with_sb3 = importlib.import_module("with_sb3")
    with pytest.raises(ConfigError, match="must be 'maskable' or 'ppo' with instructions"):
        with_sb3.learn(asking, with_sb3.Config(algorithm="both"))


def test_the_page_on_asking_is_printed(tmp_path: Path) -> None:
    script = Path(importlib.import_module("asking_table").__file__ or "")
    words = ["--dataset", "synthetic", "--candidates", "popularity", "--seeds", "0", "--draws", "1", "--steps", "512"]
    ran = subprocess.run(
        [sys.executable, str(script), *words, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (page,) = tmp_path.iterdir()
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert found["greedy"][0] == found["never asks"][0]
    assert found["never asks"][1] == ""
    assert float(found["asks"][3].split()[0]) > 0
    assert {"MaskablePPO", "MaskablePPO, user silent", "MaskablePPO, words of another task"} <= set(found)
