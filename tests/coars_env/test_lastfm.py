import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coars_env import (
    Provenance,
    TaskBuilder,
    TaskError,
    afl_user_test,
    freeze,
    leave_last,
    llara,
    load_split,
    published,
    random_holdout,
    uniform_candidates,
)
from coars_env.datasets.lastfm import load_lastfm, read_afl_users
from coars_env.errors import ConfigError, DatasetError, MissingDataError

# Five artists and two users as in HetRec: user 2 listened to 11, 12, 13 and 14, user 4 to 12 alone; nobody to 15.
ARTISTS = (
    "id\tname\turl\tpictureURL\n"
    '11\tBjörk\tu\tp\n12\t"Weird Al" Yankovic\tu\tp\n13\tAir\tu\t\n14\tモノ\tu\tp\n15\tLow\t\t\n'
)
LISTENS = "userID\tartistID\tweight\r\n2\t11\t900\r\n2\t12\t30\r\n2\t13\t7\r\n2\t14\t1\r\n4\t12\t5\r\n"

NAMES = "0::Morcheeba\n1::Enigma\n2::Café Del Mar\n3::Air\n4::Low\n"
AFL = {
    "train_sequences.json": [[0, 1, 2, 3], [2, 4]],
    "val.json": [{"row": 0, "history": [0, 2], "next": 3}],
    "test.json": [{"row": 0, "history": [1, 2, 3], "next": 4}, {"row": 1, "history": [0], "next": 1}],
}


def write_hetrec(folder: Path, *, artists: str = ARTISTS, listens: str = LISTENS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "artists.dat").write_bytes(artists.encode())
    (folder / "user_artists.dat").write_bytes(listens.encode())
    return folder


def write_afl(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in {**AFL, **changes}.items():
        (folder / name).write_text(json.dumps(rows))
    (folder / "id2name.txt").write_text(NAMES, encoding="utf-8")
    return folder


def real_root() -> Path:
    root = os.environ.get("COARS_DATA")
    if not root or not (Path(root) / "lastfm").is_dir():
        pytest.skip("COARS_DATA holds no lastfm")
    return Path(root)


def test_listens_are_read_with_their_artists_whatever_the_quotes(tmp_path: Path) -> None:
    dataset = load_lastfm(data_dir=write_hetrec(tmp_path), verify=False)
    names = dict(zip(dataset.item_ids, [item.title for item in dataset.items], strict=True))
    assert names == {"11": "Björk", "12": '"Weird Al" Yankovic', "13": "Air", "14": "モノ", "15": "Low"}
    found = {
        (dataset.user_ids[user], dataset.item_ids[item], rating)
        for user, item, rating in zip(dataset.users, dataset.item_indices, dataset.ratings, strict=True)
    }
    assert found == {("2", "11", 900), ("2", "12", 30), ("2", "13", 7), ("2", "14", 1), ("4", "12", 5)}
    assert (dataset.times, dataset.source_rows, set(dataset.timestamps)) == ("none", None, {0})
    assert dataset.provenance == Provenance("real", "hetrec2011-lastfm-2k, not verified", dataset.digest)


def test_tags_are_facets_where_both_of_their_files_are_there(tmp_path: Path) -> None:
    folder = write_hetrec(tmp_path)
    plain = load_lastfm(data_dir=folder, verify=False)
    given = [(user, artist, 7) for user in (2, 4) for artist in (11, 12, 13, 14, 15)]
    given += [(2, 99, 7), (2, 11, 8), (2, 11, 77)]  # an artist and a tag that are not listed, and a rare tag
    rows = "".join(f"{user}\t{artist}\t{tag}\t1\t4\t2009\r\n" for user, artist, tag in given)
    (folder / "user_taggedartists.dat").write_text(f"userID\tartistID\ttagID\tday\tmonth\tyear\r\n{rows}", newline="")
    assert load_lastfm(data_dir=folder, verify=False).items == plain.items
    (folder / "tags.dat").write_bytes("tagID\ttagValue\r\n7\tMúsica\r\n8\tmetal\r\n".encode("latin-1"))
    dataset = load_lastfm(data_dir=folder, verify=False)
    assert {item.values("tag") for item in dataset.items} == {("música",)}
    assert dataset.provenance == plain.provenance


def test_gzipped_files_and_any_place_in_the_folder_are_found(tmp_path: Path) -> None:
    plain = load_lastfm(data_dir=write_hetrec(tmp_path / "plain"), verify=False)
    folder = write_hetrec(tmp_path / "lastfm" / "hetrec2011")
    for name in ("artists.dat", "user_artists.dat"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert load_lastfm(data_dir=tmp_path, verify=False).digest == plain.digest


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2\t99\t3\r\n", r"row 7: an artist must be listed\. Expected an id of artists\.dat, found 99"),
        ("2\t11\t3\r\n", r"row 7: listens to an artist are added up\. .* already in .*row 2"),
        ("2\t15\r\n", r"row 7: a row must be whole\. Expected 3 columns, found 2"),
        ("2\t15\tmany\r\n", r"row 7: ids and weights are numbers\. Expected digits"),
        ("2\t15\t-1\r\n", r"ids and weights are numbers"),
    ],
)
def test_a_bad_listen_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"user_artists\.dat.*{message}"):
        load_lastfm(data_dir=write_hetrec(tmp_path, listens=LISTENS + row), verify=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("11\tAgain\tu\tp\n", r"row 7: an artist is listed once\. Expected a new id, found 11"),
        ("16\t \tu\tp\n", r"row 7: an artist needs a name"),
        ("16\tCut\n", r"row 7: a row must be whole\. Expected 4 columns, found 2"),
    ],
)
def test_a_bad_artist_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"artists\.dat.*{message}"):
        load_lastfm(data_dir=write_hetrec(tmp_path, artists=ARTISTS + row), verify=False)


def test_the_tables_need_their_headers_and_their_encoding(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"user_artists\.dat must begin with its header"):
        load_lastfm(data_dir=write_hetrec(tmp_path, listens="2\t11\t900\r\n"), verify=False)
    write_hetrec(tmp_path)
    (tmp_path / "artists.dat").write_bytes(ARTISTS.replace("モノ", "Mono").encode("latin-1"))
    with pytest.raises(DatasetError, match=r"artists\.dat must be UTF-8"):
        load_lastfm(data_dir=tmp_path, verify=False)


def test_files_that_are_not_the_published_ones_are_refused_unless_told(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"must be the published hetrec2011-lastfm-2k\. Expected 1892 users, found 2"
    ):
        load_lastfm(data_dir=write_hetrec(tmp_path))


def test_the_archive_has_its_files_at_its_root(tmp_path: Path) -> None:
    made = write_hetrec(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "mirror.zip", "w") as archive:
        for name in ("artists.dat", "user_artists.dat"):
            archive.write(made / name, name)
    url = (tmp_path / "mirror.zip").as_uri()
    with pytest.raises(DatasetError, match=r"Expected sha256 6738f48195667ff0.*verify=False"):
        load_lastfm(data_dir=tmp_path / "a", url=url)
    fetched = load_lastfm(data_dir=tmp_path / "b", url=url, verify=False)
    assert os.listdir(tmp_path / "b" / "lastfm") == ["hetrec2011"]
    assert load_lastfm(data_dir=tmp_path / "b", download=False, verify=False).digest == fetched.digest


def test_rows_without_times_are_no_sequence(tmp_path: Path) -> None:
    dataset = load_lastfm(data_dir=write_hetrec(tmp_path), verify=False)
    for split, name in ((leave_last, "leave_last"), (llara, "llara")):
        with pytest.raises(TaskError, match=rf"'{name}' goes by time\. .*found 'none' in 'lastfm-hetrec'.*random_hold"):
            split(dataset)
    held_out = {random_holdout(dataset, seed=seed).test[0].items for seed in range(40)}
    assert {items[-1] for items in held_out} == set(dataset.sequence(0).tolist())
    for seed in range(5):
        split = random_holdout(dataset, seed=seed)
        (test,), (train,) = split.test, split.train  # user 4 has one item and is left out
        assert (test.user, train.items) == (0, test.items[:-1])
        assert set(test.items) == set(dataset.sequence(0).tolist()) == split.owned[0]


def test_the_random_holdout_may_ask_for_listens(tmp_path: Path) -> None:
    dataset = load_lastfm(data_dir=write_hetrec(tmp_path), verify=False)
    split = random_holdout(dataset, min_rating=7)
    assert {dataset.item_ids[item] for item in split.test[0].items} == {"11", "12", "13"}


# The split of AFL -----------------------------------------------------------------------------------------------------


def test_the_parts_of_afl_are_kept_and_their_order_is_not(tmp_path: Path) -> None:
    dataset = load_lastfm("afl", data_dir=write_afl(tmp_path), verify=False)
    assert dataset.user_ids == ("train-0", "train-1", "validation-0", "test-0", "test-1")
    split = published(dataset)
    source = dataset.item_ids

    def ids(part: Any) -> list[tuple[set[str], str]]:
        return [({source[i] for i in s.items[:-1]}, source[s.items[-1]]) for s in part]

    assert ids(split.validation) == [({"0", "2"}, "3")]
    assert ids(split.test) == [({"1", "2", "3"}, "4"), ({"0"}, "1")]
    assert [{source[i] for i in s.items} for s in split.train] == [{"0", "1", "2", "3"}, {"2", "4"}]
    assert split.owned[3] == set(split.test[0].items)
    assert dataset.source_rows is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val.json": [{"row": 0, "history": [1]}]},
            r"val\.json, row 0: a row must be whole\. Expected history and next",
        ),
        ({"val.json": [[1, 2]]}, r"val\.json, row 0: a row must be whole"),
        ({"val.json": []}, r"val\.json must hold a list of rows"),
        ({"test.json": [{"history": [1], "next": 1}]}, r"test\.json, row 0: a row must be whole\. .* of different ids"),
        ({"test.json": [{"history": [1], "next": 77}]}, r"row 0: an artist must be listed\. .* found 77"),
        (
            {"train_sequences.json": [[0, 1], [0, "1"]]},
            r"row 1: a row must be whole\. Expected different ids in a list",
        ),
        ({"train_sequences.json": {"0": [1]}}, r"must hold a list of rows\. Expected at least one row, found dict"),
    ],
)
def test_a_bad_row_of_afl_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_lastfm("afl", data_dir=write_afl(tmp_path, **changes), verify=False)


def test_a_missing_part_is_an_error_and_pickles_are_never_fetched(tmp_path: Path) -> None:
    write_afl(tmp_path)
    (tmp_path / "val.json").unlink()
    with pytest.raises(DatasetError, match=r"needs all its files\. Expected val\.json or val\.json\.gz in"):
        load_lastfm("afl", data_dir=tmp_path, verify=False)
    with pytest.raises(MissingDataError, match=r"github\.com/Lanyu0303/AFL.*there is no address"):
        load_lastfm("afl", data_dir=tmp_path / "empty")


def test_data_without_a_published_split_have_none(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"Expected parts in 'lastfm-hetrec', found none\. .*variant='afl'"):
        published(load_lastfm(data_dir=write_hetrec(tmp_path), verify=False))


# Real files -----------------------------------------------------------------------------------------------------------


def test_hetrec_has_the_published_figures() -> None:
    dataset = load_lastfm(data_dir=real_root(), download=False)
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (1_892, 17_632, 92_834)
    titles = [item.title for item in dataset.items]
    assert len(set(titles)) == 17_631  # two names differ by a blank
    assert sum('"' in title for title in titles) == 16
    lengths = np.bincount(dataset.users)
    assert (lengths.min(), np.median(lengths), lengths.max()) == (1, 50, 50)
    assert [(lengths >= n).sum() for n in (5, 10, 20)] == [1_877, 1_874, 1_860]
    split = random_holdout(dataset)
    assert len(split.test) == 1_883
    taken = {item for sequence in split.train for item in sequence.items}
    cold = np.mean([sequence.items[-1] not in taken for sequence in split.test])
    assert cold == pytest.approx(0.116, abs=0.02)  # of another draw of the held-out items


def test_afl_has_the_published_figures_and_nothing_of_its_order() -> None:
    root = real_root()
    dataset = load_lastfm("afl", data_dir=root, download=False)
    split = published(dataset)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [976, 122, 122]
    assert (dataset.num_items, sum(len(s.items) for s in split.train)) == (4_606, 50_800)
    expected = json.loads((root / "lastfm" / "llara_afl" / "test.json").read_text())
    source = [int(item_id) for item_id in dataset.item_ids]
    for sequence, row in zip(split.test, expected, strict=True):
        assert {source[item] for item in sequence.items[:-1]} == set(row["history"])
        assert source[sequence.items[-1]] == row["next"]
    artist = json.loads((root / "lastfm" / "llara_afl" / "id2hetrec_artist.json").read_text())
    number = [artist[item_id] for item_id in dataset.item_ids]
    ascending = [number[a] < number[b] for s in split.train for a, b in zip(s.items, s.items[1:], strict=False)]
    assert np.mean(ascending) == pytest.approx(0.5, abs=0.02)  # in AFL's files it is 1


def test_by_the_ids_of_the_file_a_rule_finds_half_of_the_targets() -> None:
    split = random_holdout(load_lastfm(data_dir=real_root(), download=False))
    artist = np.array([int(item_id) for item_id in split.dataset.item_ids])
    episodes = freeze(TaskBuilder(split, uniform_candidates(split.dataset.num_items)), "test")

    def nearest(numbers: np.ndarray) -> float:
        hits = []
        for task in episodes:
            gaps = np.abs(numbers[list(task.candidates)][:, None] - numbers[list(task.history)]).min(axis=1)
            hits.append(task.candidates[int(gaps.argmin())] == task.target)
        return float(np.mean(hits))

    assert nearest(artist) > 0.4
    assert nearest(np.arange(len(artist))) < 0.07  # our numbers; chance is .05


def test_the_default_split_fits_the_data() -> None:
    real_root()
    assert load_split("lastfm", source="real", download=False).name == "random_holdout"
    assert load_split("lastfm", variant="afl", source="real", download=False).name == "published"


# --- AFL's own users --------------------------------------------------------------------------------------------------


def test_the_users_of_afl_are_read_as_they_stand(tmp_path: Path) -> None:
    write_afl(tmp_path)
    (tmp_path / "ab_test_llara.json").write_text('[{"user_id": 7, "artist_list": [2, 0], "full_list": [0, 1, 2]}]')
    assert read_afl_users(data_dir=tmp_path, verify=False) == [(["2", "0"], ["0", "1", "2"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must hold a list of users"),
        ('[{"artist_list": [3], "full_list": [0, 1]}]', "user 0: a row must be whole"),
        ('[{"artist_list": [1, 1], "full_list": [0, 1]}]', "user 0: a row must be whole"),
        ("[7]", "user 0: a row must be whole"),
    ],
)
def test_bad_users_of_afl_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_afl(tmp_path)
    (tmp_path / "ab_test_llara.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_afl_users(data_dir=tmp_path, verify=False)


def test_afls_own_users_are_asked_by_its_rules() -> None:
    root = real_root()
    split = published(load_lastfm("afl", data_dir=root, download=False))
    test = afl_user_test(split, data_dir=root)
    assert len(test.users) == 60
    source = split.dataset.item_ids
    for user, (shown, owned) in zip(test.users, read_afl_users(data_dir=root), strict=True):
        assert [source[i] for i in (*user.history, *user.positives)] == shown
        assert len(user.positives) == 10
        assert len(user.negatives) == 18
        assert not {source[i] for i in user.negatives} & set(owned)
    assert test.sha256 != afl_user_test(split, data_dir=root, draw=1).sha256
    with pytest.raises(ConfigError, match="AFL's users are of AFL's LastFM"):
        afl_user_test(load_split("synthetic", users=24, items=80, interactions=400), data_dir=root)
