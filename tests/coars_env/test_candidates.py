import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    CoarsReward,
    ConfigError,
    ConfusableCandidates,
    EpisodeSet,
    FixedUser,
    RandomRecommender,
    Split,
    TaskBuilder,
    TaskError,
    TopCandidates,
    Transcript,
    builder,
    freeze,
    leave_last,
    popularity_candidates,
    rollout,
    uniform_candidates,
)
from coars_env.tasks import sampler_of
from coars_env.testing import toy_dataset

TOY = toy_dataset()  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2
TOY_SPLIT = leave_last(TOY)


@given(st.integers(0, 2**32), st.frozensets(st.integers(0, 19), max_size=17))
def test_samplers_draw_different_allowed_items(dataset_of: Any, seed: int, forbidden: frozenset[int]) -> None:
    split = leave_last(dataset_of(tuple(range(20)), (0, 1, 2)))
    for sampler in (uniform_candidates(20), popularity_candidates(split)):
        drawn = sampler(forbidden, 3, np.random.default_rng(seed)).tolist()
        assert len(set(drawn)) == 3
        assert forbidden.isdisjoint(drawn)
        assert set(drawn) <= set(range(20))
        assert drawn == sampler(forbidden, 3, np.random.default_rng(seed)).tolist()


def test_uniform_candidates_are_uniform() -> None:
    rng, draw = np.random.default_rng(0), uniform_candidates(5)
    counts = np.bincount([int(draw(frozenset({2}), 1, rng)[0]) for _ in range(4_000)], minlength=5)
    assert counts[2] == 0
    assert np.abs(np.delete(counts, 2) - 1_000).max() < 3 * math.sqrt(4_000 * 0.25 * 0.75)  # three standard errors


def test_popular_candidates_follow_the_training_counts() -> None:
    rng, draw = np.random.default_rng(0), popularity_candidates(TOY_SPLIT)
    counts = np.bincount([int(draw(frozenset({4}), 1, rng)[0]) for _ in range(4_000)], minlength=6)
    weights = np.array([1.01, 3.01, 1.01, 0.01, 0, 1.01])  # counts of training, and .01
    expected = 4_000 * weights / weights.sum()
    assert (np.abs(counts - expected) <= 3 * np.sqrt(expected) + 1e-9).all()


@pytest.mark.parametrize("sampler", [uniform_candidates(6), popularity_candidates(TOY_SPLIT)])
def test_too_few_items_are_an_error_and_not_a_loop(sampler: object) -> None:
    with pytest.raises(TaskError, match=r"enough items to draw negatives from\. Expected at least 3 .*, found 2"):
        sampler(frozenset({0, 1, 2, 3}), 3, np.random.default_rng(0))  # type: ignore[operator]


def test_confusable_candidates_share_facets_and_popularity_decides_among_them() -> None:
    # Fargo is a Comedy, Crime, of the 1990s. Heat shares two facets, Amélie and Brazil one each, two films none.
    rng, draw = np.random.default_rng(0), ConfusableCandidates(TOY_SPLIT).of(4)
    counts = np.bincount([int(draw(frozenset({4}), 1, rng)[0]) for _ in range(4_000)], minlength=6)
    weights = np.array([1.01 * math.exp(0.7), 3.01 * math.exp(1.4), 0, 0, 0, 1.01 * math.exp(0.7)])
    expected = 4_000 * weights / weights.sum()
    assert (np.abs(counts - expected) <= 3 * np.sqrt(expected) + 1e-9).all()
    by_genre = ConfusableCandidates(TOY_SPLIT, ("genre",)).of(3)  # Action, Drama: nothing shares them
    assert {int(by_genre(frozenset({3}), 1, np.random.default_rng(n))[0]) for n in range(200)} == {0, 1, 2, 4, 5}


def test_four_fifths_are_confusable_and_popularity_fills_up() -> None:
    draw = ConfusableCandidates(TOY_SPLIT).of(4)
    for number in range(50):
        rng = np.random.default_rng(number)
        assert set(draw(frozenset({4}), 4, rng).tolist()) > {0, 1, 5}  # three share a facet, one of two does not
        assert set(draw(frozenset({4, 5}), 2, rng).tolist()) == {0, 1}
        assert set(draw(frozenset({0, 1, 4}), 3, rng).tolist()) == {2, 3, 5}
    with pytest.raises(TaskError, match=r"Expected at least 6 that are not barred, found 5"):
        draw(frozenset({4}), 6, np.random.default_rng(0))


def test_confusable_candidates_need_facets_of_their_kinds(dataset_of: Any) -> None:
    bare = leave_last(dataset_of((0, 1, 2, 3), (1, 2, 0)))
    with pytest.raises(ConfigError, match=r"'by-hand' has none of kind 'genre' or 'decade'\. .* \(none\), or 'like'"):
        ConfusableCandidates(bare)
    with pytest.raises(ConfigError, match=r"'toy' has none of kind 'brand'\. .* \('genre', 'decade'\), or 'like'"):
        ConfusableCandidates(TOY_SPLIT, ("brand",))
    with pytest.raises(ConfigError, match=r"Candidates are drawn from a split\. .* found 'toy'"):
        ConfusableCandidates("toy")  # type: ignore[arg-type]


def test_the_rule_confusable_takes_likeness_where_items_have_nothing_else(dataset_of: Any) -> None:
    # Films 0 to 2 are taken together, and so are 3 to 5: only the first are like what film 2 is like.
    split = leave_last(dataset_of((0, 1, 2, 3), (0, 1, 2, 4), (3, 4, 5, 0), (3, 4, 5, 1)))
    draw = sampler_of("confusable", split).of(2)  # type: ignore[union-attr]
    for number in range(20):
        assert set(draw(frozenset({2}), 2, np.random.default_rng(number)).tolist()) == {0, 1}


def test_a_rule_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Expected 'uniform', 'popularity', 'confusable' or 'llara', found 'best'"):
        sampler_of("best", TOY_SPLIT)  # type: ignore[arg-type]


def test_real_confusable_lists_hold_about_four_items_that_fit_all_of_the_target(ml100k: Split) -> None:
    items = ml100k.dataset.items

    def fits(index: int, target: int) -> bool:
        wanted = (set(items[target].values(kind)) for kind in ("genre", "decade"))
        return all(own <= set(items[index].values(kind)) for own, kind in zip(wanted, ("genre", "decade"), strict=True))

    means = {}
    for rule in ("uniform", "popularity", "confusable"):
        tasks = freeze(builder(ml100k, rule), "test").tasks  # type: ignore[arg-type]
        means[rule] = np.mean([sum(fits(item, task.target) for item in task.candidates) for task in tasks])
    assert means == pytest.approx({"uniform": 2.43, "popularity": 2.34, "confusable": 3.62}, abs=0.1)


def by_number(history: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Toy film 5 is the best, 0 the worst; films of the history are as good as any."""
    return items.astype(float)


def test_the_best_items_are_listed_and_the_target_takes_the_last_place_if_need_be(
    toy_builder: Any,
) -> None:
    # User 0 owns 0, 4 and the target 5; user 1 owns 1, 4 and the target 0; user 2 owns 2, 5, 1 and the target 3.
    build = toy_builder(sampler=TopCandidates(by_number))
    tasks = freeze(build, "test").tasks
    assert [set(task.candidates) for task in tasks[:3]] == [{5, 3, 2}, {5, 3, 0}, {4, 3, 0}]
    assert not any(task.retrieved for task in tasks)
    assert len({build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(n)).candidates for n in range(40)}) == 6


def test_a_list_may_lack_its_target_where_the_retriever_missed_it(toy_builder: Any) -> None:
    episodes = freeze(toy_builder(sampler=TopCandidates(by_number, keep_target=False)), "test")
    assert [set(task.candidates) for task in episodes][:3] == [{5, 3, 2}, {5, 3, 2}, {4, 3, 0}]
    assert [task.target in task.candidates for task in episodes][:3] == [True, False, True]
    assert all(task.retrieved for task in episodes)
    missed = episodes.tasks[1]
    with pytest.raises(TaskError, match=r"The target must be among the candidates"):
        replace(missed, retrieved=False)
    played = rollout([missed], TOY.items, RandomRecommender(), FixedUser("skip", 0.3), provenance=TOY.provenance)[0]
    assert not any(terms.hit for terms in CoarsReward()(played))
    assert Transcript.from_json(played.to_json()) == played


def test_a_retrieved_set_survives_its_file(tmp_path: Path, toy_builder: Any) -> None:
    episodes = freeze(toy_builder(sampler=TopCandidates(by_number, keep_target=False)), "test")
    episodes.save(tmp_path / "toy.jsonl")
    loaded = EpisodeSet.load(tmp_path / "toy.jsonl", TOY)
    assert (loaded.tasks, loaded.sha256) == (episodes.tasks, episodes.sha256)


def test_the_scorer_sees_the_visible_history_and_titles_stay_different(dataset_of: Any) -> None:
    seen = []

    def scorer(history: np.ndarray, items: np.ndarray) -> np.ndarray:
        seen.append(history.tolist())
        return np.zeros(len(items))

    titles = ("a", "b", "c", "d", "d", "c", "e")
    split = leave_last(dataset_of((0, 1, 2), titles=titles))
    task = TaskBuilder(split, TopCandidates(scorer), num_candidates=3)("t", split.test[0], 2, np.random.default_rng(0))
    assert seen == [[0, 1]]
    assert set(task.candidates) == {2, 3, 6}  # 0 and 1 are owned; 4 is another "d", 5 has the title of the target
    with pytest.raises(TaskError, match=r"Expected at least 4 that are not barred, found 3"):
        TaskBuilder(split, TopCandidates(scorer), num_candidates=4)("t", split.test[0], 2, np.random.default_rng(0))


@pytest.mark.parametrize("scores", [np.zeros(5), np.full(6, np.nan), np.zeros((6, 1))])
def test_a_scorer_that_does_not_score_every_item_is_refused(scores: np.ndarray, toy_builder: Any) -> None:
    build = toy_builder(sampler=TopCandidates(lambda history, items: scores))
    with pytest.raises(
        TaskError, match=r"A scorer must score what it is asked for\. Expected 6 numbers, none of them NaN"
    ):
        build("t", TOY_SPLIT.test[0], 2, np.random.default_rng(0))
