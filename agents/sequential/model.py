"""SequentialModel: a trained next-item model, its scores and user vectors, and the folder it is kept in."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from agents.sequential.caser import CaserEncoder
from agents.sequential.dropout import Dropout
from agents.sequential.gru4rec import Gru4RecEncoder
from agents.sequential.sasrec import SasRecEncoder
from coars_env import HISTORY_LENGTH, CheckpointError, ConfigError, Provenance, Split, TaskError, atomic_path

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Encoder = SasRecEncoder | Gru4RecEncoder | CaserEncoder
EncoderClass = type[SasRecEncoder] | type[Gru4RecEncoder] | type[CaserEncoder]

ENCODERS: dict[str, EncoderClass] = {e.name: e for e in (SasRecEncoder, Gru4RecEncoder, CaserEncoder)}
PACKAGES = ("coars-env", "numpy", "torch", "safetensors")
CARD, WEIGHTS = "model.json", "model.safetensors"
FORMAT = 1
DECIMALS = 6
AT_ONCE = 1024
"""Histories scored in one pass."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a model is trained; size, rate, batch and L2's grid are AFL's (arXiv:2410.20027), the rest is ours."""

    hidden: int = 64
    dropout: float = 0.1
    learning_rate: float = 1e-3
    batch: int = 256
    l2: float | None = None
    """Weight of half the squared norm of all weights in the loss. None takes the encoder's own, the best of 1e-3 to
    1e-7 on LLaRA's validation users of MovieLens; the choice is ours."""
    patience: int = 10
    """Epochs without a better validation criterion after which training stops; the best epoch is kept."""
    max_epochs: int = 200

    def __post_init__(self) -> None:
        positive = ("hidden", "learning_rate", "batch", "patience", "max_epochs")
        wrong = [name for name in positive if not getattr(self, name) > 0]
        if wrong or not 0 <= self.dropout < 1 or (self.l2 or 0) < 0:
            raise ConfigError(
                f"Settings of a training must be in range. Expected {', '.join(positive)} > 0, 0 <= dropout < 1 and "
                f"l2 >= 0, found {self}. Correct them."
            )


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a trained model is and where it comes from; `model.json` beside its weights."""

    system: str
    """Name of the baseline, for instance "sasrec" or "sqn-gru4rec"."""
    encoder: str
    """A key of `ENCODERS`."""
    data: Provenance
    split: str
    train_sha256: str
    """See `fingerprint`."""
    seed: int
    settings: FitSettings
    epochs: int
    """Epochs trained; the weights are those of `best_epoch`."""
    best_epoch: int
    validation: float
    """The criterion of that epoch, see `agents.sequential.fit.validate`."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else is to be known of the training, for instance of Q-values."""
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})


class NextItemNet(nn.Module):
    """An encoder and a linear head: histories [B, H] to logits [B, I]; score(i) = w_i . h + b_i."""

    def __init__(self, encoder: EncoderClass, num_items: int, hidden: int, dropout: float, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=()):  # torch's layers draw their weights from the global generator
            torch.manual_seed(seed)
            self.encoder = encoder(num_items, hidden, Dropout(dropout, generator))
            self.head = nn.Linear(hidden, num_items)
        self.head.bias.data.zero_()  # what an empty history is answered with is learnt, not drawn

    def forward(self, histories: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(histories))
        return logits


class SequentialModel:
    """A trained encoder with its item head. Made by `agents.sequential.fit` or `SequentialModel.load`.

    Histories are catalogue indices, oldest first; the last ten count. An empty one has the user vector 0, so that its
    scores are the biases of the head, which learn what comes first in a sequence. An item unseen in training was a
    wrong answer to every training window, so it scores low; in a history it is a blank that keeps its place.

    Computes in double precision, whatever it was trained in, and rounds scores to 6 decimals: one checkpoint has the
    same scores, and so the same candidates and digests, on every machine, and in batches of any size.
    """

    def __init__(self, net: NextItemNet, card: Card) -> None:
        self.card = card
        self._net = net.double().eval().requires_grad_(False)
        self._num_items = net.head.out_features
        self._row = lru_cache(max(1, 2**24 // self._num_items))(self._scored)  # at most 128 MB

    @property
    def num_parameters(self) -> int:
        """Learnt numbers; the vector of padding is not one."""
        return sum(p.numel() for p in self._net.parameters()) - self._net.head.in_features

    def scores(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """Logits of every item of the catalogue, [M, I], higher is better; none is barred, not even of the history."""
        return np.round(self._batched(histories, self._net, self._num_items), DECIMALS)

    def user_vectors(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """The state after the last item, [M, d]."""
        return self._batched(histories, self._net.encoder, self._net.head.in_features)

    def scorer(self, history: IntArray, items: IntArray) -> FloatArray:
        """The model as a `coars_env.Scorer`: `TopCandidates(model.scorer)`. Histories asked again cost nothing."""
        return np.asarray(self._row(tuple(history.tolist()))[items])

    def _scored(self, history: tuple[int, ...]) -> FloatArray:
        row: FloatArray = self.scores([history])[0]
        return row

    @torch.inference_mode()
    def _batched(self, histories: Sequence[Sequence[int]], net: nn.Module, width: int) -> FloatArray:
        padded = pad(histories, self._num_items)
        parts = [net(padded[first : first + AT_ONCE]).numpy() for first in range(0, len(padded), AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, width))

    def save(self, folder: Path) -> None:
        """Weights (safetensors, single precision) and card, all or nothing.

        Raises:
            ConfigError: there is something in the folder already.
        """
        weights = save_tensors({name: value.float() for name, value in self._net.state_dict().items()})
        body = {"format": FORMAT, **dataclasses.asdict(self.card), "sha256": hashlib.sha256(weights).hexdigest()}
        try:
            with atomic_path(folder) as part:
                part.mkdir()
                (part / WEIGHTS).write_bytes(weights)
                (part / CARD).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"A model is written once. Expected an empty or new folder, found {folder} ({error.strerror}). "
                "Choose another, or remove it."
            ) from error

    @classmethod
    def load(cls, folder: Path, split: Split, *, system: str | None = None) -> "SequentialModel":
        """A saved model, for the split it was trained on.

        Args:
            folder: where `save` put it.
            split: what it is to be used with.
            system: the baseline it must be of; None takes any.

        Raises:
            CheckpointError: no such model, a damaged one, or one of another dataset, catalogue, split or system.
        """
        try:
            body: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
            weights = (folder / WEIGHTS).read_bytes()
            if body.pop("format") != FORMAT or body.pop("sha256") != hashlib.sha256(weights).hexdigest():
                raise ValueError("another format, or weights of another digest")
            body |= {"data": Provenance(**body["data"]), "settings": FitSettings(**body["settings"])}
            card = Card(**body)
            encoder = ENCODERS[card.encoder]
        except Exception as error:  # of the file system, of json, or of missing and wrong fields
            raise _damaged(folder, error) from error
        dataset = split.dataset
        wanted = {
            "system": system or card.system,
            "dataset": f"{dataset.provenance.source} {dataset.provenance.origin}",
            "catalogue and interactions": dataset.provenance.sha256,
            "split": split.name,
            "training part": fingerprint(split),
        }
        own = (card.system, f"{card.data.source} {card.data.origin}", card.data.sha256, card.split, card.train_sha256)
        for (what, expected), found in zip(wanted.items(), own, strict=True):
            if expected != found:
                raise CheckpointError(
                    f"A trained model belongs to the split it was trained on. Expected {what} {expected}, found "
                    f"{found} in {folder}. Train it on this one."
                )
        with torch.device("meta"):  # no weights are drawn
            net = NextItemNet(encoder, dataset.num_items, card.settings.hidden, card.settings.dropout)
        try:
            net.load_state_dict(load_tensors(weights), assign=True)
        except RuntimeError as error:  # shapes that the card does not tell of
            raise _damaged(folder, error) from error
        return cls(net, card)


def _damaged(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"A sequential model is a folder with {CARD} and {WEIGHTS}. Expected a whole one in {folder}, found {error!r}. "
        "Train it again."
    )


def fingerprint(split: Split) -> str:
    """SHA-256 of the training part: who took what in which order."""
    h = hashlib.sha256()
    for sequence in split.train:
        h.update(np.array([sequence.user, len(sequence.items), *sequence.items], dtype="<i8").tobytes())
    return h.hexdigest()


def pad(histories: Sequence[Sequence[int]], num_items: int) -> Tensor:
    """The last ten items of each history behind as many of `num_items` as are missing. [M, 10]

    Raises:
        TaskError: an item that is not of the catalogue.
    """
    padded = np.full((len(histories), HISTORY_LENGTH), num_items, dtype=np.int64)
    for row, history in zip(padded, histories, strict=True):
        if len(history):
            last = np.asarray(history)[-HISTORY_LENGTH:]
            if last.min() < 0 or last.max() >= num_items:
                raise TaskError(
                    f"A history holds catalogue indices. Expected 0..{num_items - 1}, found {list(history)}. "
                    "Leave padding out."
                )
            row[-len(last) :] = last
    return torch.from_numpy(padded)
