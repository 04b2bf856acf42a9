"""Reflexion: after a failed training dialogue a plan is written, and told in dialogues like it; weights never change.

N. Shinn et al. 2023, arXiv:2303.11366; noahshinn/reflexion. From its code: one plan for a failed trial, written by the
same model from the whole log and the plans it was told; at most three plans in a prompt. It knows no recommendation, so
the rest is ours:

- A task is a training user, and its trials are up to three successive prefixes of the user's sequence; they end with
  the first in which both sides succeeded. The recommender succeeds if the last item is the target, the user if it
  clicked no miss and neither disliked nor skipped the hit.
- The writer is told that it failed and not what was taken next; the target's title is taken out of the plan.
- An agent does not know who the user is. It is told the plans of its side whose histories are most like the present;
  the latest where none is.
- No worked examples stand in the prompt of reflection: the code's are of another game.

Plans are frozen after `fit`: a held-out dialogue is one trial. No figures of recommendation were published; a study of
WebShop (RetroAgent's, arXiv:2603.08561) lists a success of 28.8 for Reflexion.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Self

from agents.models.fields import Field, Text
from agents.models.language_model import Request
from agents.models.prompts import RECOMMENDER_SYSTEM, USER_SYSTEM, Pieces, answer_of_user
from agents.players.memory import Memory, shortened
from agents.players.text_agent import TextAgent
from agents.players.text_system import (
    BATCH,
    ask,
    finish_batch,
    open_memory,
    practise,
    side_of,
    situation,
    training_walks,
)
from baselines.system import MemorySystem, Resources
from coars_env import RECOMMENDER, ROLES, USER, Dialogue, Item, Observation, Role, Split, builder, history_of

TRIALS = 3
"""K; ours."""
TOLD = 3
"""Plans in a prompt; the code's."""
PLAN_BYTES = 240
"""Longest plan; ours: three of them take at most 750 of pocket's 2,048 places."""
KEPT = 256
"""Plans of each side, the oldest forgotten first; ours."""

PLAN = Field("Lesson", Text(max_tokens=64))
LESSONS = "\nLessons of earlier dialogues:"
FAILED = "\nThis was not the item taken next."
ACCEPTED, REJECTED = "\nA click was for an item that was not taken next.", "\nThe item taken next was rejected."
ASK_PLAN = "\nThe dialogue has failed. Reply with a Lesson, one sentence on what to do otherwise. Name no item."
SYSTEMS = {RECOMMENDER: RECOMMENDER_SYSTEM, USER: USER_SYSTEM}


class Reflexion(MemorySystem):
    """Both sides are told plans of failed training dialogues."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Play training dialogues and write plans.

        Args:
            split: only its training part is played.
            seed: users, candidates, and the chance of replies.
            resources: the language model plays, and writes the plans; `dialogues` bounds those that are played;
                a run that was stopped goes on from `folder`.

        Raises:
            CheckpointError: the file is no store of this run.
        """
        items = split.dataset.items
        model, episodes = resources.language_model(split), resources.dialogues
        memory, learning = open_memory(
            "reflexion",
            split,
            model,
            seed=seed,
            episodes=episodes,
            store=resources.store,
            embedder=resources.embedder,
        )
        agents = {role: TextAgent(model, role, items, notes=partial(told, memory, role, items)) for role in ROLES}
        batches = training_walks(builder(split), seed=seed, episodes=episodes, steps=TRIALS)
        for batch, walks in enumerate(batches):
            if batch < memory.batches:
                continue
            for trial in range(TRIALS):
                walks = [walk for walk in walks if len(walk) > trial]
                first, tasks = (batch * TRIALS + trial) * BATCH, [walk[trial] for walk in walks]
                dialogues, cost = practise(tasks, agents[RECOMMENDER], agents[USER], seed=seed, first=first)
                lost = [(n, role) for n, one in enumerate(dialogues) for role in ROLES if failed(one, role)]
                requests = [
                    Request(
                        SYSTEMS[role],
                        (*agents[role].conversation(n), reflection(dialogues[n], role)),
                        (PLAN,),
                        (seed, side_of(role), first + n, 2),
                    )
                    for n, role in lost
                ]
                replies, more = ask(model, requests)
                learning += cost + more
                for (n, role), reply in zip(lost, replies, strict=True):
                    task = dialogues[n].task
                    plan = shortened(without(items[task.target].title, (reply.values or ("",))[0]), PLAN_BYTES)
                    if plan:
                        memory.write(role, situation(items, task.history), plan, step=batch * TRIALS + trial)
                walks = [walks[n] for n in sorted({n for n, _ in lost})]
            for role in ROLES:
                memory.forget(KEPT, key=role)
            finish_batch(memory, learning)
        memory.freeze()
        recommender, user = (TextAgent(model, role, items, notes=agents[role].notes) for role in ROLES)
        return cls(recommender, user, learning, memory=memory)


def told(memory: Memory, role: Role, items: Sequence[Item], observation: Observation) -> Pieces:
    """The plans of a side that fit a history, at the beginning of a dialogue."""
    if int(observation["turn"]) > 0:
        return ()
    found = memory.retrieve(situation(items, history_of(observation)), key=role, limit=TOLD)
    return (LESSONS, *(f"\n- {one.entry.text}" for one in found)) if found else ()


def failed(dialogue: Dialogue, role: Role) -> bool:
    """Whether a side did what it should not have done. A dialogue that an agent broke teaches nothing."""
    if dialogue.ending == "failed":
        return False
    if role == RECOMMENDER:
        return dialogue.turns[-1].proposal != dialogue.task.target
    return any(mistakes(dialogue))


def mistakes(dialogue: Dialogue) -> tuple[bool, bool]:
    """Whether the user clicked a miss, and whether it rejected the hit."""
    answered = [turn for turn in dialogue.turns if turn.usable]
    hits = [turn for turn in answered if turn.proposal == dialogue.task.target]
    misses = [turn for turn in answered if turn.proposal != dialogue.task.target]
    return any(turn.accepted for turn in misses), any(not turn.positive for turn in hits)


def reflection(dialogue: Dialogue, role: Role) -> Pieces:
    """What ends the conversation of a side that failed."""
    if role == RECOMMENDER:
        last = answer_of_user(dialogue.observe(RECOMMENDER), len(dialogue.turns) - 1, dialogue.items)
        return (*last, FAILED, ASK_PLAN)
    accepted, rejected = mistakes(dialogue)
    return (*((ACCEPTED,) if accepted else ()), *((REJECTED,) if rejected else ()), ASK_PLAN)


def without(title: str, text: str) -> str:
    """The text without a title, with or without its year, in any case of letters."""
    name = re.sub(r" \(\d{4}\)$", "", title)
    return re.sub(rf"(?<!\w)({re.escape(title)}|{re.escape(name)})(?!\w)", "that item", text, flags=re.IGNORECASE)
