"""Scorers: how well items go with a history. What the scripted partners know of taste is one of these."""

from functools import partial

import numpy as np

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ShapeError, expect
from coars_env.tasks import Scorer, Split


def item_counts(split: Split) -> FloatArray:
    """Training interactions of each item, shape [I].

    Raises:
        ConfigError: it is no split.
    """
    expect(Split, split, "Only what may be trained on is counted.", "Pass a split, such as leave_last(dataset).")
    counts = np.zeros(split.dataset.num_items)
    for sequence in split.train:
        np.add.at(counts, list(sequence.items), 1.0)
    return counts


def popularity_scorer(split: Split) -> Scorer:
    """An item's training interactions, whatever the history."""
    return partial(_popularity, item_counts(split))


def svd_scorer(directions: FloatArray) -> Scorer:
    """Inner product of an item's direction and the sum of the history's, in units of that sum's length.

    The projection of a new 0/1 row on the leading singular vectors ("PureSVD" of P. Cremonesi, Y. Koren and R. Turrin,
    RecSys 2010, doi:10.1145/1864708.1864721). Rounded to 4 decimals so that machines agree; 0 without a history.

    Args:
        directions: [I, rank] right singular vectors of the training matrix, such as `SvdPeers(split).directions`.

    Raises:
        ShapeError: it is no matrix of them.
    """
    if np.ndim(directions) != 2:
        raise ShapeError(
            f"Each item has a direction. Expected an array [items, rank], found {directions!r:.200}. Pass "
            "SvdPeers(split).directions."
        )
    return partial(_svd, directions)


def _popularity(counts: FloatArray, history: IntArray, items: IntArray) -> FloatArray:
    return np.asarray(counts[items])


def _svd(directions: FloatArray, history: IntArray, items: IntArray) -> FloatArray:
    taste = directions[history].sum(0)
    return np.asarray(np.round(directions[items] @ taste / max(float(np.linalg.norm(taste)), 1e-12), 4))
