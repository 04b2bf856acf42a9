"""What the pages say runs: their blocks of Python, the examples, and the names and defaults they state.

Every block marked ```python in README.md and docs/*.md is executed as printed, from top to bottom, one namespace a
file, in an empty folder and without real data. A block marked ```text directly after one holds what it prints. A line
`<!-- slow: why -->` before a block leaves it, and what follows it in the file, to the slow tests.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.models.backbones.pocket import PocketConfig, load_pocket
from baselines.benchmark import compare
from coars_env import (
    METERS,
    CoarsWarning,
    FixedRecommender,
    FixedUser,
    builder,
    freeze,
    from_interactions,
    leave_last,
    load_split,
    rollout,
    write_transcripts,
)
from coars_env.testing import toy_episodes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(
    r"(?P<slow><!-- slow: [^\n]*-->\n)?^```python\n(?P<code>.*?)^```\n(\n```text\n(?P<printed>.*?)^```\n)?", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    line: int
    """Line of the page on which the code begins, from 1."""
    code: str
    printed: str | None
    """What it prints; None if the page does not say."""
    slow: bool


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, m.start("code")) + 1, m["code"], m["printed"], m["slow"] is not None)
        for m in BLOCK.finditer(text)
    ]


def named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=path.name) for path in paths]


def run_page(page: Path, folder: Path, capsys: pytest.CaptureFixture[str], *, slow: bool) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.delenv("COARS_DATA", raising=False)
        patch.chdir(folder)
        warnings.simplefilter("ignore", CoarsWarning)  # that an invented world stands in
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.slow and not slow:
                break
            capsys.readouterr()
            code = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the page
            exec(compile(code, str(page), "exec"), namespace)
            printed = capsys.readouterr().out
            assert block.printed in (None, printed), f"{page.name}:{block.line} prints\n{printed}"


@pytest.mark.parametrize("page", named([page for page in PAGES if blocks(page.read_text(encoding="utf-8"))]))
def test_the_code_of_a_page_runs_as_printed(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page(page, tmp_path, capsys, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", named([p for p in PAGES if any(b.slow for b in blocks(p.read_text(encoding="utf-8")))])
)
def test_the_slow_code_of_a_page_runs_as_printed(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(page, tmp_path, capsys, slow=True)


def test_blocks_are_found_as_the_rule_says() -> None:
    page = (
        "a\n```python\nx = 1\n```\n\n```text\nshown\n```\n<!-- slow: trains -->\n```python\ny\n```\n```bash\nls\n```\n"
    )
    assert blocks(page) == [Block(3, "x = 1\n", "shown\n", False), Block(11, "y\n", None, True)]


# The examples ---------------------------------------------------------------------------------------------------------


def run_example(name: str, *words: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_quickstart_prints_a_dialogue() -> None:
    printed = run_example("quickstart.py")
    assert run_example("quickstart.py") == printed
    assert "| hit_final | 0." in printed
    assert "Turn 1. User answers dislike (0.00): No, not that." in printed


def test_groups_are_counted_and_played(tmp_path: Path) -> None:
    words = (
        "--dataset",
        "synthetic",
        "--source",
        "synthetic",
        "--num-users",
        "2",
        "--draws",
        "1",
        "--out",
        str(tmp_path),
    )
    printed = run_example("groups.py", *words)
    (row,) = [
        line.split(" | ") for line in printed.splitlines() if line.startswith("| random | ") and " +" not in line
    ][:1]
    assert row[1] == row[2]  # chance does not read histories
    assert printed.count("| click all |") == 5
    assert printed.count("| all users |") == printed.count("| the first user |") == 3
    (page,) = tmp_path.iterdir()
    assert printed.strip() in page.read_text(encoding="utf-8")


def test_the_quickstart_is_that_of_the_readme_on_invented_data() -> None:
    shown = "\n".join(block.code for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))[:2])
    example = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert example == shown.replace('make("movielens")', 'make("synthetic")')


def test_data_of_ones_own_are_played_evaluated_and_trained_on() -> None:
    printed = run_example("own_dataset.py")
    assert printed.startswith("Split('split_users' of 'library': 200 train, 40 validation, 60 test)\n")
    assert "Turn 1. Recommender proposes Volume " in printed
    assert "validation: weight 0 0.725, weight 100 0.725, weight 10000 0.150\n" in printed
    assert printed.endswith("test: popularity 0.150, follows 0.733 (weight 0)\n")


def test_data_of_ones_own_go_through_the_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "examples")
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["--draws", "1", "--seeds", "0", "--reference", "markov", "--systems", "popularity", "--out", str(tmp_path)]
    compare.main(["--dataset", "own_dataset:split", *words])
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "CUSTOM data library" in page
    assert "60 users" in page
    assert "coars compare --dataset own_dataset:split --subset test --candidates uniform --draws 1" in page


def test_a_reward_of_ones_own_is_paid_averaged_and_computed_again() -> None:
    printed = run_example("own_reward.py").splitlines()
    assert printed[1].startswith("  {'recommender_0': ")
    assert {line.split()[0] for line in printed if " reward_user " in line} == {"Patient", "last_word", "CoARS"}
    assert re.fullmatch(r"coars rescore: \d+ dialogues; rewards of turns: \d\d+ equal, 0 different, .*", printed[-1])


def test_a_system_of_ones_own_is_laid_beside_item_knn() -> None:
    printed = run_example("own_system.py")
    columns = "Hit@1, best | Hit@1, turn 1 | turns | reward | seeds"
    assert f"| system | Hit@1 | minus item_knn | p (Holm) | {columns} |" in printed
    assert "| title words | 0." in printed


def test_a_backbone_of_ones_own_learns() -> None:
    printed = run_example("own_backbone.py").splitlines()
    assert [line.partition(":")[0] for line in printed] == ["update 1", "update 2"]


def test_a_recipe_of_ones_own_trains_a_recommender_that_thinks() -> None:
    words = ["--backbone", "own_backbone:small_llama", "--recipe.steps", "2", "--recipe.episodes-per-step", "8"]
    printed = run_example("own_recipe.py", *words).splitlines()
    assert printed[0] == "synthetic data, 94 validation users"
    assert re.fullmatch(r"Hit@1 before: 0\.\d+ \[.*\]", printed[1])
    assert [line.partition(":")[0] for line in printed[2:4]] == ["update 1", "update 2"]


@pytest.mark.slow
def test_a_system_of_ones_own_is_compared_by_the_command_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT / "examples")
    words = ["--systems", "own_system:TitleWords", "--user", "own_system:TastefulUser", "--seeds", "0", "--draws", "1"]
    compare.main(["--dataset", "synthetic", *words, "--out", str(tmp_path)])
    assert "own_system:TitleWords, seed 0: Hit@1 0." in capsys.readouterr().out
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "others meet the user of `own_system:TastefulUser`" in page
    assert "| own_system:TitleWords | 0." in page
    assert not (tmp_path / "cost.png").exists()


@pytest.mark.slow
def test_every_scripted_partner_meets_every_other() -> None:
    printed = run_example("cross_play.py", "--dataset", "synthetic", "--tasks", "60", "--seeds", "1")
    assert "| hit_final | oracle | errs in 20 % | accepts all | adversary | svd user | picky svd user |" in printed
    assert "| popularity x oracle | " in printed
    assert "Reliability at 1:9:" in printed


@pytest.mark.slow
def test_the_speed_of_a_step_is_printed() -> None:
    printed = run_example("benchmarks/step_speed.py", "--dialogues", "4", "--repeats", "1", "--items", "100")
    assert "| rollout, recommender |" in printed
    assert "equal dialogues: yes" in printed
    assert "tokens trained, those the sides chose themselves: " in printed


@pytest.mark.slow
def test_the_gain_of_a_second_process_is_printed(tmp_path: Path) -> None:
    words = ("--dialogues", "4", "--rounds", "1", "--items", "100", "--out", str(tmp_path))
    printed = run_example("benchmarks/data_parallel.py", *words)
    assert "| processor time of the busiest |" in printed
    assert "equal dialogues: yes" in printed
    (page,) = tmp_path.iterdir()
    assert printed in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_cost_of_a_step_is_printed_where_no_trl_is_installed(tmp_path: Path) -> None:
    words = "--systems ours alone carried carried_alone again --tasks 2 --group 2 --prompt 20 --reply 4 --turns 2"
    printed = run_example("benchmarks/vs_trl.py", *words.split(), "--rounds", "1", "--out", str(tmp_path))
    for system in ("prompts shared", "nothing shared", "`generate` at each turn"):
        assert system in printed
    assert "| student forward |" in printed
    (page,) = tmp_path.iterdir()
    assert "2 prompts of 20 tokens, 2 answers to each" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_speed_of_the_environment_is_printed() -> None:
    words = ("--repeats", "1", "--seconds", "0.05", "--dialogues", "4", "--source", "synthetic")
    printed = run_example("benchmarks/env_speed.py", *words)
    assert "| make_vec, 1024 games |" in printed
    assert "this share passes outside the agents: in VectorDialogueEnv " in printed
    assert "`import coars_env` takes " in printed


@pytest.mark.slow
def test_the_seconds_of_a_full_ranking_are_printed() -> None:
    words = ("--users", "100", "--items", "150", "--interactions", "4000", "--repeats", "1")
    printed = run_example("benchmarks/full_ranking.py", *words)
    assert "| HR and NDCG at 5, 10, 20 |" in printed
    assert "all of it: " in printed


@pytest.mark.slow
def test_the_growth_of_the_cost_is_printed_and_drawn(tmp_path: Path) -> None:
    printed = run_example("benchmarks/growth.py", "--sizes", "150000", "200000", "--out", str(tmp_path))
    assert "| 200,000 | 1,298 |" in printed
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".md", ".png"]


@pytest.mark.slow
def test_an_ablation_is_printed_drawn_and_not_trained_twice(tmp_path: Path) -> None:
    split = load_split("synthetic", "llara", source="synthetic")
    config = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8)
    load_pocket(split, config, cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()
    runs, out = tmp_path / "runs", tmp_path / "out"
    words = ["--what", "credit", "--seeds", "0", "--draws", "1", "--base.out", str(runs), "--out", str(out)]
    words += ["--base.backbone", str(backbone), "--base.data.source", "synthetic"]
    words += ["--base.recipe.steps", "1", "--base.recipe.episodes-per-step", "8"]
    printed = run_example("ablation.py", *words)
    names = ("CoARS", "sign from reward", "no self-distillation")
    table = [line.split(" | ")[0].removeprefix("| ") for line in printed.splitlines()]
    assert [name for name in table if name in names] == [*names, *names]  # systems, then their users
    assert "| metric | no self-distillation minus CoARS |" in printed
    assert sorted(path.suffix for path in out.iterdir()) == [".md", ".png"]
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    run_example("ablation.py", *words)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == made
    assert "| written by the model |" in run_example("ablation.py", *words, "--what", "diagnosis")
    assert {path: path.stat().st_mtime_ns for path in made} == made  # CoARS is one of both


def test_grades_are_laid_beside_hits(tmp_path: Path) -> None:
    split = load_split("synthetic", "llara", source="synthetic")
    load_pocket(split, PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8), cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()
    tasks = freeze(builder(split), "test")
    played = rollout(tasks, tasks.items, FixedRecommender(0), FixedUser(), provenance=tasks.provenance)
    hits = [one.final_item == one.task.target for one in played]
    (tmp_path / "runs" / "cells" / "first-s0").mkdir(parents=True)
    write_transcripts(tmp_path / "runs" / "cells" / "first-s0" / "transcripts-d0.jsonl", played)
    words = ["--runs", str(tmp_path / "runs"), "--systems", "first", "--seeds", "0", "--dataset", "synthetic"]
    printed = run_example("judge_agreement.py", *words, "--backbone", str(backbone), "--out", str(tmp_path))
    (row,) = [line.split(" | ") for line in printed.splitlines() if line.startswith("| first")]
    assert row[1] == f"{np.mean(hits):.3f}"
    assert all(0 <= float(grade) <= 1 for grade in row[2:6])
    assert (tmp_path / "judge_synthetic.md").exists()


# Names and defaults ---------------------------------------------------------------------------------------------------

HOMES = (
    *(
        "coars_env",
        "agents.training.coars",
        "agents.training.credit",
        "agents.training.learner",
        "agents.training.losses",
        "agents.training.recipe",
        "agents.training.update",
        "agents.players.judge",
        "agents.players.served",
        "agents.runs.config",
        "agents.runs.evaluate",
        "agents.players.llm_agent",
        "agents.models.policy",
        "agents.models.prompts",
        "agents.models.replies",
    ),
    *(
        "agents.training.peers",
        "agents.training.samples",
        "agents.models.backbones.backbone",
        "agents.models.backbones.pocket",
    ),
)
"""Where the names in the tables of settings are looked up."""
ROW = re.compile(r"^\| [^|]+ \| (?P<names>`[A-Za-z_.]+`(?:, `[A-Za-z_.]+`)*) \| (?:`(?P<default>[^`]+)`)?", re.M)


def stated_settings() -> Iterator[tuple[str, str | None]]:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for row in ROW.finditer(page):
        for name in re.findall(r"`([^`]+)`", row["names"]):
            yield name, row["default"]


def default_of(name: str) -> object:
    """The value of a constant, or the default of a field or of a parameter."""
    owner, _, field = name.partition(".")
    for home in HOMES:
        found = getattr(importlib.import_module(home), owner, None)
        if found is not None:
            break
    else:
        raise AssertionError(f"docs/methods.md names {owner}, which is nowhere")
    if not field:
        return found
    if is_dataclass(found):
        for entry in fields(found):
            if entry.name == field:
                return entry.default if entry.default is not MISSING else None
    if field in inspect.signature(found).parameters:
        return inspect.signature(found).parameters[field].default
    assert hasattr(found, field), f"docs/methods.md names {name}, but {owner} has no {field}"
    return getattr(found, field)


def test_the_settings_on_the_page_of_methods_are_those_of_the_code() -> None:
    stated = list(stated_settings())
    assert len(stated) > 25
    for name, default in stated:
        actual = default_of(name)
        if default is not None:
            value = float(Fraction(default)) if "/" in default else ast.literal_eval(default)
            assert value == actual, f"docs/methods.md says {name} = {default}, the code {actual!r}"


def test_the_page_on_trust_explains_every_meter() -> None:
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    assert [name for name in METERS if f"`{name}`" not in page] == []


def test_the_picture_on_the_first_page_names_every_module() -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    picture = "\n" + page.partition("```text\n")[2].partition("```")[0]
    for package in ("coars_env", "agents"):
        modules = {
            path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
        }
        lines = picture.partition(f"\n{package} ")[2].partition("\n\n")[0].splitlines()[1:]
        assert {line.split()[0] for line in lines} == modules - {"__init__"}, (
            f"docs/index.md, {package}: name all modules"
        )


def test_what_the_bounds_of_the_headroom_know_is_true_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    headroom = importlib.import_module("headroom")
    episodes = toy_episodes(instructed=True)
    know = {bound: headroom.knowing(episodes, bound).tasks[0].instruction for bound in headroom.BOUNDS}
    assert [str(instruction).split("\n") for instruction in know.values()] == [
        [""],
        ["genre: Comedy"],
        ["decade: 1980s"],
        ["genre: Comedy", "decade: 1980s"],
        ["genre: Comedy", "genre: Sci-Fi", "decade: 1980s"],
    ]


def test_items_of_the_same_second_are_put_in_the_order_of_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    headroom = importlib.import_module("headroom")
    taken, times = ["12", "3", "7", "4", "9"], [5, 5, 9, 9, 1]
    table = {"user_id": ["ann"] * 5, "item_id": taken, "timestamp": times}
    split = leave_last(from_interactions(table, {"item_id": taken, "title": [f"film {key}" for key in taken]}))
    ids = [[int(split.dataset.item_ids[i]) for i in s.items] for s in (*split.train, *split.test)]
    assert ids == [[9, 12, 3, 7], [9, 12, 3, 7, 4]]
    ordered = headroom.by_file_id(split)
    ids = [[int(split.dataset.item_ids[i]) for i in s.items] for s in (*ordered.train, *ordered.test)]
    assert ids == [[9, 3, 12, 4], [9, 3, 12, 4, 7]]


def test_what_the_rules_do_is_printed(tmp_path: Path) -> None:
    words = ["--candidates", "popularity", "--seeds", "0", "--draws", "1", "--updates", "2", "--source", "synthetic"]
    printed = run_example("rules.py", *words, "--out", str(tmp_path))
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith(("| plain", "| instr"))]
    assert [row[:3] for row in rows] == [
        [game, user, repeats]
        for game in ("plain", "instructed")
        for user in ("as paid", "balanced")
        for repeats in ("paid", "unpaid", "forbidden")
    ]
    assert [float(row[8]) == 0 for row in rows] == [False, False, True] * 4, "no repeats where they are forbidden"
    assert [float(row[9]) > 0 for row in rows] == [False] * 6 + [True] * 6, "questions in the instructed game only"
    assert (tmp_path / "rules_movielens.md").read_text(encoding="utf-8") == printed[:-1]


def test_answers_by_both_rules_are_read_off_a_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    rules = importlib.import_module("rules")
    dialogues = {  # by turn; the first ends by a click in turn 2, the second asks, then is refused three times
        "live": [[1, 1], [1, 1], [0, 1], [0, 1]],
        "asks": [[0, 1], [0, 0], [0, 0], [0, 0]],
        "accepts": [[0, 0], [1, 0], [0, 0], [0, 0]],
        "hit": [[0, 0], [1, 0], [0, 1], [0, 0]],
        "strength": [[0.3, 0.0], [0.8, 0.1], [0.9, 0.4], [0.9, 0.2]],
        "repeat": [[0, 0], [0, 0], [1, 0], [0, 1]],
    }
    found = rules.measures({name: np.array(turns, float) for name, turns in dialogues.items()})
    assert {name: values.tolist() for name, values in found.items()} == {
        "first": [0, 0],
        "last": [1, 0],
        "best": [1, 1],
        "repeat": [0, 1],
        "asks": [0, 1],
        "accepts": [1, 0],
        "turns": [2, 4],
    }
