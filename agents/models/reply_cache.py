"""ReplyCache: what an endpoint has answered, on disk, so that nothing is paid for twice."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from coars_env import BackboneError


class ReplyCache:
    """An SQLite file of values by keys: `with ReplyCache(path) as cache`. Several processes may share it.

    Each row has a digest of its key and its value, so that one that was changed by hand is found when it is asked for.

    Raises:
        BackboneError: here and in every method, a file that cannot be used.
    """

    def __init__(self, path: Path) -> None:
        """The file is made if there is none."""
        self.path = path
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, timeout=60, isolation_level=None)  # each row is written at once

    def __enter__(self) -> Self:
        try:
            self._do("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, value TEXT, digest TEXT)")
        except BackboneError:
            self._rows.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    @staticmethod
    def key(request: object) -> str:
        """The digest of a request's content, which is of lists, dicts, strings and numbers."""
        return hashlib.sha256(json.dumps(request).encode()).hexdigest()

    def get(self, key: str) -> Any:
        """What was put there; None if nothing was."""
        rows = self._do("SELECT value, digest FROM replies WHERE key = ?", key)
        if not rows:
            return None
        ((value, digest),) = rows
        if digest != _digest(key, value):
            raise BackboneError(
                f"A kept reply is what came from the endpoint. Expected reply {key[:16]} of {self.path} to have the "
                f"digest stored with it, {str(digest)[:16]}, found {_digest(key, value)[:16]}: it was changed. "
                "Delete that row, or the file, and ask again."
            )
        return json.loads(value)

    def put(self, key: str, value: object) -> None:
        text = json.dumps(value)
        self._do("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", key, text, _digest(key, text))

    def _do(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._usable():
            return self._rows.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise BackboneError(
                f"Replies are kept in an SQLite file. Expected {self.path} to be one that can be read and written, "
                f"found {error!r}. Name another file, or delete this one."
            ) from error


def _digest(key: str, value: object) -> str:
    return hashlib.sha256(f"{key}\n{value}".encode()).hexdigest()
