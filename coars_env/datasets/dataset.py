"""Dataset: a catalogue and who took what when. It stands below the readers, so that no reader imports the package."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from coars_env.errors import DatasetError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ITEM_ORDER_SEED = 20604
"""Seed of the permutation that numbers the catalogue. File ids were handed out by release or by first appearance and
betray the answer (closeness of ids scores up to .86 Hit@1), so an index must carry none of their order."""


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


@dataclass(frozen=True)
class Item:
    """One entry of the catalogue; what an agent may know of it."""

    title: str
    """As shown in dialogues, year included where the source has it. Two items may share a title."""
    genres: tuple[str, ...] = ()
    year: int | None = None


@dataclass(frozen=True, eq=False)
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
        ahead, behind = self.users[1:], self.users[:-1]
        if ((ahead < behind) | ((ahead == behind) & (self.timestamps[1:] < self.timestamps[:-1]))).any():
            raise DatasetError(
                "The interactions must be sorted by user and then by time. Sort them with a stable rule first, "
                "so that ties keep the order of the source."
            )
        bounds = np.searchsorted(self.users, np.arange(len(self.user_ids) + 1))
        object.__setattr__(self, "_bounds", bounds.astype(np.int64))

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
        """SHA-256 of catalogue and interactions."""
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


def item_permutation(n: int) -> IntArray:
    """Source position of each catalogue index. Shape [n]; the same for every dataset of n items."""
    return np.random.default_rng(ITEM_ORDER_SEED).permutation(n).astype(np.int64)
