"""TextSystem: two agents that live by prompts, what their lessons cost, and the training dialogues these come from.

A system has one file. Its `fit` plays training dialogues in batches; after each it may write to its memory, and nothing
is written after `fit`: what is known of a held-out user is the history that every system sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from agents.text_agent import TextAgent
from agents.usage import Usage
from coars_env import Split, Task, builder, sample_train_tasks

EPISODES = 192
"""Training dialogues of a system that learns from some; ours: those of one update of CoARS."""
BATCH = 32
"""Dialogues that are played before the memory is written to; ours."""


@dataclass(eq=False)
class TextSystem:
    """Both sides of a system. `user` is tested, too."""

    recommender: TextAgent
    user: TextAgent
    learning: Usage = field(default_factory=Usage)
    """What `fit` asked of the language model."""


def training_tasks(split: Split, *, seed: int, episodes: int = EPISODES, batch: int = BATCH) -> Iterator[list[Task]]:
    """Training tasks with uniform candidates, batch after batch; users come again once all have been."""
    rng = np.random.default_rng([seed, 6])
    tasks = sample_train_tasks(builder(split), episodes, rng, prefix=f"text-{seed}")
    for first in range(0, episodes, batch):
        yield tasks[first : first + batch]
