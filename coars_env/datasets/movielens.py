"""MovieLens 100K, 1M and latest-small -> Dataset, read from the official files, plain or gzipped."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coars_env.datasets.dataset import Dataset, FloatArray, IntArray, Item, item_permutation
from coars_env.datasets.download import cache_folder, check_digest, fetch, unzip
from coars_env.datasets.tables import AGAIN, Table, fault, locate, rows_of
from coars_env.errors import DatasetError, MissingDataError

_ADDRESS = "https://files.grouplens.org/datasets/movielens"
_RESEARCH = "for research; cite Harper and Konstan (2015); no endorsement, no commercial use, no redistribution"


@dataclass(frozen=True)
class Release:
    """A published version of MovieLens: where it is, how it is written and what it must hold."""

    folder: str
    """Name of the archive and of the folder in it, for instance "ml-100k"."""
    ratings_table: Table
    items_table: Table
    lowest: float
    """Lowest rating and also the step between ratings; the highest is 5."""
    ratings: int
    users: int
    rated_items: int
    licence: str
    md5: str | None = None
    """Digest of the archive."""
    members: tuple[tuple[str, str], ...] = ()
    """Files with their SHA-256, where the archive itself may be packed anew."""
    histogram: tuple[int, ...] = ()
    """Ratings per value, lowest first, where known."""

    @property
    def url(self) -> str:
        """Address of the official archive."""
        return f"{_ADDRESS}/{self.folder}.zip"


RELEASES = {
    "100k": Release(
        folder="ml-100k",
        ratings_table=Table("u.data", 4, "\t", "latin-1"),
        items_table=Table("u.item", 24, "|", "latin-1"),
        lowest=1.0,
        ratings=100_000,
        users=943,
        rated_items=1_682,
        histogram=(6_110, 11_370, 27_145, 34_174, 21_201),
        md5="0e33842e24a9c977be4e0107933c0723",
        licence=f"MovieLens 100K, {_RESEARCH}.",
    ),
    "1m": Release(
        folder="ml-1m",
        ratings_table=Table("ratings.dat", 4, "::", "latin-1"),
        items_table=Table("movies.dat", 3, "::", "latin-1"),
        lowest=1.0,
        ratings=1_000_209,
        users=6_040,
        rated_items=3_706,
        md5="c4d9eecfca2ab87c1945afe126590906",
        licence=f"MovieLens 1M, {_RESEARCH}.",
    ),
    "latest-small": Release(
        folder="ml-latest-small",
        ratings_table=Table("ratings.csv", 4, ",", "utf-8", ("userId", "movieId", "rating", "timestamp")),
        items_table=Table("movies.csv", 3, ",", "utf-8", ("movieId", "title", "genres")),
        lowest=0.5,
        ratings=100_836,
        users=610,
        rated_items=9_724,
        members=(
            ("ratings.csv", "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646"),
            ("movies.csv", "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07"),
        ),
        licence="MovieLens latest-small (2018-09-26), for research, not commercial; cite Harper and Konstan (2015); "
        "redistribution under the same conditions. A development set, not meant for published results.",
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
    the order of the file.

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
    release = find_release(variant)
    folder = _find_folder(release, data_dir)
    if folder is None:
        if not download:
            raise MissingDataError(_missing(release, data_dir))
        folder = _download(release, data_dir, verify=verify, url=url or release.url)
    return _read(f"movielens-{variant}", release, folder, verify=verify)


def find_release(variant: str) -> Release:
    """The published version of this name.

    Raises:
        DatasetError: if there is none.
    """
    if variant not in RELEASES:
        raise DatasetError(
            f"The variant of MovieLens must be known. Expected one of {', '.join(RELEASES)}, found {variant!r}. "
            "Choose one of these."
        )
    return RELEASES[variant]


def _find_folder(release: Release, data_dir: str | Path | None = None) -> Path | None:
    """The first folder that holds a file of this release, or None."""
    tables = (release.ratings_table, release.items_table)
    for root in _roots(data_dir):
        for folder in (root / "movielens" / release.folder, root / release.folder, root):
            if any(locate(folder, table.name) for table in tables):
                return folder
    return None


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


def _roots(data_dir: str | Path | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    from_environment = os.environ.get("COARS_DATA")
    return [*([Path(from_environment).expanduser()] if from_environment else []), cache_folder()]


def _missing(release: Release, data_dir: str | Path | None) -> str:
    looked = ", ".join(str(root) for root in _roots(data_dir))
    return (
        f"The files of {release.folder} must be at hand. Expected {release.ratings_table.name} and "
        f"{release.items_table.name}, plain or .gz, found neither in {looked}. Unpack {release.url} and set COARS_DATA "
        f"to the folder that holds {release.folder}/, or pass that folder as data_dir; or allow the download."
    )


def _download(release: Release, data_dir: str | Path | None, *, verify: bool, url: str) -> Path:
    """Fetch and unpack the archive below `movielens/`; the folder with the files."""
    home = _roots(data_dir)[-1] / "movielens"
    try:
        with tempfile.TemporaryDirectory() as name:
            digest = release.md5 if verify else None
            archive = fetch(url, Path(name) / "archive.zip", md5=digest, licence=release.licence)
            home.mkdir(parents=True, exist_ok=True)
            _install(archive, release, home, url, verify=verify)
    except MissingDataError as reason:
        raise MissingDataError(f"{_missing(release, data_dir)} The download failed: {reason}") from reason
    except OSError as reason:
        raise MissingDataError(f"{_missing(release, data_dir)} Nothing could be stored in {home}: {reason}") from reason
    return home / release.folder


def _install(archive: Path, release: Release, home: Path, url: str, *, verify: bool) -> None:
    with tempfile.TemporaryDirectory(dir=home, prefix=".unpacking.") as beside:  # on the same disk, to move at once
        unpacked = Path(beside) / "all"
        unzip(archive, unpacked)
        _check_members(release, unpacked / release.folder, url, verify=verify)
        (home / release.folder).mkdir(exist_ok=True)
        for path in (unpacked / release.folder).iterdir():
            os.replace(path, home / release.folder / path.name)


def _check_members(release: Release, folder: Path, url: str, *, verify: bool) -> None:
    for table in (release.ratings_table, release.items_table):
        if locate(folder, table.name) is None:
            expected = f"{release.folder}/{table.name}"
            raise fault(f"The archive {url} must hold the release.", expected=expected, found="no such member")
    for member, digest in release.members if verify else ():
        check_digest(folder / member, digest)


def _read(name: str, release: Release, folder: Path, *, verify: bool) -> Dataset:
    ids, items = _read_items(release, folder)
    order = item_permutation(len(items))
    index_of = {ids[position]: index for index, position in enumerate(order.tolist())}
    table = _read_ratings(release, folder, index_of)
    if verify:
        _check_figures(release, folder, table)
    user_ids, users = np.unique(table.users, return_inverse=True)
    rows = np.lexsort((np.arange(len(users)), table.timestamps, users))
    return Dataset(
        name=name,
        items=tuple(items[position] for position in order),
        item_ids=tuple(str(ids[position]) for position in order),
        user_ids=tuple(str(user) for user in user_ids),
        users=users[rows].astype(np.int64),
        item_indices=table.items[rows],
        ratings=table.ratings[rows],
        timestamps=table.timestamps[rows],
        source="real",
        origin=release.folder if verify else f"{release.folder}, not verified",
        licence=release.licence,
        source_rows=rows.astype(np.int64),
    )


def _read_items(release: Release, folder: Path) -> tuple[list[int], list[Item]]:
    """Ids and items in the order of the file."""
    table = release.items_table
    items: dict[int, Item] = {}
    for place, fields in rows_of(table, folder):
        if not fields[0].isdecimal() or len(fields[0]) > 15:
            raise fault(f"{place}: an item id must be a number.", expected="digits", found=repr(fields[0]))
        if int(fields[0]) in items:
            raise fault(f"{place}: an item is listed once.", expected="a new id", found=fields[0])
        title = display_title(fields[1])
        items[int(fields[0])] = Item(title, _genres(fields, place), title_year(title))
    return list(items), list(items.values())


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
    items: IntArray  # [N] catalogue indices
    ratings: FloatArray  # [N]
    timestamps: IntArray  # [N]


def _read_ratings(release: Release, folder: Path, index_of: dict[int, int]) -> _Ratings:
    users, items, ratings, timestamps = [], [], [], []
    seen: dict[tuple[int, int], str] = {}
    for place, fields in rows_of(release.ratings_table, folder):
        user, item_id, rating, timestamp = _numbers(fields, place)
        if not release.lowest <= rating <= 5 or rating % release.lowest:  # false for NaN too
            scale = f"{release.lowest:g} to 5 in steps of {release.lowest:g}"
            raise fault(f"{place}: a rating must be on the scale.", expected=scale, found=fields[2])
        item = index_of.get(item_id)
        if item is None:
            expected = f"an id of {release.items_table.name}"
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


def _check_figures(release: Release, folder: Path, table: _Ratings) -> None:
    figures = [
        ("ratings", release.ratings, len(table.users)),
        ("users", release.users, len(np.unique(table.users))),
        ("rated items", release.rated_items, len(np.unique(table.items))),
    ]
    for value, count in enumerate(release.histogram, start=1):
        figures.append((f"ratings of {value}", count, int((table.ratings == value).sum())))
    for what, expected, found in figures:
        if expected != found:
            raise fault(
                f"{folder / release.ratings_table.name} must be the published {release.folder}.",
                expected=f"{expected} {what}",
                found=str(found),
                remedy=f"{AGAIN} If it is a set of your own in this format, pass verify=False.",
            )
