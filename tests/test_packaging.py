"""What a stranger gets from pip: the wheel is built from the source archive, as an index would have it."""

import configparser
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = {"coars_env", "agents", "baselines"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def read_metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (member,) = [member for member in wheel.namelist() if member.endswith(f".dist-info/{name}")]
    return wheel.read(member).decode()


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_every_module_of_the_packages(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules - set(wheel.namelist()) == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_only_the_light_libraries_are_installed_without_an_extra(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(read_metadata(wheel, "METADATA"))
    core = {line.partition(">=")[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert core == {"numpy", "gymnasium", "pettingzoo", "platformdirs", "rich", "tyro"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "llm",
        "wandb",
        "trackio",
        "server",
        "embeddings",
        "api",
        "quantized",
        "mf",
        "sb3",
        "torchrl",
        "tianshou",
        "dev",
    }
    assert metadata["License-Expression"] == "MIT"


def test_every_command_leads_to_a_function_of_a_shipped_module(wheel: zipfile.ZipFile) -> None:
    entries = configparser.ConfigParser()
    entries.read_string(read_metadata(wheel, "entry_points.txt"))
    assert entries["console_scripts"]["coars"] == "coars_env.cli:main"
    for target in entries["coars.commands"].values():
        module, _, function = target.partition(":")
        source = wheel.read(module.replace(".", "/") + ".py").decode()
        assert f"def {function}(" in source, target
