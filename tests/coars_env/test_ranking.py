"""Full-item ranking on a catalogue of six items, against enumeration."""

from collections.abc import Sequence
from itertools import combinations, permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    ConfigError,
    Ranks,
    ShapeError,
    bootstrap_interval,
    expected_hit,
    full_ranking,
    leave_last,
    load_split,
    paired_difference,
    ranking_metrics,
    target_ranks,
)
from coars_env.testing import toy_dataset


def ranks(better: int, tied: int, others: int) -> Ranks:
    return Ranks(np.array([better]), np.array([tied]), np.array([others]))


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_ranks_count_what_is_better_and_what_is_tied() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5, 0.7, 0.5], [3.0, 2.0, 1.0, 0.0, -1.0, -np.inf]])
    found = target_ranks(scores, [2, 0])
    assert found.better.tolist() == [2, 0]  # items 1 and 4; nothing
    assert found.tied.tolist() == [2, 0]  # items 3 and 5
    assert found.others.tolist() == [5, 5]


def test_what_is_left_out_is_not_ranked_but_the_target_always_is() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5, 0.7, 0.5]])
    found = target_ranks(scores, [2], [{1, 3, 0, 2}])  # left: items 4, 5 and the target
    assert (found.better[0], found.tied[0], found.others[0]) == (1, 1, 2)


def test_hit_rate_and_ndcg_by_hand() -> None:
    third = ranks(2, 0, 9)
    assert [third.hit_rate(k)[0] for k in (2, 3, 5)] == [0, 1, 1]
    np.testing.assert_allclose([third.ndcg(k)[0] for k in (2, 3, 5)], [0, 1 / 2, 1 / 2])  # 1 / log2(1 + 3)
    third_or_fourth = ranks(2, 1, 9)
    assert [third_or_fourth.hit_rate(k)[0] for k in (2, 3, 4)] == [0, 1 / 2, 1]
    np.testing.assert_allclose(third_or_fourth.ndcg(10), [(1 / 2 + 1 / log2(5)) / 2])


def test_a_constant_score_is_at_chance() -> None:
    found = target_ranks(np.zeros((1, 40)), [7])
    assert found.hit_rate(10)[0] == pytest.approx(10 / 40)
    assert expected_hit(found)[0] == pytest.approx(1 / 20)


def test_the_expectation_over_ties_is_the_mean_over_all_orders_of_the_tied() -> None:
    scores = np.array([3, 1, 2, 1, 1])  # the target is item 3
    places = []
    for order in permutations(range(5)):
        ranked = sorted(range(5), key=lambda item: (-scores[item], order.index(item)))
        places.append(ranked.index(3) + 1)
    found = target_ranks(scores[None], [3])
    for k in (1, 3, 4, 5):
        assert found.hit_rate(k)[0] == pytest.approx(np.mean([place <= k for place in places]))
        gains = [1 / log2(1 + place) if place <= k else 0 for place in places]
        assert found.ndcg(k)[0] == pytest.approx(np.mean(gains))


def test_without_a_target_every_figure_is_undefined() -> None:
    found = target_ranks(np.zeros((2, 30)), [-1, 4])
    values = [*ranking_metrics(found).values(), expected_hit(found)]
    assert len(values) == 7
    assert all(np.isnan(value[0]) and not np.isnan(value[1]) for value in values)
    assert bootstrap_interval(found.hit_rate(10)).undefined == 1


@pytest.mark.parametrize(
    ("scores", "targets", "left_out"),
    [
        (np.zeros((2, 3)), [0], None),
        (np.zeros(3), [0, 0, 0], None),
        (np.zeros((2, 3)), [0, 1], [{0}]),
        (np.zeros((1, 3)), [3], None),
        (np.array([[0, np.nan]]), [0], None),
        (np.zeros((1, 3)), [0.5], None),
        (np.array([["a", "b"]]), [0], None),
        (np.zeros((1, 3)), [0], [{7}]),
        (np.zeros((1, 3)), [0], [{-1}]),
    ],
)
def test_what_does_not_fit_together_is_refused(
    scores: np.ndarray, targets: list[int], left_out: list[set[int]] | None
) -> None:
    with pytest.raises(ShapeError, match=r"Expected .* found"):
        target_ranks(scores, targets, left_out)


def test_a_ranking_has_a_first_place() -> None:
    for k in (0, -1, 2.5, "5"):
        for figure in (ranks(0, 0, 5).hit_rate, ranks(0, 0, 5).ndcg):
            with pytest.raises(ConfigError, match="Expected k >= 1"):
                figure(k)  # type: ignore[arg-type]


# --- the expected Hit@1 over lists ------------------------------------------------------------------------------------


def by_enumeration(scores: Sequence[float], target: int, num_candidates: int) -> float:
    """Every list of the target and `num_candidates` - 1 others; a tie for the best is won with equal probability."""
    others = [item for item in range(len(scores)) if item != target]
    hits = []
    for drawn in combinations(others, num_candidates - 1):
        shown = [scores[item] for item in (target, *drawn)]
        hits.append((scores[target] == max(shown)) / shown.count(max(shown)))
    return float(np.mean(hits))


def test_the_expected_hit_is_that_of_all_lists() -> None:
    # Six items, lists of three, the target second: 6 of the 10 pairs of others leave the better one out.
    scores = [5, 4, 3, 2, 1, 0]
    assert by_enumeration(scores, 1, 3) == 6 / 10
    found = target_ranks(np.array([scores]), [1])
    assert expected_hit(found, num_candidates=3)[0] == pytest.approx(6 / 10)


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=8),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_the_expected_hit_equals_enumeration_also_with_ties(
    scores: list[int], num_candidates: int, target: int
) -> None:
    found = expected_hit(target_ranks(np.array([scores]), [target]), num_candidates=num_candidates)[0]
    assert found == pytest.approx(by_enumeration(scores, target, min(num_candidates, len(scores))))


def test_the_expected_hit_of_a_large_catalogue_is_that_of_drawn_lists() -> None:
    # 150 of 3,000 are better: none of 19 is in the list with probability .95 ** 19 = .377, a little less without
    # replacement. The product is taken factor by factor, since C(3000, 19) has 49 digits.
    exact = np.prod([(3000 - 150 - j) / (3000 - j) for j in range(19)])
    assert 0.374 < exact < 0.377
    assert expected_hit(ranks(150, 0, 3000))[0] == pytest.approx(exact, rel=1e-10)
    assert expected_hit(ranks(0, 0, 3000))[0] == pytest.approx(1)
    assert expected_hit(ranks(2982, 0, 3000))[0] == 0  # 18 worse ones fill no list


def test_a_list_has_two_candidates_or_more() -> None:
    with pytest.raises(ConfigError, match="num_candidates >= 2, found 1"):
        expected_hit(ranks(0, 0, 5), num_candidates=1)


# --- a model on a split -----------------------------------------------------------------------------------------------


class Descending:
    """Likes item 0 best, then 1, and so on; notes what it was asked."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.asked: list[list[tuple[int, ...]]] = []

    def scores(self, histories: Sequence[Sequence[int]]) -> np.ndarray:
        self.asked.append([tuple(history) for history in histories])
        return np.tile(-np.arange(self.num_items, dtype=np.float32), (len(histories), 1))


def test_a_ranker_is_asked_about_visible_histories_and_ranked_among_what_is_not_owned() -> None:
    # Users' items: 0 4 5, 1 4 0, 2 5 1 3, 4 1 2; the last is held out.
    ranker = Descending(6)
    found = full_ranking(ranker, leave_last(toy_dataset()), batch_size=3)
    assert ranker.asked == [[(0, 4), (1, 4), (2, 5, 1)], [(4, 1)]]
    # better than 5: 1 2 3; than 0: nothing; than 3: 0; than 2: 0.
    assert found.better.tolist() == [3, 0, 1, 1]
    assert found.others.tolist() == [3, 3, 2, 3]
    assert ranking_metrics(found)["HR@5"].tolist() == [1, 1, 1, 1]


def test_the_size_of_the_batches_does_not_matter_and_long_histories_are_cut() -> None:
    split = load_split("synthetic", users=40, items=60, interactions=1200)
    one, many = (full_ranking(Descending(60), split, batch_size=size) for size in (1, 64))
    np.testing.assert_equal(one.better, many.better)
    ranker = Descending(60)
    full_ranking(ranker, split)
    assert {len(history) for history in ranker.asked[0]} == {10}


def test_figures_by_user_go_into_intervals_and_paired_tests() -> None:
    split = load_split("synthetic", users=40, items=60, interactions=1200)
    values = full_ranking(Descending(60), split).ndcg(10)
    estimate = bootstrap_interval(values)
    assert estimate.low < estimate.mean < estimate.high
    assert paired_difference(values, values).p_value == 1


def test_a_ranker_that_leaves_items_out_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"Expected \[4, 6\], found \[4, 5\]"):
        full_ranking(Descending(5), leave_last(toy_dataset()))


def test_what_is_ranked_was_held_out_and_by_a_ranker() -> None:
    split = leave_last(toy_dataset())
    with pytest.raises(ConfigError, match="Expected 'validation' or 'test', found 'train'"):
        full_ranking(Descending(6), split, "train")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"A ranker has a method `scores`\. .* found the class Descending"):
        full_ranking(Descending, split)  # type: ignore[arg-type]


def test_a_part_without_rows_has_no_ranks() -> None:
    assert len(full_ranking(Descending(6), leave_last(toy_dataset()), "validation").better) == 0
