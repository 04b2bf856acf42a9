"""Official text files -> rows with their places, so that a message can name file and row. Plain or gzipped."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from coars_env.datasets.download import MAX_UNPACKED_BYTES
from coars_env.errors import DatasetError

MAX_LINE_BYTES = 1 << 24
"""Longest line of a file with one object a line; guards against zip bombs. Our choice."""

AGAIN = "Replace the file by the one of the official archive."


class Table(NamedTuple):
    """How one file is written."""

    name: str
    columns: int
    separator: str
    """"," means CSV: quoted fields and a header line."""
    encoding: str
    header: tuple[str, ...] = ()


def fault(rule: str, *, expected: str, found: str, remedy: str = AGAIN) -> DatasetError:
    """The error for a broken rule; to be raised by the caller."""
    return DatasetError(f"{rule} Expected {expected}, found {found}. {remedy}")


def locate(folder: Path, name: str) -> Path | None:
    """The file of this name, or its gzipped form, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def needed(folder: Path, name: str) -> Path:
    """The file of this name, or its gzipped form.

    Raises:
        DatasetError: neither is there.
    """
    path = locate(folder, name)
    if path is None:
        raise fault("A release needs all its files.", expected=f"{name} or {name}.gz in {folder}", found="neither")
    return path


def rows_of(table: Table, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each data row with its place ("path, row 7") and its fields, as many as the table has columns."""
    path = needed(folder, table.name)
    rows = _split(path, _text(path, table), table)
    if table.header:
        first = next(rows, ("", []))[1]
        if tuple(first) != table.header:
            raise fault(f"{path} must begin with its header.", expected=",".join(table.header), found=",".join(first))
    empty = True
    for place, fields in rows:
        if len(fields) != table.columns:
            expected = f"{table.columns} columns"
            raise fault(f"{place}: a row must be whole.", expected=expected, found=str(len(fields)))
        empty = False
        yield place, fields
    if empty:
        raise fault(f"{path} must hold data.", expected="at least one row", found="none")


def _split(path: Path, text: str, table: Table) -> Iterator[tuple[str, list[str]]]:
    """Every row with its place and its fields."""
    text = text.rstrip("\r\n")
    if not text:
        return
    if table.separator != ",":
        # Not splitlines: latin-1 has control characters that it takes for line ends.
        for row, line in enumerate(text.split("\n"), start=1):
            yield f"{path}, row {row}", line.rstrip("\r").split(table.separator)
        return
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for fields in reader:
            yield f"{path}, row {reader.line_num}", fields
    except csv.Error as reason:
        place = f"{path}, row {reader.line_num}"
        raise fault(f"{place}: a row must be CSV.", expected="paired quotes", found=str(reason)) from reason


def objects_of(path: Path, parse: Callable[[str], Any] = json.loads) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a file with one object a line, with its place; read line by line, as such files are large."""
    row, empty = 0, True
    with _reading(path), _opened(path) as file:
        while line := file.readline(MAX_LINE_BYTES):
            row += 1
            if line.strip():
                empty = False
                place = f"{path}, row {row}"
                yield place, _object(line, place, parse)
    if empty:
        raise fault(f"{path} must hold data.", expected="at least one row", found="none")


def object_of(path: Path) -> Any:
    """What a JSON file holds."""
    return _parsed(_bytes(path), str(path), json.loads)


def _object(line: bytes, place: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    found = _parsed(line, place, parse)
    if not isinstance(found, dict):
        raise fault(f"{place}: a row must be an object.", expected="names and values", found=type(found).__name__)
    return found


def _parsed(data: bytes, place: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(data.decode("utf-8-sig"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as reason:  # UnicodeDecodeError is one
        found = f"{type(reason).__name__} ({str(reason)[:80]})"
        raise fault(f"{place} must be one whole object in UTF-8.", expected="such", found=found) from reason


def _text(path: Path, table: Table) -> str:
    data = _bytes(path)
    try:
        utf8 = data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        if table.encoding == "utf-8":
            found = f"byte {reason.start} in row {data.count(bytes([10]), 0, reason.start) + 1}"
            raise fault(f"{path} must be UTF-8.", expected="UTF-8", found=found) from reason
        return data.decode("latin-1")
    if table.encoding == "latin-1" and not utf8.isascii():  # accented latin-1 text is never valid UTF-8
        raise fault(f"{path} must be latin-1.", expected="latin-1", found="UTF-8")
    return utf8


def _bytes(path: Path) -> bytes:
    with _reading(path), _opened(path) as file:
        data = file.read(MAX_UNPACKED_BYTES + 1)
    if len(data) > MAX_UNPACKED_BYTES:
        raise fault(f"{path} must not be endless.", expected=f"at most {MAX_UNPACKED_BYTES} bytes", found="more")
    return data


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as reason:
        raise fault(f"{path} must be readable.", expected="a whole file", found=str(reason)) from reason
