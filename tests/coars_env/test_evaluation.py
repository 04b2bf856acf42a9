"""Metrics on four dialogues a person can check, intervals against known variances, and the user-simulation test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from coars_env import (
    ACTIONS,
    METRICS,
    ROLES,
    SIMULATION_METRICS,
    Action,
    CoarsReward,
    ConfigError,
    Dataset,
    EpisodeSet,
    FixedUser,
    Item,
    MirroredStage,
    Observation,
    Provenance,
    RandomRecommender,
    ShapeError,
    Simulation,
    Split,
    SvdPeers,
    Task,
    TaskError,
    Transcript,
    Turn,
    UserItems,
    UserSequence,
    UserTest,
    bootstrap_interval,
    by_turn,
    constant_stage,
    episode_metrics,
    evaluate,
    hit_by_turn,
    hit_so_far,
    holm,
    joint_estimates,
    leave_last,
    markdown_table,
    metric_values,
    opinions_heard,
    paired_difference,
    simulation_difference,
    simulation_report,
    summarize,
    user_card,
    user_simulation,
    user_test,
)
from coars_env.testing import toy_episodes
from turns import COMEDY, WAR, asking, told, turn_of

DISLIKE, SKIP, STAR, CLICK = range(len(ACTIONS))
PROVENANCE = Provenance("custom", "toy", "0" * 64)
ITEMS = tuple(Item(f"Film {letter}") for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def turn(proposal: int | None, action: int | None, strength: float | None) -> Turn:
    errors = (None if proposal is not None else "no item", None if action is not None else "no action")
    return turn_of(proposal, "because", action, strength, "so", *errors)


def transcript(turns: Sequence[Turn], ending: str, *, user: int = 0, target: int = 2) -> Transcript:
    task = Task(f"toy-{user}", user, (0,), (1, 2, 3), target)
    cause = "user_0: broke" if ending == "failed" else None
    return Transcript(task, 4, tuple(turns), ending, cause, PROVENANCE)  # type: ignore[arg-type]


# The target is item 2 throughout.
ACCEPTED = transcript([turn(1, SKIP, 0.3), turn(2, CLICK, 0.9)], "accepted", user=0)
STUBBORN = transcript(
    [turn(2, DISLIKE, 0.1), turn(2, SKIP, 0.4), turn(None, SKIP, 0.3), turn(3, STAR, 0.6)], "max_turns", user=1
)
BROKEN = transcript([], "failed", user=2)
GARBLED = transcript([turn(1, None, None), turn(2, STAR, 0.5)], "failed", user=3)
FOUR = [ACCEPTED, STUBBORN, BROKEN, GARBLED]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_hit_metrics_of_four_dialogues() -> None:
    found = episode_metrics(FOUR)
    assert set(found) == set(METRICS)
    assert found["hit_final"].tolist() == [1, 0, 0, 0]  # the last one stood at the target when it failed
    assert found["hit_best"].tolist() == [1, 0, 0, 0]  # STUBBORN accepts the miss of turn 4 most strongly
    assert found["hit_first"].tolist() == [0, 1, 0, 0]
    assert found["hit_first_proposal"].tolist() == [0, 1, 0, 0]
    assert found["hit_any"].tolist() == [1, 1, 0, 1]
    assert found["turns"].tolist() == [2, 4, 0, 2]
    assert found["accepted"].tolist() == [1, 0, 0, 0]
    assert found["failed"].tolist() == [0, 0, 1, 1]
    assert found["repeats"].tolist() == [0, 1, 0, 0]
    assert found["repeats_rejected"].tolist() == [0, 1, 0, 0]
    assert found["parse_errors_recommender"].tolist() == [0, 1, 0, 0]
    assert found["parse_errors_user"].tolist() == [0, 0, 0, 1]


def test_what_has_no_truth_is_undefined() -> None:
    found = episode_metrics(FOUR)
    np.testing.assert_equal(found["turns_to_accept"], [2, np.nan, np.nan, np.nan])
    np.testing.assert_equal(found["turns_to_hit"], [2, 1, np.nan, 2])
    np.testing.assert_equal(found["true_reveals"], [np.nan] * 4)
    assert found["questions"].tolist() == found["revealed"].tolist() == [0, 0, 0, 0]
    # hits: one click of 1; two rejections; none; a star of 1. Misses: a skip; a star; none; no usable answer.
    np.testing.assert_equal(found["acceptance_on_hits"], [1, 0, np.nan, 1])
    np.testing.assert_equal(found["acceptance_on_misses"], [0, 1, np.nan, 0])


def test_rewards_are_means_over_turns() -> None:
    found = episode_metrics(FOUR, reward=CoarsReward(stage=constant_stage))
    # ACCEPTED: -(.5 + .15) and .95; the user -(-.4) and .8.
    assert found["reward_recommender"][0] == pytest.approx((-0.65 + 0.95) / 2)
    assert found["reward_user"][0] == pytest.approx((0.4 + 0.8) / 2)
    # STUBBORN: .55, .7, invalid -1, -.8; the user -.8, -.2, 0 and -.2.
    assert found["reward_recommender"][1] == pytest.approx((0.55 + 0.7 - 1 - 0.8) / 4)
    assert found["reward_user"][1] == pytest.approx((-0.8 - 0.2 + 0 - 0.2) / 4)
    assert np.isnan(found["reward_user"][2])
    # With the stage of CoARS the miss in turn 1 of 4 weighs 2/3 and the hit in turn 2 weighs 10/9.
    staged = episode_metrics([ACCEPTED], reward=CoarsReward(stage=MirroredStage()))
    assert staged["reward_recommender"][0] == pytest.approx((-0.65 * 2 / 3 + 0.95 * 10 / 9) / 2)


def test_excluded_share_counts_messages_left_out_of_training() -> None:
    found = episode_metrics(FOUR, reward=CoarsReward(exclude_positive_miss=frozenset(ROLES)))
    # STUBBORN: the liked miss of turn 4 is left out for both, the garbled proposal of turn 3 for its partner.
    np.testing.assert_equal(found["excluded_recommender"], [0, 1 / 4, np.nan, 1 / 2])
    np.testing.assert_equal(found["excluded_user"], [0, 2 / 4, np.nan, 0])


def test_questions_count_as_turns_and_as_nothing_else() -> None:
    asks = [asking("genre", "A comedy.", COMEDY), asking("decade", reveal=WAR), asking("decade", error="no words")]
    weak, strong = turn_of(2, "", 2, 0.6, "so"), turn_of(1, "", 2, 0.7, "yes", reveal=COMEDY)
    dialogues = [
        told([*asks[:2], strong, weak]),  # the last proposal is a miss, the best one the target
        told([weak, asks[0], asks[2], turn_of(2, "", 0, 0.0, "")]),
        told([*asks, turn_of(None, "", 1, 0.3, "", error="no item")]),
    ]
    found = {name: values.tolist() for name, values in episode_metrics(dialogues).items()}
    assert [found[name] for name in ("hit_final", "hit_best", "hit_any")] == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert [found[name] for name in ("hit_first", "hit_first_proposal")] == [[0, 0, 0], [1, 0, 0]]
    assert [found[name] for name in ("turns", "questions", "revealed")] == [[4, 4, 4], [2, 2, 3], [2, 1, 2]]
    np.testing.assert_equal(found["turns_to_hit"], [3, np.nan, np.nan])
    np.testing.assert_equal(found["true_reveals"], [1 / 2, 1, 1 / 2])  # the user wants no war
    np.testing.assert_equal(found["acceptance_on_hits"], [1, np.nan, np.nan])
    np.testing.assert_equal(found["acceptance_on_misses"], [1, 1 / 2, np.nan])
    assert [found[name] for name in ("parse_errors_recommender", "parse_errors_user")] == [[0, 0, 1], [0, 1, 1]]
    # The weak star was no rejection, so what is proposed again was not rejected.
    assert [found[name] for name in ("repeats", "repeats_rejected")] == [[0, 1, 0], [0, 0, 0]]


def test_rejected_items_proposed_again_are_counted_whatever_stands_between() -> None:
    no, star = turn_of(1, "", 0, 0.1, ""), turn_of(1, "", 2, 0.6, "")
    dialogues = [told([no, asking("genre"), no, star]), told([star, no, no, no])]
    found = episode_metrics(dialogues)
    assert found["repeats"].tolist() == [2, 3]
    assert found["repeats_rejected"].tolist() == [2, 2]


def test_rates_by_turn_of_dialogues_that_ask() -> None:
    asks, weak, strong = asking("genre"), turn_of(2, "", 2, 0.6, ""), turn_of(1, "", 2, 0.7, "")
    dialogues = [
        told([asks, strong, weak, weak]),
        told([strong, asks, asks, strong]),
        told([asks, turn_of(1, "", 3, 0.9, "")], "accepted"),
        told([strong, asks], "failed"),
    ]
    turns = by_turn(dialogues)
    assert [t.reached for t in turns] == [4, 4, 2, 2]
    assert [t.asked for t in turns] == [1 / 2, 1 / 2, 1 / 2, 0]
    assert [t.hit for t in turns] == [1 / 2, 1 / 2, 0, 1 / 2]
    # Nothing was proposed in turn 1 of two; a question leaves the proposal before it; the last one has failed then.
    assert [t.hit_so_far for t in turns] == [2 / 4, 4 / 4, 2 / 4, 2 / 4]
    assert [t.best_so_far for t in turns] == [2 / 4, 4 / 4, 3 / 4, 3 / 4]
    assert [hit_so_far(dialogues[0], n, "last") for n in (1, 2, 3)] == [False, True, False]
    assert [hit_so_far(dialogues[2], n, "best") for n in (1, 2, 3, 4)] == [False, True, True, True]
    assert [hit_so_far(dialogues[3], n, "last") for n in (1, 2, 3)] == [True, True, False]


def test_hits_by_turn_of_all_dialogues() -> None:
    """Two seeds of one dialogue; the second fails before it has proposed anything."""
    strong = turn_of(1, "", 2, 0.7, "")
    asks = told([asking("genre"), strong, turn_of(2, "", 2, 0.6, ""), strong])
    found = hit_by_turn([[[asks]], [[told([asking("genre"), asking("genre")], "failed")]]])
    assert list(found) == [f"{name}@{turn}" for name in ("hit_final", "hit_best") for turn in (1, 2, 3, 4)]
    assert [found[f"hit_final@{turn}"].tolist() for turn in (1, 2, 3, 4)] == [[[[n]], [[0]]] for n in (0, 1, 0, 1)]
    assert [found[f"hit_best@{turn}"].tolist() for turn in (1, 2, 3, 4)] == [[[[n]], [[0]]] for n in (0, 1, 1, 1)]


def test_rates_by_turn() -> None:
    first, second, third, fourth = by_turn(FOUR)
    assert [t.reached for t in (first, second, third, fourth)] == [3, 3, 1, 1]
    assert [t.hit for t in (first, second, third)] == pytest.approx([1 / 3, 1, 0])
    # Stopped after turn 1 only STUBBORN stands at the target; after turn 2 all but the broken one do; then STUBBORN
    # loses it, and the garbled one has failed.
    assert [t.hit_so_far for t in (first, second, third, fourth)] == [1 / 4, 3 / 4, 1 / 4, 1 / 4]
    # By the best proposal STUBBORN stands at the target until the star of turn 4, stronger than its rejections.
    assert [t.best_so_far for t in (first, second, third, fourth)] == [1 / 4, 3 / 4, 2 / 4, 1 / 4]
    assert {t.asked for t in (first, second, third, fourth)} == {0}
    assert (first.acceptance_on_hits, first.acceptance_on_misses) == (0.0, 0.0)
    assert second.acceptance_on_hits == pytest.approx(2 / 3)
    assert np.isnan(second.acceptance_on_misses)
    assert np.isnan(third.acceptance_on_misses)  # nothing was proposed
    assert by_turn([]) == ()


# --- intervals and tests ----------------------------------------------------------------------------------------------


def test_a_mean_without_spread_has_an_interval_without_width() -> None:
    estimate = bootstrap_interval(np.full((2, 3, 5), 0.25))
    assert (estimate.mean, estimate.low, estimate.high, estimate.undefined) == (0.25, 0.25, 0.25, 0)


def test_the_interval_over_rows_is_that_of_the_normal_approximation() -> None:
    values = np.arange(400) < 120
    estimate = bootstrap_interval(values)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert estimate.mean == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.3 - half, abs=0.006)
    assert estimate.high == pytest.approx(0.3 + half, abs=0.006)


def test_draws_are_averaged_within_their_row() -> None:
    values = np.random.default_rng(1).random((4, 30))
    assert bootstrap_interval(values) == bootstrap_interval(values.mean(0))
    # Were each draw a row of its own, four copies of the same draw would halve the interval.
    assert bootstrap_interval(np.repeat(values[:1], 4, axis=0)) == bootstrap_interval(values[0])


def test_seeds_are_resampled_without_the_bias_of_small_numbers() -> None:
    seeds = np.random.default_rng(2).normal(size=20)
    estimate = bootstrap_interval(np.tile(seeds[:, None, None], (1, 2, 50)))  # rows do not differ
    half = 1.96 * seeds.std(ddof=1) / np.sqrt(20)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.08)
    two = bootstrap_interval(np.array([[[0.0]], [[1.0]]]))
    assert (two.mean, two.low, two.high) == (0.5, 0.0, 1.0)
    # One of the two is drawn. Were two drawn, half of the means would be 1/2, and so the middle 40 %.
    middle = bootstrap_interval(np.array([[[0.0]], [[1.0]]]), level=0.4)
    assert (middle.low, middle.high) == (0.0, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values = rng.random((3, 95)) < rng.beta(0.6, 1.4, size=95)  # three draws; users differ; the mean is .3
        estimate = bootstrap_interval(values, resamples=400, rng=rng)
        covered += estimate.low <= 0.3 <= estimate.high
    assert 0.91 <= covered / 200 <= 0.99


def test_undefined_values_are_left_out_and_counted() -> None:
    estimate = bootstrap_interval([[1.0, np.nan, 3.0, np.nan], [3.0, np.nan, 5.0, 4.0]])
    assert estimate.mean == pytest.approx((2 + 4 + 4) / 3)
    assert estimate.undefined == 3
    nothing = bootstrap_interval([np.nan, np.nan])
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert nothing.undefined == 2


def test_intervals_are_reproducible_and_the_generator_decides() -> None:
    values = np.random.default_rng(4).random((2, 2, 40))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    seeded = [bootstrap_interval(values, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert seeded[0] == seeded[1] != seeded[2]


@pytest.mark.parametrize(
    ("a", "b", "mean", "p_value"),
    [
        ([1, 1, 1, 1], [0, 0, 0, 0], 1.0, 2 / 16),  # all flips equal, or all of them turned
        ([3, 1, 1, 0], [0, 0, 0, 1], 1.0, 8 / 16),  # |±3 ±1 ±1 ±1| >= 4 in 8 of 16
        ([1, 0, 1], [0, 1, 1], 0.0, 1.0),
        ([0.2, 0.3], [0.2, 0.3], 0.0, 1.0),
    ],
)
def test_the_sign_flip_test_is_exact_on_few_rows(a: list[float], b: list[float], mean: float, p_value: float) -> None:
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(mean)
    assert found.p_value == pytest.approx(p_value)


def test_the_sign_flip_test_on_many_rows_is_near_the_normal_one() -> None:
    rng = np.random.default_rng(7)
    a = rng.random((2, 300))
    b = a + rng.normal(0.02, 0.25, size=(2, 300))
    rows = (a - b).mean(0)
    z = abs(rows.mean()) / np.sqrt((rows**2).mean() / 300)
    found = paired_difference(a, b)
    normal = 2 * (1 - 0.5 * (1 + np.sign(z) * (1 - np.exp(-2 * z**2 / np.pi)) ** 0.5))  # Polya's approximation
    assert found.p_value == pytest.approx(normal, abs=0.02)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(8)
    easy = rng.random(200)
    a, b = easy + rng.normal(0, 0.05, 200), easy + rng.normal(0.1, 0.05, 200)
    found, alone = paired_difference(a, b), bootstrap_interval(a)
    assert found.high - found.low < (alone.high - alone.low) / 3
    assert found.low < -0.1 + 0.02 < found.high + 0.02


def test_systems_may_have_different_numbers_of_seeds_but_not_of_rows() -> None:
    trained, fixed = np.ones((3, 2, 6)), np.zeros((1, 2, 6))
    assert paired_difference(trained, fixed).mean == 1.0
    with pytest.raises(ShapeError, match=r"the same draws and rows. Expected \[S, 2, 6\] twice, found \[1, 2, 5\]"):
        paired_difference(trained, fixed[:, :, :5])


def test_rows_undefined_on_either_side_leave_a_difference() -> None:
    found = paired_difference([1.0, np.nan, 2.0], [0.0, 5.0, np.nan])
    assert (found.mean, found.undefined, found.p_value) == (1.0, 2, 1.0)
    assert np.isnan(paired_difference([np.nan], [1.0]).mean)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ShapeError, match="up to three axes"):
        bootstrap_interval(np.zeros((1, 1, 1, 1)))
    with pytest.raises(ConfigError, match="Expected 0 < level < 1, found 95"):
        bootstrap_interval([1.0], level=95)
    with pytest.raises(ConfigError, match="Expected resamples >= 1, found 0"):
        bootstrap_interval([1.0], resamples=0)
    with pytest.raises(ConfigError, match="Expected permutations >= 1, found -5"):
        paired_difference([1.0], [0.0], permutations=-5)
    with pytest.raises(ConfigError, match=r"Samples are drawn from a generator\. .* found 3"):
        bootstrap_interval([1.0], rng=3)  # type: ignore[arg-type]
    for values in (["a"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(ShapeError, match=r"Values are an array of numbers\. Expected one, found \["):
            bootstrap_interval(values)
    with pytest.raises(ShapeError, match=r"found \[2\] with 1 infinite"):
        bootstrap_interval([1.0, np.inf])


def test_holm_by_hand() -> None:
    # Sorted: .01 * 4 = .04, .02 * 3 = .06, .03 * 2 = .06, .5 * 1 = .5.
    np.testing.assert_allclose(holm([0.03, 0.5, 0.01, 0.02]), [0.06, 0.5, 0.04, 0.06])
    # .04 * 2 = .08; then .05 * 1 = .05 may not be below it.
    np.testing.assert_allclose(holm([0.04, 0.05]), [0.08, 0.08])


def test_holm_stays_a_probability_and_leaves_out_what_is_no_test() -> None:
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1.0, np.nan, 1.0])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_averages_over_seeds_draws_and_rows() -> None:
    hit = [transcript([turn(2, CLICK, 1.0)], "accepted", user=u) for u in range(2)]
    miss = [transcript([turn(1, CLICK, 1.0)], "accepted", user=u) for u in range(2)]
    runs = [[hit, miss], [hit, hit], [miss, [hit[0], miss[1]]]]
    assert metric_values(runs)["hit_final"].tolist() == [[[1, 1], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [1, 0]]]
    report = summarize("toy", runs)
    assert (report.seeds, report.draws, report.rows) == (3, 2, 2)
    assert report.estimates["hit_final"].mean == pytest.approx(7 / 12)
    assert report.estimates["acceptance_on_hits"].undefined == 5
    assert report.turns[0].reached == 12


def test_a_report_says_what_was_measured() -> None:
    text = summarize("toy", [[FOUR]], level=0.9).to_markdown()
    assert text.startswith("**toy**: 4 rows, 1 candidate draws, 1 seeds; custom data toy (000000000000).")
    assert "| metric | mean | 90% interval | undefined |" in text
    assert "| turns_to_accept | 2.000 | [2.000, 2.000] | 3 |" in text
    assert "| turn | reached | asked | hit | hit so far | best so far | acceptance on hits | on misses |" in text
    assert "| 4 | 1 | 0.000 | 0.000 | 0.250 | 0.250 | nan | 1.000 |" in text


def test_runs_over_different_rows_are_refused() -> None:
    with pytest.raises(ShapeError, match="found 2 different lists"):
        metric_values([[FOUR], [FOUR[::-1]]])
    with pytest.raises(ShapeError, match="Runs must hold the same rows"):
        metric_values([])
    with pytest.raises(ShapeError, match="Runs must hold the same rows"):
        metric_values([[FOUR], [FOUR, FOUR]])
    for runs in (FOUR, [FOUR], None):
        with pytest.raises(ShapeError, match=r"as runs\[seed\]\[draw\]\[row\], found .* Pass what `evaluate` returns"):
            metric_values(runs)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"The reward is the class CoarsReward\. Make an object of it: CoarsReward"):
        metric_values([[FOUR]], reward=CoarsReward)  # type: ignore[arg-type]


def test_names_with_bars_and_line_breaks_stay_in_their_cells() -> None:
    table = markdown_table(("a|b", "c\nd"), [("|", 1)])
    assert table.splitlines() == [r"| a\|b | c d |", "| --- | --- |", r"| \| | 1 |"]


@pytest.mark.parametrize("sets", [toy_episodes(), toy_episodes().tasks, [toy_episodes().tasks], [], None, "toy"])
def test_episode_sets_come_in_a_list(sets: Any) -> None:
    with pytest.raises(ConfigError, match=r"Expected a list of EpisodeSets, found .* Pass \[episodes\], also for one"):
        evaluate(RandomRecommender(), FixedUser(), sets)


def test_seeds_of_sampling_come_in_a_list() -> None:
    with pytest.raises(ConfigError, match=r"Expected a list, found 3\. Pass \[3\]"):
        evaluate(RandomRecommender(), FixedUser(), [toy_episodes()], seeds=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Expected different ones, found \[1, 1\]"):
        evaluate(RandomRecommender(), FixedUser(), [toy_episodes()], seeds=[1, 1])


@pytest.mark.parametrize("p_values", [0.5, [[0.5]], ["a"], [-0.1], [1.1]])
def test_only_probabilities_are_adjusted(p_values: Any) -> None:
    with pytest.raises(ShapeError, match="P-values are a list of probabilities"):
        holm(p_values)


def test_arrays_estimated_together_have_the_same_rows() -> None:
    for arrays in ({}, {"a": np.zeros((1, 1, 3)), "b": np.zeros((1, 1, 4))}):
        with pytest.raises(ShapeError, match="Arrays of the same rows have one shape"):
            joint_estimates(arrays)


class RandomUser:
    """Any answer at all, unusable ones included."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {
            n: {"action": int(self._rngs[n].integers(5)), "strength": self._rngs[n].random(), "message": ""}
            for n in observations
        }


def toy_set(n: int, name: str = "toy") -> EpisodeSet:
    tasks = tuple(Task(f"{name}-{u}", u, (0, 4), (1, 2, 3, 5), 2) for u in range(n))
    return EpisodeSet(name, tasks, ITEMS, PROVENANCE)


def test_metrics_of_random_play_stay_in_range() -> None:
    runs = evaluate(RandomRecommender(), RandomUser(), [toy_set(60)], seeds=(0, 1))
    values = metric_values(runs)
    for name in METRICS:
        if name.startswith(("hit", "accept", "excluded", "failed")):
            assert (np.nan_to_num(values[name]) >= 0).all()
            assert (np.nan_to_num(values[name]) <= 1).all()
    assert (values["turns"] <= 4).all()
    assert (np.nan_to_num(values["turns_to_accept"]) <= 4).all()
    assert (values["hit_any"] >= values["hit_final"]).all()
    assert (np.abs(values["reward_recommender"]) <= 4 / 3).all()
    assert not np.array_equal(values["turns"][0], values["turns"][1])  # seeds matter


# --- user simulation --------------------------------------------------------------------------------------------------


def toy_dataset(lengths: Sequence[int]) -> Dataset:
    """User u takes items u, u + 1, ... in this order."""
    sequences = [[(u + k) % len(ITEMS) for k in range(length)] for u, length in enumerate(lengths)]
    return Dataset(
        name="toy",
        items=ITEMS,
        item_ids=tuple(str(k) for k in range(len(ITEMS))),
        user_ids=tuple(str(u) for u in range(len(lengths))),
        users=np.repeat(np.arange(len(lengths)), lengths),
        item_indices=np.array([item for sequence in sequences for item in sequence]),
        ratings=np.full(sum(lengths), 5.0),
        timestamps=np.concatenate([np.arange(length) for length in lengths]),
        source="custom",
        origin="toy",
    )


def held_out_users(lengths: Sequence[int], num_items: int = 60) -> Split:
    """Users who are in no training part, over a larger catalogue; the last two items share a title with item 0."""
    items = tuple(Item(f"Film {n if n < num_items - 2 else 0}") for n in range(num_items))
    sequences = tuple(UserSequence(u, tuple(range(u, u + length))) for u, length in enumerate(lengths))
    columns: dict[str, Any] = {
        "users": np.repeat(np.arange(len(lengths)), lengths),
        "item_indices": np.concatenate([s.items for s in sequences]),
        "ratings": np.full(sum(lengths), 5.0),
        "timestamps": np.concatenate([np.arange(length) for length in lengths]),
    }
    ids = tuple(str(n) for n in range(num_items))
    dataset = Dataset("toy", items, ids, ids[: len(lengths)], source="custom", origin="toy", **columns)
    return Split("llara", dataset, (), (), sequences, {s.user: frozenset(s.items) for s in sequences})


def test_reserved_items_follow_the_history() -> None:
    test = user_test(held_out_users([23, 12, 10]))
    assert test.ratios == {"1:1": (10, 10), "1:3": (5, 15), "1:9": (2, 18)}
    assert test.skipped == 1  # ten items leave none for the history
    first, second = test.users
    assert first.history == tuple(range(3, 13))
    assert first.positives == tuple(range(13, 23))
    assert second.history == (1, 2)
    assert second.positives == tuple(range(3, 13))
    assert len(set(first.negatives)) == 18


def test_negatives_are_unknown_to_the_user_in_item_and_title() -> None:
    split = held_out_users([23, 22])
    for draw in range(30):
        for user in user_test(split, draw=draw).users:
            assert split.owned[user.user].isdisjoint(user.negatives)
            titles = [split.dataset.items[item].title for item in user.questions]
            assert len(set(titles)) == len(titles)
            if user.user == 0:  # who owns item 0
                assert {58, 59}.isdisjoint(user.negatives)


def test_a_trained_users_only_positive_is_the_held_out_item() -> None:
    test = user_test(leave_last(toy_dataset([5, 14])))
    assert test.ratios == {"1:1": (1, 1), "1:3": (1, 3), "1:9": (1, 9)}
    assert [user.positives for user in test.users] == [(4,), (14,)]
    assert [user.history for user in test.users] == [(0, 1, 2, 3), tuple(range(4, 14))]
    assert [len(user.negatives) for user in test.users] == [9, 9]


def test_questions_are_frozen_by_seed_and_draw() -> None:
    split = held_out_users([23, 22])
    one = user_test(split)
    assert one.sha256 == user_test(split).sha256
    assert len({one.sha256, user_test(split, draw=1).sha256, user_test(split, seed=1).sha256}) == 3
    assert one.provenance == split.dataset.provenance


def test_questions_carry_the_opinions_of_the_peers_of_the_game() -> None:
    """User u takes u, u + 1, ...: of an item the others took those just before it."""
    split = leave_last(toy_dataset([8, 8, 8]))
    peers = SvdPeers(split)
    test = user_test(split, peers=peers)
    assert test.sha256 != user_test(split).sha256
    tasks = test.tasks()
    for user in test.users:
        told = peers(user.user, user.history, user.questions).opinions
        assert [task.opinions for task in tasks if task.user == user.user] == [told] * len(user.questions)
    agent = Taste(set())
    user_simulation(agent, test)
    assert len(agent.seen) == len(tasks)
    for task, seen in zip(tasks, agent.seen, strict=True):
        asked = int(seen["proposals"][0])
        assert opinions_heard(seen, 0) == task.opinions_of(asked)
        owners = [u for u in range(3) if asked in range(u, u + 7) and u != task.user]
        assert len(opinions_heard(seen, 0)) == len(owners)
        assert all(o.items in {tuple(range(max(u, asked - 2), asked)) for u in owners} for o in opinions_heard(seen, 0))
        assert (seen["opinions"][1:] == -1).all()


def test_questions_that_cannot_be_asked_are_refused() -> None:
    with pytest.raises(ConfigError, match="Expected 'test' or 'validation', found 'train'"):
        user_test(held_out_users([23]), "train")
    with pytest.raises(TaskError, match="Expected 18, found"):
        user_test(held_out_users([23], num_items=30))
    with pytest.raises(TaskError, match=r"Expected some in 'validation', .* 0 train, 0 validation, 1 test\)\. Take"):
        user_test(held_out_users([23]), "validation")
    with pytest.raises(TaskError, match=r"an item before the last 10 in 'test' of .* found none: all 2 have too few"):
        user_test(held_out_users([9, 10]))
    with pytest.raises(ConfigError, match="Expected draw >= 0, found -1"):
        user_test(held_out_users([23]), draw=-1)


class Taste:
    """Clicks what is in a list, dislikes the rest, says nothing usable about some; keeps what it was shown."""

    def __init__(self, liked: set[int], silent_on: frozenset[int] = frozenset(), strength: float = 0.8) -> None:
        self.liked, self.silent_on, self.strength = liked, silent_on, strength
        self.seen: list[Observation] = []

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self.seen += observations.values()
        return {n: self._answer(int(o["proposals"][0])) for n, o in observations.items()}

    def _answer(self, item: int) -> Action:
        if item in self.silent_on:
            return {"action": len(ACTIONS), "strength": 0.0, "message": "Hm."}
        liked = item in self.liked
        return {"action": CLICK if liked else DISLIKE, "strength": self.strength if liked else 0.1, "message": ""}


# Two users, ratio 1:2; items 1-4 are the positives.
TOY_TEST = UserTest(
    name="toy",
    users=(UserItems(0, (0,), (1, 2), (11, 12, 13, 14)), UserItems(1, (0,), (3, 4), (15, 16, 17, 18))),
    ratios={"1:2": (2, 4), "1:1": (1, 1)},
    skipped=0,
    items=ITEMS,
    provenance=PROVENANCE,
)


def test_precision_recall_and_f1_of_a_known_taste() -> None:
    # User 0 accepts 1, 2 and 11; user 1 accepts 3 of its positives and none of its negatives.
    simulation = user_simulation(Taste({1, 2, 11, 3}), TOY_TEST)
    found = {name: e.mean for name, e in simulation_report("toy", [[simulation]]).estimates["1:2"].items()}
    assert list(found) == list(SIMULATION_METRICS)
    assert found["precision"] == pytest.approx(3 / 4)
    assert found["recall"] == pytest.approx(3 / 4)
    assert found["f1"] == pytest.approx(3 / 4)
    assert found["precision_per_user"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["recall_per_user"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["f1_per_user"] == pytest.approx(2 * (5 / 6) * (3 / 4) / (5 / 6 + 3 / 4))
    assert found["accuracy"] == pytest.approx(10 / 12)
    assert found["acceptance"] == pytest.approx(4 / 12)
    assert found["unusable"] == 0
    # User 0: both positives beat 3 negatives and tie with one: 7/8. User 1: one beats 4, one ties with 4: 6/8.
    assert found["auc"] == pytest.approx((7 / 8 + 6 / 8) / 2)
    assert (found["false_accept"], found["false_reject"]) == (1 / 8, 1 / 4)
    # strengths .8 for 3 positives and 1 negative, .1 for 1 positive and 7 negatives
    assert found["brier"] == pytest.approx((3 * 0.2**2 + 0.9**2 + 0.8**2 + 7 * 0.1**2) / 12)
    assert found["ece"] == pytest.approx((abs(3.2 - 3) + abs(0.8 - 1)) / 12)


def test_a_smaller_ratio_takes_the_first_questions() -> None:
    simulation = user_simulation(Taste({2, 11, 3}), TOY_TEST)
    # Only 1, 11, 3 and 15 count: true positive 3, false positive 11, false negative 1, true negative 15.
    assert simulation.counts("1:1")[:, :4].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    with pytest.raises(ConfigError, match=r"Expected one of the ratios \['1:1', '1:2'\], found '1:9'"):
        simulation.counts("1:9")


def test_accepting_nothing_leaves_precision_undefined_and_f1_at_zero() -> None:
    simulation = user_simulation(Taste(set()), TOY_TEST)
    found = simulation_report("toy", [[simulation]]).estimates["1:2"]
    assert np.isnan([found["precision"].mean, found["precision"].low, found["precision_per_user"].mean]).all()
    assert (found["f1"].mean, found["f1_per_user"].mean, found["recall"].mean, found["auc"].mean) == (0, 0, 0, 0.5)


def test_an_unusable_answer_is_counted_as_wrong() -> None:
    simulation = user_simulation(Taste({1, 2, 3, 4}, silent_on=frozenset({2, 11})), TOY_TEST)
    assert simulation.counts("1:2")[0, :6].tolist() == [1, 1, 1, 3, 1, 2]
    # User 0: strengths .8 and, for the silence, 0 against 1, .1, .1, .1: three of eight pairs.
    assert simulation.counts("1:2")[0, 10] == pytest.approx(3 / 8)
    assert [t.turns[0].answer.error for t in simulation.transcripts[1:3]] == ["the message holds no action"] * 2


def test_an_agent_that_breaks_fails_its_batch_only() -> None:
    class Fragile(Taste):
        def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
            if any(int(o["proposals"][0]) == 15 for o in observations.values()):
                raise RuntimeError("out of memory")
            return super().act(observations)

    simulation = user_simulation(Fragile({1, 2, 3, 4}), TOY_TEST, batch_size=4)
    assert [t.ending == "failed" for t in simulation.transcripts] == [False] * 8 + [True] * 4
    assert simulation.transcripts[-1].cause == "user_0: RuntimeError('out of memory')"
    assert simulation.counts("1:2")[1, :6].tolist() == [2, 4, 0, 0, 2, 4]


def test_each_item_is_the_first_proposal_and_nothing_else_is_shown() -> None:
    agent = Taste(set())
    simulation = user_simulation(agent, TOY_TEST, max_turns=3)
    assert [int(o["proposals"][0]) for o in agent.seen] == [1, 2, 11, 12, 13, 14, 3, 4, 15, 16, 17, 18]
    for observation in agent.seen:
        assert set(observation["candidates"].tolist()) == {-1}
        latest = TOY_TEST.items[int(observation["history"][-1])].title
        assert observation["rationales"] == (f"It goes well with {latest}.", "", "")  # the same for every item
        assert observation["turn"] == 0
        shown = {line for line in observation["text"].splitlines() if "Film" in line}
        assert len(shown) == 2  # the history's one item, and the proposal
    hits = [t.turns[0].proposal == t.task.target for t in simulation.transcripts]
    assert hits == [True, True, False, False, False, False] * 2
    assert {t.provenance for t in simulation.transcripts} == {PROVENANCE}


def test_batches_do_not_matter_to_the_answers() -> None:
    whole = user_simulation(RandomUser(), TOY_TEST, seed=3)
    single = user_simulation(RandomUser(), TOY_TEST, seed=3, batch_size=1)
    assert whole.transcripts == single.transcripts
    assert whole.transcripts != user_simulation(RandomUser(), TOY_TEST, seed=4).transcripts


def test_always_yes_scores_the_share_of_positives() -> None:
    test = user_test(held_out_users([23, 22, 21]))
    found = simulation_report("yes", [[user_simulation(FixedUser(), test)]]).estimates
    for ratio, share in (("1:1", 1 / 2), ("1:3", 1 / 4), ("1:9", 1 / 10)):
        assert found[ratio]["precision"].mean == pytest.approx(share)
        assert found[ratio]["f1"].mean == pytest.approx(2 * share / (1 + share))
        assert found[ratio]["auc"].mean == 0.5


def test_a_simulation_report_says_what_was_measured() -> None:
    simulation = user_simulation(Taste({1, 2, 11, 3}), TOY_TEST)
    text = simulation_report("toy", [[simulation]] * 2).to_markdown()
    assert text.startswith(f"**toy**: 2 users (0 skipped), 1 draws, 2 seeds, toy ({TOY_TEST.sha256[:12]}); custom data")
    assert "| metric | 1:2 | 1:1 |" in text
    assert "| precision | 0.750 [0.667, 1.000] |" in text  # the user drawn twice is the one or the other


def test_seeds_and_users_are_resampled_for_pooled_scores() -> None:
    good, bad = (user_simulation(Taste(liked), TOY_TEST) for liked in ({1, 2, 3, 4}, set[int]()))
    found = simulation_report("toy", [[good], [bad]]).estimates["1:2"]["f1"]
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def many_users(n: int) -> UserTest:
    users = tuple(UserItems(u, (0,), (1, 2), (11, 12)) for u in range(n))
    return UserTest("toy", users, {"1:1": (2, 2)}, 0, ITEMS, PROVENANCE)


def test_paired_differences_of_f1() -> None:
    test = many_users(6)
    perfect, lenient = (user_simulation(Taste(liked), test) for liked in ({1, 2}, {1, 2, 11, 12}))
    found = simulation_difference([[perfect]], [[lenient]], "1:1")
    assert found.mean == pytest.approx(1 - 2 / 3)
    assert [found.low, found.high] == pytest.approx([1 / 3, 1 / 3])
    assert found.p_value == pytest.approx(2 / 2**6)  # every user alike: only the two extreme swaps reach it
    assert simulation_difference([[perfect]], [[lenient]], "1:1", "recall").p_value == 1.0


def test_differences_need_the_same_questions() -> None:
    a, b = (user_simulation(Taste({1}), test) for test in (many_users(2), many_users(3)))
    with pytest.raises(ShapeError, match="the same questions"):
        simulation_difference([[a]], [[b]], "1:1")
    with pytest.raises(ShapeError, match="All runs must answer the same tests"):
        simulation_report("toy", [[a], [b]])
    with pytest.raises(ConfigError, match="found 'hit'"):
        simulation_difference([[a]], [[a]], "1:1", "hit")


def test_a_card_needs_answers() -> None:
    answers = user_simulation(Taste({1}), many_users(2))
    for runs in ([], [[]]):
        with pytest.raises(ShapeError, match="All runs must answer the same tests"):
            user_card("toy", runs)
    for nested in (answers, [answers], None):
        with pytest.raises(ShapeError, match=r"as runs\[seed\]\[draw\], found .* Pass \[\[simulation\]\] for one"):
            user_card("toy", nested)  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match=r"as runs\[seed\]\[draw\]"):
            simulation_difference([[answers]], nested, "1:1")  # type: ignore[arg-type]


def test_draws_of_the_user_test_are_pooled_within_a_user() -> None:
    split = held_out_users([23, 22])
    draws = [user_simulation(Taste(set(range(60))), user_test(split, draw=draw)) for draw in range(2)]
    one, two = simulation_report("toy", [draws[:1]]), simulation_report("toy", [draws])
    assert (one.draws, two.draws) == (1, 2)
    assert one.estimates["1:1"]["f1"] == two.estimates["1:1"]["f1"]
    assert isinstance(draws[0], Simulation)
