"""Prompt pieces: what each side reads before a reply, and the hindsight of a teacher.

A prompt is a tuple of short strings. A backbone encodes each piece by itself, so an ending that is added later never
changes the tokens before it, and frequent pieces (titles, fixed phrases) are encoded once. The wording is our choice,
in the manner of AFL (arXiv:2410.20027); the CoARS paper publishes none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agents.models.replies import DEFAULT_FORMATS, RECOMMENDER_FORMAT, SCORE_RANGE, USER_FORMAT, ReplyFormat
from agents.models.wishes import NO_WISH, facet_text, instructed, question_heard, true_wishes
from coars_env import (
    ACTIONS,
    LIKENESS,
    RECOMMENDER,
    Facet,
    Item,
    Observation,
    Opinion,
    Role,
    Task,
    Turn,
    askable_kinds,
    histories_of,
    history_of,
    instruction_of,
    kinds_of,
    num_users_of,
    of_user,
    opinions_heard,
    question_text,
    reveals_of,
    wish_text,
)

Pieces = tuple[str, ...]

RECOMMENDER_SYSTEM = "You recommend. Propose one candidate at a time and say why it comes next for this user."
USER_SYSTEM = "You are the user who took these items. Answer each recommendation as your taste tells you."
TAKEN = "Taken so far, oldest first:"
CANDIDATES = "\nCandidates:"
ASK_RECOMMENDER = RECOMMENDER_FORMAT.ask()
RECOMMENDED = "Recommended:"
BECAUSE = "\nBecause:"
NOTHING = " nothing from the list"
PEER = tuple(f"\nA peer {words} took it" for words in LIKENESS)
PEER_AFTER = tuple(f"{text} after" for text in PEER)
"""How an opinion begins, by its level; the second where the peer took something before."""
AND = " and"
ASK_USER = USER_FORMAT.ask()
ANSWER = "The user's answer:"
NO_ANSWER = " none that could be read"
ASK_AGAIN = "\nPropose again."
REASON, ITEM = (field.label for field in RECOMMENDER_FORMAT.fields)
ACTION, SCORE, WISH = (field.label for field in USER_FORMAT.fields[1:])
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
"""Default wording, each phrase one token of pocket; see `agents.models.backbones.pocket_wording`."""

# Of games with an instruction -----------------------------------------------------------------------------------------

ASKING_SYSTEM = "You recommend to a user who wants something. Propose one candidate at a time, or ask, and say why."
WANTING_SYSTEM = "You are the user who took these items and wants something. Answer each recommendation and question."
MAY_ASK = "\nYou may ask:"
YOU_WANT, ANYTHING = "\nYou want:", " anything"
ASKED = "The recommender asks:"
WANTS, NO_WANT = "\nWants:", f" {NO_WISH}"
ASK_OR_PROPOSE = "\nPropose again, or ask."
USER_WANTS, TRUE_TO_SAY, TRUE_ANSWER = "\nThe user wants", "\nTrue to say:", "\nThe true answer is"

INSTRUCTED_PHRASES = (
    *(ASKING_SYSTEM, WANTING_SYSTEM, MAY_ASK, YOU_WANT, ANYTHING, ASKED, WANTS, NO_WANT, ASK_OR_PROPOSE, USER_WANTS),
    *(TRUE_TO_SAY, TRUE_ANSWER, WISH, "\nReply with a Reason and one Item of the candidates or a question."),
    *("\nReply with a Reason, an Action, a Score and a Wish.", "\nReply with a Wish."),
)
"""The same of games with an instruction; each is one token of a pocket that was built with kinds of facets."""


def score_texts(action: int) -> Pieces:
    """Return the scores an action may have: " 0.75", " 0.80", ... for a click. See `coars_env.clamp_strength`."""
    return tuple(f" {text}" for text in SCORE_RANGE.quarters[action])


ACTION_TEXTS = tuple(f" {action}" for action in ACTIONS)


Notes = Callable[[Observation], Pieces]
"""What an agent reads of its memory before it answers: pieces that begin with a line break, or nothing. Called in every
turn."""


def no_notes(observation: Observation) -> Pieces:
    """Return nothing: an agent without a memory."""
    return ()


@dataclass(frozen=True)
class Prompt:
    """What one side reads before a reply: `system` once, then `content` as a chat message of the other side."""

    system: str
    content: Pieces
    opening: int = 0
    """How many pieces of the first content the task alone decides: all dialogues of a task begin with them. Notes and
    what follows them do not count."""


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


def prompt(
    role: Role,
    observation: Observation,
    items: Sequence[Item],
    separator: str,
    *,
    reply_format: ReplyFormat | None = None,
    notes: Pieces = (),
) -> Prompt:
    """Return the message that asks `role` for its next reply. Later turns hold only what is new: a dialogue is
    append-only.

    Args:
        role: who is asked.
        observation: what it sees.
        items: the catalogue.
        separator: goes before each title of a list.
        reply_format: fields that the message asks for; None for the default of the role.
        notes: go before the request.
    """
    form = reply_format or DEFAULT_FORMATS[role]
    if role == RECOMMENDER and not form.may_ask:
        observation = without_questions(observation)
    ask = form.ask(observation)
    turn = int(observation["turn"])
    if role == RECOMMENDER:
        system = ASKING_SYSTEM if instructed(observation) else RECOMMENDER_SYSTEM
        content = (*opening_recommender(observation, items, separator), ask)
        opening = len(content)
        if turn > 0:
            content, opening = answers_of_users(observation, turn - 1, items), 0
    else:
        system, opening = WANTING_SYSTEM if instructed(observation) else USER_SYSTEM, 0
        content = (*act_of_recommender(observation, turn, items), ask)
        if turn == 0:
            taken = opening_user(observation, items, separator)
            content, opening = (*taken, *content), len(taken)
        else:
            content = (*answers_of_others(observation, turn - 1, items), *content)
    *before, last = content
    return Prompt(system, (*before, *notes, last), min(opening, len(before)) if notes else opening)


def opening_recommender(observation: Observation, items: Sequence[Item], separator: str) -> Pieces:
    taken = by_user([(TAKEN, *titles(items, history, separator)) for history in histories_of(observation)])
    candidates = [int(i) for i in observation["candidates"]]
    questions = [question(kind) for kind in askable_kinds(observation)]
    asking = (MAY_ASK, *questions) if questions else ()
    return (*taken, CANDIDATES, *titles(items, candidates, separator), *asking)


def opening_user(observation: Observation, items: Sequence[Item], separator: str) -> Pieces:
    group = (f"You are user {int(observation['agent']) - 1}.\n",) if "agent" in observation else ()
    taken = (*group, TAKEN, *titles(items, history_of(observation), separator))
    if not instructed(observation):
        return (*taken, "\n")
    wants = facets(instruction_of(observation), items, kinds_of(observation))
    return (*taken, YOU_WANT, *(wants or (ANYTHING,)), "\n")


def question(kind: str) -> str:
    """A question as it is put inside a sentence, with the blank before it."""
    return " " + question_text(kind)


def facets(named: Sequence[Facet], items: Sequence[Item], kinds: Sequence[str]) -> Pieces:
    """Facets in a row: " Comedy", ";", " 1990s"."""
    return tuple(piece for facet in named for piece in (";", " " + facet_text(facet, items, kinds)))[1:]


def by_user(parts: Sequence[Pieces]) -> Pieces:
    """What belongs to each user of a group, after its number; where one user plays, its part as it is."""
    if len(parts) == 1:
        return parts[0]
    numbered = [(f"\nUser {place}:\n", *part) for place, part in enumerate(parts) if part]
    return tuple(piece for pieces in numbered for piece in pieces)


def answers_of_users(observation: Observation, turn: int, items: Sequence[Item]) -> Pieces:
    """What the users answered in a finished turn, and the request to go on."""
    users = range(num_users_of(observation))
    again = ASK_OR_PROPOSE if askable_kinds(observation) else ASK_AGAIN
    return (*by_user([answer_of_user(of_user(observation, place), turn, items) for place in users]), again)


def answers_of_others(observation: Observation, turn: int, items: Sequence[Item]) -> Pieces:
    """What the other users of a group answered in a finished turn; nothing where one user plays."""
    own, users = int(observation.get("agent", 1)) - 1, range(num_users_of(observation))
    if len(users) == 1:
        return ()
    parts = [answer_of_user(of_user(observation, n), turn, items) if n != own else () for n in users]
    return (*by_user(parts), "\n")


def answer_of_user(observation: Observation, turn: int, items: Sequence[Item]) -> Pieces:
    """What the only user answered in a finished turn."""
    action, reply = int(observation["actions"][turn]), str(observation["replies"][turn])
    reveal = reveals_of(observation)[turn] if instructed(observation) else None
    wish = wanted(reveal, items, kinds_of(observation)) if instructed(observation) else ()
    if reveal is not None:
        reply = reply.replace(wish_text(reveal), "")  # said once
    if observation.get("questions", ("",) * (turn + 1))[turn]:
        return (ANSWER, *wish, *because(reply))
    if action < 0:
        return (ANSWER, NO_ANSWER)
    score = f" {float(observation['strengths'][turn]):.2f}"
    return (ANSWER, ACTION_TEXTS[action], score, *because(reply), *wish)


def wanted(reveal: Facet | None, items: Sequence[Item], kinds: Sequence[str]) -> Pieces:
    """What the user revealed in a turn."""
    return (WANTS, *(facets((reveal,), items, kinds) if reveal else (NO_WANT,)))


def act_of_recommender(observation: Observation, turn: int, items: Sequence[Item]) -> Pieces:
    """A proposal with what peers say of it, or a question."""
    item, rationale = int(observation["proposals"][turn]), str(observation["rationales"][turn])
    asked = question_heard(observation)
    peers = (piece for opinion in opinions_heard(observation, turn) for piece in opinion_of_peer(opinion, items))
    return (*proposed(None if item < 0 else item, asked, items), *because(rationale), *peers)


def proposed(item: int | None, asked: str | None, items: Sequence[Item]) -> Pieces:
    """A proposal or a question: "Recommended: Heat (1995)", "The recommender asks: Which genre?"."""
    if asked:
        return (ASKED, question(asked))
    return (RECOMMENDED, NOTHING if item is None else title(items, item))


def without_opinions(observation: Observation) -> Observation:
    """The same for a user that does not hear what peers say."""
    return {**observation, "opinions": np.full_like(observation["opinions"], -1)}


def without_questions(observation: Observation) -> Observation:
    """The same for a recommender whose format knows no questions."""
    return {**observation, "askable": np.zeros(len(kinds_of(observation)), np.int8)}


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
    ours. No sentence of the reply is quoted: a teacher that can copy the reply would find every token right. Nor is
    what the user revealed.
    """
    return (*verdict(role, task, turns, items), *diagnosis(task, turns[-1].proposal, items))


def verdict(role: Role, task: Task, turns: Sequence[Turn], items: Sequence[Item]) -> Pieces:
    """d_t without its diagnosis."""
    pieces: list[str] = [HINDSIGHT]
    for turn in turns:
        if turn.question is not None:
            pieces.append(question(turn.question))
            continue
        if turn.proposal is None:
            pieces.append(NOTHING)
        else:
            pieces.append(title(items, turn.proposal))
        pieces += [ACTION_TEXTS[answer.action] for answer in turn.answers if answer.action is not None]
        pieces.append(HIT if turn.proposal == task.target else MISS)
    pieces += [TAKEN_NEXT, title(items, task.target), "."]
    if turns[-1].question is None:
        hit = turns[-1].proposal == task.target
        right, wrong = (PROPOSAL_RIGHT, PROPOSAL_WRONG) if role == RECOMMENDER else (ACCEPT_RIGHT, REJECT_RIGHT)
        pieces.append(right if hit else wrong)
    return (*pieces, *truth(role, task, turns, items))


def truth(role: Role, task: Task, turns: Sequence[Turn], items: Sequence[Item]) -> Pieces:
    """What the instruction says of the last of `turns`, in games that have one.

    Of a question the true answer, to both sides; whether it was worth a turn is not said. Of a proposal, to the user
    what it might have revealed with its answer, and to the recommender all that it might have learnt, in a group from
    all users.
    """
    wishes = [member.instruction for member in task.members if member.instruction is not None]
    if not wishes:
        return ()
    wants = tuple(dict.fromkeys(facet for wish in wishes for facet in wish.facets))
    kinds, asked = wishes[0].kinds, turns[-1].question
    if role == RECOMMENDER and asked is None:
        return (USER_WANTS, *(facets(wants, items, kinds) or (ANYTHING,)), ".")
    said = {answer.reveal for turn in turns[:-1] for answer in turn.answers}
    true = facets(true_wishes(wants, said, asked or ""), items, kinds)
    return (TRUE_TO_SAY if asked is None else TRUE_ANSWER, *(true or (NO_WANT,)), ".")


def diagnosis(task: Task, proposed: int | None, items: Sequence[Item]) -> Pieces:
    """What the target has in common with the history, or that of one of a group, and that a wrong proposal lacks it.
    From genres alone.
    """
    target = items[task.target]
    lacking = set(items[proposed].genres) if proposed is not None and proposed != task.target else set[str]()
    best: int | None = None
    shared: tuple[str, ...] = ()
    for index in (index for member in task.members for index in reversed(member.history)):
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
