"""What pocket learns of the training part and the catalogue: sequences, facts, and statements about both."""

from collections.abc import Sequence

import numpy as np

from agents.models.prompts import (
    ACTION,
    ANSWER,
    BECAUSE,
    CANDIDATES,
    REASON,
    RECOMMENDED,
    TAKEN,
    WANTS,
    YOU_WANT,
    Pieces,
    opinion_of_peer,
    title,
    titles,
)
from agents.models.wishes import facet_text, facet_texts
from coars_env import HISTORY_LENGTH, Facet, Item, Opinion, Task, UserSequence, VectorPeers, has_facet

NUM_CANDIDATES = 20

Mark = bool | tuple[int, ...]
"""Of a token of a row: whether it is learnt; or the tokens of which it is one, where it is learnt as a choice among
these alone."""

REASONS: dict[str, tuple[tuple[str, str], ...]] = {
    "propose": ((" It goes well with", "."), (" You took", ", and this is of its kind."), (" Next to", " it fits.")),
    "answer": ((" It makes me think of", "."), (" I compare it with", "."), (" The last one like it was", ".")),
}
"""What a demonstration says, around a title of the history. Reasons do not give the choice away: it is made after."""


def fact(item: Item, items: Sequence[Item] = (), kinds: Sequence[str] = ()) -> Pieces:
    """What the catalogue says of an item, with its facets of `kinds`."""
    year = f" {item.year}" if item.year else ""
    named = [" " + facet_text(facet, items, kinds) for facet in facets_of(item, kinds)]
    genres = [" " + genre for genre in item.genres]
    more = [name for name in named if name not in genres]
    return (" " + item.title, ":", *genres, *more, year, ".")


FACET, BOTH = "\nOf the list:", " as well as"
"""How a statement of facets begins, and what joins two facets in it; no dialogue holds these words."""
NUM_FACETS, TWO_FACETS, NUM_JUDGED = 5, 0.3, 8
"""Of a statement of facets: how many there are, the share of them with two facets, and how many items are compared with
what somebody wants (our choice)."""


def facets_of(item: Item, kinds: Sequence[str]) -> list[Facet]:
    """All facets of an item."""
    return [Facet(kind, value) for kind in kinds for value in item.values(kind)]


Statement = tuple[Pieces, dict[int, Pieces]]
"""Pieces, and by the place of some what they were chosen among; of a text with choices these alone are learnt."""


def facet_statement(
    sequence: UserSequence, items: Sequence[Item], kinds: Sequence[str], rng: np.random.Generator
) -> Statement:
    """Which items have a facet: knowledge of the catalogue like `fact`, in one of four forms.

    A list of items drawn at random, with an item of it for a facet or for two; items and facets, with yes or no; what
    somebody wants and items, with yes or no; a list, what somebody wants, and an item of the list that has it. The last
    two stand where a dialogue has its proposals, in words that it does not know ("yes.", "Next:"): what a recommender
    or a user makes of a facet is not said, and nothing depends on the history.
    """
    form = int(rng.integers(4))
    if form == 0:
        return _facets_by_item(items, kinds, rng)
    if form == 1:
        return _wanted(sequence, items, kinds, rng)
    if form == 2:
        return _wanted_of_list(sequence, items, kinds, rng)
    return _facets_by_list(items, kinds, rng)


def _facets_by_list(items: Sequence[Item], kinds: Sequence[str], rng: np.random.Generator) -> Statement:
    """Items of a list that have a facet, or two: "Of the list: Comedy: Fargo (1996)"."""
    listed = rng.choice(len(items), min(NUM_CANDIDATES, len(items)), replace=False).tolist()
    owned = {item: facets_of(items[item], kinds) for item in listed}
    present = list(dict.fromkeys(facet for facets in owned.values() for facet in facets))
    options = titles(items, listed, "")
    pieces, choices = [CANDIDATES, *options], dict[int, Pieces]()
    for _ in range(NUM_FACETS if present else 0):
        named = [present[int(rng.integers(len(present)))]]
        fitting = [item for item in listed if named[0] in owned[item]]
        if rng.random() < TWO_FACETS:
            more = [facet for facet in owned[fitting[int(rng.integers(len(fitting)))]] if facet not in named]
            named += [more[int(rng.integers(len(more)))]] if more else []
            fitting = [item for item in fitting if set(named) <= set(owned[item])]
        words = [" " + facet_text(facet, items, kinds) for facet in named]
        pieces += [FACET, words[0], *(piece for word in words[1:] for piece in (BOTH, word)), ":"]
        choices[len(pieces)] = options
        pieces.append(title(items, fitting[int(rng.integers(len(fitting)))]))
    return (*pieces, "\n"), choices


def _facets_by_item(items: Sequence[Item], kinds: Sequence[str], rng: np.random.Generator) -> Statement:
    """Whether items have facets, "Heat (1995) Comedy: no."; half of the facets are the item's own."""
    vocabulary = tuple(facet_texts(items, kinds))
    pieces, choices = list[str](), dict[int, Pieces]()
    for _ in range(2 * NUM_FACETS if vocabulary else 0):
        item = int(rng.integers(len(items)))
        owned = facets_of(items[item], kinds)
        own = owned if owned and rng.random() < 0.5 else vocabulary
        facet = own[int(rng.integers(len(own)))]
        pieces += [title(items, item), " " + facet_text(facet, items, kinds), ":"]
        choices[len(pieces)] = (YES, NO)
        pieces += [YES if facet in owned else NO, "\n"]
    return tuple(pieces), choices


def _wanted(sequence: UserSequence, items: Sequence[Item], kinds: Sequence[str], rng: np.random.Generator) -> Statement:
    """Whether items have what somebody wants; about half of them do."""
    wants, fitting = _wish(items, kinds, range(len(items)), rng)
    history = _stretch(sequence, rng)[1]
    words = [piece for facet in wants for piece in (";", " " + facet_text(facet, items, kinds))][1:]
    pieces: list[str] = [TAKEN, *titles(items, history, ""), YOU_WANT, *words, "\n"]
    choices: dict[int, Pieces] = {}
    for _ in range(NUM_JUDGED):
        item = fitting[int(rng.integers(len(fitting)))] if rng.random() < 0.5 else int(rng.integers(len(items)))
        pieces += [RECOMMENDED, title(items, item)]
        if rng.random() < 0.5:
            pieces += [BECAUSE, *reason_text("propose", history, items, rng)]
        pieces.append("\n")
        if rng.random() < 0.5:
            pieces += [REASON, *reason_text("answer", history, items, rng)]
        has = all(has_facet(items[item], facet) for facet in wants)
        pieces += ["\n", ACTION]
        choices[len(pieces)] = (YES, NO)
        pieces += [YES if has else NO, "\n"]
    return tuple(pieces), choices


def _wanted_of_list(
    sequence: UserSequence, items: Sequence[Item], kinds: Sequence[str], rng: np.random.Generator
) -> Statement:
    """Items of a list that have what somebody says that they want, one wish after another."""
    listed = rng.choice(len(items), min(NUM_CANDIDATES, len(items)), replace=False).tolist()
    history = _stretch(sequence, rng)[1]
    pieces: list[str] = [TAKEN, *titles(items, history, ""), CANDIDATES, *titles(items, listed, "")]
    choices: dict[int, Pieces] = {}
    for _ in range(NUM_FACETS):
        wants, fitting = _wish(items, kinds, listed, rng)
        pieces.append(ANSWER)
        for facet in wants:
            pieces += [WANTS, " " + facet_text(facet, items, kinds)]
        pieces += ["\n", REASON, *reason_text("propose", history, items, rng), "\n"]
        pieces.append(NEXT)
        choices[len(pieces)] = titles(items, listed, "")
        pieces += [title(items, fitting[int(rng.integers(len(fitting)))]), "\n"]
    return tuple(pieces), choices


def _wish(
    items: Sequence[Item], kinds: Sequence[str], among: Sequence[int], rng: np.random.Generator
) -> tuple[list[Facet], list[int]]:
    """One facet, or two, of an item drawn from some; and those of them that have it. None where none has any."""
    known = [item for item in among if facets_of(items[item], kinds)] or list(among)
    owned = facets_of(items[known[int(rng.integers(len(known)))]], kinds)
    size = min(len(owned), 1 + int(rng.random() < TWO_FACETS))
    wants = [owned[n] for n in rng.choice(len(owned), size, replace=False).tolist()] if owned else []
    return wants, [item for item in known if all(has_facet(items[item], facet) for facet in wants)]


LEFT_OUT = 0.2
"""Share of a sequence that a text about it leaves out, drawn anew each time; ours. So no two texts of a user are alike,
and the model learns less of the user and more of what goes with what; see docs/log.md."""


def sequence_text(sequence: UserSequence, items: Sequence[Item], length: int, rng: np.random.Generator) -> Pieces:
    """A stretch of a training user's sequence as a list of titles, some left out."""
    kept = _thinned(sequence.items, rng)
    start = int(rng.integers(max(1, len(kept) - length + 1)))
    return (TAKEN, *titles(items, kept[start : start + length], ""))


YES, NO = " yes.", " no."
NUM_QUESTIONS, NUM_SOON = 4, 5
"""Of a statement of fit: how many questions, and how far ahead a true item may lie."""
NEXT = "Next:"
LISTED = 0.7
"""Share of the statements of what came next with a list of items before it (our choice)."""


def next_statement(sequence: UserSequence, items: Sequence[Item], rng: np.random.Generator) -> Pieces:
    """What came next in a stretch of a training user's sequence, said after a reason: the sequence text, whose next
    title stands right behind its history, in another order. Mostly a list of items stands between, drawn at random
    from the catalogue, so that the model learns to look past one.

    Knowledge of the training part like `fit_statement`. Nothing is chosen from the list, in which the next item stands
    by chance only, and the dialogue knows no "Next:".
    """
    cut, history = _stretch(sequence, rng)
    listed: Pieces = ()
    if rng.random() < LISTED:
        drawn = rng.choice(len(items), min(NUM_CANDIDATES, len(items)), replace=False).tolist()
        listed = (CANDIDATES, *titles(items, drawn, ""))
    reason = reason_text("propose", history, items, rng)
    opening = (TAKEN, *titles(items, history, ""), *listed, "\n", REASON, *reason, "\n")
    return (*opening, NEXT, title(items, sequence.items[cut]), "\n")


def fit_statement(
    sequence: UserSequence, items: Sequence[Item], rng: np.random.Generator, peers: VectorPeers | None = None
) -> Pieces:
    """Whether items come soon in a training user's sequence: each question is about one of the next few items or
    about one drawn at random from the catalogue, and "yes" says that the user took it. Half of the questions tell what
    peers say of the item.

    Like the sequences themselves this is knowledge of the training part. It says yes and no, words that the dialogue
    does not know; which action such an item deserves it does not say, and the demonstrations of that are random.
    """
    cut, history = _stretch(sequence, rng)
    soon, owned = sequence.items[cut : cut + NUM_SOON], set(sequence.items)
    asked = [
        soon[int(rng.integers(len(soon)))] if rng.random() < 0.5 else int(rng.integers(len(items)))
        for _ in range(NUM_QUESTIONS)
    ]
    opinions = _opinions(sequence.user, history, asked, peers)
    pieces: list[str] = [TAKEN, *titles(items, history, ""), "\n"]
    for item in asked:
        pieces += [RECOMMENDED, title(items, item)]
        if rng.random() < 0.5:
            pieces += [BECAUSE, *reason_text("propose", history, items, rng)]
        if rng.random() < 0.5:
            pieces += [piece for opinion in opinions[item] for piece in opinion_of_peer(opinion, items)]
        pieces.append("\n")
        if rng.random() < 0.5:
            pieces += [REASON, *reason_text("answer", history, items, rng)]
        pieces += ["\n", ACTION, YES if item in owned else NO, "\n"]
    return tuple(pieces)


def _opinions(
    user: int, history: tuple[int, ...], asked: Sequence[int], peers: VectorPeers | None
) -> dict[int, tuple[Opinion, ...]]:
    """What peers say to a training user of items; its own sequence has no say."""
    different = tuple(dict.fromkeys(asked))
    said = peers(user, history, different).opinions if peers else ()
    task = Task("", user, (), different, different[0], opinions=said)
    return {item: task.opinions_of(item) for item in different}


def _stretch(sequence: UserSequence, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
    """A place in a sequence, and the history before it, some of it left out."""
    cut = int(rng.integers(min(3, len(sequence.items) - 1), len(sequence.items)))
    return cut, _thinned(sequence.items[max(0, cut - 2 * HISTORY_LENGTH) : cut], rng)[-HISTORY_LENGTH:]


def _thinned(taken: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Without `LEFT_OUT` of the items; at least one stays."""
    kept = rng.random(len(taken)) >= LEFT_OUT
    return tuple(item for item, stays in zip(taken, kept.tolist(), strict=True) if stays) or taken[-1:]


def reason_text(kind: str, history: Sequence[int], items: Sequence[Item], rng: np.random.Generator) -> Pieces:
    before, after = REASONS[kind][int(rng.integers(len(REASONS[kind])))]
    return (before, title(items, history[int(rng.integers(len(history)))]), after)


NUM_FACET_TEXTS = 4
"""Statements of facets beside eight other texts, in models with kinds of facets."""


def knowledge(
    number: int,
    sequence: UserSequence,
    items: Sequence[Item],
    peers: VectorPeers,
    rng: np.random.Generator,
    *,
    length: int,
    kinds: Sequence[str] = (),
) -> Statement:
    """Return a text by its number. Of eight texts one is a fact, two are statements of fit, three of what came next,
    two are sequences. With kinds of facets there are twelve, of which four are statements of facets.
    """
    if kinds:
        number %= 8 + NUM_FACET_TEXTS
        if number >= 8:
            return facet_statement(sequence, items, kinds, rng)
    if number % 8 == 0:
        return fact(items[int(rng.integers(len(items)))], items, kinds), {}
    if number % 8 <= 2:
        return fit_statement(sequence, items, rng, peers), {}
    if number % 8 <= 5:
        return next_statement(sequence, items, rng), {}
    return sequence_text(sequence, items, length, rng), {}
