import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    USER,
    Action,
    ActionError,
    Agent,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    Dialogue,
    FixedUser,
    MirroredStage,
    Observation,
    RandomRecommender,
    RewardTerms,
    Task,
    TaskBuilder,
    Transcript,
    Turn,
    constant_stage,
    freeze,
    play,
    rollout,
)
from coars_env.testing import ScriptedAgent, toy_episodes

TOY = toy_episodes()
PROPOSE = {"item": 0, "message": "This one."}
SKIP = {"action": 1, "strength": 0.3, "message": "No."}
CLICK = {"action": 3, "strength": 0.9, "message": "Yes."}


class RandomUser:
    """Answers by the toss of its dialogue's own generator, unreadable answers included."""

    def start(self, seeds: Any) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {
            n: {"action": int(self._rngs[n].integers(5)), "strength": self._rngs[n].random(), "message": f"ü {n % 1}"}
            for n in observations
        }


def played(recommender: Agent, user: Agent, **options: Any) -> list[Transcript]:
    return rollout(TOY.tasks, TOY.items, recommender, user, provenance=TOY.provenance, **options)


def test_a_rollout_by_hand() -> None:
    recommender = ScriptedAgent([{"item": 2, "message": "A"}, {"item": 0, "message": "B"}])
    transcripts = played(recommender, ScriptedAgent([SKIP, CLICK]), seed=5)
    assert [t.task.task_id for t in transcripts] == ["toy-0", "toy-1", "toy-2", "toy-3"]
    assert [[turn.proposal for turn in t.turns] for t in transcripts] == [[3, 5], [5, 2], [3, 0], [3, 0]]
    assert {(t.ending, t.seed, t.max_turns) for t in transcripts} == {("accepted", 5, 4)}
    assert recommender.seeds == [(5, 0, n, 1) for n in range(4)]
    assert recommender.observed[1][1]["replies"][0] == "No."


def test_each_side_is_asked_in_its_half_turn_only() -> None:
    recommender, user = ScriptedAgent([PROPOSE]), ScriptedAgent([SKIP])
    played(recommender, user, max_turns=3)
    for agent, speaker in ((recommender, 0), (user, 1)):
        for observed in agent.observed:
            assert [(o["speaker"], o["turn"]) for o in observed] == [(speaker, 0), (speaker, 1), (speaker, 2)]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_one_batch_of_eight_equals_eight_batches_of_one(batch_size: int) -> None:
    whole = played(RandomRecommender(), RandomUser(), seed=9, batch_size=8)
    parts = played(RandomRecommender(), RandomUser(), seed=9, batch_size=batch_size)
    assert [t.to_json() for t in parts] == [t.to_json() for t in whole]


def test_seeds_make_the_difference() -> None:
    def proposals(seed: int) -> list[list[int | None]]:
        return [[turn.proposal for turn in t.turns] for t in played(RandomRecommender(), FixedUser("skip"), seed=seed)]

    assert proposals(1) == proposals(1) != proposals(2)


def test_a_task_played_twice_is_two_attempts() -> None:
    dialogues = [Dialogue(TOY.tasks[0], TOY.items, max_turns=20) for _ in range(2)]
    play(dialogues, RandomRecommender(), FixedUser("skip"))
    assert dialogues[0].turns != dialogues[1].turns


def test_a_dialogue_goes_by_its_number_whatever_stands_beside_it() -> None:
    whole = [Dialogue(task, TOY.items) for task in TOY.tasks]
    play(whole, RandomRecommender(), RandomUser(), seed=3)
    parts = [Dialogue(TOY.tasks[n], TOY.items) for n in (1, 3)]
    play(parts, RandomRecommender(), RandomUser(), seed=3, numbers=(1, 3))
    assert [dialogue.turns for dialogue in parts] == [whole[1].turns, whole[3].turns]
    with pytest.raises(ConfigError, match=r"Every dialogue draws by its number\. Expected 2 numbers, found 1\."):
        play(parts, RandomRecommender(), RandomUser(), numbers=(1,))


def test_an_empty_rollout_is_empty() -> None:
    assert rollout([], TOY.items, RandomRecommender(), FixedUser(), provenance=TOY.provenance) == []


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_without_dialogues_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"A batch holds dialogues\. Expected batch_size >= 1, found {size}"):
        played(RandomRecommender(), FixedUser(), batch_size=size)


def test_dialogues_that_have_begun_are_played_on() -> None:
    dialogues = [Dialogue(task, TOY.items) for task in TOY.tasks]
    dialogues[1].act(PROPOSE)
    dialogues[2].act(PROPOSE)
    dialogues[2].act(CLICK)
    play(dialogues, ScriptedAgent([PROPOSE]), ScriptedAgent([SKIP, CLICK]))
    assert [len(dialogue.turns) for dialogue in dialogues] == [2, 2, 1, 2]
    assert {dialogue.ending for dialogue in dialogues} == {"accepted"}


class Oracle:
    """Knows what every user took next."""

    def start(self, seeds: Any) -> None:
        self._targets = {task.history: task.target for task in TOY}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: {"item": self.place(o), "message": ""} for n, o in observations.items()}

    def place(self, observation: Observation) -> int:
        history = tuple(item for item in observation["history"].tolist() if item >= 0)
        return observation["candidates"].tolist().index(self._targets[history])


def test_an_oracle_hits_every_target() -> None:
    transcripts = played(Oracle(), FixedUser())
    assert [t.final_item for t in transcripts] == [task.target for task in TOY]
    assert [CoarsReward()(t)[0].rewards[RECOMMENDER] for t in transcripts] == pytest.approx([4 / 3] * 4)


# Broken agents --------------------------------------------------------------------------------------------------------


def test_an_agent_that_raises_fails_its_dialogues_with_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    user = ScriptedAgent([SKIP, RuntimeError("out of memory")])
    with caplog.at_level(logging.ERROR, logger="coars_env"):
        transcripts = played(ScriptedAgent([PROPOSE]), user)
    assert {(t.ending, t.cause) for t in transcripts} == {("failed", "user_0: RuntimeError('out of memory')")}
    assert {len(t.turns) for t in transcripts} == {1}  # the finished turn is kept, the open one dropped
    assert [record.message for record in caplog.records] == ["user_0 raised in 4 dialogues"]
    assert "Traceback" in caplog.text
    for transcript in transcripts:
        assert Transcript.from_json(transcript.to_json()) == transcript
        assert len(CoarsReward()(transcript)) == 1


class AnswersSome:
    """Answers dialogue 0 well and the others in other ways."""

    def __init__(self, others: dict[int, Any]) -> None:
        self._others = others

    def start(self, seeds: Any) -> None:
        pass

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Any]:
        return {n: action for n, action in ({0: PROPOSE} | self._others).items() if n in observations}


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ({"item": 4, "message": ""}, "ActionError.*Expected 0..3 from recommender_0, found 4"),
        ({"item": -1, "message": ""}, "ActionError.*found -1"),
        ({"item": 0}, "ActionError.*An action is a dict with the keys of its space.*'message'"),
        ("item 0", "ActionError.*found .*item 0"),
        (None, "ActionError.*found None"),
    ],
)
def test_an_answer_outside_the_space_fails_its_own_dialogue_only(action: Any, cause: str) -> None:
    transcripts = played(AnswersSome({1: action, 2: PROPOSE, 3: PROPOSE}), FixedUser())
    assert [t.ending for t in transcripts] == ["accepted", "failed", "accepted", "accepted"]
    assert transcripts[1].turns == ()
    assert re.match(f"recommender_0: {cause}", transcripts[1].cause or "")


def test_a_missing_answer_fails_its_dialogue() -> None:
    transcripts = played(AnswersSome({2: PROPOSE}), FixedUser())
    assert [t.ending for t in transcripts] == ["accepted", "failed", "accepted", "failed"]


def test_an_agent_that_answers_nothing_at_all_fails_its_dialogues() -> None:
    class Empty(AnswersSome):
        def act(self, observations: Mapping[int, Observation]) -> Any:
            return None

    assert {t.ending for t in played(Empty({}), FixedUser())} == {"failed"}


def test_a_wrong_set_up_is_raised() -> None:
    with pytest.raises(ConfigError, match="no such adapter"):
        played(ScriptedAgent([ConfigError("no such adapter")]), FixedUser())


@pytest.mark.parametrize("paid", [float("nan"), float("inf"), None, "1"])
def test_a_reward_that_is_no_finite_number_is_not_paid(paid: Any) -> None:
    class Odd:
        def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
            return replace(CoarsReward().turn(task, turn, number, max_turns), rewards={RECOMMENDER: 0.0, USER: paid})

    dialogue = Dialogue(TOY.tasks[0], TOY.items, reward=Odd())
    dialogue.act(PROPOSE)
    with pytest.raises(
        ConfigError,
        match=r"Odd object.* returns reward user_0=.*, which is no finite number, in turn 1 of task 'toy",
    ):
        dialogue.reply(3, 1.0, "")
    assert (dialogue.speaker, dialogue.terms) == (USER, [])
    with pytest.raises(ConfigError, match="which is no finite number, in turn 1 of task 'toy-0'"):
        played(ScriptedAgent([PROPOSE]), FixedUser(), reward=Odd())


def test_a_reward_that_pays_a_pair_is_refused() -> None:
    class Pair:
        def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> Any:
            return 1.0, 1.0

    with pytest.raises(
        ConfigError, match=r"Pair object.* returns \(1\.0, 1\.0\) in place of RewardTerms in turn 1 of task 'toy-0'"
    ):
        played(ScriptedAgent([PROPOSE]), FixedUser(), reward=Pair())


def test_an_episode_set_is_a_list_of_tasks_to_a_rollout() -> None:
    agents = RandomRecommender(), FixedUser()
    told = [rollout(tasks, TOY.items, *agents, provenance=TOY.provenance, batch_size=3) for tasks in (TOY, TOY.tasks)]
    assert told[0] == told[1]
    assert len(told[0]) == 4


def test_a_seed_of_numpy_is_stored_as_a_number() -> None:
    (told,) = rollout(
        TOY.tasks[:1], TOY.items, RandomRecommender(), FixedUser(), provenance=TOY.provenance, seed=np.int64(3)
    )
    assert Transcript.from_json(told.to_json()) == told


def test_a_broken_reward_is_raised() -> None:
    reward = CoarsReward(stage=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        played(ScriptedAgent([PROPOSE]), FixedUser(), reward=reward)


# Rewards are recomputable ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reward",
    [
        CoarsReward(),
        CoarsReward(alpha=0.3, stage=constant_stage, invalid=-2.0),
        CoarsReward(stage=MirroredStage(0.7), exclude_positive_miss=frozenset({USER})),
    ],
)
def test_stored_dialogues_are_scored_as_the_environment_paid(reward: CoarsReward) -> None:
    env = CoarsEnv(TOY, reward=reward)
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(number)
    env.reset(seed=0)
    for _ in range(40):
        paid: list[dict[str, float]] = []
        excluded = []
        while env.agents:
            _, rewards, _, _, infos = env.step({a: env.action_space(a).sample() for a in env.agents})
            if "reward_terms" in infos[USER]:
                paid.append(rewards)
                excluded.append(infos[USER]["reward_terms"]["excluded"])
        terms = reward(Transcript.from_json(env.transcript.to_json()))
        assert json.dumps(paid) == json.dumps(
            [{RECOMMENDER: t.rewards[RECOMMENDER], USER: t.rewards[USER]} for t in terms]
        )
        assert excluded == [sorted(t.excluded) for t in terms]
        env.reset()


def test_a_rollout_earns_what_the_environment_pays_for_the_same_actions() -> None:
    reward = CoarsReward()
    for transcript in played(RandomRecommender(), RandomUser(), seed=2, reward=reward):
        env = CoarsEnv(TOY, reward=reward)
        env.reset(seed=2, options={"task_id": transcript.task.task_id})
        paid = []
        for turn in transcript.turns:
            place = 3 if turn.proposal is None else transcript.task.candidates.index(turn.proposal)
            answer = {
                "action": 4 if turn.answer.action is None else turn.answer.action,
                "strength": turn.answer.strength or 0.0,
                "message": turn.answer.message,
            }
            env.step({RECOMMENDER: {"item": place, "message": turn.rationale}, USER: answer})
            rewards = env.step({RECOMMENDER: PROPOSE, USER: answer})[1]
            paid.append((rewards[RECOMMENDER], rewards[USER]))
        assert env.transcript.to_json() == transcript.to_json()
        assert [(t.rewards[RECOMMENDER], t.rewards[USER]) for t in reward(transcript)] == paid


def test_another_reward_can_be_tried_on_old_dialogues() -> None:
    transcripts = played(ScriptedAgent([{"item": 0, "message": ""}]), FixedUser())
    flat = [CoarsReward(stage=constant_stage)(t)[0].rewards[RECOMMENDER] for t in transcripts]
    assert flat == [1.0, -1.0, -1.0, -1.0]  # place 0 is the target of toy-0 alone
    assert [CoarsReward()(t)[0].rewards[RECOMMENDER] for t in transcripts] == pytest.approx([4 / 3, *[-2 / 3] * 3])


def test_an_action_error_is_a_coars_error_of_its_own() -> None:
    dialogue = Dialogue(TOY.tasks[0], TOY.items)
    with pytest.raises(ActionError):
        dialogue.act({"item": 9, "message": ""})


# On real data ---------------------------------------------------------------------------------------------------------


def test_a_random_recommender_hits_one_in_twenty(ml100k_builder: TaskBuilder) -> None:
    episodes = freeze(ml100k_builder, "test")
    transcripts = rollout(
        episodes.tasks, episodes.items, RandomRecommender(), FixedUser(), provenance=episodes.provenance
    )
    hits = np.mean([t.final_item == t.task.target for t in transcripts])
    assert hits == pytest.approx(0.05, abs=0.0213)  # three standard errors of 943 tasks
