"""Wishes: facets in words, back again, and what is true to say."""

import pytest

from agents.models.wishes import facet_text, facet_texts, true_wishes, wish_texts, wished
from coars_env import RECOMMENDER, USER, Dialogue, Facet, Instruction, Item, Task

COMEDY, WAR, NINETIES = Facet("genre", "Comedy"), Facet("genre", "War"), Facet("decade", "1990s")
ITEMS = (
    Item("Heat (1995)", ("Comedy",), 1995),
    Item("Fargo (1996)", ("War",), 1996, (Facet("tag", "Comedy"), Facet("tag", "snow"), Facet("tag", "nothing"))),
    Item("Alien (1979)", ("nothing",), 1979, (Facet("tag", "a: b"),)),
)
KINDS = ("genre", "decade", "tag")
TASK = Task("t", 0, (2,), (0, 1), 0, instruction=Instruction((COMEDY, NINETIES), KINDS))


def test_a_facet_reads_as_its_value_unless_that_would_not_tell_it_apart() -> None:
    assert list(facet_texts(ITEMS, KINDS).values()) == [
        *("genre: Comedy", "War", "genre: nothing", "1970s", "1990s"),
        *("tag: Comedy", "tag: a: b", "tag: nothing", "snow"),
    ]
    assert facet_text(COMEDY, ITEMS, ("genre", "decade")) == "Comedy"  # no tags in this game
    assert facet_text(Facet("genre", "Horror"), ITEMS, KINDS) == "genre: Horror"


def test_two_catalogues_do_not_share_their_words() -> None:
    first, second = (Item("A", ("X",)),), (Item("A", ("Y",)),)
    assert list(facet_texts(first, ("genre",)).values()) == ["X"]
    assert list(facet_texts(second, ("genre",)).values()) == ["Y"]


def test_after_a_question_the_facets_of_its_kind_may_be_named() -> None:
    dialogue = Dialogue(TASK, ITEMS)
    dialogue.ask("tag", "")
    assert wish_texts(dialogue.observe(USER), ITEMS) == ("nothing", "tag: Comedy", "tag: a: b", "tag: nothing", "snow")
    dialogue.reply(0, None, "")
    dialogue.recommend(0, "")
    heard = dialogue.observe(USER)
    assert wish_texts(heard, ITEMS) == ("nothing", *facet_texts(ITEMS, KINDS).values())
    assert [wished(text, heard, ITEMS) for text in wish_texts(heard, ITEMS)] == [None, *facet_texts(ITEMS, KINDS)]


def test_a_large_vocabulary_is_named_in_full() -> None:
    items = tuple(Item(f"Film {n}", (), None, (Facet("like", f"Film {n + 1}"),)) for n in range(3000))
    task = Task("t", 0, (2,), (0, 1), 0, instruction=Instruction((Facet("like", "Film 1"),), ("like",)))
    seen = Dialogue(task, items).observe(RECOMMENDER)
    assert len(set(wish_texts(seen, items))) == 3001
    assert wished("Film 2000", seen, items) == Facet("like", "Film 2000")


@pytest.mark.parametrize(
    ("said", "asked", "true"),
    [
        ((), "", (COMEDY, NINETIES)),
        ((WAR, None), "", (COMEDY, NINETIES)),
        ((COMEDY,), "", (NINETIES,)),
        ((COMEDY, NINETIES), "", ()),
        ((), "decade", (NINETIES,)),
        ((NINETIES,), "decade", (NINETIES,)),  # asked again, it is still true
        ((), "tag", ()),
    ],
)
def test_what_is_true_to_say(said: tuple[Facet | None, ...], asked: str, true: tuple[Facet, ...]) -> None:
    assert true_wishes((COMEDY, NINETIES), said, asked) == true
