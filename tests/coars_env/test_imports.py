import sys
from pathlib import Path

import pytest

from coars_env import ConfigError, import_object


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; the import path is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_module_of_the_working_directory_is_found(folder: Path) -> None:
    (folder / "my_found.py").write_text("class A:\n    b = 3\n")
    assert import_object("my_found:A.b") == 3
    assert import_object("json:dumps")({}) == "{}"


def test_a_file_does_not_shadow_what_is_installed(folder: Path) -> None:
    (folder / "statistics.py").write_text("fmean = 3\n")
    sys.modules.pop("statistics", None)
    assert callable(import_object("statistics:fmean"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("books", r"an object is named as module:name, got 'books'\. Write it so"),
        (":load", r"got ':load'"),
        ("books:", r"got 'books:'"),
        ("my_absent:load", r"'my_absent:load' cannot be imported: .*No module named 'my_absent'.*or into PYTHONPATH"),
        ("my_broken:load", r"cannot be imported: SyntaxError\(.*\. Correct the module"),
        ("my_needs:load", r"No module named 'my_absent'.*Correct the module"),
        ("my_empty:load", r"my_empty\.py has no 'load'\. Correct the name"),
    ],
)
def test_what_cannot_be_imported_is_said(folder: Path, path: str, message: str) -> None:
    (folder / "my_broken.py").write_text("def load(:\n")
    (folder / "my_needs.py").write_text("import my_absent\n")
    (folder / "my_empty.py").write_text("")
    with pytest.raises(ConfigError, match=message):
        import_object(path)
