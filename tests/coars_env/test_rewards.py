import math
import pydoc
import re
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Answer,
    CoarsReward,
    ConfigError,
    Facet,
    Instruction,
    LinearStage,
    MirroredStage,
    RewardTerms,
    Rules,
    Task,
    Transcript,
    Turn,
    TurnArrays,
    clamp_strength,
    constant_stage,
    kept_terms,
    outcome_terms,
    turn_outcome_terms,
)
from coars_env.rewards import apply_repeats, recommender_reward, user_reward
from coars_env.rules import PAPER
from coars_env.testing.toys import toy_dataset
from turns import turn_of

# hit, s, action, R_rec at D = 1, R_user at q = -1, -.5, 0, .5, 1, used for training
SIGN_TABLE = [
    (1, 0.000, "dislike", +0.5000, (-0.9000, -0.9500, -1.0000, -1.0500, -1.1000), True),
    (1, 0.250, "skip", +0.6250, (-0.4750, -0.4875, -0.5000, -0.5125, -0.5250), True),
    (1, 0.375, "skip", +0.6875, (-0.2437, -0.2469, -0.2500, -0.2531, -0.2562), True),
    (1, 0.500, "star", +0.7500, (0, 0, 0, 0, 0), True),
    (1, 0.750, "click", +0.8750, (+0.5250, +0.5125, +0.5000, +0.4875, +0.4750), True),
    (1, 1.000, "click", +1.0000, (+1.1000, +1.0500, +1.0000, +0.9500, +0.9000), True),
    (0, 0.000, "dislike", -0.5000, (+0.9000, +0.9500, +1.0000, +1.0500, +1.1000), True),
    (0, 0.250, "skip", -0.6250, (+0.4750, +0.4875, +0.5000, +0.5125, +0.5250), True),
    (0, 0.375, "skip", -0.6875, (+0.2437, +0.2469, +0.2500, +0.2531, +0.2562), True),
    (0, 0.500, "star", -0.7500, (0, 0, 0, 0, 0), False),
    (0, 0.750, "click", -0.8750, (-0.5250, -0.5125, -0.5000, -0.4875, -0.4750), False),
    (0, 1.000, "click", -1.0000, (-1.1000, -1.0500, -1.0000, -0.9500, -0.9000), False),
]
# hit, s, R_rec at t = 1, 2, 3, 4 of T = 4 with beta = 1/3
RECOMMENDER_TABLE = [
    (1, 0.000, (+0.6667, +0.5556, +0.4444, +0.3333)),
    (1, 0.500, (+1.0000, +0.8333, +0.6667, +0.5000)),
    (1, 1.000, (+1.3333, +1.1111, +0.8889, +0.6667)),
    (0, 0.000, (-0.3333, -0.4444, -0.5556, -0.6667)),
    (0, 0.375, (-0.4583, -0.6111, -0.7639, -0.9167)),
    (0, 0.500, (-0.5000, -0.6667, -0.8333, -1.0000)),
]
PEERS = (-1.0, -0.5, 0.0, 0.5, 1.0)
TARGET, OTHER = 4, 5
TOLERANCE = 1e-12
LAST_DIGIT = 0.5e-4 + TOLERANCE  # the tables have four digits

strengths = st.floats(0, 1)
similarities = st.floats(-1, 1)
alphas = st.floats(0, 0.499)
betas = st.floats(0, 0.999)
hits = st.booleans()
horizons = st.integers(1, 12).flatmap(lambda horizon: st.tuples(st.integers(1, horizon), st.just(horizon)))


def scored(
    reward: CoarsReward, *, hit: bool, strength: float | None, action: int | None, q: float = 0.0, number: int = 1
) -> RewardTerms:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET, peer_similarity=(q, q))
    turn = turn_of(TARGET if hit else OTHER, "", action, strength, "", user_error=None if action is not None else "?")
    return reward.turn(task, turn, number, 4)


# The tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hit", "strength", "action", "recommender", "user", "used"), SIGN_TABLE)
def test_rewards_equal_the_sign_table_to_the_digit(
    hit: int, strength: float, action: str, recommender: float, user: tuple[float, ...], used: bool
) -> None:
    reward = CoarsReward(stage=constant_stage, exclude_positive_miss=frozenset(ROLES))
    for q, expected in zip(PEERS, user, strict=True):
        terms = scored(reward, hit=bool(hit), strength=strength, action=ACTIONS.index(action), q=q)
        assert terms.rewards[RECOMMENDER] == pytest.approx(recommender, abs=TOLERANCE)
        assert terms.rewards[USER] == pytest.approx(expected, abs=LAST_DIGIT)
        assert terms.excluded == (frozenset() if used else frozenset(ROLES))
        assert (terms.hit, terms.factors) == (bool(hit), {"strength": strength, "stage": 1, "peer_similarity": q})


@pytest.mark.parametrize(("hit", "strength", "expected"), RECOMMENDER_TABLE)
def test_the_recommender_is_paid_by_the_turn_as_in_the_table(
    hit: int, strength: float, expected: tuple[float, ...]
) -> None:
    action = max(n for n in range(4) if 0.25 * n <= strength)
    found = [
        scored(CoarsReward(), hit=bool(hit), strength=strength, action=action, number=t).rewards[RECOMMENDER]
        for t in (1, 2, 3, 4)
    ]
    assert found == pytest.approx(expected, abs=LAST_DIGIT)


# Properties of both rewards -------------------------------------------------------------------------------------------


@given(hits, strengths, betas, horizons)
def test_the_recommender_gains_by_a_hit_and_loses_by_a_miss(
    hit: bool, s: float, beta: float, when: tuple[int, int]
) -> None:
    reward = recommender_reward(hit, s, MirroredStage(beta)(*when, hit))
    assert (reward > 0) is hit
    assert reward != 0


@given(hits, strengths, similarities, alphas)
def test_the_user_gains_by_judging_rightly(hit: bool, s: float, q: float, alpha: float) -> None:
    reward, v = user_reward(hit, s, q, alpha), 2 * s - 1
    assert reward * (v if hit else -v) >= 0
    assert (reward == 0) == (v == 0)


@given(hits, similarities, alphas)
def test_an_undecided_user_earns_nothing(hit: bool, q: float, alpha: float) -> None:
    assert user_reward(hit, 0.5, q, alpha) == 0


@given(hits, strengths, similarities, betas, horizons)
def test_rewards_stay_in_their_bounds(hit: bool, s: float, q: float, beta: float, when: tuple[int, int]) -> None:
    recommender = recommender_reward(hit, s, MirroredStage(beta)(*when, hit))
    assert 0.5 * (1 - beta) - TOLERANCE <= abs(recommender) <= 1 + beta + TOLERANCE
    if not hit and s < 0.5:  # a kept miss
        assert abs(recommender) < 0.75 * (1 + beta) + TOLERANCE
    assert abs(user_reward(hit, s, q, 0.1)) <= 1 + 0.1 * abs(q) + TOLERANCE <= 1.1 + 2 * TOLERANCE


@given(strengths, strengths, similarities, alphas)
def test_rewards_rise_with_the_strength_on_hits_and_fall_on_misses(a: float, b: float, q: float, alpha: float) -> None:
    low, high = sorted((a, b))
    for hit, sign in ((True, 1), (False, -1)):
        assert sign * (recommender_reward(hit, high, 1) - recommender_reward(hit, low, 1)) >= 0
        assert sign * (user_reward(hit, high, q, alpha) - user_reward(hit, low, q, alpha)) >= -TOLERANCE
    if high - low > 1e-6:
        assert user_reward(True, high, q, alpha) > user_reward(True, low, q, alpha)


@given(strengths, similarities, similarities)
def test_agreeing_with_the_crowd_earns_less_and_resisting_it_more(s: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert user_reward(True, s, high, 0.1) <= user_reward(True, s, low, 0.1)
    assert user_reward(False, s, high, 0.1) >= user_reward(False, s, low, 0.1)


@given(strengths, similarities, alphas)
def test_rewards_are_symmetric(s: float, q: float, alpha: float) -> None:
    assert user_reward(False, s, q, alpha) == -user_reward(True, s, q, alpha)
    assert user_reward(True, 1 - s, q, alpha) == pytest.approx(-user_reward(True, s, -q, alpha), abs=TOLERANCE)


@given(hits, strengths, similarities, alphas)
def test_without_peers_the_user_is_paid_by_judgement_alone(hit: bool, s: float, q: float, alpha: float) -> None:
    plain = (1 if hit else -1) * (2 * s - 1)
    assert user_reward(hit, s, q, 0.0) == plain == user_reward(hit, s, 0.0, alpha)


# The stage ------------------------------------------------------------------------------------------------------------


def test_the_default_stage_is_the_published_row() -> None:
    stage = MirroredStage()
    assert [stage(t, 4, True) for t in (1, 2, 3, 4)] == pytest.approx([4 / 3, 10 / 9, 8 / 9, 2 / 3], abs=TOLERANCE)
    assert [stage(t, 4, False) for t in (1, 2, 3, 4)] == pytest.approx([2 / 3, 8 / 9, 10 / 9, 4 / 3], abs=TOLERANCE)


@given(betas, st.integers(1, 12))
def test_the_stage_is_positive_mirrored_and_of_mean_one(beta: float, horizon: int) -> None:
    stage = MirroredStage(beta)
    on_hits = [stage(t, horizon, True) for t in range(1, horizon + 1)]
    on_misses = [stage(t, horizon, False) for t in range(1, horizon + 1)]
    assert min(on_hits + on_misses) > 0
    assert sum(on_hits) / horizon == pytest.approx(1, abs=TOLERANCE)
    assert [a + b for a, b in zip(on_hits, on_misses, strict=True)] == pytest.approx([2] * horizon, abs=TOLERANCE)
    assert on_hits == pytest.approx(on_misses[::-1], abs=TOLERANCE)
    if beta > 1e-6:
        assert on_hits == sorted(on_hits, reverse=True)
        assert len(set(on_hits)) == horizon


def test_a_linear_stage_weighs_hits_and_misses_alike() -> None:
    for hit in (True, False):
        assert [LinearStage(1 / 3)(t, 4, hit) for t in (1, 2, 3, 4)] == pytest.approx([4 / 3, 10 / 9, 8 / 9, 2 / 3])
        assert [LinearStage(-1 / 2)(t, 3, hit) for t in (1, 2, 3)] == [0.5, 1.0, 1.5]
        assert LinearStage(0.9)(1, 1, hit) == 1.0


@pytest.mark.parametrize("beta", [1.0, -1.0, math.nan])
def test_a_slope_that_could_turn_the_sign_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match=r"must stay positive. Expected -1 < beta < 1, found"):
        LinearStage(beta)


@given(st.integers(1, 12), hits)
def test_no_beta_and_the_constant_stage_weigh_every_turn_alike(horizon: int, hit: bool) -> None:
    for t in range(1, horizon + 1):
        assert MirroredStage(0.0)(t, horizon, hit) == 1 == constant_stage(t, horizon, hit)


@given(betas, hits)
def test_a_single_turn_weighs_one(beta: float, hit: bool) -> None:
    assert MirroredStage(beta)(1, 1, hit) == 1


@pytest.mark.parametrize("beta", [1.0, 1.5, -0.1, math.nan])
def test_a_beta_that_could_turn_the_sign_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match=r"must stay positive. Expected 0 <= beta < 1, found"):
        MirroredStage(beta)


def test_a_stage_that_turns_the_sign_is_refused() -> None:
    reward = CoarsReward(stage=lambda turn, max_turns, hit: 1.0 - turn)
    with pytest.raises(ConfigError, match=r"Expected D > 0, found 0.0 in turn 1 of 4"):
        scored(reward, hit=True, strength=1.0, action=3)


@pytest.mark.parametrize("alpha", [0.5, -0.1, math.nan])
def test_an_alpha_that_could_turn_the_slope_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"Expected 0 <= alpha < 0.5, found"):
        CoarsReward(alpha=alpha)


# Strength and action --------------------------------------------------------------------------------------------------


def action_of(strength: float) -> int:
    return max(n for n in range(4) if 0.25 * n <= strength)


@pytest.mark.parametrize(
    ("action", "strength", "expected"),
    [
        ("dislike", 0.0, 0.0),
        ("dislike", 0.25, 0.24),  # .25 belongs to skip
        ("skip", 0.25, 0.25),
        ("skip", 0.9, 0.49),
        ("star", 0.0, 0.5),
        ("star", 0.749, 0.74),
        ("click", 0.75, 0.75),
        ("click", 1.0, 1.0),
        ("click", math.inf, 1.0),
        ("click", -math.inf, 0.75),
        ("dislike", None, 0.12),  # the middle of 0 and .24
        ("skip", math.nan, 0.37),  # of .25 and .49
        ("star", None, 0.62),  # of .5 and .74
        ("click", math.nan, 0.88),  # of .75 and 1: .875
    ],
)
def test_the_action_decides_where_the_strength_lies(action: str, strength: float | None, expected: float) -> None:
    assert clamp_strength(ACTIONS.index(action), strength) == expected


@given(st.integers(0, 3), st.floats())
def test_a_resolved_strength_always_means_its_action(action: int, strength: float) -> None:
    resolved = clamp_strength(action, strength)
    assert 0 <= resolved <= 1
    assert action_of(resolved) == action
    assert clamp_strength(action, resolved) == resolved


# Exclusion and unusable messages --------------------------------------------------------------------------------------


@given(strengths, similarities, horizons)
def test_no_hit_is_ever_excluded(s: float, q: float, when: tuple[int, int]) -> None:
    reward = CoarsReward(exclude_positive_miss=frozenset(ROLES))
    assert not scored(reward, hit=True, strength=s, action=action_of(s), q=q).excluded


@pytest.mark.parametrize("scope", [frozenset(ROLES), frozenset({RECOMMENDER}), frozenset({USER}), frozenset()])
def test_a_miss_the_user_liked_is_kept_from_the_roles_in_scope(scope: frozenset[str]) -> None:
    reward = CoarsReward(exclude_positive_miss=scope)
    for action, strength in ((2, 0.5), (3, 0.75), (3, 1.0)):
        assert scored(reward, hit=False, strength=strength, action=action).excluded == scope
    for action, strength in ((0, 0.0), (1, 0.49)):
        assert scored(reward, hit=False, strength=strength, action=action).excluded == frozenset()


@given(st.floats(0.5, 1), similarities)
def test_with_no_scope_a_liked_miss_costs_both_sides(s: float, q: float) -> None:
    terms = scored(CoarsReward(), hit=False, strength=s, action=action_of(s), q=q)
    assert terms.rewards[RECOMMENDER] <= -0.75 * terms.factors["stage"]
    assert terms.rewards[USER] <= 0


def test_without_a_scope_no_usable_turn_is_left_out() -> None:
    assert CoarsReward().exclude_positive_miss == frozenset()
    assert not scored(CoarsReward(), hit=False, strength=1.0, action=3).excluded


def test_an_unknown_role_cannot_be_excluded() -> None:
    with pytest.raises(ConfigError, match=r"Only the two sides can be excluded. .* found frozenset\({'critic_0'}\)"):
        CoarsReward(exclude_positive_miss=frozenset({"critic_0"}))


def answered(item: int, strength: float) -> Turn:
    return turn_of(item, "", action_of(strength), strength, "")


def ended(*turns: Turn) -> Transcript:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET)
    return Transcript(task, 4, turns, "max_turns", None, toy_dataset().provenance)


@pytest.mark.parametrize(
    ("turns", "recommender", "user"),
    [
        ([(OTHER, 0.1), (OTHER, 0.6), (TARGET, 0.9)], 1.0, 1 / 3),  # right, wrong, right
        ([(TARGET, 0.2), (OTHER, 0.8)], -1.0, -1.0),  # the target was proposed, but not last
        ([(TARGET, 1.0)], 1.0, 1.0),
    ],
)
def test_the_outcome_is_paid_alike_in_every_turn(
    turns: list[tuple[int, float]], recommender: float, user: float
) -> None:
    terms = outcome_terms(ended(*(answered(*turn) for turn in turns)))
    assert [term.rewards[RECOMMENDER] for term in terms] == [recommender] * len(turns)
    assert [term.rewards[USER] for term in terms] == pytest.approx([user] * len(turns))
    assert not any(term.excluded for term in terms)


def test_a_turn_that_could_not_be_used_has_no_part_in_the_outcome() -> None:
    first, second, third = outcome_terms(ended(UNREAD, UNANSWERED, answered(TARGET, 0.9)))
    assert (first.rewards[RECOMMENDER], first.rewards[USER], first.excluded) == (-1.0, 0.0, {USER})
    assert (second.rewards[RECOMMENDER], second.rewards[USER], second.excluded) == (0.0, -1.0, {RECOMMENDER})
    assert (third.rewards[RECOMMENDER], third.rewards[USER], third.excluded) == (1.0, 1.0, set())


def test_the_outcome_of_a_turn_is_its_own() -> None:
    terms = turn_outcome_terms(ended(answered(OTHER, 0.9), answered(OTHER, 0.2), UNREAD, answered(TARGET, 0.5)))
    assert [term.rewards[RECOMMENDER] for term in terms] == [-1.0, -1.0, -1.0, 1.0]
    assert [term.rewards[USER] for term in terms] == [-1.0, 1.0, 0.0, 1.0]
    assert [term.excluded for term in terms] == [set(), set(), {USER}, set()]


def test_only_right_replies_are_kept() -> None:
    terms = kept_terms(ended(answered(OTHER, 0.9), answered(OTHER, 0.2), UNANSWERED, answered(TARGET, 0.5)))
    assert [term.excluded for term in terms] == [{RECOMMENDER, USER}, {RECOMMENDER}, {RECOMMENDER, USER}, set()]
    assert [(term.rewards[RECOMMENDER], term.rewards[USER]) for term in terms] == [
        (0.0, 0.0),
        (0.0, 1.0),
        (0.0, 0.0),
        (1.0, 1.0),
    ]


UNREAD = turn_of(None, "", 3, 1.0, "", error="?")
UNANSWERED = turn_of(TARGET, "", None, None, "", user_error="?")
NEITHER = turn_of(None, "", None, None, "", error="?", user_error="?")


@pytest.mark.parametrize(
    ("turn", "recommender", "user", "excluded"),
    [
        (UNREAD, -1.0, 0.0, {USER}),
        (UNANSWERED, 0.0, -1.0, {RECOMMENDER}),
        (NEITHER, -1.0, -1.0, set()),
    ],
    ids=["unread", "unanswered", "neither"],
)
def test_a_message_that_could_not_be_used_costs_its_author(
    turn: Turn, recommender: float, user: float, excluded: set[str]
) -> None:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET)
    terms = CoarsReward().turn(task, turn, 1, 4)
    assert (terms.rewards[RECOMMENDER], terms.rewards[USER], terms.excluded) == (recommender, user, excluded)
    assert terms.hit is (turn is UNANSWERED)


def test_the_price_of_an_unusable_message_can_be_set() -> None:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET)
    assert CoarsReward(invalid=-0.25).turn(task, UNREAD, 1, 4).rewards[RECOMMENDER] == -0.25


def test_rewards_of_the_two_equations_are_those_of_the_turn() -> None:
    # miss at t = 2 of 4 with s = .3, q = .5: D = 8/9, R_rec = -.65 * 8/9, v = -.4, R_user = .4 (1 + .1 * .5 * .4)
    terms = scored(CoarsReward(), hit=False, strength=0.3, action=1, q=0.5, number=2)
    assert terms.rewards[RECOMMENDER] == pytest.approx(-0.65 * 8 / 9, abs=TOLERANCE)
    assert terms.rewards[USER] == pytest.approx(0.4 * 1.02, abs=TOLERANCE)


def test_a_reward_can_be_changed_in_one_field() -> None:
    doubled = replace(CoarsReward(), stage=partial(lambda factor, *_: factor, 2.0))
    assert scored(doubled, hit=True, strength=1.0, action=3).rewards[RECOMMENDER] == 2.0


def test_an_undefined_factor_is_left_out() -> None:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET, peer_similarity=(0.5, -0.5))
    assert CoarsReward().turn(task, UNREAD, 1, 1).factors == {"stage": 1.0, "strength": 1.0}
    assert CoarsReward().turn(task, UNANSWERED, 1, 1).factors == {"stage": 1.0, "peer_similarity": 0.5}
    assert CoarsReward().turn(task, NEITHER, 1, 1).factors == {"stage": 1.0}


def test_only_hit_and_rewards_are_mandatory() -> None:
    terms = RewardTerms(True, {RECOMMENDER: 1.0, USER: 0.5})
    assert (terms.excluded, terms.factors) == (frozenset(), {})
    assert terms.to_row() == {"hit": True, "rewards": {RECOMMENDER: 1.0, USER: 0.5}, "excluded": [], "factors": {}}


# Questions and repeats ------------------------------------------------------------------------------------------------

COMEDY = Facet("genre", "Comedy")
ASKED = Turn(None, "Which?", (Answer(None, None, "A comedy.", reveal=COMEDY),), question="genre")
UNHEARD = Turn(None, "Which?", (Answer(None, None, "?", "no wish"),), question="genre")


@pytest.mark.parametrize(
    ("turn", "user", "excluded"), [(ASKED, 0.0, set()), (UNHEARD, -0.5, {RECOMMENDER})], ids=["read", "unread"]
)
def test_a_question_costs_its_price_and_earns_the_user_nothing(turn: Turn, user: float, excluded: set[str]) -> None:
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET)
    for cost in (0.0, 0.25):
        terms = CoarsReward(question_cost=cost, invalid=-0.5).turn(task, turn, 1, 4)
        assert (terms.hit, dict(terms.rewards), terms.excluded) == (False, {RECOMMENDER: -cost, USER: user}, excluded)
        assert str(terms.rewards[RECOMMENDER]) == ("-0.25" if cost else "0.0")  # no negative zero


@pytest.mark.parametrize("cost", [-0.1, math.nan, math.inf, "0"])
def test_a_price_that_cannot_be_is_refused(cost: object) -> None:
    with pytest.raises(ConfigError, match=r"question_cost must be a number of at least 0, got"):
        CoarsReward(question_cost=cost)  # type: ignore[arg-type]


def test_questions_and_proposals_earn_the_same_one_by_one_and_at_once() -> None:
    reward = CoarsReward(question_cost=0.25, invalid=-0.5)
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET, peer_similarity=(0.5, 0.25))
    turns = [ASKED, answered(TARGET, 0.9), UNHEARD, answered(OTHER, 0.1), UNREAD, UNANSWERED]
    paid = [reward.turn(task, turn, number, 6).rewards for number, turn in enumerate(turns, start=1)]
    nan = math.nan
    arrays = TurnArrays(
        hit=np.array([False, True, False, False, False, True]),
        named=np.array([False, True, False, True, False, True]),
        question=np.array([True, False, True, False, False, False]),
        unread=np.array([False, False, True, False, False, True]),
        action=np.array([-1, 3, -1, 0, 3, -1]),
        strength=np.array([nan, 0.9, nan, 0.1, 1.0, nan]),
        peer_similarity=np.array([0.0, 0.5, 0.0, 0.25, 0.0, 0.5]),
        number=np.arange(1, 7),
    )
    together = reward.batch(arrays, 6)
    for role in ROLES:
        assert together[role].tolist() == [earned[role] for earned in paid]


def asking(*turns: Turn, rules: Rules | None = None) -> Transcript:
    wish = Instruction((COMEDY,), ("genre",), noise=0.5)
    task = Task("t", 0, history=(1,), candidates=(TARGET, OTHER), target=TARGET, instruction=wish)
    provenance = toy_dataset().provenance
    return Transcript(task, len(turns), turns, "max_turns", None, provenance, rules=rules or PAPER)


def test_the_outcome_is_paid_to_readable_questions_too() -> None:
    asked, unheard, wrong, right = outcome_terms(asking(ASKED, UNHEARD, answered(OTHER, 0.9), answered(TARGET, 0.9)))
    assert dict(asked.rewards) == dict(wrong.rewards) == dict(right.rewards) == {RECOMMENDER: 1.0, USER: 0.0}
    assert (dict(unheard.rewards), unheard.excluded) == ({RECOMMENDER: 0.0, USER: -1.0}, {RECOMMENDER})
    assert not any(term.excluded for term in (asked, wrong, right))


def test_the_outcome_is_that_of_the_answer_by_the_rules() -> None:
    turns = answered(TARGET, 0.4), answered(OTHER, 0.3)
    for answer, worth in (("last", -1.0), ("best", 1.0)):
        terms = outcome_terms(asking(*turns, rules=Rules(answer=answer)))  # type: ignore[arg-type]
        assert [term.rewards[RECOMMENDER] for term in terms] == [worth, worth]


def test_nothing_of_a_question_can_be_checked() -> None:
    played = asking(ASKED, UNHEARD, answered(TARGET, 0.9))
    terms = turn_outcome_terms(played)
    assert [dict(term.rewards) for term in terms] == [
        {RECOMMENDER: 0.0, USER: 0.0},
        {RECOMMENDER: 0.0, USER: -1.0},
        {RECOMMENDER: 1.0, USER: 1.0},
    ]
    kept = kept_terms(played)
    assert [term.excluded for term in kept] == [set(ROLES), set(ROLES), set()]


def test_only_a_repeat_of_what_was_rejected_is_unpaid() -> None:
    earned = RewardTerms(True, {RECOMMENDER: 0.5, USER: -0.5}, frozenset({USER}), {"stage": 1.0})
    liked, rejected, other = answered(TARGET, 0.6), answered(TARGET, 0.3), answered(OTHER, 0.3)
    for before, paid in (([], 0.5), ([liked], 0.5), ([other], 0.5), ([UNANSWERED], 0.5), ([rejected, other], 0.0)):
        turns = [*before, liked]
        for repeats in ("paid", "forbidden"):
            assert apply_repeats(earned, turns, Rules(repeats=repeats)) is earned  # type: ignore[arg-type]
        terms = apply_repeats(earned, turns, Rules(repeats="unpaid"))
        assert terms == replace(earned, rewards={RECOMMENDER: paid, USER: -0.5})
    for turn in (ASKED, UNREAD):
        assert apply_repeats(earned, [rejected, turn], Rules(repeats="unpaid")) is earned


def test_help_explains_every_array_of_turns() -> None:
    shown = pydoc.render_doc(TurnArrays, renderer=pydoc.plaintext)
    for field in fields(TurnArrays):
        assert re.search(rf"{field.name}: (bool|int64|float64); \w", shown), field.name
