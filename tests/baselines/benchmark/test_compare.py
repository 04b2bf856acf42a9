"""`coars compare`: tables of cells written by hand, one run of two cells, and (slow) cells that break or are killed."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from baselines.benchmark.cell import Cell
from baselines.benchmark.compare import CompareConfig, compare, main, score_table
from baselines.benchmark.game import Game
from baselines.benchmark.page import to_csv
from baselines.benchmark.plots import draw_cost, draw_forest
from coars_env import (
    RECOMMENDER,
    ROLES,
    ConfigError,
    FacetInstructions,
    Rules,
    Scores,
    TableRow,
    TaskError,
    builder,
    freeze,
    holm,
    load_split,
    paired_difference,
    read_transcripts,
)

HIT = "hit_final"


def small_game(draws: int = 2) -> Game:
    split = load_split("synthetic", users=40, items=120, interactions=1200)
    build = builder(split)
    return Game(split, "test", tuple(freeze(build, "test", draw=draw) for draw in range(draws)))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- tables of cells written by hand ----------------------------------------------------------------------------------


def cell(folder: Path, system: str, seed: int, hits: Sequence[Sequence[float]], **ranking: list[float]) -> Cell:
    """A finished cell with these hits [D, N] and figures of the full ranking [N]."""
    made = Cell(system, seed, folder / f"{system}-s{seed}")
    made.folder.mkdir()
    figures = {name: np.array([values]) for name, values in ranking.items()}
    scores = Scores(name=system, seeds=(seed,), metrics={HIT: np.array([hits])}, ranking=figures)
    (made.folder / "scores.json").write_text(json.dumps(scores.to_dict()))
    cost = {"parameters": 7, "training_seconds": 1.0 + seed, "memory_mb": 100.0 + seed}
    record: dict[str, Any] = {"cause": None, "failed_dialogues": 0, "cost": cost, "settings": {}, "code": {}}
    (made.folder / "cell.json").write_text(json.dumps(record))
    return made


def rows_of(config: CompareConfig, cells: Sequence[Cell]) -> tuple[TableRow, ...]:
    return score_table(config, cells).rows


def failed(folder: Path, system: str, seed: int, cause: str) -> Cell:
    made = Cell(system, seed, folder / f"{system}-s{seed}")
    made.folder.mkdir()
    (made.folder / "cell.json").write_text(json.dumps({"system": system, "seed": seed, "cause": cause}))
    return made


@pytest.fixture
def config(tmp_path: Path) -> CompareConfig:
    return CompareConfig(systems=("markov", "bpr", "random"), seeds=(0, 1), out=tmp_path / "out")


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """Eight users, two seeds. Markov hits one user more than item_knn, bpr all; a seed of random was killed."""
    some, more, every = [[1.0, 0, 0, 0, 0, 0, 0, 0]], [[1.0, 1, 0, 0, 0, 0, 0, 0]], [[1.0] * 8]
    ranking = {"HR@10": [1.0] * 4 + [0.0] * 4, "NDCG@10": [0.5] * 4 + [0.0] * 4}
    return [
        *(cell(tmp_path, "markov", seed, more, **ranking) for seed in (0, 1)),
        *(cell(tmp_path, "bpr", seed, every, **ranking) for seed in (0, 1)),
        cell(tmp_path, "random", 0, [[0.0] * 8]),
        failed(tmp_path, "random", 1, "The process: killed by SIGKILL."),
        *(cell(tmp_path, "item_knn", seed, some, **ranking) for seed in (0, 1)),
    ]


def test_a_row_holds_means_costs_and_differences_to_the_reference(config: CompareConfig, cells: list[Cell]) -> None:
    markov, bpr, chance, knn = rows_of(config, cells)
    assert [row.system for row in (markov, bpr, chance, knn)] == ["markov", "bpr", "random", "item_knn"]
    assert markov.hit is not None
    assert markov.difference is not None
    assert (markov.hit.mean, markov.difference.mean) == (2 / 8, 1 / 8)
    assert bpr.ranking["HR@10"].mean == 1 / 2
    assert bpr.ranking["NDCG@10"].mean == 1 / 4
    assert chance.ranking == {}
    assert bpr.cost is not None
    assert (bpr.cost.parameters, bpr.cost.training_seconds / bpr.cost.seeds, bpr.cost.memory_mb) == (7, 1.5, 101.0)
    assert knn.difference is None


def test_p_values_are_corrected_for_all_differences_of_the_table(config: CompareConfig, cells: list[Cell]) -> None:
    rows = {row.system: row for row in rows_of(config, cells)}
    # Exact tests: one user differs (p = 1), seven do (2 of 2^7 swaps are as extreme), one does.
    p_values = [1.0, 2 / 2**7, 1.0]
    names = ("markov", "bpr", "random")
    for name, p_value, adjusted in zip(names, p_values, holm(p_values), strict=True):
        difference = rows[name].difference
        assert difference is not None
        assert difference.p_value == pytest.approx(p_value)
        assert rows[name].p_holm == pytest.approx(adjusted)
    assert rows["bpr"].p_holm == pytest.approx(3 * 2 / 2**7)
    assert np.isnan(rows["item_knn"].p_holm)


def test_seeds_that_failed_are_named_and_left_out(config: CompareConfig, cells: list[Cell]) -> None:
    rows = {row.system: row for row in rows_of(config, cells)}
    assert rows["random"].seeds == (0,)
    assert rows["random"].notes == ("seed 1: The process: killed by SIGKILL.",)


def test_a_system_of_which_all_seeds_failed_stays_in_every_table(config: CompareConfig, tmp_path: Path) -> None:
    cells = [failed(tmp_path, name, seed, "no fit today") for name in ("markov", "bpr", "random") for seed in (0, 1)]
    cells += [cell(tmp_path, "item_knn", seed, [[1.0, 0.0, 1.0]]) for seed in (0, 1)]
    table = score_table(config, cells)
    assert [line["Hit@1"] for line in table.systems()][:3] == ["failed"] * 3
    lines = list(csv.DictReader(io.StringIO(to_csv(table, dict.fromkeys(config.played, "again")))))
    assert (lines[0]["hit@1"], lines[0]["memory_mb"]) == ("", "")
    assert lines[0]["notes"] == "seed 0: no fit today; seed 1: no fit today"
    draw_forest(table.rows, "item_knn", tmp_path / "forest.png", title="three failed")
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_cost(table.rows, tmp_path / "cost.png", title="no tokens, no picture")
    assert not (tmp_path / "cost.png").exists()


def test_without_the_reference_there_are_figures_but_no_differences(
    config: CompareConfig, cells: list[Cell], tmp_path: Path
) -> None:
    cells = cells[:6] + [failed(tmp_path, "item_knn", seed + 2, "broke") for seed in (0, 1)]
    rows = rows_of(config, cells)
    assert rows[0].hit is not None
    assert [row.difference for row in rows] == [None] * 4


def test_dialogues_that_broke_are_told(config: CompareConfig, cells: list[Cell]) -> None:
    path = cells[0].folder / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "failed_dialogues": 3}))
    assert rows_of(config, cells)[0].notes == ("seed 0: 3 dialogues broke and count as misses, see log.txt",)


def test_the_command_of_a_row_is_whole(config: CompareConfig) -> None:
    assert config.command(["bpr"], "real", Path("runs/again-bpr")) == (
        "coars compare --dataset movielens --subset test --candidates uniform --source real --draws 5 --systems bpr "
        "--seeds 0 1 --reference item_knn --backbone pocket --updates 60 --out runs/again-bpr"
    )
    meets = CompareConfig(user="own:User").command(["bpr"], "real", Path("x"))
    assert "--reference item_knn --user own:User --backbone" in meets
    wishes = CompareConfig(
        instructions=("genre", "decade"),
        most_facets=1,
        facet_noise=0.1,
        rules=Rules(repeats="forbidden", answer="best", questions=False),
        controls=False,
    )
    assert (
        "--candidates uniform --instructions genre decade --most-facets 1 --facet-noise 0.1 --repeats forbidden "
        "--answer best --no-questions --no-controls --source"
    ) in wishes.command(["bpr"], "real", Path("x"))


# --- settings ---------------------------------------------------------------------------------------------------------


def test_unknown_systems_are_refused_before_anything_is_played() -> None:
    with pytest.raises(ConfigError, match=r"'markow' is no system\. Name one of .*'markov'"):
        CompareConfig(systems=("markow",))
    with pytest.raises(ConfigError, match="'nobody' is no system"):
        CompareConfig(reference="nobody")


def test_draws_and_seeds_are_counted() -> None:
    with pytest.raises(ConfigError, match="Expected draws and jobs >= 1"):
        CompareConfig(draws=0)
    with pytest.raises(ConfigError, match="seeds that are >= 0"):
        CompareConfig(seeds=())
    with pytest.raises(ConfigError, match="found 5, 0 and"):
        CompareConfig(jobs=0)


def test_the_reference_is_played_once_wherever_it_stands() -> None:
    assert CompareConfig(systems=("markov", "random", "markov")).played == ("markov", "random", "item_knn")
    assert CompareConfig(systems=("item_knn", "random")).played == ("item_knn", "random")


def test_data_of_ones_own_are_named_by_their_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = "import coars_env.testing as t\nload = t.toy_dataset\ndef seven(): return 7\n"
    (tmp_path / "my_compared.py").write_text(code)
    with pytest.raises(TaskError, match="at least 19 that are not barred, found 3"):  # the toy has six items
        CompareConfig(dataset="my_compared:load").game()
    with pytest.raises(ConfigError, match="'my_compared:seven' must return a Dataset or a Split, got 7"):
        main(["--dataset", "my_compared:seven", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert "--source" not in CompareConfig(dataset="my_compared:load").command(["random"], "custom", tmp_path)


def test_a_part_that_holds_nobody_is_refused() -> None:
    with pytest.raises(TaskError, match=r"A part must have users\. Expected some in 'validation', found none"):
        CompareConfig(dataset="synthetic", subset="validation", draws=1).game()


def test_a_cell_of_changed_code_is_refused(cells: list[Cell]) -> None:
    path = cells[0].folder / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": {"coars_env.rewards": "0" * 12}}))
    with pytest.raises(ConfigError, match=r"the code as it is now.*other code of coars_env\.rewards\. Choose another"):
        cells[0].refuse_other_settings({})


def test_a_cell_that_met_another_user_is_refused_where_the_user_is_not_its_own(tmp_path: Path) -> None:
    game = small_game(draws=1)
    made = cell(tmp_path, "random", 0, [[1.0]])
    path = made.folder / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": game.settings((RECOMMENDER,))}))
    made.refuse_other_settings(game.settings((RECOMMENDER,)))
    other = replace(game, user="own:User")
    with pytest.raises(ConfigError, match=r"Expected user own:User in .*, found user fixed\. Choose another"):
        made.refuse_other_settings(other.settings((RECOMMENDER,)))
    assert other.settings(ROLES) == game.settings(ROLES)  # a system that plays both sides does not meet it


def test_a_cell_of_another_game_is_refused(tmp_path: Path) -> None:
    wishes = FacetInstructions(("genre",))
    game = replace(small_game(draws=1), instructions=wishes, controls=True)
    made = cell(tmp_path, "random", 0, [[1.0]])
    path = made.folder / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": game.settings(ROLES)}))
    made.refuse_other_settings(game.settings(ROLES))
    for other, message in (
        (replace(game, rules=Rules(answer="best", repeats="unpaid")), "Expected Rules.repeats='unpaid', answer='best'"),
        (replace(game, instructions=None), "Expected instructions none in .*, found instructions genre"),
        (replace(game, instructions=FacetInstructions(("genre",), noise=0.5)), "Expected instructions genre-noise0.5"),
        (replace(game, controls=False), "Expected no controls in .*, found controls"),
    ):
        with pytest.raises(ConfigError, match=message):
            made.refuse_other_settings(other.settings(ROLES))


def test_the_options_of_a_conversation_make_the_game() -> None:
    rules = Rules(answer="best")
    config = CompareConfig(dataset="synthetic", instructions=("genre", "like"), most_facets=1, rules=rules, draws=1)
    game = config.game()
    assert (game.instructions, game.rules, game.controls) == (FacetInstructions(("genre", "like"), most=1), rules, True)
    assert game.episodes[0].kinds == ("genre", "like")
    assert any(item.values("like") for item in game.split.dataset.items)  # what systems learn from knows it, too
    resources = game.resources(Path("x"))
    assert (resources.instructions, resources.rules, resources.kinds) == (game.instructions, rules, ("genre", "like"))
    plain = replace(config, instructions=()).game()
    assert (plain.instructions, plain.controls, plain.episodes[0].kinds) == (None, False, ())


def test_a_failed_cell_is_no_reason_to_refuse(tmp_path: Path) -> None:
    broken = failed(tmp_path, "bpr", 0, "no fit today")
    broken.refuse_other_settings({"dataset": "another"})
    assert not broken.finished()


# --- cells that are played --------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_comparison_is_played_once_written_down_and_closed_to_other_episodes(tmp_path: Path) -> None:
    game = small_game()
    config = CompareConfig(dataset="synthetic", systems=("popularity",), reference="markov", seeds=(3,), out=tmp_path)
    first = compare(config, game, console=quiet())

    folder = tmp_path / "cells" / "popularity-s3"
    assert {path.name for path in folder.iterdir()} == {
        *("cell.json", "scores.json", "log.txt", "transcripts-d0.jsonl", "transcripts-d1.jsonl")
    }
    hits = [[t.final_item == t.task.target for t in read_transcripts(p)] for p in sorted(folder.glob("*.jsonl"))]
    scores = Cell.of(tmp_path, "popularity", 3).scores()
    np.testing.assert_array_equal(scores.metrics[HIT], [hits])
    assert scores.ranking["HR@10"].shape == (1, 40)
    assert len(Cell.of(tmp_path, "popularity", 3).transcripts()) == 2
    record = json.loads((folder / "cell.json").read_text())
    assert record["cost"]["parameters"] == 120
    assert 30 < record["cost"]["memory_mb"] < 1000
    assert record["code"]["baselines.popularity"]
    assert not [name for name in record["code"] if name.startswith("agents")]  # counting loads no torch

    (line, reference) = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    assert float(line["hit@1"]) == pytest.approx(np.mean(hits))
    other = Cell.of(tmp_path, "markov", 3).scores().metrics[HIT]
    assert float(line["p_holm"]) == pytest.approx(paired_difference(hits, other).p_value)
    assert reference["difference"] == ""
    page = (tmp_path / "table.md").read_text()
    assert (
        "| system | Hit@1 | minus markov | p (Holm) | HR@10 | NDCG@10 | parameters | training, s | memory, MB |" in page
    )
    assert "| system | HR@5 | NDCG@5 | HR@10 | NDCG@10 | HR@20 | NDCG@20 |" in page
    assert float(line["hr@5"]) <= float(line["hr@10"]) <= float(line["hr@20"])
    for needed in ("SYNTHETIC data", game.episodes[1].sha256[:12], "commit ", "numpy ", line["command"], "forest.png"):
        assert needed in page
    assert (tmp_path / "forest.png").stat().st_size > 10_000
    assert "cost.png" not in page
    assert not (tmp_path / "cost.png").exists()  # none asked a language model

    before, console = files_of(tmp_path / "cells"), quiet()
    assert compare(config, game, console=console).records() == first.records()
    assert files_of(tmp_path / "cells") == before
    assert "2 cells, 2 of them finished before" in said(console)

    with pytest.raises(ConfigError, match=r"Expected .*uniform/d0 \(\w+\) in .*, found .*uniform/d1 \(\w+\)\. Choose"):
        compare(config, small_game(draws=1), console=quiet())
    assert files_of(tmp_path / "cells") == before


def test_a_game_with_instructions_has_controls_and_hits_by_turn(tmp_path: Path) -> None:
    split = load_split("synthetic", users=40, items=120, interactions=1200)
    wishes, rules = FacetInstructions(("genre", "decade")), Rules(repeats="forbidden", answer="best")
    draws = (freeze(builder(split, instructions=wishes), "test"),)
    game = Game(split, "test", draws, user="instructed", instructions=wishes, rules=rules, controls=True)
    systems = ("asking", "popularity")
    config = CompareConfig(dataset="synthetic", systems=systems, reference="popularity", seeds=(3,), out=tmp_path)
    asking, _ = compare(config, game, console=quiet()).rows

    made = Cell.of(tmp_path, "asking", 3)
    (transcripts,) = made.transcripts()
    assert {t.rules for t in transcripts} == {rules}
    scores, controls = made.scores(), made.controls()
    assert asking.answer == "best"
    assert asking.hit is not None
    assert asking.hit.mean == np.mean([t.best_item == t.task.target for t in transcripts])
    assert scores.metrics["hit_best@4"].tolist() == scores.metrics["hit_best"].tolist()
    assert list(scores.by_turn()) == [f"{name}@{turn}" for name in (HIT, "hit_best") for turn in (1, 2, 3, 4)]
    assert list(controls) == ["shuffled words", "no words", "other instruction"]
    assert controls["no words"].metrics["revealed"].sum() == 0
    words = scores.metrics["revealed"].sum()
    assert words > 0

    page = (tmp_path / "table.md").read_text()
    assert "Hit@1 is that of the best proposal: the accepted one" in page
    assert "| system | user | Hit@1 | minus as it is | Hit@1, last | Hit@1, best | Hit@1, turn 1 |" in page
    d = paired_difference(controls["no words"].metrics["hit_best"], scores.metrics["hit_best"])
    assert f"| {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}] |" in page
    # Nothing that is said reaches a recommender that does not listen.
    heard = [line for line in page.splitlines() if line.startswith("| popularity | shuffled words |")]
    assert len(heard) == 1
    assert "| +0.000 [+0.000, +0.000] |" in heard[0]
    assert (tmp_path / "hit_by_turn.png").stat().st_size > 10_000
    plain = replace(game, controls=False)
    with pytest.raises(ConfigError, match=r"Expected no controls in .*, found controls"):
        compare(config, plain, console=quiet())


TOYS = '''
import os
import signal
from pathlib import Path

from baselines.popularity import Popularity
from baselines.system import SavedSystem, System
from coars_env import RECOMMENDER

NOTES = Path(__file__).with_name("notes.txt")


def note(word):
    with NOTES.open("a") as notes:
        notes.write(word + "\\n")


class Kept(SavedSystem):
    """Can be saved; its process is killed when it is to play for the first time."""

    plays = (RECOMMENDER,)

    def __init__(self, split):
        super().__init__(Killed(Popularity(split).recommender))

    @classmethod
    def fit(cls, split, *, seed, resources):
        note("trained")
        return cls(split)

    def save(self, folder):
        folder.mkdir(parents=True)
        (folder / "weights").write_text("7")

    @classmethod
    def load(cls, folder, split):
        note("loaded " + (folder / "weights").read_text())
        return cls(split)


class Killed:
    def __init__(self, player):
        self.act, self.player = player.act, player

    def start(self, seeds):
        if "loaded" not in NOTES.read_text():
            os.kill(os.getpid(), signal.SIGKILL)
        self.player.start(seeds)


class Broken(System):
    """Cannot be trained."""

    plays = (RECOMMENDER,)

    @classmethod
    def fit(cls, split, *, seed, resources):
        raise ValueError("no fit today")
'''


OWN = '''
from coars_env import RECOMMENDER, USER, FixedUser, GreedyRecommender, popularity_scorer

from baselines import System


class Plain:
    """No system, and nothing of one."""


class Idle(System):
    """Plays no side."""

    @classmethod
    def fit(cls, split, *, seed, resources):
        return cls()


class Absent(System):
    """Says that it plays, and does not."""

    plays = (RECOMMENDER,)

    @classmethod
    def fit(cls, split, *, seed, resources):
        return cls()


class Likes(System):
    """Plays the user: dislikes all."""

    plays = (USER,)

    @classmethod
    def fit(cls, split, *, seed, resources):
        return cls(user=FixedUser("dislike", 0.0))


class Rejecting(FixedUser):
    def __init__(self):
        super().__init__("skip", 0.3)


class Needy:
    def __init__(self, items):
        pass

    def start(self, seeds):
        pass

    def act(self, observations):
        return {}


def make(): ...
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of these classes in the working directory, which is not on sys.path."""
    (tmp_path / "own_toys.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield "own_toys"
    sys.modules.pop("own_toys", None)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("Plain", "Plain is no system: it does not inherit from .*; it has no fit.*; it plays no side"),
        ("Idle", r"Idle is no system: it plays no side: plays = \(\) instead of"),
        ("make", "make is no class but <function make"),
        ("Missing", "Missing' cannot be imported: .*own_toys.py has no 'Missing'"),
    ],
)
def test_what_is_no_system_is_refused_with_what_is_missing(own: str, name: str, missing: str, tmp_path: Path) -> None:
    config = CompareConfig(dataset="synthetic", systems=("random", f"{own}:{name}"), out=tmp_path / "out")
    with pytest.raises(ConfigError, match=missing):
        compare(config, small_game(), console=quiet())
    assert not (tmp_path / "out").exists()  # nothing was played


def test_all_that_cannot_be_imported_is_named_at_once(own: str, tmp_path: Path) -> None:
    (tmp_path / "broken_toys.py").write_text("import nothing_of_this_name\n")
    config = CompareConfig(systems=("no_toys:A", "broken_toys:B", f"{own}:Likes"), user=f"{own}:Plain")
    with pytest.raises(ConfigError) as refused:
        config.kinds()
    first, second, third = str(refused.value).split("\n")
    assert first.startswith(
        "'no_toys:A' cannot be imported: ModuleNotFoundError(\"No module named 'no_toys'\"). Put it"
    )
    assert second.startswith(
        "'broken_toys:B' cannot be imported: ModuleNotFoundError(\"No module named 'nothing_of_this"
    )
    assert third.startswith("--user: own_toys:Plain is no user: it has no start(seeds) and act(observations)")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("popularity", "popularity plays recommender_0 alone. Name a system that plays user_0"),
        ("own_toys:Needy", "own_toys:Needy cannot be made without arguments: missing a required argument: 'items'"),
        ("nobody", "'nobody' is no system"),
    ],
)
def test_who_cannot_play_the_user_is_refused(own: str, name: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        CompareConfig(user=name).kinds()


@pytest.mark.slow
def test_systems_of_one_side_meet_the_user_that_is_named(own: str, tmp_path: Path) -> None:
    systems = ("random", f"{own}:Absent", f"{own}:Likes")
    config = CompareConfig(systems=systems, reference="random", seeds=(0,), user=f"{own}:Rejecting", out=tmp_path / "o")
    game = replace(small_game(draws=1), user=config.user)
    random, absent, likes = (table := compare(config, game, console=quiet())).rows
    assert (random.played["turns"].mean, random.user) == (4.0, {})
    assert absent.notes == (
        "seed 0: Absent plays recommender_0, but its fit returned None as that agent. Pass one to System.__init__, or "
        "correct `plays`.",
    )
    assert likes.played["turns"].mean == 4.0  # the most popular candidates, all disliked
    assert likes.user["1:1"]["acceptance"].mean == 0.0
    assert [line["turns"] for line in table.systems()] == ["4.000 [4.000, 4.000]", "", "4.000 [4.000, 4.000]"]
    page = (tmp_path / "o" / "table.md").read_text()
    assert "others meet the user of `own_toys:Rejecting`." in page
    assert "--user own_toys:Rejecting" in page


@pytest.mark.slow
def test_what_breaks_is_recorded_and_what_was_trained_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_systems.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out"
    systems = ("toy_systems:Broken", "toy_systems:Kept", "popularity")
    config = CompareConfig(dataset="synthetic", systems=systems, reference="popularity", seeds=(0,), jobs=2, out=out)
    game, console = small_game(), quiet()

    broken, kept, popularity = compare(config, game, console=console).rows
    assert broken.notes == ("seed 0: ValueError: no fit today",)
    assert kept.notes == ("seed 0: The process: killed by SIGKILL.",)
    assert popularity.hit is not None
    assert "toy_systems:Kept, seed 0: failed. The process: killed by SIGKILL." in said(console)
    assert 'raise ValueError("no fit today")' in (out / "cells" / "toy_systems.Broken-s0" / "log.txt").read_text()
    assert "- toy_systems:Broken: seed 0: ValueError: no fit today" in (out / "table.md").read_text()

    finished = files_of(out / "cells" / "popularity-s0")
    broken, kept, popularity = compare(config, game, console=quiet()).rows
    assert (tmp_path / "notes.txt").read_text().split("\n") == ["trained", "loaded 7", ""]
    assert kept.hit == popularity.hit
    assert kept.notes == ()
    assert broken.hit is None
    assert files_of(out / "cells" / "popularity-s0") == finished

    (tmp_path / "toy_systems.py").write_text(TOYS + "\n# edited\n")
    with pytest.raises(ConfigError, match="other code of toy_systems"):
        compare(config, game, console=quiet())


@pytest.mark.slow
def test_a_cell_ends_with_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, time\n"
        "from baselines.system import System\n"
        "class Sleeper(System):\n"
        "    plays = ('recommender_0',)\n"
        "    @classmethod\n"
        "    def fit(cls, split, *, seed, resources):\n"
        f"        open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "        time.sleep(600)\n"
    )
    words = ["--dataset", "synthetic", "--draws", "1", "--systems", "sleeper:Sleeper", "--seeds", "0"]
    command = [sys.executable, "-m", "coars_env.cli", "compare", *words, "--reference", "sleeper:Sleeper"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([*command, "--out", str(tmp_path / "out")], env=environment) as comparison:
        wait_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        comparison.kill()
    cell = Path("/proc") / (tmp_path / "pid").read_text()
    wait_for(lambda: not cell.exists())


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("a minute has passed")


@pytest.mark.slow
def test_the_command_plays_and_says_where_everything_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "synthetic", "--draws", "1", "--systems", "random", "--seeds", "0", "--out", str(tmp_path)]
    main([*words, "--reference", "popularity"])
    printed_ = capsys.readouterr().out
    assert "random, seed 0: Hit@1 0." in printed_
    assert "table.csv, table.md and forest.png" in printed_.replace("\n", "")
