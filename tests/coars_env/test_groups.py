"""Groups of users who took the same item next: how they are held out from a log, and what their tasks hold."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from coars_env import (
    CandidateRule,
    ConfigError,
    Dataset,
    EpisodeSet,
    Facet,
    FacetInstructions,
    Item,
    Member,
    Split,
    SvdPeers,
    Task,
    TaskBuilder,
    TaskError,
    TopCandidates,
    UserSequence,
    builder,
    freeze,
    has_facet,
    hold_out_groups,
    leave_last,
    load_split,
    make,
    popularity_scorer,
    sample_train_tasks,
    uniform_candidates,
)
from coars_env.testing import check_ids, toy_dataset, toy_episodes


def world(**options: Any) -> Split:
    return load_split("synthetic", users=150, items=200, interactions=4500, **options)


def of_users(*sequences: tuple[int, ...], num_items: int = 12) -> Dataset:
    rows = [(user, item, time) for user, items in enumerate(sequences) for time, item in enumerate(items)]
    users, items, times = np.array(rows, dtype=np.int64).T
    return Dataset(
        name="by-hand",
        items=tuple(Item(f"Film {n}", ("Drama",), 1990) for n in range(num_items)),
        item_ids=tuple(map(str, range(num_items))),
        user_ids=tuple(map(str, range(len(sequences)))),
        users=users,
        item_indices=items,
        ratings=np.full(len(items), 5.0),
        timestamps=times,
        source="custom",
        origin="by hand",
    )


def test_the_only_group_of_a_log_is_found_and_cut_before_the_common_item() -> None:
    log = of_users((0, 1, 7, 2), (3, 4, 5, 7), (6, 8, 9))
    split = hold_out_groups(leave_last(log), 2, last=2)
    assert split.name == "leave_last_groups_2"
    assert sorted((s.user, s.items) for s in split.test) == [(0, (0, 1, 7)), (1, (3, 4, 5, 7))]
    # of the two users training ends before item 7; user 0's item 2, which came after it, is in no part
    assert [(s.user, s.items) for s in split.train] == [(0, (0, 1)), (1, (3, 4, 5)), (2, (6, 8))]
    (task,) = freeze(builder(split, num_candidates=4, peers=lambda split: None), "test").tasks
    assert (task.num_users, task.target, {m.user: m.history for m in task.members}) == (2, 7, {0: (0, 1), 1: (3, 4, 5)})


def test_an_item_that_opens_a_sequence_is_nothing_to_decide_about() -> None:
    with pytest.raises(TaskError, match=r"No 2 users of Split\(.* share one of their last 5 items: at most 1 do"):
        hold_out_groups(leave_last(of_users((7, 1, 2), (3, 4, 7), (5, 6, 8))), 2)


@pytest.mark.parametrize("num_users", [2, 3])
def test_groups_of_a_world_leak_nothing(num_users: int) -> None:
    alone = world()
    split = hold_out_groups(alone, num_users)
    full = {s.user: s.items for s in alone.test}
    trained = {s.user: s.items for s in split.train}
    groups = split.groups("test")
    users = [s.user for group in groups for s in group]
    assert len(groups) > 150 // num_users * 0.7
    assert len(set(users)) == len(users) == len(groups) * num_users
    for group in groups:
        assert len({s.items[-1] for s in group}) == 1
        for s in group:
            assert s.items == full[s.user][: len(s.items)], "a sequence ends with the target"
            assert s.items[-1] in full[s.user][-5:]
            assert trained[s.user] == s.items[:-1], "training ends before the target"
    others = set(trained) - set(users)
    assert all(trained[user] == full[user][:-1] for user in others)


def test_validation_groups_end_before_what_is_tested() -> None:
    split = hold_out_groups(world(split="leave_last_two"), 2)
    last = {s.user: s.items for s in split.test}
    trained = {s.user: s.items for s in split.train}
    assert len(split.groups("validation")) > 40
    for s in split.validation:
        assert s.items[-1] not in trained[s.user]
        assert s.user not in last or last[s.user][-1] not in s.items


def test_groups_are_drawn_by_seed() -> None:
    alone = world()
    one, same, other = hold_out_groups(alone, 3), hold_out_groups(alone, 3), hold_out_groups(alone, 3, seed=1)
    assert one.test == same.test
    assert one.test != other.test
    first, again = (freeze(builder(split), "test") for split in (one, same))
    assert first.sha256 == again.sha256 != freeze(builder(other), "test").sha256


def test_candidates_are_no_item_of_any_user_and_peers_speak_to_each() -> None:
    split = hold_out_groups(world(), 3)
    episodes = freeze(builder(split), "test")
    for task in episodes:
        for member in task.members:
            assert split.owned_by(member.user) & set(task.candidates) == {task.target}
            assert len(member.peer_similarity) == 20
            assert task.target not in member.history
    assert len({member.opinions for member in episodes.tasks[0].members}) == 3
    again = SvdPeers(split)
    task = episodes.tasks[5]
    for member in task.members:
        said = again(member.user, member.history, task.candidates)
        assert (said.similarity, said.opinions) == (member.peer_similarity, member.opinions)


def test_without_owned_items_only_histories_and_the_target_are_barred() -> None:
    log = of_users((0, 1, 7, 2), (3, 4, 5, 7), (6, 8, 9), num_items=9 + 1)
    split = hold_out_groups(leave_last(log), 2, last=2)
    build = TaskBuilder(split, uniform_candidates(10), num_candidates=5, exclude_owned=False)
    (task,) = freeze(build, "test").tasks
    assert set(task.candidates) == {7, 2, 6, 8, 9}  # 2 was taken later by user 0


def test_numbers_of_items_tell_nothing_about_what_a_group_takes() -> None:
    check_ids(freeze(builder(hold_out_groups(load_split("synthetic", users=900, items=400), 2)), "test"))


def test_training_groups_are_others_who_took_the_same_item() -> None:
    split = hold_out_groups(world(), 3)
    trained = {s.user: s.items for s in split.train}
    build = builder(split, peers=lambda split: None)
    tasks = sample_train_tasks(build, 40, np.random.default_rng(5), prefix="train")
    assert len({task.user for task in tasks}) == 40
    for task in tasks:
        assert task.num_users == 3
        for member in task.members:
            place = trained[member.user].index(task.target)
            assert member.history == trained[member.user][max(0, place - 10) : place]
            assert place >= 3
    assert tasks == sample_train_tasks(build, 40, np.random.default_rng(5), prefix="train")
    assert tasks != sample_train_tasks(build, 40, np.random.default_rng(6), prefix="train")


def test_a_training_part_without_company_is_refused() -> None:
    split = hold_out_groups(leave_last(of_users((0, 1, 7, 2), (3, 4, 5, 7), (6, 8, 9))), 2, last=2)
    build = builder(split, num_candidates=3, peers=lambda split: None)
    with pytest.raises(TaskError, match=r"No item of the training part of .* was taken by 2 users"):
        sample_train_tasks(build, 1, np.random.default_rng(0), prefix="train")


def test_groups_larger_than_the_log_offers_are_refused_with_their_number() -> None:
    with pytest.raises(TaskError, match=r"No 140 users of Split.* last 5 items: at most \d\d do\. Ask for smaller"):
        hold_out_groups(world(), 140)


def test_what_cannot_be_a_split_of_groups_is_refused() -> None:
    split = hold_out_groups(world(), 2)
    with pytest.raises(TaskError, match=r"has groups of 2 already"):
        hold_out_groups(split, 3)
    for num_users in (1, 0, 2.5):
        with pytest.raises(ConfigError, match=r"Groups have users\. Expected num_users >= 2"):
            hold_out_groups(world(), num_users)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"part 'test' must consist of groups of 2 users with one target"):
        replace(split, test=split.test[1:])
    with pytest.raises(TaskError, match=r"The training part of .* has no fixed groups"):
        freeze(builder(split), "train")
    with pytest.raises(TaskError, match=r"TopCandidates are the best for one history"):
        freeze(builder(split, TopCandidates(popularity_scorer(split))), "test")


def test_cuts_before_different_items_are_refused() -> None:
    split = world()
    one, other = split.test[:2]
    build = TaskBuilder(split, uniform_candidates(split.dataset.num_items))
    with pytest.raises(TaskError, match=r"The users of task 'x' must take one item, got \[\d+, \d+\]"):
        build.groups([("x", [(one, 3), (other, 4)], np.random.default_rng(0))])


def test_tasks_without_a_group_are_what_they_were() -> None:
    build = builder(world())
    tasks = freeze(build, "test").tasks
    sequence: UserSequence = build.split.test[4]
    alone = build("x", sequence, len(sequence.items) - 1, np.random.default_rng([0, 0, 4]))
    assert replace(alone, task_id=tasks[4].task_id) == tasks[4]
    assert tasks[4].others == ()
    assert tasks[4].for_user(0) is tasks[4]


GROUP = Task(
    "toy-group",
    0,
    history=(0, 4),
    candidates=(5, 1, 3),
    target=5,
    peer_similarity=(0.5, -1.0, 0.0),
    others=(Member(1, (2, 4), (0.0, 0.25, 1.0)),),
)


def test_a_task_is_seen_by_each_user_as_its_own() -> None:
    assert GROUP.for_user(0) == Task("toy-group", 0, (0, 4), (5, 1, 3), 5, (0.5, -1.0, 0.0))
    assert GROUP.for_user(1) == Task("toy-group", 1, (2, 4), (5, 1, 3), 5, (0.0, 0.25, 1.0))
    assert [member.user for member in GROUP.members] == [0, 1]
    with pytest.raises(TaskError, match=r"Task 'toy-group' has 2 users, got place 2"):
        GROUP.for_user(2)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member(0, (2, 4)), r"users of task 'toy-group' must be different, got \[0, 0\]"),
        (Member(1, (2, 5)), r"history must be short and without the target"),
        (Member(1, (2,), (0.1,)), r"Each candidate needs one peer similarity"),
        (Member(1, (2,), (), (1, 2)), r"Opinions are told of each candidate"),
    ],
)
def test_users_of_a_group_are_checked_like_a_single_one(member: Member, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        replace(GROUP, others=(member,))


def test_sets_of_groups_are_stored_and_others_keep_their_digest(tmp_path: Any) -> None:
    data = toy_dataset()
    episodes = EpisodeSet("toy/groups", (GROUP,), data.items, data.provenance)
    episodes.save(tmp_path / "groups.jsonl")
    head, row = (tmp_path / "groups.jsonl").read_text().splitlines()
    assert '"version":3' in head
    assert '"others":[{"history":[2,4],"peer_similarity":[0.0,0.25,1.0],"user":1}]' in row
    assert EpisodeSet.load(tmp_path / "groups.jsonl", data).tasks == (GROUP,)
    toy_episodes().save(tmp_path / "alone.jsonl")
    text = (tmp_path / "alone.jsonl").read_text()
    assert '"version":2' in text
    assert "others" not in text


def test_all_tasks_of_a_set_have_equally_many_users_of_known_items() -> None:
    data = toy_dataset()
    with pytest.raises(TaskError, match=r"'toy' have different numbers of users: \[1, 2\]"):
        EpisodeSet("toy", (GROUP, *toy_episodes().tasks), data.items, data.provenance)
    with pytest.raises(TaskError, match=r"only name items of the catalogue"):
        EpisodeSet("toy", (replace(GROUP, others=(Member(1, (99,)),)),), data.items, data.provenance)


def test_make_plays_groups() -> None:
    env = make(world(), num_users=3)
    assert env.possible_agents == ["recommender_0", "user_0", "user_1", "user_2"]
    assert env.episodes.name == "synthetic/leave_last_groups_3/test/uniform/d0"
    assert make(env.episodes).possible_agents == env.possible_agents
    with pytest.raises(ConfigError, match=r"num_users cannot be given beside an EpisodeSet"):
        make(env.episodes, num_users=3)
    with pytest.raises(ConfigError, match=r"Expected num_users >= 1, found 0"):
        make("synthetic", num_users=0)
    names = [[m.user for m in task.members] for task in env.episodes]
    assert all(one != other for one, other in pairwise(names))


@pytest.mark.parametrize("rule", ["uniform", "confusable"])
def test_each_user_wants_something_of_its_own_about_the_common_target(rule: CandidateRule) -> None:
    split = hold_out_groups(world(), 3)
    wishes = FacetInstructions(("genre", "decade"), most=1)
    told = freeze(builder(split, rule, instructions=wishes), "test")
    plain = freeze(builder(split, rule), "test")
    assert told.name == f"{plain.name}/{wishes}"
    differ = 0
    for task, without in zip(told, plain, strict=True):
        assert [replace(m, instruction=None) for m in task.members] == list(without.members)
        assert task.candidates == without.candidates
        wanted = [member.instruction.facets for member in task.members if member.instruction is not None]
        assert [len(facets) for facets in wanted] == [1, 1, 1]
        assert all(has_facet(told.items[task.target], facet) for (facet,) in wanted)
        differ += len(set(wanted)) > 1
    assert 0 < differ < len(told)
    (drawn, *_) = sample_train_tasks(builder(split, rule, instructions=wishes), 4, np.random.default_rng(0), prefix="x")
    assert [member.instruction is not None for member in drawn.members] == [True] * 3
    if rule == "confusable":
        task = told.tasks[0]
        facets = [Facet(kind, value) for kind in wishes.kinds for value in told.items[task.target].values(kind)]
        assert sum(any(has_facet(told.items[i], facet) for facet in facets) for i in task.candidates) >= 16
