import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    HISTORY_LENGTH,
    CoarsReward,
    ConfigError,
    Dataset,
    EpisodeSet,
    FixedUser,
    Item,
    RandomRecommender,
    Split,
    SvdPeers,
    Task,
    TaskBuilder,
    TaskError,
    TopCandidates,
    Transcript,
    UserSequence,
    builder,
    freeze,
    leave_last,
    llara,
    load,
    popularity_candidates,
    rollout,
    sample_train_tasks,
    uniform_candidates,
)
from coars_env.testing import toy_dataset, toy_episodes

TOY = toy_dataset()  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2
TOY_SPLIT = leave_last(TOY)


def dataset_of(*sequences: tuple[int, ...], titles: tuple[str, ...] | None = None) -> Dataset:
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


def toy_builder(**changes: object) -> TaskBuilder:
    return replace(TaskBuilder(TOY_SPLIT, uniform_candidates(6), SvdPeers(TOY_SPLIT), num_candidates=3), **changes)


# Tasks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 9}, r"The target must be among the candidates\. Expected item 9 among the 3 of task 't'"),
        ({"candidates": (5, 1, 1)}, r"Candidates must be distinct\. Expected 3 different items in task 't', found 2"),
        ({"peer_similarity": (0.1,)}, r"one peer similarity\. Expected 3 in task 't', found 1"),
        ({"history": (0, 5)}, r"without the target\. Expected at most 10 items other than 5 in task 't'"),
        ({"history": tuple(range(20, 31))}, r"The visible history must be short"),
    ],
)
def test_a_task_that_cannot_be_played_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        replace(Task("t", 0, history=(0, 4), candidates=(5, 1, 3), target=5), **change)


def test_peer_similarity_is_looked_up_by_item() -> None:
    episodes = toy_episodes()
    assert [episodes["toy-0"].q(item) for item in (5, 1, 3)] == [0.5, -1.0, 0.0]
    assert [episodes["toy-2"].q(item) for item in (0, 4, 3)] == [0.0, 0.0, 0.0]


# Episode sets ---------------------------------------------------------------------------------------------------------


def test_a_set_is_a_list_of_tasks_found_by_their_ids() -> None:
    episodes = toy_episodes()
    assert len(episodes) == 4
    assert [task.task_id for task in episodes] == ["toy-0", "toy-1", "toy-2", "toy-3"]
    assert episodes["toy-2"] is episodes.tasks[2]


@pytest.mark.parametrize("name", ["toy-9", 2, ["toy-0"]])
def test_an_unknown_task_is_named(name: object) -> None:
    with pytest.raises(TaskError, match=r"The task must be in the set\. Expected one of 4 ids such as 'toy-0', found"):
        toy_episodes()[name]  # type: ignore[index]


def test_two_tasks_of_one_id_are_refused() -> None:
    episodes = toy_episodes()
    with pytest.raises(TaskError, match=r"Expected 5 different ids in 'toy/by-hand', found 4"):
        replace(episodes, tasks=(*episodes.tasks, episodes.tasks[0]))


def test_equal_titles_in_a_list_and_foreign_items_are_refused() -> None:
    episodes = toy_episodes()
    same = tuple(replace(item, title="Heat") if n in (1, 5) else item for n, item in enumerate(episodes.items))
    with pytest.raises(TaskError, match=r"Titles must be unique .* in task 'toy-0', found 'Heat' twice"):
        replace(episodes, items=same)
    with pytest.raises(
        TaskError, match=r"may only name items of the catalogue\. Expected indices 0\.\.4 .*found 0\.\.5"
    ):
        replace(episodes, items=episodes.items[:5])


def test_the_digest_of_the_toy_is_the_same_everywhere() -> None:
    assert toy_episodes().sha256 == "cc7d19419c137bcac54285bb27319b114450efb73662396d192e7c53e5206393"
    assert freeze(toy_builder(), "test", rule="uniform").sha256 == DIGEST_OF_FROZEN_TOY


DIGEST_OF_FROZEN_TOY = "d67bc3a51e038950c6d9b8ae1349fa3c2f010906beeae97f8e6e07c451057651"


@pytest.mark.parametrize("change", ["name", "task", "order", "provenance"])
def test_the_digest_depends_on_everything(change: str) -> None:
    episodes = toy_episodes()
    first, *others = episodes.tasks
    changed = {
        "name": replace(episodes, name="other"),
        "task": replace(episodes, tasks=(replace(first, peer_similarity=(0.5, -1.0, 0.0001)), *others)),
        "order": replace(episodes, tasks=(*others, first)),
        "provenance": replace(episodes, provenance=replace(episodes.provenance, origin="other")),
    }
    assert changed[change].sha256 != episodes.sha256


def test_a_set_survives_its_file(tmp_path: Path) -> None:
    episodes = toy_episodes()
    episodes.save(tmp_path / "new" / "toy.jsonl")
    loaded = EpisodeSet.load(tmp_path / "new" / "toy.jsonl", TOY)
    assert (loaded.name, loaded.tasks, loaded.items) == (episodes.name, episodes.tasks, episodes.items)
    assert loaded.sha256 == episodes.sha256
    loaded.save(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "new" / "toy.jsonl").read_bytes()


def test_not_a_byte_of_a_set_may_change(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    toy_episodes().save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for change in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            with pytest.raises(TaskError, match=r"An episode file must|Episode files carry"):
                EpisodeSet.load(path, TOY)
    longer = whole + b"\n", whole + b" ", whole.replace(b"\n", b"\r\n"), whole.replace(b":", b": ", 1)
    for broken in (b"", whole[:-1], whole[: whole.index(b"\n") + 1], *longer):
        path.write_bytes(broken)
        with pytest.raises(TaskError, match="An episode file must"):
            EpisodeSet.load(path, TOY)


def test_a_set_of_another_dataset_is_refused(tmp_path: Path) -> None:
    toy_episodes().save(tmp_path / "toy.jsonl")
    other = replace(TOY, ratings=TOY.ratings + 0.5)
    with pytest.raises(TaskError, match=r"Episodes belong to one dataset\. Expected Provenance\(.*origin='toy'"):
        EpisodeSet.load(tmp_path / "toy.jsonl", other)


def test_a_set_of_another_version_is_refused(tmp_path: Path) -> None:
    toy_episodes().save(tmp_path / "toy.jsonl")
    text = (tmp_path / "toy.jsonl").read_text(encoding="utf-8").replace('"version":1', '"version":2')
    (tmp_path / "toy.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=r"Episode files carry a version\. Expected 1 in .*, found 2"):
        EpisodeSet.load(tmp_path / "toy.jsonl", TOY)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"An episode file must be JSONL with a header line.*FileNotFoundError"):
        EpisodeSet.load(tmp_path / "toy.jsonl", TOY)


DIGESTS_OF_INVENTED_SETS = {
    ("leave_last", "uniform"): "63aa21f1d73a4224771442788b67510fa9c62df403ea893396aed77a610b07ef",
    ("leave_last", "popularity"): "2374c4f87c8e3ae9c36b17867702294157af54f8f43a37071a7f02d542cf55c6",
    ("leave_last", "llara"): "3c9dc8f7ceb0a00f855b9067286422188f5635649ddc3c913476a36c67fae889",
    ("llara", "uniform"): "f894be9457e98eb17111a58373fe4ab7fc77f0cbd4710d341aec9a765ac7ff4e",
    ("llara", "popularity"): "25585a9313a5100f4eebd263c7c9bc1ced90b6c5a42d4284e6bf98317d7c4dea",
    ("llara", "llara"): "77b432c5f569a9dc25c9b493ebac926fcf5eaa860536c2889835380879c68a0d",
}


def test_invented_sets_are_those_of_every_version() -> None:
    dataset = load("synthetic", users=300, items=400, interactions=12_000, seed=1)
    splits = {"leave_last": leave_last(dataset), "llara": llara(dataset)}
    for (split, rule), digest in DIGESTS_OF_INVENTED_SETS.items():
        assert freeze(builder(splits[split], rule), "test", rule=rule).sha256 == digest  # type: ignore[arg-type]


def test_a_frozen_set_has_the_same_digest_in_another_process() -> None:
    code = (
        "from coars_env import *; s = leave_last(load('synthetic', users=60, items=90, interactions=1500)); "
        "print(freeze(builder(s, 'popularity'), 'test', rule='popularity', draw=2).sha256)"
    )
    digests = set()
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "OMP_NUM_THREADS": number}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        digests.add(ran.stdout)
    split = leave_last(load("synthetic", users=60, items=90, interactions=1500))
    digests.add(freeze(builder(split, "popularity"), "test", rule="popularity", draw=2).sha256 + "\n")
    assert len(digests) == 1


# Splits ---------------------------------------------------------------------------------------------------------------


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


def test_an_item_taken_again_counts_where_it_was_first_taken() -> None:
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


# Candidates -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.frozensets(st.integers(0, 19), max_size=17))
def test_samplers_draw_different_allowed_items(seed: int, forbidden: frozenset[int]) -> None:
    split = leave_last(dataset_of(tuple(range(20)), (0, 1, 2)))
    for sampler in (uniform_candidates(20), popularity_candidates(split)):
        drawn = sampler(forbidden, 3, np.random.default_rng(seed)).tolist()
        assert len(set(drawn)) == 3
        assert forbidden.isdisjoint(drawn)
        assert set(drawn) <= set(range(20))
        assert drawn == sampler(forbidden, 3, np.random.default_rng(seed)).tolist()


def test_uniform_candidates_are_uniform() -> None:
    rng, draw = np.random.default_rng(0), uniform_candidates(5)
    counts = np.bincount([int(draw(frozenset({2}), 1, rng)[0]) for _ in range(4_000)], minlength=5)
    assert counts[2] == 0
    assert np.abs(np.delete(counts, 2) - 1_000).max() < 3 * math.sqrt(4_000 * 0.25 * 0.75)  # three standard errors


def test_popular_candidates_follow_the_training_counts() -> None:
    rng, draw = np.random.default_rng(0), popularity_candidates(TOY_SPLIT)
    counts = np.bincount([int(draw(frozenset({4}), 1, rng)[0]) for _ in range(4_000)], minlength=6)
    weights = np.array([1.01, 3.01, 1.01, 0.01, 0, 1.01])  # counts of training, and .01
    expected = 4_000 * weights / weights.sum()
    assert (np.abs(counts - expected) <= 3 * np.sqrt(expected) + 1e-9).all()


@pytest.mark.parametrize("sampler", [uniform_candidates(6), popularity_candidates(TOY_SPLIT)])
def test_too_few_items_are_an_error_and_not_a_loop(sampler: object) -> None:
    with pytest.raises(TaskError, match=r"enough items to draw negatives from\. Expected at least 3 .*, found 2"):
        sampler(frozenset({0, 1, 2, 3}), 3, np.random.default_rng(0))  # type: ignore[operator]


def test_candidates_are_the_target_and_items_the_user_does_not_own() -> None:
    for number in range(50):
        for sequence in TOY_SPLIT.test:
            task = toy_builder()("t", sequence, len(sequence.items) - 1, np.random.default_rng(number))
            assert task.target == sequence.items[-1]
            assert task.history == sequence.items[:-1]
            assert set(task.candidates) & TOY_SPLIT.owned[sequence.user] == {task.target}


def test_the_llara_rule_bars_only_the_target_and_the_last_ten() -> None:
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


def test_lists_hold_no_title_twice_and_end_when_titles_run_out() -> None:
    titles = ("a", "b", "c", "d", "d", "d", "c")
    split = leave_last(dataset_of((0, 1, 2), titles=titles))
    build = TaskBuilder(split, uniform_candidates(7), num_candidates=2)
    for number in range(30):
        task = build("t", split.test[0], 2, np.random.default_rng(number))
        assert sorted(titles[item] for item in task.candidates) == ["c", "d"]  # never 6, the other "c"
    with pytest.raises(TaskError, match=r"enough items to draw negatives from"):
        replace(build, num_candidates=3)("t", split.test[0], 2, np.random.default_rng(0))


def test_a_sampler_that_draws_what_is_barred_is_refused() -> None:
    build = toy_builder(sampler=lambda barred, n, rng: np.array(sorted(barred)[:n]))
    with pytest.raises(
        TaskError, match=r"keep to what it is asked for\. Expected 2 different items that are not barred"
    ):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


def test_the_target_stands_at_every_place_equally_often() -> None:
    places = [
        (task := toy_builder(peers=None)("t", TOY_SPLIT.test[0], 2, np.random.default_rng(n))).candidates.index(5)
        for n in range(3_000)
    ]
    assert task.peer_similarity == ()
    assert np.abs(np.bincount(places) - 1_000).max() < 3 * math.sqrt(3_000 * 2 / 9)


@given(st.integers(0, 14))
def test_the_history_is_the_last_ten_before_the_cut(cut: int) -> None:
    split = leave_last(dataset_of(tuple(range(16)), (16, 17, 18)))
    task = TaskBuilder(split, uniform_candidates(19), num_candidates=4)(
        "t", split.train[0], cut, np.random.default_rng(0)
    )
    assert task.history == tuple(range(max(0, cut - HISTORY_LENGTH), cut))
    assert task.target == cut


@pytest.mark.parametrize("cut", [-1, 3])
def test_a_cut_outside_the_sequence_is_refused(cut: int) -> None:
    with pytest.raises(TaskError, match=r"Expected a place in 0\.\.2 of user 0 for task 't', found"):
        toy_builder()("t", TOY_SPLIT.test[0], cut, np.random.default_rng(0))


def test_one_candidate_is_no_choice() -> None:
    with pytest.raises(ConfigError, match=r"A choice needs candidates\. Expected num_candidates >= 2, found 1"):
        toy_builder(num_candidates=1)


# Lists of a scorer ----------------------------------------------------------------------------------------------------


def by_number(history: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Toy film 5 is the best, 0 the worst; films of the history are as good as any."""
    return items.astype(float)


def test_the_best_items_are_listed_and_the_target_takes_the_last_place_if_need_be() -> None:
    # User 0 owns 0, 4 and the target 5; user 1 owns 1, 4 and the target 0; user 2 owns 2, 5, 1 and the target 3.
    build = toy_builder(sampler=TopCandidates(by_number))
    tasks = freeze(build, "test", rule="top").tasks
    assert [set(task.candidates) for task in tasks[:3]] == [{5, 3, 2}, {5, 3, 0}, {4, 3, 0}]
    assert not any(task.retrieved for task in tasks)
    assert len({build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(n)).candidates for n in range(40)}) == 6


def test_a_list_may_lack_its_target_where_the_retriever_missed_it() -> None:
    episodes = freeze(toy_builder(sampler=TopCandidates(by_number, keep_target=False)), "test", rule="retrieved")
    assert [set(task.candidates) for task in episodes][:3] == [{5, 3, 2}, {5, 3, 2}, {4, 3, 0}]
    assert [task.target in task.candidates for task in episodes][:3] == [True, False, True]
    assert all(task.retrieved for task in episodes)
    missed = episodes.tasks[1]
    with pytest.raises(TaskError, match=r"The target must be among the candidates"):
        replace(missed, retrieved=False)
    played = rollout([missed], TOY.items, RandomRecommender(), FixedUser("skip", 0.3), provenance=TOY.provenance)[0]
    assert not any(terms.hit for terms in CoarsReward()(played))
    assert Transcript.from_json(played.to_json()) == played


def test_a_retrieved_set_survives_its_file(tmp_path: Path) -> None:
    episodes = freeze(toy_builder(sampler=TopCandidates(by_number, keep_target=False)), "test", rule="retrieved")
    episodes.save(tmp_path / "toy.jsonl")
    loaded = EpisodeSet.load(tmp_path / "toy.jsonl", TOY)
    assert (loaded.tasks, loaded.sha256) == (episodes.tasks, episodes.sha256)


def test_the_scorer_sees_the_visible_history_and_titles_stay_different() -> None:
    seen = []

    def scorer(history: np.ndarray, items: np.ndarray) -> np.ndarray:
        seen.append(history.tolist())
        return np.zeros(len(items))

    titles = ("a", "b", "c", "d", "d", "c", "e")
    split = leave_last(dataset_of((0, 1, 2), titles=titles))
    task = TaskBuilder(split, TopCandidates(scorer), num_candidates=3)("t", split.test[0], 2, np.random.default_rng(0))
    assert seen == [[0, 1]]
    assert set(task.candidates) == {2, 3, 6}  # 0 and 1 are owned; 4 is another "d", 5 has the title of the target
    with pytest.raises(TaskError, match=r"Expected at least 4 that are not barred, found 3"):
        TaskBuilder(split, TopCandidates(scorer), num_candidates=4)("t", split.test[0], 2, np.random.default_rng(0))


@pytest.mark.parametrize("scores", [np.zeros(5), np.full(6, np.nan), np.zeros((6, 1))])
def test_a_scorer_that_does_not_score_every_item_is_refused(scores: np.ndarray) -> None:
    build = toy_builder(sampler=TopCandidates(lambda history, items: scores))
    with pytest.raises(
        TaskError, match=r"A scorer must score what it is asked for\. Expected 6 numbers, none of them NaN"
    ):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


# Sets from splits -----------------------------------------------------------------------------------------------------


def test_draws_differ_in_candidates_and_order_only() -> None:
    split = leave_last(load("synthetic", users=40, items=120, interactions=1200))
    build = builder(split)
    draws = [freeze(build, "test", rule="uniform", draw=draw) for draw in (0, 1)]
    assert [episodes.name for episodes in draws] == [f"synthetic/leave_last/test/uniform/d{n}" for n in (0, 1)]
    assert draws[0].tasks[3].task_id == "leave_last-test-uniform-d0-0003"
    for a, b, held_out in zip(*draws, split.test, strict=True):
        assert (a.user, a.history, a.target) == (b.user, b.history, b.target)
        assert a.target == held_out.items[-1]
        assert a.candidates != b.candidates
    assert freeze(build, "test", rule="uniform", draw=1).sha256 == draws[1].sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "tests"}, r"Expected one of \['test', 'train', 'validation'\], found 'tests'"),
        ({"subset": "test", "draw": -1}, r"Draws and seeds are counted from 0"),
        ({"subset": "test", "seed": -1}, r"Draws and seeds are counted from 0"),
    ],
)
def test_freeze_refuses_what_is_not_there(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(toy_builder(), rule="uniform", **options)  # type: ignore[arg-type]


def test_training_tasks_are_cut_from_training_sequences() -> None:
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


def test_training_tasks_are_of_distinct_users_while_there_are_enough() -> None:
    tasks = sample_train_tasks(toy_builder(), 10, np.random.default_rng(0), prefix="step-7")
    users = [task.user for task in tasks]
    assert sorted(users[:4]) == sorted(users[4:8]) == [0, 1, 2, 3]
    assert len(set(users[8:])) == 2
    assert tasks[3].task_id == "step-7-0003"
    again = sample_train_tasks(toy_builder(), 10, np.random.default_rng(0), prefix="step-7")
    assert again == tasks


def test_a_split_without_training_sequences_is_refused() -> None:
    build = toy_builder(split=replace(TOY_SPLIT, train=(UserSequence(0, (1,)),)))
    with pytest.raises(TaskError, match=r"one of two items or more in split 'leave_last' of 'toy', found none"):
        sample_train_tasks(build, 1, np.random.default_rng(0), prefix="step")


# Peers ----------------------------------------------------------------------------------------------------------------


def test_peer_similarity_is_the_mean_cosine_of_the_owners() -> None:
    # Training rows 0 4 | 1 4 | 2 5 1 | 4 1, of rank 3: projecting on all singular vectors keeps every angle, so user
    # vectors are the unit rows a, b, c, b. For user 0 the others' mean is m = (2 b + c) / 3. Then b - m = (b - c) / 3
    # and c - m = -2 (b - c) / 3: owners b have cosine x with a - m, owner c has -x, where with r = b.c = 1 / sqrt 6
    # x = ((a - m) . (b - c)) / (|a - m| |b - c|), a.b = 1/2, a.c = 0.
    r = 1 / math.sqrt(6)
    m_b, m_c, m_m = (2 + r) / 3, (2 * r + 1) / 3, (5 + 4 * r) / 9
    x = (1 / 2 - m_b - (0 - m_c)) / math.sqrt((1 - 2 * (1 / 3) + m_m) * (2 - 2 * r))
    assert x == pytest.approx(0.2690, abs=5e-5)
    peers = SvdPeers(TOY_SPLIT, k=10)
    # owners in training, user 0 excluded: 0: nobody; 1: b c b; 2: c; 3: nobody; 4: b b; 5: c
    expected = [0, x / 3, -x, 0, x, -x]
    assert peers(0, (0, 4), range(6)) == pytest.approx(expected, abs=1e-4)
    assert SvdPeers(TOY_SPLIT, k=2)(0, (0, 4), [1]) == pytest.approx([x], abs=1e-4)  # the two best of x, -x, x


def test_nobody_who_owns_it_means_zero() -> None:
    assert SvdPeers(TOY_SPLIT)(2, (2, 5), [2, 3, 5]) == (0.0, 0.0, 0.0)  # 2 and 5 are owned by user 2 alone


def test_a_user_without_history_still_has_peers() -> None:
    assert all(-1 <= q <= 1 for q in SvdPeers(TOY_SPLIT)(0, (), range(6)))


@given(
    st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=6, unique=True), min_size=1, max_size=6),
    st.lists(st.integers(0, 8), max_size=10, unique=True),
    st.integers(1, 4),
)
def test_peer_similarity_lies_in_its_bounds(sequences: list[list[int]], history: list[int], rank: int) -> None:
    split = leave_last(dataset_of(*map(tuple, sequences), titles=tuple(f"film {n}" for n in range(9))))
    assert all(-1 <= q <= 1 for q in SvdPeers(split, rank=rank, k=2)(0, history, range(9)))


def test_many_tasks_at_once_are_those_made_one_by_one() -> None:
    split = leave_last(load("synthetic", users=40, items=60, interactions=800))
    build = builder(split, num_candidates=5)
    wanted = [(f"t-{n}", split.test[n % 40], 2 + n % 9, n) for n in range(90)]  # users come again
    together = build.batch((name, sequence, cut, np.random.default_rng(n)) for name, sequence, cut, n in wanted)
    assert together == [build(name, sequence, cut, np.random.default_rng(n)) for name, sequence, cut, n in wanted]
    assert len({q for task in together for q in task.peer_similarity}) > 100
    assert build.batch([]) == []


def test_many_similarities_at_once_may_be_of_lists_of_any_length() -> None:
    peers = SvdPeers(TOY_SPLIT)
    asked = [(0, (0, 4), range(6)), (2, (2, 5), []), (1, (), [1, 4]), (9, (1,), [1])]  # 9 has no training sequence
    assert peers.batch(asked) == [peers(*one) for one in asked]
    assert [len(q) for q in peers.batch(asked)] == [6, 0, 2, 1]


@pytest.fixture(scope="module")
def small_split() -> Split:
    return leave_last(load("synthetic", users=80, items=150, interactions=2400))


def test_peer_similarity_ignores_the_own_row_of_the_user(small_split: Split) -> None:
    peers = SvdPeers(small_split, rank=8)
    for row in range(0, 80, 7):
        others = small_split.train[:row] + small_split.train[row + 1 :]
        without = SvdPeers(replace(small_split, train=others), directions=peers.directions)
        sequence = small_split.test[row]
        history, items = sequence.items[-11:-1], range(150)
        assert peers(sequence.user, history, items) == without(sequence.user, history, items)


def test_peer_similarity_ignores_what_is_held_out(small_split: Split) -> None:
    dataset = small_split.dataset
    ends = np.array([dataset.rows(user).stop - 1 for user in range(dataset.num_users)])
    kept = np.delete(np.arange(len(dataset.users)), ends)
    columns = {name: getattr(dataset, name)[kept] for name in ("users", "item_indices", "ratings", "timestamps")}
    rest = replace(dataset, **columns, source_rows=None)
    blind = replace(
        small_split,
        dataset=rest,
        train=tuple(UserSequence(u, tuple(rest.sequence(u).tolist())) for u in range(80)),
        test=(),
        owned={},
    )
    seeing, blinded = SvdPeers(small_split), SvdPeers(blind)
    for sequence in small_split.test[::9]:
        history = sequence.items[-11:-1]
        assert seeing(sequence.user, history, range(150)) == blinded(sequence.user, history, range(150))


def test_the_singular_vectors_are_those_of_the_training_matrix(small_split: Split) -> None:
    matrix = np.zeros((80, 150))
    for row, sequence in enumerate(small_split.train):
        matrix[row, list(sequence.items)] = 1
    exact = np.linalg.svd(matrix)[2][:3]
    found = SvdPeers(small_split, rank=32).directions.T[:3]
    assert np.abs(np.sum(exact * found, axis=1)) == pytest.approx([1, 1, 1], abs=1e-6)


# On real data ---------------------------------------------------------------------------------------------------------


def test_a_set_and_a_split_say_in_a_line_what_they_are() -> None:
    assert repr(TOY_SPLIT.dataset) == "Dataset('toy', custom, 4 users, 6 items, 13 interactions)"
    assert len(repr(TOY_SPLIT)) < 100
    assert repr(toy_episodes()).startswith("EpisodeSet('toy")


def test_peers_of_nobody_are_refused() -> None:
    with pytest.raises(TaskError, match=r"Peers are training users\. Expected one or more in 'leave_last'"):
        SvdPeers(replace(TOY_SPLIT, train=()))


def test_a_sampler_must_know_the_catalogue() -> None:
    build = toy_builder(sampler=lambda barred, n, rng: np.arange(100, 100 + n))
    with pytest.raises(TaskError, match="A candidate sampler must keep to what it is asked for"):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))


def test_real_targets_are_never_in_training(ml100k: Split) -> None:
    assert len(ml100k.test) == len(ml100k.train) == 943
    for held_out, trained in zip(ml100k.test, ml100k.train, strict=True):
        assert held_out.user == trained.user
        assert held_out.items[-1] not in trained.items


@pytest.mark.parametrize("rule", ["uniform", "popularity", "llara"])
def test_real_lists_hold_no_title_twice(ml100k: Split, rule: str) -> None:
    titles = [item.title for item in ml100k.dataset.items]
    assert len(set(titles)) < len(titles)  # some films are listed twice
    for task in freeze(builder(ml100k, rule), "test", rule=rule):  # type: ignore[arg-type]
        assert len({titles[item] for item in task.candidates}) == 20
        owned = ml100k.owned[task.user] & set(task.candidates) - {task.target}
        assert not owned or rule == "llara"


def test_real_training_tasks_leave_the_held_out_items_alone(ml100k: Split, ml100k_builder: TaskBuilder) -> None:
    held_out = {sequence.user: sequence.items[-1] for sequence in ml100k.test}
    for task in sample_train_tasks(ml100k_builder, 943, np.random.default_rng(0), prefix="step"):
        assert held_out[task.user] not in (*task.history, *task.candidates)
        assert 3 <= len(task.history) <= 10


def test_a_real_set_has_its_published_digest(ml100k_builder: TaskBuilder) -> None:
    assert freeze(ml100k_builder, "test", rule="uniform").sha256 == DIGEST_OF_ML100K


DIGEST_OF_ML100K = "862cb5521c3625f3445139366a5a589b78a201063c606971da38e07b6ec25512"
