"""Formats: how they are asked for, how text is read by them, and the action that a reply stands for."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.models.fields import Field, Number, OneOf, Ranking, Text, candidate_titles
from agents.models.replies import (
    ACTION_FIELD,
    DEFAULT_FORMATS,
    REASON_FIELD,
    RECOMMENDER_FORMAT,
    USER_FORMAT,
    ReplyFormat,
    parse_fields,
    read_values,
    written,
)
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    ConfigError,
    Dialogue,
    Facet,
    Instruction,
    Item,
    Role,
    Rules,
    Task,
)

ITEMS = tuple(Item(title) for title in ("Heat (1995)", "Fargo (1996)", "Alien (1979)", "Brazil (1985)"))
TASK = Task("t", 0, history=(3,), candidates=(2, 0, 1), target=0)
SEEN, HEARD = (Dialogue(TASK, ITEMS).observe(role) for role in ROLES)
THOUGHT = Field("Thought", Text(min_tokens=2), hidden=True)
RANKED = ReplyFormat((THOUGHT, REASON_FIELD, Field("Ranking", Ranking(2))))
ANSWERED = USER_FORMAT.bind(HEARD, ITEMS)
RATED = ReplyFormat((THOUGHT, REASON_FIELD, ACTION_FIELD, Field("Rating", Number(1, 5, 1))), strength="Rating")


# Asking ---------------------------------------------------------------------------------------------------------------


def test_the_default_formats_are_asked_for_as_they_always_were() -> None:
    assert RECOMMENDER_FORMAT.ask() == "\nReply with a Reason and one Item of the candidates."
    assert USER_FORMAT.ask() == "\nReply with a Reason, an Action and a Score."


def test_the_fields_are_asked_for_in_their_order() -> None:
    assert RANKED.ask() == "\nReply with a Thought, a Reason and a Ranking of the 2 best candidates."
    assert ReplyFormat((Field("Item", OneOf(candidate_titles)),)).ask() == "\nReply with one Item of the candidates."


# What decides ---------------------------------------------------------------------------------------------------------


def test_the_last_field_that_can_decide_decides() -> None:
    draft, item = Field("Draft", Ranking(3), hidden=True), Field("Item", OneOf(candidate_titles))
    assert ReplyFormat((draft, item)).deciding(RECOMMENDER) == item
    assert ReplyFormat((item, draft)).deciding(RECOMMENDER) == draft
    assert RATED.deciding(USER) == ACTION_FIELD


@pytest.mark.parametrize(
    ("role", "fields", "message"),
    [
        (RECOMMENDER, (REASON_FIELD,), r"must hold a field OneOf\(candidate_titles\) or Ranking\(k\), found none"),
        (RECOMMENDER, (REASON_FIELD, Field("Item", OneOf(("Heat", "Alien")))), r"found none in \['Reason', 'Item'\]"),
        (USER, (REASON_FIELD, Field("Score", Number(0, 1, 0.5))), r"must hold a field OneOf\(ACTIONS\), found none"),
        (
            USER,
            (ACTION_FIELD, Field("Ranking", Ranking(2))),
            "cannot choose among the candidates: it does not see them",
        ),
    ],
)
def test_a_format_that_decides_nothing_is_refused(role: Role, fields: tuple[Field, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplyFormat(fields).deciding(role)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ("Score", r"strength must name a field, got 'Score'. Fields are \['Reason', 'Action'\]"),
        ("Reason", "strength must name a Number, got 'Reason'"),
    ],
)
def test_a_strength_that_is_no_number_is_refused(strength: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplyFormat((REASON_FIELD, ACTION_FIELD), strength=strength)


def test_a_format_is_checked_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="must have at least one field, got none"):
        ReplyFormat(())
    words: Any = ("Reason", "Item")
    for wrong in (words, "Reason", REASON_FIELD):
        with pytest.raises(ConfigError, match="A reply is made of fields, got "):
            ReplyFormat(wrong)
    with pytest.raises(ConfigError, match="No name of a field may end another"):
        ReplyFormat((REASON_FIELD, REASON_FIELD))


def test_a_ranking_longer_than_the_list_is_refused_when_the_list_is_known() -> None:
    with pytest.raises(ConfigError, match="must not be longer than its list of options, got length=4 for 3 options"):
        ReplyFormat((Field("Ranking", Ranking(4)),)).bind(SEEN, ITEMS)


# Actions --------------------------------------------------------------------------------------------------------------


def test_a_thought_is_handed_on_and_is_no_part_of_the_message() -> None:
    values = ("Hm.", "It is cold.", "Fargo (1996)\nAlien (1979)")
    assert RANKED.action(RECOMMENDER, RANKED.bind(SEEN, ITEMS), values, SEEN, ITEMS) == {
        "item": 2,
        "message": "It is cold.",
        "fields": {"Thought": "Hm.", "Ranking": "Fargo (1996)\nAlien (1979)"},
    }


def test_visible_fields_besides_the_reason_are_named_in_the_message() -> None:
    shown = (REASON_FIELD, Field("Mood", OneOf(("low", "high"))), Field("Order", Ranking(2, ("a", "b"))), ACTION_FIELD)
    found = ReplyFormat(shown).action(USER, shown, ("Well.", "high", "b\na", "star"), HEARD, ITEMS)
    assert (found["action"], found["message"]) == (2, "Well. Mood: high Order: b; a")


@pytest.mark.parametrize(("rating", "strength"), [("1", 0.0), ("2", 0.25), ("4", 0.75), ("5", 1.0), ("4.5", 0.875)])
def test_a_rating_may_be_the_strength(rating: str, strength: float) -> None:
    found = RATED.action(USER, RATED.fields, ("Hm.", "Good.", "click", rating), HEARD, ITEMS)
    assert (found["action"], found["strength"], found["message"]) == (3, strength, "Good.")


def test_without_a_number_the_strength_is_the_middle_of_the_quarter() -> None:
    plain = ReplyFormat((ACTION_FIELD,))
    strengths = [plain.action(USER, plain.fields, (action,), HEARD, ITEMS)["strength"] for action in ACTIONS]
    assert strengths == pytest.approx([0.12, 0.37, 0.62, 0.875], abs=0.01)


# Text -----------------------------------------------------------------------------------------------------------------

ONE = RECOMMENDER_FORMAT.bind(SEEN, ITEMS)
TWO = RANKED.bind(SEEN, ITEMS)


def test_a_reply_in_labelled_lines_is_read() -> None:
    assert read_values("Reason: It is odd.\nItem: Alien (1979)\n", ONE) == ("It is odd.", "Alien (1979)")
    assert read_values("Reason: I like it.\nAction: star\nScore: .65\n", ANSWERED) == (
        "I like it.",
        "star",
        ".65",
    )
    assert read_values("Thought: Hm.\nReason: a\nRanking: Heat (1995)\n Alien (1979)\n", TWO) == (
        "Hm.",
        "a",
        "Heat (1995)\nAlien (1979)",
    )


@pytest.mark.parametrize(
    ("fields", "text", "error"),
    [
        (ONE, "Brazil (1985)", "expected 'Reason:' once, found it 0 times"),
        (ONE, "Reason: a\nItem: Heat (1995)\nItem: Alien (1979)", "expected 'Item:' once, found it 2 times"),
        (ONE, "Item: Heat (1995)\nReason: a", "expected the labels in the order ['Reason:', 'Item:']"),
        (ONE, "Reason: a\nItem: Heat", "expected one of 3 options after 'Item:', found 'Heat', which fits 0"),
        (ONE, "Reason: a\nItem: heat (1995)", "which fits 0"),
        (ONE, "Reason: a\nItem: Heat (1995) or Alien (1979)", "which fits 0"),
        (ONE, "Reason: a\nItem: Heat (1995)\nEnjoy!", "which fits 0"),
        (ANSWERED, "Reason: a\nAction: like\nScore: 0.5", "expected one of 4 options after 'Action:'"),
        (ANSWERED, "Reason: a\nAction: star, click\nScore: 0.5", "found 'star, click'"),
        (ANSWERED, "Reason: a\nAction: star\nScore: high", "after 'Score:', found 'high'"),
        (ANSWERED, "Reason: a\nAction: star\nScore: 1.01", "found '1.01'"),
        (ANSWERED, "Reason: a\nAction: star\nScore: -0.5", "found '-0.5'"),
        (ANSWERED, "Reason: a\nAction: star\nScore: nan", "found 'nan'"),
        (ANSWERED, "Reason: a\nAction: star\nScore: 0_1", "found '0_1'"),
        (
            TWO,
            "Thought: a\nReason: b\nRanking: Heat (1995)",
            "expected 2 options after 'Ranking:', each on a line, found 1",
        ),
        (
            TWO,
            "Thought: a\nReason: b\nRanking: Heat (1995)\nHeat (1995)",
            "expected different options after 'Ranking:', found 'Heat (1995)' twice",
        ),
        (TWO, "Thought: a\nReason: b\nRanking: Heat (1995)\nBrazil (1985)", "found 'Brazil (1985)', which fits 0"),
        (TWO, "Thought: a\nReason: b\nRanking: 1. Heat (1995)\n2. Alien (1979)", "found '1. Heat (1995)'"),
    ],
)
def test_a_reply_that_can_be_read_in_no_way_or_in_two_is_refused(
    fields: tuple[Field, ...], text: str, error: str
) -> None:
    found = read_values(text, fields)
    assert isinstance(found, str)
    assert error in found


def test_what_is_written_can_be_read() -> None:
    for fields, values in ((ONE, ("b", "Heat (1995)")), (TWO, ("a", "b", "Alien (1979)\nFargo (1996)"))):
        assert read_values("".join(written(fields, values)), fields) == values
    assert written(TWO[2:], ("Alien (1979)\nFargo (1996)",)) == (
        "Ranking:",
        " Alien (1979)",
        "\n",
        " Fargo (1996)",
        "\n",
    )


fragments = st.lists(
    st.sampled_from(["Reason:", "Item:", "Action:", "Score:", "\n", " ", "Heat (1995)", "click", "0.5"]) | st.text()
)


@given(fragments.map("".join))
@example("Reason: x\nAction: click\nScore: " + "9" * 400)
def test_any_text_is_read_as_something_legal_or_refused_with_a_cause(text: str) -> None:
    for role in ROLES:
        fields = DEFAULT_FORMATS[role].bind(SEEN, ITEMS)
        values = read_values(text, fields)
        if isinstance(values, str):
            assert values.startswith("expected ")
            continue
        action = DEFAULT_FORMATS[role].action(role, fields, values, SEEN, ITEMS)
        assert action["item" if role == RECOMMENDER else "action"] in range(len(ITEMS))
        assert 0 <= action.get("strength", 0) <= 1


def test_labels_are_found_in_their_order() -> None:
    assert parse_fields("a: 1 b: 2", ("a:", "b:")) == {"a:": "1", "b:": "2"}
    assert parse_fields("b: 2 a: 1", ("a:", "b:")) == "expected the labels in the order ['a:', 'b:']"


def test_a_hidden_reason_leaves_an_empty_message() -> None:
    silent = ReplyFormat((replace(REASON_FIELD, hidden=True), ACTION_FIELD))
    assert silent.action(USER, silent.fields, ("Hm.", "skip"), HEARD, ITEMS)["message"] == ""


# Instructions ---------------------------------------------------------------------------------------------------------

FILMS = tuple(
    Item(item.title, (genre,), 1995) for item, genre in zip(ITEMS, ("War", "Crime", "Crime", "War"), strict=True)
)
KINDS = ("genre", "decade")
CRIME = Facet("genre", "Crime")
WISHING = replace(TASK, instruction=Instruction((CRIME,), KINDS, noise=1.0))


def acted(role: Role, dialogue: Dialogue, *values: str) -> dict[str, Any]:
    seen = dialogue.observe(role)
    form = DEFAULT_FORMATS[role]
    return dict(form.action(role, form.bind(seen, FILMS), values, seen, FILMS))


def test_a_question_is_one_of_the_recommenders_options() -> None:
    dialogue = Dialogue(WISHING, FILMS, max_turns=2)
    (_, item) = RECOMMENDER_FORMAT.bind(dialogue.observe(RECOMMENDER), FILMS)
    titles = ("Alien (1979)", "Heat (1995)", "Fargo (1996)")
    assert item.options == (*titles, "Which genre?", "Of which decade?")
    assert acted(RECOMMENDER, dialogue, "Hm.", "Of which decade?") == {"ask": "decade", "message": "Hm."}
    assert acted(RECOMMENDER, dialogue, "Hm.", "Fargo (1996)") == {"item": 2, "message": "Hm."}
    dialogue.ask("genre", "")
    dialogue.reply(0, None, "")
    (_, item) = RECOMMENDER_FORMAT.bind(dialogue.observe(RECOMMENDER), FILMS)
    assert item.options == titles  # the last turn must propose


def test_what_may_not_be_proposed_again_is_no_option() -> None:
    dialogue = Dialogue(WISHING, FILMS, rules=Rules(repeats="forbidden", questions=False))
    dialogue.recommend(0, "")
    dialogue.reply(0, 0.1, "")
    (_, item) = RECOMMENDER_FORMAT.bind(dialogue.observe(RECOMMENDER), FILMS)
    assert item.options == ("Heat (1995)", "Fargo (1996)")
    assert acted(RECOMMENDER, dialogue, "Hm.", "Heat (1995)") == {"item": 1, "message": "Hm."}
    ranked = ReplyFormat((Field("Ranking", Ranking(2)),))
    (ranking,) = ranked.bind(dialogue.observe(RECOMMENDER), FILMS)
    assert ranking.options == ("Heat (1995)", "Fargo (1996)")


def test_a_user_names_a_wish_with_each_answer() -> None:
    dialogue = Dialogue(WISHING, FILMS)
    dialogue.recommend(1, "")
    fields = USER_FORMAT.bind(dialogue.observe(USER), FILMS)
    assert [field.name for field in fields] == ["Reason", "Action", "Score", "Wish"]
    assert fields[-1].options == ("nothing", "Crime", "War", "1990s")
    assert USER_FORMAT.ask(dialogue.observe(USER)) == "\nReply with a Reason, an Action, a Score and a Wish."
    said = {"action": 1, "message": "No.", "strength": 0.3}
    assert acted(USER, dialogue, "No.", "skip", "0.30", "Crime") == {**said, "reveal": "genre: Crime"}
    assert acted(USER, dialogue, "No.", "skip", "0.30", "nothing") == {**said, "reveal": ""}


def test_to_a_question_a_user_replies_with_a_wish_alone() -> None:
    dialogue = Dialogue(WISHING, FILMS)
    dialogue.ask("decade", "")
    (wish,) = USER_FORMAT.bind(dialogue.observe(USER), FILMS)
    assert wish.options == ("nothing", "1990s")
    assert USER_FORMAT.ask(dialogue.observe(USER)) == "\nReply with a Wish."
    dialogue.act(acted(USER, dialogue, "1990s"))
    (turn,) = dialogue.turns
    assert turn.answered
    assert turn.answer is not None
    assert (turn.answer.action, turn.answer.reveal) == (None, Facet("decade", "1990s"))


def test_a_number_that_is_to_fit_an_action_is_left_out_with_it() -> None:
    dialogue = Dialogue(WISHING, FILMS)
    dialogue.ask("decade", "")
    own = ReplyFormat((REASON_FIELD, ACTION_FIELD, Field("Score", Number(0, 1, 0.05, quarter_of="Action"))))
    assert own.bind(dialogue.observe(USER), FILMS) == (REASON_FIELD,)


def test_a_format_needs_a_field_in_every_turn() -> None:
    dialogue = Dialogue(WISHING, FILMS)
    dialogue.ask("decade", "")
    with pytest.raises(ConfigError, match=r"must have a field in every turn, got none of \['Action'\] in turn 1"):
        ReplyFormat((ACTION_FIELD,)).bind(dialogue.observe(USER), FILMS)


def test_without_an_instruction_no_wish_is_asked_for() -> None:
    fields = USER_FORMAT.bind(HEARD, ITEMS)
    assert [field.name for field in fields] == ["Reason", "Action", "Score"]
    assert USER_FORMAT.action(USER, fields, ("No.", "skip", "0.30"), HEARD, ITEMS) == {
        "action": 1,
        "message": "No.",
        "strength": 0.3,
    }
