import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env.datasets.dataset import Dataset, Item
from coars_env.datasets.llara import DATASET_TIES, INTROSORT_TIES, LlaraSequence, introsort_order, llara_sequences
from coars_env.datasets.movielens import load_movielens
from coars_env.datasets.synthetic import synthetic_world
from coars_env.errors import DatasetError


def real_rows(part: str) -> tuple[Dataset, list[dict[str, Any]]]:
    root = os.environ.get("COARS_DATA", "")
    path = Path(root, "movielens", "llara", f"{part}.json")
    if not root or not path.is_file():
        pytest.skip("COARS_DATA holds no movielens/llara")
    return load_movielens(data_dir=root, download=False), json.loads(path.read_text())


def ten_users() -> Dataset:
    """User u rated items 0, 1, 2 at times 100 - u, 200, 300, the middle one with 2 stars: so only 0 and 2 count.

    The rows of user 9, who was first, stand at the top of the file, those of user 0 at its end.
    """
    return Dataset(
        name="ten",
        items=(Item("A"), Item("B"), Item("C")),
        item_ids=("a", "b", "c"),
        user_ids=tuple("0123456789"),
        users=np.repeat(np.arange(10), 3),
        item_indices=np.tile([0, 1, 2], 10),
        ratings=np.tile([5.0, 2.0, 3.0], 10),
        timestamps=np.array([time for user in range(10) for time in (100 - user, 200, 300)]),
        source="custom",
        origin="by hand",
        source_rows=np.array([3 * (9 - user) + row for user in range(10) for row in range(3)]),
    )


def users_of(part: tuple[LlaraSequence, ...]) -> list[int]:
    return [user for user, _ in part]


@pytest.mark.parametrize(("part", "rows"), [("validation", 94), ("test", 95)])
def test_the_split_of_ml_100k_is_llaras_row_for_row(part: str, rows: int) -> None:
    dataset, expected = real_rows({"validation": "val"}.get(part, part))
    ids = [int(item_id) - 1 for item_id in dataset.item_ids]  # LLaRA counts films from 0
    split = llara_sequences(dataset)
    found = [
        {"user": int(dataset.user_ids[user]), "history": [ids[i] for i in items[-11:-1]], "next": ids[items[-1]]}
        for user, items in getattr(split, part)
    ]
    assert found == [{"user": row["user_id"], "history": row["history"], "next": row["next"]} for row in expected]
    assert len(found) == rows
    assert split.tie_rule == INTROSORT_TIES


def test_the_training_part_of_ml_100k_has_the_known_size() -> None:
    dataset, _ = real_rows("val")
    train = llara_sequences(dataset).train
    assert (len(train), sum(len(items) for _, items in train)) == (754, 68_389)


def test_without_the_order_of_the_file_ties_are_kept_as_they_are_and_that_is_said() -> None:
    dataset, expected = real_rows("test")
    split = llara_sequences(dataclasses.replace(dataset, source_rows=None))
    assert split.tie_rule == DATASET_TIES
    assert {int(dataset.user_ids[user]) for user in users_of(split.test)} == {row["user_id"] for row in expected}


def test_users_are_divided_by_their_first_time_and_listed_as_in_the_file() -> None:
    # First times are 100 - u: users 9..2 came first, then 1, then 0.
    split = llara_sequences(ten_users())
    assert users_of(split.train) == [9, 8, 7, 6, 5, 4, 3, 2]
    assert (users_of(split.validation), users_of(split.test)) == ([1], [0])
    assert all(items.tolist() == [0, 2] for _, items in split.train + split.validation + split.test)


def test_without_a_file_users_are_listed_as_in_the_dataset() -> None:
    split = llara_sequences(dataclasses.replace(ten_users(), source_rows=None))
    assert users_of(split.train) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_users_with_less_than_a_target_and_one_item_before_it_are_left_out() -> None:
    ratings = ten_users().ratings.copy()
    ratings[0] = 1
    with pytest.raises(DatasetError, match=r"Expected at least 10 users .*found 9 in 'ten'"):
        llara_sequences(dataclasses.replace(ten_users(), ratings=ratings))


def test_any_dataset_is_divided_completely_and_in_time_order() -> None:
    dataset = synthetic_world(users=100, items=200, interactions=3_000)
    split = llara_sequences(dataset)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(user for part in parts for user in users_of(part)) == list(range(100))
    for user, items in split.train + split.validation + split.test:
        assert items.tolist() == dataset.sequence(user, min_rating=3).tolist()


def test_up_to_sixteen_ties_keep_their_order_and_more_do_not() -> None:
    assert introsort_order([5] * 16) == list(range(16))
    assert introsort_order([5] * 17) != list(range(17))


def test_ties_fall_as_in_numpy_without_vector_instructions() -> None:
    # Taken from numpy 2.4 with NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR".
    keys = [2, 2, 3, 1, 3, 3, 0, 3, 0, 0, 0, 3, 3, 1, 3, 2, 3, 1, 3, 3, 2, 0, 0, 2]
    expected = [21, 6, 8, 9, 10, 22, 3, 17, 13, 0, 20, 15, 23, 1, 7, 14, 5, 16, 4, 18, 19, 2, 12, 11]
    assert introsort_order(keys) == expected


@given(st.lists(st.integers(0, 20), max_size=200))
def test_the_order_is_a_permutation_that_sorts(keys: list[int]) -> None:
    order = introsort_order(keys)
    assert sorted(order) == list(range(len(keys)))
    assert [keys[place] for place in order] == sorted(keys)
