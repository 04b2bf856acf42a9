"""Toys of the tests of tasks, and real data for the tests that want them.

Real data are not part of the project: without a copy those tests skip.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coars_env import Dataset, Item, Split, TaskBuilder, builder, leave_last, load_split
from coars_env.testing import toy_dataset


@pytest.fixture(scope="session")
def dataset_of() -> Callable[..., Dataset]:
    """Makes a dataset of the items of each user, oldest first."""

    def make(*sequences: tuple[int, ...], titles: tuple[str, ...] | None = None) -> Dataset:
        rows = [(user, item, time) for user, items in enumerate(sequences) for time, item in enumerate(items)]
        users, items, times = np.array(rows, dtype=np.int64).T
        titles = titles or tuple(f"film {n}" for n in range(items.max() + 1))
        return Dataset(
            name="by-hand",
            items=tuple(Item(title) for title in titles),
            item_ids=tuple(str(n) for n in range(len(titles))),
            user_ids=tuple(str(n) for n in range(len(sequences))),
            users=users,
            item_indices=items,
            ratings=np.full(len(rows), 4.0),
            timestamps=times,
            source="custom",
            origin="by-hand",
        )

    return make


@pytest.fixture(scope="session")
def toy_builder() -> Callable[..., TaskBuilder]:
    """Makes a builder of lists of three on the toy dataset, some of its settings changed."""
    split = leave_last(toy_dataset())
    build = builder(split, num_candidates=3)
    return lambda **changes: replace(build, **changes) if changes else build


@pytest.fixture(scope="session")
def ml100k() -> Split:
    """MovieLens 100K, each user's last item held out."""
    if "COARS_DATA" not in os.environ:
        pytest.skip("needs the files of MovieLens 100K: set COARS_DATA to the folder that holds them")
    return load_split("movielens", "leave_last", source="real", download=False)


@pytest.fixture(scope="session")
def ml100k_builder(ml100k: Split) -> TaskBuilder:
    return builder(ml100k)
