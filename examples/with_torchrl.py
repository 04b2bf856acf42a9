"""TorchRL in the game: both agents learn by PPO, each with a network of its own. Needs the extra torchrl.

python examples/with_torchrl.py

The masked view through PettingZooWrapper. Both sides are in every step, so each keeps its rewards where they belong;
the silent side's mask leaves it one act, which teaches nothing.
"""

from dataclasses import dataclass

import torch
import tyro
from candidate_net import CandidateNet, greedy
from held_out import Pair, PluginConfig, Question
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, PettingZooWrapper, SerialEnv
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, ValueEstimators
from tqdm import tqdm

from coars_env import FixedUser

GAMES, FRAMES, EPOCHS, MINIBATCH = 8, 512, 6, 128
"""Games side by side; steps between updates, all games together; passes over them; steps of a gradient."""


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    progress: bool = True
    """Whether a bar is shown."""


def learn(question: Question, config: Config) -> dict[str, Pair]:
    """Train, and name who plays whom."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        games = SerialEnv(GAMES, lambda: PettingZooWrapper(question.masked(), categorical_actions=True))
        games.set_seed(config.seed)
        sides = {group: Side(group, question, games, config.seed) for group in ("recommender", "user")}
        policy = TensorDictSequential(*(side.actor for side in sides.values()))
        total = config.steps // FRAMES * FRAMES
        batches = Collector(
            games, policy, frames_per_batch=FRAMES, total_frames=total, auto_register_policy_transforms=False
        )
        for batch in tqdm(batches, total=config.steps // FRAMES, disable=not config.progress):
            for side in sides.values():
                side.update(batch)
        batches.shutdown()
    recommender, user = (greedy(side.net, question.encoder) for side in sides.values())
    return {"TorchRL PPO, clicks": (recommender, FixedUser()), "TorchRL PPO, TorchRL PPO": (recommender, user)}


class Side:
    """One side's network, loss and optimiser; `group` is TorchRL's name for it."""

    def __init__(self, group: str, question: Question, games: EnvBase, seed: int) -> None:
        self.group = group
        self.net = CandidateNet(question.encoder)
        vector = (group, "observation", "observation")
        self.actor = ProbabilisticActor(
            TensorDictModule(self.net, in_keys=[vector], out_keys=[(group, "logits")]),
            spec=games.full_action_spec_unbatched[group, "action"],
            in_keys={"logits": (group, "logits"), "mask": (group, "action_mask")},
            out_keys=[(group, "action")],
            distribution_class=MaskedCategorical,
            return_log_prob=True,
            log_prob_key=(group, "action_log_prob"),
        )
        values = nn.Sequential(nn.Linear(question.encoder.size, 32), nn.Tanh(), nn.Linear(32, 1))
        critic = ValueOperator(values, in_keys=[vector], out_keys=[(group, "state_value")])
        self.loss = ClipPPOLoss(self.actor, critic, entropy_coeff=0.01, critic_coeff=0.5, normalize_advantage=True)
        names = ("reward", "action", "done", "terminated", "advantage", "value_target")
        self.loss.set_keys(
            **{name: (group, name) for name in names},
            sample_log_prob=(group, "action_log_prob"),
            value=(group, "state_value"),
        )
        self.loss.make_value_estimator(ValueEstimators.GAE, gamma=0.99, lmbda=0.95)
        self.draws = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=3e-3)

    def update(self, batch: TensorDictBase) -> None:
        """Learn from a batch, [games, steps]; of the advantages only those of its own half-turns are used."""
        with torch.no_grad():
            self.loss.value_estimator(batch)
        rows = batch.reshape(-1)
        rows = rows[~rows[self.group, "action_mask"][:, 0, -1]]  # where it might not wait
        for _ in range(EPOCHS):
            for part in torch.randperm(len(rows), generator=self.draws).split(MINIBATCH):
                losses = self.loss(rows[part])
                self.optimiser.zero_grad()
                sum(losses[name] for name in ("loss_objective", "loss_critic", "loss_entropy")).backward()
                nn.utils.clip_grad_norm_(self.loss.parameters(), 0.5)
                self.optimiser.step()


def main(config: Config) -> None:
    question = config.question()
    print(question.table({**question.at_random(config.seed), **learn(question, config)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
