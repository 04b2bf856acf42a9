"""Kinds of field: what they accept, how numbers are written, and what is refused before anything is played."""

from typing import Any

import pytest

from agents.models.fields import Field, Number, OneOf, Ranking, Text, candidate_titles, check_fields
from coars_env import ACTIONS, ConfigError, Dialogue, Item, Task, clamp_strength

ITEMS = tuple(Item(title) for title in ("Heat", "Fargo", "Alien", "Brazil"))
TASK = Task("t", 0, history=(3,), candidates=(2, 0, 1), target=0)


def test_the_numbers_of_a_range_are_written_with_equal_length() -> None:
    assert Number(1, 5, 1).texts == ("1", "2", "3", "4", "5")
    assert Number(1, 10, 3).texts == ("01", "04", "07", "10")
    assert Number(0, 1, 0.25).texts == ("0.00", "0.25", "0.50", "0.75", "1.00")
    assert Number(0.5, 1.5, 0.5).texts == ("0.5", "1.0", "1.5")


def test_a_number_has_a_place_in_its_range() -> None:
    rating = Number(1, 5, 1)
    assert [rating.place(text) for text in rating.texts] == [0, 0.25, 0.5, 0.75, 1]
    assert Number(0, 1, 0.05).place("0.35") == 0.35


@pytest.mark.parametrize(
    ("text", "held"), [("3", True), ("2.5", True), ("5", True), ("0.99", False), ("5.01", False), ("-1", False)]
)
def test_text_may_hold_any_number_of_the_range(text: str, held: bool) -> None:
    assert Number(1, 5, 1).holds(text) is held


@pytest.mark.parametrize("text", ["", "high", "nan", "1_0", "1/2", "1e0", "1."])
def test_what_is_no_plain_number_is_not_held(text: str) -> None:
    assert not Number(0, 10, 1).holds(text)


@pytest.mark.parametrize("kind", [Number(0, 1, 0.05), Number(1, 5, 1), Number(0, 3, 1)])
def test_the_numbers_of_a_quarter_are_those_that_the_game_does_not_move(kind: Number) -> None:
    assert len(kind.quarters) == len(ACTIONS)
    assert [text for quarter in kind.quarters for text in quarter] == list(kind.texts)
    for action, quarter in enumerate(kind.quarters):
        for text in quarter:
            assert clamp_strength(action, kind.place(text)) == pytest.approx(kind.place(text), abs=0.005)


def test_the_options_of_candidates_are_their_titles_in_order() -> None:
    assert candidate_titles(Dialogue(TASK, ITEMS).observe("recommender_0"), ITEMS) == ("Alien", "Heat", "Fargo")


def test_fields_are_asked_for_by_name() -> None:
    assert Field("Thought").asked == "a Thought"
    assert Field("Interest", Text(max_tokens=3)).asked == "an Interest"
    assert Field("Item", OneOf(candidate_titles)).asked == "one Item of the candidates"
    assert Field("Mood", OneOf(("low", "high"))).asked == "a Mood"
    assert Field("Rating", Number(1, 5, 1)).asked == "a Rating"
    assert Field("Ranking", Ranking(3)).asked == "a Ranking of the 3 best candidates"
    assert Field("Order", Ranking(2, ("a", "b", "c"))).asked == "an Order of the 2 best options"


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Text(5, 4), "must have 0 <= min_tokens <= max_tokens, got min_tokens=5 and max_tokens=4"),
        (lambda: Text(-1), "must have 0 <= min_tokens <= max_tokens, got min_tokens=-1 and max_tokens=None"),
        (lambda: OneOf(()), r"must be one or more different texts, got \(\)"),
        (lambda: OneOf(("a", " ")), r"must be one or more different texts, got \('a', ' '\)"),
        (lambda: OneOf(("a", "b", "a ")), "must be one or more different texts, got 'a' twice"),
        (lambda: Number(1, 1, 1), "must have 0 <= low < high, got low=1 and high=1"),
        (lambda: Number(5, 1, 1), "must have 0 <= low < high, got low=5 and high=1"),
        (lambda: Number(-1, 1, 1), "must have 0 <= low < high, got low=-1 and high=1"),
        (lambda: Number(0, float("nan"), 1), "must have 0 <= low < high, got low=0 and high=nan"),
        (lambda: Number(0, 1, 0.3), "must lead from low to high, got step=0.3 from 0 to 1"),
        (lambda: Number(0, 1, 0), "must lead from low to high, got step=0 from 0 to 1"),
        (lambda: Number(0, 1, 2), "must lead from low to high, got step=2 from 0 to 1"),
        (lambda: Ranking(0), "length of a Ranking must be a whole number from 1 on, got 0"),
        (lambda: OneOf("abc"), "Options must be a tuple of texts of one line each, got 'abc'"),  # type: ignore[arg-type]
        (lambda: OneOf(("a\nb", "c")), "Options must be a tuple of texts of one line each"),
        (lambda: Ranking(3, ("a", "b")), "must not be longer than its list of options, got length=3 for 2 options"),
        (lambda: Ranking(1, ("a", "a")), "must be one or more different texts, got 'a' twice"),
    ],
)
def test_a_kind_that_cannot_be_written_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


ACTION = Field("Action", OneOf(ACTIONS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((), "must have at least one field, got none"),
        ((Field("Reason"), Field("Reason")), "No name of a field may end another, got 'Reason' and 'Reason'"),
        ((Field("Item"), Field("Best Item")), "No name of a field may end another, got 'Item' and 'Best Item'"),
        ((Field("Best Item"), Field("Item")), "No name of a field may end another, got 'Best Item' and 'Item'"),
        ((Field(""),), "needs a name without colon, line break or blanks around it, got ''"),
        ((Field("Reason:"),), "needs a name without colon, line break or blanks around it, got 'Reason:'"),
        ((Field("Rea\nson"),), "needs a name without colon, line break"),
        ((Field("Score", Number(0, 1, 1, "Action")), ACTION), "must name an earlier OneOf.ACTIONS., got 'Action' of"),
        ((ACTION, Field("Score", Number(0, 1, 1, "Mood"))), "must name an earlier OneOf.ACTIONS., got 'Mood' of"),
        (
            (ACTION, Field("Score", Number(1, 3, 1, "Action"))),
            "a number in its quarter of the range, got none for 'skip'",
        ),
    ],
)
def test_fields_that_a_reply_cannot_be_read_by_are_refused(fields: tuple[Field, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_fields(fields)
