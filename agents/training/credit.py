"""Token credit [N]: what hindsight adds to the reward of a turn, token by token."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers.cache_utils import DynamicCache

from agents.models.backbones.backbone import body, check_context
from agents.models.decoding import additive
from agents.models.policy import Policy
from agents.training.samples import Batch, TrainingSample, collate, collate_teacher
from coars_env import ConfigError, Role, ShapeError

AVERAGE = "average"
"""Name of the averaged weights in an optimizer's state, where they are saved with the moments."""


class Credit(Protocol):
    """Turns the teacher's and the student's log-probabilities into an addition to the reward. Any object like this."""

    @property
    def clip(self) -> float:
        """Largest |log pi_T - log pi_S| that the metrics `*_credit` and `*_clipped` report."""
        ...

    def __call__(self, rewards: Tensor, teacher: Tensor, student: Tensor) -> Tensor:
        """Return what is added to the reward of each token, [N]. No gradient goes through it.

        Args:
            rewards: [N] reward of each token's turn.
            teacher: [N] nats, log-probability of the token with hindsight in the context.
            student: [N] nats, the same without hindsight.
        """
        ...


@dataclass(frozen=True)
class ClippedLogRatio:
    """Add lambda A, whatever the turn earned: the paper's credit, see `distilled_advantages`.

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
    """Let the reward decide which way a turn is pushed, and the teacher how much of it falls to each token.

        w_n = clip(exp(sign(R) (log pi_T - log pi_S)), 1 - clip, 1 + clip);   R ((1 - lambda) + lambda w_n)

    RLSD, arXiv:2604.03128, whose advantage of a group is replaced by R_t here (our choice). The return value is that
    less R. The sign of the turn never changes, so hindsight cannot pay for words by itself. RLSD lets lambda fall to 0
    in training; here it is constant (our choice).
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
            f"Teacher and student have shapes {tuple(teacher_logprobs.shape)} and {tuple(student_logprobs.shape)}, but "
            "they must score the same tokens. Score one batch with both."
        )
    return (teacher_logprobs - student_logprobs).detach().clamp(-clip, clip)


# --- teachers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Samples of one side as an update reads them, with the keys and values that a teacher of the same weights can use.

    Example: `BaseTeacher().logprobs(Reading(policy=policy, role=USER, samples=samples, optimizer=optimizer))`.
    """

    policy: Policy
    role: Role
    """Whose messages."""
    samples: Sequence[TrainingSample]
    optimizer: Optimizer
    """Of the side's adapter; keeps the weights of an `AveragedTeacher`."""
    temperature: float = 1.0
    """That of the sampling."""
    student_cache: DynamicCache | None = None
    """Of the adapter that learns, as `student_logprobs` leaves it."""
    base_cache: DynamicCache | None = None
    """Of the bare base."""


class Teacher(ABC):
    """Re-reads replies with hindsight in the context. Teachers differ only in their weights."""

    needs_base: ClassVar[bool] = False
    """Whether the bare base must read the dialogues first."""

    @abstractmethod
    def logprobs(self, reading: Reading) -> Tensor:
        """Return the log-probabilities of the samples' tokens with hindsight, [N]; order as in `collate`."""

    def after_step(self, optimizer: Optimizer, before: Sequence[Tensor]) -> None:  # noqa: B027  most follow nothing
        """Follow the adapter after an optimizer step; `before` holds its weights before the step."""


@dataclass(frozen=True)
class BaseTeacher(Teacher):
    """The bare base, which stays able to use hindsight and holds the messages to its own language (our choice)."""

    needs_base: ClassVar[bool] = True

    def logprobs(self, reading: Reading) -> Tensor:
        """Score with the adapters off."""
        return teacher_logprobs(
            reading.policy, None, reading.samples, temperature=reading.temperature, read=reading.base_cache
        )


@dataclass(frozen=True)
class LiveTeacher(Teacher):
    """The adapter as it is, the nearest reading of "the same model". Reasons decay under it, see docs/log.md."""

    def logprobs(self, reading: Reading) -> Tensor:
        """Score with the adapter that learns."""
        return teacher_logprobs(
            reading.policy, reading.role, reading.samples, temperature=reading.temperature, read=reading.student_cache
        )


@dataclass(frozen=True)
class AveragedTeacher(Teacher):
    """A running average of the adapter, as in SDPO, arXiv:2601.20802.

    Raises:
        ConfigError: the rate is not in (0, 1].
    """

    rate: float = 0.05
    """Share of the new weights in each step; SDPO's."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"The rate of a running average must be in (0, 1], got {self.rate}.")

    def logprobs(self, reading: Reading) -> Tensor:
        """Score with the average. Its weights are its own, so it reads the dialogues itself."""
        with reading.policy.use_weights(reading.role, averaged_weights(reading.optimizer)):
            return teacher_logprobs(reading.policy, reading.role, reading.samples, temperature=reading.temperature)

    def after_step(self, optimizer: Optimizer, before: Sequence[Tensor]) -> None:
        """Move the average towards the new weights."""
        average_weights(optimizer, before, self.rate)


@dataclass(frozen=True, kw_only=True)
class SelfDistillation:
    """Token credit of one side: what hindsight is worth, who reads it, and who writes its diagnosis."""

    credit: Credit = ClippedLogRatio()
    teacher: Teacher = BaseTeacher()
    written_diagnosis: bool = False
    """Whether the base writes the diagnosis, the last part of d_t. Otherwise a template compares genres; the paper says
    only that there is a diagnosis."""


@torch.no_grad()
def average_weights(optimizer: Optimizer, before: Sequence[Tensor], rate: float) -> None:
    """Move the running average of an adapter towards its weights after a step: a <- (1 - rate) a + rate w.

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
    """Return the averages; before the first step the weights themselves."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [optimizer.state[parameter].get(AVERAGE, parameter.data) for parameter in parameters]


# --- log-probabilities ------------------------------------------------------------------------------------------------


def student_logprobs(
    policy: Policy, role: Role | None, batch: Batch, *, temperature: float = 1.0, read: DynamicCache | None = None
) -> Tensor:
    """Score the batch's tokens without hindsight, under a side's adapter or the bare base for None, [N].

    A shared prefix is read once; its gradient is the sum of the rows' gradients.

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


def prefill_shared_prefixes(policy: Policy, role: Role | None, batch: Batch, read: DynamicCache | None) -> None:
    """Read the shared prefixes, if any, and copy them to their rows."""
    if batch.shared_prefixes is not None:
        assert read is not None
        with policy.use_adapter(role) as model:
            body(model)(input_ids=batch.shared_prefixes.token_ids, cache=read, use_cache=True)
        read.batch_select_indices(batch.shared_prefixes.of_row)


@torch.no_grad()
def teacher_logprobs(
    policy: Policy,
    speaker: Role | None,
    samples: Sequence[TrainingSample],
    *,
    temperature: float = 1.0,
    read: DynamicCache | None = None,
) -> Tensor:
    """Score the samples' tokens with hindsight d_t after the context x_t, [N]; order as in `collate`.

    Call it before the optimizer step: a live teacher has the weights of the rollout.

    Args:
        policy: base and adapters.
        speaker: whose adapter reads; None for the bare base.
        samples: the dialogues.
        temperature: that of the sampling.
        read: keys and values of `collate(samples)` under the same weights, as `student_logprobs` leaves them, so that
            the dialogues need not be read again. It is left as it was.

    Raises:
        BackboneError: with hindsight a dialogue is longer than the model's context.
    """
    pad, device = policy.backbone.tokenizer.pad_token_id or 0, policy.backbone.device
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
