from dataclasses import replace
from pathlib import Path

from agents.models.backbones import load
from agents.models.policy import Policy
from agents.runs.checkpoint import ADAPTERS_FOLDER
from agents.runs.config import AnyTrainConfig
from agents.runs.evaluate import play_policy, play_runs, play_untrained, trust_page
from coars_env import (
    Benchmark,
    FixedUser,
    OracleUser,
    Played,
    RandomRecommender,
    Split,
    SvdPeers,
    load_split,
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
