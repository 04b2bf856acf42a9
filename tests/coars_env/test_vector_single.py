from typing import Any

import cloudpickle
import gymnasium
import gymnasium.vector
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

from coars_env import (
    ActionError,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    FixedUser,
    NumericEnv,
    OracleUser,
    RandomRecommender,
    Rules,
    SingleAgentEnv,
    SingleAgentVectorEnv,
    TaskError,
    builder,
    freeze,
    item_features,
    leave_last,
    load_split,
    make_vec,
)
from coars_env.testing import ScriptedAgent, toy_dataset, toy_episodes, toy_instructed_episodes

SMALL: dict[str, Any] = {"users": 60, "items": 90, "interactions": 1500}
SIDES = pytest.mark.parametrize("role", ["recommender", "user"])


def toy_vector(role: Any, partner: Any, num_envs: int = 3, **options: Any) -> SingleAgentVectorEnv:
    env = NumericEnv(CoarsEnv(toy_episodes(), **options), item_features(leave_last(toy_dataset())))
    return SingleAgentVectorEnv(env, num_envs, role, partner)


def same(found: Any, expected: Any) -> bool:
    """Equal in every entry, kinds of arrays included."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, np.ndarray):
        alike = found.dtype == expected.dtype and found.shape == expected.shape
        return alike and all(map(same, found.tolist(), expected.tolist()))
    return repr(found) == repr(expected)  # a strength that was not read is NaN


@pytest.mark.skipif(not hasattr(gymnasium.vector, "AutoresetMode"), reason="Gymnasium 1.0 resets in the next step")
@SIDES
def test_the_vector_is_that_of_gymnasium_over_single_environments(role: Any) -> None:
    split = load_split("synthetic", **SMALL)
    episodes, features = freeze(builder(split), "test"), item_features(split)

    def game() -> NumericEnv:
        return NumericEnv(CoarsEnv(episodes), features)

    def partner() -> Any:  # both draw random numbers of their own in each dialogue
        return OracleUser(episodes, flip=0.4) if role == "recommender" else RandomRecommender()

    vector = SingleAgentVectorEnv(game(), 5, role, partner())
    singles: Any = SyncVectorEnv(
        [lambda: SingleAgentEnv(game(), role, partner())] * 5,
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    rng, ended = np.random.default_rng(0), 0
    for seed in (3, None):  # the second time, the streams go on
        seen, infos = vector.reset(seed=seed)
        expected, told = singles.reset(seed=seed)
        for _ in range(30):
            assert same(seen, expected)
            mask = infos.pop("action_mask")
            assert mask.tolist() == [env.action_masks().tolist() for env in singles.envs]
            assert same(infos, told)
            acts = rng.integers(21, size=5)  # 20 can be read by neither side
            seen, *found, infos = vector.step(acts)
            expected, *paid, told = singles.step(acts)
            assert all(map(same, found, paid))
            ended += found[1].sum()
    assert ended > 20


class Alternating:
    """A user that wants a comedy in the first turn and skips, or a recommender that asks in the first."""

    def __init__(self, first: Any, then: Any) -> None:
        self.said = first, then

    def start(self, seeds: Any) -> None:
        """It remembers nothing."""

    def act(self, observations: Any) -> Any:
        return {n: self.said[seen["turn"] > 0] for n, seen in observations.items()}


@pytest.mark.skipif(not hasattr(gymnasium.vector, "AutoresetMode"), reason="Gymnasium 1.0 resets in the next step")
@pytest.mark.parametrize("rules", [Rules(), Rules("unpaid"), Rules("forbidden"), Rules(questions=False)], ids=str)
@SIDES
def test_the_vector_of_an_instructed_game_is_that_of_gymnasium(role: Any, rules: Rules) -> None:
    episodes, features = toy_instructed_episodes(), item_features(leave_last(toy_dataset()))
    skip = {"action": 1, "strength": 0.3, "message": "No."}
    ask = {"ask": "genre", "message": "Which?"} if rules.questions else {"item": 1, "message": ""}
    user = Alternating({**skip, "reveal": "genre: Comedy"}, skip)
    partner = user if role == "recommender" else Alternating(ask, {"item": 0, "message": ""})

    def game() -> NumericEnv:
        return NumericEnv(CoarsEnv(episodes, rules=rules, reward=CoarsReward(question_cost=0.25)), features)

    vector = SingleAgentVectorEnv(game(), 5, role, partner)
    singles: Any = SyncVectorEnv(
        [lambda: SingleAgentEnv(game(), role, partner)] * 5,
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    assert vector.action_masks().tolist() == [env.action_masks().tolist() for env in singles.envs]  # before a reset
    rng, masks = np.random.default_rng(0), set()
    (seen, infos), (expected, told) = vector.reset(seed=3), singles.reset(seed=3)
    for number in range(40):
        assert same(seen, expected)
        mask = infos.pop("action_mask")
        assert mask.dtype == np.int8
        assert mask.tolist() == [env.action_masks().tolist() for env in singles.envs]
        assert same(infos, told)
        masks |= set(map(tuple, mask.tolist()))
        legal = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
        acts = legal if number % 3 else rng.integers(35, size=5)
        seen, *found, infos = vector.step(acts)
        expected, *paid, told = singles.step(acts)
        assert all(map(same, found, paid))
    assert (len(masks) > 1) == (rules.questions or (role == "recommender" and rules.repeats == "forbidden"))


def test_games_that_begin_apart_do_not_share_a_partner() -> None:
    # Game 0 ends in its first step, game 1 goes on: its user must not begin again.
    skip, star = {"action": 1, "strength": 0.3, "message": "1st"}, {"action": 2, "strength": 0.6, "message": "2nd"}
    env = toy_vector("recommender", ScriptedAgent([skip, star]), num_envs=2, max_turns=3)
    env.reset(seed=0, options={"task_id": "toy-0"})
    env.step([0, 0])
    env.dialogues[0].fail("cut")
    env._begin([0])
    env.step([0, 0])
    assert [[turn.answer.message for turn in env.dialogues[n].turns] for n in (0, 1)] == [["1st"], ["1st", "2nd"]]


def test_the_partner_answers_in_batches() -> None:
    sizes: list[int] = []

    class Counting(FixedUser):
        def act(self, observations: Any) -> Any:
            sizes.append(len(observations))
            return super().act(observations)

    env = toy_vector("recommender", Counting("skip"), num_envs=4)
    env.reset(seed=0)
    for _ in range(8):
        env.step(np.zeros(4, int))
    assert sizes == [4] * 8  # all games last four turns and begin together


@SIDES
def test_wrappers_of_gymnasium_fit(role: Any) -> None:
    partner = FixedUser("skip") if role == "recommender" else RandomRecommender()
    env: Any = RecordEpisodeStatistics(toy_vector(role, partner, num_envs=3))
    assert isinstance(env.unwrapped, VectorEnv)
    env = NormalizeReward(env)
    observations, _ = env.reset(seed=1)
    assert env.observation_space.contains(observations)
    assert env.action_space.shape == (3,)
    assert env.single_action_space == gymnasium.spaces.Discrete(21)
    for _ in range(4):
        *_, terminations, _, infos = env.step(np.full(3, 1))
    assert terminations.all()
    assert infos["episode"]["l"].tolist() == [4, 4, 4]
    assert infos["final_obs"][0].shape == env.single_observation_space.shape
    env.close()


def test_it_is_made_from_a_name() -> None:
    env = make_vec("synthetic", 2, role="user", max_turns=2, **SMALL)
    assert isinstance(env, SingleAgentVectorEnv)
    assert isinstance(env.partner, RandomRecommender)
    assert repr(env) == "SingleAgentVectorEnv(num_envs=2)"
    with pytest.raises(ConfigError, match=r"role cannot be given beside view='text'\. Leave it out"):
        make_vec("synthetic", 2, view="text", role="user", **SMALL)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"partner cannot be given beside both sides; name the role"):
        make_vec("synthetic", 2, partner=FixedUser(), **SMALL)
    with pytest.raises(ConfigError, match=r"The partner is an agent, .* found the class FixedUser"):
        make_vec("synthetic", 2, role="user", partner=FixedUser, **SMALL)
    with pytest.raises(ConfigError, match=r"Expected role 'recommender' or 'user', found 'critic'"):
        make_vec("synthetic", 2, role="critic", **SMALL)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        ([0, 0], r"Expected integers of shape \(3,\), found int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], r"found float64 of shape \(3,\)"),
        ([0, 21, 0], r"Expected a member of Discrete\(21\) from recommender_0, found 21"),
        ([0, 0, -1], r"found -1"),
    ],
)
def test_acts_outside_the_space_change_nothing(acts: Any, message: str) -> None:
    env = toy_vector("recommender", FixedUser("skip"))
    with pytest.raises(ActionError, match=r"An action needs a running game"):
        env.step([0, 0, 0])
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(acts)
    assert all(not dialogue.turns for dialogue in env.dialogues.values())


def test_a_partner_that_breaks_is_not_hidden() -> None:
    env = toy_vector("recommender", ScriptedAgent([RuntimeError("no answer")]))
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="no answer"):
        env.step([0, 0, 0])
    env = toy_vector("user", ScriptedAgent([{}]))
    with pytest.raises(ActionError, match=r"from recommender_0, found {} in game 0\. .* or correct the partner"):
        env.reset(seed=0)


def test_resets_are_checked_as_everywhere() -> None:
    env = toy_vector("user", RandomRecommender())
    with pytest.raises(TaskError, match=r"found 'toy-9'"):
        env.reset(options={"task_id": "toy-9"})
    with pytest.raises(ConfigError, match=r"seed >= 0, found -1"):
        env.reset(seed=-1)
    env.reset(options={"task_id": "toy-2"})
    assert {dialogue.task.task_id for dialogue in env.dialogues.values()} == {"toy-2"}


def test_it_can_be_copied_in_the_middle_of_an_episode() -> None:
    env = toy_vector("user", RandomRecommender())
    env.reset(seed=3)
    env.step([1, 19, 5])
    twin = cloudpickle.loads(cloudpickle.dumps(env))
    for _ in range(6):
        assert all(map(same, env.step([1, 7, 5]), twin.step([1, 7, 5])))
