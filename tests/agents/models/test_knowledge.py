"""Statements of facets say what the catalogue says, over lists and items drawn at random."""

from collections import Counter

import numpy as np

from agents.models.backbones.knowledge import BOTH, FACET, NO, YES, facet_statement, fact
from agents.models.prompts import CANDIDATES, INSTRUCTED_PHRASES, PHRASES
from agents.models.wishes import facet_texts
from coars_env import Facet, Item

KINDS = ("genre", "decade")
GENRES = ("Comedy", "Crime", "War")
ITEMS = tuple(Item(f"Film {n}", GENRES[n % 3 : n % 3 + 2], 1960 + n) for n in range(40))
OWNED = {f" {item.title}": {value for kind in KINDS for value in item.values(kind)} for item in ITEMS}


def test_a_fact_names_facets_too() -> None:
    snow = Item("Fargo", ("Crime",), 1996, (Facet("tag", "snow"),))
    assert "".join(fact(snow)) == " Fargo: Crime 1996."
    assert "".join(fact(snow, (snow,), (*KINDS, "tag"))) == " Fargo: Crime 1990s snow 1996."


def test_statements_of_facets_are_true() -> None:
    names = {f" {text}": text for text in facet_texts(ITEMS, KINDS).values()}
    answers, sizes, listed, named = Counter[str](), Counter[int](), Counter[str](), Counter[str]()
    for seed in range(400):
        said = facet_statement(ITEMS, KINDS, np.random.default_rng(seed))
        assert not set(said) & {*PHRASES, *INSTRUCTED_PHRASES} - {CANDIDATES}  # not the words of a dialogue
        lines = "|".join(said)
        if said[0] == CANDIDATES:
            titles, *statements = lines.split(f"|{FACET}|")
            listed.update(titles.split("|")[1:])
            for statement in statements:
                about, _, title = statement.removesuffix("|\n").partition("|:|")
                facets = [names[piece] for piece in about.split("|") if piece != BOTH]
                assert title in titles.split("|")
                assert set(facets) <= OWNED[title]
                sizes[len(facets)] += 1
        else:
            for line in filter(None, lines.split("|\n")):
                title, facet, _, answer = line.strip("|").split("|")
                assert (answer == YES) == (names[facet] in OWNED[title])
                answers[answer] += 1
                named[facet] += 1
    assert set(sizes) == {1, 2}
    assert 0.15 < sizes[2] / sizes.total() < 0.4
    assert min(answers[YES], answers[NO]) > 0.3 * answers.total()
    assert set(listed) == set(OWNED)
    assert set(named) == set(names)


def test_items_without_facets_are_only_listed() -> None:
    bare = tuple(Item(f"Film {n}") for n in range(30))
    said = {len(facet_statement(bare, KINDS, np.random.default_rng(seed))) for seed in range(20)}
    assert said == {0, 22}  # nothing, or twenty titles
