"""Objects by path: from a module, from the working directory, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coars_env import ConfigError, FixedUser, load_object


def test_a_path_names_an_object_of_a_module() -> None:
    assert load_object("coars_env:FixedUser") is FixedUser
    assert load_object("coars_env:FixedUser.act") is FixedUser.act


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("only_here", "raises_here"):
        sys.modules.pop(name, None)


def test_the_working_directory_is_searched_last(here: Path) -> None:
    (here / "only_here.py").write_text("number = 7\n")
    (here / "coars_env.py").write_text("raise AssertionError('another coars_env')\n")
    assert load_object("only_here:number") == 7
    assert load_object("coars_env:FixedUser") is FixedUser
    assert sys.path[-1] == str(here)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("only_here", "'only_here' is no path of an object. Write module:name"),
        (":number", "':number' is no path of an object"),
        ("no_such_module:number", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'. Modules"),
        ("raises_here:number", "raises_here:number cannot be imported: ZeroDivisionError: division by zero"),
        ("coars_env:Nothing.act", "coars_env:Nothing.act does not exist: coars_env has no 'Nothing.act'"),
    ],
)
def test_what_cannot_be_imported_is_refused(here: Path, path: str, told: str) -> None:
    (here / "raises_here.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=told):
        load_object(path)
