"""PPO in one file, in the style of CleanRL: both agents learn, each with a network of its own. Needs torch.

python examples/with_cleanrl.py

Copy it and edit it. The games run side by side in arrays and are in the same half-turn, so the sides act by turns, and
a transition of either side is one turn: what it saw, what it did, and what the turn paid.
"""

from dataclasses import dataclass
from typing import Any

import torch
import tyro
from candidate_net import CandidateNet, greedy
from held_out import Pair, PluginConfig, Question
from torch import nn
from torch.distributions import Categorical
from tqdm import tqdm

from coars_env import ROLES, FixedUser, VectorNumericEnv


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    games: int = 32
    """Games side by side."""
    turns: int = 8
    """Turns of each game between updates."""
    epochs: int = 6
    minibatch: int = 128
    learning_rate: float = 3e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    progress: bool = True
    """Whether a bar is shown."""


class Side(nn.Module):
    """Policy and value of one side, with what it has seen since the last update."""

    def __init__(self, question: Question, config: Config) -> None:
        super().__init__()
        self.net = CandidateNet(question.encoder)
        self.value = nn.Sequential(nn.Linear(question.encoder.size, 32), nn.Tanh(), nn.Linear(32, 1))
        self.optimiser = torch.optim.Adam(self.parameters(), lr=config.learning_rate)
        self.draws = torch.Generator().manual_seed(config.seed)
        self.seen: list[dict[str, torch.Tensor]] = []  # one entry a turn, each of its tensors [games, ...]

    def policy(self, vector: torch.Tensor, mask: torch.Tensor) -> Categorical:
        return Categorical(logits=self.net(vector).masked_fill(~mask, -1e9))

    @torch.no_grad()
    def act(self, vectors: Any, masks: Any) -> Any:
        """[games] acts for [games, L] vectors and [games, n] masks, kept for the update."""
        vector, mask = torch.tensor(vectors), torch.as_tensor(masks).bool()
        policy = self.policy(vector, mask)
        act = policy.sample()
        log_prob, value = policy.log_prob(act), self.value(vector).squeeze(-1)
        self.seen.append({"vector": vector, "mask": mask, "act": act, "log_prob": log_prob, "value": value})
        return act.numpy()

    def update(self, config: Config) -> None:
        """PPO on the turns seen but the last, which tells what the one before led to and waits for the next update."""
        *seen, last = self.seen
        advantage, next_value = torch.zeros(config.games), last["value"]
        for turn in reversed(seen):  # generalised advantage estimation
            goes_on = 1 - turn["ended"]
            delta = turn["reward"] + config.gamma * goes_on * next_value - turn["value"]
            advantage = delta + config.gamma * config.gae_lambda * goes_on * advantage
            turn["advantage"], turn["return"] = advantage, advantage + turn["value"]
            next_value = turn["value"]
        rows = {key: torch.cat([turn[key] for turn in seen]) for key in seen[0]}
        for _ in range(config.epochs):
            for part in torch.randperm(len(rows["act"]), generator=self.draws).split(config.minibatch):
                self.learn_from({key: value[part] for key, value in rows.items()}, config)
        self.seen = [last]

    def learn_from(self, rows: dict[str, torch.Tensor], config: Config) -> None:
        policy = self.policy(rows["vector"], rows["mask"])
        ratio = (policy.log_prob(rows["act"]) - rows["log_prob"]).exp()
        advantage = (rows["advantage"] - rows["advantage"].mean()) / (rows["advantage"].std() + 1e-8)
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
        value_loss = (self.value(rows["vector"]).squeeze(-1) - rows["return"]).square().mean()
        loss = policy_loss + 0.5 * value_loss - config.entropy * policy.entropy().mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 0.5)
        self.optimiser.step()


def play_turn(games: VectorNumericEnv, observations: Any, infos: Any, sides: dict[str, Side]) -> tuple[Any, Any]:
    """One turn of every game, both half-turns. Returns what is seen then; games that have ended have begun anew."""
    for role in ROLES:
        acts = sides[role].act(observations[role], infos[role]["action_mask"])
        observations, rewards, ended, _, infos = games.step(dict.fromkeys(ROLES, acts))  # the silent side's are ignored
    for role in ROLES:  # both are paid when the user has answered
        sides[role].seen[-1]["reward"] = torch.tensor(rewards[role], dtype=torch.float32)
        sides[role].seen[-1]["ended"] = torch.tensor(ended[role], dtype=torch.float32)
    return observations, infos


def learn(question: Question, config: Config) -> dict[str, Pair]:
    """Train, and name who plays whom. A step is a half-turn of one game."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        sides = {role: Side(question, config) for role in ROLES}
        games = VectorNumericEnv(question.numeric(), config.games)
        observations, infos = games.reset(seed=config.seed)
        for _ in tqdm(range(config.steps // (2 * config.games * config.turns)), disable=not config.progress):
            for _ in range(config.turns):
                observations, infos = play_turn(games, observations, infos, sides)
            for side in sides.values():
                side.update(config)
    recommender, user = (greedy(sides[role].net, question.encoder) for role in ROLES)
    return {"PPO, clicks": (recommender, FixedUser()), "PPO, PPO": (recommender, user)}


def main(config: Config) -> None:
    question = config.question()
    print(question.table({**question.at_random(config.seed), **learn(question, config)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
