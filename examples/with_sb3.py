"""Stable-Baselines3 in the game. Needs the extra sb3.

    python examples/with_sb3.py --algorithm maskable
    python examples/with_sb3.py --algorithm both

"maskable" and "ppo" train the recommender alone, against a user that clicks whatever comes first: MaskablePPO of
sb3-contrib and PPO on the single-agent view. "both" trains one network for both sides at once, by PPO through
SuperSuit.
"""

from dataclasses import dataclass
from typing import Any, Literal

import supersuit
import torch
import tyro
from candidate_net import CandidateNet
from held_out import Pair, PluginConfig, Question
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed

from coars_env import FixedUser, NumericAgent, SingleAgentEnv


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    algorithm: Literal["maskable", "ppo", "both"] = "maskable"
    """What trains, and whom."""
    net: Literal["candidates", "mlp"] = "candidates"
    """One small network for all candidates, or SB3's own with a weight for each entry."""
    progress: bool = True
    """Whether a bar is shown."""


class CandidateFeatures(BaseFeaturesExtractor):
    """`CandidateNet` as SB3 takes it."""

    def __init__(self, space: Any, net: dict[str, Any]) -> None:
        super().__init__(space, net["encoder"].acts.n)
        self.net = CandidateNet(**net)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.net(vectors)


SETTINGS: dict[str, Any] = dict(
    n_steps=64, batch_size=128, n_epochs=10, learning_rate=3e-3, ent_coef=0.01, device="cpu"
)


def learn(question: Question, config: Config) -> dict[str, Pair]:
    """Train, and name who plays whom."""
    if config.algorithm == "both":
        parallel = supersuit.pettingzoo_env_to_vec_env_v1(question.numeric())
        games = supersuit.concat_vec_envs_v1(parallel, 8, num_cpus=0, base_class="stable_baselines3")
        games.venv.reset(seed=config.seed)  # else all eight play the same tasks
        set_random_seed(config.seed)  # SuperSuit's environments do not take the seed of a model
        kind, seed = PPO, None
    else:
        games = make_vec_env(
            lambda: SingleAgentEnv(question.numeric(), "recommender", FixedUser()), 8, seed=config.seed
        )
        kind, seed = (MaskablePPO if config.algorithm == "maskable" else PPO), config.seed
    model = kind("MlpPolicy", games, seed=seed, policy_kwargs=network(question, config), **SETTINGS)
    if config.net == "candidates":
        torch.nn.init.eye_(model.policy.action_net.weight)  # begin with the scores themselves as logits
    model.learn(config.steps, progress_bar=config.progress)

    def policy(vector: Any, mask: Any) -> int:
        masks = {"action_masks": mask} if config.algorithm == "maskable" else {}
        return int(model.predict(vector, deterministic=True, **masks)[0])

    agent = NumericAgent(policy, question.encoder)
    name = f"SB3 {config.algorithm} ({config.net})"
    systems: dict[str, Pair] = {f"{name}, clicks": (agent, FixedUser())}
    return {**systems, f"{name}, itself": (agent, agent)} if config.algorithm == "both" else systems


def network(question: Question, config: Config) -> dict[str, Any]:
    """Keywords of SB3's policy."""
    if config.net == "mlp":
        return {}
    return dict(
        net_arch=[],
        features_extractor_class=CandidateFeatures,
        features_extractor_kwargs={"net": {"encoder": question.encoder}},
        share_features_extractor=False,
    )


def main(config: Config) -> None:
    question = config.question()
    print(question.table({**question.at_random(config.seed), **learn(question, config)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
