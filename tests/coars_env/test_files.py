import os
from pathlib import Path

import pytest

from coars_env import ConfigError, atomic_path, write_atomically


@pytest.mark.parametrize(("content", "stored"), [("七人の侍\n", "七人の侍\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_a_file_is_written_and_nothing_else(tmp_path: Path, content: str | bytes, stored: bytes) -> None:
    path = tmp_path / "new" / "films.txt"
    for _ in range(2):  # the second time it replaces
        write_atomically(path, content)
    assert path.read_bytes() == stored
    assert os.listdir(path.parent) == ["films.txt"]


def test_a_block_that_breaks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "films.txt"
    write_atomically(path, "old")

    def half() -> None:
        with atomic_path(path) as part:
            part.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["films.txt"]


def test_a_folder_appears_whole_and_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "model"

    def save(weights: str) -> None:
        with atomic_path(home) as part:
            (part / "inner").mkdir(parents=True)
            (part / "inner" / "weights").write_text(weights)
            assert weights == "second" or not home.exists()

    save("first")
    with pytest.raises(OSError, match="not empty"):
        save("second")
    assert (home / "inner" / "weights").read_text() == "first"
    assert os.listdir(tmp_path) == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/inner cannot be written: .*Name a path in a folder you may write to"):
        write_atomically(tmp_path / "file" / "inner", "x")
    with pytest.raises(ConfigError, match=r"A file has a path\. .* found 3"):
        write_atomically(3, "x")  # type: ignore[arg-type]
