"""Whatever bytes lie in a file: a dataset, or an error of ours that says what was expected; never another exception."""

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import CoarsError, Dataset, EpisodeSet, read_transcripts
from coars_env.datasets.instruments import load_instruments
from coars_env.datasets.lastfm import load_lastfm
from coars_env.datasets.movielens import load_movielens
from coars_env.testing import toy_dataset

FLAGS = "|0" * 18 + "|1"
REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 9}
REVIEW_2023 = {"user_id": "A1", "parent_asin": "B1", "rating": 5.0, "timestamp": 9}


class Format(NamedTuple):
    """A reader and a small set in its format."""

    load: Callable[..., Dataset]
    variant: str
    files: dict[str, str]


FORMATS = [
    Format(
        load_movielens, "100k", {"u.data": "1\t2\t3\t4\n1\t3\t5\t4\n", "u.item": f"2|A|x||u{FLAGS}\n3|B|x||u{FLAGS}\n"}
    ),
    Format(load_movielens, "1m", {"ratings.dat": "1::2::3::4\n", "movies.dat": "2::A (1990)::Drama\n"}),
    Format(
        load_movielens,
        "latest-small",
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,4\n",
            "movies.csv": 'movieId,title,genres\n2,"A, The",X\n',
        },
    ),
    Format(
        load_lastfm,
        "hetrec",
        {
            "artists.dat": "id\tname\turl\tpictureURL\n1\tÄ\tu\tp\n",
            "user_artists.dat": "userID\tartistID\tweight\r\n1\t1\t5\r\n",
        },
    ),
    Format(
        load_lastfm,
        "afl",
        {
            "id2name.txt": "0::A\n1::B\n",
            "train_sequences.json": "[[0, 1]]",
            "val.json": '[{"history": [0], "next": 1}]',
            "test.json": '[{"history": [1], "next": 0}]',
        },
    ),
    Format(
        load_instruments,
        "lcrec",
        {
            "Instruments.inter.json": '{"0": [0, 1]}',
            "Instruments.item.json": '{"0": {"title": "A.", "categories": "M,N"}}',
        },
    ),
    Format(
        load_instruments,
        "2014",
        {
            "reviews_Musical_Instruments_5.json": json.dumps(REVIEW) + "\n",
            "meta_Musical_Instruments.json": "{'asin': 'B1', 'title': 'A', 'categories': [['M', 'N']]}\n",
        },
    ),
    Format(
        load_instruments,
        "2018",
        {
            "Musical_Instruments_5.json": json.dumps(REVIEW) + "\n",
            "meta_Musical_Instruments.json": '{"asin": "B1", "title": "A", "category": ["M"]}\n',
        },
    ),
    Format(
        load_instruments,
        "2023",
        {
            "Musical_Instruments.csv": "user_id,parent_asin,rating,timestamp\nA1,B1,5.0,9\n",
            "meta_Musical_Instruments.jsonl": '{"parent_asin": "B1", "title": "A", "categories": ["M"]}\n',
        },
    ),
    Format(load_instruments, "2023-reviews", {"Musical_Instruments.jsonl": json.dumps(REVIEW_2023) + "\n"}),
]
EVERY = pytest.mark.parametrize("form", FORMATS, ids=[f"{f.load.__name__}-{f.variant}" for f in FORMATS])


def read(form: Format, files: dict[str, bytes]) -> Dataset | None:
    """The dataset, or None where an error of ours was raised."""
    with TemporaryDirectory() as name:
        for file, content in files.items():
            Path(name, file).write_bytes(content)
        try:
            dataset = form.load(form.variant, data_dir=name, download=False, verify=False)
        except CoarsError as error:
            assert "Expected" in str(error)  # noqa: PT017
            return None
        finally:
            assert sorted(os.listdir(name)) == sorted(files)  # a reader writes nothing
        assert len(dataset.digest) == 64
        return dataset


def written(form: Format) -> dict[str, bytes]:
    encoding = "latin-1" if form.load is load_movielens else "utf-8"
    return {name: text.encode(encoding) for name, text in form.files.items()}


@EVERY
def test_the_small_set_is_read_plain_and_gzipped(form: Format) -> None:
    plain = read(form, written(form))
    zipped = read(form, {f"{name}.gz": gzip.compress(content) for name, content in written(form).items()})
    assert plain is not None
    assert zipped is not None
    assert plain.digest == zipped.digest


@EVERY
@given(st.data())
def test_a_few_changed_bytes(form: Format, data: st.DataObject) -> None:
    files = written(form)
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not content:
            break
    read(form, {**files, name: bytes(content)})


@EVERY
@given(st.data())
def test_any_bytes(form: Format, data: st.DataObject) -> None:
    files = written(form)
    name = data.draw(st.sampled_from(sorted(files)))
    content = data.draw(
        st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")))
    )
    if data.draw(st.booleans()):
        read(form, {**files, name: content})
    else:  # a file that only says that it is gzipped
        read(form, {**{n: c for n, c in files.items() if n != name}, f"{name}.gz": content})


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "form", [f for f in FORMATS if any("json" in name for name in f.files)], ids=lambda f: f.variant
)
@given(st.data())
def test_any_value_in_json(form: Format, data: st.DataObject) -> None:
    files = written(form)
    name = data.draw(st.sampled_from(sorted(name for name in files if "json" in name)))
    value = json.loads(files[name]) if form.variant != "2014" or name.startswith("reviews") else {"asin": "B1"}
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    value[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    read(form, {**files, name: json.dumps(value).encode()})


@given(st.binary(max_size=200))
def test_any_bytes_as_an_episode_file_or_transcripts(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        for reader in (lambda: EpisodeSet.load(path, toy_dataset()), lambda: list(read_transcripts(path))):
            try:
                reader()
            except CoarsError as error:
                assert "Expected" in str(error)  # noqa: PT017


def test_a_gzip_bomb_in_a_line_or_a_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    line = gzip.compress(b"{" + b" " * (40 << 20))  # 40 MiB of blanks in one line, 40 kB on the disk
    (tmp_path / "Musical_Instruments_5.json.gz").write_bytes(line)
    with pytest.raises(CoarsError, match=r"row 1 must be one whole object"):
        load_instruments("2018", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize("member", ["../u.data", "/tmp/u.data", "ml-100k/../../u.data"])
def test_an_archive_that_reaches_outside_leaves_nothing_behind(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "mirror.zip", "w") as archive:
        archive.writestr(member, "1\t2\t3\t4\n")
    for load, variant in ((load_movielens, "100k"), (load_lastfm, "hetrec")):
        with pytest.raises(CoarsError, match="must be plain files inside it"):
            load(variant, data_dir=tmp_path / "data", url=(tmp_path / "mirror.zip").as_uri(), verify=False)
        assert os.listdir(tmp_path) == ["mirror.zip"]
