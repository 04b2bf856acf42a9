"""Token credit: what hindsight adds, cut at the clip, and never a path for gradients."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import AdamW
from transformers import DynamicCache

from agents.models.backbones.backbone import Backbone
from agents.models.policy import Policy
from agents.training.credit import (
    AVERAGE,
    AveragedTeacher,
    ClippedLogRatio,
    Reading,
    SignFromReward,
    average_weights,
    averaged_weights,
    distilled_advantages,
    teacher_logprobs,
)
from agents.training.samples import TrainingSample, TurnSample, collate
from coars_env import ROLES, USER, Role, ShapeError

KINDS = ("pocket", "llama", "qwen3")


def without_hindsight(samples: list[TrainingSample]) -> list[TrainingSample]:
    return [replace(s, turns=tuple(replace(t, hindsight=()) for t in s.turns)) for s in samples]


def reader(role: Role, teacher: str) -> Role | None:
    """Whose adapter a teacher reads with."""
    return role if teacher == "live" else None


def advantages(policy: Policy, role: Role, samples: list[TrainingSample], teacher: str) -> torch.Tensor:
    student = collate(samples, 0, policy.backbone.device).rollout_logprobs
    return distilled_advantages(teacher_logprobs(policy, reader(role, teacher), samples), student)


def test_credit_is_the_difference_cut_at_the_clip() -> None:
    teacher, student = torch.tensor([-1.0, -0.5, -3.0, -0.1]), torch.tensor([-1.25, -2.5, -0.5, -0.1])
    assert distilled_advantages(teacher, student).tolist() == pytest.approx([0.25, 1.0, -1.0, 0.0])
    assert distilled_advantages(teacher, student, clip=2.0).tolist() == pytest.approx([0.25, 2.0, -2.0, 0.0])


@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1), st.floats(0.1, 3))
def test_credit_stays_within_the_clip_and_has_the_sign_of_the_difference(
    pairs: list[tuple[float, float]], clip: float
) -> None:
    teacher, student = torch.tensor(pairs, dtype=torch.float64).T
    found = distilled_advantages(teacher, student, clip=clip)
    assert bool((found.abs() <= clip).all())
    assert torch.equal(found.sign(), (teacher - student).sign())


def test_no_gradient_flows_through_the_credit() -> None:
    teacher, student = (torch.tensor([-1.0, -2.0], requires_grad=True) for _ in range(2))
    assert not distilled_advantages(teacher, student).requires_grad


def test_credit_of_unequal_batches_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"have shapes \(2,\) and \(3,\)"):
        distilled_advantages(torch.zeros(2), torch.zeros(3))


def test_both_kinds_of_credit_by_hand() -> None:
    """Differences of log 1.1, log 1.1 and 2 nats. The paper's: a tenth of them, the last one cut at 1. The other: w is
    1.1, 1 / 1.1 and, cut, 1.2, and half of w - 1 is added for each unit of reward.
    """
    rewards, student = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([-1.0, -2.0, -3.0])
    teacher = student + torch.tensor([math.log(1.1), math.log(1.1), 2.0])
    tenth = 0.1 * math.log(1.1)
    assert ClippedLogRatio()(rewards, teacher, student).tolist() == pytest.approx([tenth, tenth, 0.1])
    found = SignFromReward()(rewards, teacher, student).tolist()
    assert found == pytest.approx([0.05, 0.5 * (1 - 1 / 1.1), 0.05])


@given(st.floats(-2, 2), st.floats(-30, 0), st.floats(-30, 0), st.floats(0, 1))
def test_where_the_reward_gives_the_sign_hindsight_never_turns_a_turn_round(
    reward: float, teacher: float, student: float, lam: float
) -> None:
    rewards, with_hindsight, without = (torch.tensor([x], dtype=torch.float64) for x in (reward, teacher, student))
    total = rewards + SignFromReward(lam)(rewards, with_hindsight, without)
    assert torch.equal(total.sign(), rewards.sign())
    assert bool((total.abs() <= 1.2 * rewards.abs() + 1e-12).all())


def test_three_tokens_by_hand(bigrams: Backbone) -> None:
    """In a language where only the last letter counts, hindsight that stands before the header tells nothing; where it
    ends with a letter in the header's place, it does.
    """
    policy = Policy(bigrams, rank=2)
    # <|assistant|> | a b newline, each chosen among all letters, after the context c
    turn = TurnSample(context_end=1, start=2, end=5, columns=(2, 3, 4), reward=1.0, hindsight=(5, 6))
    sample = TrainingSample([7, 3, 5, 6, 4], [0, 0, -0.5, -0.6931, -2.3863], [None] * 5, (turn,))
    teacher = teacher_logprobs(policy, USER, [sample])
    # the table: a after the header 1/2, b after a 1/2, newline after b 1/4
    assert teacher.tolist() == pytest.approx([-0.6931, -0.6931, -1.3863], abs=1e-4)
    credit = distilled_advantages(teacher, collate([sample], 0, torch.device("cpu")).rollout_logprobs, clip=0.9)
    assert credit.tolist() == pytest.approx([-0.1931, 0.0, 0.9], abs=1e-4)
    assert not teacher.requires_grad


def test_averaged_weights_by_hand_and_with_the_moments() -> None:
    """From 1 by steps of 1 at a rate of a quarter: 1 + 1/4, then 3/4 of that and 3/4."""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    assert averaged_weights(optimizer)[0].tolist() == [1.0]
    for new, expected in ((2.0, 1.25), (3.0, 1.6875)):
        before = [weight.detach().clone()]
        weight.grad = torch.ones(1)
        optimizer.step()
        weight.data.fill_(new)
        average_weights(optimizer, before, 0.25)
        assert averaged_weights(optimizer)[0].tolist() == [expected]
    assert optimizer.state_dict()["state"][0]["average"].tolist() == [1.6875]


@pytest.mark.parametrize("role", ROLES)
def test_an_average_reads_with_its_own_weights_and_leaves_the_adapter(lab: Any, role: Role) -> None:
    policy, other = lab.policy(seed=1), lab.policy(seed=2)
    samples = lab.play(policy, 4).samples(role)
    before = [parameter.detach().clone() for parameter in policy.parameters(role)]
    optimizer = AdamW(policy.parameters(role))
    for mine, theirs in zip(policy.parameters(role), other.parameters(role), strict=True):
        optimizer.state[mine][AVERAGE] = theirs.detach().clone()
    found = AveragedTeacher().logprobs(Reading(policy=policy, role=role, samples=samples, optimizer=optimizer))
    assert torch.allclose(found, teacher_logprobs(other, role, samples), atol=1e-6)
    assert not torch.allclose(found, teacher_logprobs(policy, role, samples), atol=0.01)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(role), before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_a_live_teacher_without_hindsight_gives_no_credit_and_the_base_does(lab: Any, kind: str, role: Role) -> None:
    policy = lab.policy(kind)
    samples = lab.play(policy, 6).samples(role)
    plain = without_hindsight(samples)
    assert float(advantages(policy, role, plain, "live").abs().max()) <= 1e-5
    assert float(advantages(policy, role, plain, "base").abs().max()) > 0.01
    assert float(advantages(policy, role, samples, "live").abs().max()) > 0.01


def test_with_fresh_adapters_both_teachers_agree(lab: Any) -> None:
    policy = lab.policy(scale=0)
    samples = lab.play(policy, 4).samples(USER)
    live, base = (teacher_logprobs(policy, speaker, samples) for speaker in (USER, None))
    assert torch.allclose(live, base, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_scores_one_dialogue_as_it_scores_many(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    samples = lab.play(policy, 6).samples(USER)
    together = teacher_logprobs(policy, USER, samples)
    alone = torch.cat([teacher_logprobs(policy, USER, [sample]) for sample in samples])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_a_teacher_goes_on_from_what_its_weights_have_read(lab: Any, kind: str, role: Role) -> None:
    policy = lab.policy(kind)
    samples = lab.play(policy, 6).samples(role)
    batch = collate(samples, 0, policy.backbone.device)
    read = DynamicCache()
    plain = policy.score(role, batch.token_ids, batch.places, batch.allowed)
    logprobs = policy.score(role, batch.token_ids, batch.places, batch.allowed, cache=read)
    assert torch.equal(plain, logprobs)
    read_by_base = DynamicCache()
    with torch.no_grad():
        policy.score(None, batch.token_ids, batch.places, batch.allowed, cache=read_by_base)
    for speaker, already in ((role, read), (None, read_by_base)):
        expected = teacher_logprobs(policy, speaker, samples)
        found = teacher_logprobs(policy, speaker, samples, read=already)
        assert torch.allclose(found, expected, atol=1e-5)
        assert already.get_seq_length() == batch.token_ids.shape[1]
    gradients = []
    for each in (plain, logprobs):  # the student's gradient passes through what it read, whoever goes on from it
        each.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters(role)]))
        policy.peft.zero_grad()
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_the_teacher_leaves_both_sides_ready_to_learn(lab: Any) -> None:
    policy = lab.policy()
    samples = lab.play(policy, 2).samples(USER)
    for speaker in (USER, None):
        teacher_logprobs(policy, speaker, samples)
        assert all(p.requires_grad for role in ROLES for p in policy.parameters(role))
        assert all(p.grad is None for role in ROLES for p in policy.parameters(role))
