"""The swap test on pairs played by hand, and on two tiny runs of a game with instructions."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.runs.config import DataConfig, TrainConfig, run_config
from agents.runs.evaluate import benchmark_of
from agents.runs.run import train_seeds
from agents.training.coars import Coars
from baselines.benchmark.crossplay import Swaps, main, swap
from coars_env import (
    ConfigError,
    CrossPlay,
    FixedRecommender,
    FixedUser,
    OracleUser,
    Rules,
    Split,
    cross_play,
    load_split,
    paired_difference,
)
from coars_env.testing import toy_episodes

TOY = toy_episodes()


def split_of_this_test() -> Split:
    return load_split("synthetic", users=24, items=80, interactions=400)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one update, in a game with instructions and other rules than by default."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("genre", "decade")
    size = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8, kinds=kinds)
    load_pocket(split_of_this_test(), size, cache_dir=folder / "pocket")
    (backbone,) = (folder / "pocket").iterdir()
    sys.modules["split_of_crossplay"] = sys.modules[__name__]
    config = TrainConfig(
        out=folder / "run",
        backbone=str(backbone),
        lora_rank=2,
        log="none",
        data=DataConfig(dataset="split_of_crossplay:split_of_this_test", instructions=kinds),
        recipe=Coars(steps=1, episodes_per_step=8, max_turns=2, rules=Rules(repeats="forbidden", answer="best")),
    )
    return train_seeds(config, split_of_this_test(), [0, 1])


def swaps_of(runs: tuple[str, ...]) -> Swaps:
    """Recommenders of the first and the second place; users that know the answer, and that take whatever comes."""
    recommenders = {"a": FixedRecommender(0), "b": FixedRecommender(1)}
    users = {"a": OracleUser(TOY), "b": FixedUser(), "plain": FixedUser()}
    return Swaps(cross_play(recommenders, users, [TOY]), runs)


def test_pairs_are_grouped_by_who_was_trained_with_whom() -> None:
    swaps = swaps_of(("a", "b"))
    groups = swaps.groups("hit_final")
    values = swaps.matrix.values("hit_final")
    assert list(groups) == ["own partner", "partner of another run", "user plain"]
    for name, pairs in (
        ("own partner", [("a", "a"), ("b", "b")]),
        ("partner of another run", [("a", "b"), ("b", "a")]),
        ("user plain", [("a", "plain"), ("b", "plain")]),
    ):
        np.testing.assert_array_equal(groups[name], np.concatenate([values[pair] for pair in pairs]))
    assert list(swaps_of(("a",)).groups("hit_final")) == [
        "own partner",
        "user b",
        "user plain",
        "recommender b",
        "b with b",
        "b with plain",
    ]


def test_the_table_has_both_answers_and_differences_to_the_own_partner() -> None:
    swaps = swaps_of(("a", "b"))
    own, other, plain = swaps.lines()
    assert (own["pairs"], own["number"], own["minus own, last"], own["minus own, best"]) == ("own partner", "2", "", "")
    # The first place holds the target of one task in four, the second that of two.
    assert own["Hit@1, last"].startswith("0.375 [")
    assert plain["Hit@1, best"].startswith("0.375 [")
    groups = swaps.groups("hit_best")
    d = paired_difference(groups["partner of another run"], groups["own partner"])
    assert other["minus own, best"] == f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
    first = swaps.records()[0]
    assert (first["recommender"], first["user"], first["hit_final"], first["hit_best"]) == ("a", "a", 0.25, 0.25)
    assert list(first)[2:5] == ["hit_final", "hit_final_low", "hit_final_high"]


def test_runs_and_partners_meet_in_the_game_of_the_training(runs: list[Path]) -> None:
    split = split_of_this_test()
    benchmark = benchmark_of(run_config(runs[0]), split, "test", draws=1)
    few = replace(benchmark, episodes=(replace(benchmark.episodes[0], tasks=benchmark.episodes[0].tasks[:3]),))
    folders = dict(zip(("s0", "s1"), runs, strict=True))
    swaps = swap(folders, ("untrained", "fixed", "asking", "instructed"), split, few)
    assert isinstance(swaps.matrix, CrossPlay)
    assert list(dict.fromkeys(pair[0] for pair in swaps.matrix.runs)) == ["s0", "s1", "untrained", "asking"]
    assert list(dict.fromkeys(pair[1] for pair in swaps.matrix.runs)) == [
        "s0",
        "s1",
        "untrained",
        "fixed",
        "instructed",
    ]
    for played in swaps.matrix.runs.values():
        for transcript in played[0][0]:
            assert transcript.rules == Rules(repeats="forbidden", answer="best")
            assert transcript.task.instruction is not None
            assert transcript.ending != "failed", transcript.cause
    asked = swaps.matrix.values("questions")["asking", "instructed"]
    assert asked.max() >= 1
    with pytest.raises(ConfigError, match=r"Runs and partners need names of their own, got \('s0', 's1', 's0'\)"):
        swap(folders, ("s0",), split, few)


def test_the_command_writes_page_table_and_picture(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*map(str, runs), "--draws", "1", "--partners", "fixed", "--out", str(tmp_path)])
    names = [folder.name for folder in runs]
    with (tmp_path / "crossplay.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["recommender"], row["user"]) for row in rows] == [(a, b) for a in names for b in (*names, "fixed")]
    page = (tmp_path / "crossplay.md").read_text()
    for needed in (
        "own partner",
        "partner of another run",
        "| hit_final | ",
        "| hit_best | ",
        "the best proposal: the",
    ):
        assert needed in page
    assert "own partner" in capsys.readouterr().out
    assert (tmp_path / "crossplay.png").stat().st_size > 10_000


def test_runs_of_different_games_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in runs[0].iterdir():
        (other / path.name).symlink_to(path)
    (other / "config.json").unlink()
    text = (runs[0] / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"forbidden"', '"unpaid"'))
    with pytest.raises(ConfigError, match="Runs that are swapped must play one game, but data, peers or rules of"):
        main([str(runs[0]), str(other)])
