"""Learner: a side whose adapter learns, and how; Optimisation: how many updates of what size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.training.credit import SelfDistillation
from agents.training.samples import Baseline, TrainingSample, group_mean, group_normalized
from coars_env import RECOMMENDER, ROLES, USER, Agent, ConfigError, Role, Rules

Schedule = Callable[[int, int], float]
"""(number of the update from 0, number of all updates) -> factor of the learning rate."""


def warmup_cosine(step: int, steps: int, *, warmup: int = 5, floor: float = 0.1) -> float:
    """Warm up linearly, then fall by a cosine from 1 to `floor` (our choice)."""
    decay = floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    return min(1.0, (step + 1) / warmup) * decay


@dataclass(frozen=True, kw_only=True)
class Learner:
    """One side of the dialogue with an adapter that learns from it.

    Example: `Learner(agent=LLMAgent(policy, RECOMMENDER, items), learning_rate=2e-3)` learns from its rewards alone.

    Raises:
        ConfigError: an agent that keeps no tokens, such as a scripted one or a model behind an API; credit for tokens
            that were demonstrated; or a share of explored dialogues that is not in [0, 1) or not the user's.
    """

    agent: LLMAgent
    """Plays the side and keeps every token it sampled."""
    learning_rate: float
    """Of AdamW without decay, times `Optimisation.schedule`."""
    credit: SelfDistillation | None = None
    """Token credit beside the reward; None for the reward alone."""
    weigh: Callable[[Sequence[TrainingSample]], list[TrainingSample]] | None = None
    """Changes the weights of the samples of an update, for instance `balance_hits`."""
    explored_share: float = 0.0
    """Share of the dialogues in which the recommender's item is replaced by a random candidate under its own words.
    For a user that learns: a trained recommender soon proposes nothing but plausible items, and a user that hears no
    others cannot learn what to reject. The recommender does not learn from them."""

    def __post_init__(self) -> None:
        if not isinstance(self.agent, LLMAgent):
            raise ConfigError(
                f"A learner must keep the tokens it samples, but {type(self.agent).__name__} keeps none. Pass an "
                "LLMAgent, or pass this agent as the partner of a learner."
            )
        if not 0 <= self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be a number of at least 0, got {self.learning_rate}.")
        if self.credit is not None and self.agent.demonstrates:
            raise ConfigError(
                "Token credit judges what a side chose itself, but a Demonstrator chooses what the logs say. Leave "
                "credit out."
            )
        if not 0 <= self.explored_share < 1 or (self.explored_share and self.agent.role != USER):
            raise ConfigError(
                f"explored_share must be in [0, 1), and 0 for the recommender, got {self.explored_share} for "
                f"{self.agent.role}."
            )


Players = Mapping[Role, Agent | Learner]
"""Who plays each side. At least one is a `Learner`; the other may be any `Agent`: scripted, frozen, behind an API."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How many updates of what size.

    Raises:
        ConfigError: a number out of its range, or settings that contradict each other.
    """

    steps: int = 120
    """Updates (our choice)."""
    episodes_per_step: int = 192
    """Dialogues of an update (our choice)."""
    group_size: int = 1
    """Dialogues of one task. Tasks are of distinct users. The prefix that the dialogues of a task share is read once,
    in playing and in learning."""
    baseline: Baseline | None = None
    """What is subtracted from each reward; CoARS: nothing. `group_mean` and `group_normalized` need a group_size."""
    kl: float = 0.0
    """Weight in the loss of the divergence from the base, see `kl_to_base`; CoARS: none, GRPO: .001."""
    max_turns: int = 4
    """T; AFL's value (our choice)."""
    rules: Rules = field(default_factory=Rules)
    """Rules of the game beside its length."""
    discount: float = 0.0
    """gamma: a turn earns R_t + gamma R_(t+1) + gamma^2 R_(t+2) + ... of its own side, so that words which help later
    are paid for it. CoARS: 0, every turn pays for itself; above 0 our choice."""
    max_grad_norm: float = 1.0
    """Largest norm of an adapter's gradient (our choice)."""
    micro_batch: int = 16
    """Dialogues per forward pass of the update; changes memory, not the result."""
    schedule: Schedule = warmup_cosine
    """Factor of the learning rates."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "episodes_per_step", "group_size", "max_turns", "micro_batch"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"discount must be in [0, 1], got {self.discount}.")
        if self.kl < 0:
            raise ConfigError(f"kl must be at least 0, got {self.kl}: the divergence is held down, not up.")
        if self.episodes_per_step % self.group_size:
            raise ConfigError(
                f"episodes_per_step={self.episodes_per_step} is no multiple of group_size={self.group_size}, but each "
                "task is played by a whole group."
            )
        if self.baseline in (group_mean, group_normalized) and self.group_size == 1:
            raise ConfigError("A group of 1 is its own mean, so every reward would be 0. Set group_size to 2 or more.")

    def explored(self, share: float) -> int:
        """Return how many dialogues of an update are explored: whole groups."""
        return round(share * (self.episodes_per_step // self.group_size)) * self.group_size


def learners_of(policy: Policy, players: Players) -> dict[Role, Learner]:
    """Return the sides that learn.

    Raises:
        ConfigError: a side without player, one that is no Agent, no learner, or a learner of another policy or side.
    """
    if set(players) != set(ROLES):
        raise ConfigError(f"Players are needed for {' and '.join(ROLES)}, got {sorted(players) or 'none'}.")
    learners = {role: player for role in ROLES if isinstance(player := players[role], Learner)}
    if not learners:
        raise ConfigError(
            f"Nothing learns: neither {RECOMMENDER} nor {USER} is a Learner. Wrap an LLMAgent of the policy in "
            "Learner(agent=..., learning_rate=...)."
        )
    for role, player in players.items():
        if isinstance(player, Learner):
            if player.agent.policy is not policy or player.agent.role != role:
                raise ConfigError(
                    f"The learner for {role} plays {player.agent.role}"
                    f"{'' if player.agent.policy is policy else ' with another policy than the one that is trained'}. "
                    "Make its LLMAgent from the policy that is passed, for the side it plays."
                )
        elif not isinstance(player, Agent):
            raise ConfigError(
                f"The player for {role} is {player!r:.200}, which has no methods start and act. Pass an Agent or a "
                "Learner."
            )
    return learners


def agent_of(player: Agent | Learner) -> Agent:
    """Return who plays."""
    return player.agent if isinstance(player, Learner) else player
