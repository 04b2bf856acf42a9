"""`coars data`, on small files in the official formats and, where they are, on real ones."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coars_env import EpisodeSet, list_datasets, load, load_split, register
from coars_env.cli import main as coars
from coars_env.commands.data import main, shape
from coars_env.errors import CoarsError, ConfigError, DatasetError, MissingDataError, TaskError
from coars_env.testing import toy_dataset

INTER = {"0": [0, 1, 2], "1": [2, 0, 3, 1]}


@pytest.fixture
def instruments(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "Instruments.inter.json").write_text(json.dumps(INTER))
    (folder / "Instruments.item.json").write_text(json.dumps({"0": {"title": "Horn."}}))
    return folder


def real_root() -> str:
    if "COARS_DATA" not in os.environ:
        pytest.skip("needs real files: set COARS_DATA")
    return os.environ["COARS_DATA"]


def test_the_list_shows_licence_address_and_what_is_here(instruments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (instruments / "Instruments.item.json").unlink()
    main(["list", "--data-dir", str(instruments)])
    blocks = re.split(r"\n(?=\w)", capsys.readouterr().out)
    found = {block.splitlines()[0]: block for block in blocks}
    assert f"found    {instruments}, without Instruments.item.json" in found["instruments --variant lcrec (default)"]
    assert "found    no" in found["movielens --variant 100k (default)"]
    assert "address  https://files.grouplens.org/datasets/hetrec2011" in found["lastfm --variant hetrec (default)"]
    assert all("licence" in block for name, block in found.items() if not name.startswith("synthetic"))
    assert len(found) == 11


def test_a_download_is_put_where_it_is_found(
    instruments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["download", "instruments", "--data-dir", str(tmp_path / "data"), "--url", instruments.as_uri()]
    with pytest.raises(DatasetError, match="must have its published digest"):
        main(words)
    main([*words, "--no-verify"])
    out, err = capsys.readouterr()
    assert (
        f"instruments-lcrec in {tmp_path}/data/instruments/lcrec_letter: real data, lcrec-instruments, titles of 1"
        in out
    )
    assert "Licence: Amazon Musical Instruments" in err
    main(["list", "--data-dir", str(tmp_path / "data")])
    assert f"found    {tmp_path}/data/instruments/lcrec_letter\n" in capsys.readouterr().out


def test_verify_names_what_differs(instruments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatasetError, match=r"Expected no difference, found 5, first lcrec-instruments: .*0a11d47791d9"):
        main(["verify", "instruments", "--data-dir", str(instruments)])
    out = capsys.readouterr().out
    assert "DIFFERS  24,772 users, found 2" in out
    assert "ok" not in out
    with pytest.raises(MissingDataError, match=r"Expected files of lastfm, found none"):
        main(["verify", "lastfm", "--data-dir", str(instruments)])


def test_what_has_no_files_cannot_be_fetched_or_verified(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("download", "verify"):
        with pytest.raises(DatasetError, match=r"one of instruments, lastfm, movielens, found 'synthetic'"):
            main([command, "synthetic"])
    with pytest.raises(DatasetError, match=r"Expected one of hetrec, afl, found '2k'"):
        main(["download", "lastfm", "--variant", "2k"])
    assert capsys.readouterr().out == ""


def test_the_shape_of_the_toy_is_as_counted_by_hand() -> None:
    # Users have 3, 3, 4, 3 items. Training counts 1 3 1 0 3 1; the held-out items are 5, 0, 3, 2, so by popularity
    # (ties by index) the items stand 1 4 0 2 5 3, and the targets at the places 4, 2, 5, 3. Left out what a user has
    # in training, the ranks are 4 - 2 = 2 (0 and 4 are ahead), 2 - 2 = 0, 5 - 3 = 2, 3 - 2 = 1.
    rows = dict(shape(toy_dataset()))
    assert (rows["users"], rows["items taken"], rows["interactions"], rows["mean length"]) == ("4", "6", "13", "3.2")
    assert rows["length min / p5 / p25 / p50"] == "3 / 3 / 3 / 3"
    assert rows["held-out item is the most popular"] == "0.00%"
    assert rows["full ranking by popularity, seen left out, Hit@1"] == "25.0%"
    assert rows["held-out item never seen in training"] == "25.0%"
    assert rows["share of the 20 most popular items"] == "100.0%"


@pytest.fixture
def toy() -> str:
    if "toy-of-data" not in list_datasets():
        register("toy-of-data", toy_dataset)
    return "toy-of-data"


def test_stats_of_any_data_set_are_printed(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["stats", toy])
    out = capsys.readouterr().out
    assert out.startswith("toy: custom data, toy, sha256 ")
    assert re.search(r"held out +last of 4 users", out)
    assert re.search(r"facets of kind 'genre' +8, of 100\.0% of the items\n +facets of kind 'decade' +5, of 100", out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["stats", "TOY", "--min-rating", "99"],
            r"a user of three items or more rated 99 or more in 'toy', found none",
        ),
        (["stats", "TOY", "--min-rating", "nan"], r"Expected one as min_rating, or None, found nan"),
        (["stats", "toys"], r"Expected one of .*, found 'toys'"),
        (["stats", "movielens", "--variant", "2m"], r"Expected one of 100k, 1m, latest-small, found '2m'"),
        (["stats", "movielens", "--data-dir", "FILE"], r"Nothing could be stored in .*Not a directory"),
        (["episodes", "TOY", "--draws", "-1"], r"Expected draws >= 1, found -1"),
        (["episodes", "TOY", "--candidates"], r"Expected the number of --candidates >= 1, found 0"),
        (["episodes", "TOY", "--num-candidates", "-3"], r"Expected num_candidates >= 2, found -3"),
        (["episodes", "TOY", "--num-candidates", "30"], r"Expected at least 29 that are not barred, found 3"),
        (["episodes", "TOY", "--num-candidates", "3", "--subset", "validation"], r"Expected some in 'validation'"),
        (
            ["episodes", "TOY", "--num-candidates", "3", "--out", "FILE"],
            r"cannot be written: .*Not a directory",
        ),
        (["download", "movielens", "--data-dir", "FILE/x", "--url", "http://[x"], r"Nothing could be stored"),
        (["download", "movielens", "--data-dir", "FOLDER", "--url", "http://[x"], r"http://\[x, found: Invalid IPv6"),
        (
            ["download", "movielens", "--data-dir", "FOLDER", "--url", "there"],
            r"file addresses only\. .* found 'there'",
        ),
        (["verify", "movielens", "--data-dir", "FILE"], r"Expected files of movielens, found none"),
    ],
)
def test_silly_values_are_answered_in_a_sentence(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    places = {"TOY": toy, "FILE": str(file), "FILE/x": str(file / "x"), "FOLDER": str(tmp_path / "new")}
    with pytest.raises(CoarsError, match=message):
        main([places.get(word, word) for word in words])
    assert "Traceback" not in capsys.readouterr().err


def test_episodes_are_written_under_their_names_with_their_digests(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rules = ["--candidates", "uniform", "popularity", "--draws", "2"]
    main(["episodes", toy, "--out", "sets", "--num-candidates", "3", *rules])
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [path for _, path, _ in lines] == [
        f"sets/toy/leave_last/test/{rule}/d{draw}.jsonl" for rule in ("uniform", "popularity") for draw in (0, 1)
    ]
    for digest, path, tasks in lines:
        assert EpisodeSet.load(path, toy_dataset()).sha256 == digest
        assert tasks == "4 tasks"
    with pytest.raises(ConfigError, match="Expected draws >= 1, found 0"):
        main(["episodes", toy, "--draws", "0"])


def test_episodes_with_instructions_are_written_and_read(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--instructions", "genre", "like", "--most-facets", "1", "--facet-noise", "0.25", "--num-candidates", "3"]
    main(["episodes", toy, "--out", str(tmp_path), "--candidates", "confusable", *words])
    digest, path, _ = capsys.readouterr().out.strip().split("  ")
    assert path == f"{tmp_path}/toy/leave_last/test/confusable/d0/genre+like-most1-noise0.25.jsonl"
    episodes = EpisodeSet.load(path, toy_dataset())
    assert (episodes.sha256, episodes.kinds) == (digest, ("genre", "like"))
    assert {task.instruction.noise for task in episodes if task.instruction} == {0.25}
    for values, message in (
        (["brand"], r"kinds must be in the data, got 'brand' where the items have only 'genre', 'decade'"),
        (["genre", "--facet-noise", "2"], r"noise must be a probability in \[0, 1\], got 2\.0"),
        (["genre", "--most-facets", "0"], r"Expected most >= 1, found 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            main(["episodes", toy, "--out", str(tmp_path), "--instructions", *values])


OWN = """
import coars_env, coars_env.testing

def load():
    return coars_env.testing.toy_dataset()

def split():
    return coars_env.split_users(load(), validation=["bob"], test=["ann", "cem"])
"""


def test_data_of_ones_own_are_named_by_their_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_toys.py").write_text(OWN)
    for name in ("my_toys:load", "my_toys:split"):
        main(["stats", name])
        assert capsys.readouterr().out.startswith("toy: custom data, toy, sha256 ")
    main(["episodes", "my_toys:split", "--out", "sets", "--num-candidates", "3", "--subset", "validation"])
    assert "  sets/toy/split_users/validation/uniform/d0.jsonl  1 tasks" in capsys.readouterr().out
    for words, message in (
        (["episodes", "my_toys:gone"], r"my_toys\.py has no 'gone'"),
        (["stats", "my_gone:load"], r"'my_gone:load' cannot be imported: .*No module named 'my_gone'"),
        (
            ["episodes", "my_toys:split", "--split", "llara"],
            r"split cannot be given beside the Split",
        ),
        (["download", "my_toys:load"], r"found 'my_toys:load'"),
    ):
        with pytest.raises(CoarsError, match=message):
            main(words)


def test_the_command_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    if coars(["--help"]) == 0 and "  data " not in capsys.readouterr().out:
        pytest.skip("the installed metadata are older than this command")
    assert coars(["data", "verify", "synthetic"]) == 1
    assert "coars data: The data set must be one that is read from files" in capsys.readouterr().err


# Real files -----------------------------------------------------------------------------------------------------------


def test_all_real_files_are_the_published_ones(capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", "--data-dir", real_root()])
    out = capsys.readouterr().out
    assert "DIFFERS" not in out
    assert len(re.findall(r"^\w+ --variant", out, flags=re.MULTILINE)) == 5
    for line in ("754 users of LLaRA's train", "17,632 items", "50,800 interactions of train", "206,153 interactions"):
        assert f"ok       {line}\n" in out


# Columns of the published table: ml-100k, ml-100k at ratings of 3 or more, latest-small, HetRec, Instruments.
SHAPES = {
    ("movielens", "100k", None): "0.3 8.3 1.4 12.7 0.3 8.7",
    ("movielens", "100k", 3.0): "0.6 9.0 2.0 14.0 0.3 9.4",
    ("movielens", "latest-small", None): "0.2 4.9 0.3 6.9 3.8 4.7",
    ("lastfm", "hetrec", None): "0.3 8.4 1.3 9.8 11.6 8.6",
    ("instruments", "lcrec", None): "0.5 7.2 2.4 7.4 0.02 9.9",
}


LONG = {  # lengths p75 / p90 / p95 / p99 / max
    ("movielens", "100k", None): "148 / 244 / 310 / 442 / 737",
    ("movielens", "100k", 3.0): "123 / 206 / 256 / 357 / 509",
    ("movielens", "latest-small", None): "168 / 400 / 610 / 1,256 / 2,698",
    ("lastfm", "hetrec", None): "50 / 50 / 50 / 50 / 50",
    ("instruments", "lcrec", None): "9 / 13 / 18 / 31 / 218",
}


@pytest.mark.parametrize(("name", "variant", "min_rating"), SHAPES)
def test_shapes_are_those_of_the_published_table(name: str, variant: str, min_rating: float | None) -> None:
    dataset = load(name, source="real", data_dir=real_root(), variant=variant, download=False)
    rows = shape(dataset, min_rating=min_rating)
    found = [float(value.rstrip("%")) for _, value in rows[-6:]]
    assert rows[5][1] == LONG[name, variant, min_rating]
    expected = [float(value) for value in SHAPES[name, variant, min_rating].split()]
    # Ties of popularity may fall otherwise; and which items of LastFM are held out is drawn.
    np.testing.assert_allclose(found, expected, atol=2.0 if name == "lastfm" else 0.25)


def test_a_real_set_of_episodes_is_the_known_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data-dir", real_root(), "--out", str(tmp_path)]
    main(["episodes", "lastfm", "--variant", "afl", "--candidates", "llara", *words])
    digest, path, tasks = capsys.readouterr().out.strip().split("  ")
    assert (digest, tasks) == (DIGEST_OF_AFL, "122 tasks")
    split = load_split("lastfm", variant="afl", source="real", data_dir=real_root(), download=False)
    assert EpisodeSet.load(path, split.dataset).name == "lastfm-afl/published/test/llara/d0"


DIGEST_OF_AFL = "f7324f564a576b34f83381357eff91c5f81f82189a08eb52b054bdcd9689142f"


def test_data_with_a_split_of_their_own_are_measured_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folds_of_the_test.py").write_text(
        "from coars_env import from_interactions, split_users\n"
        "def load():\n"
        "    rows = [(user, item) for user in range(6) for item in range(4)]\n"
        "    fold = ['train', 'train', 'train', 'validation', 'test', 'test']\n"
        "    return from_interactions({'user_id': [u for u, _ in rows], 'item_id': [i for _, i in rows],\n"
        "        'timestamp': list(range(len(rows))), 'fold': [fold[u] for u, _ in rows]},\n"
        "        {'item_id': list(range(4)), 'title': list('abcd')}, split='fold')\n"
        "def split():\n"
        "    return split_users(load(), validation=0.5)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    main(["stats", "folds_of_the_test:load"])
    assert "3 train, 1 validation, 2 test" in capsys.readouterr().out
    main(["stats", "folds_of_the_test:split"])
    assert "3 train, 3 validation, 0 test" in capsys.readouterr().out


def test_episodes_of_groups_are_frozen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["episodes", "synthetic", "--source", "synthetic", "--num-users", "3", "--out", str(tmp_path)]
    main(words)
    (line,) = capsys.readouterr().out.splitlines()
    path = tmp_path / "synthetic" / "leave_last_groups_3" / "test" / "uniform" / "d0.jsonl"
    assert line.endswith(f"{path}  {len(path.read_text(encoding='utf-8').splitlines()) - 1} tasks")
    with pytest.raises(TaskError, match=r"No 300 users of .* Ask for smaller groups"):
        main([*words, "--num-users", "300"])
    with pytest.raises(ConfigError, match=r"Expected num_users >= 2, found 0"):
        main([*words, "--num-users", "0"])
