"""ReplyFormat: the fields of a reply, how a prompt asks for them, how text is read, and the action they stand for.

Trained and prompted agents use the same formats. `agents.models.forms` turns fields into what a decode loop may write;
`read_values` reads them from the text of an endpoint.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.models.fields import (
    Field,
    Number,
    OneOf,
    Ranking,
    Text,
    check_fields,
    decides,
    open_positions,
    titles_and_questions,
)
from agents.models.wishes import instructed, proposal_heard, wish_texts, wished
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    USER,
    Action,
    ConfigError,
    Item,
    Observation,
    Role,
    askable_kinds,
    clamp_strength,
)


@dataclass(frozen=True)
class ReplyFormat:
    """The fields of a reply in the order in which they are written, and what they mean in the game.

    The last field that chooses among the candidates is the recommender's proposal; of a `Ranking` the first. The last
    `OneOf(ACTIONS)` is the user's action. A recommender that chooses among `titles_and_questions` may also ask, and a
    user with a field `OneOf(wish_texts)` may reveal what it wants. The message to the other side holds the visible free
    texts, and the other visible fields as "Name: value"; proposal, action, strength and wish reach it as such.

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

    def ask(self, observation: Observation | None = None) -> str:
        """Return the sentence with which a prompt asks for the fields; None for a game without an instruction."""
        seen = observation or {}
        *first, last = (
            field.asked + (" or a question" if _may_ask(field) and askable_kinds(seen) else "")
            for field in self._present(seen)
        )
        return "\nReply with " + " and ".join(filter(None, (", ".join(first), last))) + "."

    def _present(self, observation: Observation) -> tuple[Field, ...]:
        """The fields that are part of the reply in this turn.

        Raises:
            ConfigError: there are none.
        """
        fields = tuple(field for field in self.fields if field.when is None or field.when(observation))
        names = {field.name for field in fields}
        found = tuple(f for f in fields if not isinstance(f.kind, Number) or f.kind.quarter_of in (None, *names))
        if not found:
            raise ConfigError(
                f"A reply must have a field in every turn, got none of {[field.name for field in self.fields]} in turn "
                f"{int(observation.get('turn', 0)) + 1}. Add one without a condition."
            )
        return found

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
        """Return the fields of this turn with the options of this observation.

        Fields whose condition does not hold are left out, and with an action the number that is to fit it.

        Raises:
            ConfigError: options that a kind refuses, for instance fewer than a `Ranking` is long, or no field is left.
        """
        return tuple(
            replace(field, kind=replace(field.kind, options=field.kind.options(observation, items)))
            if isinstance(field.kind, OneOf | Ranking) and callable(field.kind.options)
            else field
            for field in self._present(observation)
        )

    def action(
        self,
        role: Role,
        bound: Sequence[Field],
        values: Sequence[str],
        observation: Observation,
        items: Sequence[Item],
    ) -> Action:
        """Return the action that a reply stands for.

        Under the key `fields` it carries every field that the action itself does not hold: hidden ones, numbers, and
        rankings. The default formats have none.

        Args:
            role: whose reply it is.
            bound: the fields as `bind` returned them.
            values: text of each field; options letter for letter.
            observation: what the fields were bound with.
            items: the catalogue.
        """
        fields = {field.name: value for field, value in zip(bound, values, strict=True)}
        name, wish = self.deciding(role).name, self.wish
        held = {name, self.strength, wish.name if wish else None}
        message = " ".join(
            value if isinstance(field.kind, Text) else field.label + " " + value.replace("\n", "; ")
            for field, value in zip(bound, values, strict=True)
            if not field.hidden and field.name not in held
        )
        chosen = 0  # an answer to a question has no action, whatever stands here
        if name in fields:
            options = next(field.options for field in bound if field.name == name) or ()
            chosen = [option.strip() for option in options].index(fields[name].split("\n")[0])
        if role == RECOMMENDER:
            action = {**_move(chosen, observation), "message": message}
        else:
            action = {"action": chosen, "message": message, "strength": self._strength(chosen, fields)}
            if wish is not None and wish.name in fields:
                action["reveal"] = str(wished(fields[wish.name], observation, items) or "")
        beside = {field.name: fields[field.name] for field in bound if not self._held(field, held)}
        return {**action, "fields": beside} if beside else action

    @property
    def may_ask(self) -> bool:
        """Whether a recommender that replies in this format can ask."""
        return any(map(_may_ask, self.fields))

    @property
    def wish(self) -> Field | None:
        """The field that reveals what the user wants; None if there is none."""
        found = (f for f in self.fields if isinstance(f.kind, OneOf) and f.kind.options is wish_texts)
        return next(found, None)

    def _held(self, field: Field, held: Collection[str | None]) -> bool:
        """Whether the action holds all that the field says."""
        if field.hidden or isinstance(field.kind, Ranking):
            return False
        if isinstance(field.kind, Number):
            return field.name == self.strength and (field.kind.low, field.kind.high) == (0, 1)
        return isinstance(field.kind, Text) or field.name in held

    def _strength(self, action: int, fields: dict[str, str]) -> float:
        if self.strength is None or self.strength not in fields:
            return clamp_strength(action, None)
        kind = self._named(self.strength, "strength").kind
        assert isinstance(kind, Number)
        return kind.place(fields[self.strength])


def _may_ask(field: Field) -> bool:
    return isinstance(field.kind, OneOf) and field.kind.options is titles_and_questions


def _move(chosen: int, observation: Observation) -> dict[str, Any]:
    """What the recommender does by the number of the option: candidates that may be proposed, then questions."""
    positions = open_positions(observation)
    if chosen < len(positions):
        return {"item": positions[chosen]}
    return {"ask": askable_kinds(observation)[chosen - len(positions)]}


REASON_FIELD = Field("Reason")
ACTION_FIELD = Field("Action", OneOf(ACTIONS), when=proposal_heard)
WISH_FIELD = Field("Wish", OneOf(wish_texts), when=instructed)
RECOMMENDER_FORMAT = ReplyFormat((REASON_FIELD, Field("Item", OneOf(titles_and_questions))))
SCORE_RANGE = Number(0, 1, 0.05, quarter_of="Action")


def user_format(score: Number) -> ReplyFormat:
    """Return the default format of a user: to a proposal a reason, an action and a score, in games with an instruction
    a wish; to a question the wish alone (our choice).
    """
    reason, number = replace(REASON_FIELD, when=proposal_heard), Field("Score", score, when=proposal_heard)
    return ReplyFormat((reason, ACTION_FIELD, number, WISH_FIELD), strength="Score")


USER_FORMAT = user_format(SCORE_RANGE)
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
