"""Official archives -> files in the cache folder: fetched whole, checked, unpacked safely, never left half-written."""

import hashlib
import os
import stat
import sys
import time
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError

import platformdirs

from coars_env.errors import DatasetError, MissingDataError
from coars_env.files import atomic_path

MAX_ARCHIVE_BYTES = 2 * 1024**3
"""Largest archive we fetch; the largest we know is below 1 GB. Our choice."""
MAX_UNPACKED_BYTES = 4 * 1024**3
"""Largest sum of unpacked members; guards against zip bombs. Our choice."""
AGAIN_AFTER = 60.0
"""Seconds for which a host that gave no answer is not asked again, so that who makes many environments without a
network waits once. Our choice."""
_CHUNK = 1 << 16
_SILENT: dict[str, tuple[float, str]] = {}  # host -> when it last gave no answer, by the monotonic clock, and why


def cache_folder() -> Path:
    """Where fetched data lie: `$XDG_CACHE_HOME/coars` where that is set, else the cache folder of this system."""
    root = os.environ.get("XDG_CACHE_HOME")
    return Path(root) / "coars" if root else platformdirs.user_cache_path("coars", appauthor=False)


def fetch(
    url: str,
    destination: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    licence: str = "",
    timeout: float = 20.0,
    max_bytes: int = MAX_ARCHIVE_BYTES,
) -> Path:
    """Download one file, check it and only then put it in its place.

    Args:
        url: http, https or file address.
        destination: path of the finished file; its folder is made. An older file there is replaced at the end.
        md5: expected digest, for hosts that publish nothing better.
        sha256: expected digest; None of both skips the check.
        licence: one line, printed to stderr before the first byte is fetched.
        timeout: seconds without an answer after which we give up.
        max_bytes: a longer file is refused.

    Returns:
        The destination.

    Raises:
        MissingDataError: if the address cannot be reached or stops in the middle, or if its host gave no answer less
            than `AGAIN_AFTER` seconds ago.
        DatasetError: if the file is too long or has another digest.
    """
    if url.split(":", 1)[0].lower() not in ("http", "https", "file"):
        raise DatasetError(
            f"Data are fetched from http, https or file addresses only. Expected one of these, found {url!r}. "
            "Correct the address."
        )
    _refuse_silent(url)
    if licence:
        print(f"Downloading {url}\nLicence: {licence}", file=sys.stderr)
    with atomic_path(destination) as partial:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, partial.open("wb") as out:
                _copy(answer, out, url, max_bytes)
        except (OSError, HTTPException, ValueError) as reason:  # ValueError: an address that is none
            silent = isinstance(reason, URLError | TimeoutError) and not isinstance(reason, HTTPError)
            if silent and (host := _host(url)):  # the address of a file has none
                _SILENT[host] = time.monotonic(), str(reason)
            raise _unreachable(url, str(reason)) from reason
        for algorithm, expected in (("md5", md5), ("sha256", sha256)):
            if expected is not None:
                check_digest(partial, expected, algorithm, origin=url)
    return destination


def _refuse_silent(url: str) -> None:
    if known := _SILENT.get(_host(url)):
        ago = time.monotonic() - known[0]
        if ago < AGAIN_AFTER:
            raise _unreachable(url, f"{known[1]} {ago:.0f} s ago; the host is asked again after {AGAIN_AFTER:.0f} s")


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _unreachable(url: str, reason: str) -> MissingDataError:
    return MissingDataError(
        f"The data must be reachable. Expected an answer from {url}, found: {reason}. "
        "Check the connection, or fetch the file by hand and pass its folder as data_dir or in COARS_DATA."
    )


def check_digest(path: Path, expected: str, algorithm: str = "sha256", *, origin: str = "") -> None:
    """Compare the digest of a file with the published one.

    Raises:
        DatasetError: if they differ; the message shows both.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected.lower():
        raise DatasetError(
            f"A data file must have its published digest. Expected {algorithm} {expected} for {origin or path}, "
            f"found {found}. Try again; if the publisher has released a new version and you trust it, "
            "pass verify=False to go on."
        )


def unzip(archive: Path, folder: Path, *, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Unpack a zip archive so that nothing lands outside `folder`; the files appear all together or not at all.

    A folder that is already there is kept as it is.

    Raises:
        DatasetError: if the archive is damaged, names a path outside the folder, holds a link, or unpacks to more
            than `max_bytes`.
    """
    try:
        with atomic_path(folder) as unpacked:
            unpacked.mkdir()
            try:
                with zipfile.ZipFile(archive) as file:
                    _unpack(file, unpacked, archive, max_bytes)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as reason:
                raise DatasetError(
                    f"An archive must be a whole zip file. Expected one in {archive}, found: {reason}. "
                    "Delete it and download it again."
                ) from reason
    except OSError:
        if not folder.is_dir():  # otherwise another process finished first, with the same checked archive
            raise


def _unpack(file: zipfile.ZipFile, folder: Path, archive: Path, max_bytes: int) -> None:
    left = max_bytes
    for member in file.infolist():
        _refuse_unsafe(member, archive)
        target = folder / member.filename
        if member.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open(member) as source, target.open("wb") as out:
            while chunk := source.read(_CHUNK):  # counts what comes out; the sizes in the header may lie
                left -= len(chunk)
                if left < 0:
                    raise DatasetError(
                        f"An archive must not unpack to more than the limit. Expected at most {max_bytes} bytes from "
                        f"{archive}, found more. Get the archive from its official address."
                    )
                out.write(chunk)


def _refuse_unsafe(member: zipfile.ZipInfo, archive: Path) -> None:
    name = member.filename
    parts = name.replace("\\", "/").split("/")
    outside = name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise DatasetError(
            f"Members of an archive must be plain files inside it. Expected such in {archive}, found {name!r}. "
            "Do not use this archive; get it from its official address."
        )


def _copy(answer: IO[bytes], out: IO[bytes], url: str, max_bytes: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    length = getattr(answer, "headers", {}).get("Content-Length")
    total = int(length) if length is not None and length.isdigit() else None
    received = 0
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(url.rsplit("/", 1)[-1], total=total)
        while chunk := answer.read(_CHUNK):
            received += len(chunk)
            if received > max_bytes:
                raise DatasetError(
                    f"A download must not exceed the limit. Expected at most {max_bytes} bytes from {url}, "
                    "found more. Check the address."
                )
            out.write(chunk)
            progress.update(bar, completed=received)
    if total is not None and received != total:  # http.client does not complain about a short body
        raise MissingDataError(
            f"A download must be complete. Expected {total} bytes from {url}, found {received}. Try again."
        )
