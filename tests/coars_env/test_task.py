import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coars_env import EpisodeSet, Task, TaskBuilder, TaskError, builder, freeze, leave_last, llara, load
from coars_env.testing import toy_dataset, toy_episodes

TOY = toy_dataset()  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2
TOY_SPLIT = leave_last(TOY)


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


def test_the_digest_of_the_toy_is_the_same_everywhere(toy_builder: Any) -> None:
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


def test_a_set_and_a_split_say_in_a_line_what_they_are() -> None:
    assert repr(TOY_SPLIT.dataset) == "Dataset('toy', custom, 4 users, 6 items, 13 interactions)"
    assert len(repr(TOY_SPLIT)) < 100
    assert repr(toy_episodes()).startswith("EpisodeSet('toy")


def test_a_real_set_has_its_published_digest(ml100k_builder: TaskBuilder) -> None:
    assert freeze(ml100k_builder, "test", rule="uniform").sha256 == DIGEST_OF_ML100K


DIGEST_OF_ML100K = "862cb5521c3625f3445139366a5a589b78a201063c606971da38e07b6ec25512"
