"""The libraries are imported inside the tests: the fast suite collects these files without having them, and here a
missing one fails.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coars_env

USERS, EACH, KNOWN, ITEMS = 200, 12, 30, 400
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session", autouse=True)
def examples_are_importable() -> None:
    """As `python examples/with_sb3.py` finds what stands beside it."""
    sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="session")
def question() -> Any:
    """An easy world, learnt in seconds: 200 users take what some others took before, of a catalogue mostly untouched.

    So among 20 candidates there are about two that anybody took, and one of these is right.
    """
    from held_out import Question

    rng = np.random.default_rng(0)
    taken = np.concatenate([rng.permutation(KNOWN)[:EACH] for _ in range(USERS)])
    dataset = coars_env.from_interactions(
        {"user_id": np.repeat(np.arange(USERS), EACH), "item_id": taken, "timestamp": np.arange(len(taken))},
        {"item_id": np.arange(ITEMS), "title": [f"Film {n}" for n in range(ITEMS)]},
        name="easy",
    )
    return Question(coars_env.leave_last(dataset), training_tasks=1000)
