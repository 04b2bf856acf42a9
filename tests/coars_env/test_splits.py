from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest

from coars_env import (
    ConfigError,
    Split,
    TaskError,
    UserSequence,
    builder,
    freeze,
    leave_last,
    llara,
    load,
    load_split,
    split_users,
)
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


# The second-last item as validation target ----------------------------------------------------------------------------


def test_leave_last_can_hold_out_the_last_two() -> None:
    split = leave_last(TOY, validation=True)
    assert split.name == "leave_last_two"
    assert split.test == TOY_SPLIT.test
    # Only user 2 has four items; the training sequence ends before the validation target, item 1.
    assert [(s.user, s.items) for s in split.validation] == [(2, (2, 5, 1))]
    assert [s.items for s in split.train] == [(0, 4), (1, 4), (2, 5), (4, 1)]
    assert load_split("synthetic", "leave_last_two", users=50, items=80, interactions=1500).validation


def test_with_two_held_out_the_test_part_asks_the_same() -> None:
    dataset = load("synthetic", users=50, items=80, interactions=1500)
    one, two = (freeze(builder(leave_last(dataset, validation=v)), "test") for v in (False, True))
    for task, other in zip(one, two, strict=True):
        assert (task.user, task.history, task.target, task.candidates) == (
            *(other.user, other.history, other.target),
            other.candidates,
        )
    targets = {(s.user, s.items[-1]) for s in leave_last(dataset, validation=True).validation}
    assert len(targets) == 50
    assert not targets & {(s.user, i) for s in leave_last(dataset, validation=True).train for i in s.items}


# Whole users ----------------------------------------------------------------------------------------------------------


def users(split: Split) -> list[list[int]]:
    return [[s.user for s in part] for part in (split.train, split.validation, split.test)]


def test_users_are_divided_by_their_ids() -> None:
    split = split_users(TOY, train=["dee", "ann"], validation=["bob"], test=("cem",))
    assert users(split) == [[0, 3], [1], [2]]
    assert [s.items for s in split.train] == [(0, 4, 5), (4, 1, 2)]  # whole sequences
    assert split.test[0].items == (2, 5, 1, 3)
    assert users(split_users(TOY, test=["cem"])) == [[0, 1, 3], [], [2]]  # the rest is trained on
    assert users(split_users(TOY, train=["ann"], test=["cem"])) == [[0], [], [2]]
    assert split.owned[1] == {0, 1, 4}
    numbered = replace(TOY, user_ids=("7", "8", "9", "10"))
    assert users(split_users(numbered, test=np.array([7.0, 9.0]))) == [[1, 3], [], [0, 2]]  # type: ignore[arg-type]


def test_users_are_divided_by_shares() -> None:
    dataset = load("synthetic", users=50, items=80, interactions=1500)
    split = split_users(dataset, train=0.8, validation=0.1, test=0.1)
    assert [len(part) for part in users(split)] == [40, 5, 5]
    assert sorted(chain(*users(split))) == list(range(50))
    assert users(split_users(dataset, validation=0.1, test=0.1)) == users(split)
    assert users(split_users(dataset, validation=0.1, test=0.1, seed=1)) != users(split)
    assert freeze(builder(split), "validation").name == "synthetic/split_users/validation/uniform/d0"


def test_users_of_one_item_are_left_out(dataset_of: Any) -> None:
    dataset = dataset_of((0, 1), (1,), (2, 2), (1, 0, 2))
    assert users(split_users(dataset, test=["1", "3"])) == [[0], [], [3]]
    assert users(split_users(dataset, test=0.5)) in ([[0], [], [3]], [[3], [], [0]])


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (
            {"test": ["ann", "eve", "zoe"]},
            TaskError,
            r"got 2 of 'toy' that are not: 'eve', 'zoe'\. Ids there look",
        ),
        ({"train": ["ann", "bob"], "test": ["bob"]}, TaskError, r"parts 'train' and 'test' overlap: 1 users are in bo"),
        ({"validation": ["bob"], "test": ["bob"]}, TaskError, r"parts 'validation' and 'test' overlap: .*'bob'"),
        ({"train": 0.8, "test": 0.5}, ConfigError, r"got train=0\.8, test=0\.5, together 1\.3\. Correct"),
        ({"train": 0.2, "test": 0.5}, ConfigError, r"together 0\.7"),
        ({"test": -0.5}, ConfigError, r"shares must be 0 or more and add up to 1, got test=-0\.5, train=1\.5"),
        ({"test": float("nan")}, ConfigError, r"together nan"),
        ({"test": 8}, ConfigError, r"got test=8, train=-7"),
        ({"test": 0.01}, ConfigError, r"part 'test' must have users, got a share of 0\.01 of 4 users"),
        ({"train": 0.5, "test": ["ann"]}, ConfigError, r"got shares for train and lists for test\. Pass one kind"),
        ({"test": "ann"}, ConfigError, r"part 'test' must be a list of user ids or a share, got 'ann'"),
        ({"test": iter(["ann"])}, ConfigError, r"part 'test' must be a list of user ids or a share, got <list_it"),
        ({"test": 0.5, "seed": -1}, ConfigError, r"Expected seed >= 0, found -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_users(TOY, **parts)


# A split made by hand -------------------------------------------------------------------------------------------------

HELD = UserSequence(0, (0, 4, 5))


def by_hand(train: Any = (), validation: Any = (), test: Any = (), **owned: Any) -> Split:
    return Split("mine", TOY, tuple(train), tuple(validation), tuple(test), **owned)


def test_a_split_made_by_hand_needs_no_list_of_what_is_owned() -> None:
    split = by_hand([UserSequence(0, (0, 4))], (), [HELD])
    assert dict(split.owned) == dict(TOY_SPLIT.owned)
    assert freeze(builder(split, num_candidates=3), "test").tasks[0].target == 5


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"train": [HELD], "test": [HELD]},
            r"parts 'train' and 'test' overlap: the test target of user 0, item 5, is in",
        ),
        (
            {"train": [HELD], "validation": [HELD]},
            r"parts 'train' and 'validation' overlap: .*End that sequence",
        ),
        ({"validation": [HELD], "test": [HELD]}, r"parts 'validation' and 'test' overlap"),
        (
            {"validation": [UserSequence(0, (4, 5, 0))], "test": [HELD]},
            r"the test target of user 0, item 5, is in the user's validation sequence",
        ),
        ({"test": [UserSequence(4, (0, 1))]}, r"part 'test' must hold users of 'toy' .*user=4.* 0\.\.3; `split_users`"),
        ({"test": [UserSequence(0, ())]}, r"with an item or more, got UserSequence\(user=0, items=\(\)\)"),
    ],
)
def test_parts_made_by_hand_must_not_overlap(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        by_hand(**parts)


def test_an_owner_who_is_left_out_is_named() -> None:
    split = by_hand([UserSequence(0, (0, 4))], (), [HELD], owned={1: frozenset({0})})
    with pytest.raises(TaskError, match=r"`owned` lacks user 0, .* Leave `owned` out for all items of the dataset"):
        freeze(builder(split, num_candidates=3), "test")
