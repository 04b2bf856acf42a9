import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coars_env import Dataset, Facet, Item, leave_last, llara
from coars_env.datasets.instruments import load_instruments
from coars_env.errors import DatasetError, MissingDataError, TaskError

INTER = {"0": [0, 1, 2], "1": [2, 0, 3, 1]}
LISTED = {
    "0": {"title": "Lexicon Lambda &amp; Case.", "brand": "Lexicon", "categories": "Musical Instruments,Recording"},
    "1": {"title": "Violin Bow 4/4.", "categories": "Musical Instruments,Strings &amp; Bows,Bows"},
    "2": {"title": "", "categories": "Musical Instruments"},
    "7": {"title": "Nobody took this."},
}


def write_lcrec(folder: Path, inter: Any = INTER, listed: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Instruments.inter.json").write_text(json.dumps(inter, indent=4))
    if listed is not None:
        (folder / "Instruments.item.json").write_text(json.dumps(listed))
    return folder


def lines(rows: list[Any]) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def old_review(user: str, item: str, time: int, **changes: Any) -> dict[str, Any]:
    row = {"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": time, "reviewText": "Fine ½\u2028 bow."}
    return {**row, **changes}


def new_review(user: str, item: str, time: int) -> dict[str, Any]:
    return {"user_id": user, "asin": "child", "parent_asin": item, "rating": 4.0, "timestamp": time, "title": "Nice"}


REVIEWS = [old_review("A1", "B01", 200), old_review("A2", "B02", 50), old_review("A1", "B02", 100, overall=2.0)]
META_2014 = """{'asin': 'B01', 'title': "Bach's Horn", 'categories': [['Musical Instruments', 'Brass'], []]}
{'asin': 'B02', 'brand': 'Fender', 'imUrl': '\\u00e9.jpg', 'title': 'Caf\\xe9 Guitar', 'categories': [['Guitars']]}
{'asin': 'B99', 'title': 'Not in the reviews'}
"""
META_2018 = [
    {"asin": "B01", "title": "Brass &amp; Horn", "brand": "by B&amp;S", "category": ["Musical Instruments", "Brass"]},
    {"asin": "B01", "title": "The line again", "category": []},
    {"asin": "B02", "title": "<script>var aPageStart = (new Date()).getTime();</script>"},
]
META_2023 = [
    {"parent_asin": "B01", "title": "Horn", "categories": ["Musical Instruments", "Brass"], "store": "Bach"},
    {"parent_asin": "B02", "title": None, "categories": []},
]
CSV_2023 = "user_id,parent_asin,rating,timestamp\nA1,B01,5.0,1000900\nA1,B02,4.0,1000100\nA2,B01,1.0,1588615855070\n"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


def item(title: str, *categories: str, brand: str = "") -> Item:
    """What the metadata say of an item: categories are genres, too."""
    facets = (*(Facet("category", name) for name in categories), *([Facet("brand", brand)] if brand else []))
    return Item(title, categories, facets=facets)


def titles(dataset: Dataset) -> dict[str, Item]:
    return dict(zip(dataset.item_ids, dataset.items, strict=True))


def real_root() -> Path:
    root = os.environ.get("COARS_DATA")
    if not root or not (Path(root) / "instruments").is_dir():
        pytest.skip("COARS_DATA holds no instruments")
    return Path(root)


# LC-Rec ---------------------------------------------------------------------------------------------------------------


def test_ids_alone_get_labels_that_say_nothing_and_the_provenance_says_so(tmp_path: Path) -> None:
    dataset = load_instruments(data_dir=write_lcrec(tmp_path), verify=False)
    assert [[dataset.item_ids[i] for i in dataset.sequence(user)] for user in (0, 1)] == [list("012"), list("2031")]
    assert [item.title for item in dataset.items] == ["Item 0", "Item 1", "Item 2", "Item 3"]  # by place, not by id
    assert dataset.item_ids != ("0", "1", "2", "3")
    assert dataset.provenance.origin == "lcrec-instruments, ids only, not verified"
    assert (dataset.times, dataset.timestamps.tolist()) == ("order", [0, 1, 2, 0, 1, 2, 3])


def test_titles_are_read_where_they_lie_and_never_invented(tmp_path: Path) -> None:
    dataset = load_instruments(data_dir=write_lcrec(tmp_path, listed=LISTED), verify=False)
    found = titles(dataset)
    assert found["0"] == item("Lexicon Lambda & Case", "Recording", brand="Lexicon")
    assert found["1"] == item("Violin Bow 4/4", "Strings & Bows", "Bows")
    assert {found[name].title for name in "23"} == {f"Item {dataset.item_ids.index(name)}" for name in "23"}
    assert "7" not in found
    assert dataset.provenance.origin == "lcrec-instruments, titles of 2 of 4 items, not verified"


def test_an_order_without_times_can_be_cut_at_its_end_but_not_by_the_clock(tmp_path: Path) -> None:
    dataset = load_instruments(data_dir=write_lcrec(tmp_path), verify=False)
    assert [dataset.item_ids[s.items[-1]] for s in leave_last(dataset).test] == ["2", "1"]
    with pytest.raises(TaskError, match=r"Expected a dataset whose times are seconds, found 'order'"):
        llara(dataset)


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        ([1, 2], r"must hold an object\. Expected at least one name, found list"),
        ({}, r"must hold an object"),
        ({"0": []}, r"user '0': a user has items\. Expected a list of item numbers, found \[\]"),
        ({"0": [1], "1": [1, "2"]}, r"user '1': a user has items"),
        ({"0": [1, -2]}, r"user '0': a user has items"),
        ({"0": [True]}, r"user '0': a user has items"),
        ({"0": 5}, r"user '0': a user has items"),
    ],
)
def test_a_bad_user_is_named(tmp_path: Path, inter: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"Instruments\.inter\.json.*{message}"):
        load_instruments(data_dir=write_lcrec(tmp_path, inter), verify=False)


def test_a_list_of_items_of_another_form_is_refused(tmp_path: Path) -> None:
    write_lcrec(tmp_path, listed={"0": "Horn"})
    with pytest.raises(DatasetError, match=r"Instruments\.item\.json, item '0' must be described\. Expected an object"):
        load_instruments(data_dir=tmp_path, verify=False)


def test_a_copy_is_fetched_with_its_titles_and_checked(tmp_path: Path) -> None:
    made = write_lcrec(tmp_path / "made", listed=LISTED)
    with pytest.raises(DatasetError, match=r"Expected sha256 0a11d47791d9.*Instruments\.inter\.json"):
        load_instruments(data_dir=tmp_path / "a", url=made.as_uri())
    assert not (tmp_path / "a").exists()
    dataset = load_instruments(data_dir=tmp_path / "b", url=f"{made.as_uri()}/", verify=False)
    assert titles(dataset)["1"].title == "Violin Bow 4/4"
    (made / "Instruments.item.json").unlink()  # half a download is none
    with pytest.raises(MissingDataError, match=r"The download failed.*Instruments\.item\.json"):
        load_instruments(data_dir=tmp_path / "c", url=made.as_uri(), verify=False)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "brand", [None, 7, "", " ", "<script>var aPageStart = (new Date()).getTime();</script>", ["Fender"]]
)
def test_what_is_no_brand_is_none(tmp_path: Path, brand: Any) -> None:
    listed = {"0": {"title": "Horn", "brand": brand, "categories": "Brass"}}
    dataset = load_instruments(data_dir=write_lcrec(tmp_path, listed=listed), verify=False)
    assert titles(dataset)["0"] == item("Horn", "Brass")
    assert dataset.digest == replace(dataset, items=tuple(replace(i, facets=()) for i in dataset.items)).digest


# Amazon's own files ---------------------------------------------------------------------------------------------------


def test_the_format_of_2014_is_read_with_its_python_literals(tmp_path: Path) -> None:
    files = {"reviews_Musical_Instruments_5.json": lines(REVIEWS), "meta_Musical_Instruments.json": META_2014}
    dataset = load_instruments("2014", data_dir=write(tmp_path, files), verify=False)
    assert dataset.user_ids == ("A1", "A2")
    assert [dataset.item_ids[i] for i in dataset.sequence(0)] == ["B02", "B01"]
    assert (dataset.ratings.tolist(), dataset.timestamps.tolist()) == ([2, 5, 5], [100, 200, 50])
    horn, guitar = item("Bach's Horn", "Brass"), item("Café Guitar", "Guitars", brand="Fender")
    assert titles(dataset) == {"B01": horn, "B02": guitar}
    assert dataset.provenance.origin == "amazon-2014-instruments, titles of 2 of 2 items, not verified"


def test_the_format_of_2018_is_read_without_its_pieces_of_web_pages(tmp_path: Path) -> None:
    reviews = gzip.compress(lines([*REVIEWS, REVIEWS[0]]).encode())
    (
        write(tmp_path, {"meta_Musical_Instruments.json": lines(META_2018)}) / "Musical_Instruments_5.json.gz"
    ).write_bytes(reviews)
    dataset = load_instruments("2018", data_dir=tmp_path, verify=False)
    assert titles(dataset)["B01"] == item("Brass & Horn", "Brass", brand="B&S")
    assert titles(dataset)["B02"].title == f"Item {dataset.item_ids.index('B02')}"
    assert len(dataset.users) == 4  # a review that stands twice stays twice
    assert [dataset.item_ids[i] for i in dict.fromkeys(dataset.sequence(0).tolist())] == ["B02", "B01"]


def test_the_table_and_the_reviews_of_2023_are_read_alike(tmp_path: Path) -> None:
    meta = {"meta_Musical_Instruments.jsonl": lines(META_2023)}
    table = load_instruments("2023", data_dir=write(tmp_path / "a", {"Musical_Instruments.csv": CSV_2023, **meta}))
    assert table.timestamps.tolist() == [1000, 1000, 1588615855]  # milliseconds in the file
    assert [table.item_ids[i] for i in table.sequence(0)] == ["B02", "B01"]  # and they decide within a second
    assert titles(table)["B01"] == item("Horn", "Brass", brand="Bach")
    assert table.provenance.origin == "amazon-2023-instruments, titles of 1 of 2 items"
    reviews = [new_review("A1", "B01", 1000900), new_review("A1", "B02", 1000100)]
    folder = write(tmp_path / "b", {"Musical_Instruments.jsonl": lines(reviews), **meta})
    found = load_instruments("2023-reviews", data_dir=folder)
    assert [found.item_ids[i] for i in found.sequence(0)] == ["B02", "B01"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'asin': 'B01'}", r"row 4 must be one whole object in UTF-8\. Expected such, found JSONDecodeError"),
        ("[1]", r"row 4: a row must be an object\. Expected names and values, found list"),
        (old_review("", "B01", 1), r"row 4: a review must be whole\. Expected user, item, a rating from 0 to 5"),
        (old_review("A1", "B01", -1), r"a review must be whole"),
        (old_review("A1", "B01", 1, overall=6), r"a review must be whole"),
        (old_review("A1", "B01", 1, overall=float("nan")), r"a review must be whole"),
        (old_review("A1", "B01", 1, unixReviewTime="now"), r"a review must be whole"),
        ('{"reviewerID": "A1"}', r"a review must be whole"),
        ("[" * 100_000, r"row 4 must be one whole object"),
    ],
)
def test_a_bad_review_is_named(tmp_path: Path, row: Any, message: str) -> None:
    write(tmp_path, {"reviews_Musical_Instruments_5.json": lines([*REVIEWS, row])})
    with pytest.raises(DatasetError, match=rf"reviews_Musical_Instruments_5\.json, .*{message}"):
        load_instruments("2014", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize(
    "line", ["__import__('os').system('true')", "{'asin': open('x')}", "{'asin': 'B01'", "-" * 9_999]
)
def test_metadata_are_read_and_not_run(tmp_path: Path, line: str) -> None:
    files = {"reviews_Musical_Instruments_5.json": lines(REVIEWS), "meta_Musical_Instruments.json": line}
    with pytest.raises(DatasetError, match=r"meta_Musical_Instruments\.json, row 1 must be one whole object"):
        load_instruments("2014", data_dir=write(tmp_path, files), verify=False)


def test_reviews_without_metadata_are_ids_only_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path, {"reviews_Musical_Instruments_5.json": lines(REVIEWS)})
    dataset = load_instruments("2014", data_dir=folder, verify=False)
    assert dataset.provenance.origin == "amazon-2014-instruments, ids only, not verified"
    with pytest.raises(DatasetError, match=r"Expected 1429 users, found 2"):
        load_instruments("2014", data_dir=folder)
    write(tmp_path, {"reviews_Musical_Instruments_5.json": "\n"})
    with pytest.raises(DatasetError, match=r"must hold data"):
        load_instruments("2014", data_dir=folder, verify=False)


# Real files -----------------------------------------------------------------------------------------------------------


def test_instruments_have_the_published_figures() -> None:
    dataset = load_instruments(data_dir=real_root(), download=False)
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (24_772, 9_922, 206_153)
    lengths = np.bincount(dataset.users)
    assert [(lengths >= n).sum() for n in (5, 10, 20)] == [24_772, 5_503, 970]
    assert np.percentile(lengths, [0, 5, 25, 50, 75, 90, 95, 99, 100]).tolist() == pytest.approx(
        [5, 5, 5, 6, 9, 13, 18, 31, 218], abs=0.5
    )
    assert len(leave_last(dataset).test) == 24_772
    assert len({item.title for item in dataset.items}) == 9_922
