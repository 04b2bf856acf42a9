from typing import Any

import pytest

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    Dialogue,
    Facet,
    Rules,
    askable_kinds,
    asked_kind,
    instruction_of,
    kinds_of,
    reveals_of,
)
from coars_env.observation import read_reveal
from coars_env.rules import PAPER
from coars_env.testing import toy_episodes, toy_instructed_episodes

COMEDY, RECENT = Facet("genre", "Comedy"), Facet("decade", "2000s")


def dialogue(row: int = 1, **options: Any) -> Dialogue:
    episodes = toy_instructed_episodes()
    return Dialogue(episodes.tasks[row], episodes.items, **{"rules": PAPER, **options})


def test_the_user_alone_reads_its_instruction() -> None:
    played = dialogue()
    assert instruction_of(played.observe(USER)) == (COMEDY, RECENT)
    assert instruction_of(played.observe(RECOMMENDER)) == ()
    assert instruction_of(dialogue(row=3).observe(USER)) == ()
    assert [kinds_of(played.observe(role)) for role in ROLES] == [("genre", "decade")] * 2


def test_questions_and_reveals_are_read_turn_by_turn() -> None:
    played = dialogue(max_turns=3)
    for role in ROLES:
        assert (asked_kind(played.observe(role)), reveals_of(played.observe(role))) == (None, ())
    played.ask("genre", "Which genre?")
    assert [asked_kind(played.observe(role)) for role in ROLES] == ["genre", "genre"]
    played.reply(0, None, "", reveal=COMEDY)
    played.recommend(0, "")
    assert asked_kind(played.observe(USER)) is None
    assert reveals_of(played.observe(RECOMMENDER)) == (COMEDY,)
    played.reply(1, None, "No.")
    assert reveals_of(played.observe(RECOMMENDER)) == (COMEDY, None)


def test_nothing_is_askable_in_the_last_turn_nor_where_questions_are_forbidden_nor_at_the_end() -> None:
    played = dialogue(max_turns=2)
    assert askable_kinds(played.observe(RECOMMENDER)) == ("genre", "decade")
    played.ask("genre", "")
    assert askable_kinds(played.observe(USER)) == ("genre", "decade")
    played.reply(0, None, "")
    assert askable_kinds(played.observe(RECOMMENDER)) == ()
    played.recommend(0, "")
    played.reply(3, None, "")
    assert askable_kinds(played.observe(RECOMMENDER)) == ()
    assert askable_kinds(dialogue(rules=Rules(questions=False)).observe(RECOMMENDER)) == ()
    clicked = dialogue()
    clicked.recommend(0, "")
    clicked.reply(3, None, "")
    assert askable_kinds(clicked.observe(RECOMMENDER)) == ()


def test_games_without_an_instruction_have_none_of_it() -> None:
    episodes = toy_episodes()
    plain = Dialogue(episodes.tasks[0], episodes.items, rules=PAPER)
    for half in range(2):
        for role in ROLES:
            seen = plain.observe(role)
            assert not {"instruction", "kinds", "askable", "questions", "reveals", "allowed"} & set(seen)
            assert instruction_of(seen) == kinds_of(seen) == askable_kinds(seen) == ()
            assert asked_kind(seen) is None
            assert set(reveals_of(seen)) <= {None}
        if not half:
            plain.recommend(0, "")


@pytest.mark.parametrize(
    ("written", "facet"),
    [("genre: Comedy", COMEDY), (COMEDY, COMEDY), ("", None), (None, None), ("like: A: B", Facet("like", "A: B"))],
)
def test_a_revealed_facet_is_read(written: Any, facet: Facet | None) -> None:
    assert read_reveal({"reveal": written}) == facet


@pytest.mark.parametrize("written", ["Comedy", "genre:Comedy", ": Comedy", "genre: ", 5, ["genre: Comedy"]])
def test_what_is_no_facet_is_refused(written: Any) -> None:
    with pytest.raises(ActionError, match=r"is no facet: (a facet is written as|it is no text).* Write such as 'genre"):
        read_reveal({"reveal": written})


def test_no_reveal_is_none() -> None:
    assert read_reveal({}) is None
