"""fit: train a next-item model on all prefixes of the training sequences, with early stopping."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from agents.sequential.model import (
    AT_ONCE,
    Card,
    EncoderClass,
    FitSettings,
    IntArray,
    NextItemNet,
    SequentialModel,
    fingerprint,
    pad,
)
from coars_env import HISTORY_LENGTH, ConfigError, Split, TaskError, UserSequence, expected_hit, target_ranks


def fit(split: Split, encoder: EncoderClass, *, seed: int = 0, settings: FitSettings | None = None) -> SequentialModel:
    """Train an encoder with a linear head by cross-entropy over the catalogue.

    Every item of a training sequence is once the target, its history the at most ten items before it; of the first
    item that is empty. The same seed gives the same weights to the last bit on one thread.

    Args:
        split: training part, and validation part or, where there is none, a tenth of the training users, see `divide`.
        encoder: one of `ENCODERS`.
        seed: of the weights, the dropout, the order of the windows and the users held out.
        settings: sizes and schedule.

    Raises:
        TaskError: nothing to train on, or nobody to hold out.
        ConfigError: a loss that is not finite.
    """
    settings = settings or FitSettings()
    train, held = divide(split, seed)
    windows = Windows.of(train, split.dataset.num_items)
    net = new_net(encoder, windows, settings, seed)
    optimizer = new_optimizer(net, encoder, settings)

    def step(places: Tensor) -> float:
        loss = cross_entropy(net(windows.histories(places)), windows.targets(places)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    report = run_epochs(net, step, windows, held, settings, seed=seed, title=f"training {encoder.name}")
    return SequentialModel(net, new_card(split, encoder, settings, report, seed=seed, system=encoder.name))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] of each row, [B]; as torch's in a third of the time on a CPU.

    Args:
        logits: [B, I].
        targets: [B].
    """
    losses: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return losses


class _CrossEntropy(torch.autograd.Function):
    """Keeps softmax minus one-hot, which is the gradient, in place of the logarithms."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        gradient = torch.softmax(logits, 1)
        rows = torch.arange(len(targets))
        losses = -gradient[rows, targets].clamp(min=torch.finfo(logits.dtype).tiny).log()
        gradient[rows, targets] -= 1
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weights[:, None], None


def new_net(encoder: EncoderClass, windows: "Windows", settings: FitSettings, seed: int) -> NextItemNet:
    """A net with fresh weights. An item that stands in no training history is a blank: its vector is and stays 0."""
    net = NextItemNet(encoder, windows.num_items, settings.hidden, settings.dropout, seed=seed)
    blank = torch.ones(windows.num_items + 1, dtype=torch.bool)
    blank[windows.flat[windows.all_places - 1]] = False
    net.encoder.items.weight.data[blank] = 0.0
    return net


def new_optimizer(net: nn.Module, encoder: EncoderClass, settings: FitSettings) -> torch.optim.Optimizer:
    """Adam with L2 in the gradient, as in AFL's grid."""
    l2 = encoder.l2 if settings.l2 is None else settings.l2
    return torch.optim.Adam(net.parameters(), lr=settings.learning_rate, weight_decay=l2, fused=True)


@dataclass(frozen=True)
class Windows:
    """All prefixes of some sequences, cut when asked for: memory grows with the interactions alone.

    The sequences stand one after the other, each behind ten of padding, so that the history of the item at place p is
    what stands at p - 10 .. p - 1.
    """

    flat: Tensor  # [N + 10 U + 1]
    all_places: Tensor  # [N] of the items, in the order of the sequences
    num_items: int

    @classmethod
    def of(cls, sequences: list[UserSequence], num_items: int) -> "Windows":
        padding = (num_items,) * HISTORY_LENGTH
        parts = chain.from_iterable((padding, sequence.items) for sequence in sequences)
        flat = np.fromiter(chain(chain.from_iterable(parts), (num_items,)), np.int64)
        return cls(torch.from_numpy(flat), torch.from_numpy(np.flatnonzero(flat < num_items)), num_items)

    def histories(self, places: Tensor) -> Tensor:
        """What stands before each place. [B, 10]"""
        return self.flat[places[:, None] + _BEFORE]

    def targets(self, places: Tensor) -> Tensor:
        """What stands at each place. [B]"""
        return self.flat[places]


_BEFORE = torch.arange(-HISTORY_LENGTH, 0)


@dataclass(frozen=True)
class Held:
    """Histories and targets that training does not see."""

    histories: Tensor  # [V, 10]
    targets: IntArray  # [V]
    owned: tuple[IntArray, ...]
    """The other items of each user, which are no candidates."""


def divide(split: Split, seed: int) -> tuple[list[UserSequence], Held]:
    """What is trained on, and what stops the training.

    The latter is the validation part. Where there is none, it is the last training item of a tenth of the training
    users with two items or more, drawn by the seed; it is not trained on (ours).

    Raises:
        TaskError: no validation part and nobody with two items.
    """
    train, held = list(split.train), list(split.validation)
    if not held:
        several = [row for row, sequence in enumerate(train) if len(sequence.items) > 1]
        if not several:
            raise TaskError(
                f"Training is stopped by held-out items. Expected a validation part or a training user of two items in "
                f"split {split.name!r} of {split.dataset.name!r}, found neither. Use more data."
            )
        drawn = np.random.default_rng([seed, 1]).permutation(several)[: max(1, len(several) // 10)]
        held = [train[row] for row in drawn.tolist()]
        for row in drawn.tolist():
            train[row] = UserSequence(train[row].user, train[row].items[:-1])
    return train, Held(
        histories=pad([sequence.items[:-1] for sequence in held], split.dataset.num_items),
        targets=np.array([sequence.items[-1] for sequence in held]),
        owned=tuple(np.array(sorted(split.owned[s.user] - {s.items[-1]}), dtype=np.int64) for s in held),
    )


@torch.inference_mode()
def validate(net: nn.Module, held: Held) -> float:
    """Mean of `coars_env.expected_hit` over the held-out users: Hit@1 over all uniform lists of the target and 19 items
    that the user does not own. The net is left in training mode.
    """
    net.eval()
    hits = []
    for first in range(0, len(held.targets), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        logits = net(held.histories[part]).double().numpy()
        hits.append(expected_hit(target_ranks(logits, held.targets[part], held.owned[part])))
    net.train()
    return float(np.concatenate(hits).mean())


@dataclass(frozen=True)
class Training:
    """How a training went."""

    epochs: int
    best_epoch: int
    validation: float


def run_epochs(
    net: nn.Module,
    step: Callable[[Tensor], float],
    windows: Windows,
    held: Held,
    settings: FitSettings,
    *,
    seed: int,
    title: str,
    begin: int = 1,
) -> Training:
    """Train until the criterion of the held-out users has not grown for `patience` epochs; keep the best weights.

    Args:
        net: what is validated and kept: histories to logits.
        step: one update from the windows at some places; returns the loss.
        windows: passed through once an epoch, in an order drawn by the seed.
        held: see `validate`.
        settings: batch, patience, most epochs.
        seed: of the order.
        title: stands beside the progress bar.
        begin: the first epoch whose weights may be kept.

    Raises:
        TaskError: no window.
        ConfigError: a loss that is not finite, or no epoch that may be kept.
    """
    if begin > settings.max_epochs:
        raise ConfigError(
            f"A training must have an epoch that may be kept. Expected max_epochs >= {begin} for {title}, found "
            f"{settings.max_epochs}. Raise it."
        )
    if not len(windows.all_places):
        raise TaskError("A model is trained on windows. Expected one item or more, found none. Use more data.")
    generator = torch.Generator().manual_seed(seed)
    best, best_epoch, kept = -1.0, 0, net.state_dict()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task(title, total=settings.max_epochs, state="")
        for epoch in range(1, settings.max_epochs + 1):
            order = windows.all_places[torch.randperm(len(windows.all_places), generator=generator)]
            losses = []
            for places in order.split(settings.batch):
                losses.append(step(places))
                if not np.isfinite(losses[-1]):
                    raise ConfigError(
                        f"A loss must be finite. Expected a number in epoch {epoch} of {title}, found {losses[-1]}. "
                        f"Lower the learning rate, {settings.learning_rate}."
                    )
            hit = validate(net, held)
            if hit > best and epoch >= begin:
                best, best_epoch, kept = hit, epoch, copy.deepcopy(net.state_dict())
            state = f"epoch {epoch}, loss {np.mean(losses):.3f}, validation {hit:.3f}, best {best:.3f} at {best_epoch}"
            progress.update(bar, advance=1, state=state)
            if epoch - max(best_epoch, begin) >= settings.patience:
                break
    net.load_state_dict(kept)
    return Training(epoch, best_epoch, best)


def new_card(
    split: Split,
    encoder: EncoderClass,
    settings: FitSettings,
    report: Training,
    *,
    seed: int,
    system: str,
    figures: dict[str, float] | None = None,
) -> Card:
    """The card of a trained model."""
    return Card(
        system=system,
        encoder=encoder.name,
        data=split.dataset.provenance,
        split=split.name,
        train_sha256=fingerprint(split),
        seed=seed,
        settings=settings,
        epochs=report.epochs,
        best_epoch=report.best_epoch,
        validation=report.validation,
        figures=figures or {},
    )
