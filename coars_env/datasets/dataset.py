"""Dataset: a catalogue and who took what when. It stands below the readers, so that no reader imports the package."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from coars_env.errors import DatasetError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ITEM_ORDER_SEED = 20604
"""Seed of the permutation that numbers the catalogue. File ids were handed out by release or by first appearance and
betray the answer (closeness of ids scores up to .86 Hit@1), so an index must carry none of their order."""


MAX_TITLE_LENGTH = 200
"""Longest title in characters; longer ones are cut. Our choice: the longest of MovieLens and LastFM have 158."""

Times = Literal["seconds", "order", "none"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from. Every task, transcript and result carries it.

    Example: `Provenance(source="real", origin="ml-100k", sha256="0c6f...")`.
    """

    source: Literal["real", "synthetic", "custom"]
    """"real": official files; "synthetic": our generator; "custom": the user's own table."""
    origin: str
    """Name of the release, or the generator with its seed and size."""
    sha256: str
    """Hex digest of catalogue and interactions as used, see `Dataset.digest`."""


class Facet(NamedTuple):
    """Something that is true of an item and that a person would ask for. Example: `Facet("genre", "Comedy")`."""

    kind: str
    """"genre", "decade", "tag", "category", "brand", "like", or a column of one's own table; holds no colon."""
    value: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.value}"

    @classmethod
    def parse(cls, text: str) -> "Facet | None":
        """Read "kind: value", the inverse of `str`; None where the text is empty.

        Raises:
            ValueError: there is no colon in it, or nothing on one side of it.
        """
        if not text:
            return None
        kind, _, value = text.partition(": ")
        if not kind or not value:
            raise ValueError(f"a facet is written as 'kind: value', got {text!r:.200}")
        return cls(kind, value)


OWN_KINDS = ("genre", "decade")
"""Kinds of facets that are fields of every item."""
_KIND = re.compile(r"[^\W\d][\w -]*")


def is_kind(kind: object) -> bool:
    """Whether this can name a kind of facet: a word, perhaps with digits, blanks or dashes after its first letter."""
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None


@dataclass(frozen=True)
class Item:
    """One entry of the catalogue; what an agent may know of it."""

    title: str
    """As shown in dialogues, year included where the source has it. Two items may share a title."""
    genres: tuple[str, ...] = ()
    year: int | None = None
    facets: tuple[Facet, ...] = field(default=(), repr=False)
    """Facets of kinds other than genre and decade, which `values` reads from `genres` and `year`."""

    def values(self, kind: str) -> tuple[str, ...]:
        """Return the values of a kind of facet that this item has: `("1990s",)` for "decade". Empty where it has none.

        >>> Item("Heat (1995)", ("Crime", "Drama"), 1995).values("genre")
        ('Crime', 'Drama')
        """
        if kind == "genre":
            return self.genres
        if kind == "decade":
            return () if self.year is None else (f"{self.year // 10 * 10}s",)
        return tuple(facet.value for facet in self.facets if facet.kind == kind)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Users, items and timed interactions; rows sorted by user, then by time, ties in the order of the source.

    An item's index is its place in `items`. That order is a seeded permutation of the source's, see
    `ITEM_ORDER_SEED`; the source's own ids stay in `item_ids`, for loaders and checks, and are never shown to an agent.
    """

    name: str
    """For instance "movielens-100k"."""
    items: tuple[Item, ...]
    item_ids: tuple[str, ...]
    """The source's id of each item, same order as `items`."""
    user_ids: tuple[str, ...]
    """The source's id of each user; a user's index is the place in this tuple."""
    users: IntArray  # [N] user index of each interaction, ascending
    item_indices: IntArray  # [N]
    ratings: FloatArray  # [N]
    timestamps: IntArray  # [N] seconds; ascending within a user
    source: Literal["real", "synthetic", "custom"]
    origin: str
    licence: str = ""
    """One line, shown before the first download and in the card."""
    source_rows: IntArray | None = field(default=None, repr=False)  # [N] place of each interaction in the source's file
    """None where there is no file. Sorting loses this order, and rules that break ties by it need it."""
    times: Times = "seconds"
    """What `timestamps` mean. "seconds": a clock. "order": only that a user's rows stand in the order they were taken.
    "none": nothing; the rows of a user were shuffled by seed, are no sequence, and must not be split as one."""
    parts: tuple[Part, ...] | None = None
    """Part of each user in a split that comes with the data: its publisher's, or a column of one's own table. The last
    item of each held-out user is the target. None without one."""
    _bounds: IntArray = field(init=False, repr=False)  # [U + 1] rows of user u are bounds[u]:bounds[u + 1]

    def __post_init__(self) -> None:
        n = len(self.users)
        columns = ("item_indices", "ratings", "timestamps", *(() if self.source_rows is None else ("source_rows",)))
        for column in columns:
            if len(getattr(self, column)) != n:
                raise DatasetError(
                    f"The columns of a dataset must be equally long. Expected {n} rows in {column!r}, "
                    f"found {len(getattr(self, column))}. Pass one value of each column per interaction."
                )
        if len(self.item_ids) != len(self.items):
            raise DatasetError(
                f"Each item needs one id. Expected {len(self.items)} ids, found {len(self.item_ids)}. "
                "Pass items and item_ids of equal length."
            )
        if n and (self.item_indices.min() < 0 or self.item_indices.max() >= len(self.items)):
            raise DatasetError(
                f"Every interaction must name an item of the catalogue. Expected indices 0..{len(self.items) - 1}, "
                f"found {self.item_indices.min()}..{self.item_indices.max()}. Add the missing items."
            )
        if n and (self.users.min() < 0 or self.users.max() >= len(self.user_ids)):
            raise DatasetError(
                f"Every interaction must name a known user. Expected indices 0..{len(self.user_ids) - 1}, "
                f"found {self.users.min()}..{self.users.max()}. Add the missing users."
            )
        if self.parts is not None and len(self.parts) != len(self.user_ids):
            raise DatasetError(
                f"A published split divides all users. Expected {len(self.user_ids)} parts, found {len(self.parts)}. "
                "Pass one per user, or None."
            )
        ahead, behind = self.users[1:], self.users[:-1]
        if ((ahead < behind) | ((ahead == behind) & (self.timestamps[1:] < self.timestamps[:-1]))).any():
            raise DatasetError(
                "The interactions must be sorted by user and then by time. Sort them with a stable rule first, "
                "so that ties keep the order of the source."
            )
        bounds = np.searchsorted(self.users, np.arange(len(self.user_ids) + 1))
        object.__setattr__(self, "_bounds", bounds.astype(np.int64))

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {self.source}, {self.num_users} users, {self.num_items} items, "
            f"{len(self.users)} interactions)"
        )

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.items)

    def rows(self, user: int) -> slice:
        """The rows of one user, oldest first."""
        return slice(int(self._bounds[user]), int(self._bounds[user + 1]))

    def sequence(self, user: int, *, min_rating: float | None = None) -> IntArray:
        """Items of one user, oldest first. Shape [n], catalogue indices; ratings below `min_rating` are left out."""
        rows = self.rows(user)
        items = self.item_indices[rows]
        return items if min_rating is None else items[self.ratings[rows] >= min_rating]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of catalogue and interactions, without `Item.facets`: what an item is like depends on a split, and
        files of tags may be missing. The digest of an `EpisodeSet` covers the facets that its game is about.
        """
        h = hashlib.sha256()
        for item, item_id in zip(self.items, self.item_ids, strict=True):
            h.update(repr((item_id, item.title, item.genres, item.year)).encode())
        h.update(repr(self.user_ids).encode())
        for column, kind in (
            (self.users, "<i8"),
            (self.item_indices, "<i8"),
            (self.ratings, "<f8"),
            (self.timestamps, "<i8"),
        ):
            h.update(np.ascontiguousarray(column, dtype=kind).data)
        return h.hexdigest()

    @cached_property
    def provenance(self) -> Provenance:
        return Provenance(self.source, self.origin, self.digest)


def id_text(value: object) -> str:
    """Return an id as `user_ids` and `item_ids` hold it: text, 7.0 as "7", since pandas makes floats of whole numbers
    where a column has gaps.
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def item_permutation(n: int) -> IntArray:
    """Source position of each catalogue index. Shape [n]; the same for every dataset of n items."""
    return np.random.default_rng(ITEM_ORDER_SEED).permutation(n).astype(np.int64)


def clean_title(raw: str) -> str:
    """A title that fits in one line of a dialogue: NFC, no control characters, single blanks, not too long.

    Letters of any script and emoji stay. Marks that switch the direction of writing for what follows are dropped, for
    they would reorder the rest of the line. What exceeds `MAX_TITLE_LENGTH` is cut, and the cut shown by "…".
    """
    raw = raw[: 4 * MAX_TITLE_LENGTH]  # so that a title of 10^6 characters costs nothing
    kept = []
    for character in raw:
        if unicodedata.bidirectional(character) not in _DIRECTION_SWITCHES:
            blank = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
            kept.append(" " if blank else character)
    title = " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
    return title if len(title) <= MAX_TITLE_LENGTH else f"{title[: MAX_TITLE_LENGTH - 1].rstrip()}…"


_DIRECTION_SWITCHES = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Catalogue and interactions as a source lists them, before they are numbered and sorted; see `arranged`."""

    item_ids: Sequence[str]
    items: Sequence[Item | None]
    """None where nothing but the id is known."""
    user_ids: Sequence[str]
    users: IntArray  # [N] place in user_ids
    places: IntArray  # [N] place in item_ids
    ratings: FloatArray  # [N]
    ticks: IntArray | FloatArray  # [N] time in the unit of the source
    ticks_per_second: int = 1


def arranged(
    columns: Columns,
    *,
    name: str,
    source: Literal["real", "synthetic", "custom"],
    origin: str,
    licence: str = "",
    times: Times = "seconds",
    parts: tuple[Part, ...] | None = None,
) -> Dataset:
    """Number the catalogue by `item_permutation` and sort the rows by user and time.

    Rows of equal time keep the order of the source, or, where there are no times, an order drawn by
    `ITEM_ORDER_SEED`, and the place in the source is forgotten. An item of which only the id is known is called "Item"
    and its number in the permuted catalogue: not a word is invented, and nothing of the id shows.
    """
    order = item_permutation(len(columns.items))
    index_of_place = np.empty_like(order)
    index_of_place[order] = np.arange(len(order))
    n = len(columns.users)
    timeless = times == "none"
    ties = np.random.default_rng(ITEM_ORDER_SEED).permutation(n) if timeless else np.arange(n)
    rows = np.lexsort((ties, columns.ticks, columns.users))
    return Dataset(
        name=name,
        items=tuple(columns.items[place] or Item(f"Item {index}") for index, place in enumerate(order.tolist())),
        item_ids=tuple(columns.item_ids[place] for place in order.tolist()),
        user_ids=tuple(columns.user_ids),
        users=columns.users[rows].astype(np.int64),
        item_indices=index_of_place[columns.places[rows]],
        ratings=columns.ratings[rows].astype(np.float64),
        timestamps=np.floor_divide(columns.ticks[rows], columns.ticks_per_second).astype(np.int64),
        source=source,
        origin=origin,
        licence=licence,
        source_rows=None if timeless else rows.astype(np.int64),
        times=times,
        parts=parts,
    )
