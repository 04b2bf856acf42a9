"""The objective: what it weighs, what it leaves alone, and in which direction a step goes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.models.backbones.backbone import Backbone
from agents.models.policy import Policy
from agents.training.credit import distilled_advantages, teacher_logprobs
from agents.training.losses import coars_loss, kl_to_base, truncated_ratio
from agents.training.samples import TrainingSample, TurnSample, collate
from coars_env import RECOMMENDER, ROLES, USER, Role, ShapeError

KINDS = ("pocket", "llama", "qwen3")


def loss_of(
    policy: Policy, role: Role, samples: Sequence[TrainingSample], *, episodes: int, lam: float = 0.1, pad: int = 0
) -> Tensor:
    batch = collate(samples, pad, policy.backbone.device)
    hindsight = teacher_logprobs(policy, None, samples)
    credit = distilled_advantages(hindsight, batch.rollout_logprobs)
    logprobs = policy.score(role, batch.token_ids, batch.places, batch.allowed)
    return coars_loss(logprobs, batch.rewards, credit, batch.weights, lam=lam, num_episodes=episodes)


def gradient(policy: Policy, role: Role) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in policy.parameters(role) if p.grad is not None])
    policy.peft.zero_grad()
    return found


def chosen(samples: Sequence[TrainingSample], policy: Policy, role: Role) -> list[float]:
    """Log-probability of each sample's own tokens now."""
    found = []
    for sample in samples:
        batch = collate([sample], 0, policy.backbone.device)
        logprobs = policy.score(role, batch.token_ids, batch.places, batch.allowed)
        found.append(float(logprobs.detach().sum()))
    return found


# The number -----------------------------------------------------------------------------------------------------------


def test_the_objective_by_hand() -> None:
    """Two episodes. One turn of two tokens: R = 1, A = (.5, -1), log p = (-1, -2), so the mean of (1 + .1 A) log p is
    (-1.05 - 1.8) / 2 = -1.425. One turn of one token: R = -.5, A = 0, log p = -3, so 1.5. J = (-1.425 + 1.5) / 2.
    """
    loss = coars_loss(
        torch.tensor([-1.0, -2.0, -3.0]),
        torch.tensor([1.0, 1.0, -0.5]),
        torch.tensor([0.5, -1.0, 0.0]),
        torch.tensor([0.5, 0.5, 1.0]),
        lam=0.1,
        num_episodes=2,
    )
    assert loss.item() == pytest.approx(-0.0375)


def test_a_loss_of_unequal_lengths_is_refused() -> None:
    three, two = torch.zeros(3), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"have the shapes \[\(2,\), \(3,\)\]"):
        coars_loss(three, three, two, three, lam=0.1, num_episodes=1)


def test_three_tokens_from_logits_to_loss(bigrams: Backbone) -> None:
    policy = Policy(bigrams, rank=2)
    turn = TurnSample(context_end=1, start=2, end=5, columns=(2, 3, 4), reward=2.0, hindsight=(5,))
    sample = TrainingSample([7, 3, 5, 6, 4], [0, 0, -1.0, -1.0, -1.0], [None, None, None, (6, 7), (4, 5)], (turn,))
    # p = 1/2, .5/(.5 + .125) = .8, 1/2; the teacher says the same, so A = log p + 1
    logs = [math.log(0.5), math.log(0.8), math.log(0.5)]
    expected = -sum((2.0 + 0.1 * (log + 1.0)) * log for log in logs) / 3
    assert loss_of(policy, USER, [sample], episodes=1).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_give_that_weight_times_the_mean_logprob_whatever_the_length(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    for sample in lab.play(policy, 4).samples(USER):
        for turn in sample.turns:
            one = replace(sample, turns=(replace(turn, reward=0.7),))
            logprobs = [sample.rollout_logprobs[c] for c in turn.columns]
            expected = -0.7 * sum(logprobs) / len(logprobs) / 5
            assert loss_of(policy, USER, [one], episodes=5, lam=0.0).item() == pytest.approx(expected, abs=1e-5)


def test_turns_are_summed_and_episodes_averaged(lab: Any) -> None:
    policy = lab.policy()
    samples = lab.play(policy, 6).samples(RECOMMENDER)
    whole = loss_of(policy, RECOMMENDER, samples, episodes=6).item()
    parts = [
        loss_of(policy, RECOMMENDER, [replace(sample, turns=(turn,))], episodes=1).item()
        for sample in samples
        for turn in sample.turns
    ]
    assert whole == pytest.approx(sum(parts) / 6, abs=1e-5)


def test_scaling_reward_and_lambda_scales_loss_and_gradient_alike(lab: Any) -> None:
    policy = lab.policy()
    samples = lab.play(policy, 4).samples(USER)
    tripled = [replace(s, turns=tuple(replace(t, reward=3 * t.reward) for t in s.turns)) for s in samples]
    one, three = loss_of(policy, USER, samples, episodes=4), loss_of(policy, USER, tripled, episodes=4, lam=0.3)
    assert three.item() == pytest.approx(3 * one.item(), rel=1e-5)
    one.backward()
    expected = 3 * gradient(policy, USER)
    three.backward()
    assert torch.allclose(gradient(policy, USER), expected, rtol=1e-4, atol=1e-6)


# What it leaves alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_own_chosen_tokens_get_a_gradient(lab: Any, kind: str) -> None:
    """By the gradient of the logits of every position: template, partner, given tokens and padding have none."""
    policy = lab.policy(kind)
    played = lab.play(policy, 4)
    for role in ROLES:
        batch = collate(played.samples(role), 0, policy.backbone.device)
        with policy.use_adapter(role) as model:
            logits = model(input_ids=batch.token_ids).logits
        logits.retain_grad()
        rows, columns = batch.places
        logprobs = torch.log_softmax(logits, -1)[rows, columns - 1, batch.token_ids[rows, columns]]
        ones, zeros = torch.ones(len(rows)), torch.zeros(len(rows))
        coars_loss(logprobs, ones, zeros, batch.weights, lam=0.1, num_episodes=4).backward()
        assert logits.grad is not None
        touched = {(r, c + 1) for r, c in logits.grad.abs().sum(-1).nonzero().tolist()}
        own = {(r, c) for r, row in enumerate(played.agents[role].rows) for c, own in enumerate(row.sampled) if own}
        assert touched == own


def test_what_pads_a_row_changes_neither_loss_nor_gradient(lab: Any) -> None:
    policy = lab.policy()
    samples = lab.play(policy, 5).samples(USER)
    found = []
    for pad in (0, 77):
        loss = loss_of(policy, USER, samples, episodes=5, pad=pad)
        loss.backward()
        found.append((loss.item(), gradient(policy, USER)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_an_excluded_turn_adds_exactly_nothing(lab: Any) -> None:
    policy = lab.policy()
    several = next(s for s in lab.play(policy, 8).samples(RECOMMENDER) if len(s.turns) > 1)
    first, rest = (replace(several, turns=turns) for turns in (several.turns[:1], several.turns[1:]))
    other_records = [5.0 if c < first.turns[0].end else x for c, x in enumerate(rest.rollout_logprobs)]
    found = []
    for sample in (rest, replace(rest, rollout_logprobs=other_records)):
        loss = loss_of(policy, RECOMMENDER, [sample], episodes=1)
        loss.backward()
        found.append((loss.item(), gradient(policy, RECOMMENDER)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    whole, alone = (loss_of(policy, RECOMMENDER, [sample], episodes=1).item() for sample in (several, first))
    assert whole - alone == pytest.approx(found[0][0], abs=1e-5)


def test_the_order_of_the_two_sides_changes_neither_gradient(lab: Any) -> None:
    policy = lab.policy()
    played = lab.play(policy, 4)
    found = []
    for order in (ROLES, ROLES[::-1]):
        for role in order:
            loss_of(policy, role, played.samples(role), episodes=4).backward()
        grads = {role: torch.cat([p.grad.flatten() for p in policy.parameters(role)]) for role in ROLES}
        policy.peft.zero_grad()
        found.append(grads)
    for role in ROLES:
        assert torch.equal(found[0][role], found[1][role])
        assert float(found[0][role].abs().sum()) > 0


def test_stepping_one_side_leaves_the_other_and_the_base_bit_equal(lab: Any) -> None:
    policy = lab.policy()
    played = lab.play(policy, 4)
    for role, frozen in (ROLES, ROLES[::-1]):
        mine = {id(p) for p in policy.parameters(role)}
        before = {name: p.detach().clone() for name, p in policy.peft.named_parameters() if id(p) not in mine}
        own = [p.detach().clone() for p in policy.parameters(role)]
        optimizer = torch.optim.AdamW(policy.parameters(role), lr=1e-2, weight_decay=0.0)
        for side in ROLES:  # gradients for both, a step for one
            loss_of(policy, side, played.samples(side), episodes=4).backward()
        optimizer.step()
        policy.peft.zero_grad()
        after = dict(policy.peft.named_parameters())
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert not any(torch.equal(a, b) for a, b in zip(own, policy.parameters(role), strict=True))
        assert frozen != role


# One batch or many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_eight_dialogues_at_once_equal_eight_one_by_one(lab: Any, kind: str, role: Role) -> None:
    policy = lab.policy(kind)
    samples = lab.play(policy, 8).samples(role)
    whole = loss_of(policy, role, samples, episodes=8)
    whole.backward()
    expected = gradient(policy, role)
    total = 0.0
    for sample in samples:
        loss = loss_of(policy, role, [sample], episodes=8)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), abs=1e-5)
    assert torch.allclose(gradient(policy, role), expected, rtol=1e-4, atol=1e-5)


# Direction ------------------------------------------------------------------------------------------------------------


def step(policy: Policy, role: Role, sample: TrainingSample) -> float:
    """How much more likely the sample's own tokens are after one small step on it alone."""
    before = chosen([sample], policy, role)[0]
    loss_of(policy, role, [sample], episodes=1).backward()
    for parameter in policy.parameters(role):
        if parameter.grad is not None:
            parameter.data -= 1e-3 * parameter.grad
    policy.peft.zero_grad()
    return chosen([sample], policy, role)[0] - before


def by_outcome(lab: Any, policy: Policy, role: Role) -> dict[tuple[bool, bool], TrainingSample]:
    """One turn of each outcome: hit or miss, liked or not."""
    found: dict[tuple[bool, bool], TrainingSample] = {}
    for seed in range(6):
        played = lab.play(policy, 12, seed=seed)
        for sample, transcript in zip(played.samples(role), played.transcripts, strict=True):
            for turn, said in zip(sample.turns, transcript.turns, strict=True):
                if said.answer.strength != 0.5:  # there the user is neither right nor wrong
                    found[said.proposal == transcript.task.target, said.positive] = replace(sample, turns=(turn,))
    assert len(found) == 4
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_a_hit_raises_and_on_a_miss_lowers_the_proposal(lab: Any, kind: str) -> None:
    for (hit, _), sample in by_outcome(lab, lab.policy(kind), RECOMMENDER).items():
        change = step(lab.policy(kind), RECOMMENDER, sample)
        assert (change > 0) == hit
        assert change != 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_raises_a_hit_accepted_or_a_miss_rejected_and_lowers_the_others(lab: Any, kind: str) -> None:
    for (hit, liked), sample in by_outcome(lab, lab.policy(kind), USER).items():
        change = step(lab.policy(kind), USER, sample)
        assert (change > 0) == (hit == liked)
        assert change != 0


def test_the_divergence_from_the_base_is_right_on_average_and_never_negative() -> None:
    """The student says a or b with .5 each, the base with .25 and .75: the ratios base / student are .5 and 1.5, so k3
    is .5 - log .5 - 1 and 1.5 - log 1.5 - 1, and their mean is .5 log(.5 / .25) + .5 log(.5 / .75).
    """
    found = kl_to_base(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    assert found.tolist() == pytest.approx([math.log(2) - 0.5, 0.5 - math.log(1.5)])
    assert found.mean().item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert bool((found >= 0).all())


def test_the_weight_of_a_token_that_another_program_sampled_is_their_ratio_up_to_the_cap() -> None:
    """Policy and sampler: .1 and .2, .3 and .3, .9 and .6, .8 and .1, which would be 8."""
    logprobs = torch.tensor([0.1, 0.3, 0.9, 0.8]).log().requires_grad_()
    found = truncated_ratio(logprobs, torch.tensor([0.2, 0.3, 0.6, 0.1]).log())
    assert found.tolist() == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert not found.requires_grad
    with pytest.raises(ShapeError, match="all are given per token"):
        truncated_ratio(logprobs, torch.zeros(3))
