"""write_atomically, atomic_path: files and folders that a reader sees whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coars_env.errors import ConfigError, expect


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that a reader sees the old content or all of the new, even after a power cut.

    Raises:
        ConfigError: the file cannot be written.
    """
    expect(str | os.PathLike, path, "A file has a path.", "Pass one.")
    try:
        with atomic_path(Path(path)) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as reason:
        raise ConfigError(f"{path} cannot be written: {reason}. Name a path in a folder you may write to.") from reason


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a new path on the same disk; what the block puts there, a file or a folder, then takes the place of `path`.

    If the block raises, `path` stays as it was. A file is replaced; a folder only if it is empty or new.

    Raises:
        OSError: the parent folder cannot be made or written, or `path` is a folder that holds something.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        part = Path(folder, path.name)
        yield part
        for inner in part.rglob("*") if part.is_dir() else ():
            _sync(inner)
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
