"""Stable-Baselines3 in the game. Needs the extra sb3.

    python examples/with_sb3.py --algorithm maskable
    python examples/with_sb3.py --algorithm both
    python examples/with_sb3.py --instructions genre decade --candidates popularity --steps 40000

"maskable" and "ppo" train the recommender alone, against a user that clicks whatever comes first: MaskablePPO of
sb3-contrib and PPO on the single-agent view. "both" trains one network for both sides at once, by PPO through
SuperSuit. With instructions the recommender meets a user that answers questions, and "maskable" learns to ask.
"""

from dataclasses import dataclass
from typing import Any, Literal

import supersuit
import torch
import tyro
from candidate_net import AskingNet, CandidateNet
from held_out import AskingConfig, Pair, Question
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed

from coars_env import ConfigError, NumericAgent, SingleAgentEnv


@dataclass(frozen=True, kw_only=True)
class Config(AskingConfig):
    algorithm: Literal["maskable", "ppo", "both"] = "maskable"
    """What trains, and whom."""
    net: Literal["candidates", "mlp"] = "candidates"
    """One small network for all candidates, or SB3's own with a weight for each entry."""
    gamma: float = 0.95
    """Discount from turn to turn: a question is paid by the hits after it."""
    progress: bool = True
    """Whether a bar is shown."""


class CandidateFeatures(BaseFeaturesExtractor):
    """`CandidateNet`, or `AskingNet` where there are questions, as SB3 takes it."""

    def __init__(self, space: Any, net: dict[str, Any]) -> None:
        acts = net["encoder"].acts
        super().__init__(space, acts.n)
        self.net = (AskingNet if acts.kinds else CandidateNet)(**net)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.net(vectors)


SETTINGS: dict[str, Any] = dict(
    n_steps=64, batch_size=128, n_epochs=10, learning_rate=lambda left: 3e-3 * left, ent_coef=0.01, device="cpu"
)


def learn(question: Question, config: Config) -> dict[str, Pair]:
    """Train, and name who plays whom."""
    if config.algorithm == "both":
        if question.test.kinds:
            raise ConfigError("algorithm must be 'maskable' or 'ppo' with instructions: no network here is a user's.")
        parallel = supersuit.pettingzoo_env_to_vec_env_v1(question.numeric())
        games = supersuit.concat_vec_envs_v1(parallel, 8, num_cpus=0, base_class="stable_baselines3")
        games.venv.reset(seed=config.seed)  # else all eight play the same tasks
        set_random_seed(config.seed)  # SuperSuit's environments do not take the seed of a model
        kind, seed = PPO, None
    else:
        games = make_vec_env(
            lambda: SingleAgentEnv(question.numeric(), "recommender", question.partner), 8, seed=config.seed
        )
        kind, seed = (MaskablePPO if config.algorithm == "maskable" else PPO), config.seed
    words = {"gamma": config.gamma, "policy_kwargs": network(question, config), **SETTINGS}
    model = kind("MlpPolicy", games, seed=seed, **words)
    if config.net == "candidates":
        torch.nn.init.eye_(model.policy.action_net.weight)  # the scores themselves are the logits
        model.policy.action_net.requires_grad_(False)
    model.learn(config.steps, progress_bar=config.progress)

    def policy(vector: Any, mask: Any) -> int:
        masks = {"action_masks": mask} if config.algorithm == "maskable" else {}
        return int(model.predict(vector, deterministic=True, **masks)[0])

    agent = NumericAgent(policy, question.encoder)
    name = f"SB3 {config.algorithm} ({config.net})"
    systems: dict[str, Pair] = {name if question.test.kinds else f"{name}, clicks": (agent, question.partner)}
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
