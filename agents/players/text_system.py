"""Walks: training dialogues from which systems with a memory learn in words, and what these cost.

The `fit` of such a system plays training dialogues in batches; after each it may write to its memory, and nothing is
written after `fit`: what is known of a held-out user is the history that every system sees.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from agents.models.language_model import LanguageModel, Reply, Request
from agents.models.usage import Usage
from agents.players.memory import Embedder, Memory
from agents.players.text_agent import TextAgent
from coars_env import (
    RECOMMENDER,
    Dialogue,
    Item,
    Role,
    Split,
    Task,
    TaskBuilder,
    play,
)

_log = logging.getLogger("coars_env")

BATCH = 32
"""Dialogues that are played before the memory is written to; ours."""
STEPS = 3
"""Successive items of one training user that a system with memory walks through; ours."""


Walk = list[Task]
"""Successive prefixes of one training user's sequence: the target of a task stands in the history of the next."""


def training_walks(
    build: TaskBuilder, *, seed: int, episodes: int, steps: int = STEPS, batch: int = BATCH
) -> Iterator[list[Walk]]:
    """Walks of distinct training users, batch after batch; users come again once all have been.

    A walk begins at a random place, after at least three items where the sequence is long enough, and is shorter where
    the sequence ends. There are `episodes // steps` walks.
    """
    sequences = [sequence for sequence in build.split.train if len(sequence.items) > 1]
    rng = np.random.default_rng([seed, 7])
    rows: list[int] = []
    while len(rows) < episodes // steps and sequences:
        rows.extend(rng.permutation(len(sequences)).tolist())
    for first in range(0, episodes // steps, batch):
        wanted = []
        for walk, row in enumerate(rows[first : min(first + batch, episodes // steps)], start=first):
            length = len(sequences[row].items)
            earliest = min(3, length - 1)
            begin = int(rng.integers(earliest, max(earliest, length - steps) + 1))
            for cut in range(begin, min(begin + steps, length)):
                wanted.append((f"walk-{seed}-{walk:04d}-{cut - begin}", sequences[row], cut, rng))
        walks: dict[str, Walk] = {}
        for task in build.batch(wanted):
            walks.setdefault(task.task_id.rpartition("-")[0], []).append(task)
        yield list(walks.values())


def practise(
    tasks: Sequence[Task], recommender: TextAgent, user: TextAgent, *, seed: int, first: int
) -> tuple[list[Dialogue], Usage]:
    """Play training tasks, numbered from `first` on; returns the dialogues and what they cost."""
    before = recommender.usage + user.usage
    dialogues = [Dialogue(task, recommender.items) for task in tasks]
    _log.info("training dialogues %d to %d", first, first + len(tasks) - 1)
    play(dialogues, recommender, user, seed=seed, numbers=range(first, first + len(tasks)))
    after = recommender.usage + user.usage
    return dialogues, Usage(*(b - a for a, b in zip(asdict(before).values(), asdict(after).values(), strict=True)))


def ask(model: LanguageModel, requests: Sequence[Request]) -> tuple[list[Reply], Usage]:
    """The replies, and what they cost."""
    replies = model.answer(requests) if requests else []
    return replies, sum((reply.usage for reply in replies), Usage())


def open_memory(
    name: str,
    split: Split,
    model: LanguageModel,
    *,
    seed: int,
    episodes: int,
    store: str | Path | None,
    embedder: Embedder | None,
) -> tuple[Memory, Usage]:
    """The memory of a run of `fit`, and what its batches have cost so far.

    Raises:
        CheckpointError: no store, or one of another system, model, seed, number of dialogues, split or data.
    """
    origin = {
        "system": name,
        "data": split.dataset.provenance.sha256,
        "split": split.name,
        "model": model.name,
        "seed": seed,
        "episodes": episodes,
    }
    memory = Memory(origin, store, embedder=embedder)
    return memory, Usage(**json.loads(memory.note)) if memory.note else Usage()


def finish_batch(memory: Memory, learning: Usage) -> None:
    """Commit, with what it has cost."""
    memory.commit(json.dumps(asdict(learning)))


def situation(items: Sequence[Item], taken: Sequence[int]) -> str:
    """Titles as a memory is searched by: "Heat (1995); Fargo (1996)"."""
    return "; ".join(items[int(index)].title for index in taken)


def side_of(role: Role) -> int:
    """0 for the recommender, 1 for the user; tells the seeds of their requests apart."""
    return 0 if role == RECOMMENDER else 1
