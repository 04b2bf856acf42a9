"""Wishes: facets in words, as prompts show them and replies choose them, and which of them are true to say."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from coars_env import Facet, Item, Observation, facet_vocabulary, kinds_of

NO_WISH = "nothing"
"""What a user chooses that reveals nothing."""


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """Items by identity: to compare thousands of them takes longer than a turn."""

    items: Sequence[Item]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Catalogue) and other.items is self.items

    def __hash__(self) -> int:
        return id(self.items)


def facet_texts(items: Sequence[Item], kinds: Sequence[str]) -> Mapping[Facet, str]:
    """Return all facets of a catalogue in words, kind after kind.

    A facet reads as its value, "Comedy"; as "brand: Fender" where two kinds share the value, where it is "nothing", and
    where it holds a colon and a blank. So no two facets read the same.

    Args:
        items: the catalogue, which must not change: what it makes is kept.
        kinds: of the game.
    """
    return _facet_texts(_Catalogue(items), tuple(kinds))


@lru_cache(maxsize=16)
def _facet_texts(catalogue: _Catalogue, kinds: tuple[str, ...]) -> Mapping[Facet, str]:
    facets = facet_vocabulary(catalogue.items, kinds)
    shared = Counter(facet.value for facet in facets)
    return {
        facet: str(facet) if shared[facet.value] > 1 or facet.value == NO_WISH or ": " in facet.value else facet.value
        for facet in facets
    }


def facet_text(facet: Facet, items: Sequence[Item], kinds: Sequence[str]) -> str:
    """Return one facet in the words of `facet_texts`; "kind: value" where no item has it."""
    return facet_texts(items, kinds).get(facet, str(facet))


def instructed(observation: Observation) -> bool:
    """Whether the game has instructions."""
    return bool(kinds_of(observation))


def question_heard(observation: Observation) -> str:
    """Return the kind of facet that the recommender asks for in this turn; "" if it does not ask, or has not spoken."""
    turn = int(observation.get("turn", 0))
    return "".join(observation.get("questions", ())[turn : turn + 1])


def proposal_heard(observation: Observation) -> bool:
    """Whether this turn is no question."""
    return not question_heard(observation)


def wish_texts(observation: Observation, items: Sequence[Item]) -> tuple[str, ...]:
    """Return "nothing" and all facets that a user may name in this turn; after a question those of its kind."""
    asked = question_heard(observation)
    texts = facet_texts(items, kinds_of(observation))
    return (NO_WISH, *(text for facet, text in texts.items() if asked in ("", facet.kind)))


def wished(text: str, observation: Observation, items: Sequence[Item]) -> Facet | None:
    """Return the facet that one of `wish_texts` names; None for "nothing"."""
    return {written: facet for facet, written in facet_texts(items, kinds_of(observation)).items()}.get(text)


def true_wishes(wanted: Iterable[Facet], said: Collection[Facet | None], asked: str = "") -> tuple[Facet, ...]:
    """Return what is true to say now: what is wanted and was not said, after a question of its kind.

    Once all of the kind was said it may be said again. Empty where "nothing" is true.

    Args:
        wanted: facets of the instruction.
        said: facets revealed in earlier turns.
        asked: kind that is asked for; "" for none.
    """
    fitting = tuple(facet for facet in wanted if asked in ("", facet.kind))
    fresh = tuple(facet for facet in fitting if facet not in said)
    return fresh or (fitting if asked else ())
