"""ReplyFormat: the fields of a reply, how a prompt asks for them, how text is read, and the action they stand for.

Trained and prompted agents use the same formats. `agents.models.forms` turns fields into what a decode loop may write;
`read_values` reads them from the text of an endpoint.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

from coars_env import ACTIONS, RECOMMENDER, STRENGTH_EDGES, USER, Action, ConfigError, Item, Observation, Role
from coars_env import clamp_strength as clamped

Options = tuple[str, ...] | Callable[[Observation, Sequence[Item]], tuple[str, ...]]
"""Texts to choose from; or a function that makes them from what a side sees and the catalogue."""


def candidate_titles(observation: Observation, items: Sequence[Item]) -> tuple[str, ...]:
    """Return the titles of the candidates, in their order."""
    return tuple(items[int(index)].title for index in observation["candidates"])


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
    stripped = [option.strip() for option in options]
    twice = [option for n, option in enumerate(stripped) if option in stripped[:n]]
    if twice or not stripped or not all(stripped):
        raise ConfigError(
            f"Options must be one or more different texts, got {twice[0] + ' twice' if twice else options!r}. Give "
            "each a text of its own."
        )


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
    in the range lies in the quarter of that action, see `coars_env.clamp_strength`. None for the whole range."""

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

    def quarter(self, action: int) -> tuple[str, ...]:
        """Return the numbers whose place lies in the quarter of an action: "0.75", "0.80", ... for a click."""
        low, high = (*STRENGTH_EDGES, 1.0)[action : action + 2]
        last = action == len(ACTIONS) - 1
        return tuple(text for text in self.texts if low <= (place := self.place(text)) and (place < high or last))

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
        if self.length < 1:
            raise ConfigError(f"length of a Ranking must be at least 1, got {self.length}. Rank one option or more.")
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
        if isinstance(self.kind, OneOf) and self.kind.options is candidate_titles:
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
    if not any(field.name == kind.quarter_of and _decides(field, USER) for field in earlier):
        raise ConfigError(
            f"quarter_of must name an earlier OneOf(ACTIONS), got {kind.quarter_of!r} of the field {name!r}. Put the "
            "action before it."
        )
    if empty := [action for n, action in enumerate(ACTIONS) if not kind.quarter(n)]:
        raise ConfigError(
            f"Each action needs a number in its quarter of the range, got none for {empty[0]!r} in the field {name!r}. "
            "Choose a smaller step, or no quarter_of."
        )


def _decides(field: Field, role: Role) -> bool:
    if role == RECOMMENDER:
        return isinstance(field.kind, OneOf | Ranking) and field.kind.options is candidate_titles
    return isinstance(field.kind, OneOf) and field.kind.options == ACTIONS


@dataclass(frozen=True)
class ReplyFormat:
    """The fields of a reply in the order in which they are written, and what they mean in the game.

    The last field that chooses among the candidates is the recommender's proposal; of a `Ranking` the first. The last
    `OneOf(ACTIONS)` is the user's action. The message to the other side holds the visible free texts, and the other
    visible fields as "Name: value"; the proposal, the action and the strength reach it as such.

    Example: a recommender that thinks before it speaks::

        ReplyFormat((Field("Thought", Text(min_tokens=8), hidden=True), *RECOMMENDER_FORMAT.fields))

    Raises:
        ConfigError: no fields, two of one name, or names of fields that do not exist or do not fit.
    """

    fields: tuple[Field, ...]
    strength: str | None = None
    """Name of the number that is the user's acceptance strength, its range stretched to [0, 1]; None for the middle of
    the action's quarter. The game moves it into that quarter."""

    def __post_init__(self) -> None:
        check_fields(self.fields)
        if self.strength is not None and not isinstance(self._named(self.strength, "strength").kind, Number):
            raise ConfigError(f"strength must name a Number, got {self.strength!r}. Name another field.")

    def _named(self, name: str, what: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise ConfigError(f"{what} must name a field, got {name!r}. Fields are {[f.name for f in self.fields]}.")

    @property
    def ask(self) -> str:
        """The sentence with which a prompt asks for the fields."""
        *first, last = (field.asked for field in self.fields)
        return "\nReply with " + " and ".join(filter(None, (", ".join(first), last))) + "."

    def deciding(self, role: Role) -> Field:
        """Return the field that is the proposal or the action of a side.

        Raises:
            ConfigError: there is none, or the user is to choose among candidates, which it does not see.
        """
        chosen = [field for field in self.fields if _decides(field, role)]
        if not chosen:
            wanted = "OneOf(candidate_titles) or Ranking(k)" if role == RECOMMENDER else "OneOf(ACTIONS)"
            raise ConfigError(
                f"A reply of {role} must hold a field {wanted}, found none in {[f.name for f in self.fields]}. Add one."
            )
        if role == USER and any(_decides(field, RECOMMENDER) for field in self.fields):
            raise ConfigError("A user cannot choose among the candidates: it does not see them. Use other options.")
        return chosen[-1]

    def bind(self, observation: Observation, items: Sequence[Item]) -> tuple[Field, ...]:
        """Return the fields with the options of this observation.

        Raises:
            ConfigError: options that a kind refuses, for instance fewer than a `Ranking` is long.
        """
        return tuple(
            replace(field, kind=replace(field.kind, options=field.kind.options(observation, items)))
            if isinstance(field.kind, OneOf | Ranking) and callable(field.kind.options)
            else field
            for field in self.fields
        )

    def action(self, role: Role, bound: Sequence[Field], values: Sequence[str]) -> Action:
        """Return the action that a reply stands for, with all fields, hidden ones too, under the key `fields`.

        Args:
            role: whose reply it is.
            bound: the fields as `bind` returned them.
            values: text of each field; options letter for letter.
        """
        fields = {field.name: value for field, value in zip(bound, values, strict=True)}
        name = self.deciding(role).name
        options = next(field.options for field in bound if field.name == name) or ()
        chosen = [option.strip() for option in options].index(fields[name].split("\n")[0])
        message = " ".join(
            value if isinstance(field.kind, Text) else field.label + " " + value.replace("\n", "; ")
            for field, value in zip(bound, values, strict=True)
            if not field.hidden and field.name not in (name, self.strength)
        )
        if role == RECOMMENDER:
            return {"item": chosen, "message": message, "fields": fields}
        return {"action": chosen, "strength": self._strength(chosen, fields), "message": message, "fields": fields}

    def _strength(self, action: int, fields: dict[str, str]) -> float:
        if self.strength is None:
            return clamped(action, None)
        kind = self._named(self.strength, "strength").kind
        assert isinstance(kind, Number)
        return kind.place(fields[self.strength])


REASON_FIELD = Field("Reason")
ACTION_FIELD = Field("Action", OneOf(ACTIONS))
RECOMMENDER_FORMAT = ReplyFormat((REASON_FIELD, Field("Item", OneOf(candidate_titles))))
SCORE_RANGE = Number(0, 1, 0.05, quarter_of="Action")
USER_FORMAT = ReplyFormat((REASON_FIELD, ACTION_FIELD, Field("Score", SCORE_RANGE)), strength="Score")
"""A score has steps of .05 (our choice)."""
DEFAULT_FORMATS: dict[Role, ReplyFormat] = {RECOMMENDER: RECOMMENDER_FORMAT, USER: USER_FORMAT}


# --- text -------------------------------------------------------------------------------------------------------------


def parse_fields(text: str, labels: Sequence[str]) -> dict[str, str] | str:
    """Read labelled parts, each label once and in order, or return why they cannot be read. A text that fits in two
    ways is refused, never guessed.
    """
    for label in labels:
        if (found := text.count(label)) != 1:
            return f"expected {label!r} once, found it {found} times"
    places = [text.index(label) for label in labels]
    if places != sorted(places):
        return f"expected the labels in the order {list(labels)}"
    ends = [*places[1:], len(text)]
    return {
        label: text[start + len(label) : end].strip() for label, start, end in zip(labels, places, ends, strict=True)
    }


def read_values(text: str, fields: Sequence[Field]) -> tuple[str, ...] | str:
    """Read the values of bound fields, or return why they cannot be read.

    Each label occurs once, in the order asked for. A `OneOf` holds one of its options, letter for letter, blanks around
    it left out; a `Number` any number of its range; a `Ranking` its number of different options, one a line. What fits
    in two ways or none is refused, never guessed.
    """
    found = parse_fields(text, [field.label for field in fields])
    if isinstance(found, str):
        return found
    for field in fields:
        if (error := _fault(field, found[field.label])) is not None:
            return error
    return tuple(
        found[field.label] if not isinstance(field.kind, Ranking) else _lines(found[field.label]) for field in fields
    )


def _lines(value: str) -> str:
    return "\n".join(line.strip() for line in value.split("\n"))


def _fault(field: Field, value: str) -> str | None:
    options = [option.strip() for option in field.options or ()]
    if isinstance(field.kind, Text) or (isinstance(field.kind, Number) and field.kind.holds(value)):
        return None
    named = _lines(value).split("\n") if isinstance(field.kind, Ranking) else [value]
    for one in named:
        if (fits := options.count(one)) != 1:
            return (
                f"expected one of {len(options)} options after {field.label!r}, found {one[:80]!r}, which fits {fits}"
            )
    if isinstance(field.kind, Ranking):
        if len(named) != field.kind.length:
            return f"expected {field.kind.length} options after {field.label!r}, each on a line, found {len(named)}"
        for n, one in enumerate(named):
            if one in named[:n]:
                return f"expected different options after {field.label!r}, found {one[:80]!r} twice"
    return None


def written(fields: Sequence[Field], values: Sequence[str]) -> tuple[str, ...]:
    """Return a reply as pieces, for the message in which it is remembered."""
    pieces: list[str] = []
    for field, value in zip(fields, values, strict=True):
        pieces.append(field.label)
        for line in value.split("\n") if isinstance(field.kind, Ranking) else [value]:
            pieces += [f" {line}", "\n"]
    return tuple(pieces)
