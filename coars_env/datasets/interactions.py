"""A table of one's own -> Dataset: a pandas or polars frame, or columns in a dict. No table library is imported."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, get_args

import numpy as np

from coars_env.datasets.dataset import (
    OWN_KINDS,
    Columns,
    Dataset,
    Facet,
    FloatArray,
    IntArray,
    Item,
    Part,
    Times,
    arranged,
    clean_title,
    id_text,
    is_kind,
)
from coars_env.datasets.tables import fault
from coars_env.errors import DatasetError

_FILL = "Fill it, or drop the row."
_PARTS: tuple[Part, ...] = get_args(Part)


def from_interactions(
    interactions: Any,
    items: Any,
    *,
    split: str | None = None,
    facets: Sequence[str] = (),
    name: str = "custom",
    licence: str = "",
) -> Dataset:
    """Make a dataset from one's own tables.

    Example: `from_interactions({"user_id": ["ann"], "item_id": [7]}, {"item_id": [7, 8], "title": ["Heat", "Fargo"]})`

    Handled, not refused: items nobody took (they can still be offered); users with few rows (the splits leave out those
    with fewer than three items); repeated rows (an item counts where it was first taken); titles in any script, too
    long or with control characters (see `clean_title`); equal titles (never in one list of candidates).

    Args:
        interactions: one row per interaction, with the columns `user_id` and `item_id`, and perhaps `rating` (a number;
            without the column, 1) and `timestamp` (seconds or date and time, UTC where no zone is given). An empty
            cell is an error. Without timestamps the rows of a user are no sequence: they are shuffled by a fixed seed.
            Rows of equal time keep their order.
        items: one row per item, with the columns `item_id` and `title`, and perhaps `genres` (a list, or one text
            divided by "|") and `year`. Ids are compared as text, so 7 and "7" are the same.
        split: name of a column of `interactions` that holds "train", "validation" or "test", one value for all rows of
            a user. `published` divides the users by it, and `make` and the command line do so by default: the last item
            of each validation and test user is the target. To hold out the last items of every user instead, use
            `leave_last`.
        facets: names of columns of `items` that hold what a person would ask for, such as "brand" or "colour": a list,
            one text divided by "|", or a number; they are kinds of `FacetInstructions`. Genres and the decade of the
            year are such kinds already.
        name: of the dataset, in results and in the names of episode sets: letters, digits and underscores, after the
            first also dots and dashes.
        licence: one line for the card.

    Raises:
        DatasetError: an empty table, a missing column, columns of unequal length; or rows with an empty field, an item
            that is listed twice or not at all, something that is no number, an unknown part, users in two parts. The
            message lists every kind of fault with its table, its first rows, counted from 0, and their number.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        expected = "a letter, digit or underscore, then perhaps dots and dashes, too"
        raise fault("A dataset needs a plain name.", expected=expected, found=repr(name)[:80], remedy="Choose another.")
    kinds = [kind for kind in facets if is_kind(kind) and kind not in (*OWN_KINDS, "like")]
    if isinstance(facets, str) or len(set(kinds)) < len(facets):
        raise fault(
            "Facets are columns of items.",
            expected=f"a list of different words other than {', '.join(OWN_KINDS)} and like",
            found=repr(facets)[:80],
            remedy="Rename the column: genres and the decade of the year are facets already, 'like' is computed.",
        )
    faults = _Faults()
    listed = _Table("items", items, ("item_id", "title", *facets), faults)
    taken = _Table("interactions", interactions, ("user_id", "item_id", *([] if split is None else [split])), faults)
    item_ids, places = listed.ids("item_id")
    listed.refuse_twice("item_id", places)
    user_ids, users = taken.ids("user_id")
    times, ticks = taken.times()
    columns = Columns(
        item_ids=item_ids,
        items=listed.items(facets),
        user_ids=user_ids,
        users=users,
        places=taken.places("item_id", item_ids),
        ratings=taken.numbers("rating", default=1.0),
        ticks=ticks,
    )
    parts = None if split is None else taken.parts(split, users, user_ids)
    faults.refuse()
    return arranged(columns, name=name, source="custom", origin=name, licence=licence, times=times, parts=parts)


class _Faults:
    """Faulty rows by kind, so that one error lists all kinds."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str], DatasetError] = {}
        self._rows: dict[tuple[str, str, str], list[int]] = {}

    def add(self, table: str, row: int, column: str, rule: str, expected: str, found: str, remedy: str) -> None:
        kind = (table, column, rule)
        if kind not in self._first:
            place = f"{table}, row {row}, {column}: {rule}"
            self._first[kind] = fault(place, expected=expected, found=found, remedy=remedy)
        self._rows.setdefault(kind, []).append(row)

    def refuse(self) -> None:
        """Raise one error for all kinds of faults; nothing without any."""
        lines = []
        for kind, error in self._first.items():
            rows = self._rows[kind]
            more = ", ".join(map(str, rows[1:6])) + (", ..." if len(rows) > 6 else "")
            lines.append(str(error) + (f" The same in {len(rows) - 1} more rows: {more}." if more else ""))
        if len(lines) == 1:
            raise DatasetError(lines[0])
        if lines:
            raise DatasetError(f"The tables have {len(lines)} kinds of faults:\n" + "\n".join(lines))


class _Table:
    """Columns as lists of Python objects, whatever the table library."""

    def __init__(self, what: str, table: Any, needed: tuple[str, ...], faults: _Faults) -> None:
        self._what, self._faults = what, faults
        names = list(getattr(table, "columns", table if isinstance(table, Mapping) else ()))
        for column in needed:
            if column not in names:
                raise DatasetError(
                    f"The table of {what} must have its columns. Expected {' and '.join(needed)}, found "
                    f"{', '.join(map(str, names)) or f'none in {type(table).__name__}'}. Rename your columns."
                )
        optional = ("rating", "timestamp", "genres", "year")
        self._raw = {column: table[column] for column in (*needed, *optional) if column in names}
        for column, raw in self._raw.items():
            if isinstance(raw, str) or not isinstance(raw, Iterable) or names.count(column) > 1:
                found = f"{names.count(column)} of that name" if names.count(column) > 1 else f"{raw!r:.80}"
                raise DatasetError(
                    f"A column of {what} is a list of values. Expected one in {column!r}, found {found}. Pass a value "
                    "for each row."
                )
        self._lists = {column: _values(raw) for column, raw in self._raw.items()}
        lengths = {column: len(values) for column, values in self._lists.items()}
        if len(set(lengths.values())) > 1:
            raise DatasetError(
                f"The columns of {what} must be equally long. Expected one length, found {lengths}. Fill the gaps."
            )
        self._length = lengths[needed[0]]
        if not self._length:
            raise DatasetError(f"The table of {what} must hold data. Expected at least one row, found none. Add rows.")

    def fault(self, row: int, column: str, rule: str, expected: str, remedy: str = _FILL, found: str = "") -> None:
        found = found or repr(self._lists[column][row])[:80]
        self._faults.add(self._what, row, column, rule, expected, found, remedy)

    def ids(self, column: str) -> tuple[list[str], IntArray]:
        """The different ids as text, by first appearance, and the place of each row's among them; -1 where faulty."""
        codes: dict[Any, int] = {}
        place_of: dict[str, int] = {}
        places = np.empty(self._length, dtype=np.int64)
        for row, value in enumerate(self._lists[column]):
            try:
                place = codes.get(value)
            except TypeError:  # a list, say
                self.fault(row, column, "An id must be a text or a number.", "one of these")
                place = -1
            if place is None:
                text = "" if _is_missing(value) else id_text(value)
                if text:
                    place = codes[value] = place_of.setdefault(text, len(place_of))
                else:
                    self.fault(row, column, "An id must not be empty.", "a text or a number")
                    place = -1
            places[row] = place
        return list(place_of), places

    def refuse_twice(self, column: str, places: IntArray) -> None:
        seen = {-1}  # faulty already
        for row, place in enumerate(places.tolist()):
            if place in seen and place >= 0:
                self.fault(row, column, "An item is listed once.", "a new id", "Drop one of the rows.")
            seen.add(place)

    def places(self, column: str, known: list[str]) -> IntArray:
        """Place of each row's id among the known ones."""
        ids, places = self.ids(column)
        place_of = {item: place for place, item in enumerate(known)}
        translated = np.array([*(place_of.get(item, -1) for item in ids), -1], dtype=np.int64)[places]
        for row in np.flatnonzero((translated < 0) & (places >= 0)).tolist():
            remedy = "Add the item, or drop its interactions."
            self.fault(row, column, "An item that is taken must be listed.", "an item_id of items", remedy)
        return translated

    def numbers(self, column: str, *, default: float) -> FloatArray:
        if column not in self._lists:
            return np.full(self._length, default)
        return np.array([self._number(row, column, value) for row, value in enumerate(self._lists[column])])

    def _number(self, row: int, column: str, value: Any) -> float:
        try:
            number = math.nan if _is_missing(value) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) < 2**53:
            self.fault(row, column, "A number is needed.", "a finite number")
            return 0.0
        return number

    def times(self) -> tuple[Times, FloatArray]:
        """What the times mean, and the seconds."""
        if "timestamp" not in self._lists:
            return "none", np.zeros(self._length)
        moments = _moments(self._raw["timestamp"])
        values = self._lists["timestamp"] if moments is None else moments
        return "seconds", np.array([self._number(n, "timestamp", _seconds(value)) for n, value in enumerate(values)])

    def parts(self, column: str, users: IntArray, user_ids: Sequence[str]) -> tuple[Part, ...]:
        """The part of each user."""
        parts: list[Part | None] = [None] * len(user_ids)
        split = f"split column {column!r}"
        unknown = list(dict.fromkeys(repr(value)[:40] for value in self._lists[column] if not _is_part(value)))
        for row, (user, value) in enumerate(zip(users.tolist(), self._lists[column], strict=True)):
            if not _is_part(value):
                found = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
                remedy = "Rename the values."
                self.fault(row, column, f"The {split} names parts.", "train, validation or test", remedy, found)
            elif user >= 0 and parts[user] not in (None, value):
                found = f"user {user_ids[user]!r} in {parts[user]!r} and {value!r}"
                remedy = "Put each user in one part; `leave_last` holds out the last items of all users."
                self.fault(row, column, f"The {split} divides users.", "one part per user", remedy, found)
            elif user >= 0:
                parts[user] = value
        return tuple(part or "train" for part in parts)  # None only beside a fault

    def items(self, kinds: Sequence[str]) -> list[Item]:
        nothing = [None] * self._length
        genres, years = (self._lists.get(column, nothing) for column in ("genres", "year"))
        found = []
        for row, title in enumerate(self._lists["title"]):
            clean = "" if _is_missing(title) else clean_title(str(title))
            if not clean:
                self.fault(row, "title", "An item needs a title.", "a text", "Give it one.")
            year = None if _is_missing(years[row]) else int(self._number(row, "year", years[row]))
            facets = tuple(Facet(kind, value) for kind in kinds for value in _texts(self._lists[kind][row]))
            found.append(Item(clean, _genres(genres[row]), year, facets))
        return found


def _values(column: Any) -> list[Any]:
    """The column as Python objects; numpy's and pandas' scalars become plain numbers."""
    return list(column.tolist() if hasattr(column, "tolist") else column)


def _is_part(value: Any) -> bool:
    return isinstance(value, str) and value in _PARTS


def _is_missing(value: Any) -> bool:
    """None, NaN, pandas' NaT and NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # NA will not say whether it differs from itself
        return True


def _moments(column: Any) -> list[float] | None:
    """Seconds of a column of numpy's dates, whose `tolist` may give bare numbers; None for any other column."""
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    if kind != "M" or not isinstance(column, np.ndarray):
        return None
    microseconds = column.astype("datetime64[us]")
    return [math.nan if np.isnat(moment) else moment.astype(np.int64) / 1e6 for moment in microseconds]


def _seconds(value: Any) -> Any:
    """A date, with or without a time, as seconds since 1970; anything else as it is. Text in ISO 8601, with dashes."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str) and "-" in value[1:]:
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if _is_missing(value) or not hasattr(value, "timestamp"):
        return value
    return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()


def _genres(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split("|")
    elif not isinstance(value, Iterable):  # also what pandas puts where there is nothing
        return ()
    return tuple(genre for genre in (clean_title(str(part)) for part in value) if genre)


def _texts(value: Any) -> tuple[str, ...]:
    """The different values of a facet; also a number is one."""
    if not isinstance(value, Iterable):
        value = () if _is_missing(value) else (id_text(value),)
    return tuple(dict.fromkeys(_genres(value)))
