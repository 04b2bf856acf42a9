"""Request, Reply, LanguageModel: a prompt that asks for fields, what comes back, and the protocol of what answers.

Agents that learn in text stand on this alone. What answers is a model of this process (`LocalModel`), an endpoint
(`agents.models.api`) or, in tests, a script.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import decode, open_cache
from agents.models.fields import Field, check_fields
from agents.models.forms import FieldForms
from agents.models.prompts import Pieces
from agents.models.usage import Usage


@dataclass(frozen=True)
class Request:
    """One question to a language model. It knows nothing of other requests; its messages hold what is remembered.

    Raises:
        ConfigError: no fields, or fields that a reply cannot be read by.
    """

    system: str
    messages: tuple[Pieces, ...]
    """What the other side said and what this side replied, in turn; first and last are the other side's."""
    fields: tuple[Field, ...]
    """What is asked for, in this order, with fixed options; see `ReplyFormat.bind`."""
    seed: tuple[int, ...] = (0,)
    """Of the reply's chance."""

    def __post_init__(self) -> None:
        check_fields(self.fields)


@dataclass(frozen=True)
class Reply:
    """What came back: exactly one of `values` and `error` is set."""

    values: tuple[str, ...] | None
    """Text of each field that was asked for, without blanks around it; an option letter for letter."""
    error: str | None
    """Why the fields could not be read, after all repeated requests."""
    text: str
    """What was written, the last time if it was asked for again."""
    usage: Usage = field(default_factory=Usage)


class LanguageModel(Protocol):
    """Answers requests, many at once. A reply may depend on its own request only."""

    @property
    def name(self) -> str:
        """What stands in tables."""
        ...

    @property
    def separator(self) -> str:
        """Goes before each title of a list, which begins with a blank."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, in their order. What cannot be answered is a reply with an error."""
        ...


class LocalModel:
    """A backbone that answers as it is, without adapters, under constraint: its replies can always be read."""

    def __init__(self, backbone: Backbone, name: str, *, temperature: float = 0.0, rows_at_once: int = 128) -> None:
        """Nothing is written yet.

        Args:
            backbone: the model. With adapters on it, they must be off.
            name: what stands in tables.
            temperature: 0 takes the likeliest token.
            rows_at_once: replies written side by side, a limit to memory.
        """
        self.backbone, self.name, self.temperature, self.rows_at_once = backbone, name, temperature, rows_at_once
        self._forms = FieldForms(backbone)

    @property
    def separator(self) -> str:
        return self.backbone.list_separator

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        contexts = [self._context(request) for request in requests]
        order = sorted(range(len(requests)), key=lambda n: len(contexts[n]))
        replies: dict[int, Reply] = {}
        for first in range(0, len(order), self.rows_at_once):
            part = order[first : first + self.rows_at_once]
            replies.update(
                zip(part, self._write([requests[n] for n in part], [contexts[n] for n in part]), strict=True)
            )
        return [replies[n] for n in range(len(requests))]

    def _context(self, request: Request) -> list[int]:
        first, *later = request.messages
        tokens = self.backbone.begin(request.system, first)
        for own, other in zip(later[::2], later[1::2], strict=True):
            tokens += [*self.backbone.header, *self.backbone.encode_all(own), *self.backbone.go_on(other)]
        return [*tokens, *self.backbone.header]

    def _write(self, requests: Sequence[Request], contexts: Sequence[list[int]]) -> list[Reply]:
        started, backbone = time.perf_counter(), self.backbone
        forms = [self._forms.start(request.fields) for request in requests]
        with torch.no_grad():
            cache, starts = open_cache(backbone.model, [() for _ in requests])
            rngs = [np.random.default_rng(request.seed) for request in requests]
            decode(
                backbone.model, cache, starts, contexts, forms, rngs, backbone.free_mask, temperature=self.temperature
            )
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Reply(
                self._forms.values(request.fields, form),
                None,
                backbone.decode(form.completion.token_ids),
                Usage(1, len(context), sum(form.completion.sampled), seconds),
            )
            for request, form, context in zip(requests, forms, contexts, strict=True)
        ]
