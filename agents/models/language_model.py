"""Request, Reply, LanguageModel: a prompt that asks for fields, what comes back, and the protocol of what answers.

Agents that learn in text stand on this alone. What answers is a model of this process (`LocalModel`), an endpoint
(`agents.models.api`) or, in tests, a script.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import Choice, Form, Free, Part, decode, open_cache
from agents.models.prompts import Pieces, parse_fields
from agents.models.usage import Usage


@dataclass(frozen=True)
class Field:
    """One line of a reply: a label, then free text or one of some options.

    Example: `Field("Item:", (" Heat (1995)", " Fargo (1996)"))`, as in "Item: Fargo (1996)".
    """

    label: str
    options: tuple[str, ...] | None = None
    """Each begins with a blank, and none begins another; None for free text."""
    max_tokens: int | None = None
    """Longest free text; None for the model's own limit."""
    number: bool = False
    """Whether any number in the range of the options is as good as one of them. A constraint knows the options only."""


@dataclass(frozen=True)
class Request:
    """One question to a language model. It knows nothing of other requests; what is remembered stands in it."""

    system: str
    messages: tuple[Pieces, ...]
    """What the other side said and what this side replied, in turn; first and last are the other side's."""
    fields: tuple[Field, ...]
    """Lines that are asked for, in this order."""
    seed: tuple[int, ...] = (0,)
    """Of the reply's chance."""


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


def written(request: Request, values: Sequence[str]) -> Pieces:
    """A reply as pieces, for the message in which it is remembered."""
    return tuple(
        piece for asked, value in zip(request.fields, values, strict=True) for piece in (asked.label, f" {value}", "\n")
    )


def read_values(text: str, fields: Sequence[Field]) -> tuple[str, ...] | str:
    """The values of labelled lines, or why they cannot be read.

    The rule: each label stands once, in the order asked for; a field with options holds one of them, letter for letter,
    blanks around it left out, or a number between them if it asks for one. What fits in two ways or none is refused,
    never guessed.
    """
    found = parse_fields(text, [asked.label for asked in fields])
    if found.fields is None:
        return found.error or ""
    values = tuple(found.fields[asked.label] for asked in fields)
    for asked, value in zip(fields, values, strict=True):
        if asked.options is None or (asked.number and _in_range(value, asked.options)):
            continue
        if (fits := sum(option.strip() == value for option in asked.options)) != 1:
            return (
                f"expected one of {len(asked.options)} options after {asked.label!r}, found {value[:80]!r}, which fits "
                f"{fits}"
            )
    return values


def _in_range(value: str, options: Sequence[str]) -> bool:
    limits = [float(option) for option in options]
    return re.fullmatch(r"[0-9]*\.?[0-9]+", value) is not None and min(limits) <= float(value) <= max(limits)


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
        self._choices: dict[tuple[str, ...], Choice] = {}

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
        forms = [Form(self._parts(request.fields), backbone.newline_ids, backbone.newline) for request in requests]
        with torch.no_grad():
            cache, starts = open_cache(backbone.model, [() for _ in requests])
            rngs = [np.random.default_rng(request.seed) for request in requests]
            decode(
                backbone.model, cache, starts, contexts, forms, rngs, backbone.free_mask, temperature=self.temperature
            )
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Reply(
                tuple(backbone.decode(part).strip() for part in form.written[1::2]),
                None,
                backbone.decode(form.completion.token_ids),
                Usage(1, len(context), sum(form.completion.sampled), seconds),
            )
            for form, context in zip(forms, contexts, strict=True)
        ]

    def _parts(self, fields: Sequence[Field]) -> list[Part]:
        """A label and what follows it, for each field."""
        parts: list[Part] = []
        for asked in fields:
            limit = asked.max_tokens or self.backbone.max_reason_tokens
            parts += [
                self._choice((asked.label,), ""),
                Free(limit) if asked.options is None else self._choice(asked.options),
            ]
        return parts

    def _choice(self, texts: tuple[str, ...], end: str = "\n") -> Choice:
        key = (*texts, end)
        if key not in self._choices:
            if len(self._choices) > 10_000:
                self._choices.clear()
            last = (self.backbone.newline,) if end else ()
            self._choices[key] = Choice(tuple((*self.backbone.encode(text), *last) for text in texts))
        return self._choices[key]
