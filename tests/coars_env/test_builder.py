import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    HISTORY_LENGTH,
    ConfigError,
    FacetInstructions,
    Split,
    TaskBuilder,
    TaskError,
    UserSequence,
    builder,
    freeze,
    leave_last,
    load,
    popularity_candidates,
    sample_train_tasks,
    uniform_candidates,
)
from coars_env.testing import toy_dataset

TOY_SPLIT = leave_last(toy_dataset())  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2


def test_candidates_are_the_target_and_items_the_user_does_not_own(toy_builder: Any) -> None:
    for number in range(50):
        for sequence in TOY_SPLIT.test:
            task = toy_builder()("t", sequence, len(sequence.items) - 1, np.random.default_rng(number))
            assert task.target == sequence.items[-1]
            assert task.history == sequence.items[:-1]
            assert set(task.candidates) & TOY_SPLIT.owned[sequence.user] == {task.target}


def test_the_llara_rule_bars_only_the_target_and_the_last_ten(dataset_of: Any) -> None:
    owned = tuple(range(30))
    split = leave_last(dataset_of(owned, (30, 31, 32), titles=tuple(f"film {n}" for n in range(33))))
    build = TaskBuilder(split, uniform_candidates(33), num_candidates=20, exclude_owned=False)
    offered = set()
    for number in range(40):
        task = build("t", split.test[0], 29, np.random.default_rng(number))
        assert task.history == tuple(range(19, 29))
        offered |= set(task.candidates)
    assert offered == set(range(33)) - set(range(19, 29))  # films 0 to 18 were watched long ago: they are offered
    with pytest.raises(TaskError, match=r"Expected at least 19 that are not barred, found 3"):
        replace(build, exclude_owned=True)("t", split.test[0], 29, np.random.default_rng(0))


def test_lists_hold_no_title_twice_and_end_when_titles_run_out(dataset_of: Any) -> None:
    titles = ("a", "b", "c", "d", "d", "d", "c")
    split = leave_last(dataset_of((0, 1, 2), titles=titles))
    build = TaskBuilder(split, uniform_candidates(7), num_candidates=2)
    for number in range(30):
        task = build("t", split.test[0], 2, np.random.default_rng(number))
        assert sorted(titles[item] for item in task.candidates) == ["c", "d"]  # never 6, the other "c"
    with pytest.raises(TaskError, match=r"enough items to draw negatives from"):
        replace(build, num_candidates=3)("t", split.test[0], 2, np.random.default_rng(0))


def test_a_sampler_that_draws_what_is_barred_is_refused(toy_builder: Any) -> None:
    build = toy_builder(sampler=lambda barred, n, rng: np.array(sorted(barred)[:n]))
    with pytest.raises(
        TaskError, match=r"keep to what it is asked for\. Expected 2 different items that are not barred"
    ):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


@pytest.mark.parametrize("drawn", [None, 3, ["a", "b"], [2.0, 3.0], [True, False]])
def test_a_sampler_that_draws_no_items_is_refused(toy_builder: Any, drawn: Any) -> None:
    with pytest.raises(TaskError, match=r"Expected 2 different items that are not barred, found"):
        toy_builder(sampler=lambda barred, n, rng: drawn)("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


def test_a_sampler_may_draw_a_list(toy_builder: Any) -> None:
    build = toy_builder(sampler=lambda barred, n, rng: [1, 2][:n])
    assert set(build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0)).candidates) == {5, 1, 2}


def test_the_target_stands_at_every_place_equally_often(toy_builder: Any) -> None:
    places = [
        (task := toy_builder(peers=None)("t", TOY_SPLIT.test[0], 2, np.random.default_rng(n))).candidates.index(5)
        for n in range(3_000)
    ]
    assert task.peer_similarity == ()
    assert np.abs(np.bincount(places) - 1_000).max() < 3 * math.sqrt(3_000 * 2 / 9)


@given(st.integers(0, 14))
def test_the_history_is_the_last_ten_before_the_cut(dataset_of: Any, cut: int) -> None:
    split = leave_last(dataset_of(tuple(range(16)), (16, 17, 18)))
    task = TaskBuilder(split, uniform_candidates(19), num_candidates=4)(
        "t", split.train[0], cut, np.random.default_rng(0)
    )
    assert task.history == tuple(range(max(0, cut - HISTORY_LENGTH), cut))
    assert task.target == cut


@pytest.mark.parametrize("cut", [-1, 3])
def test_a_cut_outside_the_sequence_is_refused(cut: int, toy_builder: Any) -> None:
    with pytest.raises(TaskError, match=r"Expected a place in 0\.\.2 of user 0 for task 't', found"):
        toy_builder()("t", TOY_SPLIT.test[0], cut, np.random.default_rng(0))


def test_one_candidate_is_no_choice(toy_builder: Any) -> None:
    with pytest.raises(ConfigError, match=r"A choice needs candidates\. Expected num_candidates >= 2, found 1"):
        toy_builder(num_candidates=1)


def test_draws_differ_in_candidates_and_order_only() -> None:
    split = leave_last(load("synthetic", users=40, items=120, interactions=1200))
    build = builder(split)
    draws = [freeze(build, "test", draw=draw) for draw in (0, 1)]
    assert [episodes.name for episodes in draws] == [f"synthetic/leave_last/test/uniform/d{n}" for n in (0, 1)]
    assert draws[0].tasks[3].task_id == "leave_last-test-uniform-d0-0003"
    for a, b, held_out in zip(*draws, split.test, strict=True):
        assert (a.user, a.history, a.target) == (b.user, b.history, b.target)
        assert a.target == held_out.items[-1]
        assert a.candidates != b.candidates
    assert freeze(build, "test", draw=1).sha256 == draws[1].sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "tests"}, r"Expected one of \['test', 'train', 'validation'\], found 'tests'"),
        ({"subset": "test", "draw": -1}, r"Draws and seeds are counted from 0"),
        ({"subset": "test", "seed": -1}, r"Draws and seeds are counted from 0"),
    ],
)
def test_freeze_refuses_what_is_not_there(options: dict[str, object], message: str, toy_builder: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(toy_builder(), **options)  # type: ignore[arg-type]


def test_a_part_without_users_is_not_frozen(toy_builder: Any) -> None:
    parts = r"Split\('leave_last' of 'toy': 4 train, 0 validation, 4 test\)"
    with pytest.raises(TaskError, match=rf"Expected some in 'validation', found none in {parts}\. Take a part that"):
        freeze(toy_builder(), "validation")
    nobody = replace(TOY_SPLIT, train=(), test=())
    with pytest.raises(TaskError, match=r"No user has enough interactions: use more data"):
        freeze(toy_builder(split=nobody), "test")


def test_training_tasks_are_cut_from_training_sequences(toy_builder: Any) -> None:
    rng = np.random.default_rng(0)
    cuts = set()
    for _ in range(100):
        for task in sample_train_tasks(toy_builder(), 4, rng, prefix="step"):
            sequence = TOY_SPLIT.train[task.user].items  # the toy users are numbered as their rows
            assert task.target in sequence
            assert task.history == sequence[: sequence.index(task.target)]
            assert set(task.candidates) & TOY_SPLIT.owned[task.user] == {task.target}
            cuts.add((task.user, task.target))
    # min(3, length - 1) items at least stand before the cut: the last of 0 4 | 1 4 | 2 5 1 | 4 1
    assert cuts == {(0, 4), (1, 4), (2, 1), (3, 1)}


def test_training_tasks_are_of_distinct_users_while_there_are_enough(toy_builder: Any) -> None:
    tasks = sample_train_tasks(toy_builder(), 10, np.random.default_rng(0), prefix="step-7")
    users = [task.user for task in tasks]
    assert sorted(users[:4]) == sorted(users[4:8]) == [0, 1, 2, 3]
    assert len(set(users[8:])) == 2
    assert tasks[3].task_id == "step-7-0003"
    again = sample_train_tasks(toy_builder(), 10, np.random.default_rng(0), prefix="step-7")
    assert again == tasks


def test_a_split_without_training_sequences_is_refused(toy_builder: Any) -> None:
    build = toy_builder(split=replace(TOY_SPLIT, train=(UserSequence(0, (1,)),)))
    with pytest.raises(TaskError, match=r"one of two items or more in split 'leave_last' of 'toy', found none"):
        sample_train_tasks(build, 1, np.random.default_rng(0), prefix="step")


def test_many_tasks_at_once_are_those_made_one_by_one() -> None:
    split = leave_last(load("synthetic", users=40, items=60, interactions=800))
    build = builder(split, num_candidates=5)
    wanted = [(f"t-{n}", split.test[n % 40], 2 + n % 9, n) for n in range(90)]  # users come again
    together = build.batch((name, sequence, cut, np.random.default_rng(n)) for name, sequence, cut, n in wanted)
    assert together == [build(name, sequence, cut, np.random.default_rng(n)) for name, sequence, cut, n in wanted]
    assert len({q for task in together for q in task.peer_similarity}) > 100
    assert build.batch([]) == []


def test_a_sampler_must_know_the_catalogue(toy_builder: Any) -> None:
    build = toy_builder(sampler=lambda barred, n, rng: np.arange(100, 100 + n))
    with pytest.raises(TaskError, match="A candidate sampler must keep to what it is asked for"):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


@pytest.mark.parametrize("rule", ["uniform", "popularity", "confusable", "llara"])
def test_real_lists_hold_no_title_twice(ml100k: Split, rule: str) -> None:
    titles = [item.title for item in ml100k.dataset.items]
    assert len(set(titles)) < len(titles)  # some films are listed twice
    for task in freeze(builder(ml100k, rule), "test"):  # type: ignore[arg-type]
        assert len({titles[item] for item in task.candidates}) == 20
        owned = ml100k.owned[task.user] & set(task.candidates) - {task.target}
        assert not owned or rule == "llara"


def test_real_training_tasks_leave_the_held_out_items_alone(ml100k: Split, ml100k_builder: TaskBuilder) -> None:
    held_out = {sequence.user: sequence.items[-1] for sequence in ml100k.test}
    for task in sample_train_tasks(ml100k_builder, 943, np.random.default_rng(0), prefix="step"):
        assert held_out[task.user] not in (*task.history, *task.candidates)
        assert 3 <= len(task.history) <= 10


@pytest.mark.parametrize("rule", ["uniform", "popularity", "confusable", "llara"])
def test_instructions_leave_the_candidates_and_their_order_alone(rule: Any) -> None:
    split = leave_last(load("synthetic", users=40, items=120, interactions=1200))
    plain, wished = (builder(split, rule, instructions=i) for i in (None, FacetInstructions(("genre", "decade"))))
    for a, b in zip(freeze(plain, "test"), freeze(wished, "test"), strict=True):
        assert b.instruction is not None
        assert [facet.kind for facet in b.instruction.facets] == ["genre", "decade"]
        assert replace(b, instruction=None) == a
    rngs = [np.random.default_rng(3) for _ in range(2)]
    drawn = [sample_train_tasks(b, 50, rng, prefix="t") for b, rng in zip((plain, wished), rngs, strict=True)]
    assert [replace(task, instruction=None) for task in drawn[1]] == drawn[0]
    assert len({task.instruction for task in drawn[1]}) > 10
    assert rngs[0].random() == rngs[1].random()


def test_instructions_are_drawn_anew_by_draw_and_seed_and_are_the_same_again() -> None:
    split = leave_last(load("synthetic", users=40, items=120, interactions=1200))
    build = builder(split, instructions=FacetInstructions(("genre", "decade"), noise=0.3))
    wishes = [
        [task.instruction for task in freeze(build, "test", draw=draw, seed=seed)]
        for draw, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert wishes[0] == wishes[1]
    assert len({tuple(one) for one in wishes}) == 3
    tasks = [sample_train_tasks(build, 40, np.random.default_rng(seed), prefix="t") for seed in (0, 0, 1)]
    assert tasks[0] == tasks[1] != tasks[2]


def test_a_set_is_named_by_the_kinds_of_its_instructions(toy_builder: Any) -> None:
    split = toy_builder().split
    build = builder(split, num_candidates=3, instructions=FacetInstructions(("decade", "genre"), noise=0.1))
    episodes = freeze(build, "test")
    assert episodes.name == "toy/leave_last/test/uniform/d0/decade+genre-noise0.1"
    assert episodes.tasks[0].task_id == "leave_last-test-uniform-d0-0000"
    assert episodes.kinds == ("decade", "genre")


def test_instructions_about_likeness_are_of_a_split_that_knows_it(toy_builder: Any) -> None:
    split = toy_builder().split
    build = builder(split, "confusable", num_candidates=3, instructions=FacetInstructions(("like",)))
    episodes = freeze(build, "test")
    wanted = [task.instruction.facets for task in episodes if task.instruction]
    assert [len(facets) for facets in wanted] == [1, 1, 0, 1]  # the third target is in no training sequence
    assert all(task.instruction.fits(build.split.dataset.items[task.target]) for task in episodes if task.instruction)
    assert episodes.items == build.split.dataset.items
    assert build.split.dataset.provenance == split.dataset.provenance
    with pytest.raises(ConfigError, match=r"kinds must be in the data, got 'like' where the items have only 'genre'"):
        TaskBuilder(split, uniform_candidates(6), num_candidates=3, instructions=FacetInstructions(("like",)))
    with pytest.raises(ConfigError, match=r"Instructions are drawn by a rule\. .* found \('genre',\)"):
        builder(split, instructions=("genre",))  # type: ignore[arg-type]


def test_a_set_is_named_by_the_rule_that_drew_it(toy_builder: Any) -> None:
    split = toy_builder().split
    for candidates in ("uniform", "popularity", "confusable", "llara"):
        named = builder(split, candidates, num_candidates=3)  # type: ignore[arg-type]
        assert (named.candidates, freeze(named, "test").name) == (candidates, f"toy/leave_last/test/{candidates}/d0")
    changed = toy_builder(sampler=popularity_candidates(split))  # a copy of "uniform" that draws otherwise
    own = TaskBuilder(split, uniform_candidates(6), num_candidates=3)
    assert [freeze(b, "test").tasks[0].task_id for b in (changed, own)] == ["leave_last-test-custom-d0-0000"] * 2
    with pytest.raises(TypeError, match="candidates"):
        TaskBuilder(split, uniform_candidates(6), candidates="popularity")  # type: ignore[call-arg]
