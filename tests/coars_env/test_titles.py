"""Titles are found however they are written: case, articles, punctuation, accents, year."""

import pytest

from coars_env.evaluation.titles import folded, folded_title, names


@pytest.mark.parametrize(
    ("text", "title", "expected"),
    [
        ("HEAT!", "Heat (1995)", True),
        ("wheat", "Heat (1995)", False),
        ("Se7en (1995), please", "Se7en (1995)", True),
        ("What (if)?", "(if)", True),
        ("a b", "A.B.", True),
        ("2001 was good", "(2001)", False),  # nothing is left of it, so it is looked for as it is written
        ("it was (2001)", "(2001)", True),
        ("STRASSE", "Straße (1990)", True),
        ("", "Heat (1995)", False),
        ("i loved the godfather", "Godfather, The (1972)", True),
        ("Godfather is fine", "The Godfather", True),
        ("a godfatherly man", "Godfather, The (1972)", False),
        ("schindlers list", "Schindler's List (1993)", True),
        ("Schindler’s List", "Schindler's List (1993)", True),
        ("amelie", "Amélie (2001)", True),
        ("Amélie", "Amélie (2001)", True),  # the accent as a sign of its own
        ("lilo and stitch", "Lilo & Stitch (2002)", True),
        ("Mission Impossible", "Mission: Impossible (1996)", True),
        ("il postino", "Postino, Il (Postman, The) (1994)", True),
        ("Les Misérables", "Misérables, Les (1995)", True),
        ("the end", "The The", False),
        ("I like The The", "The The", True),
        ("七人の侍 please", "七人の侍 (1954)", True),
        ("wow!!", "!!!", False),
        ("wow!!!", "!!!", True),
        ("a bugs life", "Bug's Life, A (1998)", True),
    ],
)
def test_titles_are_found_as_whole_words(text: str, title: str, expected: bool) -> None:
    assert names(text, title) is expected


def test_words_in_one_spelling() -> None:
    assert folded("Amélie, Schindler's List & M*A*S*H") == " amelie schindlers list and m a s h "
    assert folded("?!") == " "
    assert [folded_title(title) for title in ("Net, The (1995)", "A", "The The", "(2001)")] == [
        " net ",
        " a ",
        " the the ",
        "",
    ]
