"""Release: a published version of a data set; where it is fetched, where its files may lie, what it must hold."""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coars_env.datasets.dataset import Dataset
from coars_env.datasets.download import cache_folder, check_digest, fetch, unzip
from coars_env.datasets.llara import MIN_RATING, llara_sequences
from coars_env.datasets.tables import AGAIN, fault, locate, needed
from coars_env.errors import DatasetError, MissingDataError, expect

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version of a data set. Each reader keeps its own releases in a dict by variant."""

    name: str
    """As in provenances, for instance "ml-100k"."""
    folders: tuple[str, ...]
    """Where the files may lie below a data folder, besides directly in it. A download goes to the first."""
    files: tuple[str, ...]
    """Without these, plain or gzipped, there is no data set."""
    optional: tuple[str, ...] = ()
    """Read if they are there; a download brings them, too."""
    page: str
    """Address for people: the archive or the publisher's page."""
    archive: str | None = None
    """Address of the zip archive."""
    inside: str = ""
    """Folder in the archive that holds the files."""
    addresses: tuple[str, ...] = ()
    """Addresses of single files, where there is no archive. With neither the files are put there by hand."""
    md5: str | None = None
    """Of the archive."""
    sha256: str | None = None
    """Of the archive."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File -> SHA-256 of its plain content: published, or else that of the copy which has the exact figures."""
    licence: str
    """One line, shown before a download."""
    figures: Mapping[str, int] = field(default_factory=dict)
    """What the data must hold, by the words of `measure`."""
    shape: tuple[int, int, int]
    """Users, items, interactions, perhaps rounded: the size of the invented world that stands in."""


def roots(data_dir: str | Path | None) -> list[Path]:
    """Folders that are searched, in this order: the one given, or `$COARS_DATA` and then the cache folder."""
    if data_dir is not None:
        expect(str | os.PathLike, data_dir, "Data lie in a folder.", "Pass its path.")
        return [Path(data_dir).expanduser()]
    from_environment = os.environ.get("COARS_DATA")
    return [*([Path(from_environment).expanduser()] if from_environment else []), cache_folder()]


def find_folder(release: Release, data_dir: str | Path | None = None) -> Path | None:
    """The first folder that holds a needed file of this release, or None."""
    for root in roots(data_dir):
        for folder in (*(root / name for name in release.folders), root):
            if any(locate(folder, name) for name in release.files):
                return folder
    return None


def open_release(
    release: Release, data_dir: str | Path | None, *, download: bool, verify: bool, url: str | None
) -> Path:
    """The folder with the files of a release, fetched if need be.

    Args:
        release: what is wanted.
        data_dir: where to look and to put a download, see `roots`.
        download: whether the network may be used.
        verify: whether the published digests are asked for.
        url: address of a copy of the archive or, where there is none, of a folder with the files.

    Raises:
        MissingDataError: no copy is found and none can be had.
        DatasetError: what was fetched is damaged or incomplete.
    """
    folder = find_folder(release, data_dir)
    if folder is not None:
        return folder
    if not download:
        raise MissingDataError(_missing(release, data_dir))
    home = roots(data_dir)[-1] / release.folders[0]
    try:
        with _made(home.parent), tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetching.") as name:
            fetched = _fetched(release, Path(name), verify=verify, url=url)  # on the same disk, to move at once
            home.mkdir(exist_ok=True)
            for path in fetched.iterdir():
                os.replace(path, home / path.name)
    except MissingDataError as reason:
        raise MissingDataError(f"{_missing(release, data_dir)} The download failed: {reason}") from reason
    except OSError as reason:
        raise MissingDataError(f"{_missing(release, data_dir)} Nothing could be stored in {home}: {reason}") from reason
    return home


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder that is made if need be, and taken away again if what follows fails."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except Exception:
        for parent in missing:
            with contextlib.suppress(OSError):  # not made, or somebody has put something there
                parent.rmdir()
        raise


def _fetched(release: Release, stage: Path, *, verify: bool, url: str | None) -> Path:
    """All files of the release in one folder below `stage`."""
    if release.archive is not None:
        md5, sha256 = (release.md5, release.sha256) if verify else (None, None)
        address = url or release.archive
        archive = fetch(address, stage / "archive.zip", md5=md5, sha256=sha256, licence=release.licence)
        unzip(archive, stage / "unpacked")
        folder = stage / "unpacked" / release.inside
    else:
        if not release.addresses:
            raise MissingDataError("there is no address from which the files could be fetched as they are read here.")
        folder = stage / "files"
        for number, address in enumerate(release.addresses):
            name = address.rpartition("/")[2]
            copy = address if url is None else f"{url.rstrip('/')}/{name}"
            fetch(copy, folder / name, licence="" if number else release.licence)
    for name in release.files:
        if locate(folder, name) is None:
            expected = "/".join(filter(None, (release.inside, name)))
            raise fault(f"The archive {url or release.page} must hold the release.", expected=expected, found="none")
    if verify and release.md5 is None and release.sha256 is None:
        for name, digest in release.digests.items():
            if name not in release.optional or locate(folder, name) is not None:
                check_plain_digest(folder, name, digest)
    return folder


def check_plain_digest(folder: Path, name: str, expected: str) -> None:
    """Compare the plain content of a file, which may lie there gzipped, with a digest.

    Raises:
        DatasetError: it is missing, unreadable, or differs; the message shows both digests.
    """
    path = needed(folder, name)
    if path.suffix != ".gz":
        return check_digest(path, expected)
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except (OSError, EOFError, zlib.error) as reason:
        raise fault(f"{path} must be readable.", expected="a whole file", found=str(reason)) from reason
    if digest.hexdigest() != expected:
        raise fault(
            f"{path} must have the published content.",
            expected=f"sha256 {expected} of the plain file",
            found=digest.hexdigest(),
        )


def _missing(release: Release, data_dir: str | Path | None) -> str:
    looked = ", ".join(str(root) for root in roots(data_dir))
    action = "Unpack" if release.archive else "Get them from"
    return (
        f"The files of {release.name} must be at hand. Expected {' and '.join(release.files)}, plain or .gz, found "
        f"none in {looked}. {action} {release.page} and set COARS_DATA to the folder that holds "
        f"{release.folders[0]}/, or pass that folder as data_dir; or allow the download."
    )


def measure(dataset: Dataset) -> dict[str, int]:
    """Sizes of a data set by name; `Release.figures` holds those that are published.

    Counted are users, items, interactions, items taken by anybody, interactions of each rating up to 5 and of at least
    3, and users and interactions of published parts.
    """
    liked = dataset.ratings >= MIN_RATING
    sizes = {
        "interactions": len(dataset.users),
        "users": dataset.num_users,
        "items": dataset.num_items,
        "taken items": len(np.unique(dataset.item_indices)),
        "interactions rated 3 or more": int(liked.sum()),
        "items rated 3 or more": len(np.unique(dataset.item_indices[liked])),
    }
    for value in range(1, 6):
        sizes[f"ratings of {value}"] = int((dataset.ratings == value).sum())
    for part in dict.fromkeys(dataset.parts or ()):
        members = [user for user, own in enumerate(dataset.parts or ()) if own == part]
        sizes[f"users of {part}"] = len(members)
        sizes[f"interactions of {part}"] = int(np.isin(dataset.users, members).sum())
    return sizes


def measure_llara(dataset: Dataset) -> dict[str, int]:
    """Sizes of LLaRA's parts, by the names under which `Release.figures` may hold them."""
    parts = llara_sequences(dataset)
    return {
        "users of LLaRA's train": len(parts.train),
        "users of LLaRA's validation": len(parts.validation),
        "users of LLaRA's test": len(parts.test),
        "interactions of LLaRA's train": sum(len(items) for _, items in parts.train),
    }


def check_figures(release: Release, folder: Path, found: Mapping[str, int]) -> None:
    """Refuse data that are not the published ones. Figures that were not measured are not asked for.

    Raises:
        DatasetError: a count differs.
    """
    for what, expected in release.figures.items():
        if found.get(what, expected) != expected:
            raise fault(
                f"{folder / release.files[0]} must be the published {release.name}.",
                expected=f"{expected} {what}",
                found=str(found[what]),
                remedy=f"{AGAIN} If it is a set of your own in this format, pass verify=False.",
            )


def choose(releases: Mapping[str, Release], dataset: str, variant: str) -> Release:
    """The release of this variant.

    Raises:
        DatasetError: there is none.
    """
    if variant not in list(releases):
        raise DatasetError(
            f"The variant of {dataset} must be known. Expected one of {', '.join(releases)}, found {variant!r}. "
            "Choose one of these."
        )
    return releases[variant]
