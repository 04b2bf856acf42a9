"""Rows of text from which pocket learns language, form and the use of hindsight; no row shows a skilful choice."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from agents.models.backbones.backbone import Backbone
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ASK_DIAGNOSIS,
    BECAUSE,
    CANDIDATES,
    ITEM,
    REASON,
    RECOMMENDED,
    SCORE,
    TAKEN,
    Pieces,
    diagnosis,
    hindsight,
    opinion_of_peer,
    prompt,
    score_texts,
    title,
    titles,
    verdict,
)
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
    Item,
    Opinion,
    Role,
    Split,
    Task,
    UserSequence,
    VectorPeers,
)

NUM_CANDIDATES = 20

RowKind = Literal["plain", "guided", "diagnosis"]

REASONS: dict[str, tuple[tuple[str, str], ...]] = {
    "propose": ((" It goes well with", "."), (" You took", ", and this is of its kind."), (" Next to", " it fits.")),
    "answer": ((" It makes me think of", "."), (" I compare it with", "."), (" The last one like it was", ".")),
}
"""What a demonstration says, around a title of the history. Reasons do not give the choice away: it is made after."""


def fact(item: Item) -> Pieces:
    """What the catalogue says of an item."""
    year = f" {item.year}" if item.year else ""
    return (" " + item.title, ":", *(" " + genre for genre in item.genres), year, ".")


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
"""Share of the statements of what came next with a list of items before it; ours."""


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
    reason = _reason("propose", history, items, rng)
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
            pieces += [BECAUSE, *_reason("propose", history, items, rng)]
        if rng.random() < 0.5:
            pieces += [piece for opinion in opinions[item] for piece in opinion_of_peer(opinion, items)]
        pieces.append("\n")
        if rng.random() < 0.5:
            pieces += [REASON, *_reason("answer", history, items, rng)]
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


def _reason(kind: str, history: Sequence[int], items: Sequence[Item], rng: np.random.Generator) -> Pieces:
    before, after = REASONS[kind][int(rng.integers(len(REASONS[kind])))]
    return (before, title(items, history[int(rng.integers(len(history)))]), after)


class Demonstrator:
    """Writes demonstrations of the dialogue. Choices are drawn uniformly, and so is what a hindsight calls the item
    taken next: nothing here tells which item goes with which history. What peers say is drawn, too: it has the form of
    the game and means nothing.
    """

    def __init__(self, split: Split, backbone: Backbone, rng: np.random.Generator) -> None:
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

    def row(self, kind: RowKind) -> tuple[list[int], list[bool]]:
        """One side's view of a short dialogue as token ids, and which of them are learnt.

        Plain: all its replies. Guided: only a last reply, given after the hindsight on that turn and agreeing with it.
        Diagnosis: only what it says to the verdict on that turn, of what speaks for the item taken next.
        """
        rng, backbone = self._rng, self._backbone
        role: Role = ROLES[int(rng.integers(2))]
        dialogue = Dialogue(self._task(self._history()), self._items)
        turns = int(rng.choice((1, 2, 3, 4), p=(0.55, 0.25, 0.12, 0.08)))
        exchanges: list[tuple[list[int], list[int]]] = []  # what it was told, what it answered
        while dialogue.ending is None and len(dialogue.turns) < turns + (dialogue.speaker == USER):
            action, reply = self._random_act(dialogue, hits=0.0 if kind == "plain" else 0.5)
            if dialogue.speaker != role and rng.random() < 0.3:
                action = {**action, "message": ""}  # a partner need not give a reason
            if dialogue.speaker == role:
                told = prompt(role, dialogue.observe(role), self._items, backbone.list_separator)
                context = backbone.go_on(told.content) if exchanges else backbone.begin(told.system, told.content)
                exchanges.append((context, backbone.encode_all(reply)))
            dialogue.act(action)
        header = backbone.header
        tokens: list[int] = []
        learnt: list[bool] = []
        for number, (context, reply_tokens) in enumerate(exchanges, start=1):
            last = kind != "plain" and number == len(exchanges)
            if last:
                told_after, reply = self._afterwards(kind, role, dialogue)
                context = context + backbone.encode_all(told_after)
                reply_tokens = backbone.encode_all(reply)
            tokens += context + header + reply_tokens
            learnt += [False] * (len(context) + len(header))
            learnt += [last or kind == "plain"] * len(reply_tokens)
        return tokens, learnt

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
        return Task("", 0, history, tuple(candidates), target, opinions=self._opinions(len(candidates)))

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
            target = task.candidates.index(task.target)
            position = target if rng.random() < hits else int(rng.integers(len(task.candidates)))
            reason = _reason("propose", task.history, self._items, self._rng)
            reply = self._recommendation(reason, task.candidates[position])
            return {"item": position, "message": "".join(reason).strip()}, reply
        action = int(rng.integers(len(ACTIONS)))
        reason, score, reply = self._answer(action, task)
        return {"action": action, "strength": float(score), "message": "".join(reason).strip()}, reply

    def _afterwards(self, kind: RowKind, role: Role, dialogue: Dialogue) -> tuple[Pieces, Pieces]:
        """What is said to a side after its last turn, and what it then replies."""
        task, turns = dialogue.task, dialogue.turns
        if kind == "diagnosis":
            why = diagnosis(task, turns[-1].proposal, self._items)
            return (*verdict(role, task, turns, self._items), ASK_DIAGNOSIS), (*why, "\n")
        return hindsight(role, task, turns, self._items), self._guided_reply(role, dialogue)

    def _guided_reply(self, role: Role, dialogue: Dialogue) -> Pieces:
        """What hindsight calls right: proposing the item taken next, accepting exactly that one."""
        task = dialogue.task
        if role == RECOMMENDER:
            return self._recommendation(_reason("propose", task.history, self._items, self._rng), task.target)
        hit = dialogue.turns[-1].proposal == task.target
        return self._answer(2 * hit + int(self._rng.integers(2)), task)[2]

    def _recommendation(self, reason: Pieces, item: int) -> Pieces:
        return (REASON, *reason, "\n", ITEM, title(self._items, item), "\n")

    def _answer(self, action: int, task: Task) -> tuple[Pieces, str, Pieces]:
        reason = _reason("answer", task.history, self._items, self._rng)
        scores = score_texts(action)
        score = scores[int(self._rng.integers(len(scores)))]
        return reason, score, (REASON, *reason, "\n", ACTION, ACTION_TEXTS[action], "\n", SCORE, score, "\n")
