"""Amazon Musical Instruments -> Dataset: LC-Rec's interactions, and the official reviews of 2014, 2018 and 2023.

Titles come from LC-Rec's list of items or from the official metadata. An item without one is called by its number in
the permuted catalogue ("Item 4711"), and the provenance counts such items: agents that read text learn nothing of them.
"""

import ast
import html
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coars_env.datasets.dataset import Columns, Dataset, Facet, Item, Times, arranged, clean_title
from coars_env.datasets.releases import Release, check_figures, choose, measure, open_release
from coars_env.datasets.tables import Table, fault, locate, needed, object_of, objects_of, rows_of

_LCREC = "https://github.com/wzf2000/GAMER/raw/e8e2a160965c9c7a55736f4dabd66012f4a7f8d0/data/Instruments"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"
_TERMS = "no licence stated: offered for research with citation; texts belong to Amazon and its users, so no passing on"
_ROOT_CATEGORY = "Musical Instruments"
_MARKUP = re.compile(r"getTime|aPageStart|<[a-zA-Z/!]")
"""Some titles of 2018 are pieces of a web page."""

RELEASES = {
    "lcrec": Release(
        name="lcrec-instruments",
        folders=("instruments/lcrec_letter", "lcrec_letter", "Instruments"),
        files=("Instruments.inter.json",),
        optional=("Instruments.item.json",),
        page="https://github.com/wzf2000/GAMER/tree/e8e2a160965c9c7a55736f4dabd66012f4a7f8d0/data/Instruments",
        addresses=(f"{_LCREC}/Instruments.inter.json", f"{_LCREC}/Instruments.item.json"),
        digests={
            "Instruments.inter.json": "0a11d47791d90483005da93c36d826679e20e4592d1d2b86518d5f56f218e743",
            "Instruments.item.json": "1d9938e576a8d964e6b977a2b63aa56402840a788eaa6685f26f0d910a7133f2",
        },
        licence=f"Amazon Musical Instruments as prepared for LC-Rec, {_TERMS}; cite Ni et al. (2019).",
        figures={"users": 24_772, "items": 9_922, "interactions": 206_153},
        shape=(24_772, 9_922, 206_153),
    ),
    "2014": Release(
        name="amazon-2014-instruments",
        folders=("instruments/amazon2014", "amazon2014"),
        files=("reviews_Musical_Instruments_5.json",),
        optional=("meta_Musical_Instruments.json",),
        page="https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/",
        addresses=(f"{_SNAP}/reviews_Musical_Instruments_5.json.gz", f"{_SNAP}/meta_Musical_Instruments.json.gz"),
        licence=f"Amazon Musical Instruments 2014, {_TERMS}; cite McAuley et al. (2015).",
        figures={"users": 1_429, "items": 900, "interactions": 10_261},
        shape=(1_429, 900, 10_261),
    ),
    "2018": Release(
        name="amazon-2018-instruments",
        folders=("instruments/amazon2018", "amazon2018"),
        files=("Musical_Instruments_5.json",),
        optional=("meta_Musical_Instruments.json",),
        page="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        addresses=(
            f"{_UCSD}/amazon_v2/categoryFilesSmall/Musical_Instruments_5.json.gz",
            f"{_UCSD}/amazon_v2/metaFiles2/meta_Musical_Instruments.json.gz",
        ),
        licence=f"Amazon Musical Instruments 2018, {_TERMS}; cite Ni et al. (2019).",
        shape=(27_500, 10_600, 231_400),
    ),
    "2023": Release(
        name="amazon-2023-instruments",
        folders=("instruments/amazon2023", "amazon2023"),
        files=("Musical_Instruments.csv",),
        optional=("meta_Musical_Instruments.jsonl",),
        page="https://amazon-reviews-2023.github.io/data_processing/5core.html",
        addresses=(
            f"{_UCSD}/amazon_2023/benchmark/5core/rating_only/Musical_Instruments.csv.gz",
            f"{_UCSD}/amazon_2023/raw/meta_categories/meta_Musical_Instruments.jsonl.gz",
        ),
        licence=f"Amazon Musical Instruments 2023, {_TERMS}; cite Hou et al. (2024).",
        shape=(57_400, 24_600, 511_800),
    ),
    "2023-reviews": Release(
        name="amazon-2023-instruments-reviews",
        folders=("instruments/amazon2023", "amazon2023"),
        files=("Musical_Instruments.jsonl",),
        optional=("meta_Musical_Instruments.jsonl",),
        page="https://amazon-reviews-2023.github.io/",
        addresses=(
            f"{_UCSD}/amazon_2023/raw/review_categories/Musical_Instruments.jsonl.gz",
            f"{_UCSD}/amazon_2023/raw/meta_categories/meta_Musical_Instruments.jsonl.gz",
        ),
        licence=f"Amazon Musical Instruments 2023, {_TERMS}; cite Hou et al. (2024).",
        shape=(57_400, 24_600, 511_800),
    ),
}


def load_instruments(
    variant: str = "lcrec",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    verify: bool = True,
    url: str | None = None,
) -> Dataset:
    """Read Amazon Musical Instruments. The files are looked for as those of MovieLens are, see `load_movielens`.

    "lcrec": `Instruments.inter.json`, user -> items in the order they were taken, without times or ratings, and
    `Instruments.item.json`. "2014", "2018": the 5-core reviews, one object a line, and the metadata, whose lines are
    JSON in 2018 and Python literals in 2014. "2023": the 5-core table of ratings and the metadata; "2023-reviews": all
    reviews, one object a line, in its place. Items that the metadata describe have facets "category", which are also
    their genres, and "brand" (in 2023 the store). A repeated pair of user and item stays; the splits count an item
    where it was first taken.

    Args:
        variant: "lcrec", "2014", "2018", "2023" or "2023-reviews".
        data_dir: where to look, and where to put a download.
        download: False raises MissingDataError instead of using the network.
        verify: False accepts files that differ from the published ones in digest or size.
        url: address of a folder with copies of the files.

    Raises:
        MissingDataError: if no copy is found and none can be had.
        DatasetError: if a file is damaged, or a row does not fit.
    """
    release = choose(RELEASES, "instruments", variant)
    folder = open_release(release, data_dir, download=download, verify=verify, url=url)
    rows, known = _read_lcrec(folder) if variant == "lcrec" else _read_amazon(variant, folder)
    columns, titled = _columns(rows, known, ticks_per_second=1 if variant in ("lcrec", "2014", "2018") else 1000)
    titles = "ids only" if not titled else f"titles of {titled} of {len(columns.items)} items"
    origin = ", ".join((release.name, titles, *(() if verify else ("not verified",))))
    times: Times = "order" if variant == "lcrec" else "seconds"
    name = f"instruments-{variant}"
    dataset = arranged(columns, name=name, source="real", origin=origin, licence=release.licence, times=times)
    if verify:
        check_figures(release, folder, measure(dataset))
    return dataset


class _Row(NamedTuple):
    """One interaction as the source has it."""

    user: str
    item: str
    rating: float
    tick: int


def _columns(rows: list[_Row], known: Mapping[str, Item], *, ticks_per_second: int) -> tuple[Columns, int]:
    """Also how many items have a title. Items and users are those of the interactions, by first appearance."""
    place_of: dict[str, int] = {}
    number_of: dict[str, int] = {}
    users = [number_of.setdefault(row.user, len(number_of)) for row in rows]
    places = [place_of.setdefault(row.item, len(place_of)) for row in rows]
    items = [known.get(item) for item in place_of]
    columns = Columns(
        item_ids=list(place_of),
        items=items,
        user_ids=list(number_of),
        users=np.array(users, dtype=np.int64),
        places=np.array(places, dtype=np.int64),
        ratings=np.array([row.rating for row in rows]),
        ticks=np.array([row.tick for row in rows], dtype=np.int64),
        ticks_per_second=ticks_per_second,
    )
    return columns, sum(item is not None for item in items)


# --- LC-Rec -----------------------------------------------------------------------------------------------------------


def _read_lcrec(folder: Path) -> tuple[list[_Row], dict[str, Item]]:
    path = needed(folder, "Instruments.inter.json")
    rows = []
    for user, items in _mapping(path).items():
        if not isinstance(items, list) or not items or not all(type(item) is int and item >= 0 for item in items):
            expected = "a list of item numbers"
            raise fault(f"{path}, user {user!r:.40}: a user has items.", expected=expected, found=repr(items)[:80])
        rows += [_Row(user, str(item), 1.0, tick) for tick, item in enumerate(items)]
    titles = locate(folder, "Instruments.item.json")
    known = {}
    for item, about in (_mapping(titles) if titles else {}).items():
        if not isinstance(about, dict):
            raise fault(f"{titles}, item {item!r:.40} must be described.", expected="an object", found=repr(about)[:80])
        categories = about.get("categories")
        path_of_categories = categories.split(",") if isinstance(categories, str) else ()
        # LC-Rec ends every title with a full stop of its own.
        title = str(about.get("title") or "").strip().removesuffix(".")
        known[item] = _item(title, path_of_categories, about.get("brand"))
    return rows, {item: found for item, found in known.items() if found is not None}


def _mapping(path: Path) -> dict[str, Any]:
    found = object_of(path)
    if not isinstance(found, dict) or not found:
        raise fault(f"{path} must hold an object.", expected="at least one name", found=type(found).__name__)
    return found


# --- Amazon's own files -----------------------------------------------------------------------------------------------


class _Fields(NamedTuple):
    """Names of the fields in a format."""

    user: str
    item: str
    rating: str
    time: str


_OLD = _Fields("reviewerID", "asin", "overall", "unixReviewTime")
_NEW = _Fields("user_id", "parent_asin", "rating", "timestamp")


def _read_amazon(variant: str, folder: Path) -> tuple[list[_Row], dict[str, Item]]:
    release, fields = RELEASES[variant], _OLD if variant in ("2014", "2018") else _NEW
    rows = [_row(values, place) for place, values in _reviews(release.files[0], fields, folder)]
    metadata = locate(folder, release.optional[0])
    if metadata is None:
        return rows, {}
    wanted = {row.item for row in rows}
    parse = _literal if variant == "2014" else json.loads
    known: dict[str, Item] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in a Python literal
        for _, about in objects_of(metadata, parse):
            item_id, title = about.get(fields.item), about.get("title")
            if isinstance(item_id, str) and item_id in wanted and item_id not in known:  # lines are repeated in 2018
                brand = about.get("brand") or about.get("store")
                item = _item(title if isinstance(title, str) else "", _path(about), brand)
                if item is not None:
                    known[item_id] = item
    return rows, known


def _reviews(name: str, fields: _Fields, folder: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """User, item, rating and time of each review, as they stand, with the place."""
    if not name.endswith(".csv"):
        for place, review in objects_of(needed(folder, name)):
            yield place, tuple(review.get(field) for field in fields)
        return
    for place, (user, item, rating, time) in rows_of(Table(name, len(fields), ",", "utf-8", tuple(fields)), folder):
        try:
            yield place, (user, item, float(rating), int(time))
        except ValueError:
            yield place, (user, item, rating, time)


def _row(values: tuple[Any, ...], place: str) -> _Row:
    user, item, rating, time = values
    named = all(isinstance(text, str) and text.strip() for text in (user, item))
    numbers = all(isinstance(number, int | float) for number in (rating, time))
    if not (named and numbers and 0 <= rating <= 5 and 0 <= time < 2**53 and time == int(time)):  # false for NaN too
        expected = "user, item, a rating from 0 to 5 and a time"
        raise fault(f"{place}: a review must be whole.", expected=expected, found=repr(values)[:120])
    return _Row(user, item, float(rating), int(time))


def _literal(line: str) -> Any:
    return ast.literal_eval(line.strip())


def _path(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The first path of categories; 2014 has a list of paths, the others one path."""
    found = about.get("categories") or about.get("category") or ()
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = found[0]
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()


def _item(raw: str, path: Sequence[str], brand: object) -> Item | None:
    """None without a usable title. Genres are the path of categories below the root, and so are facets "category"."""
    if _MARKUP.search(raw):
        return None
    title = _unescaped(raw)
    genres = tuple(dict.fromkeys(name for name in map(_unescaped, path) if name and name != _ROOT_CATEGORY))
    named = _unescaped(brand) if isinstance(brand, str) and not _MARKUP.search(brand) else ""
    named = named.removeprefix("by ")  # as some of 2018 are written
    facets = (*(Facet("category", genre) for genre in genres), *((Facet("brand", named),) if named else ()))
    return Item(title, genres, facets=facets) if title else None


def _unescaped(raw: str) -> str:
    return clean_title(html.unescape(raw))
