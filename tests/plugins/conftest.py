"""The libraries are imported inside the tests: the fast suite collects these files without having them, and here a
missing one fails.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

import coars_env

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session", autouse=True)
def examples_are_importable() -> None:
    """As `python examples/with_sb3.py` finds what stands beside it."""
    sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="session")
def question() -> Any:
    """An invented world small enough to be learnt in seconds: 200 users are tested, of 20 candidates one is right."""
    from held_out import Question

    split = coars_env.load_split("synthetic", users=200, items=150, interactions=8000)
    return Question(split, training_tasks=1000)
