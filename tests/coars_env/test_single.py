import pickle
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from coars_env import (
    ENV_IDS,
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    Facet,
    FixedUser,
    MaskedEnv,
    NumericAgent,
    NumericEnv,
    RandomRecommender,
    Rules,
    SingleAgentEnv,
    item_features,
    leave_last,
    reveals_of,
    rollout,
    single_agent,
)
from coars_env.testing import ScriptedAgent, toy_dataset, toy_episodes, toy_instructed_episodes

SMALL: dict[str, Any] = {"users": 60, "items": 90, "interactions": 1500}
SIDES = pytest.mark.parametrize("role", ["recommender", "user"])
PROPOSE = {"item": 1, "message": "Heat?"}
SKIP = {"action": 1, "strength": 0.3, "message": "Not today."}


def toy_side(role: Any, partner: Any, **options: Any) -> SingleAgentEnv:
    env = NumericEnv(CoarsEnv(toy_episodes(), **options), item_features(leave_last(toy_dataset())))
    return SingleAgentEnv(env, role, partner)


def default_partner(role: str) -> Any:
    return FixedUser("skip") if role == "recommender" else RandomRecommender()


def test_the_recommender_proposes_and_hears_the_answer() -> None:
    env = toy_side("recommender", ScriptedAgent([SKIP]))
    observation, info = env.reset(options={"task_id": "toy-0"})
    assert info == {"task_id": "toy-0", "parse_error": None}
    assert observation.shape == env.observation_space.shape
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 2]
    observation, reward, terminated, truncated, info = env.step(1)
    # a miss in turn 1 of 4 with s = .3: -.65 * 2/3
    assert reward == pytest.approx(-0.65 * 2 / 3)
    assert (terminated, truncated, type(reward)) == (False, False, float)
    assert info["reward_terms"]["rewards"][RECOMMENDER] == reward
    assert env.env.dialogue is not None
    assert env.env.dialogue.turns[0].answer.message == "Not today."


def test_the_user_hears_a_proposal_and_answers() -> None:
    recommender = ScriptedAgent([PROPOSE])
    env = toy_side("user", recommender)
    env.reset(options={"task_id": "toy-0"})
    assert env.env.dialogue is not None
    assert env.env.dialogue.turns[0].rationale == "Heat?"
    assert np.flatnonzero(env.action_masks()).tolist() == list(range(20))
    _, reward, terminated, _, info = env.step(6)
    # a miss with s = .3 and q = -1: v = -.4, .4 (1 - .04)
    assert reward == pytest.approx(0.4 * 0.96)
    assert info["reward_terms"]["rewards"][USER] == reward
    assert not terminated
    assert len(env.env.dialogue.turns) == 2
    assert "Not now." in recommender.observed[0][1]["text"]
    assert env.step(19)[2]


@SIDES
def test_an_act_that_cannot_be_read_costs(role: str) -> None:
    env = toy_side(role, default_partner(role))
    env.reset()
    _, reward, terminated, _, info = env.step(20)
    assert (reward, terminated) == (-1.0, False)
    assert info["parse_error"].startswith("act 20 ")


def by_the_sum(observation: Any, mask: Any) -> int:
    legal = np.flatnonzero(mask)
    return int(legal[int(abs(observation.sum()) * 1000) % len(legal)])


@SIDES
def test_an_episode_is_the_one_that_a_rollout_plays(role: str) -> None:
    env = toy_side(role, default_partner(role))
    for number, task in enumerate(toy_episodes()):
        observation, _ = env.reset(seed=number, options={"task_id": task.task_id})
        total, terminated = 0.0, False
        while not terminated:
            observation, reward, terminated, _, _ = env.step(by_the_sum(observation, env.action_masks()))
            total += reward
        agents: list[Any] = [NumericAgent(by_the_sum, env.env.encoder), default_partner(role)]
        sides = agents if role == "recommender" else agents[::-1]
        told = rollout([task], toy_episodes().items, *sides, provenance=toy_episodes().provenance, seed=number)
        assert env.env.transcript == told[0]
        assert total == pytest.approx(sum(terms.rewards[f"{role}_0"] for terms in env.env.dialogue.terms))  # type: ignore[union-attr]


@SIDES
def test_attempts_at_one_task_differ(role: str) -> None:
    env = toy_side(role, RandomRecommender() if role == "user" else default_partner(role))
    env.reset(seed=0)
    seeds = set()
    for _ in range(8):
        env.reset(options={"task_id": "toy-0"})
        seeds.add(env.env.env.episode_seed)
    assert len(seeds) == 8


def test_roles_have_short_names() -> None:
    for name, role in (("recommender", RECOMMENDER), ("user", USER), (RECOMMENDER, RECOMMENDER), (USER, USER)):
        assert toy_side(name, FixedUser()).role == role
    with pytest.raises(
        ConfigError, match=r"There are two sides\. Expected role 'recommender' or 'user', found 'critic'"
    ):
        toy_side("critic", FixedUser())


@pytest.mark.parametrize("act", [-1, 21, None, "1", 1.5])
def test_an_act_outside_its_space_changes_nothing(act: Any) -> None:
    env = toy_side("user", ScriptedAgent([PROPOSE]))
    env.reset(options={"task_id": "toy-0"})
    with pytest.raises(ActionError, match=r"Expected a member of Discrete\(21\) from user_0"):
        env.step(act)
    assert env.step(19)[2]
    with pytest.raises(ActionError, match=r"An action needs a running episode"):
        env.step(0)


def test_a_partner_that_breaks_is_not_hidden() -> None:
    env = toy_side("recommender", ScriptedAgent([RuntimeError("no answer")]))
    env.reset()
    with pytest.raises(RuntimeError, match="no answer"):
        env.step(0)
    silent = toy_side("recommender", ScriptedAgent([{}]))
    silent.reset()
    with pytest.raises(ActionError, match=r"from user_0, found {}"):
        silent.step(0)


@SIDES
@pytest.mark.parametrize("copy", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_an_environment_can_be_copied_in_the_middle_of_an_episode(role: str, copy: Any) -> None:
    env = toy_side(role, default_partner(role))
    env.reset(seed=3)
    env.step(1)
    twin = copy.loads(copy.dumps(env))
    for act in (1, 2, 0):
        first, second = env.step(act), twin.step(act)
        assert first[0].tobytes() == second[0].tobytes()
        assert first[1:] == second[1:]
    assert env.env.transcript == twin.env.transcript


# Questions ------------------------------------------------------------------------------------------------------------

# acts of K = 3, Q = 2, V = 13: 3 asks for the genre, 4 for the decade; 21 wants a comedy, 33 declines, 34 waits
COMEDY = {"action": 0, "strength": 0.1, "message": "A comedy.", "reveal": "genre: Comedy"}


def asking_side(role: Any, partner: Any, **options: Any) -> SingleAgentEnv:
    env = NumericEnv(CoarsEnv(toy_instructed_episodes(), **options), item_features(leave_last(toy_dataset())))
    return SingleAgentEnv(env, role, partner)


def test_the_recommender_asks_and_hears_the_answer() -> None:
    env = asking_side("recommender", ScriptedAgent([COMEDY, SKIP]), max_turns=2, reward=CoarsReward(question_cost=0.25))
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 2, 3, 4]  # before the first reset, too
    env.reset(options={"task_id": "toy-0"})
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 2, 3, 4]
    observation, reward, terminated, _, _ = env.step(3)
    assert (reward, terminated) == (-0.25, False)
    assert env.env.dialogue
    assert reveals_of(env.env.dialogue.observe(RECOMMENDER)) == (Facet("genre", "Comedy"),)
    assert observation[-13:].tolist() == [0, 1, *[0] * 11]  # Comedy is the second of 13 facets
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 2]  # the last turn must propose
    assert env.step(4)[4]["parse_error"] == "act 4 asks where nothing may be asked"
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 2]


def test_the_user_is_asked_and_answers() -> None:
    env = asking_side("user", ScriptedAgent([{"ask": "genre", "message": "Which?"}, PROPOSE]))
    assert np.flatnonzero(env.action_masks()).tolist() == list(range(33))
    env.reset(options={"task_id": "toy-0"})
    assert np.flatnonzero(env.action_masks()).tolist() == list(range(20, 34))
    _, reward, *_, info = env.step(33)
    assert (reward, info["parse_error"]) == (0.0, None)
    assert np.flatnonzero(env.action_masks()).tolist() == list(range(33))
    assert env.step(33)[4]["parse_error"] == "act 33 is no answer"


def test_masks_of_one_side_leave_out_what_is_forbidden() -> None:
    env = toy_side("recommender", ScriptedAgent([SKIP]), rules=Rules(repeats="forbidden"))
    env.reset(options={"task_id": "toy-0"})
    for act, left in ((1, [0, 2]), (0, [2]), (2, [0, 1, 2])):
        env.step(act)
        assert np.flatnonzero(env.action_masks()).tolist() == left


class Talking(FixedUser):
    """Reveals a comedy whatever happens, and skips what is proposed."""

    def act(self, observations: Any) -> Any:
        return {n: {**SKIP, "reveal": "genre: Comedy"} for n in observations}


class Asking(RandomRecommender):
    """Asks in its first turn."""

    def act(self, observations: Any) -> Any:
        said = super().act(observations)
        return {n: said[n] if o["turn"] else {"ask": "decade", "message": "?"} for n, o in observations.items()}


@SIDES
@pytest.mark.parametrize("repeats", ["unpaid", "forbidden"])
def test_an_instructed_episode_is_the_one_that_a_rollout_plays(role: str, repeats: Any) -> None:
    rules, reward, episodes = Rules(repeats=repeats), CoarsReward(question_cost=0.25), toy_instructed_episodes()
    partner = Talking() if role == "recommender" else Asking()
    env = asking_side(role, partner, rules=rules, reward=reward)
    for number, task in enumerate(episodes):
        observation, _ = env.reset(seed=number, options={"task_id": task.task_id})
        terminated = False
        while not terminated:
            observation, _, terminated, _, _ = env.step(by_the_sum(observation, env.action_masks()))
        agents: list[Any] = [NumericAgent(by_the_sum, env.env.encoder), partner]
        sides = agents if role == "recommender" else agents[::-1]
        provenance = episodes.provenance
        told = rollout([task], episodes.items, *sides, provenance=provenance, seed=number, rules=rules, reward=reward)
        assert env.env.transcript == told[0]
        own = [turn.error if role == "recommender" else turn.answer.error for turn in told[0].turns]
        assert own == [None] * len(own)  # what the mask allows can be read


@SIDES
def test_gymnasium_accepts_both_sides_of_an_instructed_game(role: str) -> None:
    features = item_features(leave_last(toy_dataset()))
    env_id = f"coars/Synthetic-{role.title()}-v0"
    partner = Talking() if role == "recommender" else Asking()
    env = gymnasium.make(env_id, game=toy_instructed_episodes(), features=features, partner=partner, render_mode="ansi")
    check_env(env.unwrapped)
    assert env.action_space == gymnasium.spaces.Discrete(35)
    env.reset(seed=0)
    env.step(3 if role == "recommender" else 33)
    assert "\nThe user wants: " in str(env.render())


# By name --------------------------------------------------------------------------------------------------------------


def test_a_side_is_made_from_a_name_or_from_an_environment() -> None:
    named = single_agent("synthetic", role="user", max_turns=2, **SMALL)
    assert isinstance(named.partner, RandomRecommender)
    assert (named.env.env.max_turns, named.env.env.episodes.name) == (2, "synthetic/leave_last/test/uniform/d0")
    partner = FixedUser("skip")
    given = single_agent(named.env, partner=partner)
    assert (given.env, given.partner, given.role) == (named.env, partner, RECOMMENDER)
    assert isinstance(single_agent(named.env).partner, FixedUser)


def test_a_side_of_the_game_in_words_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"Make it by make\(\.\.\., view='numeric'\)"):
        single_agent(CoarsEnv(toy_episodes()))  # type: ignore[arg-type]


def test_a_side_can_be_taken_in_the_masked_environment() -> None:
    masked = MaskedEnv(CoarsEnv(toy_episodes()), item_features(leave_last(toy_dataset())))
    env = single_agent(masked, partner=FixedUser("skip"))
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize("env_id", [env_id for env_id in ENV_IDS if "Synthetic" in env_id])
def test_gymnasium_accepts_both_sides(env_id: str) -> None:
    env = gymnasium.make(env_id, max_turns=3, render_mode="ansi", **SMALL)
    check_env(env.unwrapped)
    assert env.get_wrapper_attr("action_masks")().sum() == 20
    assert env.spec is not None
    assert env.spec.id == env_id
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert str(env.render()).startswith("Recently taken, oldest first:")
    env.close()


@SIDES
def test_gymnasium_steps_several_at_once(role: str) -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: toy_side(role, default_partner(role))] * 3)
    observations, _ = envs.reset(seed=5)
    assert observations.shape == (3, *toy_side(role, default_partner(role)).observation_space.shape)  # type: ignore[misc]
    for _ in range(6):
        observations, rewards, *_ = envs.step(np.array([0, 1, 2]))
    assert rewards.shape == (3,)
    envs.close()


def test_rendering_without_a_mode_warns_through_gymnasium() -> None:
    env = gymnasium.make("coars/Synthetic-User-v0", **SMALL)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="You are calling render method without specifying any render mode"):
        assert env.render() is None  # type: ignore[func-returns-value]


def test_roles_and_ids_go_together() -> None:
    assert len(ENV_IDS) == 4 * len(ROLES)
    for env_id in ENV_IDS:
        assert gymnasium.spec(env_id).kwargs["role"] in env_id.lower()
