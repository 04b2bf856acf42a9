"""LastFM -> Dataset: the listens of HetRec 2011 as published, and the split of tagged artists that AFL and LLaRA use.

Neither has times. HetRec lists the artists of a user by ascending id, and AFL's sequences ascend by HetRec's artist id
in every row: "the next artist" is the one of the highest id, which a rule that reads ids alone finds in a third of the
rows. So the rows of a user are shuffled here by a fixed seed, in training and in histories alike, and what is called
history is a set of earlier items, not a sequence. See docs/datasets.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coars_env.datasets.dataset import Columns, Dataset, Item, Part, arranged, clean_title
from coars_env.datasets.releases import Release, check_figures, choose, measure, open_release
from coars_env.datasets.tables import Table, fault, locate, needed, object_of, rows_of
from coars_env.datasets.tags import frequent_tags

_ARTISTS = Table("artists.dat", 4, "\t", "utf-8", ("id", "name", "url", "pictureURL"))
_LISTENS = Table("user_artists.dat", 3, "\t", "utf-8", ("userID", "artistID", "weight"))
_TAGS = Table("tags.dat", 2, "\t", "latin-1", ("tagID", "tagValue"))
_TAGGED = Table("user_taggedartists.dat", 6, "\t", "utf-8", ("userID", "artistID", "tagID", "day", "month", "year"))
_NAMES = Table("id2name.txt", 2, "::", "utf-8")
_PARTS: tuple[tuple[Part, str], ...] = (
    ("train", "train_sequences.json"),
    ("validation", "val.json"),
    ("test", "test.json"),
)
_TERMS = "for research, not commercial; cite Last.fm (www.lastfm.com) and Cantador, Brusilovsky and Kuflik (2011)"

RELEASES = {
    "hetrec": Release(
        name="hetrec2011-lastfm-2k",
        folders=("lastfm/hetrec2011", "hetrec2011-lastfm-2k", "hetrec2011"),
        files=(_LISTENS.name, _ARTISTS.name),
        optional=(_TAGS.name, _TAGGED.name),
        page="https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
        archive="https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
        sha256="6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
        digests={
            "user_artists.dat": "001400dc3c7d2667fca6e4ea6dc6acc31a9dd28ad5cd0f74cea988c019934d3b",
            "artists.dat": "c173881362c6b28551368fecb3c0be5a6a30a6cd859e1f5775413dfe46d48648",
        },
        licence=f"HetRec 2011 LastFM, {_TERMS}.",
        figures={"users": 1_892, "items": 17_632, "interactions": 92_834},
        shape=(1_892, 17_632, 92_834),
    ),
    "afl": Release(
        name="afl-lastfm",
        folders=("lastfm/llara_afl", "llara_afl"),
        files=(*(name for _, name in _PARTS), _NAMES.name),
        page="https://github.com/Lanyu0303/AFL/tree/4622a1e163df5db669a56ade4d7db334bc109d06/data/lastfm",
        digests={
            "train_sequences.json": "77a76b765a3583d350cbed9c64a8fb4f51d402a3c95ff5fa558cd7a667e2a8e9",
            "val.json": "da240413c6384d645d9624843e97ac1c4052de78571a697bdfd14e064a09217b",
            "test.json": "c5c2427c15c3480d7c9efe2bab5f9cc05ab724303388b4d49352938fb7aeba51",
            "id2name.txt": "b608bcf14300b1608ccd88f4fe240e6345125201ecdb55157395c19787fe4eaf",
        },
        licence=f"AFL's files (MIT) of HetRec 2011 LastFM, {_TERMS}.",
        figures={
            "items": 4_606,
            "users of train": 976,
            "users of validation": 122,
            "users of test": 122,
            "interactions of train": 50_800,
        },
        shape=(1_220, 4_606, 52_900),
    ),
}


def load_lastfm(
    variant: str = "hetrec",
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    verify: bool = True,
    url: str | None = None,
) -> Dataset:
    """Read LastFM. The files are looked for as those of MovieLens are, see `load_movielens`.

    "hetrec" reads `artists.dat` and `user_artists.dat` of the official archive; the rating of an interaction is the
    number of listens. Where `tags.dat` and `user_taggedartists.dat` are there, too, artists have facets "tag": the tags
    that two users or more gave to five artists or more (our choice). "afl" reads AFL's three parts as plain JSON
    (`train_sequences.json`, a list of lists of ids; `val.json` and `test.json`, lists of objects with `history` and
    `next`) and `id2name.txt`. AFL publishes pickles, which run code when they are read, so nothing is fetched for this
    variant and no pickle is opened.

    Args:
        variant: "hetrec" or "afl".
        data_dir: where to look, and where to put a download.
        download: False raises MissingDataError instead of using the network.
        verify: False accepts files that differ from the published ones in digest or size.
        url: another address of HetRec's archive.

    Raises:
        MissingDataError: if no copy is found and none can be had.
        DatasetError: if a file is damaged, or a row does not fit.
    """
    release = choose(RELEASES, "LastFM", variant)
    folder = open_release(release, data_dir, download=download, verify=verify, url=url)
    columns, parts = _read_hetrec(folder) if variant == "hetrec" else _read_afl(folder)
    origin = release.name if verify else f"{release.name}, not verified"
    name = f"lastfm-{variant}"
    dataset = arranged(
        columns, name=name, source="real", origin=origin, licence=release.licence, times="none", parts=parts
    )
    if verify:
        check_figures(release, folder, measure(dataset))
    return dataset


def read_afl_users(*, data_dir: str | Path | None = None, verify: bool = True) -> list[tuple[list[str], list[str]]]:
    """AFL's own users for its test of user agents: of each, at most 20 artists in AFL's order, and all its artists.

    They stand in `ab_test_llara.json` beside the files of the variant "afl", a list of objects with `artist_list` and
    `full_list`. Ids are those of `Dataset.item_ids`.

    Raises:
        MissingDataError: no copy of the variant is found.
        DatasetError: the file is missing or damaged.
    """
    folder = open_release(RELEASES["afl"], data_dir, download=False, verify=verify, url=None)
    path = needed(folder, "ab_test_llara.json")
    rows = object_of(path)
    if not isinstance(rows, list) or not rows:
        raise fault(f"{path} must hold a list of users.", expected="at least one", found=type(rows).__name__)
    users = []
    for number, row in enumerate(rows):
        shown: Any
        owned: Any
        shown, owned = (row.get("artist_list"), row.get("full_list")) if isinstance(row, dict) else (None, None)
        if not _are_ids(shown) or not _are_ids(owned) or not set(shown) <= set(owned) or len(set(shown)) < len(shown):
            expected = "artist_list, of different ids, and full_list, which has them all"
            raise fault(f"{path}, user {number}: a row must be whole.", expected=expected, found=repr(row)[:80])
        users.append((list(map(str, shown)), list(map(str, owned))))
    return users


def _read_hetrec(folder: Path) -> tuple[Columns, None]:
    items = _artists(_ARTISTS, folder)
    place_of = {artist: number for number, artist in enumerate(items)}
    seen: dict[tuple[int, int], str] = {}
    rows: list[tuple[int, int, int]] = []
    for place, fields in rows_of(_LISTENS, folder):
        user, artist, weight = _numbers(fields, place)
        if artist not in place_of:
            raise fault(f"{place}: an artist must be listed.", expected="an id of artists.dat", found=fields[1])
        first = seen.setdefault((user, artist), place)
        if first is not place:
            found = f"user {user} and artist {artist} already in {first}"
            raise fault(f"{place}: listens to an artist are added up.", expected="a new pair", found=found)
        rows.append((user, place_of[artist], weight))
    users, places, weights = np.array(rows, dtype=np.int64).T
    tags = frequent_tags(_tags_given(folder))
    user_ids, users = np.unique(users, return_inverse=True)
    columns = Columns(
        item_ids=[str(artist) for artist in items],
        items=[replace(item, facets=tags.get(artist, ())) for artist, item in items.items()],
        user_ids=[str(user) for user in user_ids],
        users=users,
        places=places,
        ratings=weights.astype(np.float64),
        ticks=np.zeros(len(rows), dtype=np.int64),
    )
    return columns, None


def _tags_given(folder: Path) -> Iterator[tuple[int, int, str]]:
    """User, artist and tag of each row; none where one of the two files is missing, or of a tag that is not listed."""
    if locate(folder, _TAGS.name) is None or locate(folder, _TAGGED.name) is None:
        return
    tags = {_numbers(fields[:1], place)[0]: fields[1] for place, fields in rows_of(_TAGS, folder)}
    for place, fields in rows_of(_TAGGED, folder):
        user, artist, tag = _numbers(fields[:3], place)
        if tag in tags:
            yield user, artist, tags[tag]


def _numbers(fields: Sequence[str], place: str) -> list[int]:
    if not all(field.isdecimal() and len(field) <= 15 for field in fields):
        raise fault(f"{place}: ids and weights are numbers.", expected="digits", found=repr(list(fields)))
    return [int(field) for field in fields]


def _artists(table: Table, folder: Path) -> dict[int, Item]:
    """Id -> artist, from a table whose first two columns are id and name, in the order of the file."""
    items: dict[int, Item] = {}
    for place, fields in rows_of(table, folder):
        (artist,) = _numbers(fields[:1], place)
        if artist in items:
            raise fault(f"{place}: an artist is listed once.", expected="a new id", found=fields[0])
        name = clean_title(fields[1])
        if not name:
            raise fault(f"{place}: an artist needs a name.", expected="a text", found=repr(fields[1]))
        items[artist] = Item(name)
    return items


def _read_afl(folder: Path) -> tuple[Columns, tuple[Part, ...]]:
    items = _artists(_NAMES, folder)
    place_of = {artist: number for number, artist in enumerate(items)}
    users, places, ticks = [], [], []
    user_ids: list[str] = []
    parts: list[Part] = []
    for part, name in _PARTS:
        for number, (history, target) in enumerate(_sequences(folder, part, name)):
            for artist in (*history, *target):
                if artist not in place_of:
                    where = f"{folder / name}, row {number}"
                    raise fault(
                        f"{where}: an artist must be listed.", expected="an id of id2name.txt", found=str(artist)
                    )
                users.append(len(user_ids))
                places.append(place_of[artist])
            ticks += [0] * len(history) + [1] * len(target)  # the target stays last when the rest is shuffled
            user_ids.append(f"{part}-{number}")
            parts.append(part)
    columns = Columns(
        item_ids=[str(artist) for artist in items],
        items=list(items.values()),
        user_ids=user_ids,
        users=np.array(users, dtype=np.int64),
        places=np.array(places, dtype=np.int64),
        ratings=np.ones(len(users)),
        ticks=np.array(ticks, dtype=np.int64),
    )
    return columns, tuple(parts)


def _sequences(folder: Path, part: Part, name: str) -> list[tuple[list[int], list[int]]]:
    """Items before the target and the target of each row; a training row has none."""
    path = needed(folder, name)
    rows = object_of(path)
    if not isinstance(rows, list) or not rows:
        raise fault(f"{path} must hold a list of rows.", expected="at least one row", found=type(rows).__name__)
    sequences = []
    for number, row in enumerate(rows):
        history, target = (row, []) if part == "train" else _held_out(row)
        if not _are_ids(history) or not _are_ids(target) or len({*history, *target}) < len(history) + len(target):
            expected = "different ids in a list" if part == "train" else "history and next, of different ids"
            raise fault(f"{path}, row {number}: a row must be whole.", expected=expected, found=repr(row)[:80])
        sequences.append((history, target))
    return sequences


def _held_out(row: Any) -> tuple[Any, Any]:
    return (row.get("history"), [row.get("next")]) if isinstance(row, dict) else (None, None)


def _are_ids(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)
