"""LLMAgent: a prompt and a policy as an `Agent`. It keeps the tokens it sampled; text is never tokenised again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import Allowed, Choice, ColumnCache, Form, Free, Part, decode, open_cache
from agents.models.policy import Policy
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ITEM,
    REASON,
    SCORE,
    prompt,
    score_texts,
    title,
    without_opinions,
)
from agents.models.usage import Usage
from coars_env import ACTIONS, RECOMMENDER, Action, ConfigError, Item, Observation, Role, Task


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
    ) -> None:
        self.policy = policy
        self.role = role
        self.items = items
        self.temperature = temperature
        """1 for training, 0 (greedy) for evaluation."""
        self.opinions = opinions
        """Whether a user is told what peers say."""
        self.usage = Usage()
        """Of all dialogues so far."""
        self._forms = ReplyForms(policy.backbone, role, items)
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
        began, told = time.perf_counter(), 0
        forms: dict[int, Form] = {}
        for number in numbers:
            observation = observations[number] if self.opinions else without_opinions(observations[number])
            row = self._row(number, observation)
            told -= len(row.token_ids)
            read_context(row, self.policy.backbone, self.role, observation, self.items)
            told += len(row.token_ids)
            forms[number] = self._forms(observation)
        causes = self._fill(forms)
        actions: dict[int, Action] = {}
        for number, form in forms.items():
            if number in causes:
                actions[number] = {"error": causes[number]}  # no action: `play` ends this dialogue as failed, and why
            else:
                self.rows[number].write(form)
                actions[number] = read_reply(self.policy.backbone, self.role, form)
        written = sum(sum(form.completion.sampled) for form in forms.values())
        self.usage += Usage(len(forms), told, written, time.perf_counter() - began)
        return actions

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


def read_context(row: Row, backbone: Backbone, role: Role, observation: Observation, items: Sequence[Item]) -> None:
    """Append what the other side said, and the reply header."""
    told = prompt(role, observation, items, backbone.list_separator)
    if row.token_ids:
        row.read(backbone.go_on(told.content))
    else:
        row.read(backbone.begin(told.system, told.content))
        row.opening = len(backbone.begin(told.system, told.content[: told.opening]))
    row.context_ends.append(len(row.token_ids))
    row.read(backbone.header)


class ReplyForms:
    """What a side may write: a reason in free text, then fields that are always valid. Made anew for each reply."""

    def __init__(self, backbone: Backbone, role: Role, items: Sequence[Item]) -> None:
        self._backbone, self._role, self._items = backbone, role, items
        self._reason: list[Part] = [self._label(REASON), Free(backbone.max_reason_tokens)]
        self._item, self._action, self._score = (self._label(text) for text in (ITEM, ACTION, SCORE))
        self._actions = self._choice(ACTION_TEXTS)
        self._scores = [self._choice(score_texts(action)) for action in range(len(ACTIONS))]
        self._lists: dict[tuple[int, ...], Choice] = {}  # by candidates, which stay the same over the turns

    def forget(self) -> None:
        self._lists.clear()

    def __call__(self, observation: Observation) -> Form:
        fields: list[Part]
        if self._role == RECOMMENDER:
            candidates = tuple(observation["candidates"].tolist())
            if candidates not in self._lists:
                self._lists[candidates] = self._choice([title(self._items, i) for i in candidates])
            fields = [self._item, self._lists[candidates]]
        else:
            fields = [self._action, self._actions, self._score, self._scores_of]
        return Form([*self._reason, *fields], self._backbone.newline_ids, self._backbone.newline)

    def reason(self) -> Form:
        """The free text alone."""
        return Form(self._reason, self._backbone.newline_ids, self._backbone.newline)

    def _scores_of(self, written: Sequence[tuple[int, ...]]) -> Choice:
        return self._scores[self._actions.options.index(written[PLACE_OF_CHOICE])]

    def _label(self, text: str) -> Choice:
        return Choice((tuple(self._backbone.encode(text)),))

    def _choice(self, texts: Sequence[str]) -> Choice:
        return Choice(tuple((*self._backbone.encode(text), self._backbone.newline) for text in texts))


PLACE_OF_REASON, PLACE_OF_CHOICE, PLACE_OF_SCORE = 1, 3, 5
"""Parts of a form: label, reason, label, item or action, and for the user label, score."""


def read_reply(backbone: Backbone, role: Role, form: Form) -> Action:
    """The action a finished form stands for. Its parts are known, so a reason that speaks of items or scores, or spells
    out a label, changes nothing.
    """
    message = backbone.decode(form.written[PLACE_OF_REASON]).strip()
    chosen = form.chosen(PLACE_OF_CHOICE)
    if role == RECOMMENDER:
        return {"item": chosen, "message": message}
    return {"action": chosen, "strength": float(score_texts(chosen)[form.chosen(PLACE_OF_SCORE)]), "message": message}
