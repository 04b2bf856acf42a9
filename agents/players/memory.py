"""Memory: entries of text that outlive a dialogue, written, retrieved and forgotten, in one SQLite file.

Agents that learn in words stand on it; what is written and when is theirs to say. A store in a file holds all that a
run needs to go on where it was stopped, and any SQLite tool can read it:

    meta      name, value        what made the store, how far it has come, a note of its maker
    entries   see `Entry`        and with embeddings a vector of each
    search    the full-text index of the situations, FTS5

What is found depends on the entries alone: equal writes give equal answers, and asking changes nothing.
"""

import os
import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coars_env import CheckpointError, ConfigError, ShapeError, clean_message

APPLICATION_ID = 0x636F6172
"""Marks a file as a store of ours, see SQLite's `PRAGMA application_id`: the letters "coar"."""
VERSION = 1
"""Of the tables, in `PRAGMA user_version`."""
PATIENCE = 1.0, 30.0
"""Seconds to wait for another program that holds the file: to open it, and to commit; ours."""

SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, situation TEXT NOT NULL, text TEXT NOT NULL,
    importance REAL NOT NULL, written INTEGER NOT NULL, used INTEGER NOT NULL, vector BLOB
);
CREATE INDEX by_key ON entries (key);
CREATE VIRTUAL TABLE search USING fts5 (situation, content = 'entries', content_rowid = 'number');
CREATE TRIGGER indexed AFTER INSERT ON entries BEGIN
    INSERT INTO search (rowid, situation) VALUES (new.number, new.situation);
END;
CREATE TRIGGER unindexed AFTER DELETE ON entries BEGIN
    INSERT INTO search (search, rowid, situation) VALUES ('delete', old.number, old.situation);
END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

Embedder = Callable[[Sequence[str]], npt.NDArray[np.floating[Any]]]
"""N texts -> their vectors, shape [N, D]."""


@dataclass(frozen=True)
class Entry:
    """One thing that is remembered.

    Example: `Entry(3, "recommender_0", "Heat (1995); Alien (1979)", "Ask what they liked.", 1.0, 0, 2)`.
    """

    number: int
    """1, 2, 3, ... in the order of writing; never given twice."""
    key: str
    """Whose it is: a side, a user, an item."""
    situation: str
    """What is searched."""
    text: str
    """What is told."""
    importance: float
    written: int
    """Step of its writing, in the steps of its maker."""
    used: int
    """Step of its last use; that of its writing if it was never used."""


class Recalled(NamedTuple):
    """An entry that was retrieved."""

    entry: Entry
    relevance: float
    """BM25 of the situation, 0 without a word in common, else positive; or the cosine of both vectors."""


def by_importance(entry: Entry) -> float:
    """What an entry is worth unless its maker says otherwise."""
    return entry.importance


class Memory:
    """A store of entries. Writing ends with `freeze`; after that SQLite itself refuses every change.

    Example: `memory = Memory({"system": "mine"}); memory.write("me", "Heat", "They like crime.", step=0);
    memory.retrieve("Heat", limit=1)[0].entry.text == "They like crime."`.
    """

    def __init__(
        self, origin: Mapping[str, object], path: str | Path | None = None, *, embedder: Embedder | None = None
    ) -> None:
        """Open a store, or make one.

        Until it is frozen, others may read the file but not write to it.

        Args:
            origin: what must agree for a run to go on: data, system, seed, settings; each is stored as text.
            path: file of the store; None keeps it in this process.
            embedder: retrieves by cosine of embeddings; None by BM25.

        Raises:
            CheckpointError: no store, one of another origin, damaged, or in use by another run.
        """
        self._path = ":memory:" if path is None else os.fspath(path)
        self._embedder = embedder
        self.frozen = False
        self._read: dict[str, list[Entry]] = {}  # what was asked for since the last change, by key
        with self._explained():
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self._path, timeout=PATIENCE[0], isolation_level=None)
            weakref.finalize(self, self._base.close)
            try:
                self._base.execute("BEGIN IMMEDIATE")
                self._open({**origin, "search": "bm25" if embedder is None else "embeddings"})
                self._base.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE[1]:.0f}")
            except Exception:
                self._base.close()  # a refused file is let go at once
                raise

    def _open(self, origin: Mapping[str, object]) -> None:
        """Make the tables of an empty file, or compare what made them."""
        (mark,), (version,) = (
            self._base.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _statements(SCHEMA):
                self._base.execute(statement)
            rows = {**origin, "batches": 0, "note": ""}
            self._base.executemany("INSERT INTO meta VALUES (?, ?)", [(name, str(rows[name])) for name in rows])
            self.commit("", batches=0)
        elif (mark, version) != (APPLICATION_ID, VERSION):
            raise CheckpointError(
                f"A store carries a mark and a version. Expected {APPLICATION_ID} and {VERSION} in {self._path}, found "
                f"{mark} and {version}. Name another file, or read it with the version of coars-env that wrote it."
            )
        for name, value in origin.items():
            found = self._meta(name)
            if found != str(value):
                raise CheckpointError(
                    f"A store belongs to one run. Expected {name} {str(value)!r} in {self._path}, found {found!r}. Go "
                    "on with the settings and data it was made with, or name another file."
                )

    @property
    def batches(self) -> int:
        """How many were committed."""
        return int(self._meta("batches") or 0)

    @property
    def note(self) -> str:
        """What its maker noted at the last commit."""
        return self._meta("note") or ""

    def write(self, key: str, situation: str, text: str, *, step: int, importance: float = 1.0) -> int:
        """Remember a text; returns its number."""
        vector = None if self._embedder is None else self._vectors([situation])[0].tobytes()
        row = (key, situation, text, float(importance), step, step, vector)
        command = "INSERT INTO entries (key, situation, text, importance, written, used, vector)"
        return int(self._change(f"{command} VALUES (?, ?, ?, ?, ?, ?, ?)", row).lastrowid or 0)

    def entries(self, key: str = "*") -> list[Entry]:
        """All entries whose key fits, in the order of writing.

        Args:
            key: a key, or a pattern of keys as in SQLite's GLOB: "user *" fits that of every user.
        """
        if key not in self._read:
            columns = "number, key, situation, text, importance, written, used"
            rows = self._ask(f"SELECT {columns} FROM entries WHERE key GLOB ? ORDER BY number", (key,))
            self._read[key] = [Entry(*row) for row in rows]
        return list(self._read[key])

    def latest(self, key: str) -> Entry | None:
        """The entry written last under a key, or None."""
        return next(reversed(self.entries(key)), None)

    def retrieve(self, query: str, *, key: str = "*", limit: int | None = None) -> list[Recalled]:
        """Entries by their relevance to a query, most relevant first; of equal ones the later.

        BM25 is that of SQLite's FTS5 (k1 = 1.2, b = .75; its statistics are those of the whole store) for any word of
        the query.

        Args:
            query: what the situations are compared with.
            key: whose entries, see `entries`.
            limit: how many at most; None for all.
        """
        found = self.entries(key)
        relevance = self._bm25(query) if self._embedder is None else self._cosines(query, found)
        recalled = [Recalled(entry, relevance.get(entry.number, 0.0)) for entry in found]
        return sorted(recalled, key=lambda one: (-one.relevance, -one.entry.number))[:limit]

    def use(self, numbers: Iterable[int], step: int) -> None:
        """Note that entries were told in a step."""
        for number in sorted(set(numbers)):
            self._change("UPDATE entries SET used = ? WHERE number = ?", (step, number))

    def forget(self, keep: int, *, key: str = "*", value: Callable[[Entry], float] = by_importance) -> int:
        """Forget the entries of least value until `keep` are left; of equal ones the longest unused, then the oldest.

        Returns how many were forgotten.
        """
        order = sorted(self.entries(key), key=lambda entry: (value(entry), entry.used, entry.number))
        lost = order[: max(0, len(order) - keep)]
        for entry in lost:
            self._change("DELETE FROM entries WHERE number = ?", (entry.number,))
        return len(lost)

    def commit(self, note: str = "", *, batches: int = 1) -> None:
        """Put what was written since the last commit on the disk, all of it or nothing, and count it as one batch."""
        for name, value in (("batches", str(self.batches + batches)), ("note", note)):
            self._change("UPDATE meta SET value = ? WHERE name = ?", (value, name))
        with self._explained():
            self._base.execute("COMMIT")
            self._base.execute("BEGIN IMMEDIATE")  # nobody else may write in between

    def freeze(self) -> None:
        """Nothing is written from here on; what was not committed is lost."""
        with self._explained():
            self._read.clear()
            self._base.execute("ROLLBACK")
            self._base.execute("PRAGMA query_only = ON")
        self.frozen = True

    # How entries are found -------------------------------------------------------------------------------------------

    def _bm25(self, query: str) -> dict[int, float]:
        words = " OR ".join(f'"{word}"' for word in sorted(set(re.findall(r"\w+", query))))
        if not words:
            return {}
        # FTS5's rank is the BM25 with its sign turned
        return dict(self._ask("SELECT rowid, -rank FROM search WHERE search MATCH ?", (words,)))

    def _cosines(self, query: str, found: Sequence[Entry]) -> dict[int, float]:
        if not found:
            return {}
        (asked,) = self._vectors([query])
        stored = dict(self._ask("SELECT number, vector FROM entries", ()))
        vectors = [np.frombuffer(stored[entry.number], np.float32) for entry in found]
        if {len(vector) for vector in vectors} != {len(asked)}:
            raise CheckpointError(
                f"Vectors of one embedder are equally long. Expected {len(asked)} numbers in {self._path}, found "
                f"{sorted({len(vector) for vector in vectors})}. Pass the embedder that the store was made with."
            )
        cosines = np.round(np.stack(vectors) @ asked, 6)  # [N]  rounded, for ties to be the same on every machine
        return {entry.number: float(cosine) for entry, cosine in zip(found, cosines, strict=True)}

    def _vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Of unit length, or zero. [N, D]"""
        assert self._embedder is not None
        found = np.asarray(self._embedder(texts), dtype=np.float32)
        if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
            raise ShapeError(
                f"An embedder turns each text into a vector. Expected finite numbers of shape [{len(texts)}, D], found "
                f"shape {list(found.shape)}. Correct the embedder."
            )
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)

    # SQLite ----------------------------------------------------------------------------------------------------------

    def _meta(self, name: str) -> str | None:
        rows = self._ask("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def _ask(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._base.execute(query, tuple(values)).fetchall()

    def _change(self, command: str, values: Sequence[object]) -> sqlite3.Cursor:
        if self.frozen:
            raise ConfigError(
                "A frozen memory is only read. Expected no change after `freeze`, found one. Open the store anew to "
                "write to it."
            )
        self._read.clear()
        with self._explained():
            return self._base.execute(command, tuple(values))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CheckpointError(
                f"A memory lives in an SQLite file with FTS5. Expected one that can be written at {self._path}, found "
                f"{error!r}. If it is locked, wait for the run that writes to it; otherwise name another file."
            ) from error


def _statements(script: str) -> Iterator[str]:
    """One by one, since `executescript` would commit first."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def sentence_embedder(model: str) -> Embedder:
    """An embedder by sentence-transformers, the extra `embeddings`: a folder or a hub name.

    Raises:
        ConfigError: the extra is not installed, or there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "Embeddings need sentence-transformers. Expected it to be installed, found no such package. Run "
            "`pip install 'coars-env[embeddings]'`, or retrieve by BM25."
        ) from error
    try:
        encoder = SentenceTransformer(model)
    except Exception as error:  # each of its parts has errors of its own
        raise ConfigError(
            f"Embeddings need a model. Expected one of sentence-transformers at {model!r}, found {error!r}. Name a "
            "folder or a hub name."
        ) from error
    return lambda texts: np.asarray(encoder.encode(list(texts), show_progress_bar=False))


def shortened(text: str, most: int) -> str:
    """One line of at most `most` bytes of UTF-8, cut between words where there are some.

    Bytes, since no tokenizer over bytes makes more tokens of a text than it has.
    """
    line = " ".join(clean_message(text).split())
    if len(line.encode()) <= most:
        return line
    cut = line.encode()[: most + 1].decode(errors="ignore")
    return cut.rpartition(" ")[0] or line.encode()[:most].decode(errors="ignore")
