"""Real data for the tests that want them. They are not part of the project: without a copy those tests skip."""

import os

import pytest

from coars_env import Split, TaskBuilder, builder, load_split


@pytest.fixture(scope="session")
def ml100k() -> Split:
    """MovieLens 100K, each user's last item held out."""
    if "COARS_DATA" not in os.environ:
        pytest.skip("needs the files of MovieLens 100K: set COARS_DATA to the folder that holds them")
    return load_split("movielens", "leave_last", source="real", download=False)


@pytest.fixture(scope="session")
def ml100k_builder(ml100k: Split) -> TaskBuilder:
    return builder(ml100k)
