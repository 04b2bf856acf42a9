"""LLaRA's split of MovieLens 100K (arXiv:2312.02445), computed from the ratings alone.

The rule: keep ratings of at least 3; sort each user's rows by time; the last item is the target and the ten before it
are the history; users are divided 8:1:1 by the time of their first rating. Half of the neighbouring rows are tied in
time, and LLaRA's order of ties is the one that numpy's introsort (`argsort(kind="quicksort")` without vector
instructions, the default of pandas' `sort_values`) leaves when it sorts the rows of one user in the order of the file.
With that order all 189 rows of LLaRA's validation and test files come out exactly, in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env.datasets.dataset import Dataset, IntArray
from coars_env.errors import DatasetError

MIN_RATING = 3.0
HISTORY_LENGTH = 10
INTROSORT_TIES = "introsort of each user's file rows"
DATASET_TIES = "order of the dataset"

_INSERTION_SORT_BELOW = 17  # numpy's SMALL_QUICKSORT = 16 is the largest part that is not divided further

LlaraSequence = tuple[int, IntArray]
"""User index and all items of that user with a rating of at least 3, catalogue indices, oldest first."""


@dataclass(frozen=True, eq=False)
class LlaraSplit:
    """Users of LLaRA's three parts, each in the order of LLaRA's files.

    Example: for `user, items = split.test[0]` the target is `items[-1]` and the history `items[-11:-1]`. Training
    takes every prefix of a training sequence.
    """

    train: tuple[LlaraSequence, ...]
    validation: tuple[LlaraSequence, ...]
    test: tuple[LlaraSequence, ...]
    tie_rule: str
    """How rows of equal time are ordered; belongs into the provenance of whatever is made from the split.
    `INTROSORT_TIES` is LLaRA's own; `DATASET_TIES` where the dataset does not know the order of its file."""


def llara_sequences(dataset: Dataset) -> LlaraSplit:
    """Divide the users of any dataset by LLaRA's rule; on MovieLens 100K this is LLaRA's split.

    Users with fewer than two ratings of at least 3 are left out. Users whose first ratings fall on the same second
    keep the order in which they appear in the file.

    Raises:
        DatasetError: if fewer than ten users remain, so that a part would be empty.
    """
    sequences, first_times = [], []
    for user in _by_first_appearance(dataset):
        items, times = _llara_order(dataset, user)
        if len(items) >= 2:
            sequences.append((user, items))
            first_times.append(times[0])
    n = len(sequences)
    if n < 10:
        raise DatasetError(
            "The split of LLaRA divides users 8:1:1. Expected at least 10 users with two ratings of 3 or more, "
            f"found {n} in {dataset.name!r}. Use a larger dataset or another split."
        )
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(np.array(first_times), kind="stable")] = np.arange(n)
    part = np.searchsorted([int(0.8 * n), int(0.9 * n)], rank, side="right")  # 0 train, 1 val, 2 test
    train, validation, test = (
        tuple(sequences[place] for place in np.flatnonzero(part == wanted)) for wanted in range(3)
    )
    return LlaraSplit(train, validation, test, DATASET_TIES if dataset.source_rows is None else INTROSORT_TIES)


def introsort_order(keys: Sequence[int]) -> list[int]:
    """Places of the keys in ascending order, ties as numpy's classical `argsort(kind="quicksort")` leaves them.

    Written out because numpy itself gives other ties on processors with vector instructions. The switch to heapsort
    for adversarial input is left out; time-stamps of ratings do not reach it.
    """
    order = list(range(len(keys)))
    parts = [(0, len(keys) - 1)]
    while parts:
        left, right = parts.pop()
        while right - left >= _INSERTION_SORT_BELOW - 1:
            pivot = _divide(keys, order, left, right)
            parts.append((pivot + 1, right))
            right = pivot - 1
        for end in range(left + 1, right + 1):
            moving, place = order[end], end
            while place > left and keys[moving] < keys[order[place - 1]]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = moving
    return order


def _divide(keys: Sequence[int], order: list[int], left: int, right: int) -> int:
    """Put smaller keys left of a pivot, the median of first, middle and last, and larger ones right; its place."""

    def swap(a: int, b: int) -> None:
        order[a], order[b] = order[b], order[a]

    middle = left + (right - left) // 2
    for high, low in ((middle, left), (right, middle), (middle, left)):
        if keys[order[high]] < keys[order[low]]:
            swap(high, low)
    pivot = keys[order[middle]]
    up, down = left, right - 1
    swap(middle, down)
    while True:
        up += 1
        while keys[order[up]] < pivot:
            up += 1
        down -= 1
        while pivot < keys[order[down]]:
            down -= 1
        if up >= down:
            break
        swap(up, down)
    swap(up, right - 1)
    return up


def _by_first_appearance(dataset: Dataset) -> list[int]:
    """Users in the order of their first kept row in the file, or of the dataset where there is no file."""
    kept = dataset.ratings >= MIN_RATING
    users = dataset.users[kept]
    if dataset.source_rows is not None:
        users = users[np.argsort(dataset.source_rows[kept])]
    return list(dict.fromkeys(users.tolist()))


def _llara_order(dataset: Dataset, user: int) -> tuple[IntArray, IntArray]:
    """Items and times of the kept rows of one user, oldest first."""
    rows = np.arange(*dataset.rows(user).indices(len(dataset.users)))
    rows = rows[dataset.ratings[rows] >= MIN_RATING]
    if dataset.source_rows is not None:
        rows = rows[np.argsort(dataset.source_rows[rows])]
        rows = rows[introsort_order(dataset.timestamps[rows].tolist())]
    return dataset.item_indices[rows], dataset.timestamps[rows]
