"""Scorers: how well items go with a history. What the scripted partners know of taste is one of these."""

from functools import partial

import numpy as np

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ShapeError, expect, whole_number
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


def kernel_scorer(split: Split, *, window: int = 10) -> Scorer:
    """How often an item came soon after those of the history, summed over the last `window` of them.

    Of items a and b the kernel counts how often b came at most `window` places after a in a training sequence, divided
    by sqrt((n_a + 1)(n_b + 1)) with n the training interactions. Rounded to 6 decimals so that machines agree; 0
    without a history.

    Raises:
        ConfigError: it is no split, or the window is no whole number above 0.
    """
    window = whole_number("Items are counted that came soon after others.", "window", window, 1)
    counts = item_counts(split) + 1
    pairs = [np.zeros(0, np.int64)]
    for sequence in split.train:
        taken = np.array(sequence.items, np.int64)
        pairs += [taken[:-d] * len(counts) + taken[d:] for d in range(1, min(window, len(taken) - 1) + 1)]
    keys, times = np.unique(np.concatenate(pairs), return_counts=True)
    weights = times / np.sqrt(counts[keys // len(counts)] * counts[keys % len(counts)])
    return partial(_kernel, keys, weights, len(counts), window)


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


def _kernel(
    keys: IntArray, weights: FloatArray, num_items: int, window: int, history: IntArray, items: IntArray
) -> FloatArray:
    if not len(keys):
        return np.zeros(len(items))
    wanted = np.asarray(history)[-window:, None] * num_items + items[None, :]
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.asarray(np.round(np.where(keys[places] == wanted, weights[places], 0.0).sum(0), 6))


def _svd(directions: FloatArray, history: IntArray, items: IntArray) -> FloatArray:
    taste = directions[history].sum(0)
    return np.asarray(np.round(directions[items] @ taste / max(float(np.linalg.norm(taste)), 1e-12), 4))
