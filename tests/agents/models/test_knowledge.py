"""Statements of facets say what the catalogue says, over lists and items drawn at random."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.models.backbones.knowledge import BOTH, FACET, NEXT, NO, YES, facet_statement, fact
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ANSWER,
    CANDIDATES,
    INSTRUCTED_PHRASES,
    ITEM,
    PHRASES,
    RECOMMENDED,
    SCORE,
    WANTS,
    WISH,
    YOU_WANT,
    Pieces,
)
from agents.models.wishes import facet_texts
from coars_env import Facet, Item, UserSequence

KINDS = ("genre", "decade")
GENRES = ("Comedy", "Crime", "War")
ITEMS = tuple(Item(f"Film {n}", GENRES[n % 3 : n % 3 + 2], 1960 + n) for n in range(40))
NAMES = {f" {text}": text for text in facet_texts(ITEMS, KINDS).values()}
OWNED = {f" {item.title}": {value for kind in KINDS for value in item.values(kind)} for item in ITEMS}


def test_a_fact_names_facets_too() -> None:
    snow = Item("Fargo", ("Crime",), 1996, (Facet("tag", "snow"),))
    assert "".join(fact(snow)) == " Fargo: Crime 1996."
    assert "".join(fact(snow, (snow,), (*KINDS, "tag"))) == " Fargo: Crime 1990s snow 1996."


def statement(items: Sequence[Item], seed: int) -> Pieces:
    said, choices = facet_statement(UserSequence(0, tuple(range(12))), items, KINDS, np.random.default_rng(seed))
    listed = said[said.index(CANDIDATES) + 1 :][:20] if CANDIDATES in said else ()
    for place, options in choices.items():
        assert said[place] in options
        assert said[place - 1] in (":", ACTION, NEXT)
        assert options == (listed or (YES, NO))
    assert len(choices) == sum(said.count(label) for label in (":", ACTION, NEXT))
    return said


def test_statements_of_facets_are_true() -> None:
    answers, sizes, listed, named, forms = (Counter[Any]() for _ in range(5))
    for seed in range(400):
        said = statement(ITEMS, seed)
        if YOU_WANT in said:
            forms["wanted"] += 1
            start = said.index(YOU_WANT)
            wants = {NAMES[piece] for piece in said[start + 1 : said.index("\n")] if piece != ";"}
            for n, piece in enumerate(said):
                if piece == RECOMMENDED:
                    answer = next(word for word in said[n:] if word in (YES, NO))
                    assert (answer == YES) == (wants <= OWNED[said[n + 1]])
                    answers[answer] += 1
        elif WANTS in said:
            forms["of a list"] += 1
            titles = said[said.index(CANDIDATES) + 1 : said.index(ANSWER)]
            for part in "|".join(said).split(f"|{ANSWER}|")[1:]:
                words = part.split("|")
                facets = {NAMES[words[n + 1]] for n, word in enumerate(words) if word == WANTS}
                chosen = words[words.index(NEXT) + 1]
                assert chosen in titles
                assert facets <= OWNED[chosen]
                sizes[len(facets)] += 1
        else:
            forms["plain"] += 1
            assert not set(said) & {*PHRASES, *INSTRUCTED_PHRASES} - {CANDIDATES}  # not the words of a dialogue
            plain_statement(said, answers, sizes, listed, named)
    assert set(sizes) == {1, 2}
    assert 0.15 < sizes[2] / sizes.total() < 0.4
    assert min(answers[YES], answers[NO]) > 0.25 * answers.total()
    assert set(listed) == set(OWNED)
    assert set(named) == set(NAMES)
    assert min(forms.values()) > 60


def plain_statement(
    said: Pieces, answers: Counter[Any], sizes: Counter[Any], listed: Counter[Any], named: Counter[Any]
) -> None:
    lines = "|".join(said)
    if said[0] == CANDIDATES:
        titles, *statements = lines.split(f"|{FACET}|")
        listed.update(titles.split("|")[1:])
        for one in statements:
            about, _, title = one.removesuffix("|\n").partition("|:|")
            facets = [NAMES[piece] for piece in about.split("|") if piece != BOTH]
            assert title in titles.split("|")
            assert set(facets) <= OWNED[title]
            sizes[len(facets)] += 1
    else:
        for line in filter(None, lines.split("|\n")):
            title, facet, _, answer = line.strip("|").split("|")
            assert (answer == YES) == (NAMES[facet] in OWNED[title])
            answers[answer] += 1
            named[facet] += 1


def test_statements_choose_nothing_in_the_words_of_a_dialogue() -> None:
    """Neither an action nor an item of the dialogue's own form is ever learnt from them."""
    said = {piece for seed in range(200) for piece in statement(ITEMS, seed)}
    assert not said & {ITEM, SCORE, WISH, *ACTION_TEXTS}


def test_items_without_facets_are_only_listed() -> None:
    bare = tuple(Item(f"Film {n}") for n in range(30))
    said = [statement(bare, seed) for seed in range(40)]
    assert all(WANTS not in one for one in said)
    assert {len(one) for one in said if CANDIDATES in one and ANSWER not in one} == {22}  # twenty titles
