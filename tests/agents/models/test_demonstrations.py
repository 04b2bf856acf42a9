"""Demonstrations of games with an instruction: form without skill, and replies that agree with their hindsight."""

import math
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np

from agents.models.backbones.demonstrations import Demonstrator
from agents.models.backbones.knowledge import Mark
from agents.models.prompts import (
    ASKED,
    CANDIDATES,
    ITEM,
    TAKEN_NEXT,
    TRUE_ANSWER,
    TRUE_TO_SAY,
    USER_WANTS,
    WANTS,
    WISH,
    YOU_WANT,
    question,
)
from agents.models.wishes import facet_texts
from agents.players.llm_agent import Row, read_context
from coars_env import RECOMMENDER, USER, Dialogue, Facet, Split, has_facet

KINDS = ("genre", "decade")


class Reader:
    """Reads rows token by token, each of which is one piece here."""

    def __init__(self, lab: Any, split: Split, seed: int = 0) -> None:
        self.backbone = lab.backbone("instructed")
        self.items = split.dataset.items
        self.demonstrator = Demonstrator(split, self.backbone, np.random.default_rng(seed), KINDS)
        self.facets = {f" {text}": facet for facet, text in facet_texts(self.items, KINDS).items()}
        self.titles = {f" {item.title}": number for number, item in enumerate(self.items)}

    def pieces(self, kind: Any) -> tuple[list[str], list[Mark]]:
        tokens, learnt = self.demonstrator.row(kind)
        return [self.backbone.tokenizer.decode([token]) for token in tokens], learnt

    def facets_after(self, pieces: list[str], label: str) -> list[Facet]:
        """Of a list such as " Comedy", ";", " 1990s"."""
        found = []
        for piece in pieces[pieces.index(label) + 1 :]:
            if piece in self.facets:
                found.append(self.facets[piece])
            elif piece != ";":
                break
        return found


def near(share: float, expected: float, n: int) -> bool:
    """Within four standard errors."""
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_facets_and_questions_are_one_token_each(lab: Any, split: Split) -> None:
    reader = Reader(lab, split)
    for text in (*reader.facets, *reader.titles, *map(question, KINDS), ASKED, WISH, WANTS):
        assert len(reader.backbone.encode(text)) == 1, text


def test_what_is_demonstrated_depends_on_no_instruction_and_no_target(lab: Any, split: Split) -> None:
    """A proposal fits what was revealed, and a wish what is wanted, as often as one made for another dialogue."""
    reader = Reader(lab, split, seed=3)
    fits, asks, wishes = Counter[bool](), Counter[bool](), defaultdict[str, Counter[bool]](Counter)
    heard: list[tuple[Facet, list[int]]] = []
    wanted: list[tuple[list[Facet], list[Facet | None]]] = []
    for _ in range(6000):
        pieces, _ = reader.pieces("plain")
        if CANDIDATES in pieces:
            start = pieces.index(CANDIDATES) + 1
            candidates = [reader.titles[piece] for piece in pieces[start : start + 20]]
            revealed = None
            for label, piece in pairwise(pieces):
                revealed = reader.facets.get(piece, revealed) if label == WANTS else revealed
                if label != ITEM:
                    continue
                asks[piece not in reader.titles] += 1
                if revealed is not None and piece in reader.titles:
                    shares = [has_facet(reader.items[item], revealed) for item in candidates]
                    fits[has_facet(reader.items[reader.titles[piece]], revealed)] += 1
                    heard.append((revealed, [int(share) for share in shares]))
        else:
            said = [reader.facets.get(piece) for label, piece in pairwise(pieces) if label == WISH]
            wanted.append((reader.facets_after(pieces, YOU_WANT), said))
    share = sum(sum(shares) / len(shares) for _, shares in heard) / len(heard)
    assert len(heard) > 500
    assert near(fits[True] / fits.total(), share, fits.total())
    assert 0.15 < asks[True] / asks.total() < 0.3
    for (wants, said), (others, _) in pairwise(wanted):
        for facet in said:
            if facet is not None:
                wishes["own"][facet in wants] += 1
                wishes["other"][facet in others] += 1
    own, other = (counts[True] / counts.total() for counts in (wishes["own"], wishes["other"]))
    assert wishes["own"].total() > 2000
    assert abs(own - other) < 4 * math.sqrt(2 * other * (1 - other) / wishes["own"].total())


def test_a_plain_move_is_learnt_as_a_choice_among_what_may_be_chosen(lab: Any, split: Split) -> None:
    reader, moves = Reader(lab, split), Counter[int]()
    for _ in range(300):
        pieces, learnt = reader.pieces("plain")
        choices = {place: mark for place, mark in enumerate(learnt) if isinstance(mark, tuple)}
        assert [pieces[place - 1] for place in choices] == [ITEM] * pieces[1:].count(ITEM)
        for place, mark in choices.items():
            options = [reader.backbone.tokenizer.decode([token]) for token in mark]
            assert pieces[place] in options
            start = pieces.index(CANDIDATES) + 1
            assert options[:20] == pieces[start : start + 20]
            assert options[20:] in ([], [*map(question, KINDS)])
            moves[len(options)] += 1
    assert moves[20] > 0  # the last turn must propose
    assert moves[22] > 100


def test_instructions_are_those_of_other_items_than_the_target(lab: Any, split: Split) -> None:
    reader = Reader(lab, split, seed=4)
    fits, chance = [], []
    for _ in range(1500):
        task = reader.demonstrator._task((0, 1, 2))
        assert task.instruction is not None
        fits.append(task.instruction.fits(reader.items[task.target]))
        chance.append(np.mean([task.instruction.fits(reader.items[item]) for item in task.candidates]))
    assert near(float(np.mean(fits)), float(np.mean(chance)), len(fits))


def test_a_guided_reply_says_what_hindsight_says(lab: Any, split: Split) -> None:
    reader, seen = Reader(lab, split), Counter[str]()
    for _ in range(600):
        pieces, learnt = reader.pieces("guided")
        first = learnt.index(True)
        assert not any(isinstance(mark, tuple) for mark in learnt)  # it is to find what hindsight names
        told, said = pieces[pieces.index(TAKEN_NEXT) : first], pieces[first:]
        target = told[1]
        if ITEM in said:
            chosen = said[said.index(ITEM) + 1]
            if USER_WANTS in told:
                assert chosen == target
                seen["proposes"] += 1
            else:
                true = reader.facets_after(told, TRUE_ANSWER)
                assert chosen == (question(true[0].kind) if true else target)
                seen["asks" if true else "does not ask"] += 1
        else:
            asked = TRUE_ANSWER in told
            true = reader.facets_after(told, TRUE_ANSWER if asked else TRUE_TO_SAY)
            wish = said[said.index(WISH) + 1]
            assert (reader.facets[wish] in true) if true else wish == " nothing"
            assert asked == (said[0] == WISH)
            seen["answers" if asked else "volunteers"] += 1
    assert min(seen[what] for what in ("proposes", "asks", "does not ask", "answers", "volunteers")) >= 10


def test_a_row_could_have_been_written_by_the_agents(lab: Any, split: Split) -> None:
    """What the recommender reads of a made-up game is what it reads in a game."""
    reader = Reader(lab, split)
    task = reader.demonstrator._task(tuple(split.train[0].items[:10]))
    for role in (RECOMMENDER, USER):
        dialogue, row = Dialogue(task, reader.items), Row()
        if role == USER:
            dialogue.ask("genre", "")
        read_context(row, reader.backbone, role, dialogue.observe(role), reader.items)
        unknown = [token for token in row.token_ids if len(reader.backbone.decode([token])) == 1]
        assert {reader.backbone.decode([token]) for token in unknown} <= {"\n", ";"}  # no phrase in pieces
