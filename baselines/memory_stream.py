"""MemoryStream: what happened in training is kept, rated, sometimes summed up, and told by recency, weight and fit.

In the manner of Agent4Rec (A. Zhang et al. 2023, arXiv:2310.10108; LehengTHU/Agent4Rec) and RecAgent (L. Wang et al.
2023, arXiv:2306.02552; RUC-GSAI/YuLan-Rec), without the worlds these simulate: no pages, no chats, no feeling but the
reason a user gives.

- Each turn of a training dialogue is an observation; its text is a template and costs no call. The model rates its
  importance from 1 to 10 (RecAgent).
- Once the ratings since a user's last insight add up to more than three full marks, the model sums up what they rate in
  an insight, and the sum begins anew. Agent4Rec's trigger is a sum above 3; there each entry counts 1.
- Retrieval by `.99 ** (steps since last use) + .15 * importance / 10 + relevance`, as in Agent4Rec's retriever, whose
  weight of importance is .15. Its hours are our steps, of 32 dialogues each; relevance is divided by the best one.
- What scores least by the first two terms is forgotten beyond a bound; RecAgent forgets by age and importance, too.

Ours: training walks through up to three successive items of each of `episodes // 3` users. What happened is told as it
turned out, since the true choice of a training dialogue is known. A held-out user has no stream, so each side is told
the entries of all its training users that score highest: three, at the beginning of a dialogue. After `fit` the stream
is frozen and no use is noted. Ratings and insights dominate the cost, see `System.learning`. Neither source reports
a figure of this game.
"""

from collections.abc import Sequence
from functools import partial
from typing import Self

from agents.models.fields import Field, Number, Text
from agents.models.language_model import LanguageModel, Request
from agents.models.prompts import Pieces
from agents.players.memory import Entry, Memory, Recalled, shortened
from agents.players.text_agent import TextAgent
from agents.players.text_system import (
    BATCH,
    STEPS,
    ask,
    finish_batch,
    open_memory,
    practise,
    situation,
    training_walks,
)
from baselines.system import MemorySystem, Resources
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Dialogue,
    Item,
    Observation,
    Role,
    Split,
    Turn,
    builder,
    history_of,
    question_text,
)

DECAY = 0.01
"""Share of recency that is lost in a step without use; the default of Agent4Rec's retriever."""
IMPORTANCE_WEIGHT = 0.15
"""Agent4Rec's."""
REFLECT_ABOVE = 3.0
"""Full marks; Agent4Rec's."""
TOLD = 3
"""Entries in a prompt; ours."""
TEXT_BYTES = 240
"""Longest entry; ours: three of them take at most 750 of pocket's 2,048 places."""
KEPT = 512
"""Entries of each side; ours."""

SYSTEM = "You look back on what happened to you."
REMEMBERED = "\nYou remember:"
MEMORY = "A memory:"
ASK_RATING = "\nHow much does it tell about taste? Reply with its Importance from 01, hardly, to 10, very much."
MEMORIES = "Memories:"
ASK_INSIGHT = "\nReply with an Insight, one sentence on what they say about taste."
RATING = Field("Importance", Number(1, 10, 1))
INSIGHT = Field("Insight", Text(max_tokens=64))


class MemoryStream(MemorySystem):
    """Both sides are told what they remember of training."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Play training dialogues and remember them.

        Args:
            split: only its training part is played.
            seed: users, candidates, and the chance of replies.
            resources: the language model plays, rates and sums up; `dialogues` bounds those that are played;
                a run that was stopped goes on from `folder`.

        Raises:
            CheckpointError: the file is no store of this run.
        """
        items, now = split.dataset.items, 0
        model, episodes = resources.language_model(split), resources.dialogues
        memory, learning = open_memory(
            "memory_stream",
            split,
            model,
            seed=seed,
            episodes=episodes,
            store=resources.store,
            embedder=resources.embedder,
        )
        for batch, walks in enumerate(training_walks(builder(split), seed=seed, episodes=episodes)):
            now = (batch + 1) * STEPS
            if batch < memory.batches:
                continue
            since: dict[str, list[Entry]] = {}  # of each stream, what no insight has summed up
            for step in range(batch * STEPS, now):
                tasks = [walk[step - batch * STEPS] for walk in walks if len(walk) > step - batch * STEPS]
                agents = {role: _agent(memory, model, role, items, step) for role in ROLES}
                dialogues, cost = practise(tasks, agents[RECOMMENDER], agents[USER], seed=seed, first=step * BATCH)
                played = [dialogue for dialogue in dialogues if dialogue.ending != "failed"]
                memory.use(_used(memory, played, items, step), step)
                found = [one for dialogue in played for role in ROLES for one in observations(dialogue, role)]
                ratings, more = ask(model, [_rating(text, (seed, step, n, 3)) for n, (*_, text) in enumerate(found)])
                learning += cost + more
                for (key, searched, text), reply in zip(found, ratings, strict=True):
                    mark = float(reply.values[0]) if reply.values else 1.0
                    number = memory.write(key, searched, text, step=step, importance=mark)
                    since.setdefault(key, []).append(Entry(number, key, searched, text, mark, step, step))
                ripe = [key for key, entries in since.items() if ripe_for_insight(entries)]
                insights, more = ask(model, [_insight(since[key], (seed, step, n, 4)) for n, key in enumerate(ripe)])
                learning += more
                for key, reply in zip(ripe, insights, strict=True):
                    entries = since.pop(key)
                    text = shortened(reply.values[0], TEXT_BYTES) if reply.values else ""
                    if text:
                        mark = max(entry.importance for entry in entries)
                        memory.write(key, entries[-1].situation, text, step=step, importance=mark)
            for role in ROLES:
                memory.forget(KEPT, key=f"{role} *", value=partial(standing, now=now))
            finish_batch(memory, learning)
        memory.freeze()
        recommender, user = (_agent(memory, model, role, items, now) for role in ROLES)
        return cls(recommender, user, learning, memory=memory)


def _agent(memory: Memory, model: LanguageModel, role: Role, items: Sequence[Item], now: int) -> TextAgent:
    return TextAgent(model, role, items, notes=partial(told, memory, role, items, now))


def _rating(text: str, seed: tuple[int, ...]) -> Request:
    return Request(SYSTEM, ((MEMORY, f" {text}", ASK_RATING),), (RATING,), seed)


def _insight(entries: Sequence[Entry], seed: tuple[int, ...]) -> Request:
    told = [f"\n- {entry.text}" for entry in entries]
    return Request(SYSTEM, ((MEMORIES, *told, ASK_INSIGHT),), (INSIGHT,), seed)


def _used(memory: Memory, dialogues: Sequence[Dialogue], items: Sequence[Item], now: int) -> list[int]:
    """Numbers of the entries that both sides were told at the beginning of dialogues."""
    taken = {
        role: [(*d.task.history, *([] if role == RECOMMENDER else _proposed(d.turns[0]))) for d in dialogues]
        for role in ROLES
    }
    return [
        entry.number
        for role in ROLES
        for indices in taken[role]
        for entry in remembered(memory, role, items, indices, now)
    ]


def _proposed(turn: Turn) -> list[int]:
    return [] if turn.proposal is None else [turn.proposal]


def standing(entry: Entry, *, now: int) -> float:
    """What an entry is worth whatever is asked: its recency and its weight."""
    return float((1.0 - DECAY) ** (now - entry.used) + IMPORTANCE_WEIGHT * entry.importance / 10.0)


def ranked(recalled: Sequence[Recalled], *, now: int) -> list[Entry]:
    """Entries by `standing` plus relevance over the best relevance; of equal ones the later first."""
    best = max((one.relevance for one in recalled), default=0.0) or 1.0
    scores = {one.entry.number: standing(one.entry, now=now) + one.relevance / best for one in recalled}
    return sorted((one.entry for one in recalled), key=lambda entry: (-scores[entry.number], -entry.number))


def ripe_for_insight(entries: Sequence[Entry]) -> bool:
    """Whether observations weigh enough to be summed up."""
    return sum(entry.importance for entry in entries) / 10.0 > REFLECT_ABOVE


def observations(dialogue: Dialogue, role: Role) -> list[tuple[str, str, str]]:
    """Key, situation and text of each turn of a training dialogue, as a side remembers it."""
    task, items, found = dialogue.task, dialogue.items, []
    for turn in dialogue.turns:
        named = "nothing" if turn.proposal is None else items[turn.proposal].title
        end = "Taken next." if turn.proposal == task.target else "Not taken next."
        if turn.question is not None:
            named, end = question_text(turn.question), ""
        answer, verdict = turn.answer, "no answer"
        if answer is not None:
            parts = [f"{ACTIONS[answer.action]} {answer.strength:.2f}"] if answer.action is not None else []
            parts += [f"wants {answer.reveal}"] if answer.reveal is not None else []
            verdict = ", ".join(parts) or verdict
        said = turn.rationale if role == RECOMMENDER or answer is None else answer.message
        text = shortened(f"{named}: {verdict}. {end} {said}", TEXT_BYTES)
        found.append((f"{role} {task.user}", situation(items, (*task.history, *_proposed(turn))), text))
    return found


def remembered(memory: Memory, role: Role, items: Sequence[Item], taken: Sequence[int], now: int) -> list[Entry]:
    """What a side is told in a situation."""
    return ranked(memory.retrieve(situation(items, taken), key=f"{role} *"), now=now)[:TOLD]


def told(memory: Memory, role: Role, items: Sequence[Item], now: int, observation: Observation) -> Pieces:
    """What a side remembers at the beginning of a dialogue: of the history, and of what a user is proposed."""
    if int(observation["turn"]) > 0:
        return ()
    taken = history_of(observation)
    if role == USER and observation["proposals"][0] >= 0:
        taken.append(int(observation["proposals"][0]))
    entries = remembered(memory, role, items, taken, now)
    return (REMEMBERED, *(f"\n- {entry.text}" for entry in entries)) if entries else ()
