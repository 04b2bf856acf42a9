"""Official text files -> rows with their places, so that a message can name file and row. Plain or gzipped."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from coars_env.errors import DatasetError

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


def rows_of(table: Table, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each data row with its place ("path, row 7") and its fields, as many as the table has columns."""
    path = locate(folder, table.name)
    if path is None:
        expected = f"{table.name} or {table.name}.gz in {folder}"
        raise fault("A release needs all its files.", expected=expected, found="neither")
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


def _text(path: Path, table: Table) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as reason:
        raise fault(f"{path} must be readable.", expected="a whole file", found=str(reason)) from reason
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
