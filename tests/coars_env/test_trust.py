"""Meters, cards and cross-play: does a good score come from where it should?"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coars_env import (
    METERS,
    SIMULATION_METRICS,
    Action,
    ConfigError,
    EpisodeSet,
    FixedRecommender,
    FixedUser,
    GreedyRecommender,
    Item,
    Observation,
    OracleUser,
    Provenance,
    RandomRecommender,
    ShapeError,
    Task,
    Transcript,
    Turn,
    UserItems,
    UserTest,
    cross_play,
    episode_meters,
    evaluate,
    meter_report,
    metric_values,
    position_bias,
    rollout,
    user_card,
    user_simulation,
)
from coars_env.evaluation.calibration import BINS, calibration_counts, reliability
from coars_env.testing import ScriptedAgent, toy_episodes
from turns import COMEDY, FILMS, NINETIES, asking, turn_of
from turns import told as wished

TOY = toy_episodes()
PROVENANCE = Provenance("custom", "toy", "0" * 64)
ITEMS = tuple(Item(title) for title in ("Amélie (2001)", "Heat (1995)", "Alien (1979)", "七人の侍 (1954)"))
TASK = Task("toy", 0, (0,), (1, 2, 3), target=2)


def told(*turns: tuple[int | None, int | None, str], ending: str = "max_turns") -> Transcript:
    """(proposal, action, reply) of each turn; strengths are the middle of their action's interval."""
    said = [
        turn_of(
            proposal,
            "Why not?",
            action,
            None if action is None else (0.12, 0.37, 0.62, 0.87)[action],
            reply,
            None if proposal is not None else "no item",
            None if action is not None else "no action",
        )
        for proposal, action, reply in turns
    ]
    return Transcript(TASK, 4, tuple(said), ending, None, PROVENANCE)  # type: ignore[arg-type]


def meters(transcript: Transcript) -> dict[str, float]:
    return {name: float(values[0]) for name, values in episode_meters([transcript], ITEMS, [9, 5, 1, 0]).items()}


# Meters ---------------------------------------------------------------------------------------------------------------


def test_the_meters_of_a_dialogue_by_hand() -> None:
    found = meters(told((1, 1, "I want ALIEN"), (None, None, ""), (2, 3, "There it is."), ending="accepted"))
    # The belief by popularity, 5 1 0, then against item 1, then for item 2; bits of turns add up.
    logs = np.log([6, 2, 1])
    before = np.exp((logs - logs.mean()) / logs.std())
    before /= before.sum()
    after = before * [0.1 * 0.1, 0.9 * 0.9, 0.9 * 0.1]
    after /= after.sum()
    bits = (after * np.log2(after)).sum() - (before * np.log2(before)).sum(), np.log2(after[1] / before[1])
    assert (found.pop("bits"), found.pop("bits_target")) == pytest.approx((bits[0] / 3, bits[1] / 3))
    assert np.isnan([found.pop("facets_used"), found.pop("facets_used_chance")]).all()
    assert found == {
        "target_named": 1.0,
        "others_named": 0.0,
        "success_first": 0.0,
        "always_accepts": 0.0,
        "accepts_first_miss": 0.0,
        "popularity_first": 1.0,  # popularity of the candidates is 5 1 0
        "popularity_target": 0.5,
        "length_recommender": 8.0,
        "length_user": 8.0,  # (12 + 0 + 12) / 3
    }
    assert [*found, "facets_used", "facets_used_chance", "bits", "bits_target"] == list(METERS)


def test_facets_are_used_if_the_next_proposal_has_them_more_often_than_a_candidate() -> None:
    def used(*turns: Turn) -> tuple[float, float]:
        found = episode_meters([wished(turns)], FILMS, np.ones(5))
        return float(found["facets_used"][0]), float(found["facets_used_chance"][0])

    # Two of four candidates are comedies, two of the nineties. The second question lies between wish and proposal.
    listens = used(asking("genre", reveal=COMEDY), asking("decade"), turn_of(2, "", 0, 0.1, ""))
    assert listens == (1.0, 0.5)
    # One of the three that are left is a comedy, two are of the nineties; item 3 is sad and of the nineties.
    refused = turn_of(2, "", 0, 0.1, "No.", reveal=COMEDY)
    assert used(refused, turn_of(3, "", 1, 0.4, "", reveal=NINETIES), turn_of(1, "", 3, 0.9, "")) == (
        pytest.approx((0 + 1) / 2),
        pytest.approx((1 / 3 + 1 / 2) / 2),  # then items 1 and 4 are left, one of the nineties
    )
    assert np.isnan(used(turn_of(1, "", 0, 0.1, "", reveal=COMEDY))).all()  # nothing was proposed after it
    assert np.isnan(used(turn_of(1, "", 0, 0.1, ""), turn_of(2, "", 0, 0.1, ""))).all()


def test_turns_that_ask_are_no_first_proposals() -> None:
    asks, missed = asking("genre"), turn_of(2, "", 2, 0.6, "")
    found = episode_meters([wished([asks, missed]), wished([asks, asks])], FILMS, [0, 0, 5, 1, 1])
    np.testing.assert_equal(found["accepts_first_miss"], [1, np.nan])
    np.testing.assert_equal(found["popularity_first"], [1, np.nan])
    np.testing.assert_equal(found["always_accepts"], [1, np.nan])
    assert position_bias([wished([asks, missed]), wished([asks, asks])]).counts.tolist() == [0, 1, 0, 0]


def test_a_target_that_was_not_retrieved_can_be_named_and_never_hit() -> None:
    task = replace(TASK, candidates=(1, 3), retrieved=True)
    found = meters(replace(told((1, 0, "I want Alien (1979)"), (3, 0, "No.")), task=task))
    assert (found["target_named"], found["others_named"], found["accepts_first_miss"]) == (1.0, 0.0, 0.0)
    assert np.isnan(found["success_first"])


def test_meters_without_a_truth_are_undefined() -> None:
    found = meters(replace(told(ending="failed"), cause="broke"))
    assert [name for name, value in found.items() if not np.isnan(value)] == [
        "target_named",
        "others_named",
        "popularity_target",
    ]
    assert np.isnan(meters(told((None, 2, "")))["popularity_first"])
    assert np.isnan(meters(told((1, None, "")))["always_accepts"])
    assert np.isnan(meters(told((2, 2, "")))["accepts_first_miss"])


@pytest.mark.parametrize(
    ("turns", "target", "others"),
    [
        ([(1, 1, "No alien?"), (2, 3, "")], 1, 0.0),
        ([(2, 1, "Alien, you say?"), (2, 3, "Alien!")], 0, 0.0),  # proposed before it was named
        ([(1, 1, "Heat? No."), (2, 3, "Better than Heat.")], 0, 0.0),
        ([(1, 1, "The 七人の侍 please"), (1, 1, "alienated")], 0, 0.5),  # whole words only; one of two others
        ([(2, 1, "Heat and 七人の侍.")], 0, 1.0),
    ],
)
def test_a_title_leaks_if_it_is_named_before_it_is_proposed(
    turns: list[tuple[int, int, str]], target: int, others: float
) -> None:
    found = meters(told(*turns))
    assert (found["target_named"], found["others_named"]) == (target, others)


def test_the_meters_tell_the_scripted_partners_apart() -> None:
    def means(recommender: object, user: object) -> dict[str, float]:
        runs = evaluate(recommender, user, [TOY] * 30)  # type: ignore[arg-type]
        report = meter_report("toy", runs, TOY.items, [1, 3, 1, 0, 3, 1])
        return {name: estimate.mean for name, estimate in report.estimates.items()}

    accepting = means(RandomRecommender(), FixedUser())
    assert (accepting["always_accepts"], accepting["accepts_first_miss"], accepting["success_first"]) == (1, 1, 1)
    oracle = means(RandomRecommender(), OracleUser(TOY))
    assert (oracle["accepts_first_miss"], oracle["target_named"]) == (0, 0)
    popular = means(GreedyRecommender(lambda history, items: np.array([1, 3, 1, 0, 3, 1.0])[items]), OracleUser(TOY))
    assert popular["popularity_first"] > 0.8 > oracle["popularity_first"]
    assert popular["popularity_target"] == oracle["popularity_target"]


class Leaky:
    """Says what it wants."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        targets = {task.history: TOY.items[task.target].title for task in TOY}
        histories = {n: tuple(i for i in o["history"].tolist() if i >= 0) for n, o in observations.items()}
        return {n: {"action": 1, "strength": 0.3, "message": f"I want {targets[h]}."} for n, h in histories.items()}


def test_a_user_that_says_what_it_wants_is_found_out() -> None:
    transcripts = rollout(TOY.tasks, TOY.items, FixedRecommender(1), Leaky(), provenance=TOY.provenance)
    found = episode_meters(transcripts, TOY.items, np.ones(6))
    assert found["target_named"].tolist() == [1, 0, 1, 0]  # toy-1 and toy-3 have their target at place 1
    assert found["others_named"].sum() == 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.text(max_size=8)), max_size=4))
def test_meters_stay_in_their_ranges(said: list[tuple[int, int, str]]) -> None:
    turns = [(None if p == 0 else p, None if a == 4 else a, text) for p, a, text in said]
    for name, value in meters(told(*turns)).items():
        low, high = (-4, 4) if name.startswith("bits") else (0, 8 if name.startswith("length") else 1)
        assert np.isnan(value) or low <= value <= high, name


# Places of the list ---------------------------------------------------------------------------------------------------


def test_the_bias_of_positions_by_hand() -> None:
    found = position_bias([told((1, 1, "")), told((1, 1, "")), told((3, 1, "")), told((None, 1, ""))])
    assert found.counts.tolist() == [2, 0, 1]
    assert found.chi_square == pytest.approx(2.0)  # (1 + 1 + 0) / 1
    assert found.p_value == pytest.approx(21 / 27, abs=0.02)  # all samples of three but the 6 of 27 that are even
    assert found.distance == pytest.approx(1 / 3)
    assert str(found).startswith("place 0 of 3 most often (0.667), distance from uniform 0.333, chi-square 2.0")


def test_positions_without_proposals_are_undefined() -> None:
    found = position_bias([told((None, 1, ""))])
    assert np.isnan([found.chi_square, found.p_value, found.distance]).all()
    assert str(found) == "no proposals"


def test_a_fixed_place_is_found_and_chance_is_not() -> None:
    tasks = tuple(replace(task, task_id=f"{n}-{task.task_id}") for n in range(30) for task in TOY)
    sets = EpisodeSet("many", tasks, TOY.items, TOY.provenance)
    (fixed,), (chance,) = (
        evaluate(agent, FixedUser(), [sets])[0] for agent in (FixedRecommender(2), RandomRecommender())
    )
    assert position_bias(fixed).p_value < 0.001
    assert position_bias(chance).p_value > 0.01


# Reports --------------------------------------------------------------------------------------------------------------


def test_a_meter_report_stands_beside_hit_at_one() -> None:
    runs = evaluate(RandomRecommender(), OracleUser(TOY), [TOY, TOY], seeds=[0, 1])
    report = meter_report("chance", runs, TOY.items, np.ones(6))
    page = report.to_markdown()
    assert report.hit.mean == metric_values(runs)["hit_final"].mean()
    assert report.hit_best.mean == metric_values(runs)["hit_best"].mean()
    assert page.startswith("**chance**: custom data toy.")
    assert [line.split(" | ")[0] for line in page.splitlines()[4:-2]] == [
        f"| {n}" for n in ("hit_final", "hit_best", *METERS)
    ]
    assert "\nFirst proposals: place " in page
    assert report.positions.counts.sum() == 4


def test_every_recommender_meets_every_user() -> None:
    recommenders = {"chance": RandomRecommender(), "first": FixedRecommender()}
    users = {"oracle": OracleUser(TOY), "accepts all": FixedUser(), "adversary": OracleUser(TOY, flip=1.0)}
    matrix = cross_play(recommenders, users, [TOY], seeds=[0, 1])
    assert list(matrix.runs) == [(r, u) for r in recommenders for u in users]
    hits = matrix.estimates("hit_final")
    assert hits["first", "accepts all"].mean == 0.25  # toy-0 has its target in the first place
    assert hits["first", "adversary"].mean == 0.25  # which refuses it for four turns
    assert matrix.values("accepted")["first", "oracle"].tolist() == [[[1, 0, 0, 0]]] * 2
    lines = matrix.to_markdown("turns").splitlines()
    assert lines[0] == "| turns | oracle | accepts all | adversary |"
    assert lines[3].startswith("| first | 3.250 [")
    assert "| 1.000 [1.000, 1.000] |" in lines[3]
    with pytest.raises(ConfigError, match=r"Expected one of the metrics .* found 'charm'"):
        matrix.to_markdown("charm")


def test_all_are_looked_at_before_the_first_pair_plays() -> None:
    first = ScriptedAgent([{"item": 0, "message": ""}])
    with pytest.raises(ConfigError, match=r"The user 'late' is an agent, .* found the class FixedUser"):
        cross_play({"first": first}, {"early": FixedUser(), "late": FixedUser}, [TOY])  # type: ignore[dict-item]
    assert first.seeds == []
    with pytest.raises(ConfigError, match=r"Each recommender has a name in the table\. .* Pass \{'its name': the reco"):
        cross_play([first], {"user": FixedUser()}, [TOY])  # type: ignore[arg-type]


def test_meters_need_the_popularity_of_every_item() -> None:
    runs = evaluate(RandomRecommender(), FixedUser(), [TOY])
    for counts, message in (
        (np.zeros(2), r"found shape \[2\] with 0 NaN"),
        (np.full(6, np.nan), r"found shape \[6\] with 6 NaN"),
    ):
        with pytest.raises(ShapeError, match=rf"Expected 6 numbers, {message}"):
            meter_report("toy", runs, TOY.items, counts)
    with pytest.raises(ShapeError, match=r"Places are counted over episodes\. .* found none"):
        position_bias([])


# The card of a user ---------------------------------------------------------------------------------------------------

LETTERS = tuple(Item(f"Film {letter}") for letter in "ABCDEFGHIJKLMNOPQRST")
QUESTIONS = UserTest(
    name="toy",
    users=(UserItems(0, (0,), (1, 2), (11, 12, 13, 14)), UserItems(1, (9,), (3, 4), (15, 16, 17, 18))),
    ratios={"1:2": (2, 4), "1:1": (1, 1)},
    skipped=0,
    items=LETTERS,
    provenance=PROVENANCE,
)


def test_the_card_of_an_oracle_and_of_an_adversary() -> None:
    for flip, right in ((0.0, 1.0), (1.0, 0.0)):
        simulation = user_simulation(OracleUser(QUESTIONS.tasks(), flip=flip), QUESTIONS)
        card = user_card(f"oracle, errs {flip}", [[simulation]])
        found = {name: estimate.mean for name, estimate in card.report.estimates["1:2"].items()}
        assert (found["f1"], found["auc"]) == (right, right)
        wrong = 1 - right
        assert (found["false_accept"], found["false_reject"], found["brier"], found["ece"]) == (wrong,) * 4
        first, last = card.bins["1:2"][0], card.bins["1:2"][-1]
        assert (first.strength, first.taken, last.strength, last.taken) == (0.0, wrong, 1.0, right)
        assert (first.answers, last.answers) == ((8, 4) if right else (4, 8))


def test_a_card_shows_every_metric_and_every_bin() -> None:
    runs = [[user_simulation(FixedUser("star", 0.5), QUESTIONS)]] * 2
    page = user_card("star 0.1.0", runs).to_markdown()
    assert page.startswith("**star 0.1.0**: 2 users")
    for name in SIMULATION_METRICS:
        assert f"| {name} | " in page
    assert page.count("\nReliability at ") == 2
    assert "| [0.5, 0.6) | 12.0 | 0.500 | 0.333 |" in page
    assert "| [0.9, 1.0] | 0.0 | - | - |" in page


def test_calibration_counts_by_hand() -> None:
    counts = np.array(calibration_counts([0.8, 1.0, np.nan], [0.3, 0.8]))
    assert counts[:2].tolist() == pytest.approx([0.2**2 + 0.3**2 + 0.8**2, 4])
    bins = reliability(counts)
    assert [entry.answers for entry in bins] == [0, 0, 0, 1, 0, 0, 0, 0, 2, 1]
    assert (bins[8].strength, bins[8].taken) == (0.8, 0.5)
    assert (bins[9].low, bins[9].high, bins[9].taken) == (0.9, 1.0, 1.0)


def test_every_hundredth_falls_into_its_own_bin() -> None:
    for hundredth in range(101):
        counts = np.array(calibration_counts([hundredth / 100], []))[2:].reshape(BINS, 3)
        assert counts[:, 0].argmax() == min(hundredth // 10, 9)


# The same everywhere --------------------------------------------------------------------------------------------------

EVERYBODY = """
import coars_env as c
split = c.load_split("synthetic", users=80, items=90, interactions=2000)
build = c.builder(split, "popularity", num_candidates=8)
episodes = c.freeze(build, "test")
score = c.svd_scorer(build.peers.directions)
recommenders = {"chance": c.RandomRecommender(), "greedy": c.GreedyRecommender(score)}
users = {"noisy": c.OracleUser(episodes, flip=0.3), "svd": c.ScorerUser.fit(score, episodes, accept=0.2)}
for runs in c.cross_play(recommenders, users, [episodes], seeds=[5]).runs.values():
    for transcript in runs[0][0]:
        print(ascii(transcript.to_json()))
"""


def test_transcripts_are_byte_equal_in_any_process_with_any_hash_seed_and_number_of_threads() -> None:
    printed = set()
    for hash_seed, threads in (("0", "1"), ("12345", "2")):
        environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        ran = subprocess.run(
            [sys.executable, "-c", EVERYBODY],
            capture_output=True,
            check=True,
            env={**os.environ, **environment, "PYTHONHASHSEED": hash_seed},
        )
        printed.add(ran.stdout)
    assert len(printed) == 1
    assert printed.pop().count(b"\n") == 4 * 80
