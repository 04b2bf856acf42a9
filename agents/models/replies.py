"""ReplyFormat: the fields of a reply, how a prompt asks for them, how text is read, and the action they stand for.

Trained and prompted agents use the same formats. `agents.models.forms` turns fields into what a decode loop may write;
`read_values` reads them from the text of an endpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.models.fields import Field, Number, OneOf, Ranking, Text, candidate_titles, check_fields, decides
from coars_env import ACTIONS, RECOMMENDER, USER, Action, ConfigError, Item, Observation, Role, clamp_strength


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
        chosen = [field for field in self.fields if decides(field, role)]
        if not chosen:
            wanted = "OneOf(candidate_titles) or Ranking(k)" if role == RECOMMENDER else "OneOf(ACTIONS)"
            raise ConfigError(
                f"A reply of {role} must hold a field {wanted}, found none in {[f.name for f in self.fields]}. Add one."
            )
        if role == USER and any(decides(field, RECOMMENDER) for field in self.fields):
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
        """Return the action that a reply stands for.

        Under the key `fields` it carries every field that the action itself does not hold: hidden ones, numbers, and
        rankings. The default formats have none.

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
        action: dict[str, Any] = {"item" if role == RECOMMENDER else "action": chosen, "message": message}
        if role != RECOMMENDER:
            action["strength"] = self._strength(chosen, fields)
        beside = {field.name: fields[field.name] for field in bound if not self._held(field, name)}
        return {**action, "fields": beside} if beside else action

    def _held(self, field: Field, deciding: str) -> bool:
        """Whether the action holds all that the field says."""
        if field.hidden or isinstance(field.kind, Ranking):
            return False
        if isinstance(field.kind, Number):
            return field.name == self.strength and (field.kind.low, field.kind.high) == (0, 1)
        return isinstance(field.kind, Text) or field.name == deciding

    def _strength(self, action: int, fields: dict[str, str]) -> float:
        if self.strength is None:
            return clamp_strength(action, None)
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
