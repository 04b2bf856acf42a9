"""The store: what is found, what is forgotten, what a file keeps, and which files are refused."""

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.players.memory import Entry, Memory, sentence_embedder, shortened
from coars_env import CheckpointError, ConfigError, ShapeError

ORIGIN = {"system": "test", "data": "0" * 64, "seed": 0}
FILMS = ("Heat (1995); Alien (1979)", "Alien (1979); Aliens (1986)", "Brazil (1985)")


def filled(path: Path | None = None, **options: Any) -> Memory:
    memory = Memory(ORIGIN, path, **options)
    for step, films in enumerate(FILMS):
        memory.write("me", films, f"lesson {step}", step=step)
    return memory


def texts(memory: Memory, query: str, **options: Any) -> list[str]:
    return [one.entry.text for one in memory.retrieve(query, **options)]


def sort_by_length(said: Sequence[str]) -> Any:
    """An embedder: a text's direction is its number of letters, in degrees."""
    angles = np.radians([len(text) for text in said])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


# What is found --------------------------------------------------------------------------------------------------------


def test_an_entry_holds_what_was_written() -> None:
    memory = Memory(ORIGIN)
    assert memory.write("me", "Heat", "They like crime.", step=4, importance=2.5) == 1
    assert memory.entries() == [Entry(1, "me", "Heat", "They like crime.", 2.5, 4, 4)]


def test_what_shares_rare_words_comes_first_and_what_shares_none_last_later_before_earlier() -> None:
    memory = filled()
    assert texts(memory, "Heat (1995)") == ["lesson 0", "lesson 2", "lesson 1"]
    assert texts(memory, "aliens, alien") == ["lesson 1", "lesson 0", "lesson 2"]
    assert [one.relevance > 0 for one in memory.retrieve("Heat")] == [True, False, False]


def test_of_equally_relevant_entries_the_later_comes_first() -> None:
    memory = Memory(ORIGIN)
    for number in range(4):
        memory.write("me", "Heat (1995)", str(number), step=0)
    assert texts(memory, "Heat", limit=2) == ["3", "2"]


def test_relevance_is_bm25() -> None:
    # Two situations of four and two words, so 3 on average; "Heat" stands once in the first alone.
    # idf = ln((2 - 1 + .5) / (1 + .5)) = 0, which FTS5 raises to 1e-6; so a third situation is needed:
    # N = 3, n = 1: idf = ln(2.5 / 1.5) = .5108; mean length (4 + 2 + 3) / 3 = 3
    # .5108 * 1 * 2.2 / (1 + 1.2 * (.25 + .75 * 4 / 3)) = .5108 * 2.2 / 2.5 = .4495
    memory = Memory(ORIGIN)
    for films in ("Heat a b c", "d e", "f g h"):
        memory.write("me", films, films, step=0)
    assert memory.retrieve("heat", limit=1)[0].relevance == pytest.approx(np.log(2.5 / 1.5) * 2.2 / 2.5)


def test_a_pattern_chooses_whose_entries() -> None:
    memory = Memory(ORIGIN)
    for key in ("user 1", "user 12", "item 1"):
        memory.write(key, "Heat", key, step=0)
    assert texts(memory, "Heat", key="user *") == ["user 12", "user 1"]
    assert texts(memory, "Heat", key="user 1") == ["user 1"]
    assert memory.latest("item 2") is None


@given(st.text(), st.text())
def test_any_text_can_be_remembered_and_asked_for(situation: str, query: str) -> None:
    memory = Memory(ORIGIN)
    encodable = situation.encode(errors="replace").decode()
    memory.write("me", encodable, encodable, step=0)
    (found,) = memory.retrieve(query)
    assert found.entry.text == encodable
    assert found.relevance >= 0


def test_a_long_query_is_no_trouble() -> None:
    memory = filled()
    assert texts(memory, " ".join(f"word{n}" for n in range(2000)) + " Brazil", limit=1) == ["lesson 2"]


def test_embeddings_rank_by_cosine() -> None:
    # situations of 25, 27 and 13 letters, a query of 12: the cosines are those of 13, 15 and 1 degrees
    found = filled(embedder=sort_by_length).retrieve("x" * 12)
    assert [one.entry.text for one in found] == ["lesson 2", "lesson 0", "lesson 1"]
    assert [one.relevance for one in found] == pytest.approx(np.cos(np.radians([1, 13, 15])), abs=1e-5)


def test_an_embedder_must_turn_each_text_into_a_vector() -> None:
    memory = Memory(ORIGIN, embedder=lambda said: np.zeros(3))
    with pytest.raises(ShapeError, match=r"Expected finite numbers of shape \[1, D\], found shape \[3\]"):
        memory.write("me", "Heat", "text", step=0)


def test_without_the_extra_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'coars-env\[embeddings\]'"):
        sentence_embedder("any")


# What is forgotten ----------------------------------------------------------------------------------------------------


def test_the_least_important_is_forgotten_then_the_longest_unused_then_the_oldest() -> None:
    memory = Memory(ORIGIN)
    for importance in (1.0, 1.0, 1.0, 0.5):
        memory.write("me", "Heat", str(importance), step=0, importance=importance)
    memory.use([1], step=1)
    kept = []
    for keep in (3, 2, 1):
        assert memory.forget(keep) == 1
        kept.append([entry.number for entry in memory.entries()])
    assert kept == [[1, 2, 3], [1, 3], [1]]


def test_what_is_forgotten_is_not_found_and_its_number_is_not_given_again() -> None:
    memory = filled()
    memory.forget(2, value=lambda entry: -entry.number)
    assert texts(memory, "Brazil") == ["lesson 1", "lesson 0"]
    assert memory.write("me", "Brazil", "again", step=9) == 4
    assert texts(memory, "Brazil", limit=1) == ["again"]


def test_forgetting_keeps_to_its_key() -> None:
    memory = filled()
    memory.write("you", "Heat", "yours", step=0, importance=0.1)
    assert memory.forget(1, key="me") == 2
    assert [entry.text for entry in memory.entries()] == ["lesson 2", "yours"]


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_store_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite"
    memory = filled(path)
    memory.use([1], step=7)
    memory.commit("half")
    memory.write("me", "Heat", "lost", step=8)
    before = memory.entries()[:3]
    del memory
    memory = Memory(ORIGIN, path)
    assert memory.entries() == before
    assert (memory.batches, memory.note) == (1, "half")
    assert texts(memory, "Brazil", limit=1) == ["lesson 2"]
    assert memory.write("me", "Heat", "next", step=8) == 4


def test_a_store_of_embeddings_keeps_them(tmp_path: Path) -> None:
    memory = filled(tmp_path / "store", embedder=sort_by_length)
    memory.commit()
    expected = memory.retrieve("x" * 12)
    del memory
    assert Memory(ORIGIN, tmp_path / "store", embedder=sort_by_length).retrieve("x" * 12) == expected
    with pytest.raises(CheckpointError, match=r"Expected search 'bm25' in .*, found 'embeddings'"):
        Memory(ORIGIN, tmp_path / "store")
    longer = Memory(ORIGIN, tmp_path / "store", embedder=lambda said: np.ones((len(said), 3)))
    with pytest.raises(CheckpointError, match=r"Expected 3 numbers in .*, found \[2\]"):
        longer.retrieve("x")


def test_any_sqlite_tool_reads_a_store_while_it_is_written(tmp_path: Path) -> None:
    memory = filled(tmp_path / "store")
    memory.commit()
    memory.write("me", "Heat", "not yet", step=9)
    other = sqlite3.connect(tmp_path / "store")
    assert other.execute("SELECT text FROM entries ORDER BY number").fetchall() == [(f"lesson {n}",) for n in range(3)]
    assert ("data", "0" * 64) in other.execute("SELECT name, value FROM meta").fetchall()
    other.close()


def test_after_freezing_nothing_is_written(tmp_path: Path) -> None:
    memory = filled(tmp_path / "store")
    memory.commit()
    memory.freeze()
    asked = texts(memory, "Brazil")
    for change in (
        lambda: memory.write("me", "Heat", "text", step=0),
        lambda: memory.forget(0),
        lambda: memory.use([1], 3),
        lambda: memory.commit(),
    ):
        with pytest.raises(ConfigError, match="Expected no change after `freeze`, found one"):
            change()
    assert texts(memory, "Brazil") == asked == ["lesson 2", "lesson 1", "lesson 0"]


def test_a_store_of_another_dataset_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "store").commit()
    with pytest.raises(CheckpointError, match=f"Expected data '{'1' * 64}' in .*, found '{'0' * 64}'. Go on with"):
        Memory({**ORIGIN, "data": "1" * 64}, tmp_path / "store")


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.write_text("no database " * 100)
    base = sqlite3.connect(other)
    base.execute("CREATE TABLE entries (number INTEGER)")
    base.commit()
    base.close()
    before = other.read_bytes()
    with pytest.raises(CheckpointError, match="file is not a database"):
        Memory(ORIGIN, plain)
    with pytest.raises(CheckpointError, match=r"Expected 1668243826 and 1 in .*, found 0 and 0\. Name another file"):
        Memory(ORIGIN, other)
    with pytest.raises(CheckpointError, match="unable to open database file"):
        Memory(ORIGIN, tmp_path)
    assert (plain.read_text(), other.read_bytes()) == ("no database " * 100, before)


def test_two_runs_cannot_write_to_one_store(tmp_path: Path) -> None:
    memory = filled(tmp_path / "store")
    with pytest.raises(CheckpointError, match=r"database is locked.*wait for the run that writes to it"):
        Memory(ORIGIN, tmp_path / "store")
    memory.commit()
    memory.freeze()
    assert len(Memory(ORIGIN, tmp_path / "store").entries()) == 3


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_a_text_is_cut_between_words_and_measured_in_bytes() -> None:
    assert shortened("  one\n two three ", 50) == "one two three"
    assert shortened("one two three", 7) == "one two"
    assert shortened("one two three", 6) == "one"
    assert shortened("七人の侍", 7) == "七人"  # three bytes each


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_shortened_text_is_one_line_within_its_bound(text: str, most: int) -> None:
    found = shortened(text, most)
    assert len(found.encode()) <= most
    assert found == " ".join(found.split())
