"""LLMAgent: a prompt and a policy as an `Agent`. It keeps the tokens it sampled; text is never tokenised again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.backbones.backbone import Backbone
from agents.kv import Allowed, Choice, ColumnCache, Form, Free, Part, write
from agents.policy import Policy
from agents.prompts import (
    ACTION,
    ACTION_TEXTS,
    ITEM,
    REASON,
    SCORE,
    parse_answer,
    parse_recommendation,
    prompt,
    score_texts,
    title,
)
from coars_env import RECOMMENDER, Action, Item, Observation, Role


@dataclass
class Row:
    """Everything one side read and wrote in one dialogue, as tokens. The first five lists have equal length."""

    token_ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    """True on tokens this side chose itself."""
    logprobs: list[float] = field(default_factory=list)
    allowed: list[Allowed] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    """Turn of each token of a reply, from 0; -1 on context."""
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
        self.turns += [-1] * n

    def write(self, form: Form) -> None:
        reply, turn, start = form.completion, len(self.replies), len(self.token_ids)
        self.token_ids += reply.token_ids
        self.sampled += reply.sampled
        self.logprobs += reply.logprobs
        self.allowed += reply.allowed
        self.turns += [turn] * len(reply.token_ids)
        self.replies.append((start, len(self.token_ids)))


class LLMAgent:
    """Plays one side with a language model. Its memory is the dialogue itself, in full and append-only, as in CoARS."""

    def __init__(self, policy: Policy, role: Role, items: Sequence[Item], *, temperature: float = 1.0) -> None:
        self.policy = policy
        self.role = role
        self.items = items
        self.temperature = temperature
        """1 for training, 0 (greedy) for evaluation."""
        self.rows: list[Row] = []
        """One per dialogue of the current batch."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(list(seed)) for seed in seeds]
        self.rows = [Row() for _ in seeds]
        self._cached = [0] * len(seeds)  # tokens of each row that the cache holds
        self._cache: ColumnCache | None = None
        self._in_cache: list[int] = []  # dialogue number of each row of the cache

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        numbers = sorted(observations)
        cache = self._cache_of(numbers)
        backbone, rows = self.policy.backbone, [self.rows[n] for n in numbers]
        forms = []
        for number, row in zip(numbers, rows, strict=True):
            observation = observations[number]
            read_context(row, backbone, self.role, observation, self.items)
            forms.append(reply_form(backbone, self.role, observation, self.items))
        starts = [self._cached[n] for n in numbers]
        with self.policy.acting(self.role) as model:
            write(
                model,
                cache,
                starts,
                [row.token_ids[start:] for row, start in zip(rows, starts, strict=True)],
                forms,
                [self._rngs[n] for n in numbers],
                backbone.free_mask,
                temperature=self.temperature,
            )
        actions: dict[int, Action] = {}
        for number, row, form, start in zip(numbers, rows, forms, starts, strict=True):
            row.write(form)
            self._cached[number] = start
            actions[number] = read_reply(backbone, self.role, form, observations[number], self.items)
        return actions

    def _cache_of(self, numbers: list[int]) -> ColumnCache:
        if self._cache is None:
            config = self.policy.backbone.model.config
            self._cache = ColumnCache(config.num_hidden_layers, len(numbers))
        elif numbers != self._in_cache:
            self._cache.keep([self._in_cache.index(n) for n in numbers])
        self._in_cache = numbers
        return self._cache


def read_context(row: Row, backbone: Backbone, role: Role, observation: Observation, items: Sequence[Item]) -> None:
    """Append what the other side said, and the reply header."""
    told = prompt(role, observation, items, backbone.list_separator)
    row.read(backbone.go_on(told.content) if row.token_ids else backbone.begin(told.system, told.content))
    row.context_ends.append(len(row.token_ids))
    row.read(backbone.header)


def reply_form(backbone: Backbone, role: Role, observation: Observation, items: Sequence[Item]) -> Form:
    """What a side may write: a reason in free text, then fields that are always valid."""
    line = "\n"
    newline = backbone.newline

    def choice(texts: Sequence[str]) -> Choice:
        return Choice(tuple(tuple(backbone.encode_all((text, line))) for text in texts))

    def label(text: str) -> Choice:
        return Choice((tuple(backbone.encode(text)),))

    parts: list[Part] = [label(REASON), Free(backbone.max_reason_tokens)]
    if role == RECOMMENDER:
        parts += [label(ITEM), choice([title(items, int(i)) for i in observation["candidates"]])]
    else:
        actions = choice(ACTION_TEXTS)

        def scores(written: Sequence[tuple[int, ...]]) -> Choice:
            return choice(score_texts(actions.options.index(written[-2])))  # the action stands before the label

        parts += [label(ACTION), actions, label(SCORE), scores]
    return Form(parts, backbone.newline_ids, newline)


def read_reply(backbone: Backbone, role: Role, form: Form, observation: Observation, items: Sequence[Item]) -> Action:
    """The action a reply stands for, read from its text like any other agent's."""
    text = backbone.decode(form.completion.token_ids)
    if role == RECOMMENDER:
        return parse_recommendation(text, [items[int(i)].title for i in observation["candidates"]])
    return parse_answer(text)
