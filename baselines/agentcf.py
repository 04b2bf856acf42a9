"""AgentCF: users and items are agents with a description each, rewritten after the choices of training; nothing else.

J. Zhang et al. 2023, arXiv:2310.09233; RUCAIBox/AgentCF. From its code: the user chooses between the item truly taken
and one drawn by popularity; after a wrong choice the model rewrites the user's description, then those of both items by
the new one of the user, and the choice is asked for again, two rounds at most; after a right one an update confirms.
Descriptions have at most 180 words (users) and 50 (items), asked for in the prompt. At test time candidates are ranked
by the user's description alone (`basic`), with the history (`sequential`), or with a past description besides (`rag`).

Ours:

- Training walks through up to three successive items of each of `episodes // 3` users, 32 users side by side: those of
  one step read the memory as it was before it, and where two rewrite one item the later stands.
- A description is also cut to a number of bytes, and at most as many of candidates are told as fit into a bound.
- An agent does not know who the user is: it is told the description of the training user whose items are most like the
  history, none if no word is shared. Of items, only those met in training have one.
- Both sides are told: the recommender of user and candidates, the user of itself and of what is proposed.
- One store for each run. Training order matters, since descriptions of items are everybody's.

Its figures are not in our sources. Negatives by popularity teach to avoid what is popular, so lists of uniform
candidates look easier than its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

from agents.models.fields import Field, OneOf, Text
from agents.models.language_model import LanguageModel, Request
from agents.models.prompts import (
    ASK_RECOMMENDER,
    TAKEN_NEXT,
    Pieces,
    title,
)
from agents.models.replies import REASON_FIELD, written
from agents.models.usage import Usage
from agents.players.memory import Memory, shortened
from agents.players.text_agent import TextAgent
from agents.players.text_system import (
    STEPS,
    ask,
    finish_batch,
    open_memory,
    situation,
    training_walks,
)
from baselines.system import MemorySystem, Resources
from coars_env import RECOMMENDER, ROLES, Item, Observation, Role, Split, Task, builder, history_of

Mode = Literal["basic", "sequential", "rag"]
ROUNDS = 2
"""Choices between one pair at most; the code's."""
USER_BYTES, ITEM_BYTES, LISTED_BYTES = 480, 120, 600
"""Longest description of a user, of an item, and of all candidates together; ours: with the rest of the first message
they fill at most 1,700 of pocket's 2,048 places."""
KEPT = 3
"""Descriptions of each user and item, the latest and those before it; ours."""

SYSTEM = "You keep short descriptions of users and of items, and say which item suits a user."
ABOUT_USER, ABOUT_ITEMS, ABOUT_ITEM = "\nAbout the user:", "\nAbout candidates:", "\nAbout it:"
BEFORE = "\nAbout the user, earlier:"
THE_ITEM = "The item"
TWO = "\nOne of these was taken next:"
NOBODY, NOTHING_YET = " Nothing is known yet.", " nothing is known yet"
RIGHT = "\nThe choice was right. Reply with a Description of the user that it confirms, at most 180 words."
WRONG = "\nThe choice was wrong. Reply with a Description of the user by which it is right, at most 180 words."
WANTED = "\nThis user took it next. Reply with a Description of the item and whom it suits, at most 50 words."
NOT_WANTED = "\nThis user did not take it. Reply with a Description of the item and whom it suits, at most 50 words."
USER_FIELD, ITEM_FIELD = (Field("Description", Text(max_tokens=length)) for length in (96, 48))


class AgentCF(MemorySystem):
    """Both sides are told descriptions that training has written, and the history."""

    mode: ClassVar[Mode] = "sequential"
    """What is told of the user at test time."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Walk through training interactions and rewrite descriptions.

        Args:
            split: only its training part is read.
            seed: users, negatives, and the chance of replies.
            resources: the language model plays, chooses and rewrites; `dialogues` bounds the training interactions;
                a run that was stopped goes on from `folder`.

        Raises:
            CheckpointError: the file is no store of this run.
        """
        items = split.dataset.items
        model, episodes = resources.language_model(split), resources.dialogues
        memory, learning = open_memory(
            "agentcf",
            split,
            model,
            seed=seed,
            episodes=episodes,
            store=resources.store,
            embedder=resources.embedder,
        )
        pairs = builder(split, "popularity", num_candidates=2, peers=lambda split: None)
        learner = _Learner(memory, model, items, seed)
        for batch, walks in enumerate(training_walks(pairs, seed=seed, episodes=episodes)):
            if batch < memory.batches:
                continue
            for step in range(STEPS):
                tasks = [walk[step] for walk in walks if len(walk) > step]
                learning += learner.step(tasks, batch * STEPS + step)
            finish_batch(memory, learning)
        memory.freeze()
        shown = cls.mode != "basic"
        recommender, user = (
            TextAgent(model, role, items, notes=partial(told, memory, role, items, cls.mode), history=shown)
            for role in ROLES
        )
        return cls(recommender, user, learning, memory=memory)


class AgentCFBasic(AgentCF):
    """By the description alone: the history is hidden."""

    mode = "basic"


class AgentCFRag(AgentCF):
    """With the past description that fits best, besides."""

    mode = "rag"


@dataclass
class _Learner:
    """Choices between two items and what is written after them."""

    memory: Memory
    model: LanguageModel
    items: Sequence[Item]
    seed: int

    def step(self, tasks: Sequence[Task], number: int) -> Usage:
        """All rounds of one interaction of each of some users."""
        cost, pending = Usage(), list(enumerate(tasks))
        for round_ in range(ROUNDS):
            requests = [self._choice(task, (number, place, round_)) for place, task in pending]
            replies, more = ask(self.model, requests)
            cost += more
            right: dict[int, bool] = {}
            rewrites: list[Request] = []
            for (place, task), request, reply in zip(pending, requests, replies, strict=True):
                wanted = self.items[task.target].title
                right[place] = reply.values is not None and reply.values[1] == wanted
                said: Pieces = (reply.text,) if reply.values is None else written(request.fields, reply.values)
                verdict = (TAKEN_NEXT, title(self.items, task.target), ".", RIGHT if right[place] else WRONG)
                messages = (*request.messages, said, verdict)
                rewrites.append(Request(SYSTEM, messages, (USER_FIELD,), (*request.seed[:-1], 1)))
            replies, more = ask(self.model, rewrites)
            cost += more
            for (_, task), reply in zip(pending, replies, strict=True):
                taken = situation(self.items, (*task.history, task.target))
                self._describe(f"user {task.user}", taken, reply.values, USER_BYTES, number)
            both = [(place, task, item) for place, task in pending for item in task.candidates]
            replies, more = ask(self.model, [self._item(task, item, (number, p, round_)) for p, task, item in both])
            cost += more
            for (_, _, item), reply in zip(both, replies, strict=True):
                self._describe(f"item {item}", self.items[item].title, reply.values, ITEM_BYTES, number)
            pending = [(place, task) for place, task in pending if not right[place]]
        return cost

    def _choice(self, task: Task, place: tuple[int, int, int]) -> Request:
        listed = [
            piece
            for item in task.candidates
            for piece in ("\n-", title(self.items, item), ":", self._said(f"item {item}", self._first_words(item)))
        ]
        about = self._said(f"user {task.user}", NOBODY)
        message = (ABOUT_USER.lstrip(), about, TWO, *listed, ASK_RECOMMENDER)
        choice = Field("Item", OneOf(tuple(self.items[item].title for item in task.candidates)))
        return Request(SYSTEM, (message,), (REASON_FIELD, choice), (self.seed, *place, 0))

    def _item(self, task: Task, item: int, place: tuple[int, int, int]) -> Request:
        about = self._said(f"item {item}", self._first_words(item))
        user = self._said(f"user {task.user}", NOBODY)
        told = (THE_ITEM, title(self.items, item), ":", about, ABOUT_USER, user)
        asked = WANTED if item == task.target else NOT_WANTED
        return Request(SYSTEM, ((*told, asked),), (ITEM_FIELD,), (self.seed, *place, 2 + (item == task.target)))

    def _first_words(self, item: int) -> str:
        """What an item says of itself before anything was written; its genres."""
        genres = self.items[item].genres
        return " " + shortened(", ".join(genres), ITEM_BYTES) if genres else NOTHING_YET

    def _said(self, key: str, otherwise: str) -> str:
        entry = self.memory.latest(key)
        return otherwise if entry is None else f" {entry.text}"

    def _describe(self, key: str, searched: str, values: tuple[str, ...] | None, most: int, step: int) -> None:
        text = shortened(values[0], most) if values else ""
        if text:
            self.memory.write(key, searched, text, step=step)
            self.memory.forget(KEPT, key=key)


def told(memory: Memory, role: Role, items: Sequence[Item], mode: Mode, observation: Observation) -> Pieces:
    """Descriptions that a side reads: of the user and of candidates at the beginning, of what is proposed each time."""
    pieces: list[str] = []
    if int(observation["turn"]) == 0:
        pieces += about_user(memory, items, mode, observation)
        if role == RECOMMENDER:
            pieces += about_candidates(memory, items, [int(item) for item in observation["candidates"]])
    if role != RECOMMENDER:
        entry = memory.latest(f"item {int(observation['proposals'][int(observation['turn'])])}")
        pieces += [ABOUT_ITEM, f" {entry.text}"] if entry is not None else []
    return tuple(pieces)


def about_user(memory: Memory, items: Sequence[Item], mode: Mode, observation: Observation) -> Pieces:
    """The description of the training user most like the history, in mode `rag` also the past one that fits best."""
    nearest = memory.retrieve(situation(items, history_of(observation)), key="user *", limit=1)
    if not nearest or nearest[0].relevance <= 0:
        return ()
    key = nearest[0].entry.key
    now = memory.latest(key)
    assert now is not None
    pieces: Pieces = (ABOUT_USER, f" {now.text}")
    if mode == "rag":  # what is asked about: the candidates, or what is proposed to a user, which does not see them
        listed = [int(item) for item in (*observation["candidates"], *observation["proposals"]) if item >= 0]
        past = [one for one in memory.retrieve(situation(items, listed), key=key) if one.entry.number != now.number]
        pieces += (BEFORE, f" {past[0].entry.text}") if past else ()
    return pieces


def about_candidates(memory: Memory, items: Sequence[Item], candidates: Sequence[int]) -> Pieces:
    """Those that have a description, in the order of the list, as long as there is room."""
    pieces: list[str] = []
    room = LISTED_BYTES
    for item in candidates:
        entry = memory.latest(f"item {item}")
        if entry is not None and len(entry.text.encode()) <= room:
            room -= len(entry.text.encode())
            pieces += ["\n-", title(items, item), ":", f" {entry.text}"]
    return (ABOUT_ITEMS, *pieces) if pieces else ()
