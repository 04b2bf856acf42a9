"""ReliabilityBin: whether a user's acceptance strengths are the shares of items truly taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env.datasets.dataset import FloatArray
from coars_env.evaluation.intervals import ratio_or_nan

BINS = 10
"""Bins of equal width over [0, 1]; ours."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose strength lies in [low, high), the last bin including 1."""

    low: float
    high: float
    answers: float
    """Answers in the bin, summed over users, averaged over draws and seeds."""
    strength: float
    """Their mean strength; NaN if there are none."""
    taken: float
    """Share of them whose item the user truly took; equal to the strength for a calibrated user. NaN likewise."""


def calibration_counts(positives: Sequence[float], negatives: Sequence[float]) -> list[float]:
    """What Brier score, ECE and bins are made of: 2 + 3 `BINS` sums over the strengths in [0, 1]; NaN is left out.

    Sum of (strength - taken)^2, number; then number, sum of strengths and number taken of each bin.
    """
    strengths = np.array([*positives, *negatives], dtype=np.float64)
    taken = np.arange(len(strengths)) < len(positives)
    defined = ~np.isnan(strengths)
    strengths, taken = strengths[defined], taken[defined]
    place = np.minimum((strengths * BINS + 1e-9).astype(np.int64), BINS - 1)
    sums = np.stack([np.bincount(place, weights, BINS) for weights in (np.ones(len(place)), strengths, taken)], axis=1)
    return [float(((strengths - taken) ** 2).sum()), float(len(strengths)), *sums.ravel().tolist()]


def calibration_statistics(sums: FloatArray) -> FloatArray:
    """[..., 2 + 3 BINS] sums of `calibration_counts` -> [..., 2]: Brier score and expected calibration error."""
    number = sums[..., 1]
    bins = sums[..., 2:].reshape(*sums.shape[:-1], BINS, 3)
    gap = np.abs(bins[..., 1] - bins[..., 2]).sum(-1)
    return np.stack([ratio_or_nan(sums[..., 0], number), ratio_or_nan(gap, number)], axis=-1)


def reliability(sums: FloatArray) -> tuple[ReliabilityBin, ...]:
    """The bins of `calibration_counts`, shape [2 + 3 BINS]."""
    bins = sums[2:].reshape(BINS, 3)
    means = ratio_or_nan(bins[:, 1:], bins[:, :1])
    return tuple(
        ReliabilityBin(n / BINS, (n + 1) / BINS, float(bins[n, 0]), float(means[n, 0]), float(means[n, 1]))
        for n in range(BINS)
    )
