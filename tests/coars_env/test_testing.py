from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    USER,
    Action,
    CoarsReward,
    FixedUser,
    Observation,
    RandomRecommender,
    RewardTerms,
    Task,
    Turn,
    TurnArrays,
    leave_last,
    rollout,
)
from coars_env.datasets.dataset import FloatArray
from coars_env.testing import ScriptedAgent, check_agent, check_reward, toy_dataset, toy_episodes


def test_the_toy_dataset_is_as_drawn_in_its_docstring() -> None:
    dataset = toy_dataset()
    drawn = [line.split() for line in (toy_dataset.__doc__ or "").splitlines() if line.strip()[:1].isdigit()]
    assert [[str(user), *map(str, dataset.sequence(user))] for user in range(4)] == drawn
    train = [item for sequence in leave_last(dataset).train for item in sequence.items]
    assert " ".join(map(str, np.bincount(train, minlength=6))) in (toy_dataset.__doc__ or "")


def test_the_toy_episodes_follow_the_toy_dataset() -> None:
    split = leave_last(toy_dataset())
    for task, sequence in zip(toy_episodes(), split.test, strict=True):
        assert (task.user, *task.history, task.target) == (sequence.user, *sequence.items)
        assert set(task.candidates) & split.owned[task.user] == {task.target}


def test_a_scripted_agent_plays_its_list_and_repeats_the_last() -> None:
    toy = toy_episodes()
    agent = ScriptedAgent([{"item": 2, "message": "A"}, {"item": 1, "message": "B"}])
    (transcript,) = rollout(toy.tasks[:1], toy.items, agent, FixedUser("skip"), provenance=toy.provenance, seed=4)
    assert [turn.rationale for turn in transcript.turns] == ["A", "B", "B", "B"]
    assert [turn.proposal for turn in transcript.turns] == [3, 1, 1, 1]
    assert agent.seeds == [(4, 0, 0, 1)]
    assert [observation["turn"] for observation in agent.observed[0]] == [0, 1, 2, 3]


# Agents that keep the protocol pass; each kind of breach is found -----------------------------------------------------


class Recommender:
    """Proposes the first candidate; the cases below spoil one thing each."""

    def __init__(self) -> None:
        self.calls = 0

    def start(self, seeds: Any) -> None:
        self.size = len(seeds)
        self.rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.calls += 1
        return {n: self.propose(n, observation) for n, observation in observations.items()}

    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"{self.rngs[n].random()}"}


class Silent(Recommender):
    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: action for n, action in super().act(observations).items() if n != 2}


class Talkative(Recommender):
    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {9: {"item": 0, "message": ""}, **super().act(observations)}


class OutsideItsSpace(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 7, "message": ""}


class Scribbling(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        observation["candidates"][0] = 0
        return super().propose(n, observation)


class Forgetful(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"call {self.calls}"}


class Nosy(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": f"one of {self.size}"}


class Brittle(Recommender):
    def propose(self, n: int, observation: Observation) -> Action:
        return {"item": 0, "message": "".join(observation["replies"]).encode("ascii").decode()}


def test_agents_that_keep_the_protocol_pass() -> None:
    check_agent(Recommender(), RECOMMENDER)
    check_agent(RandomRecommender(), RECOMMENDER)
    check_agent(FixedUser("star", 0.6), USER)
    check_agent(ScriptedAgent([{"item": 3, "message": "", "error": "lost"}]), RECOMMENDER)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (Silent(), r"An agent answers where it is asked\. Expected dialogues \[0, 1, 2, 3\], found \[0, 1, 3\]"),
        (Talkative(), r"An agent answers where it is asked\. .*, found \[0, 1, 2, 3, 9\]"),
        (OutsideItsSpace(), r"An action must lie in its space\. Expected one of Dict\(.*, found \{'item': 7"),
        (Scribbling(), r"An agent must leave its observations alone"),
        (Forgetful(), r"Equal seeds must give equal dialogues\. Expected .*call 1.*, found .*call 5"),
        (Nosy(), r"A dialogue must go alike alone and in a batch\. Expected .*one of 4.*, found .*one of 1"),
        (Brittle(), r"An agent must not break\. Expected an action, found recommender_0: UnicodeEncodeError"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Recommender) else "",
)
def test_an_agent_that_breaks_the_protocol_is_found(agent: Recommender, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_agent(agent, RECOMMENDER)


class Changed(CoarsReward):
    """A reward with one defect in its terms."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        return replace(super().turn(task, turn, number, max_turns), **self.defect(turn))

    def defect(self, turn: Turn) -> dict[str, Any]:
        return {}


class Infinite(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"recommender": float("nan")}


class ExcludesStrangers(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"excluded": frozenset({"critic_0"})}


class Moody(Changed):
    def defect(self, turn: Turn) -> dict[str, Any]:
        return {"user": float(id(turn))}


class PaysOtherwiseAtOnce(CoarsReward):
    def batch(self, turns: TurnArrays, max_turns: int) -> tuple[FloatArray, FloatArray]:
        recommender, user = super().batch(turns, max_turns)
        return recommender, np.nextafter(user, 2)


def test_the_reward_of_the_paper_passes() -> None:
    check_reward(CoarsReward())
    check_reward(Changed())


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Infinite(), r"A reward is a finite number\. Expected one for Turn\(.*, found nan"),
        (ExcludesStrangers(), r"Only the two sides can be excluded\. .* found \{'critic_0'\}"),
        (Moody(), r"A reward depends on the turn alone\. Expected RewardTerms\("),
        (
            PaysOtherwiseAtOnce(),
            r"(?s)Turns must earn the same one by one and at once\. Expected \[.*\] for user_0, found",
        ),
    ],
)
def test_a_reward_that_breaks_its_promise_is_found(reward: CoarsReward, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reward(reward)
