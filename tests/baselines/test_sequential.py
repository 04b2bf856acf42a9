"""SASRec, GRU4Rec and Caser as agents: what they do in a dialogue, and their rows on real data."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import load_system
from coars_env import (
    CheckpointError,
    FixedUser,
    Split,
    builder,
    evaluate,
    freeze,
    load_split,
    metric_values,
)

SYSTEMS = ("sasrec", "gru4rec", "caser")


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=200, interactions=1200)


@pytest.fixture(scope="module", params=SYSTEMS)
def fitted(request: pytest.FixtureRequest, split: Split) -> Any:
    return load_system(request.param).fit(split, seed=0)


def test_first_the_best_candidate_is_proposed_then_the_next(fitted: Any, split: Split) -> None:
    episodes = freeze(builder(split), "test")
    for transcript in evaluate(fitted.recommender, FixedUser("dislike", 0.0), [episodes])[0][0]:
        task = transcript.task
        scores = dict(zip(task.candidates, fitted.scores([task.history])[0, task.candidates], strict=True))
        best = sorted(task.candidates, key=lambda item: -scores[item])
        assert [turn.proposal for turn in transcript.turns] == best[: len(transcript.turns)]
        assert not any(character.isdigit() for turn in transcript.turns for character in turn.rationale)


def test_a_saved_one_plays_the_same(fitted: Any, split: Split, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model", split)
    episodes = [freeze(builder(split), "test", draw=draw) for draw in range(2)]
    assert evaluate(loaded.recommender, FixedUser(), episodes) == evaluate(fitted.recommender, FixedUser(), episodes)
    assert loaded.num_parameters == fitted.num_parameters > split.dataset.num_items * 2 * 64


def test_one_does_not_load_what_another_saved(fitted: Any, split: Split, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    for name in SYSTEMS:
        other = load_system(name)
        if other is not type(fitted):
            with pytest.raises(CheckpointError, match=f"Expected system {name}, found {fitted.model.card.system}"):
                other.load(tmp_path / "model", split)


# AFL's published figures of MovieLens, arXiv:2410.20027, Table 4. Those of LastFM are of sequences sorted by artist id,
# which a model may learn there and cannot here.
PUBLISHED = {"sasrec": 0.4105, "gru4rec": 0.4526, "caser": 0.3789}


@pytest.mark.slow
@pytest.mark.skipif("COARS_DATA" not in os.environ, reason="COARS_DATA names no folder with real files")
@pytest.mark.parametrize("name", SYSTEMS)
def test_hit_rates_agree_with_the_published_ones(name: str) -> None:
    split = load_split("movielens", "llara", source="real", download=False)
    build = builder(split, "llara")
    sets = [freeze(build, "test", draw=draw) for draw in range(5)]
    by_row = metric_values(evaluate(load_system(name).fit(split).recommender, FixedUser(), sets))["hit_final"].mean(
        (0, 1)
    )
    standard_error = by_row.std(ddof=1) / np.sqrt(len(by_row))
    assert by_row.mean() == pytest.approx(PUBLISHED[name], abs=2 * standard_error)
