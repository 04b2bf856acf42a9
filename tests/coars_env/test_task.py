import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coars_env import (
    ConfigError,
    EpisodeSet,
    Facet,
    FacetInstructions,
    Opinion,
    Task,
    TaskBuilder,
    TaskError,
    builder,
    freeze,
    leave_last,
    llara,
    load,
)
from coars_env.testing import toy_dataset, toy_episodes

TOY = toy_dataset()  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2
TOY_SPLIT = leave_last(TOY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 9}, r"The target must be among the candidates\. Expected item 9 among the 3 of task 't'"),
        ({"candidates": (5, 1, 1)}, r"Candidates must be distinct\. Expected 3 different items in task 't', found 2"),
        ({"peer_similarity": (0.1,)}, r"one peer similarity\. Expected 3 in task 't', found 1"),
        ({"opinions": (2, 0, 4)}, r"Expected 3 times 9 numbers in task 't', found 3"),
        ({"opinions": (3, 0, 4) * 9}, r"Expected 0, 1 or 2, or -1 for no opinion, in task 't', found \[3\]"),
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


def test_opinions_are_looked_up_by_item() -> None:
    episodes = toy_episodes()
    assert episodes["toy-0"].opinions_of(1) == (Opinion(1, (2, 4)), Opinion(0, (4,)), Opinion(0, ()))
    assert episodes["toy-0"].opinions_of(5) == (Opinion(2, (2,)),)
    assert episodes["toy-0"].opinions_of(3) == episodes["toy-2"].opinions_of(0) == ()


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
    told = replace(episodes.tasks[0], opinions=(0, 6, -1) * 9)
    with pytest.raises(TaskError, match=r"Expected indices 0\.\.5 in task 'toy-0', found 0\.\.6"):
        replace(episodes, tasks=(told,))


def test_the_digest_of_the_toy_is_the_same_everywhere(toy_builder: Any) -> None:
    assert toy_episodes().sha256 == "874544732bb646f2907e9365a0858a060acf70318ad0f1b1af4f4bcd4c14b95a"
    assert freeze(toy_builder(), "test").sha256 == DIGEST_OF_FROZEN_TOY


DIGEST_OF_FROZEN_TOY = "afc6fc59fac06d610b45b3aba8efd38a906ade9351379697eb96ce36bc466124"


@pytest.mark.parametrize("change", ["name", "task", "opinion", "order", "provenance"])
def test_the_digest_depends_on_everything(change: str) -> None:
    episodes = toy_episodes()
    first, *others = episodes.tasks
    changed = {
        "name": replace(episodes, name="other"),
        "task": replace(episodes, tasks=(replace(first, peer_similarity=(0.5, -1.0, 0.0001)), *others)),
        "opinion": replace(episodes, tasks=(replace(first, opinions=(1, *first.opinions[1:])), *others)),
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


def wished(*kinds: str, noise: float = 0.0) -> EpisodeSet:
    """Toy episodes with instructions."""
    instructions = FacetInstructions(kinds, noise=noise)
    return freeze(builder(TOY_SPLIT, num_candidates=3, instructions=instructions), "test")


@pytest.mark.parametrize("noise", [0, 0.5, 1])
def test_a_set_with_instructions_keeps_the_facets_that_the_data_lack(tmp_path: Path, noise: float) -> None:
    episodes = wished("genre", "like", noise=noise)
    episodes.save(tmp_path / "toy.jsonl")
    head = json.loads((tmp_path / "toy.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (head["version"], list(head["facets"])) == (3, ["like"])
    assert head["facets"]["like"][0] == ["Fargo (1996)"]
    tags = tuple(replace(item, facets=(Facet("tag", "a"), Facet("like", "old"))) for item in TOY.items)
    for dataset in (TOY, replace(TOY, items=tags)):
        loaded = EpisodeSet.load(tmp_path / "toy.jsonl", dataset)
        assert (loaded.tasks, loaded.sha256) == (episodes.tasks, episodes.sha256)
        assert [item.values("like") for item in loaded.items] == [item.values("like") for item in episodes.items]
        assert loaded.items[0].values("tag") == dataset.items[0].values("tag")
    assert EpisodeSet.load(tmp_path / "toy.jsonl", TOY).items == episodes.items


def test_a_set_about_genre_and_decade_stores_no_facets(tmp_path: Path) -> None:
    wished("genre", "decade").save(tmp_path / "toy.jsonl")
    head = json.loads((tmp_path / "toy.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (head["version"], "facets" in head) == (3, False)


def test_the_digest_covers_the_facets(tmp_path: Path) -> None:
    episodes = wished("like")
    episodes.save(tmp_path / "toy.jsonl")
    text = (tmp_path / "toy.jsonl").read_text(encoding="utf-8")
    (tmp_path / "toy.jsonl").write_text(text.replace('[["Fargo', '[["Targo', 1), encoding="utf-8")
    with pytest.raises(TaskError, match=r"An episode file must not change\. Expected the content of sha256"):
        EpisodeSet.load(tmp_path / "toy.jsonl", TOY)
    other = tuple(replace(item, facets=(*item.facets, Facet("like", "Ran (1985)"))) for item in episodes.items)
    assert replace(episodes, items=other).sha256 != episodes.sha256


@pytest.mark.parametrize(
    "facets", [{"like": [["Heat (1995)"]]}, {"like": [[3]] * 6}, {"like": [3] * 6}, {"like": 3}, ["like"], 3]
)
def test_facets_that_are_none_are_refused_though_their_digest_is_right(tmp_path: Path, facets: Any) -> None:
    wished("like").save(tmp_path / "toy.jsonl")
    first, *rows = (tmp_path / "toy.jsonl").read_text(encoding="utf-8").splitlines()
    head = {**json.loads(first), "facets": facets}
    del head["sha256"]
    digest = hashlib.sha256("\n".join([dump(head), *rows]).encode()).hexdigest()
    text = "\n".join([dump({**head, "sha256": digest}), *rows, ""])
    (tmp_path / "odd.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=r"An episode file must hold tasks, and facets of every item in its first line"):
        EpisodeSet.load(tmp_path / "odd.jsonl", TOY)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "5"},
        {"user": "ann"},
        {"task_id": 3},
        {"history": None},
        {"history": [0.5]},
        {"candidates": [5, 1.5, 3]},
        {"candidates": [5, True, 3]},
        {"peer_similarity": [float("nan")] * 3},
        {"opinions": [0.5] * 27},
    ],
)
def test_lines_that_hold_no_task_are_refused_though_their_digest_is_right(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    episodes = toy_episodes()
    episodes.save(tmp_path / "toy.jsonl")
    first, row, *_ = (tmp_path / "toy.jsonl").read_text(encoding="utf-8").splitlines()
    head = json.loads(first)
    del head["sha256"]
    for line in (dump({**json.loads(row), **change}), "[]", "{}", "3"):
        digest = hashlib.sha256(f"{dump(head)}\n{line}".encode()).hexdigest()
        (tmp_path / "odd.jsonl").write_text(f"{dump({**head, 'sha256': digest})}\n{line}\n", encoding="utf-8")
        with pytest.raises(
            TaskError, match=r"An episode file must hold tasks.* Expected one in each line of .*odd\.jsonl"
        ):
            EpisodeSet.load(tmp_path / "odd.jsonl", TOY)


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_episodes_are_loaded_for_a_dataset(tmp_path: Path) -> None:
    toy_episodes().save(tmp_path / "toy.jsonl")
    with pytest.raises(ConfigError, match=r"Episodes are of a dataset\. .* found 'toy'"):
        EpisodeSet.load(tmp_path / "toy.jsonl", "toy")  # type: ignore[arg-type]


def test_a_set_of_another_dataset_is_refused(tmp_path: Path) -> None:
    toy_episodes().save(tmp_path / "toy.jsonl")
    other = replace(TOY, ratings=TOY.ratings + 0.5)
    with pytest.raises(TaskError, match=r"Episodes belong to one dataset\. Expected Provenance\(.*origin='toy'"):
        EpisodeSet.load(tmp_path / "toy.jsonl", other)


def test_a_set_of_another_version_is_refused(tmp_path: Path) -> None:
    toy_episodes().save(tmp_path / "toy.jsonl")
    text = (tmp_path / "toy.jsonl").read_text(encoding="utf-8").replace('"version":2', '"version":1')
    (tmp_path / "toy.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=r"Episode files carry a version\. Expected 2 or 3 in .*, found 1"):
        EpisodeSet.load(tmp_path / "toy.jsonl", TOY)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"An episode file must be JSONL with a header line.*FileNotFoundError"):
        EpisodeSet.load(tmp_path / "toy.jsonl", TOY)


DIGESTS_OF_INVENTED_SETS = {
    ("leave_last", "uniform"): "a1b558195b10ba5690ccd77e9ca19fdd155eca76b3863a387b1c16ad25fd176b",
    ("leave_last", "popularity"): "d5aef8799437b27193df7e315da315f9fb02b5a8a62990f5670d20ff1ff2cafd",
    ("leave_last", "llara"): "2689fdae41de33d91b267ce9881968133a7149b7f28f62ebd2d7223e7c22e31c",
    ("llara", "uniform"): "40249191deb436ce1fcd7d2a3da5037330606e604b9caf552a50bb24e8ac07d6",
    ("llara", "popularity"): "96a22eb3ab2c1e870674be7c69252e07673b8a6948cfe6fd8fb4205f15c8a765",
    ("llara", "llara"): "09ba7a33728f928c23ccd925e2a7a3abc5f6857b0238d38477dce53ead9d2272",
}


def test_invented_sets_are_those_of_every_version() -> None:
    dataset = load("synthetic", users=300, items=400, interactions=12_000, seed=1)
    splits = {"leave_last": leave_last(dataset), "llara": llara(dataset)}
    for (split, rule), digest in DIGESTS_OF_INVENTED_SETS.items():
        assert freeze(builder(splits[split], rule), "test").sha256 == digest  # type: ignore[arg-type]


def test_a_frozen_set_has_the_same_digest_in_another_process() -> None:
    code = (
        "from coars_env import *; s = leave_last(load('synthetic', users=60, items=90, interactions=1500)); "
        "print(freeze(builder(s, 'popularity'), 'test', draw=2).sha256)"
    )
    digests = set()
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "OMP_NUM_THREADS": number}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        digests.add(ran.stdout)
    split = leave_last(load("synthetic", users=60, items=90, interactions=1500))
    digests.add(freeze(builder(split, "popularity"), "test", draw=2).sha256 + "\n")
    assert len(digests) == 1


def test_a_set_and_a_split_say_in_a_line_what_they_are() -> None:
    assert repr(TOY_SPLIT.dataset) == "Dataset('toy', custom, 4 users, 6 items, 13 interactions)"
    assert len(repr(TOY_SPLIT)) < 100
    assert repr(toy_episodes()).startswith("EpisodeSet('toy")


def test_a_real_set_has_its_published_digest(ml100k_builder: TaskBuilder) -> None:
    assert freeze(ml100k_builder, "test").sha256 == DIGEST_OF_ML100K


DIGEST_OF_ML100K = "4af92fc2a3252eddbfc47f277b9023efc2c5e4ab4ed9dd792ee6ccd2d358d189"
