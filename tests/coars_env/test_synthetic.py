import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coars_env.datasets.dataset import Dataset, FloatArray, IntArray
from coars_env.datasets.movielens import GENRE_FLAGS, load_movielens
from coars_env.datasets.synthetic import GENRES, SyntheticWorld, generate, synthetic_world
from coars_env.errors import DatasetError


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return generate()


def last_rows(dataset: Dataset) -> list[int]:
    return [dataset.rows(user).stop - 1 for user in range(dataset.num_users)]


def hit_at_1(dataset: Dataset, score: dict[str, list[FloatArray]]) -> dict[str, float]:
    """Share of users whose last item scores highest among it and 19 items they never saw."""
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(score, 0)
    for user in range(dataset.num_users):
        items = dataset.sequence(user)
        unseen = np.setdiff1d(np.arange(dataset.num_items), items)
        candidates = np.append(rng.choice(unseen, 19, replace=False), items[-1])
        for name, scores in score.items():
            values = scores[user][candidates] + 1e-12 * rng.random(20)
            hits[name] += int(values.argmax() == 19)
    return {name: count / dataset.num_users for name, count in hits.items()}


def neighbour_scores(dataset: Dataset, pick: slice) -> tuple[list[FloatArray], FloatArray]:
    """Cosine of co-occurrence summed over part of each history, and popularity; the last items are left out."""
    seen = np.zeros((dataset.num_users, dataset.num_items), dtype=np.float32)
    histories: list[IntArray] = [dataset.sequence(user)[:-1] for user in range(dataset.num_users)]
    for user, history in enumerate(histories):
        seen[user, history] = 1
    popularity = seen.sum(axis=0)
    cosine = seen.T @ seen / np.sqrt(np.maximum(np.outer(popularity, popularity), 1))
    np.fill_diagonal(cosine, 0)
    return [cosine[history[pick]].sum(axis=0) for history in histories], popularity


def test_baselines_score_about_as_on_ml_100k_and_the_oracle_above_them(world: SyntheticWorld) -> None:
    # On ml-100k: popularity .25, neighbours of the last ten .40 and of the whole history .32, random .05.
    dataset = world.dataset
    recent, popularity = neighbour_scores(dataset, slice(-10, None))
    old, _ = neighbour_scores(dataset, slice(0, 10))
    scores = {
        "oracle": [world.scores(row) for row in last_rows(dataset)],
        "recent": recent,
        "old": old,
        "popularity": [popularity] * dataset.num_users,
        "random": [np.zeros(dataset.num_items)] * dataset.num_users,
        "closeness of index": [
            -np.abs(np.arange(dataset.num_items) - dataset.sequence(u)[-2]) * 1.0 for u in range(943)
        ],
    }
    hits = hit_at_1(dataset, scores)
    assert 0.20 < hits["popularity"] < 0.30
    assert 0.35 < hits["recent"] < 0.45
    assert hits["recent"] > hits["old"] + 0.08
    assert hits["oracle"] > hits["recent"] + 0.15
    assert hits["random"] == pytest.approx(0.05, abs=0.021)  # three standard errors of 943 draws
    assert hits["closeness of index"] == pytest.approx(0.05, abs=0.021)


def test_the_same_measure_gives_the_published_scores_on_ml_100k() -> None:
    root = os.environ.get("COARS_DATA")
    if not root or not Path(root, "movielens", "ml-100k").is_dir():
        pytest.skip("COARS_DATA holds no movielens/ml-100k")
    dataset = load_movielens(data_dir=root, download=False)
    recent, popularity = neighbour_scores(dataset, slice(-10, None))
    whole, _ = neighbour_scores(dataset, slice(None))
    hits = hit_at_1(dataset, {"recent": recent, "whole": whole, "popularity": [popularity] * dataset.num_users})
    assert hits == pytest.approx({"recent": 0.398, "whole": 0.321, "popularity": 0.246}, abs=0.03)


def test_the_default_world_has_the_shape_of_ml_100k(world: SyntheticWorld) -> None:
    dataset = world.dataset
    lengths = np.bincount(dataset.users)
    counts = np.sort(np.bincount(dataset.item_indices))[::-1]
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (943, 1_682, 100_000)
    assert lengths.min() == 20
    assert 55 < np.median(lengths) < 75
    assert 0.07 < counts[:20].sum() / 100_000 < 0.10  # .087 in ml-100k
    shares = np.bincount(dataset.ratings.astype(int), minlength=6) / 100_000
    assert shares == pytest.approx([0, 0.0611, 0.1137, 0.27145, 0.34174, 0.21201], abs=0.001)
    assert dataset.provenance.source == "synthetic"
    assert dataset.origin == "synthetic seed=0 users=943 items=1682 interactions=100000"


def test_titles_are_unique_even_without_their_years_and_genres_are_those_of_movielens(world: SyntheticWorld) -> None:
    films = world.dataset.items
    assert len({film.title.rsplit(" (", 1)[0] for film in films}) == len(films)
    assert all(film.title.endswith(f" ({film.year})") for film in films)
    assert all(1 <= len(film.genres) <= 2 and set(film.genres) <= set(GENRES) for film in films)
    assert set(GENRES) == set(GENRE_FLAGS) - {"unknown"}


def test_stated_probabilities_hold(world: SyntheticWorld) -> None:
    stated, happened = [], []
    for user, row in enumerate(last_rows(world.dataset)):
        probabilities = world.scores(row)
        assert probabilities.sum() == pytest.approx(1)
        probabilities[world.dataset.sequence(user)[:-1]] = 0  # no user sees a film twice
        in_theme = world.item_vectors[:, world.themes[row]] > 0
        stated.append(probabilities[in_theme].sum() / probabilities.sum())
        happened.append(in_theme[world.dataset.item_indices[row]])
    assert np.mean(happened) == pytest.approx(np.mean(stated), abs=0.045)  # three standard errors


def test_genres_tell_of_tastes(world: SyntheticWorld) -> None:
    items, dataset = world.dataset.items, world.dataset
    same = [
        bool(set(items[a].genres) & set(items[b].genres))
        for u in range(dataset.num_users)
        for a, b in [dataset.sequence(u)[-2:]]
    ]
    rng = np.random.default_rng(0)
    pairs = dataset.item_indices[rng.integers(100_000, size=(2_000, 2))]
    by_chance = [bool(set(items[a].genres) & set(items[b].genres)) for a, b in pairs]
    assert np.mean(same) > np.mean(by_chance) + 0.1


def test_equal_arguments_give_an_equal_world_in_another_process_too() -> None:
    sizes = {"users": 30, "items": 80, "interactions": 700}
    digest = synthetic_world(**sizes).digest
    assert synthetic_world(**sizes, seed=1).digest != digest
    code = f"from coars_env.datasets.synthetic import synthetic_world as w; print(w(**{sizes}).digest)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest


@pytest.mark.parametrize(
    ("sizes", "digest"),
    [
        # more draws than are made at a time
        ((9_000, 900, 900_000, 7), "2150958c7fc87fae0cad67b01615e1bbbe9a0d34ed243224b7df6d30038e044e"),
        # half of all pairs: some histories cannot be drawn by taste
        ((30, 31, 465, 2), "2bb190278a941b051833c9fc0048ed462323b0460e2ca46e55116aabfbe22eb4"),
    ],
)
def test_worlds_are_those_of_every_version(sizes: tuple[int, int, int, int], digest: str) -> None:
    users, items, interactions, seed = sizes
    assert synthetic_world(users=users, items=items, interactions=interactions, seed=seed).digest == digest


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(2, 60), st.floats(0, 1), st.integers(0, 5))
def test_any_possible_size_gives_exactly_that_world(users: int, items: int, share: float, seed: int) -> None:
    most = users * items // 2
    interactions = users + int(share * (most - users))
    dataset = synthetic_world(users=users, items=items, interactions=interactions, seed=seed)
    assert (dataset.num_users, dataset.num_items, len(dataset.users)) == (users, items, interactions)
    assert len(set(zip(dataset.users.tolist(), dataset.item_indices.tolist(), strict=True))) == interactions
    assert np.bincount(dataset.users, minlength=users).min() >= 1
    same_user = np.diff(dataset.users) == 0
    assert (np.diff(dataset.timestamps)[same_user] > 0).all()
    assert set(dataset.ratings) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"users": 10, "items": 10, "interactions": 51}, "Expected 10..50 interactions .* found 51"),
        ({"users": 10, "items": 10, "interactions": 9}, "found 9"),
        ({"users": 0, "items": 10, "interactions": 0}, "for 0 users"),
        ({"users": 1, "items": 1, "interactions": 1}, "1 items"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], found: str) -> None:
    with pytest.raises(DatasetError, match=found):
        synthetic_world(**sizes)
