"""Fields as forms: which tokens each kind may hold, what a finished form reads as, and what a backbone refuses."""

from typing import Any

import pytest
from tokenizers import normalizers

from agents.models.backbones.backbone import Backbone
from agents.models.decoding import AnyBut, Form
from agents.models.fields import Field, Number, OneOf, Ranking, Text
from agents.models.forms import FieldForms
from coars_env import ACTIONS, ConfigError

TITLES = ("Heat (1995)", "Fargo (1996)", "Alien (1979)")


def write(backbone: Backbone, form: Form, texts: list[str]) -> None:
    """Sample the tokens of each text, as far as they do not follow by themselves."""
    for text in texts:
        tokens, number = [*backbone.encode(text), backbone.newline], len(form.written)
        while len(form.written) == number:
            done = len(form.completion.token_ids) - sum(map(len, form.written))
            form.push(tokens[done], -1.0)


@pytest.mark.parametrize("kind", ["pocket", "llama"])
def test_a_ranking_is_successive_choices_among_what_is_left(lab: Any, kind: str) -> None:
    backbone = lab.backbone(kind)
    forms, fields = FieldForms(backbone), (Field("Ranking", Ranking(3, TITLES)), Field("Reason"))
    form = forms.start(fields)
    write(backbone, form, [f" {TITLES[2]}", f" {TITLES[0]}"])
    assert form.written[1:4] == [(*backbone.encode(f" {TITLES[n]}"), backbone.newline) for n in (2, 0, 1)]
    start = sum(map(len, form.written[:3]))
    assert not any(form.completion.sampled[start : start + len(form.written[3])])  # one title was left
    form.push(backbone.newline, -1.0)
    assert forms.values(fields, form) == ("Alien (1979)\nHeat (1995)\nFargo (1996)", "")


def test_a_short_text_cannot_end_and_a_long_one_must(lab: Any) -> None:
    backbone = lab.backbone()
    form = FieldForms(backbone).start((Field("Thought", Text(min_tokens=2, max_tokens=3)),))
    (token,) = backbone.encode("x")
    allowed, rooms = [], []
    for _ in range(3):
        allowed.append(form.allowed())
        rooms.append(form.room)
        form.push(token, -1.0)
    assert allowed == [AnyBut(backbone.newline_ids)] * 2 + [None]
    assert rooms == [2, 1, 1]
    assert form.finished
    assert form.completion.sampled[-4:] == [True, True, True, False]


def test_a_number_follows_the_action_if_it_is_to(lab: Any) -> None:
    backbone = lab.backbone()
    action = Field("Action", OneOf(ACTIONS))
    for quarter_of, texts in ((None, "12345"), ("Action", "45")):
        rating = Number(1, 5, 1, quarter_of)
        form = FieldForms(backbone).start((action, Field("Rating", rating)))
        write(backbone, form, [" click"])
        part = form.part
        assert [backbone.decode(option).strip() for option in part.options] == list(texts)  # type: ignore[union-attr]


def test_given_options_are_recorded_with_their_choices_and_not_sampled(lab: Any) -> None:
    backbone = lab.backbone()
    forms, fields = FieldForms(backbone), (Field("Item", OneOf(TITLES)), Field("Score", Number(0, 1, 0.5)))
    form = forms.start(fields, {"Item": 1, "Score": -1})
    assert form.finished
    assert forms.values(fields, form) == ("Fargo (1996)", "1.0")
    assert set(form.completion.logprobs) == {0.0}
    assert sum(form.completion.sampled) >= 1  # where there was a choice, it is trained on


def test_a_least_length_above_the_limit_of_the_backbone_is_refused(lab: Any) -> None:
    backbone = lab.backbone()
    backbone.max_reason_tokens = 6
    forms = FieldForms(backbone)
    forms.check((Field("Thought", Text(min_tokens=7, max_tokens=9)),))
    with pytest.raises(ConfigError, match="must not be above the backbone's limit of 6, got 7 for 'Thought'"):
        forms.check((Field("Thought", Text(min_tokens=7)),))


def test_options_that_read_the_same_to_the_tokenizer_are_refused(lab: Any) -> None:
    backbone = lab.backbone("llama")
    backbone.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    forms = FieldForms(backbone)
    forms.check((Field("Mood", OneOf(("low", "low or high"))),))  # the line ends behind each
    with pytest.raises(ConfigError, match="Options are told apart token by token"):
        forms.check((Field("Mood", OneOf(("low", "LOW"))),))
