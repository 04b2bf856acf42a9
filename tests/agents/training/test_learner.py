"""Who learns opposite whom: one side alone, a scripted or frozen partner, and what is refused before anything plays."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.training.learner import Learner, Optimisation, learners_of
from agents.training.samples import balance_hits, group_normalized
from agents.training.train import train
from agents.training.update import StepMetrics
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    Agent,
    CoarsReward,
    ConfigError,
    FixedUser,
    Observation,
    RandomRecommender,
    Role,
    TaskBuilder,
    TrainingError,
    Transcript,
)

SHORT = Optimisation(steps=1, episodes_per_step=8, max_turns=2)


def weights(policy: Policy, role: Role) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters(role)])


def learner(policy: Policy, lab: Any, role: Role, **settings: Any) -> Learner:
    return Learner(agent=LLMAgent(policy, role, lab.split.dataset.items), learning_rate=1e-2, **settings)


def a_run(policy: Policy, build: TaskBuilder, players: Mapping[Role, Any]) -> tuple[StepMetrics, list[Transcript]]:
    found: list[tuple[StepMetrics, list[Transcript]]] = []
    train(
        policy,
        build,
        players,
        reward=CoarsReward(),
        optimisation=SHORT,
        on_step=lambda step, metrics, transcripts: found.append((metrics, list(transcripts))),
    )
    return found[0]


class Counting:
    """A scripted recommender that counts how often it was asked."""

    def __init__(self) -> None:
        self.inner, self.asked = RandomRecommender(), 0

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.inner.start(seeds)

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.asked += len(observations)
        return self.inner.act(observations)


@pytest.mark.parametrize("role", ROLES)
def test_one_side_learns_opposite_a_scripted_partner(lab: Any, build: TaskBuilder, role: Role) -> None:
    policy = lab.policy(scale=0.1)
    before = {side: weights(policy, side) for side in ROLES}
    partner: Agent = FixedUser("dislike", 0.1) if role == RECOMMENDER else Counting()
    players = {RECOMMENDER: partner, USER: partner, role: learner(policy, lab, role)}
    metrics, transcripts = a_run(policy, build, players)
    assert {side for side in ROLES if not torch.equal(weights(policy, side), before[side])} == {role}
    assert len(transcripts) == 8
    if role == RECOMMENDER:
        assert "user_gradient" not in metrics
        assert metrics["acceptance_on_misses"] == 0
        assert {len(t.turns) for t in transcripts} == {2}
    else:
        assert "rec_gradient" not in metrics
        assert isinstance(partner, Counting)
        assert partner.asked == sum(len(t.turns) for t in transcripts)


def test_an_agent_of_another_policy_is_a_frozen_partner(lab: Any, build: TaskBuilder) -> None:
    policy, frozen = lab.policy(scale=0.1), lab.policy("llama")
    before = weights(frozen, USER)
    partner = LLMAgent(frozen, USER, lab.split.dataset.items)
    a_run(policy, build, {RECOMMENDER: learner(policy, lab, RECOMMENDER), USER: partner})
    assert torch.equal(weights(frozen, USER), before)


def test_nothing_is_explored_for_a_user_that_does_not_learn(lab: Any, build: TaskBuilder) -> None:
    """Six of eight dialogues teach the recommender opposite a user that explores, all eight opposite one that does not
    learn.
    """
    policy = lab.policy(scale=0.1)
    user = learner(policy, lab, USER, explored_share=0.25, weigh=balance_hits)
    _, transcripts = a_run(policy, build, {RECOMMENDER: learner(policy, lab, RECOMMENDER), USER: user})
    assert len(transcripts) == 6
    _, transcripts = a_run(policy, build, {RECOMMENDER: learner(policy, lab, RECOMMENDER), USER: FixedUser()})
    assert len(transcripts) == 8


class Broken(FixedUser):
    """Raises whenever it is asked."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        raise RuntimeError("no answer today")


def test_a_partner_that_breaks_ends_the_training_with_its_cause(lab: Any, build: TaskBuilder) -> None:
    policy = lab.policy()
    with pytest.raises(TrainingError, match=r"All 8 dialogues of update 0 failed: user_0: RuntimeError\('no answer"):
        a_run(policy, build, {RECOMMENDER: learner(policy, lab, RECOMMENDER), USER: Broken()})


def test_an_agent_that_keeps_no_tokens_cannot_learn() -> None:
    agent: Any = FixedUser()
    with pytest.raises(ConfigError, match=r"A learner must keep the tokens it samples, but FixedUser keeps none\."):
        Learner(agent=agent, learning_rate=1e-3)


def test_what_cannot_train_is_refused_before_anything_plays(lab: Any) -> None:
    policy, other = lab.policy(), lab.policy()
    recommender = learner(policy, lab, RECOMMENDER)
    user: Any = LLMAgent(policy, USER, lab.split.dataset.items)
    with pytest.raises(ConfigError, match="Nothing learns: neither recommender_0 nor user_0 is a Learner"):
        learners_of(policy, {RECOMMENDER: RandomRecommender(), USER: user})
    with pytest.raises(ConfigError, match=r"Players are needed for recommender_0 and user_0, got \['user_0'\]"):
        learners_of(policy, {USER: user})
    with pytest.raises(ConfigError, match="The learner for user_0 plays recommender_0"):
        learners_of(policy, {RECOMMENDER: user, USER: recommender})
    with pytest.raises(ConfigError, match="with another policy than the one that is trained"):
        learners_of(other, {RECOMMENDER: recommender, USER: user})
    nothing: Any = object()
    with pytest.raises(ConfigError, match=r"The player for user_0 is <object object .* no methods start and act"):
        learners_of(policy, {RECOMMENDER: recommender, USER: nothing})
    with pytest.raises(ConfigError, match=r"learning_rate must be a number of at least 0, got -1\.0"):
        Learner(agent=user, learning_rate=-1.0)
    with pytest.raises(ConfigError, match="learning_rate must be a number of at least 0, got inf"):
        Learner(agent=user, learning_rate=float("inf"))
    with pytest.raises(ConfigError, match=r"explored_share must be in \[0, 1\), .* got 0\.5 for recommender_0"):
        learner(policy, lab, RECOMMENDER, explored_share=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"kl": -0.1}, r"kl must be at least 0, got -0\.1"),
        ({"episodes_per_step": 9, "group_size": 2}, "episodes_per_step=9 is no multiple of group_size=2"),
        ({"baseline": group_normalized}, "A group of 1 is its own mean"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Optimisation(**settings)
