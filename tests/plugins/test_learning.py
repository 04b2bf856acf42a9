"""Other people's algorithms learn in the game: after a fixed budget each beats random on the same held-out episodes."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coars_env
from coars_env import Agent, FixedUser, RandomRecommender

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
