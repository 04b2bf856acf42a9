"""Estimate, Difference: means with bootstrap intervals, and paired permutation tests. Rows are users."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray
from coars_env.errors import ConfigError, ShapeError, expect, number_or_nan, whole_number


@dataclass(frozen=True)
class Estimate:
    """A mean with its percentile interval; NaN throughout if no value is defined."""

    mean: float
    low: float
    high: float
    undefined: int = 0
    """Values that were NaN and are left out."""

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Estimate):
    """Mean of a minus mean of b on the same rows."""

    p_value: float = np.nan
    """Two-sided: how often a difference at least this large arises when a and b swap places in random rows. It speaks
    of other users, not of other training seeds; the interval speaks of both."""


Statistic = Callable[[FloatArray], FloatArray]
"""Components summed over rows, shape [..., C] -> statistics, shape [..., M]."""


def bootstrap_interval(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 2000, rng: np.random.Generator | None = None
) -> Estimate:
    """Mean and percentile interval over rows and seeds.

    Draws are averaged within a row first: their noise is independent between rows, so it is part of the spread of the
    row averages. Then rows and seeds are resampled, independently of each other (the two-way "pigeonhole" bootstrap,
    Owen 2007, doi:10.1214/07-AOAS122), since all rows of a seed share one trained model. N rows are drawn of N, but
    S - 1 seeds of S: the variance of a mean of few seeds would else be understated by (S - 1) / S (Rao and Wu 1988,
    doi:10.1080/01621459.1988.10478591). With one seed the interval speaks of that seed's model only; with two or three
    it remains rough.

    Args:
        values: [N], [D, N] or [S, D, N]; NaN is undefined.
        level: coverage.
        resamples: number of bootstrap samples.
        rng: source of the samples; a fixed one by default.

    Raises:
        ShapeError: these are no numbers, some are infinite, or they have more axes.
        ConfigError: no level, no samples or no generator.
    """
    components = mean_components(values)
    point, low, high = interval([components], means, level=level, resamples=resamples, rng=own_rng(rng))
    return Estimate(float(point[0]), float(low[0]), float(high[0]), int(np.isnan(np.asarray(values, float)).sum()))


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    rng: np.random.Generator | None = None,
) -> Difference:
    """Mean of a minus mean of b with its interval and a sign-flip permutation test over rows.

    Both are [N], [D, N] or [S, D, N] with the same rows and draws in the same order; the numbers of seeds may differ,
    and seeds are resampled for each on its own, because seed 0 of one system has nothing to do with seed 0 of another.
    Rows undefined in either are left out of both. With 2^N <= `permutations` every flip is tried and p is exact.

    Raises:
        ShapeError: different rows or draws, or as `bootstrap_interval`.
        ConfigError: as there; or no permutations.
    """
    x, y = _three_axes(a), _three_axes(b)
    if x.shape[1:] != y.shape[1:]:
        raise ShapeError(
            f"A paired difference needs the same draws and rows. Expected [S, {x.shape[1]}, {x.shape[2]}] twice, found "
            f"{list(y.shape)}. Evaluate both systems on the same episode sets."
        )
    keep = ~(np.isnan(x).all(axis=(0, 1)) | np.isnan(y).all(axis=(0, 1)))
    sides = mean_components(x[:, :, keep]), mean_components(y[:, :, keep])
    return difference(
        *sides,
        means,
        level=level,
        resamples=resamples,
        permutations=permutations,
        rng=rng,
        undefined=int((~keep).sum()),
    )


def holm(p_values: Sequence[float] | FloatArray) -> FloatArray:
    """Adjusted p-values of several tests: rejecting those below a level errs anywhere with at most that probability.

    The i-th smallest of m is multiplied by m - i + 1, then made at least as large as those before it and at most 1
    (S. Holm, Scandinavian Journal of Statistics 1979, 6(2):65-70). The tests may depend on each other. [m] -> [m], same
    order; NaN is no test, stays NaN and does not count.

    Raises:
        ShapeError: it is no list of probabilities.
    """
    try:
        p = np.asarray(p_values, dtype=np.float64)
        wrong = p.ndim != 1 or bool(((p < 0) | (p > 1)).any())
    except (TypeError, ValueError):
        wrong = True
    if wrong:
        raise ShapeError(f"P-values are a list of probabilities. Expected one, found {p_values!r:.200}.")
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN is last
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def difference(
    a: FloatArray,
    b: FloatArray,
    statistic: Statistic,
    *,
    level: float,
    resamples: int,
    permutations: int,
    rng: np.random.Generator | None,
    undefined: int = 0,
) -> Difference:
    """`paired_difference` of any single statistic of components [S, N, C]."""
    permutations = whole_number("A test is made of permutations.", "permutations", permutations, 1)
    rng = own_rng(rng)
    point, low, high = interval([a, b], statistic, level=level, resamples=resamples, rng=rng)
    p_value = _swap_test(a.mean(0), b.mean(0), statistic, permutations, rng)
    return Difference(float(point[0]), float(low[0]), float(high[0]), undefined, p_value)


def own_rng(rng: np.random.Generator | None) -> np.random.Generator:
    """The generator passed, or one of a fixed seed."""
    if rng is None:
        return np.random.default_rng(0)
    expect(np.random.Generator, rng, "Samples are drawn from a generator.", "Pass numpy.random.default_rng(seed).")
    return rng


def _three_axes(values: npt.ArrayLike) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as reason:
        raise ShapeError(f"Values are an array of numbers. Expected one, found {values!r:.200}.") from reason
    if not 1 <= array.ndim <= 3 or np.isinf(array).any():
        raise ShapeError(
            f"Values are finite or NaN and have up to three axes. Expected [N], [D, N] or [S, D, N], found "
            f"{list(array.shape)} with {int(np.isinf(array).sum())} infinite. Reshape them, or leave those out."
        )
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def mean_components(values: npt.ArrayLike) -> FloatArray:
    """[S, N, 2]: average over the defined draws (0 if none), and whether there is any."""
    array = _three_axes(values)
    counted = (~np.isnan(array)).sum(1)  # [S, N]
    average = np.nan_to_num(array).sum(1) / np.maximum(counted, 1)
    return np.stack([average, counted > 0], axis=-1)


def ratio_or_nan(a: FloatArray, b: FloatArray) -> FloatArray:
    """a / b, NaN where b is 0."""
    out: FloatArray = np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)
    return out


def means(sums: FloatArray) -> FloatArray:
    """[..., 2M] pairs of sum and number -> [..., M]."""
    return ratio_or_nan(sums[..., 0::2], sums[..., 1::2])


def interval(
    sides: Sequence[FloatArray], statistic: Statistic, *, level: float, resamples: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Point, low and high, [M] each, of the statistic of one side [S, N, C], or of first minus second."""
    if not 0 < number_or_nan(level) < 1:
        raise ConfigError(f"A level is a probability. Expected 0 < level < 1, found {level!r}. Use 0.95.")
    resamples = whole_number("An interval is made of samples.", "resamples", resamples, 1)
    n = sides[0].shape[1]
    point = _minus([_seed_mean(_statistics(np.ones((1, n)), side, statistic), None) for side in sides])[0]  # [M]
    bounds = np.full((2, len(point)), np.nan)
    if n:
        blocks = [
            _minus([_seed_mean(_statistics(weights, side, statistic), rng) for side in sides])
            for weights in _row_weights(n, resamples, rng)
        ]
        samples = np.concatenate(blocks)  # [resamples, M]
        for m in np.flatnonzero(~np.isnan(samples).all(0)):
            bounds[:, m] = np.nanquantile(samples[:, m], [(1 - level) / 2, (1 + level) / 2])
    return point, bounds[0], bounds[1]


def _minus(sides: list[FloatArray]) -> FloatArray:
    return sides[0] if len(sides) == 1 else sides[0] - sides[1]


def _row_weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """How often each row was drawn, [b, N], in blocks that fit into memory."""
    block = max(1, 2_000_000 // n)
    for first in range(0, resamples, block):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - first)).astype(np.float64)


def _statistics(weights: FloatArray, components: FloatArray, statistic: Statistic) -> FloatArray:
    """[b, N] weights, [S, N, C] -> [b, S, M]."""
    return statistic(np.stack([weights @ seed for seed in components], axis=1))


def _seed_mean(statistics: FloatArray, rng: np.random.Generator | None) -> FloatArray:
    """Mean over the seeds where defined, [b, S, M] -> [b, M]; over S - 1 drawn with replacement if there is a rng."""
    b, s, _ = statistics.shape
    times = np.ones((b, s)) if rng is None or s == 1 else rng.multinomial(s - 1, np.full(s, 1 / s), size=b)
    defined = ~np.isnan(statistics)
    total = np.einsum("bs,bsm->bm", times, np.where(defined, statistics, 0.0))
    return ratio_or_nan(total, np.einsum("bs,bsm->bm", times, defined.astype(np.float64)))


def _swap_test(
    a: FloatArray, b: FloatArray, statistic: Statistic, permutations: int, rng: np.random.Generator
) -> float:
    """Two-sided p-value of statistic(sum a) - statistic(sum b), [N, C] each, under swaps of a and b in single rows."""
    n, gap = len(a), b - a
    exact = n < 60 and 2**n <= permutations
    observed = abs(float((statistic(a.sum(0)) - statistic(b.sum(0)))[0]))
    if not n or np.isnan(observed):
        return np.nan
    every = np.array(list(product((0.0, 1.0), repeat=n))) if exact else None
    total, extreme, block = 2**n if exact else permutations, 0, max(1, 2_000_000 // n)
    for first in range(0, total, block):
        size = min(block, total - first)
        swapped = rng.integers(2, size=(size, n)).astype(float) if every is None else every[first : first + size]
        moved = swapped @ gap  # [size, C]
        found = (statistic(a.sum(0) + moved) - statistic(b.sum(0) - moved))[:, 0]
        extreme += int((np.abs(found) >= observed - 1e-12).sum())  # equal sums may differ in the last bit
    return extreme / total if exact else (extreme + 1) / (total + 1)
