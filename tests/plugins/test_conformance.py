"""The checks that Stable-Baselines3, TorchRL and Tianshou bring along, on the views meant for them."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import coars_env
from coars_env import FixedUser, RandomRecommender, SingleAgentEnv
from coars_env.views.single import RoleName

pytestmark = pytest.mark.plugins


@pytest.mark.parametrize(("role", "partner"), [("recommender", FixedUser("skip")), ("user", RandomRecommender())])
def test_the_single_agent_view_passes_the_checks_of_gymnasium_and_stable_baselines3(
    question: Any, role: RoleName, partner: coars_env.Agent
) -> None:
    from gymnasium.utils.env_checker import check_env
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = SingleAgentEnv(question.numeric(), role, partner)
    check_env(env, skip_render_check=True)
    check_for_sb3(env)
    assert is_masking_supported(env)
    assert get_action_masks(env).sum() == 20


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version == 1.24.3")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
def test_the_parallel_views_pass_the_check_of_torchrl(question: Any, masked: bool, return_state: bool) -> None:
    import torch
    from torchrl.envs import PettingZooWrapper, check_env_specs

    game = question.masked() if masked else question.numeric()
    with torch.random.fork_rng():
        env = PettingZooWrapper(game, return_state=return_state)
        assert env.group_map == {"recommender": ["recommender_0"], "user": ["user_0"]}
        check_env_specs(env, seed=0)


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version == 1.24.3")
def test_torchrl_plays_legal_acts_only(question: Any) -> None:
    import torch
    from torchrl.envs import PettingZooWrapper

    with torch.random.fork_rng():
        played = PettingZooWrapper(question.masked()).rollout(40, break_when_any_done=False)
    for group in ("recommender", "user"):
        waits = played[group, "action"].squeeze() == 20
        assert waits.equal(~played[group, "action_mask"][:, 0, :20].any(-1))


def test_tianshou_plays_whole_games_in_turn_order(question: Any) -> None:
    from tianshou.env import PettingZooEnv

    env = PettingZooEnv(coars_env.AecEnv(question.masked()))
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen, _ = env.reset()
        speakers, paid = [], np.zeros(2)
        over = False
        while not over:
            speakers.append(seen["agent_id"])
            act = rng.choice(np.flatnonzero(seen["mask"]))
            assert act < 20
            seen, rewards, over, _, _ = env.step(act)
            assert speakers[-1] == coars_env.USER or list(rewards) == [0, 0], "paid when the user has answered"
            paid += rewards
        assert speakers == [*coars_env.ROLES] * (len(speakers) // 2)
        told = env.env.env.env.transcript
        terms = coars_env.CoarsReward()(told)
        assert paid == pytest.approx(
            [sum(t.rewards[coars_env.RECOMMENDER] for t in terms), sum(t.rewards[coars_env.USER] for t in terms)]
        )


def test_supersuit_makes_one_environment_of_both_sides(question: Any) -> None:
    import supersuit

    parallel = supersuit.pettingzoo_env_to_vec_env_v1(question.numeric())
    games = supersuit.concat_vec_envs_v1(parallel, 3, num_cpus=0, base_class="gymnasium")
    assert games.num_envs == 6
    vectors, _ = games.reset(seed=0)
    assert isinstance(games, gymnasium.vector.VectorEnv)
    assert len(np.unique(vectors[::2], axis=0)) == 3, "each copy plays tasks of its own"
    for act in range(9):
        vectors, rewards, *_ = games.step(np.full(6, act))
        assert vectors.shape == (6, question.encoder.size)
        assert rewards.shape == (6,)
