import sys
from pathlib import Path

import pytest

from agents.runs.command import main
from agents.runs.config import DataConfig, open_split
from coars_env import ConfigError

CODE = """
from coars_env.testing import toy_dataset as load

def seven():
    return 7
"""


def test_a_run_names_data_of_ones_own_by_their_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_trained.py").write_text(CODE)
    assert open_split(DataConfig(dataset="my_trained:load", split="leave_last_two")).validation
    with pytest.raises(ConfigError, match="'my_trained:seven' must return a Dataset or a Split, got 7"):
        main(["--data.dataset", "my_trained:seven", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
