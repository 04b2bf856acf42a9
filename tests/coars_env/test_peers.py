import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    ConfigError,
    Opinion,
    ShapeError,
    Split,
    SvdPeers,
    TaskError,
    UserSequence,
    VectorPeers,
    leave_last,
    load,
)
from coars_env.tasks import read_opinions
from coars_env.testing import toy_dataset

TOY_SPLIT = leave_last(toy_dataset())  # 0: 0 4 5 | 1: 1 4 0 | 2: 2 5 1 3 | 3: 4 1 2


def opinions(peers: VectorPeers, user: int, history: Sequence[int], item: int) -> list[Opinion]:
    return list(read_opinions(peers(user, history, [item]).opinions))


def test_peer_similarity_is_the_mean_cosine_of_the_owners() -> None:
    # Training rows 0 4 | 1 4 | 2 5 1 | 4 1, of rank 3: projecting on all singular vectors keeps every angle, so user
    # vectors are the unit rows a, b, c, b. For user 0 the others' mean is m = (2 b + c) / 3. Then b - m = (b - c) / 3
    # and c - m = -2 (b - c) / 3: owners b have cosine x with a - m, owner c has -x, where with r = b.c = 1 / sqrt 6
    # x = ((a - m) . (b - c)) / (|a - m| |b - c|), a.b = 1/2, a.c = 0.
    r = 1 / math.sqrt(6)
    m_b, m_c, m_m = (2 + r) / 3, (2 * r + 1) / 3, (5 + 4 * r) / 9
    x = (1 / 2 - m_b - (0 - m_c)) / math.sqrt((1 - 2 * (1 / 3) + m_m) * (2 - 2 * r))
    assert x == pytest.approx(0.2690, abs=5e-5)
    peers = SvdPeers(TOY_SPLIT, k=10)
    # owners in training, user 0 excluded: 0: nobody; 1: b c b; 2: c; 3: nobody; 4: b b; 5: c
    expected = [0, x / 3, -x, 0, x, -x]
    assert peers(0, (0, 4), range(6)).similarity == pytest.approx(expected, abs=1e-4)
    two = SvdPeers(TOY_SPLIT, k=2)(0, (0, 4), [1]).similarity
    assert two == pytest.approx([x], abs=1e-4)  # the two best of x, -x, x


def test_the_nearest_owners_say_how_alike_they_are_and_what_they_took_before() -> None:
    # Of user 0, as above: owners of 1 are users 1 (1 4), 2 (2 5 1) and 3 (4 1) with cosines .269, -.269, .269.
    peers = SvdPeers(TOY_SPLIT)
    assert opinions(peers, 0, (0, 4), 1) == [(1, ()), (1, (4,)), (0, (2, 5))]  # of equals the first in the split
    assert opinions(peers, 0, (0, 4), 5) == [(0, (2,))]
    assert opinions(peers, 0, (0, 4), 3) == []
    likelier = SvdPeers(TOY_SPLIT, level_edges=(-0.5, 0.2))
    assert opinions(likelier, 0, (0, 4), 1) == [(2, ()), (2, (4,)), (1, (2, 5))]


COMPASS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def test_peers_may_come_from_any_user_vectors() -> None:
    # Four users 0 5 | 1 5 | 2 5 | 3 5 that look where their first item points, east west north south. The mean of the
    # others is (-1/3, 0) for user 0, who looks east: west is (-2/3, 0) from there, north and south (1/3, 1), (1/3, -1).
    train = tuple(UserSequence(n, (n, 5)) for n in range(4))
    seen: list[list[Sequence[int]]] = []

    def embed(histories: Sequence[Sequence[int]]) -> Any:
        seen.append([tuple(history) for history in histories])
        return 5 * COMPASS[[history[0] for history in histories]]  # lengths are of no account

    peers = VectorPeers(replace(TOY_SPLIT, train=train, test=()), embed)
    said = peers(0, (0,), [5, 1, 0])
    assert said.similarity == pytest.approx([(2 / math.sqrt(10) - 1) / 3, -1.0, 0.0], abs=1e-4)
    assert read_opinions(said.opinions[:9]) == ((1, (2,)), (1, (3,)), (0, (1,)))
    assert said.opinions[9:] == (0, *[-1] * 17)
    assert seen == [[(0, 5), (1, 5), (2, 5), (3, 5)], [(0,)]]  # training users in full, the one who asks as visible


def test_the_vectors_of_the_training_matrix_are_a_case_of_any(small_split: Split) -> None:
    svd = SvdPeers(small_split)
    summed = VectorPeers(small_split, lambda rows: np.array([svd.directions[list(row)].sum(0) for row in rows]))
    asked = [(s.user, s.items[-11:-1], range(150)) for s in small_split.test[::7]]
    assert summed.batch(asked) == svd.batch(asked)


@pytest.mark.parametrize("vectors", [np.zeros(4), np.zeros((3, 2)), np.full((4, 2), np.nan)])
def test_vectors_that_do_not_fit_are_refused(vectors: Any) -> None:
    with pytest.raises(ShapeError, match=r"Each history needs a vector\. Expected 4 rows of finite numbers, found an"):
        VectorPeers(TOY_SPLIT, lambda histories: vectors)


@pytest.mark.parametrize("edges", [(0.4, 0.2), (-2.0, 0.0), (0.0, float("nan"))])
def test_levels_are_intervals(edges: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"Expected two edges that ascend within \[-1, 1\], found"):
        SvdPeers(TOY_SPLIT, level_edges=edges)


def test_nobody_who_owns_it_means_zero() -> None:
    said = SvdPeers(TOY_SPLIT)(2, (2, 5), [2, 3, 5])
    assert (said.similarity, set(said.opinions)) == ((0.0, 0.0, 0.0), {-1})  # 2 and 5 are owned by user 2 alone


def test_a_user_without_history_still_has_peers() -> None:
    assert all(-1 <= q <= 1 for q in SvdPeers(TOY_SPLIT)(0, (), range(6)).similarity)


@given(
    st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=6, unique=True), min_size=1, max_size=6),
    st.lists(st.integers(0, 8), max_size=10, unique=True),
    st.integers(1, 4),
)
def test_peer_similarity_lies_in_its_bounds(
    dataset_of: Any, sequences: list[list[int]], history: list[int], rank: int
) -> None:
    split = leave_last(dataset_of(*map(tuple, sequences), titles=tuple(f"film {n}" for n in range(9))))
    assert all(-1 <= q <= 1 for q in SvdPeers(split, rank=rank, k=2)(0, history, range(9)).similarity)


def test_many_similarities_at_once_may_be_of_lists_of_any_length() -> None:
    peers = SvdPeers(TOY_SPLIT)
    asked = [(0, (0, 4), range(6)), (2, (2, 5), []), (1, (), [1, 4]), (9, (1,), [1])]  # 9 has no training sequence
    assert peers.batch(asked) == [peers(*one) for one in asked]
    assert [len(said.similarity) for said in peers.batch(asked)] == [6, 0, 2, 1]
    assert [len(said.opinions) for said in peers.batch(asked)] == [54, 0, 18, 9]


@pytest.fixture(scope="module")
def small_split() -> Split:
    return leave_last(load("synthetic", users=80, items=150, interactions=2400))


def test_neither_similarity_nor_opinions_hang_on_the_own_row_of_the_user(small_split: Split) -> None:
    peers = SvdPeers(small_split, rank=8)
    for row in range(0, 80, 7):
        others = small_split.train[:row] + small_split.train[row + 1 :]
        without = SvdPeers(replace(small_split, train=others), directions=peers.directions)
        sequence = small_split.test[row]
        history, items = sequence.items[-11:-1], range(150)
        assert peers(sequence.user, history, items) == without(sequence.user, history, items)


def test_neither_similarity_nor_opinions_hang_on_what_is_held_out(small_split: Split) -> None:
    dataset = small_split.dataset
    ends = np.array([dataset.rows(user).stop - 1 for user in range(dataset.num_users)])
    kept = np.delete(np.arange(len(dataset.users)), ends)
    columns = {name: getattr(dataset, name)[kept] for name in ("users", "item_indices", "ratings", "timestamps")}
    rest = replace(dataset, **columns, source_rows=None)
    blind = replace(
        small_split,
        dataset=rest,
        train=tuple(UserSequence(u, tuple(rest.sequence(u).tolist())) for u in range(80)),
        test=(),
        owned={},
    )
    seeing, blinded = SvdPeers(small_split), SvdPeers(blind)
    for sequence in small_split.test[::9]:
        history = sequence.items[-11:-1]
        assert seeing(sequence.user, history, range(150)) == blinded(sequence.user, history, range(150))


def test_the_singular_vectors_are_those_of_the_training_matrix(small_split: Split) -> None:
    matrix = np.zeros((80, 150))
    for row, sequence in enumerate(small_split.train):
        matrix[row, list(sequence.items)] = 1
    exact = np.linalg.svd(matrix)[2][:3]
    found = SvdPeers(small_split, rank=32).directions.T[:3]
    assert np.abs(np.sum(exact * found, axis=1)) == pytest.approx([1, 1, 1], abs=1e-6)


def test_peers_of_nobody_are_refused() -> None:
    with pytest.raises(TaskError, match=r"Peers are training users\. Expected one or more in 'leave_last'"):
        SvdPeers(replace(TOY_SPLIT, train=()))
