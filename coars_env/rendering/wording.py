"""The template language of questions and wishes: from an act to a sentence and back."""

from collections.abc import Iterable, Sequence

from coars_env.datasets.dataset import Facet

_QUESTIONS = {"decade": "Of which decade?", "like": "Like which one?"}
_WISHES = {"decade": "I want something of the {}.", "like": "I want something like {}."}
DECLINE = "I would rather not say."
"""What a user that thinks in numbers answers to a question when it reveals nothing."""


def question_text(kind: str) -> str:
    """Return the sentence that asks for a kind of facet: "Which genre?"."""
    return _QUESTIONS.get(kind, f"Which {kind}?")


def read_question(text: str, kinds: Sequence[str]) -> str | None:
    """Return the kind that a text asks for in the words of `question_text`; None if it asks for none or for several."""
    asked = [kind for kind in kinds if question_text(kind) in text]
    return asked[0] if len(asked) == 1 else None


def wish_text(facet: Facet) -> str:
    """Return the sentence that reveals a facet: "I want the genre Comedy."."""
    return _WISHES.get(facet.kind, f"I want the {facet.kind} {{}}.").replace("{}", facet.value)


def read_wish(text: str, facets: Iterable[Facet]) -> Facet | None:
    """Return the one of `facets` that a text reveals in the words of `wish_text`; None if it reveals none, or several.

    >>> read_wish("Not that. I want the genre Comedy.", [Facet("genre", "Comedy"), Facet("genre", "War")])
    Facet(kind='genre', value='Comedy')
    """
    revealed = [facet for facet in facets if wish_text(facet) in text]
    longest = [one for one in revealed if not any(_is_part(wish_text(one), wish_text(other)) for other in revealed)]
    return longest[0] if len(longest) == 1 else None


def _is_part(sentence: str, other: str) -> bool:
    """Whether a sentence is found in a longer one: "... like Dr." in "... like Dr. No."."""
    return sentence in other and sentence != other
