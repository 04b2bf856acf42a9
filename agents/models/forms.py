"""FieldForms: the fields of a reply as forms that a decode loop fills in, and finished forms as values."""

from collections.abc import Mapping, Sequence

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import Choice, Form, Free, Part
from agents.models.fields import Field, Number, Ranking, Text
from coars_env import ConfigError


class FieldForms:
    """Writes fields in the tokens of one backbone: a label, then one part, or one for each place of a ranking."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._choices: dict[tuple[str, ...], Choice] = {}

    def forget(self) -> None:
        """Free the memory of options."""
        self._choices.clear()

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
        parts: list[Part] = []
        places: dict[str, int] = {}
        for field in fields:
            parts.append(self._label(field.label))
            places[field.name] = len(parts)
            parts += self._parts(field, fields, places)
        numbers = {places[name]: number for name, number in (given or {}).items()}
        return Form(parts, self._backbone.newline_ids, self._backbone.newline, numbers)

    def values(self, fields: Sequence[Field], form: Form) -> tuple[str, ...]:
        """Return the text of each field of a finished form, without blanks around it; an option letter for letter."""
        values: list[str] = []
        part = 0
        for field in fields:
            length = field.kind.length if isinstance(field.kind, Ranking) else 1
            found = form.written[part + 1 : part + 1 + length]
            part += 1 + length
            if field.options is None:
                values.append(self._backbone.decode(found[0]).strip())
            else:
                options = self._choice(field.options).options
                values.append("\n".join(field.options[options.index(tokens)].strip() for tokens in found))
        return tuple(values)

    def _parts(self, field: Field, fields: Sequence[Field], places: Mapping[str, int]) -> list[Part]:
        kind = field.kind
        if isinstance(kind, Text):
            return [self._text(field)]
        if isinstance(kind, Ranking):
            whole, first = self._choice(field.options or ()), places[field.name]

            def left(written: Sequence[tuple[int, ...]]) -> Choice:
                taken = set(written[first:])
                return Choice(tuple(option for option in whole.options if option not in taken))

            return [whole, *[left] * (kind.length - 1)]
        if isinstance(kind, Number) and kind.quarter_of is not None:
            place = places[kind.quarter_of]
            actions = self._choice(next(other.options or () for other in fields if other.name == kind.quarter_of))
            quarters = [self._choice(kind.quarter(action)) for action in range(len(actions.options))]
            return [lambda written: quarters[actions.options.index(written[place])]]
        return [self._choice(field.options or ())]

    def _text(self, field: Field) -> Free:
        assert isinstance(field.kind, Text)
        limit = self._backbone.max_reason_tokens if field.kind.max_tokens is None else field.kind.max_tokens
        if field.kind.min_tokens > limit:
            raise ConfigError(
                f"min_tokens must not be above the backbone's limit of {limit}, got {field.kind.min_tokens} for "
                f"{field.name!r}. Set max_tokens, too."
            )
        return Free(limit, field.kind.min_tokens)

    def _label(self, text: str) -> Choice:
        return self._known((text,), ())

    def _choice(self, texts: Sequence[str]) -> Choice:
        """One of several texts; the line ends behind each, so that none begins another."""
        return self._known(tuple(f" {text}" for text in texts), (self._backbone.newline,))

    def _known(self, texts: tuple[str, ...], end: tuple[int, ...]) -> Choice:
        key = (*texts, "\n") if end else texts
        if key not in self._choices:
            if len(self._choices) > 10_000:
                self._choices.clear()
            self._choices[key] = Choice(tuple((*self._backbone.encode(text), *end) for text in texts))
        return self._choices[key]
