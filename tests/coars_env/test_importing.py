from pathlib import Path

import pytest

from coars_env import CoarsReward, ConfigError, import_object


def test_an_object_is_imported_by_module_and_attribute() -> None:
    assert import_object("coars_env:CoarsReward") is CoarsReward
    assert import_object("coars_env:CoarsReward.batch") is CoarsReward.batch


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_import_test.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # restores sys.path afterwards
    assert import_object("mine_of_import_test:answer") == 42


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CoarsReward", r"'CoarsReward' names nothing to import\. Write module:attribute"),
        (":x", r"':x' names nothing to import"),
        ("coars_env:", r"'coars_env:' names nothing to import"),
        ("no_such_module:x", r"The module of 'no_such_module:x' cannot be imported: ModuleNotFoundError"),
        ("coars_env:Sparse", r"The module 'coars_env' has no 'Sparse'\. Name what is defined there"),
    ],
)
def test_what_cannot_be_imported_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_object(name)


def test_a_module_that_breaks_is_reported_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_of_import_test.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(ConfigError, match=r"cannot be imported: ZeroDivisionError"):
        import_object("broken_of_import_test:x")
