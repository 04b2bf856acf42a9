"""Benchmark: questions are frozen by draw; what a pair did becomes scores; seeds are joined."""

import numpy as np
import pytest

from coars_env import (
    METRICS,
    AskingRecommender,
    Benchmark,
    ConfigError,
    FacetInstructions,
    FixedUser,
    GreedyRecommender,
    InstructedUser,
    OracleUser,
    RandomRecommender,
    Rules,
    ShapeError,
    Split,
    UserTest,
    evaluate,
    load_split,
    metric_values,
    popularity_scorer,
    simulation_report,
    summarize,
    user_simulation,
)


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=30, items=60, interactions=700)


@pytest.fixture(scope="module")
def questions(split: Split) -> Benchmark:
    return Benchmark.of(split, draws=2)


def test_draws_are_frozen_and_differ(split: Split, questions: Benchmark) -> None:
    again = Benchmark.of(split, draws=2)
    assert [draw.sha256 for draw in questions.episodes] == [draw.sha256 for draw in again.episodes]
    assert [test.sha256 for test in questions.user_tests] == [test.sha256 for test in again.user_tests]
    assert len({draw.sha256 for draw in questions.episodes}) == len({test.sha256 for test in questions.user_tests}) == 2


def test_without_draws_there_is_nothing_to_ask(split: Split) -> None:
    with pytest.raises(ConfigError, match="Expected draws >= 1, found 0"):
        Benchmark.of(split, draws=0)


def test_scores_are_the_metrics_of_the_dialogues(split: Split, questions: Benchmark) -> None:
    recommender = GreedyRecommender(popularity_scorer(split))
    played = questions.play("popularity", recommender, FixedUser(), seed=3)
    assert played.runs == evaluate(recommender, FixedUser(), questions.episodes, seeds=(3,))
    scores = played.scores()
    assert (scores.seeds, scores.users, scores.metrics["hit_final"].shape) == ((3,), {}, (1, 2, 30))
    for name, values in metric_values(played.runs).items():
        np.testing.assert_array_equal(scores.metrics[name], values)


def test_the_rules_of_the_benchmark_are_those_of_the_game_and_of_its_hit(split: Split) -> None:
    rules = Rules(repeats="forbidden", answer="best")
    questions = Benchmark.of(split, draws=1, rules=rules)
    picky = OracleUser(questions.episodes[0], flip=0.5)
    played = questions.play("chance", RandomRecommender(), picky)
    assert {t.rules for t in played.runs[0][0]} == {rules}
    scores = played.scores()
    assert (scores.answer, scores.hit) == ("best", "hit_best")
    assert scores.by_turn()["hit_best@4"].tolist() == scores.metrics["hit_best"].tolist()
    assert Benchmark.of(split, draws=1).play("chance", RandomRecommender(), picky).scores().answer == Rules().answer


def test_controls_are_played_on_the_same_episodes(split: Split) -> None:
    questions = Benchmark.of(split, draws=2, instructions=FacetInstructions(("genre", "decade")))
    items = questions.episodes[0].items
    recommender = AskingRecommender(popularity_scorer(split), items)
    own = questions.play("own", recommender, InstructedUser(items), seed=4).scores()
    controls = {name: one.scores() for name, one in questions.play_controls(recommender, InstructedUser(items)).items()}
    assert list(controls) == ["shuffled words", "no words", "other instruction"]
    for name, scores in controls.items():
        assert scores.metrics["hit_best"].shape == own.metrics["hit_best"].shape == (1, 2, 30)
        assert scores.metrics["hit_best"].mean() < own.metrics["hit_best"].mean(), name
    assert controls["no words"].metrics["revealed"].max() == 0
    assert np.nanmean(controls["shuffled words"].metrics["true_reveals"]) < 1
    with pytest.raises(ConfigError, match=r"tasks have 0 different instructions"):
        Benchmark.of(split, draws=1).play_controls(recommender, InstructedUser(items))


def test_a_user_is_asked_on_demand_and_prepared_before_each_draw(questions: Benchmark) -> None:
    user = OracleUser(task for test in questions.user_tests for task in test.tasks())
    prepared: list[UserTest] = []
    answers = questions.ask(user, seed=1, prepare=prepared.append)
    assert prepared == list(questions.user_tests)
    assert [one.transcripts for one in answers] == [
        user_simulation(user, test, seed=1).transcripts for test in questions.user_tests
    ]
    with pytest.raises(ConfigError, match="The benchmark has no test of users"):
        Benchmark(questions.episodes).ask(user)


def test_the_figures_are_those_of_the_single_reports(split: Split, questions: Benchmark) -> None:
    """One number for one question, whichever way it is asked."""
    recommender = RandomRecommender()
    parts = [questions.play("chance", recommender, FixedUser("star", 0.6), seed=n, ask_user=True) for n in range(3)]
    played = parts[0].joined(*parts[1:])
    scores = played.scores()
    assert scores.seeds == (0, 1, 2)
    report = summarize("chance", played.runs)
    found = {name: str(e) for name, e in scores.kept(list(METRICS)).estimates().items()}
    assert found == {k: str(e) for k, e in report.estimates.items()}
    asked = simulation_report("chance", played.simulations)
    assert {ratio: str(found) for ratio, found in scores.user_estimates().items()} == {
        ratio: str(found) for ratio, found in asked.estimates.items()
    }


def test_seeds_that_were_asked_and_seeds_that_were_not_are_kept_apart(questions: Benchmark) -> None:
    asked = questions.play("a", RandomRecommender(), FixedUser(), ask_user=True)
    with pytest.raises(ShapeError, match="The user of a was asked under some seeds only"):
        asked.joined(questions.play("a", RandomRecommender(), FixedUser(), seed=1))
