from typing import Any

import pytest

from coars_env import Split, leave_last, llara, load
from coars_env.testing import toy_dataset

TOY = toy_dataset()  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2
TOY_SPLIT = leave_last(TOY)


def test_leave_last_holds_out_the_last_item() -> None:
    assert [s.items for s in TOY_SPLIT.train] == [(0, 4), (1, 4), (2, 5, 1), (4, 1)]
    assert [s.items for s in TOY_SPLIT.test] == [(0, 4, 5), (1, 4, 0), (2, 5, 1, 3), (4, 1, 2)]
    assert TOY_SPLIT.validation == ()
    assert TOY_SPLIT.owned == {0: {0, 4, 5}, 1: {0, 1, 4}, 2: {1, 2, 3, 5}, 3: {1, 2, 4}}


def test_leave_last_can_ask_for_a_rating() -> None:
    split = leave_last(TOY, min_rating=3)  # item 5 is rated 2 by users 0 and 2
    assert split.owned == {0: {0, 4}, 1: {0, 1, 4}, 2: {1, 2, 3}, 3: {1, 2, 4}}
    assert [s.items for s in split.test] == [(1, 4, 0), (2, 1, 3), (4, 1, 2)]
    assert [s.user for s in split.test] == [1, 2, 3]


@pytest.mark.parametrize("user", [-1, 4, "0"])
def test_a_stranger_owns_nothing_that_is_known(user: object) -> None:
    assert user not in TOY_SPLIT.owned
    with pytest.raises(KeyError):
        TOY_SPLIT.owned[user]  # type: ignore[index]


def test_an_item_taken_again_counts_where_it_was_first_taken(dataset_of: Any) -> None:
    split = leave_last(dataset_of((0, 1, 2, 0), (3, 3, 3), (1, 1, 2, 0)))
    assert [(s.user, s.items) for s in split.test] == [(0, (0, 1, 2)), (2, (1, 2, 0))]
    for held_out, trained in zip(split.test, split.train, strict=True):
        assert held_out.items[-1] not in trained.items


def test_no_user_is_in_two_parts_of_the_llara_split() -> None:
    dataset = load("synthetic", users=50, items=80, interactions=1500)
    split = llara(dataset)
    parts = [[s.user for s in part] for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(50))
    assert all(set(s.items) <= split.owned[s.user] for s in split.test)


def test_real_targets_are_never_in_training(ml100k: Split) -> None:
    assert len(ml100k.test) == len(ml100k.train) == 943
    for held_out, trained in zip(ml100k.test, ml100k.train, strict=True):
        assert held_out.user == trained.user
        assert held_out.items[-1] not in trained.items
