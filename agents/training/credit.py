"""Token credit [N]: what hindsight adds to the reward of a turn, token by token."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers.cache_utils import DynamicCache

from agents.models.backbones.backbone import body, check_context
from agents.models.decoding import additive
from agents.models.policy import Policy
from agents.training.samples import Batch, TrainingSample, collate, collate_teacher
from coars_env import Role, ShapeError

TeacherKind = Literal["live", "base", "ema"]
"""Whose weights re-read the reply: the side's own adapter as it is (the paper's reading), the bare base, or a running
average of the adapter, see `average_weights`."""

AVERAGE = "average"
"""Name of the averaged weights in an optimizer's state, where they are saved with the moments."""

Credit = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(reward of each token's turn, its log-probability with hindsight in the context, and without) -> what is added to the
reward. [N] each, nats; no gradient goes through it."""


@dataclass(frozen=True)
class ClippedLogRatio:
    """lambda A, the paper's: hindsight praises or blames a token whatever the turn earned. See `distilled_advantages`.

    The expectation of this term is a reverse KL to the teacher, so the student is also drawn to what only hindsight
    says (the argument of arXiv:2604.03128 on self-distillation; that it holds here is our inference).
    """

    lam: float = 0.1
    """lambda; published."""
    clip: float = 1.0
    """Published."""

    def __call__(self, rewards: Tensor, teacher: Tensor, student: Tensor) -> Tensor:
        return self.lam * distilled_advantages(teacher, student, clip=self.clip)


@dataclass(frozen=True)
class SignFromReward:
    """The reward decides which way a turn is pushed, the teacher how much of it falls to each token:

        w_n = clip(exp(sign(R) (log pi_T - log pi_S)), 1 - clip, 1 + clip);   R ((1 - lambda) + lambda w_n)

    RLSD, arXiv:2604.03128, whose advantage of a group we replace by R_t. What is returned is that less R. The turn's
    sign never changes, so hindsight cannot pay for words by itself. Their lambda falls to 0 in training; ours stays.
    """

    lam: float = 0.5
    """Published, as is the clip."""
    clip: float = 0.2

    def __call__(self, rewards: Tensor, teacher: Tensor, student: Tensor) -> Tensor:
        w = (rewards.sign() * (teacher - student).detach()).exp().clamp(1 - self.clip, 1 + self.clip)
        return rewards * self.lam * (w - 1)


def distilled_advantages(teacher_logprobs: Tensor, student_logprobs: Tensor, *, clip: float = 1.0) -> Tensor:
    """Credit each sampled token by how much hindsight makes it likelier.

    A_n = clip(log pi_T(y_n | x, d, y_<n) - log pi_S(y_n | x, y_<n), -clip, clip), arXiv:2604.10029, Eq. 10.

    Args:
        teacher_logprobs: [N] nats, the same tokens with hindsight in the context.
        student_logprobs: [N] nats, the policy's own.
        clip: largest credit.

    Returns:
        [N], within [-clip, clip], without gradient.

    Raises:
        ShapeError: the two shapes differ.
    """
    if teacher_logprobs.shape != student_logprobs.shape:
        raise ShapeError(
            f"Teacher and student score the same tokens. Expected shape {tuple(student_logprobs.shape)}, found "
            f"{tuple(teacher_logprobs.shape)}. Score one batch with both."
        )
    return (teacher_logprobs - student_logprobs).detach().clamp(-clip, clip)


def student_logprobs(
    policy: Policy, role: Role | None, batch: Batch, *, temperature: float = 1.0, read: DynamicCache | None = None
) -> Tensor:
    """Log-probabilities of the batch's tokens without hindsight, under a side's adapter or the bare base for None, [N].

    What samples begin with in common is read once, and its gradient is the sum of theirs.

    Args:
        policy: base and adapters.
        role: whose messages.
        batch: of `collate`.
        temperature: that of the sampling.
        read: an empty cache that takes all keys and values.
    """
    if read is None and batch.shared_prefixes is not None:
        read = DynamicCache()
    prefill_shared_prefixes(policy, role, batch, read)
    return policy.score(
        role,
        batch.token_ids,
        batch.places,
        batch.allowed,
        temperature=temperature,
        attention_mask=batch.mask,
        position_ids=batch.position_ids,
        cache=read,
    )


@torch.no_grad()
def average_weights(optimizer: Optimizer, before: Sequence[Tensor], rate: float) -> None:
    """Move the running average of an adapter towards what it is after a step: a <- (1 - rate) a + rate w.

    The weights of an EMA teacher; SDPO, arXiv:2601.20802, has a rate of .05.

    Args:
        optimizer: of the adapter; keeps the averages.
        before: the adapter before the step, the average to begin with.
        rate: in (0, 1].
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, start in zip(parameters, before, strict=True):
        state = optimizer.state[parameter]
        state[AVERAGE] = state.get(AVERAGE, start).lerp(parameter, rate)


def averaged_weights(optimizer: Optimizer) -> list[Tensor]:
    """The averages; before the first step the weights themselves."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [optimizer.state[parameter].get(AVERAGE, parameter.data) for parameter in parameters]


def prefill_shared_prefixes(policy: Policy, role: Role | None, batch: Batch, read: DynamicCache | None) -> None:
    """Read what rows have in common, if anything, and copy it to each of them."""
    if batch.shared_prefixes is not None:
        assert read is not None
        with policy.use_adapter(role) as model:
            body(model)(input_ids=batch.shared_prefixes.token_ids, cache=read, use_cache=True)
        read.batch_select_indices(batch.shared_prefixes.of_row)


@torch.no_grad()
def teacher_logprobs(
    policy: Policy,
    role: Role,
    samples: Sequence[TrainingSample],
    *,
    teacher: TeacherKind,
    temperature: float = 1.0,
    read: DynamicCache | None = None,
    averages: Sequence[Tensor] | None = None,
) -> Tensor:
    """Log-probabilities of the samples' tokens with hindsight d_t after the context x_t, [N]; order as in `collate`.

    Call it before the optimizer step: a live teacher has the weights of the rollout.

    Args:
        policy: base and adapters.
        role: whose messages.
        samples: the dialogues.
        teacher: whose weights.
        temperature: that of the sampling.
        read: keys and values of `collate(samples)` under the teacher's weights, as `student_logprobs` leaves them, so
            that it need not read the dialogues again. It is left as it was.
        averages: the weights of an "ema" teacher.

    Raises:
        BackboneError: with hindsight a dialogue is longer than the model's context.
    """
    if averages is not None:
        with policy.use_weights(role, averages):
            return teacher_logprobs(policy, role, samples, teacher="live", temperature=temperature, read=read)
    pad, device = policy.backbone.tokenizer.pad_token_id or 0, policy.backbone.device
    speaker = role if teacher == "live" else None
    if read is None:
        dialogues, read = collate(samples, pad, device), DynamicCache()
        prefill_shared_prefixes(policy, speaker, dialogues, read)
        with policy.use_adapter(speaker) as model:
            body(model)(
                input_ids=dialogues.token_ids,
                attention_mask=None if dialogues.mask is None else additive(dialogues.mask, model.dtype),
                position_ids=dialogues.position_ids,
                cache=read,
                use_cache=True,
            )
    cache = copy.copy(read)
    cache.layers = [copy.copy(layer) for layer in read.layers]  # a layer grows by new tensors, and `read` keeps its own
    turns = [turn for sample in samples for turn in sample.turns]
    check_context(policy.backbone.model, max(turn.end + len(turn.hindsight) for turn in turns))
    batch = collate_teacher(samples, pad, device)
    return policy.score(
        speaker,
        batch.token_ids,
        batch.places,
        batch.allowed,
        temperature=temperature,
        attention_mask=batch.mask,
        position_ids=batch.position_ids,
        cache=cache,
    )
