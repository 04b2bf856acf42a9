import pickle
import warnings
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import api_test, render_test, seed_test, state_test

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    AecEnv,
    CoarsEnv,
    MaskedEnv,
    NumericEnv,
    item_features,
    leave_last,
)
from coars_env.testing import toy_dataset, toy_episodes, toy_instructed_episodes

FEATURES = item_features(leave_last(toy_dataset()))


def text(**options: Any) -> AecEnv:
    return AecEnv(CoarsEnv(toy_episodes(), **options))


def numeric(**options: Any) -> AecEnv:
    return AecEnv(NumericEnv(CoarsEnv(toy_episodes(), **options), FEATURES))


def masked(**options: Any) -> AecEnv:
    return AecEnv(MaskedEnv(CoarsEnv(toy_episodes(), **options), FEATURES))


def asking_text() -> AecEnv:
    return AecEnv(CoarsEnv(toy_instructed_episodes()))


def asking_masked() -> AecEnv:
    return AecEnv(MaskedEnv(CoarsEnv(toy_instructed_episodes()), FEATURES))


VIEWS = pytest.mark.parametrize("view", [text, numeric, masked])
NUMBERS = pytest.mark.parametrize("view", [numeric, masked])


def test_only_the_side_whose_half_turn_it_is_acts() -> None:
    env = numeric()
    env.reset(options={"task_id": "toy-0"})
    said, paid = [], []
    for agent, act in zip(env.agent_iter(), [1, 6, 0, 18, None, None], strict=True):
        _, reward, termination, truncation, _ = env.last()
        said.append((agent, termination, truncation))
        paid.append(reward)
        env.step(act)
    assert said == [
        *((RECOMMENDER, False, False), (USER, False, False)) * 2,
        *((RECOMMENDER, True, False), (USER, True, False)),
    ]
    # the miss of turn 1, s = .3, q = -1; then the hit of turn 2, s = .9, q = .5: as in test_env
    miss, hit = (-0.65 * 2 / 3, 0.4 * 0.96), (0.95 * 10 / 9, 0.8 * 0.96)
    assert paid == pytest.approx([0, 0, miss[0], miss[1], hit[0], hit[1]])
    assert env.agents == []


@NUMBERS
@given(said=st.lists(st.integers(-1, 21), max_size=12))
def test_legal_and_illegal_play_stays_in_its_spaces(view: Any, said: list[int]) -> None:
    env = view()
    env.reset(seed=len(said))
    for act in said:
        agent = env.agent_selection
        if env.terminations[agent]:
            break
        if 0 <= act < 21:
            env.step(act)
        else:
            with pytest.raises(ActionError, match="The episode is unchanged"):
                env.step(act)
            assert env.agent_selection == agent
        assert all(env.observation_space(role).contains(env.observe(role)) for role in ROLES)
        assert env.state_space.contains(env.state())


def test_a_side_that_has_ended_says_nothing() -> None:
    env = numeric(max_turns=1)
    env.reset()
    env.step(0)
    env.step(0)
    with pytest.raises(ValueError, match="the only valid action is None"):
        env.step(0)


@VIEWS
@pytest.mark.parametrize("copy", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_an_environment_can_be_copied_in_the_middle_of_an_episode(view: Any, copy: Any) -> None:
    env = view()
    env.reset(seed=8)
    env.step(env.action_space(RECOMMENDER).sample())
    twin = copy.loads(copy.dumps(env))
    answer = env.action_space(USER).sample()
    for one in (env, twin):
        one.step(answer)
    assert env.rewards == twin.rewards
    assert env.agent_selection == twin.agent_selection
    assert env.env.dialogue.turns == twin.env.dialogue.turns


def test_without_a_running_episode_nobody_acts_or_is_told_anything() -> None:
    env = masked()
    for asking in (env.last, lambda: env.step(0), lambda: env.observe(USER)):
        with pytest.raises(ActionError, match=r"A half-turn needs a running episode\. Expected reset\(\) first"):
            asking()  # type: ignore[no-untyped-call]
    env.reset(seed=0)
    for agent in env.agent_iter():
        env.step(None if env.terminations[agent] else 0)
    for asking in (env.last, lambda: env.step(0)):
        with pytest.raises(ActionError, match="A half-turn needs a running episode"):
            asking()  # type: ignore[no-untyped-call]


def test_a_copy_in_words_has_no_state() -> None:
    env = text()
    env.reset()
    assert not hasattr(env, "state_space")
    with pytest.raises(NotImplementedError):
        env.state()


@pytest.mark.parametrize("view", [text, numeric, masked, asking_text, asking_masked])
def test_pettingzoo_accepts_the_environment(view: Any) -> None:
    with warnings.catch_warnings():
        for what in ("Observation is not", "Observation space for each", "Action space for each"):  # Box and Discrete
            warnings.filterwarnings("ignore", message=what)
        api_test(view(), num_cycles=200)
    seed_test(view, num_cycles=50)


@NUMBERS
def test_pettingzoo_accepts_the_state(view: Any) -> None:
    state_test(view(), view().env, num_cycles=30)


def test_a_question_is_asked_and_answered_in_turn_order() -> None:
    env = asking_masked()
    env.reset(options={"task_id": "toy-0"})
    acts = [3, 21, 0, 18]  # asks for the genre; a comedy; proposes; clicks
    for agent, act in zip(env.agent_iter(), acts, strict=False):
        observation, *_ = env.last()
        assert observation["action_mask"][act], agent
        assert not env.observe(RECOMMENDER if agent == USER else USER)["action_mask"][:-1].any()
        env.step(act)
    assert [turn.question for turn in env.env.transcript.turns] == ["genre", None]
    assert env.env.transcript.ending == "accepted"


@VIEWS
def test_pettingzoo_accepts_the_rendering(view: Any) -> None:
    render_test(view)


def test_spaces_and_states_are_those_of_the_parallel_environment() -> None:
    env = masked()
    env.reset(seed=0)
    for role in ROLES:
        assert env.observation_space(role) is env.env.observation_space(role)
        assert env.action_space(role) is env.env.action_space(role)
    assert np.array_equal(env.state(), env.observe(RECOMMENDER)["observation"])
