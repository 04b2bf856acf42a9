import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from coars_env.cli import main

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution of the test's own on the import path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, modules: dict[str, str], *, commands: str = "", metadata: str = "") -> None:
        for path, source in modules.items():
            (tmp_path / path).write_text(source, encoding="utf-8")
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}")
        (info / "entry_points.txt").write_text(f"[coars.commands]\n{commands}\n")
        (info / "top_level.txt").write_text("\n".join(path.removesuffix(".py") for path in modules))

    yield put
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_a_command_of_any_package_gets_the_words_after_its_name(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("my-pack", {"my_echo.py": "def main(argv): print('|'.join(argv))"}, commands="echo = my_echo:main")
    assert main(["echo", "--steps", "2 3", "--help"]) == 0
    assert capsys.readouterr().out == "--steps|2 3|--help\n"


def test_only_the_command_asked_for_is_loaded(install: Install) -> None:
    install(
        "my-pack",
        {"my_one.py": "def main(argv): pass", "my_two.py": "raise RuntimeError('loaded')"},
        commands="one = my_one:main\ntwo = my_two:main",
    )
    assert main(["one"]) == 0
    assert "my_one" in sys.modules
    assert "my_two" not in sys.modules


def test_help_lists_the_commands_by_the_first_line_of_their_module_without_loading_them(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(
        "my-pack",
        {"my_tune.py": '"""Tunes it.\n\nAt length.\n"""\nraise RuntimeError("loaded")'},
        commands="tune = my_tune:main\nlost = my_missing.part:main",
    )
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: coars <command> [arguments]"
    listed = [line.split() for line in lines]
    assert ["tune", "Tunes", "it."] in listed
    assert ["lost"] in listed


def test_an_unknown_command_names_the_known_ones(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("my-pack", {"my_echo.py": ""}, commands="echo = my_echo:main")
    assert main(["ehco"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no command 'ehco'" in err
    assert "echo" in err.partition("Known commands:")[2]


def test_no_command_is_answered_by_the_usage_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: coars")


def test_an_error_of_the_project_is_one_message_and_no_traceback(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        "from coars_env.errors import TaskError\ndef main(argv): raise TaskError('The set is empty. Build it again.')"
    )
    install("my-pack", {"my_failure.py": source}, commands="fail = my_failure:main")
    assert main(["fail"]) == 1
    assert capsys.readouterr() == ("", "coars fail: The set is empty. Build it again.\n")


def test_any_other_error_keeps_its_traceback(install: Install) -> None:
    install("my-pack", {"my_bug.py": "def main(argv): raise ValueError('a bug')"}, commands="bug = my_bug:main")
    with pytest.raises(ValueError, match="a bug"):
        main(["bug"])


def test_a_missing_extra_is_answered_by_the_pip_command(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(
        "my-pack",
        {"my_learner.py": "import no_such_lib.nn\ndef main(argv): pass"},
        commands="learn = my_learner:main",
        metadata='Provides-Extra: big\nRequires-Dist: numpy\nRequires-Dist: no-such-lib>=2.1; extra == "big"\n',
    )
    assert main(["learn"]) == 1
    err = capsys.readouterr().err
    assert err.endswith('pip install "my-pack[big]"\n')
    assert "no_such_lib" in err


def test_a_missing_module_of_no_extra_keeps_its_traceback(install: Install) -> None:
    install("my-pack", {"my_typo.py": "import no_such_module"}, commands="typo = my_typo:main")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        main(["typo"])


def test_a_foreign_package_that_owns_our_import_name_is_named(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("my-pack", {"my_echo.py": "def main(argv): print('ran')"}, commands="echo = my_echo:main")
    install("openai-agents", {"agents.py": ""})
    assert main(["echo"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "`agents` must belong to coars-env alone" in err
    assert "found openai-agents" in err


def test_our_own_extras_are_found_under_the_name_of_what_they_bring() -> None:
    try:
        requires = distribution("coars-env").requires or []
    except PackageNotFoundError:
        pytest.skip("coars-env is not installed here")
    llm = [line for line in requires if 'extra == "llm"' in line.replace("'", '"')]
    assert {"torch", "transformers", "peft"} <= {line.split(">=")[0] for line in llm}


def test_python_m_answers_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "coars_env.cli", "nonsense"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "no command 'nonsense'" in ran.stderr
    assert "Traceback" not in ran.stderr
