"""update: one gradient step of one adapter."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import DynamicCache

from agents.models.policy import Policy
from agents.players.served import MOST_MISMATCH
from agents.training.credit import Reading, distilled_advantages, student_logprobs
from agents.training.distributed import ProcessGroup
from agents.training.learner import Learner, Optimisation
from agents.training.losses import kl_to_base, policy_gradient, truncated_ratio
from agents.training.samples import TrainingSample, collate, shard_samples
from coars_env import RECOMMENDER, ROLES, Role, TrainingError

_log = logging.getLogger("coars_env")

LEAST_ENTROPY = 0.01
"""Nats a token (our choice). Below it a side departs from its likeliest choice about once in a thousand tokens, so its
dialogues are equal and nothing more can be learnt from them."""

StepMetrics = dict[str, float]
Optimizers = dict[Role, AdamW]


def new_optimizers(policy: Policy) -> Optimizers:
    """Make one optimizer for each adapter: AdamW without decay. `train` sets the learning rate of every update."""
    return {role: AdamW(policy.parameters(role), weight_decay=0.0) for role in ROLES}


@dataclass
class Kept:
    """Numbers of each trained token, for the metrics, by name."""

    tensors: dict[str, list[Tensor]] = field(
        default_factory=lambda: {"credit": [], "logprob": [], "ratio": [], "kl": []}
    )
    loss: float = 0.0

    def add(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.tensors[name].append(tensor.detach())


def update(
    policy: Policy,
    role: Role,
    learner: Learner,
    samples: Sequence[TrainingSample],
    optimizer: AdamW,
    optimisation: Optimisation,
    *,
    learning_rate: float,
    num_episodes: int,
    processes: ProcessGroup,
) -> StepMetrics:
    """Make one gradient step of one adapter.

    Args:
        policy: base and adapters.
        role: whose adapter.
        learner: how it learns.
        samples: of all processes; each process takes its share.
        optimizer: of the adapter.
        optimisation: settings of the update.
        learning_rate: of this update.
        num_episodes: dialogues of the whole batch, those without samples among them.
        processes: that make the step together.

    Returns:
        Metrics, named by the side.

    Raises:
        TrainingError: see `train`; the adapter is as it was.
    """
    if not samples:
        _log.warning("%s has nothing to learn from in this update: all its turns are left out", role)
    optimizer.zero_grad()
    kept = Kept()
    mine = shard_samples(samples, processes.rank, processes.world_size)
    for first in range(0, len(mine), optimisation.micro_batch):
        part = mine[first : first + optimisation.micro_batch]
        loss = _loss(policy, role, learner, part, optimizer, optimisation, num_episodes, kept)
        loss.backward()
        kept.loss += float(loss.detach())
    kept = Kept(processes.concatenate(kept.tensors), sum(processes.all_gather(kept.loss)))
    if samples:
        processes.all_reduce_gradients(policy.parameters(role))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    norm = float(nn.utils.clip_grad_norm_(policy.parameters(role), optimisation.max_grad_norm))
    metrics = _metrics(role, learner, kept, norm, empty=not samples)
    _check(role, learner, metrics, kept, norm, empty=not samples)
    before = [parameter.detach().clone() for parameter in policy.parameters(role)]
    optimizer.step()
    if learner.credit is not None:
        learner.credit.teacher.after_step(optimizer, before)
    return metrics


def _loss(
    policy: Policy,
    role: Role,
    learner: Learner,
    part: Sequence[TrainingSample],
    optimizer: AdamW,
    optimisation: Optimisation,
    num_episodes: int,
    kept: Kept,
) -> Tensor:
    """Compute the loss of some samples, and keep the numbers of their tokens."""
    temperature, credit = learner.agent.temperature, learner.credit
    batch = collate(part, policy.backbone.tokenizer.pad_token_id or 0, policy.backbone.device)
    read, of_base = DynamicCache(), None
    logprobs = student_logprobs(policy, role, batch, temperature=temperature, read=read)
    sampled = logprobs.detach() if learner.agent.demonstrates else batch.rollout_logprobs
    earned, weights, student = batch.rewards, batch.weights, sampled
    if learner.agent.samples_elsewhere:  # its numbers say how it sampled, the policy's say what is to be learnt
        weights, student = weights * truncated_ratio(logprobs, student), logprobs.detach()
    needs_base = credit is not None and credit.teacher.needs_base
    if needs_base or optimisation.kl:
        of_base = DynamicCache()
        with torch.no_grad():
            base = student_logprobs(policy, None, batch, temperature=temperature, read=of_base)
        divergence = kl_to_base(logprobs, base)
        kept.add(kl=divergence)
    if credit is not None:
        reading = Reading(
            policy=policy,
            role=role,
            samples=part,
            optimizer=optimizer,
            temperature=temperature,
            student_cache=read,
            base_cache=of_base,
        )
        with_hindsight = credit.teacher.logprobs(reading)
        earned = earned + credit.credit(earned, with_hindsight, student)
        kept.add(credit=distilled_advantages(with_hindsight, student, clip=credit.credit.clip))
    kept.add(logprob=sampled, ratio=(logprobs.detach() - sampled).exp())
    loss = policy_gradient(logprobs, earned, weights, num_episodes=num_episodes)
    if optimisation.kl:
        loss = loss + optimisation.kl * (weights * divergence).sum() / num_episodes
    return loss


def _metrics(role: Role, learner: Learner, kept: Kept, norm: float, *, empty: bool) -> StepMetrics:
    name = "rec" if role == RECOMMENDER else "user"
    tensors = {key: torch.cat(values) if values else torch.zeros(1) for key, values in kept.tensors.items()}
    clip = learner.credit.credit.clip if learner.credit is not None else np.inf
    metrics = {
        f"{name}_credit": float(tensors["credit"].mean()),
        f"{name}_clipped": float((tensors["credit"].abs() >= clip).float().mean()),
        f"{name}_surprise": -float(tensors["logprob"].mean()),
        f"{name}_ratio_max": float(tensors["ratio"].max()),
        f"{name}_gradient": norm,
        f"{name}_tokens": float(sum(map(len, kept.tensors["logprob"]))),
    }
    if kept.tensors["kl"]:
        metrics[f"{name}_kl"] = float(tensors["kl"].mean())
    if learner.agent.samples_elsewhere and not empty:
        differences = tensors["ratio"].log().abs()
        metrics[f"{name}_mismatch"] = float(differences.mean())
        metrics[f"{name}_mismatch_max"] = float(differences.max())
        metrics[f"{name}_ratio_mean"] = float(tensors["ratio"].mean())
    return metrics


def _check(role: Role, learner: Learner, metrics: StepMetrics, kept: Kept, norm: float, *, empty: bool) -> None:
    """Refuse a step that would do harm.

    Raises:
        TrainingError: see `train`.
    """
    name = "rec" if role == RECOMMENDER else "user"
    if not np.isfinite([kept.loss, norm]).all():
        raise TrainingError(
            f"Training diverged: the loss of {role} is {kept.loss} and the norm of its gradient {norm}. Lower its "
            "learning rate."
        )
    if empty:
        return
    if learner.agent.samples_elsewhere and not metrics[f"{name}_mismatch"] <= MOST_MISMATCH:
        raise TrainingError(
            f"The server's log-probabilities of {role} differ from the policy's by {metrics[f'{name}_mismatch']:.3g} "
            f"nats, the mean of {int(metrics[f'{name}_tokens'])} tokens; at most {MOST_MISMATCH} is accepted. See "
            "docs/serving.md on what may differ."
        )
    if metrics[f"{name}_surprise"] < LEAST_ENTROPY:
        raise TrainingError(
            f"The entropy of {role} fell to {metrics[f'{name}_surprise']:.2g} nats a token, below {LEAST_ENTROPY}: a "
            "side that is certain of every token learns no more. Lower its learning rate, or stop earlier."
        )
