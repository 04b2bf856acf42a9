"""Completion: the sampled tokens of one reply, with their log-probabilities; and the decode loop that makes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from agents.models.backbones.backbone import body, check_context, project
from agents.models.column_cache import ColumnCache
from agents.models.fields import check_lengths
from coars_env import ConfigError


@dataclass(frozen=True)
class AnyBut:
    """Any free text except these tokens: those that end the line, before a text has its least length."""

    tokens: frozenset[int]


Allowed = tuple[int, ...] | AnyBut | None
"""Token ids a position may hold: None for any free text, the end of the line included; else the choices left."""


@dataclass(frozen=True)
class Free:
    """Free text up to the end of the line, from `min_tokens` to `max_tokens` long; the newline is added if the model
    does not write it.

    Raises:
        ConfigError: a negative length, or a least length above the greatest.
    """

    max_tokens: int
    min_tokens: int = 0

    def __post_init__(self) -> None:
        check_lengths(self.min_tokens, self.max_tokens)


@dataclass(frozen=True)
class Choice:
    """One of several token sequences, none of which begins another.

    Example: `Choice(((5, 9), (6, 7, 9))).following` is `{(): (5, 6), (5,): (9,), (6,): (7,), (6, 7): (9,)}`.

    Raises:
        ConfigError: no options, or two that cannot be told apart token by token.
    """

    options: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        ordered = sorted(self.options)
        mixed = [pair for pair in pairwise(ordered) if pair[1][: len(pair[0])] == pair[0]]
        if mixed or not ordered or not ordered[0]:
            raise ConfigError(
                "Options are told apart token by token. Expected at least one, none empty, and none that begins "
                f"another, found {mixed[0] if mixed else ordered}. Two titles may read alike to this tokenizer: give "
                "them different titles."
            )

    @cached_property
    def following(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """The tokens that may follow each beginning of an option, sorted."""
        sets: dict[tuple[int, ...], set[int]] = {}
        for option in self.options:
            for n, token in enumerate(option):
                sets.setdefault(option[:n], set()).add(token)
        return {beginning: tuple(sorted(tokens)) for beginning, tokens in sets.items()}


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
        self.sampled.append(not isinstance(allowed, tuple) or len(allowed) > 1)
        self.logprobs.append(logprob)
        self.allowed.append(allowed)


class Form:
    """The state of one reply being written: which tokens may come next."""

    def __init__(
        self, parts: Sequence[Part], newline_ids: frozenset[int], newline: int, given: Mapping[int, int] | None = None
    ) -> None:
        """Start with the tokens that follow from no choice.

        Args:
            parts: stretches of the reply, in order.
            newline_ids: tokens that end a line.
            newline: the one that ends a text of greatest length.
            given: by number of the part, the option that is taken instead of sampled: with log-probability 0, and
                recorded with the choices there were.
        """
        assert newline in newline_ids
        self._parts, self._given = parts, given or {}
        self._newline, self._goes_on = newline, AnyBut(newline_ids)
        self._inside: tuple[int, ...] = ()  # tokens of the current part
        self.written: list[tuple[int, ...]] = []
        """Tokens of the finished parts."""
        self.choices: list[Choice | None] = []
        """What each finished part was chosen from; None for free text."""
        self.completion = Completion()
        self.unread: list[int] = []
        """Tokens the model has not seen yet."""
        self._part = self._next_part()
        self._skip_forced()

    @property
    def part(self) -> Free | Choice | None:
        """What is being written; None if the form is finished."""
        return self._part

    @property
    def finished(self) -> bool:
        return self._part is None

    def chosen(self, part: int) -> int:
        """Number of the option that stands in a finished part."""
        choice = self.choices[part]
        assert choice is not None
        return choice.options.index(self.written[part])

    def allowed(self) -> Allowed:
        """What the next token may be. The form is not finished."""
        part = self._part
        assert part is not None
        if isinstance(part, Choice):
            return part.following[self._inside]
        if len(self._inside) < part.min_tokens:
            return self._goes_on
        return None if len(self._inside) < part.max_tokens else (self._newline,)

    @property
    def room(self) -> int:
        """How many tokens may be sampled before `allowed` must be asked again: what is left of a free text, or of its
        least length; else one.
        """
        part, length = self._part, len(self._inside)
        if not isinstance(part, Free):
            return 1
        return max(1, (part.min_tokens if length < part.min_tokens else part.max_tokens) - length)

    def push(self, token: int, logprob: float) -> None:
        """Take the token sampled at this position, then every one that follows without a choice."""
        allowed = self.allowed()
        assert not isinstance(allowed, tuple) or token in allowed
        assert not isinstance(allowed, AnyBut) or token not in allowed.tokens
        self._take(token, logprob, allowed)
        self._skip_forced()

    def _next_part(self) -> Free | Choice | None:
        if len(self.written) == len(self._parts):
            return None
        part = self._parts[len(self.written)]
        return part if isinstance(part, Free | Choice) else part(self.written)

    def _take(self, token: int, logprob: float, allowed: Allowed) -> None:
        self.completion.add(token, logprob, allowed)
        self.unread.append(token)
        self._inside = (*self._inside, token)
        part = self._part
        choice = part if isinstance(part, Choice) else None
        ended = token in self._goes_on.tokens if choice is None else self._inside not in choice.following
        if ended:
            self.written.append(self._inside)
            self.choices.append(choice)
            self._inside = ()
            self._part = self._next_part()

    def _skip_forced(self) -> None:
        while not self.finished:
            allowed, part, number = self.allowed(), self._part, self._given.get(len(self.written))
            if isinstance(part, Choice) and number is not None:
                self._take(part.options[number][len(self._inside)], 0.0, allowed)
            elif isinstance(allowed, tuple) and len(allowed) == 1:
                self._take(allowed[0], 0.0, allowed)
            else:
                break


@torch.no_grad()
def prefill(
    model: PreTrainedModel,
    cache: ColumnCache,
    starts: Sequence[int],
    chunks: Sequence[Sequence[int]],
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Read one chunk of tokens per row, row r from position `starts[r]` on; chunks may be empty.

    Args:
        model: with the side's adapter live.
        cache: takes the keys and values.
        starts: [b] position of each chunk's first token.
        chunks: b lists of tokens.
        rows: the b rows of the cache that they belong to; None for all.

    Returns:
        Logits after the last token of each chunk, [b, V] in fp32; meaningless where the chunk is empty.

    Raises:
        BackboneError: a row is longer than the model's context.
    """
    lengths = np.array([len(chunk) for chunk in chunks])[:, None]  # [b, 1]
    offsets = np.arange(lengths.max())  # [n]
    real = offsets < lengths  # [b, n]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = np.fromiter(chain.from_iterable(chunks), dtype=np.int64)
    positions = np.where(real, np.array(starts)[:, None] + offsets, 0)
    cache.limit = int(positions.max()) + 1
    check_context(model, cache.limit)
    cache.reserve(cache.limit)
    columns = np.where(real, positions, cache.capacity - 1)
    device = model.device
    position = torch.from_numpy(positions).to(device)
    cache.columns = torch.from_numpy(columns).to(device)
    cache.rows = None if rows is None else torch.tensor(list(rows), device=device)
    sees = torch.arange(cache.limit, device=device) <= position[:, None, :, None]  # [b, 1, n, limit]
    hidden = body(model)(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=additive(sees, model.dtype),
        position_ids=position,
        cache=cache,
        use_cache=True,
    ).last_hidden_state  # [b, n, D]
    last = torch.from_numpy(np.maximum(lengths[:, 0] - 1, 0)).to(device)
    return project(model, hidden[torch.arange(len(chunks), device=device), last])


def additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query sees a column and -inf elsewhere: what attention would else make of a mask in every layer."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)


def open_cache(model: PreTrainedModel, openings: Sequence[Sequence[int]]) -> tuple[ColumnCache, list[int]]:
    """A fresh cache with one row per opening, and how many tokens each row holds of it.

    Openings that several rows have in common are read once and copied; where all differ nothing is read yet.
    """
    layers = model.config.get_text_config().num_hidden_layers
    distinct, of_row = unique_prefixes(openings)
    if len(distinct) == len(openings):
        return ColumnCache(layers, len(openings)), [0] * len(openings)
    cache = ColumnCache(layers, len(distinct))
    prefill(model, cache, [0] * len(distinct), distinct)
    cache.keep(of_row)
    return cache, [len(opening) for opening in openings]


def unique_prefixes(prefixes: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Return the distinct prefixes in order of appearance, and the number of each row's prefix among them.

    An empty prefix is shared with no other row.
    """
    distinct: list[tuple[int, ...]] = []
    numbers: dict[tuple[int, ...], int] = {}
    of_row: list[int] = []
    for prefix in map(tuple, prefixes):
        if not prefix or prefix not in numbers:
            numbers[prefix] = len(distinct)
            distinct.append(prefix)
        of_row.append(numbers[prefix])
    return distinct, of_row


def choice_mask(allowed: Sequence[Allowed], free_mask: Tensor) -> Tensor:
    """Return which tokens each position may hold, [N, V] bool: `free_mask` where the text is free."""
    if all(choices is None for choices in allowed):
        return free_mask.expand(len(allowed), -1)
    free = [not isinstance(choices, tuple) for choices in allowed]
    mask = free_mask & torch.tensor(free, device=free_mask.device)[:, None]
    rows = [n for n, choices in enumerate(allowed) if isinstance(choices, tuple) for _ in choices]
    columns = [token for choices in allowed if isinstance(choices, tuple) for token in choices]
    mask[rows, columns] = True
    for excluded in {choices for choices in allowed if isinstance(choices, AnyBut)}:
        shorter = torch.tensor([n for n, choices in enumerate(allowed) if choices == excluded])
        mask[shorter[:, None], torch.tensor(sorted(excluded.tokens))] = False
    return mask


def constrained_logprobs(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log-probabilities over the allowed tokens, -inf elsewhere. [N, V] and [N, V] bool -> [N, V].

    Sampling and scoring both use this function, so constraint and temperature are in both and the ratio is unbiased.
    """
    assert temperature > 0
    return torch.log_softmax((logits / temperature).masked_fill(~mask, -torch.inf), dim=-1)


def decode(
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
    pending = [[*context, *form.unread] for context, form in zip(contexts, forms, strict=True)]
    for form in forms:
        form.unread.clear()
    width = max(map(len, pending))
    while live := [row for row, form in enumerate(forms) if not form.finished]:
        few = 2 * len(live) <= len(forms)  # picking rows out of the cache copies them, and pays for a few only
        taking = live if few else range(len(forms))
        chunks = [[] if forms[row].finished else pending[row][:width] for row in taking]
        logits = prefill(model, cache, [starts[row] for row in taking], chunks, live if few else None)
        for row, chunk in zip(taking, chunks, strict=True):
            starts[row] += len(chunk)
            del pending[row][: len(chunk)]
        ready = [place for place, row in enumerate(taking) if not (pending[row] or forms[row].finished)]
        writing = [taking[place] for place in ready]
        mask = choice_mask([forms[row].allowed() for row in writing], free_mask)
        logprobs = constrained_logprobs(logits[ready], mask, temperature or 1.0)
        tokens = _draw(logprobs, [rngs[row] for row in writing], greedy=temperature == 0)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        for row, token, logprob in zip(writing, tokens.tolist(), chosen.tolist(), strict=True):
            forms[row].push(token, logprob)
            pending[row] = forms[row].unread.copy()
            forms[row].unread.clear()
        # rows that wait for others pad nothing: each pass is as wide as the least of what is left to read
        width = min((len(pending[row]) for row in live if not forms[row].finished), default=0)


def _draw(logprobs: Tensor, rngs: Sequence[np.random.Generator], *, greedy: bool) -> Tensor:
    """One token a row, by inversion of one uniform number of the row's own stream. [N, V] -> [N]"""
    if greedy:
        return logprobs.argmax(-1)
    cumulative = logprobs.exp().double().cumsum(-1)  # [N, V]
    uniform = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64, device=logprobs.device)
    tokens = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=logprobs.shape[1] - 1)
    if bool(torch.isinf(logprobs.gather(1, tokens)).any()):  # a sum in parallel may be off by a rounding
        tokens = torch.where(torch.isinf(logprobs.gather(1, tokens)), logprobs.argmax(-1, keepdim=True), tokens)
    return tokens[:, 0]
