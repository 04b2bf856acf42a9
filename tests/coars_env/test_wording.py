import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import Facet, facet_vocabulary, question_text, read_question, read_wish, wish_text
from coars_env.rendering.wording import DECLINE
from coars_env.testing import toy_episodes

KINDS = ("genre", "decade", "like", "sub genre", "tag")
FACETS = (
    *facet_vocabulary(toy_episodes().items, ("genre", "decade")),
    *(Facet("like", title) for title in ("Dr.", "Dr. No (1962)", "Heat (1995)", "Heat (1995). Again", "{}", "7")),
    Facet("tag", "A"),
    Facet("tag", "A. I want the tag B"),
)


def test_the_sentences_by_hand() -> None:
    assert [question_text(kind) for kind in KINDS[:3]] == ["Which genre?", "Of which decade?", "Like which one?"]
    assert [wish_text(Facet(*pair)) for pair in (("genre", "War"), ("decade", "1990s"), ("like", "Heat (1995)"))] == [
        "I want the genre War.",
        "I want something of the 1990s.",
        "I want something like Heat (1995).",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_is_read_as_it_was_asked(kind: str) -> None:
    assert read_question(question_text(kind), KINDS) == kind
    assert read_question(f"So. {question_text(kind)} Tell me!", KINDS) == kind


@pytest.mark.parametrize("facet", FACETS, ids=str)
def test_a_wish_is_read_as_it_was_made(facet: Facet) -> None:
    assert read_wish(wish_text(facet), FACETS) == facet
    assert read_wish(f"Not for me. {wish_text(facet)}", FACETS) == facet


def test_what_asks_or_wishes_for_several_or_for_nothing_is_not_guessed() -> None:
    assert read_question("Which genre? Of which decade?", KINDS) is None
    assert read_question("Which colour?", KINDS) is None
    assert read_question("Which genre?", ("decade",)) is None
    assert (
        read_wish("I want the genre War. I want the genre Drama.", [Facet("genre", "War"), Facet("genre", "Drama")])
        is None
    )
    assert read_wish("I want the genre Western.", FACETS) is None
    assert read_wish(DECLINE, FACETS) is None


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    assert read_question(text, KINDS) in (None, *KINDS)
    assert read_wish(text, FACETS) in (None, *FACETS)
