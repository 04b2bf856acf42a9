"""names: whether a text holds a title, however it is written."""

import re
import unicodedata
from functools import lru_cache

_BRACKETS = re.compile(r"(\s*\([^()]*\))+\s*$")
_ARTICLES = ("the", "a", "an")
_LAST_ARTICLE = re.compile(r",\s*(the|a|an|les?|la|l'|il|el|los|las|der|die|das)$", re.IGNORECASE)
_FIRST_ARTICLE = re.compile(r"^(the|a|an)\s+", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_APOSTROPHES = re.compile("['’‘`´]")


def folded(text: str) -> str:
    """Return the words of a text in one common spelling, a blank around each.

    Case, accents and punctuation are dropped, apostrophes without a blank, and "&" is "and".

    >>> folded("Amélie, Schindler's List & M*A*S*H")
    ' amelie schindlers list and m a s h '
    """
    plain = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text).casefold().replace("&", " and "))
    letters = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return " " + "".join(f"{word} " for word in _BETWEEN_WORDS.split(letters) if word)


@lru_cache(maxsize=1 << 16)
def folded_title(title: str) -> str:
    """Return the folded words of a title without what goes before or after it: year and other brackets at its end, and
    an article, also where it was moved to the end. Empty if nothing is left.

    >>> folded_title("Godfather, The (1972)"), folded_title("A Bug's Life (1998)"), folded_title("(2001)")
    (' godfather ', ' bugs life ', '')
    """
    bare = _LAST_ARTICLE.sub("", _BRACKETS.sub("", title)).strip()
    words = folded(_FIRST_ARTICLE.sub("", bare))
    if words.strip() in ("", *_ARTICLES):  # as in the name of the band The The
        words = folded(bare)
    return words if words.strip() else ""


def names(text: str, title: str) -> bool:
    """Whether the text holds the title as whole words: without its year, whatever the case of letters, accents,
    punctuation and articles. A title of signs alone is looked for as it is written.

    >>> names("Nothing beats heat!", "Heat (1995)"), names("Preheated.", "Heat (1995)")
    (True, False)
    >>> names("I saw the godfather", "Godfather, The (1972)"), names("Les Miserables?", "Misérables, Les (1995)")
    (True, True)
    """
    return holds(folded(text), text, title)


def holds(words: str, text: str, title: str) -> bool:
    """Return the same for a text whose folded words are known."""
    wanted = folded_title(title)
    return wanted in words if wanted else title.casefold() in text.casefold()
