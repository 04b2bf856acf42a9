"""Rows of text from which pocket learns language, form and the use of hindsight; no row shows a skilful choice."""

from typing import Literal

import numpy as np

from agents.models.backbones.backbone import Backbone
from agents.models.backbones.knowledge import NUM_CANDIDATES, Mark, facets_of, reason_text
from agents.models.fields import titles_and_questions
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ASK_DIAGNOSIS,
    ITEM,
    NO_WANT,
    REASON,
    SCORE,
    WISH,
    Pieces,
    diagnosis,
    hindsight,
    prompt,
    question,
    score_texts,
    title,
    verdict,
)
from agents.models.wishes import facet_text, facet_texts, true_wishes
from coars_env import (
    ACTIONS,
    HISTORY_LENGTH,
    LIKENESS,
    NUM_OPINIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    BackboneError,
    Dialogue,
    Facet,
    Instruction,
    Role,
    Split,
    Task,
)

RowKind = Literal["plain", "guided", "diagnosis"]

ASKING = 0.25
"""Chance that a demonstrated recommender asks, where it may (our choice)."""
SILENT = 0.25
"""Chance that a demonstrated user reveals nothing (our choice)."""


class Demonstrator:
    """Writes demonstrations of the dialogue. Choices are drawn uniformly, and so is what a hindsight calls the item
    taken next: nothing here tells which item goes with which history. What peers say is drawn, too: it has the form of
    the game and means nothing. So are instructions, questions and what a user reveals.
    """

    def __init__(self, split: Split, backbone: Backbone, rng: np.random.Generator, kinds: tuple[str, ...] = ()) -> None:
        """Prepare to write.

        Args:
            split: catalogue, and training sequences for histories.
            backbone: writes the tokens.
            rng: all chance.
            kinds: of facets; with some, the dialogues are of games with an instruction.

        Raises:
            BackboneError: too few items or sequences.
        """
        self._kinds = kinds
        self._train = [sequence for sequence in split.train if len(sequence.items) >= 3]
        self._items = split.dataset.items
        others = len({item.title for item in self._items}) - HISTORY_LENGTH
        self._num_candidates = min(NUM_CANDIDATES, others)
        if not self._train or others < 2:
            raise BackboneError(
                f"Demonstrations are made up from a catalogue and training histories. Expected {HISTORY_LENGTH + 2} "
                f"titles or more and a training sequence of three items, found {len(self._items)} items and "
                f"{len(self._train)} such sequences. Use more data."
            )
        self._backbone, self._rng = backbone, rng

    def row(self, kind: RowKind) -> tuple[list[int], list[Mark]]:
        """One side's view of a short dialogue as token ids, and which of them are learnt.

        Plain: all its replies. Guided: only a last reply, given after the hindsight on that turn and agreeing with it.
        Diagnosis: only what it says to the verdict on that turn, of what speaks for the item taken next.

        In games with an instruction a plain proposal or question is learnt as a choice among what may be chosen: a
        decode loop chooses so, and questions would else be far likelier than titles, which the model only slowly learns
        to take from the list.
        """
        rng, backbone = self._rng, self._backbone
        role: Role = ROLES[int(rng.integers(2))]
        dialogue = Dialogue(self._task(self._history()), self._items)
        turns = int(rng.choice((1, 2, 3, 4), p=(0.55, 0.25, 0.12, 0.08)))
        exchanges: list[tuple[list[int], list[int], Mark]] = []  # what it was told, what it answered, of what it chose
        while dialogue.ending is None and len(dialogue.turns) < turns + (dialogue.speaker == USER):
            action, reply = self._random_act(dialogue, hits=0.0 if kind == "plain" else 0.5)
            if dialogue.speaker != role and rng.random() < 0.3:
                action = {**action, "message": ""}  # a partner need not give a reason
            if dialogue.speaker == role:
                told = prompt(role, dialogue.observe(role), self._items, backbone.list_separator)
                context = backbone.go_on(told.content) if exchanges else backbone.begin(told.system, told.content)
                exchanges.append((context, backbone.encode_all(reply), self._options(dialogue)))
            dialogue.act(action)
        header = backbone.header
        tokens: list[int] = []
        learnt: list[Mark] = []
        for number, (context, reply_tokens, choice) in enumerate(exchanges, start=1):
            last = kind != "plain" and number == len(exchanges)
            if last:
                told_after, reply = self._afterwards(kind, role, dialogue)
                context = context + backbone.encode_all(told_after)
                reply_tokens = backbone.encode_all(reply)
            tokens += context + header + reply_tokens
            learnt += [False] * (len(context) + len(header))
            learnt += [last or kind == "plain"] * len(reply_tokens)
            if kind == "plain":
                learnt[-2] = choice
        return tokens, learnt

    def _options(self, dialogue: Dialogue) -> Mark:
        """What the recommender may choose among, as tokens; the choice stands before the end of its reply."""
        if not self._kinds or dialogue.speaker != RECOMMENDER:
            return True
        options = titles_and_questions(dialogue.observe(RECOMMENDER), self._items)
        return tuple(self._backbone.encode_all([" " + option for option in options]))

    def _task(self, history: tuple[int, ...]) -> Task:
        """A made-up decision: candidates and "target" are drawn from the whole catalogue, whatever the user took, and
        what peers say is drawn whatever the candidate.
        """
        candidates: list[int] = []
        names = {self._items[i].title for i in history}
        while len(candidates) < self._num_candidates:
            item = int(self._rng.integers(len(self._items)))
            if self._items[item].title not in names:
                names.add(self._items[item].title)
                candidates.append(item)
        target = candidates[int(self._rng.integers(len(candidates)))]
        opinions = self._opinions(len(candidates))
        return Task("", 0, history, tuple(candidates), target, opinions=opinions, instruction=self._instruction())

    def _instruction(self) -> Instruction | None:
        """A made-up wish: up to two facets of an item drawn from the whole catalogue, whatever the candidates are."""
        if not self._kinds:
            return None
        owned = facets_of(self._items[int(self._rng.integers(len(self._items)))], self._kinds)
        size = min(len(owned), int(self._rng.integers(1, 3)))
        named = tuple(owned[n] for n in self._rng.permutation(len(owned))[:size].tolist())
        return Instruction(named, self._kinds, noise=1.0)

    def _opinions(self, num_candidates: int) -> tuple[int, ...]:
        """Made-up opinions, in the form of `Task.opinions`: of each candidate none, one, two or three, of any level and
        any items.
        """
        shape = num_candidates, NUM_OPINIONS
        levels = self._rng.integers(len(LIKENESS), size=shape)
        levels[np.arange(NUM_OPINIONS) >= self._rng.integers(NUM_OPINIONS + 1, size=(num_candidates, 1))] = -1
        earlier, later = self._rng.integers(len(self._items), size=(2, *shape))
        known = np.where(levels < 0, 0, self._rng.choice(3, p=(0.05, 0.05, 0.9), size=shape))  # few were its first
        earlier[known < 2], later[known < 1] = -1, -1
        return tuple(np.stack((levels, earlier, later), axis=-1).ravel().tolist())

    def _history(self) -> tuple[int, ...]:
        """A stretch of a training user's sequence."""
        items = self._train[int(self._rng.integers(len(self._train)))].items
        cut = int(self._rng.integers(3, len(items) + 1))
        return items[max(0, cut - HISTORY_LENGTH) : cut]

    def _random_act(self, dialogue: Dialogue, *, hits: float) -> tuple[Action, Pieces]:
        """A random choice of the speaker and how it is worded. Before a hindsight, proposals are what it will call the
        item taken next with probability `hits`, so that both verdicts occur; those proposals are not learnt.
        """
        rng, task = self._rng, dialogue.task
        if dialogue.speaker == RECOMMENDER:
            if dialogue.askable and rng.random() < ASKING:
                kind = dialogue.askable[int(rng.integers(len(dialogue.askable)))]
                reason = reason_text("propose", task.history, self._items, rng)
                return {"ask": kind, "message": "".join(reason).strip()}, self._asking(reason, kind)
            target = task.candidates.index(task.target)
            position = target if rng.random() < hits else int(rng.integers(len(task.candidates)))
            reason = reason_text("propose", task.history, self._items, self._rng)
            reply = self._recommendation(reason, task.candidates[position])
            return {"item": position, "message": "".join(reason).strip()}, reply
        asked = dialogue.turns[-1].question
        wish = self._random_wish(asked)
        if asked is not None:
            return {"action": 0, "strength": 0.0, "message": "", "reveal": wish}, self._wish(wish)
        action = int(rng.integers(len(ACTIONS)))
        reason, score, reply = self._answer(action, task)
        said = {"action": action, "strength": float(score), "message": "".join(reason).strip()}
        return (said, reply) if task.instruction is None else ({**said, "reveal": wish}, (*reply, *self._wish(wish)))

    def _random_wish(self, asked: str | None) -> Facet | None:
        """A facet of the catalogue, after a question of its kind, or none; whatever the instruction says."""
        if not self._kinds or self._rng.random() < SILENT:
            return None
        facets = [facet for facet in facet_texts(self._items, self._kinds) if asked in (None, facet.kind)]
        return facets[int(self._rng.integers(len(facets)))] if facets else None

    def _afterwards(self, kind: RowKind, role: Role, dialogue: Dialogue) -> tuple[Pieces, Pieces]:
        """What is said to a side after its last turn, and what it then replies."""
        task, turns = dialogue.task, dialogue.turns
        if kind == "diagnosis":
            why = diagnosis(task, turns[-1].proposal, self._items)
            return (*verdict(role, task, turns, self._items), ASK_DIAGNOSIS), (*why, "\n")
        return hindsight(role, task, turns, self._items), self._guided_reply(role, dialogue)

    def _guided_reply(self, role: Role, dialogue: Dialogue) -> Pieces:
        """What hindsight calls right: proposing the item taken next, accepting only that, revealing a true facet.

        After a question it is to ask it if the instruction knows an answer, and else to propose.
        """
        task, asked = dialogue.task, dialogue.turns[-1].question
        wanted = task.instruction.facets if task.instruction else ()
        if role == RECOMMENDER:
            reason = reason_text("propose", task.history, self._items, self._rng)
            if asked is not None and any(facet.kind == asked for facet in wanted):
                return self._asking(reason, asked)
            return self._recommendation(reason, task.target)
        said = {answer.reveal for turn in dialogue.turns[:-1] for answer in turn.answers}
        true = true_wishes(wanted, said, asked or "")
        wish = self._wish(true[int(self._rng.integers(len(true)))] if true else None)
        if asked is not None:
            return wish
        hit = dialogue.turns[-1].proposal == task.target
        reply = self._answer(2 * hit + int(self._rng.integers(2)), task)[2]
        return reply if task.instruction is None else (*reply, *wish)

    def _recommendation(self, reason: Pieces, item: int) -> Pieces:
        return (REASON, *reason, "\n", ITEM, title(self._items, item), "\n")

    def _asking(self, reason: Pieces, asked: str) -> Pieces:
        return (REASON, *reason, "\n", ITEM, question(asked), "\n")

    def _wish(self, facet: Facet | None) -> Pieces:
        return (WISH, NO_WANT if facet is None else " " + facet_text(facet, self._items, self._kinds), "\n")

    def _answer(self, action: int, task: Task) -> tuple[Pieces, str, Pieces]:
        reason = reason_text("answer", task.history, self._items, self._rng)
        scores = score_texts(action)
        score = scores[int(self._rng.integers(len(scores)))]
        return reason, score, (REASON, *reason, "\n", ACTION, ACTION_TEXTS[action], "\n", SCORE, score, "\n")
