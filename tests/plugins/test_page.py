"""The blocks of docs/plugins.md, marked ```py, run as printed, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


@pytest.mark.plugins
@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version == 1.24.3")
def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.delenv("COARS_DATA", raising=False)
    page = PAGE.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for block in re.finditer(r"^```py\n(.*?)^```$", page, re.M | re.S):
            code = "\n" * (page.count("\n", 0, block.start(1))) + block[1]  # so that a traceback names the line
            exec(compile(code, str(PAGE), "exec"), namespace)
    printed = capsys.readouterr().out
    assert "random: 0." in printed
    assert "MaskablePPO: 0." in printed
    assert "{'recommender': ['recommender_0'], 'user': ['user_0']}" in printed
    assert "user_0 [0.0, 0.0]" in printed


@pytest.mark.plugins
def test_the_versions_on_the_page_are_those_installed() -> None:
    from importlib.metadata import version

    page = PAGE.read_text(encoding="utf-8")
    for name, written in {
        "sb3-contrib": "sb3-contrib",
        "stable-baselines3": "Stable-Baselines3",
        "supersuit": "SuperSuit",
        "torchrl": "TorchRL",
        "tianshou": "Tianshou",
    }.items():
        assert f"{written} {version(name)}" in page, f"docs/plugins.md names another version of {name}"
