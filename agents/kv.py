"""Completion: the sampled tokens of one reply, with their log-probabilities; and the decode loop that makes them.

One cache per side holds all dialogues of a batch and is carried over their turns. A token's keys and values stand in the
column of its position, so rows of unequal length leave no holes: a query at position p sees the columns up to p.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from agents.backbones.backbone import body, project

Allowed = tuple[int, ...] | None
"""Token ids a position may hold: None where any text may stand, else the choices left."""


@dataclass(frozen=True)
class Free:
    """Free text up to the end of the line, at most `max_tokens` long; the newline is added if the model does not."""

    max_tokens: int


@dataclass(frozen=True)
class Choice:
    """One of several token sequences, none of which begins another."""

    options: tuple[tuple[int, ...], ...]


Part = Free | Choice | Callable[[Sequence[tuple[int, ...]]], Choice]
"""A stretch of a reply; or a function of the stretches written so far, for instance the scores that fit an action."""


@dataclass
class Completion:
    """One reply. All lists have equal length.

    Example: the reply "Item: Heat" may be `token_ids=[7, 9]`, `sampled=[False, True]` (the label was given, the title
    chosen), `logprobs=[0.0, -2.3]`, `allowed=[(7,), (9, 12, 15)]`.
    """

    token_ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    """True where the policy had more than one choice; only these are trained on."""
    logprobs: list[float] = field(default_factory=list)
    """Nats, under the constraint of the position; 0 where there was no choice."""
    allowed: list[Allowed] = field(default_factory=list)

    def add(self, token: int, logprob: float, allowed: Allowed) -> None:
        self.token_ids.append(token)
        self.sampled.append(allowed is None or len(allowed) > 1)
        self.logprobs.append(logprob)
        self.allowed.append(allowed)


class Form:
    """The state of one reply being written: which tokens may come next."""

    def __init__(self, parts: Sequence[Part], newline_ids: frozenset[int], newline: int) -> None:
        self._parts = list(parts)
        self._newline_ids, self._newline = newline_ids, newline
        self._inside: list[int] = []  # tokens of the current part
        self._written: list[tuple[int, ...]] = []  # tokens of the finished parts
        self.completion = Completion()
        self.unread: list[int] = []  # tokens the model has not seen yet
        self._skip_forced()

    @property
    def finished(self) -> bool:
        return len(self._written) == len(self._parts)

    def allowed(self) -> Allowed:
        part = self._current()
        if isinstance(part, Free):
            return None if len(self._inside) < part.max_tokens else (self._newline,)
        n = len(self._inside)
        return tuple(sorted({o[n] for o in part.options if list(o[:n]) == self._inside and len(o) > n}))

    def push(self, token: int, logprob: float) -> None:
        """Take the token sampled at this position, then every one that follows without a choice."""
        self._take(token, logprob, self.allowed())
        self._skip_forced()

    def _current(self) -> Free | Choice:
        part = self._parts[len(self._written)]
        if not isinstance(part, Free | Choice):
            part = self._parts[len(self._written)] = part(self._written)
        return part

    def _take(self, token: int, logprob: float, allowed: Allowed) -> None:
        part = self._current()
        self.completion.add(token, logprob, allowed)
        self.unread.append(token)
        self._inside.append(token)
        ended = token in self._newline_ids if isinstance(part, Free) else tuple(self._inside) in part.options
        if ended:
            self._written.append(tuple(self._inside))
            self._inside = []

    def _skip_forced(self) -> None:
        while not self.finished and (allowed := self.allowed()) is not None and len(allowed) == 1:
            self._take(allowed[0], 0.0, allowed)


class ColumnCache(Cache):
    """Keys and values by position. Set `columns` and `limit` before a forward pass, then pass it as the cache.

    Rows that have nothing to read are padded; the padding goes to the last column, which nothing may see.
    """

    def __init__(self, num_layers: int, num_rows: int) -> None:
        super().__init__(layers=[])
        self.num_rows = num_rows
        self.capacity = 0
        self.columns = torch.empty(0)  # [B, n]
        self.limit = 0
        self._store: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def reserve(self, length: int) -> None:
        """Make room for columns 0..length-1 and the one for padding."""
        if length + 1 <= self.capacity:
            return
        wanted = max(length + 1, self.capacity + self.capacity // 2)
        for layer, pair in enumerate(self._store):
            if pair is not None:
                keys, values = (torch.cat((x, x.new_zeros(*x.shape[:2], wanted - x.shape[2], x.shape[3])), 2) for x in pair)
                self._store[layer] = (keys, values)
        self.capacity = wanted

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """[B, H, n, D] twice -> [B, H, limit, D] twice."""
        pair = self._store[layer_idx]
        if pair is None:
            shape = (self.num_rows, key_states.shape[1], self.capacity, key_states.shape[3])
            pair = self._store[layer_idx] = (key_states.new_zeros(shape), value_states.new_zeros(shape))
        index = self.columns[:, None, :, None].expand_as(key_states)
        for store, new in zip(pair, (key_states, value_states), strict=True):
            store.scatter_(2, index, new)
        return pair[0][:, :, : self.limit], pair[1][:, :, : self.limit]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(list(rows))
        for layer, pair in enumerate(self._store):
            if pair is not None:
                self._store[layer] = (pair[0][index.to(pair[0].device)], pair[1][index.to(pair[1].device)])
        self.num_rows = len(rows)


@torch.no_grad()
def read(model: PreTrainedModel, cache: ColumnCache, starts: Sequence[int], chunks: Sequence[Sequence[int]]) -> Tensor:
    """Read one chunk of tokens per row, row r from position `starts[r]` on; chunks may be empty.

    Returns:
        Logits after the last token of each row, [B, V] in fp32; meaningless for rows with an empty chunk.
    """
    longest = max(len(chunk) for chunk in chunks)
    cache.limit = max(start + len(chunk) for start, chunk in zip(starts, chunks, strict=True))
    cache.reserve(cache.limit)
    ids = np.zeros((len(chunks), longest), dtype=np.int64)
    columns = np.full_like(ids, cache.capacity - 1)
    positions = np.zeros_like(ids)
    for row, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
        ids[row, : len(chunk)] = chunk
        columns[row, : len(chunk)] = positions[row, : len(chunk)] = np.arange(start, start + len(chunk))
    device = model.device
    position = torch.from_numpy(positions).to(device)
    cache.columns = torch.from_numpy(columns).to(device)
    mask = torch.arange(cache.limit, device=device) <= position[:, None, :, None]  # [B, 1, n, limit]
    hidden = body(model)(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state  # [B, n, D]
    last = torch.tensor([max(len(chunk) - 1, 0) for chunk in chunks], device=device)
    return project(model, hidden[torch.arange(len(chunks), device=device), last])


def choice_mask(allowed: Sequence[Allowed], free_mask: Tensor) -> Tensor:
    """Which tokens each position may hold. [N, V] bool; `free_mask` where the text is free."""
    mask = torch.zeros(len(allowed), free_mask.shape[0], dtype=torch.bool)
    free = [n for n, choices in enumerate(allowed) if choices is None]
    rows = [n for n, choices in enumerate(allowed) if choices is not None for _ in choices]
    columns = [token for choices in allowed if choices is not None for token in choices]
    mask[rows, columns] = True
    mask = mask.to(free_mask.device)
    mask[free] = free_mask
    return mask


def constrained_logprobs(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log-probabilities over the allowed tokens, -inf elsewhere. [N, V] and [N, V] bool -> [N, V].

    Sampling and scoring both use this function, so constraint and temperature are in both and the ratio is unbiased.
    """
    return torch.log_softmax((logits / temperature).masked_fill(~mask, -torch.inf), dim=-1)


def write(
    model: PreTrainedModel,
    cache: ColumnCache,
    starts: list[int],
    contexts: Sequence[Sequence[int]],
    forms: Sequence[Form],
    rngs: Sequence[np.random.Generator],
    free_mask: Tensor,
    *,
    temperature: float,
) -> None:
    """Write one reply per row, in place: `forms` fill up, `starts` advance to what the cache holds.

    Temperature 0 takes the likeliest token; log-probabilities are then those of temperature 1. Row r draws from
    `rngs[r]` alone, one number a token.
    """
    chunks = [[*context, *form.unread] for context, form in zip(contexts, forms, strict=True)]
    while live := [row for row, form in enumerate(forms) if not form.finished]:
        logits = read(model, cache, starts, chunks)
        for row, chunk in enumerate(chunks):
            starts[row] += len(chunk)
            forms[row].unread.clear()
        allowed = [forms[row].allowed() for row in live]
        mask = choice_mask(allowed, free_mask)
        logprobs = constrained_logprobs(logits[live], mask, temperature or 1.0)
        tokens = _draw(logprobs, [rngs[row] for row in live], greedy=temperature == 0)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        for row, token, logprob in zip(live, tokens.tolist(), chosen.tolist(), strict=True):
            forms[row].push(token, logprob)
        chunks = [[] if row not in set(live) else list(forms[row].unread) for row in range(len(forms))]
        chunks = [[] if form.finished else chunk for form, chunk in zip(forms, chunks, strict=True)]


def _draw(logprobs: Tensor, rngs: Sequence[np.random.Generator], *, greedy: bool) -> Tensor:
    """One token a row, by inversion of one uniform number of the row's own stream. [N, V] -> [N]"""
    if greedy:
        return logprobs.argmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)  # [N, V]
    uniform = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64, device=logprobs.device)
    below = (cumulative <= uniform * cumulative[:, -1:]).sum(-1)
    return below.clamp(max=logprobs.shape[1] - 1)
