import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.utils import parallel_to_aec

from coars_env import (
    MAX_MESSAGE_LENGTH,
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    ActionError,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    Dialogue,
    EpisodeSet,
    Item,
    Rules,
    TaskError,
    Transcript,
    history_of,
    opinions_heard,
)
from coars_env.spaces import UnicodeText, as_member
from coars_env.testing import check_env, toy_episodes, toy_instructed_episodes

# toy-0: history 0 4, candidates 5 1 3, target 5 at place 0, peer similarities .5 -1 0
# of 5 one peer: level 2, after 2; of 1 three: level 1, after 2 and 4; level 0, after 4; level 0; of 3 nobody
NOBODY = [[-1, -1, -1]] * 3
OF_HEAT = [[1, 2, 4], [0, -1, 4], [0, -1, -1]]
OF_BRAZIL = [[2, -1, 2], *NOBODY[1:]]
TOY_0 = {"task_id": "toy-0"}
CLICK = {"action": 3, "strength": 0.9, "message": "Yes."}
SKIP = {"action": 1, "strength": 0.3, "message": "Not today."}

any_text = st.text(st.characters(), max_size=40)
positions, user_actions = st.integers(0, 3), st.integers(0, 4)
strengths = st.floats(0, 1, width=32)


def toy_env(**options: Any) -> CoarsEnv:
    return CoarsEnv(toy_episodes(), **options)


def propose(position: int, message: str = "This one.") -> dict[str, Action]:
    return {RECOMMENDER: {"item": position, "message": message}, USER: SKIP}


def answer(action: Action) -> dict[str, Action]:
    return {RECOMMENDER: {"item": 0, "message": ""}, USER: action}


def sampled(env: CoarsEnv) -> dict[str, Action]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


def seeded(env: CoarsEnv, seed: int) -> CoarsEnv:
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(seed + number)
    return env


def played(env: CoarsEnv, *, seed: int | None = None, options: dict[str, Any] | None = None) -> list[Any]:
    """Everything one episode of sampled actions returns."""
    said: list[Any] = [env.reset(seed=seed, options=options)]
    while env.agents:
        said.append(env.step(sampled(env)))
    return [*said, env.transcript.to_json()]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)


# The game -------------------------------------------------------------------------------------------------------------


def test_an_episode_by_hand() -> None:
    env = toy_env()
    observations, infos = env.reset(options=TOY_0)
    assert infos[RECOMMENDER] == {"task_id": "toy-0", "parse_error": None}
    assert observations[RECOMMENDER]["history"].tolist() == [-1] * 8 + [0, 4]
    assert observations[RECOMMENDER]["candidates"].tolist() == [5, 1, 3]

    observations, rewards, terminations, truncations, infos = env.step(propose(1, "You like crime."))
    assert rewards == {RECOMMENDER: 0.0, USER: 0.0}
    assert "reward_terms" not in infos[USER]
    assert (observations[USER]["speaker"], observations[USER]["turn"]) == (1, 0)
    assert observations[USER]["proposals"].tolist() == [1, -1, -1, -1]
    assert observations[USER]["rationales"] == ("You like crime.", "", "", "")

    observations, rewards, terminations, truncations, infos = env.step(answer(SKIP))
    # a miss in turn 1 of 4 with s = .3 and q = -1: D = 2/3, R_rec = -.65 D; v = -.4, R_user = .4 (1 - .04)
    assert rewards[RECOMMENDER] == pytest.approx(-0.65 * 2 / 3)
    assert rewards[USER] == pytest.approx(0.4 * 0.96)
    assert infos[USER]["reward_terms"]["excluded"] == []
    assert observations[RECOMMENDER]["actions"].tolist() == [1, -1, -1, -1]
    assert observations[RECOMMENDER]["strengths"].tolist() == pytest.approx([0.3, -1, -1, -1])
    assert observations[RECOMMENDER]["replies"] == ("Not today.", "", "", "")
    assert (observations[RECOMMENDER]["speaker"], observations[RECOMMENDER]["turn"]) == (0, 1)
    assert terminations == {RECOMMENDER: False, USER: False}

    env.step(propose(0))
    observations, rewards, terminations, truncations, infos = env.step(answer(CLICK))
    # a hit in turn 2 of 4 with s = .9 and q = .5: D = 10/9, R_rec = .95 D; v = .8, R_user = .8 (1 - .04)
    assert rewards[RECOMMENDER] == pytest.approx(0.95 * 10 / 9)
    assert rewards[USER] == pytest.approx(0.8 * 0.96)
    assert terminations == {RECOMMENDER: True, USER: True}
    assert truncations == {RECOMMENDER: False, USER: False}
    assert env.agents == []
    assert observations[USER]["turn"] == 2
    assert (env.transcript.ending, env.transcript.final_item) == ("accepted", 5)


def test_an_episode_ends_after_the_last_turn() -> None:
    env = toy_env(max_turns=2)
    env.reset(options=TOY_0)
    for _ in range(2):
        assert env.agents == list(ROLES)
        env.step(propose(0))
        terminations = env.step(answer(SKIP))[2]
    assert terminations == {RECOMMENDER: True, USER: True}
    assert (env.transcript.ending, len(env.transcript.turns)) == ("max_turns", 2)


def test_an_accepted_miss_ends_the_episode_and_is_kept_from_training() -> None:
    env = toy_env(reward=CoarsReward(exclude_positive_miss=frozenset(ROLES)))
    env.reset(options=TOY_0)
    env.step(propose(2))
    _, rewards, _, _, infos = env.step(answer(CLICK))
    assert infos[USER]["reward_terms"]["excluded"] == sorted(ROLES)
    assert rewards[RECOMMENDER] < 0
    assert rewards[USER] < 0
    assert (env.transcript.ending, env.transcript.final_item, env.agents) == ("accepted", 3, [])


def test_nothing_is_left_of_the_episode_before() -> None:
    env = toy_env()
    first = env.reset(options=TOY_0)
    env.step(propose(1, "Remember this."))
    env.step(answer(CLICK))
    assert same(env.reset(options=TOY_0), first)


def test_a_click_on_nothing_accepts_nothing() -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    env.step(propose(3))
    env.step(answer(CLICK))
    assert env.agents == list(ROLES)


def test_the_strength_is_moved_to_its_action() -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    env.step(propose(1))
    _, _, _, _, infos = env.step(answer({**SKIP, "strength": 1.0}))
    assert infos[USER]["reward_terms"]["factors"]["strength"] == 0.49


# What cannot be read --------------------------------------------------------------------------------------------------


def test_an_unread_proposal_is_a_turn_that_costs_the_recommender() -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    infos = env.step(propose(3, "The one with the boat."))[4]
    assert infos[RECOMMENDER]["parse_error"] == "the message names no candidate"
    assert infos[USER]["parse_error"] is None
    _, rewards, _, _, infos = env.step(answer(SKIP))
    assert rewards == {RECOMMENDER: -1.0, USER: 0.0}
    assert infos[RECOMMENDER]["reward_terms"]["excluded"] == [USER]
    turn = env.dialogue.turns[0] if env.dialogue else None
    assert turn is not None
    assert (turn.proposal, turn.rationale, turn.answer.action) == (None, "The one with the boat.", 1)


def test_an_unread_answer_is_a_turn_that_costs_the_user() -> None:
    env = toy_env(max_turns=1)
    env.reset(options=TOY_0)
    env.step(propose(0))
    _, rewards, terminations, _, infos = env.step(answer({**CLICK, "action": 4, "error": "two\nactions"}))
    assert rewards == {RECOMMENDER: 0.0, USER: -1.0}
    assert infos[USER]["parse_error"] == "two actions"
    assert infos[RECOMMENDER]["parse_error"] is None
    assert terminations[USER]
    turn = env.transcript.turns[0]
    assert (turn.answer.action, turn.answer.strength, turn.answer.error, env.transcript.ending) == (
        None,
        None,
        "two actions",
        "max_turns",
    )


@given(st.lists(st.tuples(positions, any_text, user_actions, strengths, any_text), min_size=4, max_size=4))
def test_any_string_is_a_legal_message(said: list[tuple[int, str, int, float, str]]) -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    for position, rationale, action, strength, reply in said:
        if env.agents:
            env.step(propose(position, rationale))
            env.step(answer({"action": action, "strength": strength, "message": reply}))
    assert Transcript.from_json(env.transcript.to_json()) == env.transcript
    clicks = [turn.proposal is not None and turn.answer.action == 3 for turn in env.transcript.turns]
    assert not any(clicks[:-1])
    assert (env.transcript.ending, len(clicks)) == ("accepted", len(clicks)) if clicks[-1] else ("max_turns", 4)


def test_the_longest_messages_and_titles_still_lie_in_the_space() -> None:
    items = tuple(Item(f"{'long ' * 50}{n}") for n in range(6))
    env = CoarsEnv(replace(toy_episodes(), items=items), max_turns=12)
    observations, _ = env.reset()
    while env.agents:
        observations = env.step({**propose(0, "x" * 9_999), USER: {**SKIP, "message": "\n" * 9_999}})[0]
        for agent in ROLES:
            assert env.observation_space(agent).contains(observations[agent])
    assert len(observations[USER]["replies"][11]) == MAX_MESSAGE_LENGTH


# What is refused ------------------------------------------------------------------------------------------------------

BAD_PROPOSALS: list[Any] = [
    *(None, "item 2", 2, [], {}, {"item": 0}, {"item": 0, "message": b"bytes"}, {"item": 0, "message": None}),
    *({"item": n, "message": ""} for n in (-1, 4, 2**70, 1.0, "1", None, np.float64(1), np.array([1]))),
    {"item": 0, "message": "", "title": ""},
]
BAD_ANSWERS: list[Any] = [
    *({"action": n, "strength": 0.5, "message": ""} for n in (-1, 5, 2.0, None)),
    *({"action": 1, "strength": s, "message": ""} for s in (-0.1, 1.1, float("nan"), None, "much", [0.5], 10**400, {})),
    {"action": 1, "message": ""},
]


@pytest.mark.parametrize("action", BAD_PROPOSALS, ids=repr)
def test_a_proposal_outside_its_space_changes_nothing(action: Any) -> None:
    env = toy_env(render_mode="ansi")
    env.reset(options=TOY_0)
    before = env.render()
    with pytest.raises(ActionError, match=r"An action must lie in its space\. Expected a member of Dict\("):
        env.step({RECOMMENDER: action, USER: SKIP})
    assert env.render() == before
    env.step(propose(0))


@pytest.mark.parametrize("action", BAD_ANSWERS, ids=lambda action: repr(action)[:60])
def test_an_answer_outside_its_space_changes_nothing(action: Any) -> None:
    env = toy_env(render_mode="ansi")
    env.reset(options=TOY_0)
    env.step(propose(0))
    before = env.render()
    with pytest.raises(ActionError, match=r"from user_0, found .* The episode is unchanged: pass another action\."):
        env.step(answer(action))
    assert env.render() == before
    env.step(answer(CLICK))


@pytest.mark.parametrize("actions", [None, {}, {RECOMMENDER: {"item": 0, "message": ""}}, [0, 1]])
def test_every_agent_must_act(actions: Any) -> None:
    env = toy_env()
    env.reset()
    with pytest.raises(
        ActionError, match=r"Every live agent acts in every step\. Expected a dict with actions of \['rec"
    ):
        env.step(actions)


def test_whatever_the_silent_side_sends_is_ignored() -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    env.step({RECOMMENDER: {"item": 0, "message": ""}, USER: None})  # type: ignore[dict-item]
    assert env.step({RECOMMENDER: "nonsense", USER: CLICK})[2][USER]  # type: ignore[dict-item]


@pytest.mark.parametrize("number", [np.int64(1), np.int32(1), np.array(1), np.uint8(1)])
def test_numpy_numbers_are_numbers(number: Any) -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    env.step(propose(number))
    env.step(answer({"action": number, "strength": np.float64(0.3), "message": "No."}))
    assert env.dialogue is not None
    assert (env.dialogue.turns[0].proposal, env.dialogue.turns[0].answer.action) == (1, 1)
    env.step(propose(0))
    env.step(answer({**CLICK, "strength": np.array(0.8, dtype=np.float32)}))
    assert Transcript.from_json(env.transcript.to_json()) == env.transcript
    assert env.transcript.turns[1].answer.strength == 0.8


@pytest.mark.parametrize("started", [False, True])
def test_an_episode_that_has_not_begun_or_has_ended_takes_no_action(started: bool) -> None:
    env = toy_env()
    if started:
        played(env)
    with pytest.raises(ActionError, match=r"An action needs a running episode\. Expected reset\(\) first"):
        env.step(propose(0))


def test_an_unknown_task_is_refused_and_the_episode_goes_on() -> None:
    env = toy_env()
    env.reset(seed=1, options=TOY_0)
    env.step(propose(0))
    with pytest.raises(TaskError, match=r"Expected one of 4 ids such as 'toy-0', found 'toy-7'"):
        env.reset(seed=9, options={"task_id": "toy-7"})
    assert env.step(answer(CLICK))[2][USER]
    assert (env.transcript.task.task_id, env.transcript.seed) == ("toy-0", 1)


def test_a_transcript_is_of_a_finished_episode() -> None:
    env = toy_env()
    with pytest.raises(TaskError, match=r"Expected one, found none\. Call reset\(\) and play"):
        env.transcript  # noqa: B018
    env.reset(options=TOY_0)
    with pytest.raises(TaskError, match=r"Expected one of task 'toy-0', found 0 finished turns of at most 4"):
        env.transcript  # noqa: B018


def test_an_environment_needs_tasks_of_one_size() -> None:
    episodes = toy_episodes()
    first, *others = episodes.tasks
    short = replace(first, candidates=(5, 1), peer_similarity=(), opinions=())
    with pytest.raises(TaskError, match=r"An environment needs tasks\. Expected at least one in 'toy/by-hand'"):
        CoarsEnv(replace(episodes, tasks=()))
    with pytest.raises(TaskError, match=r"equally many candidates\. Expected one number .* found \[2, 3\]"):
        CoarsEnv(replace(episodes, tasks=(short, *others)))
    with pytest.raises(ConfigError, match=r"A dialogue needs turns\. Expected max_turns >= 1, found 0"):
        CoarsEnv(episodes, max_turns=0)
    with pytest.raises(ConfigError, match=r"There are two ways to render\. .* found 'rgb_array'"):
        CoarsEnv(episodes, render_mode="rgb_array")


# The dialogue without the API -----------------------------------------------------------------------------------------


def toy_dialogue(**options: Any) -> Dialogue:
    episodes = toy_episodes()
    return Dialogue(episodes.tasks[0], episodes.items, **options)


def test_the_sides_of_a_dialogue_speak_in_turn() -> None:
    dialogue = toy_dialogue()
    with pytest.raises(ActionError, match=r"Expected the half-turn of user_0, found the half-turn of recommender_0"):
        dialogue.reply(3, 0.9, "")
    dialogue.recommend(0, "")
    with pytest.raises(ActionError, match=r"Expected the half-turn of recommender_0, found the half-turn of user_0"):
        dialogue.recommend(0, "")
    dialogue.reply(3, 0.9, "")
    for late in (lambda: dialogue.recommend(0, ""), lambda: dialogue.fail("late")):
        with pytest.raises(ActionError, match=r"found an episode that has ended \(accepted\)"):
            late()
    assert (len(dialogue.turns), dialogue.ending) == (1, "accepted")


@pytest.mark.parametrize("number", [-1, 4])
def test_a_dialogue_knows_no_candidate_from_the_end(number: int) -> None:
    dialogue = toy_dialogue()
    with pytest.raises(ActionError, match=rf"An action must lie in its space\. Expected 0\.\.3 .* found {number}"):
        dialogue.recommend(number, "")
    dialogue.recommend(0, "")
    with pytest.raises(ActionError, match=r"Expected 0\.\.4 from user_0"):
        dialogue.reply(5 if number == 4 else -1, 0.5, "")
    assert dialogue.speaker == USER


@pytest.mark.parametrize("action", [{}, None, {"item": 1.5, "message": ""}, {"item": "0", "message": ""}, "0"])
def test_a_dialogue_refuses_what_is_no_action(action: Any) -> None:
    dialogue = toy_dialogue()
    with pytest.raises(ActionError, match=r"An action is a dict with the keys of its space\. .* from recommender_0"):
        dialogue.act(action)
    assert dialogue.turns == []


def test_a_dialogue_refuses_a_strength_that_is_no_number() -> None:
    dialogue = toy_dialogue()
    dialogue.recommend(0, "")
    for strength in ("much", 10**400, [0.5, 0.6]):
        with pytest.raises(ActionError, match=r"An action is a dict with the keys of its space\. .* from user_0"):
            dialogue.act({"action": 1, "strength": strength, "message": ""})
    assert dialogue.speaker == USER


def test_a_missing_strength_is_the_middle_of_its_action() -> None:
    dialogue = toy_dialogue()
    dialogue.recommend(0, "")
    assert dialogue.reply(2, None, "").factors["strength"] == 0.62
    dialogue.recommend(0, "")
    terms = dialogue.act({"action": 1, "strength": float("nan"), "message": ""})
    assert terms is not None
    assert terms.factors["strength"] == 0.37


@pytest.mark.parametrize("half_turns", [0, 1, 2, 3])
def test_a_failed_dialogue_keeps_its_finished_turns(half_turns: int) -> None:
    dialogue = toy_dialogue()
    for half in range(half_turns):
        dialogue.act(SKIP if half % 2 else {"item": 1, "message": "This?"})
        dialogue.observe(USER)
    dialogue.fail("user_0: broke\ndown")
    transcript = dialogue.transcript(toy_episodes().provenance)
    assert (transcript.ending, transcript.cause) == ("failed", "user_0: broke down")
    assert len(transcript.turns) == half_turns // 2
    assert dialogue.observe(USER)["proposals"].tolist() == [1] * (half_turns // 2) + [-1] * (4 - half_turns // 2)
    assert dialogue.observe(USER)["text"].count("proposes") == half_turns // 2
    assert CoarsReward()(transcript) == dialogue.terms


def test_observations_may_be_changed_by_whom_they_were_given_to() -> None:
    dialogue = toy_dialogue()
    spoiled = dialogue.observe(RECOMMENDER)
    for key in ("history", "candidates", "proposals", "actions", "strengths"):
        spoiled[key][:] = 0
    assert dialogue.observe(RECOMMENDER)["candidates"].tolist() == [5, 1, 3]
    assert dialogue.observe(RECOMMENDER)["history"].tolist()[-2:] == [0, 4]


# What each side may know ----------------------------------------------------------------------------------------------


def test_the_user_is_never_shown_the_list() -> None:
    for seed in range(20):
        env = seeded(toy_env(), seed)
        observations, _ = env.reset(seed=seed)
        assert env.dialogue is not None
        titles = {env.episodes.items[i].title for i in env.dialogue.task.candidates}
        while env.agents:
            shown = observations[USER]
            assert (shown["candidates"] == -1).all()
            proposed = {env.episodes.items[i].title for i in shown["proposals"] if i >= 0}
            assert {title for title in titles if title in shown["text"]} == proposed
            observations = env.step(sampled(env))[0]


def test_the_user_alone_hears_what_peers_say_and_of_proposals_alone() -> None:
    env = toy_env(max_turns=4)
    observations, _ = env.reset(options=TOY_0)
    told: list[list[list[int]]] = [NOBODY] * 4
    for turn, (position, said) in enumerate(((1, OF_HEAT), (2, NOBODY), (3, NOBODY), (0, OF_BRAZIL))):
        assert observations[USER]["opinions"].tolist() == told  # of this turn nothing is told yet
        told = [*told[:turn], said, *told[turn + 1 :]]
        for action in (propose(position), answer(SKIP)):
            observations, *_ = env.step(action)
            assert observations[USER]["opinions"].tolist() == told
            assert observations[RECOMMENDER]["opinions"].tolist() == [NOBODY] * 4
            assert "Peers" not in observations[RECOMMENDER]["text"]
    peers = [line for line in observations[USER]["text"].splitlines() if "Peers" in line]
    assert peers == [
        "Turn 1. Peers: one somewhat like you took it after Alien (1979) and Fargo (1996); one little like you took it "
        "after Fargo (1996); one little like you took it.",
        "Turn 4. Peers: one much like you took it after Alien (1979).",
    ]
    assert opinions_heard(observations[USER], 0) == ((1, (2, 4)), (0, (4,)), (0, ()))
    assert opinions_heard(observations[USER], 1) == opinions_heard(observations[RECOMMENDER], 0) == ()
    observations[USER]["opinions"][:] = 5  # a copy
    assert env.dialogue is not None
    assert env.dialogue.observe(USER)["opinions"].tolist() == told


def test_a_dialogue_that_broke_off_tells_nothing_of_its_open_turn() -> None:
    dialogue = toy_dialogue()
    dialogue.observe(USER)
    dialogue.recommend(1, "")
    dialogue.fail("gone")
    assert dialogue.observe(USER)["opinions"].tolist() == [NOBODY] * 4
    assert "Peers" not in dialogue.observe(USER)["text"]


def test_the_target_is_never_singled_out() -> None:
    """With another target the recommender and the user see the same, whatever is said."""
    for target in (1, 3):
        envs = [toy_env(), CoarsEnv(with_target(target))]
        seen = []
        for env in envs:
            steps = [env.reset(options=TOY_0)[0], env.reset(options=TOY_0)[1]]
            for position in (2, 1, 0, 3):
                steps += [env.step(propose(position))[0], env.step(answer(SKIP))[0]]
            seen.append(steps)
        assert same(*seen)


def with_target(target: int) -> EpisodeSet:
    episodes = toy_episodes()
    first, *others = episodes.tasks
    return replace(episodes, tasks=(replace(first, target=target), *others))


def test_renaming_the_items_changes_nothing_but_numbers() -> None:
    names = [3, 5, 0, 1, 4, 2]  # item n of the toy becomes item names[n]
    episodes = toy_episodes()
    items = tuple(episodes.items[names.index(n)] for n in range(6))
    renamed = replace(
        episodes,
        items=items,
        tasks=tuple(
            replace(
                task,
                history=tuple(names[i] for i in task.history),
                candidates=tuple(names[i] for i in task.candidates),
                target=names[task.target],
                opinions=tuple(names[i] if n % 3 and i >= 0 else i for n, i in enumerate(task.opinions)),
            )
            for task in episodes
        ),
    )
    envs = [seeded(toy_env(), 3), seeded(CoarsEnv(renamed), 3)]
    for seed in range(20):
        first, second = (env.reset(seed=seed)[0] for env in envs)
        while envs[0].agents:
            assert [first[role]["text"] for role in ROLES] == [second[role]["text"] for role in ROLES]
            assert [names[i] if i >= 0 else -1 for i in first[USER]["proposals"]] == second[USER]["proposals"].tolist()
            (first, *others), (second, *same_others) = (env.step(sampled(env)) for env in envs)
            assert others == same_others


def test_ids_of_source_and_user_stay_hidden() -> None:
    env = toy_env()
    said = repr(env.reset(options=TOY_0)) + repr(env.step(propose(0))) + repr(env.step(answer(CLICK)))
    assert not any(hidden in said for hidden in ("ann", "bob", "cem", "dee", "target"))


# Spaces, seeds, copies ------------------------------------------------------------------------------------------------


def test_the_environment_keeps_what_every_view_promises() -> None:
    check_env(toy_env, episodes=20)


def test_both_sides_have_the_same_observation_space() -> None:
    env = toy_env()
    assert env.observation_space(USER) == env.observation_space(RECOMMENDER)
    assert repr(env.action_space(RECOMMENDER)) == "Dict('item': Discrete(4), 'message': UnicodeText(2048))"


def test_text_spaces_hold_any_text() -> None:
    space = UnicodeText(4)
    assert all(space.contains(text) for text in ("", "é 侍", "a\nb"))
    assert not any(space.contains(other) for other in ("12345", 5, None, b"a"))
    space.seed(0)
    assert space.sample(), space.contains(space.sample())
    assert pickle.loads(pickle.dumps(space)) == space


def test_every_observation_lies_in_its_space_and_every_sampled_action_is_accepted() -> None:
    env = seeded(toy_env(), 5)
    endings = set()
    for _ in range(60):
        observations, _ = env.reset()
        while env.agents:
            for agent in env.agents:
                assert env.observation_space(agent).contains(observations[agent])
                assert as_member(env.action_space(agent).sample(), env.action_space(agent)) is not None
            observations, rewards, terminations, truncations, infos = env.step(sampled(env))
            for returned in (observations, rewards, terminations, truncations, infos):
                assert list(returned) == list(ROLES)
            assert {type(reward) for reward in rewards.values()} == {float}
            assert {type(flag) for flag in (*terminations.values(), *truncations.values())} == {bool}
        assert all(env.observation_space(agent).contains(observations[agent]) for agent in ROLES)
        endings.add(env.transcript.ending)
    assert endings == {"accepted", "max_turns"}


def test_an_unseeded_reset_goes_on_with_the_stream() -> None:
    env = toy_env()
    env.reset(seed=11)
    tasks = [env.reset()[1][USER]["task_id"] for _ in range(40)]
    assert len(set(tasks)) == 4
    env.reset(seed=11, options=TOY_0)  # a named task does not move the stream
    assert [env.reset()[1][USER]["task_id"] for _ in range(40)] == tasks


def test_each_attempt_has_a_seed_of_its_own() -> None:
    env = seeded(toy_env(), 0)
    played(env, seed=5)
    seeds = [env.transcript.seed]
    for _ in range(3):
        played(env, options=TOY_0)
        seeds.append(env.transcript.seed)
    assert seeds[0] == 5
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("copy", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("half_turns", [0, 1, 2])
def test_an_environment_can_be_copied_in_the_middle_of_an_episode(copy: Any, half_turns: int) -> None:
    env = seeded(toy_env(), 4)
    env.reset(seed=8, options=TOY_0)
    for _ in range(half_turns):
        env.step(propose(1) if half_turns == 1 else {**propose(1), USER: SKIP})
    twin = copy.loads(copy.dumps(env))
    for _ in range(2):
        while env.agents:
            assert same(env.step(sampled(env)), twin.step(sampled(twin)))
        assert env.transcript == twin.transcript
        assert same(env.reset(), twin.reset())


EPISODES_IN_A_PROCESS = """
import numpy as np
import coars_env
env = coars_env.make("synthetic", users=60, items=90, interactions=1500, candidates="popularity")
for agent in env.possible_agents:
    env.action_space(agent).seed(1)
env.reset(seed=3)
for _ in range(30):
    while env.agents:
        said = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    print(ascii(env.transcript.to_json()), ascii(said[1]), ascii(said[4]))
    env.reset()
"""


def test_episodes_are_byte_equal_in_processes_of_different_hash_seeds() -> None:
    printed = set()
    for hash_seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", EPISODES_IN_A_PROCESS], capture_output=True, check=True, env=environment
        )
        printed.add(ran.stdout)
    assert len(printed) == 1
    assert printed.pop().count(b"\n") == 30


def test_nobody_touches_the_global_generator() -> None:
    before = repr(np.random.get_state())
    played(toy_env())
    assert repr(np.random.get_state()) == before


# Rendering and the tests of PettingZoo --------------------------------------------------------------------------------


def test_rendering_without_a_mode_warns_as_other_games_do() -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    with pytest.warns(UserWarning, match=r"You are calling render method without specifying any render mode\. Pass"):
        assert env.render() is None


def test_rendering_returns_or_prints_the_dialogue(capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("ansi", "human"):
        env = toy_env(render_mode=mode)
        assert env.render() is None
        env.reset(options=TOY_0)
        env.step(propose(1, "You like crime."))
        shown, printed = env.render(), capsys.readouterr().out
        assert (shown is not None) is (mode == "ansi")
        assert "proposes Heat (1995): You like crime.\nTurn 1. Peers: " in (shown or printed)
        env.close()


def asking_env() -> CoarsEnv:
    return CoarsEnv(toy_instructed_episodes(), rules=Rules(repeats="forbidden"))


GAMES = pytest.mark.parametrize("game", [toy_env, asking_env])


@GAMES
def test_pettingzoo_accepts_the_parallel_environment(game: Callable[[], CoarsEnv]) -> None:
    parallel_api_test(game(), num_cycles=500)


@GAMES
def test_pettingzoo_finds_the_seeds_in_order(game: Callable[[], CoarsEnv]) -> None:
    parallel_seed_test(game)


@GAMES
def test_pettingzoo_accepts_the_environment_in_turns(game: Callable[[], CoarsEnv]) -> None:
    with warnings.catch_warnings():
        for what in ("Observation is not", "Observation space for each", "Action space for each"):  # Box and Discrete
            warnings.filterwarnings("ignore", message=what)
        api_test(parallel_to_aec(game()), num_cycles=200)


def test_pettingzoo_finds_the_seeds_in_turns_in_order() -> None:
    make: Callable[[], Any] = lambda: parallel_to_aec(toy_env())  # noqa: E731
    seed_test(make, num_cycles=50)


# Fields and agents ----------------------------------------------------------------------------------------------------


def test_fields_are_recorded_and_never_observed() -> None:
    env = CoarsEnv(toy_episodes())
    env.reset(options=TOY_0)
    thought = {"thought": "They like\ncrime: zebra."}
    observations, *_ = env.step({**propose(0), RECOMMENDER: {**propose(0)[RECOMMENDER], "fields": thought}})
    seen = [observations]
    seen.append(env.step(answer({**CLICK, "fields": {"rating": "quagga"}}))[0])
    assert "zebra" not in repr(seen)
    assert "quagga" not in repr(seen)
    transcript = Transcript.from_json(env.transcript.to_json())
    (turn,) = transcript.turns
    assert turn.fields == {"thought": "They like crime: zebra."}
    assert turn.answers[0].fields == {"rating": "quagga"}
    assert hash(transcript) == hash(env.transcript)


@pytest.mark.parametrize("fields", ["thought", ["thought"], {"thought": 1}, {1: "thought"}])
def test_fields_that_are_no_texts_are_refused_and_change_nothing(fields: Any) -> None:
    env = CoarsEnv(toy_episodes())
    env.reset(options=TOY_0)
    with pytest.raises(ActionError, match=r"The fields of an action must be a mapping from labels to texts, got"):
        env.step({RECOMMENDER: {"item": 0, "message": "", "fields": fields}, USER: SKIP})
    assert env.dialogue is not None
    assert (env.dialogue.turns, env.dialogue.speaker) == ([], RECOMMENDER)
    with pytest.raises(ActionError, match=r"must be a mapping from labels to texts"):
        env.dialogue.act({"item": 0, "message": "", "fields": fields})
    env.dialogue.recommend(0, "")
    with pytest.raises(ActionError, match=r"must be a mapping from labels to texts"):
        env.dialogue.reply(1, 0.3, "", fields=fields)
    assert (len(env.dialogue.turns), env.dialogue.speaker) == (1, USER)


def test_a_history_is_read_without_its_padding() -> None:
    dialogue = Dialogue(toy_episodes()["toy-0"], toy_episodes().items)
    for role in ROLES:
        assert history_of(dialogue.observe(role)) == [0, 4]
