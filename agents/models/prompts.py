"""Prompt pieces and parsed replies: what each side is told, what it may answer, and how an answer is read.

A prompt is a tuple of short strings. A backbone encodes each piece by itself, so an ending that is added later never
changes the tokens before it, and frequent pieces (titles, fixed phrases) are encoded once. The wording is ours, in the
manner of AFL (arXiv:2410.20027); the CoARS paper publishes none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env import (
    ACTIONS,
    LIKENESS,
    RECOMMENDER,
    Item,
    Observation,
    Opinion,
    Role,
    Task,
    Turn,
    history_of,
    opinions_heard,
)

Pieces = tuple[str, ...]

RECOMMENDER_SYSTEM = "You recommend. Propose one candidate at a time and say why it comes next for this user."
USER_SYSTEM = "You are the user who took these items. Answer each recommendation as your taste tells you."
TAKEN = "Taken so far, oldest first:"
CANDIDATES = "\nCandidates:"
ASK_RECOMMENDER = "\nReply with a Reason and one Item of the candidates."
RECOMMENDED = "Recommended:"
BECAUSE = "\nBecause:"
NOTHING = " nothing from the list"
PEER = tuple(f"\nA peer {words} took it" for words in LIKENESS)
PEER_AFTER = tuple(f"{text} after" for text in PEER)
"""How an opinion begins, by its level; the second where the peer took something before."""
AND = " and"
ASK_USER = "\nReply with a Reason, an Action and a Score."
ANSWER = "The user's answer:"
NO_ANSWER = " none that could be read"
ASK_AGAIN = "\nPropose again."
REASON, ITEM, ACTION, SCORE = "Reason:", "Item:", "Action:", "Score:"
HINDSIGHT = "\nHindsight."
HIT, MISS = " hit.", " miss."
TAKEN_NEXT = "\nThe item taken next was"
PROPOSAL_RIGHT, PROPOSAL_WRONG = "\nThe proposal was right.", "\nThe proposal was wrong."
ACCEPT_RIGHT, REJECT_RIGHT = "\nAccepting is right.", "\nRejecting is right."
SHARES, WITH, DOES_NOT = " shares", " with", " does not."
ASK_DIAGNOSIS = "\nSay in one sentence what speaks for the item taken next."

PHRASES = (
    *(RECOMMENDER_SYSTEM, USER_SYSTEM, TAKEN, CANDIDATES, ASK_RECOMMENDER, RECOMMENDED, BECAUSE, NOTHING, ASK_USER),
    *(ANSWER, NO_ANSWER, ASK_AGAIN, REASON, ITEM, ACTION, SCORE, HINDSIGHT, HIT, MISS, TAKEN_NEXT, PROPOSAL_RIGHT),
    *(PROPOSAL_WRONG, ACCEPT_RIGHT, REJECT_RIGHT, SHARES, WITH, DOES_NOT, ASK_DIAGNOSIS, *PEER, *PEER_AFTER, AND),
)
"""Fixed wording. The pocket tokenizer gives each one token."""

SCORE_STEP = 0.05
"""A score is written with two decimals in steps of .05; ours."""


def score_texts(action: int) -> Pieces:
    """The scores an action may carry: " 0.75", " 0.80", ... for a click. See `coars_env.clamp_strength`."""
    quarter = round(0.25 / SCORE_STEP)
    steps = range(quarter * action, quarter * (action + 1) + (action == len(ACTIONS) - 1))
    return tuple(f" {SCORE_STEP * step:.2f}" for step in steps)


ACTION_TEXTS = tuple(f" {action}" for action in ACTIONS)


@dataclass(frozen=True)
class Prompt:
    """What one side is told before a reply: `system` once, then `content` as a chat message of the other side."""

    system: str
    content: Pieces
    opening: int = 0
    """How many pieces of the first content the task alone decides: all dialogues of a task begin with them."""


def title(items: Sequence[Item], index: int) -> str:
    """A title as it stands inside a sentence, with the blank before it."""
    return " " + items[index].title


def titles(items: Sequence[Item], indices: Sequence[int], separator: str) -> Pieces:
    """A list of titles. `separator` goes before each; it is empty where every title is one token."""
    pieces: list[str] = []
    for index in indices:
        if separator:
            pieces.append(separator)
        pieces.append(title(items, index))
    return tuple(pieces)


def prompt(role: Role, observation: Observation, items: Sequence[Item], separator: str) -> Prompt:
    """The message that asks `role` for its next reply. Later turns hold only what is new: a dialogue is append-only."""
    turn = int(observation["turn"])
    if role == RECOMMENDER:
        if turn == 0:
            opening = opening_recommender(observation, items, separator)
            return Prompt(RECOMMENDER_SYSTEM, opening, len(opening))
        return Prompt(RECOMMENDER_SYSTEM, answer_of_user(observation, turn - 1))
    proposal = proposal_of_recommender(observation, turn, items)
    if turn == 0:
        history = history_of(observation)
        opening = (TAKEN, *titles(items, history, separator), "\n")
        return Prompt(USER_SYSTEM, (*opening, *proposal), len(opening))
    return Prompt(USER_SYSTEM, proposal)


def opening_recommender(observation: Observation, items: Sequence[Item], separator: str) -> Pieces:
    history = history_of(observation)
    candidates = [int(i) for i in observation["candidates"]]
    listed = titles(items, candidates, separator)
    return (TAKEN, *titles(items, history, separator), CANDIDATES, *listed, ASK_RECOMMENDER)


def answer_of_user(observation: Observation, turn: int) -> Pieces:
    action, reply = int(observation["actions"][turn]), str(observation["replies"][turn])
    if action < 0:
        return (ANSWER, NO_ANSWER, ASK_AGAIN)
    score = f" {float(observation['strengths'][turn]):.2f}"
    return (ANSWER, ACTION_TEXTS[action], score, *because(reply), ASK_AGAIN)


def proposal_of_recommender(observation: Observation, turn: int, items: Sequence[Item]) -> Pieces:
    item, rationale = int(observation["proposals"][turn]), str(observation["rationales"][turn])
    named = NOTHING if item < 0 else title(items, item)
    peers = (piece for opinion in opinions_heard(observation, turn) for piece in opinion_of_peer(opinion, items))
    return (RECOMMENDED, named, *because(rationale), *peers, ASK_USER)


def without_opinions(observation: Observation) -> Observation:
    """The same for a user that does not hear what peers say."""
    return {**observation, "opinions": np.full_like(observation["opinions"], -1)}


def opinion_of_peer(opinion: Opinion, items: Sequence[Item]) -> Pieces:
    """p_t, one peer of it: "A peer much like you took it after Heat (1995) and Fargo (1996)"."""
    if not opinion.items:
        return (PEER[opinion.level],)
    earlier = (piece for item in opinion.items for piece in (AND, title(items, item)))
    return (PEER_AFTER[opinion.level], *list(earlier)[1:])


def because(text: str) -> Pieces:
    """The other side's reason, if it gave one."""
    text = text.strip()
    return (BECAUSE, " " + text) if text else ()


# --- hindsight --------------------------------------------------------------------------------------------------------


def hindsight(role: Role, task: Task, turns: Sequence[Turn], items: Sequence[Item]) -> Pieces:
    """d_t for the last of `turns`: what happened so far, the item truly taken, the verdict and a short diagnosis.

    The paper rewrites the trajectory with the ground truth and a diagnosis; its text is unpublished, this template is
    ours. No sentence of the reply is quoted: a teacher that can copy the reply would find every token right.
    """
    return (*verdict(role, task, turns, items), *diagnosis(task, turns[-1].proposal, items))


def verdict(role: Role, task: Task, turns: Sequence[Turn], items: Sequence[Item]) -> Pieces:
    """d_t without its diagnosis."""
    pieces: list[str] = [HINDSIGHT]
    for turn in turns:
        if turn.proposal is None:
            pieces.append(NOTHING)
        else:
            pieces.append(title(items, turn.proposal))
        pieces += [ACTION_TEXTS[answer.action] for answer in turn.answers if answer.action is not None]
        pieces.append(HIT if turn.proposal == task.target else MISS)
    hit = turns[-1].proposal == task.target
    pieces += [TAKEN_NEXT, title(items, task.target), "."]
    if role == RECOMMENDER:
        pieces.append(PROPOSAL_RIGHT if hit else PROPOSAL_WRONG)
    else:
        pieces.append(ACCEPT_RIGHT if hit else REJECT_RIGHT)
    return tuple(pieces)


def diagnosis(task: Task, proposed: int | None, items: Sequence[Item]) -> Pieces:
    """What the target has in common with the history, and that a wrong proposal lacks it. From genres alone."""
    target = items[task.target]
    lacking = set(items[proposed].genres) if proposed is not None and proposed != task.target else set[str]()
    best: int | None = None
    shared: tuple[str, ...] = ()
    for index in reversed(task.history):
        common = tuple(g for g in target.genres if g in items[index].genres and g not in lacking)
        if len(common) > len(shared):
            best, shared = index, common
    if best is None:
        return ()
    genres = tuple(" " + genre for genre in shared[:2])
    pieces = (title(items, task.target), SHARES, *genres, WITH, title(items, best), ".")
    if proposed is None or proposed == task.target:
        return pieces
    return (*pieces[:-1], ";", title(items, proposed), DOES_NOT)


# --- replies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParsedReply:
    """A reply that could be read, or the reason why not: exactly one of `fields` and `error` is set."""

    fields: dict[str, str] | None
    error: str | None


def parse_fields(text: str, labels: Sequence[str]) -> ParsedReply:
    """Read labelled lines, each label once and in order. A reply that fits in two ways is refused, never guessed."""
    for label in labels:
        if (found := text.count(label)) != 1:
            return ParsedReply(None, f"expected {label!r} once, found it {found} times")
    places = [text.index(label) for label in labels]
    if places != sorted(places):
        return ParsedReply(None, f"expected the labels in the order {list(labels)}")
    ends = [*places[1:], len(text)]
    values = {
        label: text[start + len(label) : end].strip() for label, start, end in zip(labels, places, ends, strict=True)
    }
    return ParsedReply(values, None)


def parse_recommendation(text: str, candidates: Sequence[str]) -> dict[str, object]:
    """An action of the recommender from "Reason: ... Item: <title>". The title must be one candidate's, letter for
    letter; otherwise `item` is len(candidates) and `error` says why.
    """
    nothing = len(candidates)
    reply = parse_fields(text, (REASON, ITEM))
    if reply.fields is None:
        return {"item": nothing, "message": text, "error": reply.error}
    named = reply.fields[ITEM]
    places = [n for n, candidate in enumerate(candidates) if candidate.strip() == named]
    if len(places) != 1:
        error = f"expected the title of one candidate, found {named[:80]!r}, which fits {len(places)}"
        return {"item": nothing, "message": reply.fields[REASON], "error": error}
    return {"item": places[0], "message": reply.fields[REASON]}


def parse_answer(text: str) -> dict[str, object]:
    """An action of the user from "Reason: ... Action: <word> Score: <number>"; `action` is 4 if it cannot be read."""
    reply = parse_fields(text, (REASON, ACTION, SCORE))
    unread: dict[str, object] = {"action": len(ACTIONS), "strength": 0.0}
    if reply.fields is None:
        return {**unread, "message": text, "error": reply.error}
    word, number, message = reply.fields[ACTION].lower(), reply.fields[SCORE], reply.fields[REASON]
    if word not in ACTIONS:
        return {**unread, "message": message, "error": f"expected one of {ACTIONS} as action, found {word[:80]!r}"}
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", number) or not 0 <= float(number) <= 1:
        return {**unread, "message": message, "error": f"expected a number in [0, 1] as score, found {number[:80]!r}"}
    return {"action": ACTIONS.index(word), "strength": float(number), "message": message}
