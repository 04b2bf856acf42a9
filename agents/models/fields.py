"""Field: one labelled part of a reply, and its kinds: free text, one of several options, a number, a ranking."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    STRENGTH_EDGES,
    USER,
    ConfigError,
    Item,
    Observation,
    Role,
    askable_kinds,
    question_text,
)

Options = tuple[str, ...] | Callable[[Observation, Sequence[Item]], tuple[str, ...]]
"""Texts to choose from; or a function that makes them from what a side sees and the catalogue."""


def open_positions(observation: Observation) -> list[int]:
    """Return the positions of the candidates that may be proposed now: all, unless the rules forbid repeats."""
    allowed = observation.get("allowed")
    return [n for n in range(len(observation["candidates"])) if allowed is None or allowed[n]]


def candidate_titles(observation: Observation, items: Sequence[Item]) -> tuple[str, ...]:
    """Return the titles of the candidates that may be proposed now, in their order."""
    candidates = observation["candidates"]
    return tuple(items[int(candidates[position])].title for position in open_positions(observation))


def titles_and_questions(observation: Observation, items: Sequence[Item]) -> tuple[str, ...]:
    """Return the same, and a question for each kind of facet that the recommender may ask for now: "Which genre?"."""
    return (*candidate_titles(observation, items), *map(question_text, askable_kinds(observation)))


def check_lengths(least: int, greatest: int | None) -> None:
    """Refuse lengths that no text can have.

    Raises:
        ConfigError: a negative length, or a least length above the greatest.
    """
    if least < 0 or (greatest is not None and greatest < least):
        raise ConfigError(
            f"Lengths of a free text must have 0 <= min_tokens <= max_tokens, got min_tokens={least} and "
            f"max_tokens={greatest}. Change one of them."
        )


def check_options(options: Options) -> None:
    """Refuse options that a text cannot name.

    Raises:
        ConfigError: no options, an empty one, or one twice.
    """
    if callable(options):
        return
    if isinstance(options, str) or any("\n" in option for option in options):
        raise ConfigError(f"Options must be a tuple of texts of one line each, got {options!r:.200}.")
    different = {option.strip() for option in options}
    if len(different) < len(options) or not options or "" in different:
        twice = next((option for n, option in enumerate(options) if option.strip() in options[:n]), None)
        found = f"{twice.strip()!r} twice" if twice is not None else repr(options)
        raise ConfigError(f"Options must be one or more different texts, got {found}. Give each a text of its own.")


@dataclass(frozen=True)
class Text:
    """Free text on one line.

    Raises:
        ConfigError: a negative length, or a least length above the greatest.
    """

    min_tokens: int = 0
    """Least length. A decode loop cannot end the line earlier; an endpoint is asked for it, and not held to it."""
    max_tokens: int | None = None
    """Greatest length; None for the limit of the model."""

    def __post_init__(self) -> None:
        check_lengths(self.min_tokens, self.max_tokens)


@dataclass(frozen=True)
class OneOf:
    """One of several options, letter for letter: `OneOf(("low", "high"))`, `OneOf(candidate_titles)`.

    Raises:
        ConfigError: no options, an empty one, or one twice.
    """

    options: Options

    def __post_init__(self) -> None:
        check_options(self.options)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`. A decode loop writes multiples of `step`; text may hold any number of the range.

    All numbers of a range are written with equal length, so that none begins another: 01, 02, ..., 10.

    Raises:
        ConfigError: an empty range, a negative number, or a step that does not lead from `low` to `high`.
    """

    low: float
    high: float
    step: float
    quarter_of: str | None = None
    """Name of an earlier field that holds an action of the user: a decode loop then writes only the numbers whose place
    in the range is in the quarter of that action, see `coars_env.clamp_strength`. None for the whole range."""

    def __post_init__(self) -> None:
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        if not (low.is_finite() and high.is_finite() and 0 <= low < high):
            raise ConfigError(
                f"A range of numbers must have 0 <= low < high, got low={self.low} and high={self.high}. Widen it."
            )
        if not step.is_finite() or step <= 0 or (high - low) % step:
            raise ConfigError(
                f"A step must lead from low to high, got step={self.step} from {self.low} to {self.high}. Choose a "
                "divisor of their difference."
            )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The numbers a decode loop may write, ascending."""
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        places = max(0, *(-int(number.normalize().as_tuple().exponent) for number in (low, step)))
        width = len(f"{high:.{places}f}")
        return tuple(f"{low + n * step:0{width}.{places}f}" for n in range(int((high - low) / step) + 1))

    def place(self, text: str) -> float:
        """Return the place of a number in the range, from 0 (low) to 1 (high)."""
        low, high = Fraction(str(self.low)), Fraction(str(self.high))
        return float((Fraction(text) - low) / (high - low))

    @cached_property
    def quarters(self) -> tuple[tuple[str, ...], ...]:
        """The numbers whose place is in the quarter of each action: "0.75", "0.80", ... for a click."""
        found: list[list[str]] = [[] for _ in ACTIONS]
        for text in self.texts:
            found[sum(edge <= self.place(text) for edge in STRENGTH_EDGES) - 1].append(text)
        return tuple(map(tuple, found))

    def holds(self, text: str) -> bool:
        """Whether a text is a number of the range."""
        return re.fullmatch(r"[0-9]*\.?[0-9]+", text) is not None and self.low <= float(text) <= self.high


@dataclass(frozen=True)
class Ranking:
    """The `length` best of some options without repeats, best first, each on a line of its own.

    A decode loop makes successive choices among what is left; each is recorded like any other choice.

    Raises:
        ConfigError: a length below 1 or above the number of options, or options that `OneOf` refuses.
    """

    length: int
    options: Options = candidate_titles

    def __post_init__(self) -> None:
        check_options(self.options)
        if not isinstance(self.length, int) or self.length < 1:
            raise ConfigError(f"length of a Ranking must be a whole number from 1 on, got {self.length!r}.")
        if not callable(self.options) and self.length > len(self.options):
            raise ConfigError(
                f"A Ranking must not be longer than its list of options, got length={self.length} for "
                f"{len(self.options)} options. Rank fewer, or offer more."
            )


Kind = Text | OneOf | Number | Ranking


@dataclass(frozen=True)
class Field:
    """One labelled part of a reply.

    Example: `Field("Item", OneOf(("Heat (1995)", "Fargo (1996)")))`, as in "Item: Fargo (1996)".
    """

    name: str
    kind: Kind = Text()
    hidden: bool = False
    """Whether the field is left out of the message to the other side: a thought. It is written, recorded and trained on
    like any other."""
    when: Callable[[Observation], bool] | None = None
    """In which turns the field is part of the reply, by what a side sees; None for all. In games without an instruction
    it may be called with an observation that lacks all keys."""

    @property
    def label(self) -> str:
        """What a line of the reply begins with."""
        return f"{self.name}:"

    @property
    def options(self) -> tuple[str, ...] | None:
        """The texts to choose from; None for free text. The field is bound, see `ReplyFormat.bind`."""
        if isinstance(self.kind, Text):
            return None
        if isinstance(self.kind, Number):
            return self.kind.texts
        assert not callable(self.kind.options)
        return self.kind.options

    @property
    def asked(self) -> str:
        """The field in the words of a prompt: "a Reason", "one Item of the candidates"."""
        article = "an" if self.name[0].lower() in "aeiou" else "a"
        if isinstance(self.kind, OneOf) and self.kind.options in (candidate_titles, titles_and_questions):
            return f"one {self.name} of the candidates"
        if isinstance(self.kind, Ranking):
            of = "candidates" if self.kind.options is candidate_titles else "options"
            return f"{article} {self.name} of the {self.kind.length} best {of}"
        return f"{article} {self.name}"


def check_fields(fields: Sequence[Field]) -> None:
    """Refuse fields that a reply cannot be read by.

    Raises:
        ConfigError: no fields, two of one name, a name that a line cannot begin with, or a `quarter_of` that names no
            earlier action.
    """
    if not fields:
        raise ConfigError("A reply must have at least one field, got none. Add one, such as Field('Reason').")
    if isinstance(fields, str | Field) or not all(isinstance(field, Field) for field in fields):
        raise ConfigError(f"A reply is made of fields, got {fields!r:.200}. Pass a tuple, such as (Field('Reason'),).")
    for n, field in enumerate(fields):
        if not field.name or field.name != field.name.strip() or ":" in field.name or "\n" in field.name:
            raise ConfigError(
                f"A field needs a name without colon, line break or blanks around it, got {field.name!r}. Rename it."
            )
        for other in fields[:n]:
            if field.label.endswith(other.label) or other.label.endswith(field.label):
                raise ConfigError(
                    f"No name of a field may end another, got {other.name!r} and {field.name!r}: a reply could not be "
                    "read by its labels. Rename one."
                )
        if isinstance(field.kind, Number) and field.kind.quarter_of is not None:
            _check_quarters(field.name, field.kind, fields[:n])


def _check_quarters(name: str, kind: Number, earlier: Sequence[Field]) -> None:
    if not any(field.name == kind.quarter_of and decides(field, USER) for field in earlier):
        raise ConfigError(
            f"quarter_of must name an earlier OneOf(ACTIONS), got {kind.quarter_of!r} of the field {name!r}. Put the "
            "action before it."
        )
    if empty := [action for n, action in enumerate(ACTIONS) if not kind.quarters[n]]:
        raise ConfigError(
            f"Each action needs a number in its quarter of the range, got none for {empty[0]!r} in the field {name!r}. "
            "Choose a smaller step, or no quarter_of."
        )


def decides(field: Field, role: Role) -> bool:
    if role == RECOMMENDER:
        if isinstance(field.kind, OneOf) and field.kind.options is titles_and_questions:
            return True
        return isinstance(field.kind, OneOf | Ranking) and field.kind.options is candidate_titles
    return isinstance(field.kind, OneOf) and field.kind.options == ACTIONS
