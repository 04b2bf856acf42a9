import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test, state_test
from pettingzoo.utils import parallel_to_aec

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    AecEnv,
    CoarsEnv,
    CoarsReward,
    Facet,
    MaskedEnv,
    NumericAgent,
    NumericEnv,
    Rules,
    ShapeError,
    SingleAgentEnv,
    TaskError,
    facet_vocabulary,
    item_features,
    leave_last,
    rollout,
)
from coars_env.testing import ScriptedAgent, check_agent, check_env, toy_dataset, toy_episodes, toy_instructed_episodes
from coars_env.views.acts import Acts, question_open

FEATURES = item_features(leave_last(toy_dataset()))
KINDS = pytest.mark.parametrize("kind", [NumericEnv, MaskedEnv])
TOY_0 = {"task_id": "toy-0"}
WAIT = 20
acts = st.integers(0, WAIT)


def toy_env(kind: type[NumericEnv] = NumericEnv, **options: Any) -> NumericEnv:
    return kind(CoarsEnv(toy_episodes(), **options), FEATURES)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)


def both(act: Any) -> dict[str, Any]:
    return dict.fromkeys(ROLES, act)


# One game, many faces -------------------------------------------------------------------------------------------------


Game = Callable[[], CoarsEnv]
PLAIN: Game = lambda: CoarsEnv(toy_episodes())  # noqa: E731
FORBIDDING: Game = lambda: CoarsEnv(toy_episodes(), rules=Rules(repeats="forbidden"))  # noqa: E731
ASKING: Game = lambda: CoarsEnv(toy_instructed_episodes(), reward=CoarsReward(question_cost=0.25))  # noqa: E731
SILENT: Game = lambda: CoarsEnv(toy_instructed_episodes(), rules=Rules("unpaid", questions=False))  # noqa: E731
GAMES = {"plain": PLAIN, "forbidding": FORBIDDING, "asking": ASKING, "silent": SILENT}


def in_words(env: CoarsEnv, act: int) -> Any:
    """The act of the side whose half-turn it is, by what that side observes."""
    assert env.dialogue
    role = env.dialogue.speaker
    seen = env.dialogue.observe(role)
    facets = facet_vocabulary(env.episodes.items, env.episodes.kinds)
    return Acts(3, env.episodes.kinds, facets).to_action(act, role, question_open(seen, role))


def text_rewards(game: Game, seed: int, said: list[int]) -> tuple[list[float], str]:
    env = game()
    env.reset(seed=seed)
    rewards: list[float] = []
    for act in said:
        if env.agents:
            rewards += env.step(dict.fromkeys(ROLES, in_words(env, act)))[1].values()
    return rewards, env.transcript.to_json()


def numeric_rewards(env: NumericEnv, seed: int, said: list[int]) -> tuple[list[float], str]:
    env.reset(seed=seed)
    rewards: list[float] = []
    for act in said:
        if env.agents:
            rewards += env.step(both(act))[1].values()
    return rewards, env.transcript.to_json()


def rewards_in_turns(env: AecEnv, seed: int, said: list[int]) -> tuple[list[float], str]:
    env.reset(seed=seed)
    rewards: list[float] = []
    for act in said:
        if not any(env.terminations.values()):
            env.step(act)
            rewards += env.rewards.values()
    return rewards, env.env.transcript.to_json()


class Acting:
    """Plays a list of acts in one dialogue."""

    def __init__(self, acts: Acts, role: Any, said: list[int]) -> None:
        self.acts, self.role, self.said = acts, role, said

    def start(self, seeds: Any) -> None:
        self.left = iter(self.said)

    def act(self, observations: Any) -> Any:
        seen = observations[0]
        return {0: self.acts.to_action(next(self.left), self.role, question_open(seen, self.role))}


def rewards_of_one_side(game: Game, role: Any, seed: int, said: list[int]) -> tuple[list[float], str]:
    side = ROLES.index(role)
    numeric = NumericEnv(game(), FEATURES)
    partner = Acting(numeric.encoder.acts, ROLES[1 - side], said[1 - side :: 2])
    env = SingleAgentEnv(numeric, role, partner)
    env.reset(seed=seed)
    rewards, terminated = [], False
    for act in said[side::2]:
        if not terminated:
            _, reward, terminated, _, _ = env.step(act)
            rewards.append(reward)
    return rewards, env.env.transcript.to_json()


@pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))
@given(st.integers(0, 9), st.lists(st.one_of(acts, st.integers(0, 34)), min_size=8, max_size=8))
def test_all_views_are_faces_of_one_game(game: Game, seed: int, said: list[int]) -> None:
    wait = NumericEnv(game(), FEATURES).encoder.acts.wait
    said = [min(act, wait) for act in said]
    rewards, transcript = text_rewards(game, seed, said)
    for kind in (NumericEnv, MaskedEnv):
        assert numeric_rewards(kind(game(), FEATURES), seed, said) == (rewards, transcript)
        assert rewards_in_turns(AecEnv(kind(game(), FEATURES)), seed, said) == (rewards, transcript)
    for side, role in enumerate(ROLES):  # a reward in each turn, that is in every second half-turn
        assert rewards_of_one_side(game, role, seed, said) == (rewards[2 + side :: 4], transcript)


def test_rewards_are_those_of_the_transcript() -> None:
    env = toy_env(MaskedEnv)
    env.reset(options=TOY_0)
    paid = [env.step(both(act))[1] for act in (1, 6, 0, 17)]
    assert [reward[USER] for reward in paid[1::2]] == [terms.rewards[USER] for terms in CoarsReward()(env.transcript)]
    turn = env.transcript.turns[1]
    assert (turn.proposal, turn.answer.action, turn.answer.strength) == (5, 3, 0.85)
    assert (turn.rationale, turn.answer.message) == ("This may be for you.", "Yes, that one.")


# Acts -----------------------------------------------------------------------------------------------------------------


@KINDS
@given(said=st.lists(st.one_of(acts, st.integers(-3, 40)), min_size=1, max_size=12))
def test_legal_and_illegal_play_stays_in_its_spaces(kind: type[NumericEnv], said: list[int]) -> None:
    env = toy_env(kind)
    observations, _ = env.reset(seed=said[0] + 3)
    for act in said:
        if not env.agents:
            break
        if 0 <= act <= WAIT:
            observations, rewards, terminations, truncations, infos = env.step(both(act))
            for returned in (observations, rewards, terminations, truncations, infos):
                assert list(returned) == list(ROLES)
            assert all(infos[role]["task_id"].startswith("toy-") for role in ROLES)
            assert {type(reward) for reward in rewards.values()} == {float}
            assert {type(flag) for flag in (*terminations.values(), *truncations.values())} == {bool}
        else:
            before = env.state()
            with pytest.raises(ActionError, match=rf"Expected a member of Discrete\(21\) .* found {act}\."):
                env.step(both(act))
            assert np.array_equal(env.state(), before)
        assert all(env.observation_space(role).contains(observations[role]) for role in ROLES)
        assert env.state_space.contains(env.state())


@pytest.mark.parametrize("act", [None, "1", 1.0, np.array([1]), [1], {"item": 1, "message": ""}])
def test_what_is_no_number_is_refused_and_changes_nothing(act: Any) -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    with pytest.raises(ActionError, match=r"Expected a member of Discrete\(21\) from recommender_0, found"):
        env.step(both(act))
    assert env.dialogue is not None
    assert env.dialogue.turns == []


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array])
def test_numpy_numbers_are_acts(number: Any) -> None:
    env = toy_env()
    env.reset(options=TOY_0)
    env.step(both(number(1)))
    env.step(both(number(17)))
    assert (env.transcript.turns[0].proposal, env.transcript.turns[0].answer.action) == (1, 3)


@pytest.mark.parametrize("actions", [None, {}, {RECOMMENDER: 1}, [1, 1]])
def test_every_agent_must_act(actions: Any) -> None:
    env = toy_env()
    env.reset()
    with pytest.raises(ActionError, match=r"Every live agent acts in every step"):
        env.step(actions)


def test_an_episode_that_has_not_begun_or_has_ended_takes_no_action() -> None:
    env = toy_env()
    with pytest.raises(ActionError, match=r"An action needs a running episode"):
        env.step(both(0))
    with pytest.raises(TaskError, match=r"A state is of an episode"):
        env.state()
    env.reset(options=TOY_0)
    env.step(both(0))
    env.step(both(19))
    assert env.agents == []
    with pytest.raises(ActionError, match=r"An action needs a running episode"):
        env.step(both(0))


def test_infos_hold_what_fits_into_arrays() -> None:
    env = toy_env()
    assert env.reset(options=TOY_0)[1] == {RECOMMENDER: {}, USER: {}}
    infos = env.step({RECOMMENDER: 0, USER: WAIT})[4]
    assert infos == {role: {"task_id": "toy-0", "parse_error": ""} for role in ROLES}
    infos = env.step({RECOMMENDER: WAIT, USER: WAIT})[4]  # an answer that cannot be read excludes the proposal
    assert {role: infos[role]["reward_terms"]["excluded"] for role in ROLES} == {RECOMMENDER: True, USER: False}


@pytest.mark.parametrize("act", [3, WAIT])
def test_a_speaker_that_waits_or_means_nothing_has_said_nothing_readable(act: int) -> None:
    env = toy_env(max_turns=1)
    env.reset(options=TOY_0)
    infos = env.step({RECOMMENDER: act, USER: WAIT})[4]
    assert infos[RECOMMENDER]["parse_error"] == f"act {act} names no candidate"
    _, rewards, _, _, infos = env.step(both(WAIT))
    assert infos[USER]["parse_error"] == "act 20 is no answer"
    assert rewards == {RECOMMENDER: -1.0, USER: -1.0}


def test_masks_follow_the_half_turns() -> None:
    env = toy_env(MaskedEnv)
    observations, _ = env.reset(options=TOY_0)
    legal = [np.flatnonzero(observations[role]["action_mask"]).tolist() for role in ROLES]
    assert legal == [[0, 1, 2], [WAIT]]
    observations = env.step(both(1))[0]
    legal = [np.flatnonzero(observations[role]["action_mask"]).tolist() for role in ROLES]
    assert legal == [[WAIT], list(range(WAIT))]
    observations[USER]["action_mask"][:] = 0
    assert env.step(both(5))[0][RECOMMENDER]["action_mask"].sum() == 3
    assert env.encoder.acts.masks[:, :, 0].sum() == 3 + 20 + 2  # a change of what was handed out changes nothing


def test_masked_and_numeric_show_the_same() -> None:
    envs = toy_env(), toy_env(MaskedEnv)
    numeric, masked = (env.reset(seed=2)[0] for env in envs)
    for act in (0, 6, 1, 11):
        assert all(np.array_equal(numeric[role], masked[role]["observation"]) for role in ROLES)
        numeric, masked = (env.step(both(act))[0] for env in envs)


def test_the_state_is_what_the_recommender_sees() -> None:
    env = toy_env()
    observations, _ = env.reset(seed=1)
    assert np.array_equal(env.state(), observations[RECOMMENDER])
    assert env.state() is not env.state()


def test_features_must_fit_the_catalogue() -> None:
    with pytest.raises(ShapeError, match=r"Expected 6 rows, found 5\. Take them from the split"):
        NumericEnv(CoarsEnv(toy_episodes()), FEATURES[:5])


# Questions ------------------------------------------------------------------------------------------------------------


def test_a_dialogue_with_questions_in_acts_by_hand() -> None:
    # acts of K = 3, Q = 2, V = 13: 3 asks for the genre, 4 for the decade; 21 wants a comedy, 33 declines, 34 waits
    env = MaskedEnv(CoarsEnv(toy_instructed_episodes(), reward=CoarsReward(question_cost=0.25)), FEATURES)
    assert env.action_space(USER).n == 35
    observations, _ = env.reset(options=TOY_0)
    assert np.flatnonzero(observations[RECOMMENDER]["action_mask"]).tolist() == [0, 1, 2, 3, 4]
    observations = env.step({RECOMMENDER: 3, USER: 34})[0]
    assert np.flatnonzero(observations[USER]["action_mask"]).tolist() == list(range(20, 34))
    assert np.flatnonzero(observations[RECOMMENDER]["action_mask"]).tolist() == [34]
    observations, rewards, *_, infos = env.step({RECOMMENDER: 34, USER: 21})
    assert rewards == {RECOMMENDER: -0.25, USER: 0.0}
    assert infos[USER]["parse_error"] == ""
    env.step(both(4))
    assert env.step(both(33))[4][USER]["parse_error"] == ""
    env.step(both(4))
    _, rewards, *_, infos = env.step(both(19))  # a click is no answer to a question
    assert infos[USER]["parse_error"] == "act 19 is no answer to a question"
    assert rewards == {RECOMMENDER: -0.25, USER: -1.0}
    assert infos[RECOMMENDER]["reward_terms"]["excluded"] is True
    infos = env.step(both(4))[4]
    assert infos[RECOMMENDER]["parse_error"] == "act 4 asks where nothing may be asked"
    env.step(both(33))
    turns = env.transcript.turns
    assert [turn.rationale for turn in turns] == ["Which genre?", "Of which decade?", "Of which decade?", ""]
    assert [turn.answer.message for turn in turns] == ["I want the genre Comedy.", "I would rather not say.", "", ""]
    assert turns[0].answer.reveal == Facet("genre", "Comedy")


def test_masks_follow_the_rules() -> None:
    env = MaskedEnv(FORBIDDING(), FEATURES)
    env.reset(options=TOY_0)
    env.step(both(1))
    observations = env.step(both(6))[0]  # skips Heat
    assert np.flatnonzero(observations[RECOMMENDER]["action_mask"]).tolist() == [0, 2]
    infos = env.step(both(1))[4]
    assert "repeats are forbidden" in infos[RECOMMENDER]["parse_error"]
    silent = MaskedEnv(SILENT(), FEATURES)
    observations, _ = silent.reset(options=TOY_0)
    assert np.flatnonzero(observations[RECOMMENDER]["action_mask"]).tolist() == [0, 1, 2]
    assert silent.encoder.size == MaskedEnv(ASKING(), FEATURES).encoder.size  # a policy can be asked to be silent


@pytest.mark.parametrize("kind", [NumericEnv, MaskedEnv])
@pytest.mark.parametrize("game", [FORBIDDING, ASKING, SILENT], ids=["forbidding", "asking", "silent"])
def test_games_with_questions_and_rules_keep_what_every_view_promises(kind: type[NumericEnv], game: Game) -> None:
    check_env(lambda: kind(game(), FEATURES), episodes=20)
    check_env(game, episodes=20)


def test_a_policy_talks_in_a_game_with_questions_as_it_plays_the_environment() -> None:
    env = MaskedEnv(ASKING(), FEATURES)
    agent = NumericAgent(by_the_sum, env.encoder)
    episodes = env.env.episodes
    told = rollout(episodes, episodes.items, agent, agent, provenance=episodes.provenance, reward=env.env.reward)
    for transcript in told:
        observations, _ = env.reset(seed=0, options={"task_id": transcript.task.task_id})
        while env.agents:
            acts = {role: by_the_sum(o["observation"], o["action_mask"]) for role, o in observations.items()}
            observations = env.step(acts)[0]
        assert env.transcript == transcript
        assert not any(turn.error or turn.answer.error for turn in transcript.turns)
    assert any(turn.question for transcript in told for turn in transcript.turns)


# Spaces, seeds, copies ------------------------------------------------------------------------------------------------


@KINDS
def test_both_sides_have_equal_spaces_which_are_the_same_objects_on_each_call(kind: type[NumericEnv]) -> None:
    env = toy_env(kind)
    assert env.observation_space(USER) == env.observation_space(RECOMMENDER)
    assert env.action_space(USER) == env.action_space(RECOMMENDER)
    assert env.action_space(USER) is not env.action_space(RECOMMENDER)  # each has its own random stream
    for role in ROLES:
        assert env.observation_space(role) is env.observation_space(role)
        assert env.action_space(role) is env.action_space(role)


def played(env: NumericEnv, **options: Any) -> list[Any]:
    said: list[Any] = [env.reset(**options)]
    while env.agents:
        said.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
    return [*said, env.transcript.to_json()]


def seeded(env: NumericEnv, seed: int) -> NumericEnv:
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(seed + number)
    return env


@KINDS
def test_two_environments_do_not_disturb_each_other(kind: type[NumericEnv]) -> None:
    alone = [played(seeded(toy_env(kind), seed), seed=seed)[:-1] for seed in (1, 2)]
    envs = [seeded(toy_env(kind), seed) for seed in (1, 2)]
    together: list[list[Any]] = [[env.reset(seed=seed)] for env, seed in zip(envs, (1, 2), strict=True)]
    while any(env.agents for env in envs):
        for env, said in zip(envs, together, strict=True):
            if env.agents:
                said.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
    assert same(alone, together)


@KINDS
@pytest.mark.parametrize("copy", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("half_turns", [0, 1, 2])
def test_an_environment_can_be_copied_in_the_middle_of_an_episode(
    kind: type[NumericEnv], copy: Any, half_turns: int
) -> None:
    env = seeded(toy_env(kind), 4)
    env.reset(seed=8, options=TOY_0)
    for _ in range(half_turns):
        env.step(both(1))
    twin = copy.loads(copy.dumps(env))
    while env.agents:
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        assert same(env.step(actions), twin.step(actions))
    assert env.transcript == twin.transcript
    assert same(env.reset(), twin.reset())


EPISODES_IN_A_PROCESS = """
import hashlib
import coars_env
options = {"users": 60, "items": 90, "interactions": 1500}
masked = coars_env.make("synthetic", view="masked", candidates="popularity", **options)
turns = coars_env.AecEnv(coars_env.make("synthetic", view="numeric", **options))
for env in (masked, turns):
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(number)
for seed in range(20):
    observations, _ = masked.reset(seed=seed)
    while masked.agents:
        mask = {agent: observations[agent]["action_mask"] for agent in masked.agents}
        said = masked.step({agent: masked.action_space(agent).sample(mask[agent]) for agent in masked.agents})
        observations = said[0]
        shown = b"".join(observations[agent]["observation"].tobytes() for agent in observations)
        print(hashlib.sha256(shown).hexdigest(), said[1])
    print(ascii(masked.transcript.to_json()))
    turns.reset(seed=seed)
    for agent in turns.agent_iter():
        observation, reward, terminated, _, _ = turns.last()
        print(agent, hashlib.sha256(observation.tobytes()).hexdigest(), reward)
        turns.step(None if terminated else turns.action_space(agent).sample())
for role in ("recommender", "user"):
    one = coars_env.single_agent("synthetic", role, **options)
    one.action_space.seed(0)
    one.reset(seed=3)
    for _ in range(20):
        observation, reward, terminated, _, _ = one.step(one.action_space.sample(one.action_masks()))
        print(hashlib.sha256(observation.tobytes()).hexdigest(), reward)
        if terminated:
            one.reset()
"""


def test_episodes_are_byte_equal_in_processes_of_different_hash_seeds_and_threads() -> None:
    printed = set()
    for hash_seed, threads in (("0", "1"), ("12345", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads}
        environment["OPENBLAS_NUM_THREADS"] = threads
        ran = subprocess.run(
            [sys.executable, "-c", EPISODES_IN_A_PROCESS], capture_output=True, check=True, env=environment
        )
        printed.add(ran.stdout)
    assert len(printed) == 1
    assert printed.pop().count(b"\n") > 150


def test_nobody_touches_the_global_generator() -> None:
    before = repr(np.random.get_state())
    played(toy_env())
    assert repr(np.random.get_state()) == before


# Policies that think in numbers, among agents that talk ---------------------------------------------------------------


def first_legal(observation: Any, mask: Any) -> int:
    return int(mask.argmax())


def by_the_sum(observation: Any, mask: Any) -> int:
    """Any rule will do that depends on the observation."""
    legal = np.flatnonzero(mask)
    return int(legal[int(abs(observation.sum()) * 1000) % len(legal)])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("policy", [first_legal, by_the_sum])
def test_a_policy_is_an_agent(role: Any, policy: Any) -> None:
    check_agent(NumericAgent(policy, toy_env().encoder), role)


def test_a_policy_plays_as_an_agent_as_it_plays_the_environment() -> None:
    env = toy_env(MaskedEnv)
    agent = NumericAgent(by_the_sum, env.encoder)
    transcripts = rollout(
        env.env.episodes.tasks, env.env.episodes.items, agent, agent, provenance=env.env.episodes.provenance
    )
    for transcript in transcripts:
        observations, _ = env.reset(seed=0, options={"task_id": transcript.task.task_id})
        while env.agents:
            acts = {
                role: by_the_sum(**{"observation": o["observation"], "mask": o["action_mask"]})
                for role, o in observations.items()
            }
            observations = env.step(acts)[0]
        assert env.transcript == transcript


def test_a_policy_talks_with_an_agent_of_words() -> None:
    env = toy_env()
    user = ScriptedAgent(
        [{"action": 1, "strength": 0.37, "message": "長すぎる"}, {"action": 3, "strength": 1.0, "message": ""}]
    )
    told = rollout(
        env.env.episodes.tasks[:1],
        env.env.episodes.items,
        NumericAgent(lambda observation, mask: 2, env.encoder),
        user,
        provenance=env.env.episodes.provenance,
    )[0]
    assert [(turn.proposal, turn.answer.strength, turn.answer.message) for turn in told.turns] == [
        (3, 0.37, "長すぎる"),
        (3, 1.0, ""),
    ]
    assert "This may be for you." in user.observed[0][0]["text"]


def test_an_act_without_a_meaning_is_recorded() -> None:
    env = toy_env()
    agent = NumericAgent(lambda observation, mask: WAIT, env.encoder)
    told = rollout(env.env.episodes.tasks, env.env.episodes.items, agent, agent, provenance=env.env.episodes.provenance)
    assert {transcript.ending for transcript in told} == {"max_turns"}
    assert told[0].turns[0].error == f"act {WAIT} names no candidate"
    assert told[0].turns[0].answer.error == f"act {WAIT} is no answer"


@pytest.mark.parametrize("act", [-1, WAIT + 1, 1.0, None, [1], np.array([1, 2])])
def test_an_act_outside_the_space_is_a_wrong_policy(act: Any) -> None:
    env = toy_env()
    agent, episodes = NumericAgent(lambda observation, mask: act, env.encoder), env.env.episodes
    with pytest.raises(
        ActionError, match=rf"Expected 0\.\.{WAIT} for recommender_0, found .*\. Return one of the acts"
    ):
        rollout(episodes.tasks, episodes.items, agent, agent, provenance=episodes.provenance)


@pytest.mark.parametrize("act", [np.int64(1), np.array(1)])
def test_an_act_may_be_an_integer_of_numpy(act: Any) -> None:
    env = toy_env()
    agent, episodes = NumericAgent(lambda observation, mask: act, env.encoder), env.env.episodes
    told = rollout(episodes.tasks, episodes.items, agent, agent, provenance=episodes.provenance)
    assert [transcript.turns[0].proposal for transcript in told] == [task.candidates[1] for task in episodes]


# The tests of PettingZoo ----------------------------------------------------------------------------------------------


PLAYED = pytest.mark.parametrize("game", [PLAIN, ASKING], ids=["plain", "asking"])


@PLAYED
@KINDS
def test_pettingzoo_accepts_the_parallel_environment(kind: type[NumericEnv], game: Game) -> None:
    parallel_api_test(kind(game(), FEATURES), num_cycles=200)
    parallel_seed_test(lambda: kind(game(), FEATURES))


@PLAYED
@KINDS
def test_pettingzoo_accepts_the_environment_in_turns(kind: type[NumericEnv], game: Game) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Observation ")  # masked: Dict, where Box or Discrete is usual
        api_test(parallel_to_aec(kind(game(), FEATURES)), num_cycles=100)
    seed_test(lambda: parallel_to_aec(kind(game(), FEATURES)), num_cycles=50)


@PLAYED
@KINDS
def test_pettingzoo_accepts_the_state(kind: type[NumericEnv], game: Game) -> None:
    state_test(AecEnv(kind(game(), FEATURES)), kind(game(), FEATURES))
