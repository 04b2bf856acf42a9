from types import SimpleNamespace
from typing import Any

import gymnasium
import pettingzoo
import pytest
from pettingzoo.test import max_cycles_test
from pettingzoo.utils import parallel_to_aec

from coars_env import (
    ENV_IDS,
    ROLES,
    AecEnv,
    CoarsEnv,
    ConfigError,
    MaskedEnv,
    NumericEnv,
    Rules,
    coars_v0,
    item_features,
    leave_last,
)
from coars_env.testing import toy_dataset, toy_instructed_episodes

SMALL: dict[str, Any] = {"users": 60, "items": 90, "interactions": 1500}


def test_the_module_has_what_pettingzoo_looks_for() -> None:
    parallel = coars_v0.parallel_env("synthetic", max_cycles=6, **SMALL)
    assert type(parallel) is NumericEnv
    assert parallel.env.max_turns == 3
    assert type(coars_v0.parallel_env("synthetic", view="masked", **SMALL)) is MaskedEnv
    assert type(coars_v0.parallel_env("synthetic", view="text", **SMALL)) is CoarsEnv
    turns = coars_v0.env("synthetic", max_cycles=6, **SMALL)
    assert isinstance(turns, AecEnv)
    assert isinstance(turns.env, NumericEnv)


@pytest.mark.parametrize("max_cycles", [0, 1, 7, -2, "8", 8.0])
def test_half_turns_come_in_pairs(max_cycles: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Expected an even max_cycles >= 2, found {max_cycles!r}\. Pass 2 T"):
        coars_v0.parallel_env("synthetic", max_cycles=max_cycles, **SMALL)


def test_turns_are_not_counted_twice() -> None:
    with pytest.raises(ConfigError, match=r"found 8 and max_turns\. Pass 2 T for T turns"):
        coars_v0.parallel_env("synthetic", max_turns=4, **SMALL)


@pytest.mark.parametrize("max_cycles", [2, 8])
def test_without_a_click_an_episode_has_that_many_half_turns(max_cycles: int) -> None:
    parallel = coars_v0.parallel_env("synthetic", max_cycles=max_cycles, **SMALL)
    parallel.reset(seed=0)
    steps = 0
    while parallel.agents:
        parallel.step(dict.fromkeys(ROLES, 0))
        steps += 1
    turns = coars_v0.env("synthetic", max_cycles=max_cycles, **SMALL)
    turns.reset(seed=0)
    counted = dict.fromkeys(ROLES, 0)
    for agent in turns.agent_iter():
        if not turns.terminations[agent]:
            counted[agent] += 1
        turns.step(None if turns.terminations[agent] else 0)
    assert steps == max_cycles
    assert list(counted.values()) == [max_cycles / 2] * 2


def test_pettingzoo_counts_the_cycles() -> None:
    """In its own conversion, where both sides pass an action in each half-turn. A click would end an episode early, so
    the random actions are seeded to be without one.
    """

    def parallel(max_cycles: int) -> Any:
        env = coars_v0.parallel_env("synthetic", max_cycles=max_cycles, **SMALL)
        for role in ROLES:
            env.action_space(role).seed(3)
        return env

    max_cycles_test(
        SimpleNamespace(parallel_env=parallel, env=lambda max_cycles: parallel_to_aec(parallel(max_cycles)))
    )


def test_episodes_with_instructions_are_made_by_both_names() -> None:
    features = item_features(leave_last(toy_dataset()))
    options = {"features": features, "rules": Rules(repeats="forbidden")}
    parallel = coars_v0.parallel_env(toy_instructed_episodes(), view="masked", **options)
    turns = coars_v0.env(toy_instructed_episodes(), view="text", rules=Rules(questions=False))
    assert parallel.action_space(ROLES[0]).n == 35  # type: ignore[attr-defined]
    assert "allowed" in parallel.env.observation_space(ROLES[0]).spaces  # type: ignore[attr-defined]
    assert "ask" not in turns.action_space(ROLES[0]).spaces  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(pettingzoo, "register"), reason="PettingZoo has registries from 1.27 on")
def test_pettingzoo_makes_episodes_with_instructions_by_id() -> None:
    env = pettingzoo.make("parallel", "coars/Synthetic-Text-v0", data=toy_instructed_episodes())
    assert env.reset(seed=0)[0][ROLES[1]]["kinds"] == "genre\ndecade"


def test_gymnasium_knows_the_ids() -> None:
    assert "coars/MovieLens-Recommender-v0" in ENV_IDS
    assert set(ENV_IDS) <= set(gymnasium.registry)


@pytest.mark.skipif(not hasattr(pettingzoo, "register"), reason="PettingZoo has registries from 1.27 on")
@pytest.mark.parametrize(("view", "kind"), [("Text", CoarsEnv), ("Numeric", NumericEnv), ("Masked", MaskedEnv)])
def test_pettingzoo_knows_the_ids(view: str, kind: type) -> None:
    parallel = pettingzoo.make("parallel", f"coars/Synthetic-{view}-v0", max_cycles=2, render_mode="ansi", **SMALL)
    assert type(parallel) is kind
    assert parallel.render_mode == "ansi"
    turns = pettingzoo.make("aec", f"coars/Synthetic-{view}", **SMALL)
    assert isinstance(turns, AecEnv)
    assert type(turns.env) is kind
    for label in coars_v0.DATASETS:
        for registered in ("parallel", "aec"):
            assert pettingzoo.spec(registered, f"coars/{label}-{view}-v0").kwargs["data"] == coars_v0.DATASETS[label]
