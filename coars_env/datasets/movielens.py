"""MovieLens 100K, 1M and latest-small -> Dataset, read from the official files, plain or gzipped."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coars_env.datasets.dataset import Columns, Dataset, FloatArray, IntArray, Item, arranged
from coars_env.datasets.releases import Release, check_figures, choose, measure, open_release
from coars_env.datasets.tables import Table, fault, locate, rows_of
from coars_env.datasets.tags import frequent_tags

_ADDRESS = "https://files.grouplens.org/datasets/movielens"
_RESEARCH = "for research; cite Harper and Konstan (2015); no endorsement, no commercial use, no redistribution"


def _release(name: str, tables: "_Format", **rest: Any) -> Release:
    return Release(
        name=name,
        folders=(f"movielens/{name}", name),
        files=(tables.ratings.name, tables.items.name),
        optional=() if tables.tags is None else (tables.tags.name,),
        page=f"{_ADDRESS}/{name}.zip",
        archive=f"{_ADDRESS}/{name}.zip",
        inside=name,
        **rest,
    )


class _Format(NamedTuple):
    """How the files of a release are written."""

    ratings: Table
    items: Table
    lowest: float
    """Lowest rating and also the step between ratings; the highest is 5."""
    tags: Table | None = None


_FORMATS = {
    "100k": _Format(Table("u.data", 4, "\t", "latin-1"), Table("u.item", 24, "|", "latin-1"), 1.0),
    "1m": _Format(Table("ratings.dat", 4, "::", "latin-1"), Table("movies.dat", 3, "::", "latin-1"), 1.0),
    "latest-small": _Format(
        Table("ratings.csv", 4, ",", "utf-8", ("userId", "movieId", "rating", "timestamp")),
        Table("movies.csv", 3, ",", "utf-8", ("movieId", "title", "genres")),
        0.5,
        Table("tags.csv", 4, ",", "utf-8", ("userId", "movieId", "tag", "timestamp")),
    ),
}
RELEASES = {
    "100k": _release(
        "ml-100k",
        _FORMATS["100k"],
        md5="0e33842e24a9c977be4e0107933c0723",
        digests={
            "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
        },
        licence=f"MovieLens 100K, {_RESEARCH}.",
        figures={
            "interactions": 100_000,
            "users": 943,
            "items": 1_682,
            "taken items": 1_682,
            "ratings of 1": 6_110,
            "ratings of 2": 11_370,
            "ratings of 3": 27_145,
            "ratings of 4": 34_174,
            "ratings of 5": 21_201,
            "interactions rated 3 or more": 82_520,
            "items rated 3 or more": 1_574,
            "users of LLaRA's train": 754,
            "users of LLaRA's validation": 94,
            "users of LLaRA's test": 95,
            "interactions of LLaRA's train": 68_389,
        },
        shape=(943, 1_682, 100_000),
    ),
    "1m": _release(
        "ml-1m",
        _FORMATS["1m"],
        md5="c4d9eecfca2ab87c1945afe126590906",
        licence=f"MovieLens 1M, {_RESEARCH}.",
        figures={"interactions": 1_000_209, "users": 6_040, "taken items": 3_706},
        shape=(6_040, 3_706, 1_000_209),
    ),
    "latest-small": _release(
        "ml-latest-small",
        _FORMATS["latest-small"],
        digests={
            "ratings.csv": "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
            "movies.csv": "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
            "tags.csv": "92a9f8bb7916dceef6151209845788c3643f794dfa79d1feaec7121b5960399d",
        },
        licence="MovieLens latest-small (2018-09-26), for research, not commercial; cite Harper and Konstan (2015); "
        "redistribution under the same conditions. A development set, not meant for published results.",
        figures={"interactions": 100_836, "users": 610, "items": 9_742, "taken items": 9_724},
        shape=(610, 9_724, 100_836),
    ),
}

GENRE_FLAGS = (  # order of the last 19 columns of u.item
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NO_GENRE = ("unknown", "(no genres listed)", "")
_ARTICLES = "The|An|A|Il|La|Le|Les|L'|Der|Die|Das|El|Los|Las|Un|Une|Una"
_TRAILING_ARTICLE = re.compile(rf"([^()\s][^()]*), ({_ARTICLES})(?=\s*(?:[():]|$))")
_YEAR = re.compile(r"\((\d{4})\)")


def load_movielens(
    variant: str = "100k",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    verify: bool = True,
    url: str | None = None,
) -> Dataset:
    """Read a MovieLens release.

    The files are looked for in `data_dir` where it is given, else in `$COARS_DATA`, else in the cache folder. Each of
    these may be the release's own folder, hold it (`ml-100k/`), or hold it under `movielens/`. What is not found is
    downloaded, to `data_dir` where it is given, else to the cache folder. Ratings of one user with equal times keep
    the order of the file. Films have facets "genre", "decade" and, in latest-small, "tag": the tags of `tags.csv`,
    where it is there, that two users or more gave to five films or more (our choice).

    Args:
        variant: "100k", "1m" or "latest-small".
        data_dir: where to look, and where to put a download.
        download: False raises MissingDataError instead of using the network.
        verify: False accepts files that differ from the published release in digest or size, such as a small
            hand-written set. Rows are checked all the same.
        url: another address of the same archive, for instance a mirror.

    Raises:
        MissingDataError: if no copy is found and none can be had.
        DatasetError: if a file is damaged, or a row does not fit.
    """
    release = choose(RELEASES, "MovieLens", variant)
    folder = open_release(release, data_dir, download=download, verify=verify, url=url)
    dataset = _read(variant, folder, origin=release.name if verify else f"{release.name}, not verified")
    if verify:
        check_figures(release, folder, measure(dataset))
    return dataset


def display_title(raw: str) -> str:
    """Title as people say it: no surrounding blanks, a trailing article moved to the front, the year kept.

    Example: "Affair to Remember, An (1957)" becomes "An Affair to Remember (1957)"; names in brackets likewise.
    """

    def article_first(match: re.Match[str]) -> str:
        name, article = match.groups()
        return f"{article}{name}" if article.endswith("'") else f"{article} {name}"

    return _TRAILING_ARTICLE.sub(article_first, raw.strip())


def title_year(title: str) -> int | None:
    """The last four-digit number in brackets, or None."""
    years = _YEAR.findall(title)
    return int(years[-1]) if years else None


def _read(variant: str, folder: Path, *, origin: str) -> Dataset:
    form = _FORMATS[variant]
    ids, items = _read_items(form, folder)
    table = _read_ratings(form, folder, {item_id: place for place, item_id in enumerate(ids)})
    user_ids, users = np.unique(table.users, return_inverse=True)
    tags = frequent_tags(_tags_given(form, folder, set(ids)))
    columns = Columns(
        item_ids=[str(item_id) for item_id in ids],
        items=[replace(item, facets=tags.get(item_id, ())) for item_id, item in zip(ids, items, strict=True)],
        user_ids=[str(user) for user in user_ids],
        users=users,
        places=table.items,
        ratings=table.ratings,
        ticks=table.timestamps,
    )
    licence = RELEASES[variant].licence
    return arranged(columns, name=f"movielens-{variant}", source="real", origin=origin, licence=licence)


def _read_items(form: _Format, folder: Path) -> tuple[list[int], list[Item]]:
    """Ids and items in the order of the file."""
    items: dict[int, Item] = {}
    for place, fields in rows_of(form.items, folder):
        if not fields[0].isdecimal() or len(fields[0]) > 15:
            raise fault(f"{place}: an item id must be a number.", expected="digits", found=repr(fields[0]))
        if int(fields[0]) in items:
            raise fault(f"{place}: an item is listed once.", expected="a new id", found=fields[0])
        title = display_title(fields[1])
        items[int(fields[0])] = Item(title, _genres(fields, place), title_year(title))
    return list(items), list(items.values())


def _tags_given(form: _Format, folder: Path, ids: set[int]) -> Iterator[tuple[str, int, str]]:
    """User, film and tag of each row; none where there is no such file."""
    if form.tags is None or locate(folder, form.tags.name) is None:
        return
    for place, (user, item, tag, _) in rows_of(form.tags, folder):
        if not item.isdecimal() or len(item) > 15 or int(item) not in ids:
            raise fault(f"{place}: a tagged item must be listed.", expected=f"an id of {form.items.name}", found=item)
        yield user, int(item), tag


def _genres(fields: list[str], place: str) -> tuple[str, ...]:
    if len(fields) == 3:
        return tuple(genre for genre in fields[2].split("|") if genre not in _NO_GENRE)
    flags = fields[-len(GENRE_FLAGS) :]
    if not set(flags) <= {"0", "1"}:
        raise fault(f"{place}: genre flags are 0 or 1.", expected="0 or 1", found=repr(flags))
    return tuple(g for g, flag in zip(GENRE_FLAGS, flags, strict=True) if flag == "1" and g not in _NO_GENRE)


class _Ratings(NamedTuple):
    """Columns in the order of the file."""

    users: IntArray  # [N] ids of the file
    items: IntArray  # [N] places in the file of items
    ratings: FloatArray  # [N]
    timestamps: IntArray  # [N]


def _read_ratings(form: _Format, folder: Path, place_of: dict[int, int]) -> _Ratings:
    users, items, ratings, timestamps = [], [], [], []
    seen: dict[tuple[int, int], str] = {}
    for place, fields in rows_of(form.ratings, folder):
        user, item_id, rating, timestamp = _numbers(fields, place)
        if not form.lowest <= rating <= 5 or rating % form.lowest:  # false for NaN too
            scale = f"{form.lowest:g} to 5 in steps of {form.lowest:g}"
            raise fault(f"{place}: a rating must be on the scale.", expected=scale, found=fields[2])
        item = place_of.get(item_id)
        if item is None:
            expected = f"an id of {form.items.name}"
            raise fault(f"{place}: a rated item must be listed.", expected=expected, found=fields[1])
        first = seen.setdefault((user, item), place)
        if first is not place:
            found = f"user {user} and item {item_id} already in {first}"
            raise fault(f"{place}: a user rates an item once.", expected="a new pair", found=found)
        users.append(user)
        items.append(item)
        ratings.append(rating)
        timestamps.append(timestamp)
    return _Ratings(np.array(users), np.array(items), np.array(ratings), np.array(timestamps))


def _numbers(fields: list[str], place: str) -> tuple[int, int, float, int]:
    try:
        numbers = int(fields[0]), int(fields[1]), float(fields[2]), int(fields[3])
    except ValueError:
        numbers = -1, -1, 0.0, -1
    if min(numbers[0], numbers[1], numbers[3]) < 0 or max(numbers[0], numbers[1], numbers[3]) >= 2**53:
        expected = "user, item, rating and time in seconds"
        raise fault(f"{place}: a row of ratings holds numbers.", expected=expected, found=repr(fields))
    return numbers
