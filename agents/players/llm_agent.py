"""LLMAgent: a prompt and a policy as an `Agent`. It keeps the tokens it sampled; text is never tokenised again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from agents.models.backbones.backbone import Backbone
from agents.models.column_cache import ColumnCache
from agents.models.decoding import Allowed, Form, decode, open_cache
from agents.models.fields import Field
from agents.models.forms import FieldForms
from agents.models.policy import Policy
from agents.models.prompts import Notes, Pieces, no_notes, prompt, without_opinions
from agents.models.replies import DEFAULT_FORMATS, ReplyFormat
from agents.models.usage import Usage
from coars_env import Action, ConfigError, Item, Observation, Role, Task


@dataclass
class Row:
    """Everything one side read and wrote in one dialogue, as tokens. The first four lists have equal length."""

    token_ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    """True on tokens this side chose itself."""
    logprobs: list[float] = field(default_factory=list)
    allowed: list[Allowed] = field(default_factory=list)
    opening: int = 0
    """How many tokens the task alone decides: all dialogues of a task begin with them."""
    context_ends: list[int] = field(default_factory=list)
    """Per turn, where its context x_t ends: the reply header follows, and before it the hindsight of a teacher."""
    replies: list[tuple[int, int]] = field(default_factory=list)
    """Per turn, first and last-plus-one column of the reply y_t."""

    def read(self, tokens: Sequence[int]) -> None:
        n = len(tokens)
        self.token_ids += tokens
        self.sampled += [False] * n
        self.logprobs += [0.0] * n
        self.allowed += [None] * n

    def write(self, form: Form) -> None:
        reply, start = form.completion, len(self.token_ids)
        self.token_ids += reply.token_ids
        self.sampled += reply.sampled
        self.logprobs += reply.logprobs
        self.allowed += reply.allowed
        self.replies.append((start, len(self.token_ids)))


class LLMAgent:
    """One side, played by its adapter of a policy. Its memory is the dialogue itself, in full and append-only, as in
    CoARS.

    Dialogues are played from their first turn on. What a batch holds of keys and values is valid for the weights it
    was made with: train between batches, never within one.
    """

    demonstrates: ClassVar[bool] = False
    """Whether the choices are given rather than sampled, see `Demonstrator`."""
    samples_elsewhere: ClassVar[bool] = False
    """Whether another program samples the tokens, so that training weighs them by their ratio, see `ServedAgent`."""

    def __init__(
        self,
        policy: Policy,
        role: Role,
        items: Sequence[Item],
        *,
        temperature: float = 1.0,
        opinions: bool = True,
        reply_format: ReplyFormat | None = None,
        notes: Notes = no_notes,
    ) -> None:
        """Prepare to play.

        Args:
            policy: its adapter of the role writes.
            role: side that is played.
            items: the catalogue.
            temperature: 1 for training, 0 (greedy) for evaluation.
            opinions: whether a user reads what peers say.
            reply_format: fields of a reply; None for the default of the role.
            notes: pieces that go before the request in every turn, for instance from a memory.

        Raises:
            ConfigError: a format without a field that is the proposal or the action of this role, or one that the
                backbone cannot write.
        """
        self.policy = policy
        self.role = role
        self.items = items
        self.temperature = temperature
        self.opinions = opinions
        if reply_format is not None and not isinstance(reply_format, ReplyFormat):
            raise ConfigError(f"reply_format must be a ReplyFormat, got {reply_format!r:.200}. See docs/replies.md.")
        self.reply_format = reply_format or DEFAULT_FORMATS[role]
        self.notes = notes
        self.usage = Usage()
        """Of all dialogues so far."""
        self._forms = FieldForms(policy.backbone)
        self.reply_format.deciding(role)
        self._forms.check(self.reply_format.fields)
        self.start(())

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.rows = [Row() for _ in seeds]
        """One per dialogue of the current batch."""
        self._rngs = [np.random.default_rng(list(seed)) for seed in seeds]
        self._cached: dict[int, int] = {}  # tokens of each dialogue that the cache holds
        self.forget()

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Get ready for a batch of training dialogues, whose tasks these are. Training calls this before `start`."""

    def forget(self) -> None:
        """Free the memory of the decode loop. A dialogue that goes on is read again from its start."""
        self._cache: ColumnCache | None = None
        self._in_cache: list[int] = []  # dialogue number of each row of the cache
        self._forms.forget()

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        numbers = sorted(observations)
        if not numbers:
            return {}
        began, read = time.perf_counter(), 0
        fields: dict[int, tuple[Field, ...]] = {}
        forms: dict[int, Form] = {}
        for number in numbers:
            seen = observations[number] if self.opinions else without_opinions(observations[number])
            row = self._row(number, seen)
            read -= len(row.token_ids)
            notes = self.notes(seen)
            read_context(row, self.policy.backbone, self.role, seen, self.items, self.reply_format, notes)
            read += len(row.token_ids)
            fields[number] = self.reply_format.bind(seen, self.items)
            forms[number] = self._forms.start(fields[number], self._given(number, seen, fields[number]))
        causes = self._fill(forms)
        actions: dict[int, Action] = {}
        for number, form in forms.items():
            if number in causes:
                actions[number] = {"error": causes[number]}  # no action: `play` ends this dialogue as failed, and why
            else:
                self.rows[number].write(form)
                values = self._forms.values(fields[number], form)
                seen = observations[number]
                actions[number] = self.reply_format.action(self.role, fields[number], values, seen, self.items)
        written = sum(sum(form.completion.sampled) for form in forms.values())
        self.usage += Usage(len(forms), read, written, time.perf_counter() - began)
        return actions

    def _given(self, number: int, observation: Observation, fields: Sequence[Field]) -> Mapping[str, int]:
        """Return the options that are taken instead of sampled, by name of the field."""
        return {}

    def _fill(self, forms: Mapping[int, Form]) -> dict[int, str]:
        """Write the reply of each dialogue number, in place. Returns why, for those that could not be written."""
        numbers = list(forms)
        cache = self._cache_of(numbers)
        starts = [self._cached[n] for n in numbers]
        with self.policy.use_adapter(self.role) as model:
            decode(
                model,
                cache,
                starts,
                [self.rows[n].token_ids[start:] for n, start in zip(numbers, starts, strict=True)],
                list(forms.values()),
                [self._rngs[n] for n in numbers],
                self.policy.backbone.free_mask,
                temperature=self.temperature,
            )
        self._cached.update(zip(numbers, starts, strict=True))
        return {}

    def _row(self, number: int, observation: Observation) -> Row:
        if number >= len(self.rows) or len(self.rows[number].replies) != int(observation["turn"]):
            found = len(self.rows[number].replies) if number < len(self.rows) else "no such dialogue"
            raise ConfigError(
                f"An LLMAgent plays a dialogue from its first turn on. Expected {int(observation['turn'])} replies of "
                f"its own in dialogue {number}, found {found}. Call `start` before each batch of fresh dialogues."
            )
        return self.rows[number]

    def _cache_of(self, numbers: list[int]) -> ColumnCache:
        """The cache with exactly these dialogues as rows, in this order."""
        place = {number: row for row, number in enumerate(self._in_cache)}
        for number in numbers:
            if number not in place:
                self._cached[number] = 0
        if self._cache is None:
            openings = [self.rows[number].token_ids[: self.rows[number].opening] for number in numbers]
            with self.policy.use_adapter(self.role) as model:
                self._cache, starts = open_cache(model, openings)
            self._cached.update(zip(numbers, starts, strict=True))
        elif numbers != self._in_cache:
            self._cache.keep([place.get(number) for number in numbers])
        self._in_cache = numbers
        return self._cache


def read_context(
    row: Row,
    backbone: Backbone,
    role: Role,
    observation: Observation,
    items: Sequence[Item],
    reply_format: ReplyFormat | None = None,
    notes: Pieces = (),
) -> None:
    """Append what the other side said, the notes, the request for the fields, and the reply header."""
    told = prompt(role, observation, items, backbone.list_separator, reply_format=reply_format, notes=notes)
    if row.token_ids:
        row.read(backbone.go_on(told.content))
    else:
        row.read(backbone.begin(told.system, told.content))
        row.opening = len(backbone.begin(told.system, told.content[: told.opening]))
    row.context_ends.append(len(row.token_ids))
    row.read(backbone.header)
