import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agents.models.backbones import load
from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.policy import Policy
from agents.runs.checkpoint import ADAPTERS_FOLDER
from agents.runs.config import AnyTrainConfig, DataConfig, TrainConfig, open_split
from agents.runs.evaluate import main, play_policy, play_runs, play_untrained, trust_page
from agents.runs.run import train_seeds
from agents.training.coars import Coars
from coars_env import (
    Benchmark,
    FixedUser,
    OracleUser,
    Played,
    RandomRecommender,
    Rules,
    Split,
    SvdPeers,
    load_split,
    read_transcripts,
)


def test_the_page_on_trust_has_the_meters_of_all_and_the_cards_of_users() -> None:
    split = load_split("synthetic", users=30, items=60, interactions=700)
    questions = Benchmark.of(split, draws=2)
    user = OracleUser(questions.user_tests[0].tasks())
    chance = questions.play("chance", RandomRecommender(), FixedUser())
    page = trust_page([chance, Played("oracle", (0,), chance.runs, [questions.ask(user)])], split)
    assert page.count("| accepts_first_miss | 1.000 [1.000, 1.000] |") == 2
    assert page.count("Reliability at 1:1:") == 1
    assert page.index("**chance**") < page.index("**oracle**: synthetic") < page.index("**oracle**: 30 users")


def test_the_same_peers_speak_in_the_episodes_and_in_the_test_of_users(world: Split) -> None:
    questions = Benchmark.of(world, draws=1)
    (test,) = questions.user_tests
    peers = SvdPeers(world)
    assert [user.opinions for user in test.users] == [
        peers(user.user, user.history, user.questions).opinions for user in test.users
    ]
    assert any(any(number >= 0 for number in task.opinions) for task in questions.episodes[0])
    silent = Benchmark.of(world, draws=1, peers=lambda split: None)
    assert not any(task.opinions for task in (*silent.episodes[0], *silent.user_tests[0].tasks()))


def instructed_world() -> Split:
    return load_split("synthetic", users=24, items=80, interactions=400)


@pytest.mark.parametrize("num_users", [1, 2])
def test_a_run_of_a_game_with_instructions_is_evaluated_with_its_controls(
    num_users: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "world_of_this_test", sys.modules[__name__])
    kinds = ("genre", "decade")
    data = DataConfig(dataset="world_of_this_test:instructed_world", instructions=kinds, num_users=num_users)
    split = open_split(data)
    size = PocketConfig(hidden=16, layers=1, heads=1, steps=2, batch=8, kinds=kinds)
    load_pocket(split, size, cache_dir=tmp_path / "pocket")
    (backbone,) = (tmp_path / "pocket").iterdir()
    config = TrainConfig(
        out=tmp_path / "run",
        backbone=str(backbone),
        lora_rank=2,
        log="none",
        data=data,
        recipe=Coars(steps=1, episodes_per_step=8, max_turns=2, rules=Rules(answer="best")),
    )
    (run,) = train_seeds(config, split, [5])
    main(["--runs", str(run), "--draws", "1", "--out", str(tmp_path / "found")])
    assert "no words" in capsys.readouterr().out
    page = (tmp_path / "found" / "table.md").read_text()
    assert "| user | Hit@1 | minus as it is | Hit@1, last | Hit@1, best | Hit@1, turn 1 |" in page
    names = ("shuffled words", "no words", "other instruction")
    assert [
        line.split(" | ")[0] for line in page.splitlines() if line.startswith(("| as it", *(f"| {n}" for n in names)))
    ] == [
        "| as it is",
        *(f"| {name}" for name in names),
    ]
    silent = list(read_transcripts(tmp_path / "found" / "no_words-s0-d0.jsonl"))
    assert len(silent) == len(split.groups("test")) >= 3
    assert {len(turn.answers) for t in silent for turn in t.turns} == {num_users}
    assert {answer.message for t in silent for turn in t.turns for answer in turn.answers if not answer.error} == {""}
    assert {t.rules for t in silent} == {Rules(answer="best")}


def test_a_run_is_scored_as_it_was_trained(run_settings: AnyTrainConfig, finished_run: Path, world: Split) -> None:
    whole = Benchmark.of(world, draws=1)
    few = replace(whole.episodes[0], tasks=whole.episodes[0].tasks[:1])
    questions = Benchmark((few,), (replace(whole.user_tests[0], users=whole.user_tests[0].users[:4]),))
    policy = Policy.load(load(run_settings.backbone, world), finished_run / ADAPTERS_FOLDER)
    deaf, hearing = (
        play_policy(policy, world, questions, name="", opinions=opinions).simulations[0][0].transcripts
        for opinions in (False, True)
    )
    assert play_runs([finished_run], world, questions, name="").simulations[0][0].transcripts == deaf
    assert [t.turns for t in deaf] != [t.turns for t in hearing]
    before = play_untrained(run_settings, world, questions, name="").simulations[0][0].transcripts
    assert [t.turns for t in before] != [t.turns for t in deaf]
