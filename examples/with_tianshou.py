"""Tianshou 2 in the game: both agents learn by DQN, each with a network of its own. Needs the extra tianshou.

python examples/with_tianshou.py

The masked view in turn order, through Tianshou's PettingZooEnv. Tianshou keeps a transition for each half-turn, while
both sides are paid when the user has answered: the recommender finds its reward in the transition after its own.
Returns over two steps hold both, so `n_step_return_horizon=2` is right here, and 1 would show the recommender nothing
but zeros. Tianshou's on-policy algorithms read their own transitions only, and do not fit.

Tianshou explores with numpy's global generator, which is left alone here: equal seeds give runs that differ a little.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from candidate_net import CandidateNet, greedy
from held_out import Pair, PluginConfig, Question
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.multiagent.marl import MultiAgentOffPolicyAlgorithm
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, PettingZooEnv
from tianshou.trainer import OffPolicyTrainerParams

from coars_env import AecEnv, FixedUser

GAMES, STEPS_PER_UPDATE, EXPLORATION = 8, 64, 0.2


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    progress: bool = True
    """Whether a bar is shown."""


class QNet(torch.nn.Module):
    """`CandidateNet` as Tianshou takes it; also the value of each act."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.net = CandidateNet(question.encoder)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        return self.net(torch.as_tensor(obs, dtype=torch.float32)), state


def learn(question: Question, config: Config) -> dict[str, Pair]:
    """Train, and name who plays whom."""
    logging.getLogger("tianshou").setLevel(logging.ERROR)  # it would say in every step that rewards are two
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        env = PettingZooEnv(AecEnv(question.masked()))
        nets = [QNet(question) for _ in env.agents]
        sides = [dqn(net, env) for net in nets]
        both = MultiAgentOffPolicyAlgorithm(algorithms=sides, env=env)
        games = DummyVectorEnv([lambda: PettingZooEnv(AecEnv(question.masked()))] * GAMES)
        games.seed(config.seed)
        buffer = VectorReplayBuffer(20_000, GAMES, random_seed=config.seed)
        params = OffPolicyTrainerParams(
            training_collector=Collector(both, games, buffer, exploration_noise=True),
            max_epochs=1,
            epoch_num_steps=config.steps,
            collection_step_num_env_steps=STEPS_PER_UPDATE,
            update_step_num_gradient_steps_per_sample=0.1,
            batch_size=256,
            multi_agent_return_reduction=lambda returns: returns[:, 0],  # what the bar shows: the recommender's
            verbose=False,
            show_progress=config.progress,
        )
        both.run_training(params)
    recommender, user = (greedy(net.net, question.encoder) for net in nets)
    return {"Tianshou DQN, clicks": (recommender, FixedUser()), "Tianshou DQN, Tianshou DQN": (recommender, user)}


def dqn(net: QNet, env: PettingZooEnv) -> DQN[Any]:
    """One side's algorithm. Within a pair of agents Tianshou explores at the rate meant for inference."""
    policy = DiscreteQLearningPolicy(
        model=net, action_space=env.action_space, eps_training=EXPLORATION, eps_inference=EXPLORATION
    )
    return DQN(policy=policy, optim=AdamOptimizerFactory(lr=3e-3), gamma=0.9, n_step_return_horizon=2)


def main(config: Config) -> None:
    question = config.question()
    print(question.table({**question.at_random(config.seed), **learn(question, config)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
