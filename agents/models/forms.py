"""FieldForms: the fields of a reply as forms that a decode loop fills in, and finished forms as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import Choice, Form, Free, Part
from agents.models.fields import Field, Number, Ranking, Text
from coars_env import ConfigError


@dataclass(frozen=True)
class _Compiled:
    """Bound fields in the tokens of a backbone."""

    parts: list[Part]
    places: dict[str, int]
    """The part in which each field's value begins; its label is the part before."""
    choices: list[Choice | None]
    """All options of each field; None for free text."""


class FieldForms:
    """Writes fields in the tokens of one backbone: a label, then one part, or one for each place of a ranking."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._known: dict[tuple[Field, ...], _Compiled] = {}

    def forget(self) -> None:
        """Free the memory of options."""
        self._known.clear()

    def check(self, fields: Sequence[Field]) -> None:
        """Refuse what this backbone cannot write. Options that depend on an observation are not looked at.

        Raises:
            ConfigError: a text whose least length is above the backbone's limit, or options that read the same to the
                tokenizer.
        """
        for field in fields:
            if isinstance(field.kind, Text):
                self._text(field)
            elif isinstance(field.kind, Number) or not callable(field.kind.options):
                self._choice(field.options or ())

    def start(self, fields: Sequence[Field], given: Mapping[str, int] | None = None) -> Form:
        """Return an empty form of bound fields.

        Args:
            fields: as `ReplyFormat.bind` returns them.
            given: by name of the field, the number of the option that is taken instead of sampled; of a ranking, its
                first.
        """
        known = self._compiled(fields)
        numbers = {known.places[name]: number for name, number in (given or {}).items()}
        return Form(known.parts, self._backbone.newline_ids, self._backbone.newline, numbers)

    def values(self, fields: Sequence[Field], form: Form) -> tuple[str, ...]:
        """Return the text of each field of a finished form, without blanks around it; an option letter for letter."""
        values: list[str] = []
        known = self._compiled(fields)
        for field, choice in zip(fields, known.choices, strict=True):
            first = known.places[field.name]
            if choice is None:
                values.append(self._backbone.decode(form.written[first]).strip())
            else:
                length = field.kind.length if isinstance(field.kind, Ranking) else 1
                numbers = [choice.options.index(tokens) for tokens in form.written[first : first + length]]
                options = field.options or ()
                values.append("\n".join(options[number].strip() for number in numbers))
        return tuple(values)

    def _compiled(self, fields: Sequence[Field]) -> _Compiled:
        """Dialogues ask for the same fields in every turn, so what they become is kept."""
        key = tuple(fields)
        if key not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            made = self._known[key] = _Compiled([], {}, [])
            for field in fields:
                made.parts.append(Choice((tuple(self._backbone.encode(field.label)),)))
                made.places[field.name] = len(made.parts)
                made.choices.append(None if field.options is None else self._choice(field.options))
                made.parts.extend(self._parts(field, made))
        return self._known[key]

    def _parts(self, field: Field, made: _Compiled) -> list[Part]:
        kind, place, whole = field.kind, made.places[field.name], made.choices[-1]
        if whole is None:
            return [self._text(field)]
        if isinstance(kind, Ranking):

            def left(written: Sequence[tuple[int, ...]]) -> Choice:
                taken = set(written[place:])
                return Choice(tuple(option for option in whole.options if option not in taken))

            return [whole, *[left] * (kind.length - 1)]
        if isinstance(kind, Number) and kind.quarter_of is not None:
            action = made.places[kind.quarter_of]
            actions = made.choices[list(made.places).index(kind.quarter_of)]
            quarters = [self._choice(quarter) for quarter in kind.quarters]

            def of_quarter(written: Sequence[tuple[int, ...]]) -> Choice:
                assert actions is not None
                return quarters[actions.options.index(written[action])]

            return [of_quarter]
        return [whole]

    def _text(self, field: Field) -> Free:
        assert isinstance(field.kind, Text)
        limit = self._backbone.max_reason_tokens if field.kind.max_tokens is None else field.kind.max_tokens
        if field.kind.min_tokens > limit:
            raise ConfigError(
                f"min_tokens must not be above the backbone's limit of {limit}, got {field.kind.min_tokens} for "
                f"{field.name!r}. Set max_tokens, too."
            )
        return Free(limit, field.kind.min_tokens)

    def _choice(self, texts: Sequence[str]) -> Choice:
        """One of several texts; the line ends behind each, so that none begins another."""
        return Choice(tuple((*self._backbone.encode(f" {text}"), self._backbone.newline) for text in texts))
