"""SimulationReport: the metrics of AFL's test of a user agent, with intervals and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env.datasets.dataset import FloatArray, Provenance
from coars_env.errors import ConfigError, ShapeError
from coars_env.evaluation.calibration import calibration_statistics
from coars_env.evaluation.intervals import Difference, Estimate, difference, interval, own_rng, ratio_or_nan
from coars_env.evaluation.reports import markdown_table
from coars_env.evaluation.simulation import COUNT_COLUMNS, Simulation
from coars_env.evaluation.user_test import UserTest

SIMULATION_METRICS = {
    "precision": "P = TP / (TP + FP), pooled over users; NaN if nothing was accepted",
    "recall": "R = TP / (TP + FN), pooled",
    "f1": "2 P R / (P + R) = 2 TP / (2 TP + FP + FN), pooled; 0 if nothing was accepted",
    "precision_per_user": "mean over the users who accepted something of their own P",
    "recall_per_user": "mean over users of their own R",
    "f1_per_user": "2 P R / (P + R) of these two means, as AFL; 0 if both are 0",
    "accuracy": "(TP + TN) / all",
    "auc": "mean over users of the chance that a positive gets a higher strength than a negative, ties one half",
    "acceptance": "share of all questions answered by star or click",
    "unusable": "share of all questions without a usable answer",
    "false_accept": "FP / (FP + TN), pooled: share of the items never taken that were accepted",
    "false_reject": "FN / (TP + FN) = 1 - R, pooled: share of the items taken that were not accepted",
    "brier": "mean of (strength - taken)^2 over the usable answers; .25 for a constant strength of one half",
    "ece": "expected calibration error: the gap between mean strength and share taken, averaged over the answers of "
    "ten bins of equal width. Needs answers in every bin to mean something, and rises with the noise of few",
}
"""Each metric of the user-simulation test, all in [0, 1]. Yes is a star or click."""


def _simulation_statistics(sums: FloatArray) -> FloatArray:
    """[..., C], see `Simulation.counts`, -> [..., M] in the order of `SIMULATION_METRICS`."""
    tp, fp, fn, tn, yes, unusable = (sums[..., k] for k in range(6))
    p, r, auc = (ratio_or_nan(sums[..., k], sums[..., k + 1]) for k in (6, 8, 10))
    total, p_or_0 = tp + fp + fn + tn, np.nan_to_num(p)
    f1_per_user = np.nan_to_num(ratio_or_nan(2 * p_or_0 * r, p_or_0 + r))
    f1 = ratio_or_nan(2 * tp, 2 * tp + fp + fn)
    pooled = [ratio_or_nan(tp, tp + fp), ratio_or_nan(tp, tp + fn), f1]
    shares = [ratio_or_nan(yes, total), ratio_or_nan(unusable, total)]
    wrong = [ratio_or_nan(fp, fp + tn), ratio_or_nan(fn, tp + fn)]
    calibration = np.moveaxis(calibration_statistics(sums[..., COUNT_COLUMNS:]), -1, 0)
    columns = [*pooled, p, r, f1_per_user, ratio_or_nan(tp + tn, total), auc, *shares, *wrong, *calibration]
    return np.stack(columns, axis=-1)


SimulationRuns = Sequence[Sequence[Simulation]]
"""runs[s][d]: the answers of the agent of seed s to draw d of the test."""


@dataclass(frozen=True)
class SimulationReport:
    """What one user agent answered. Example: `report.estimates["1:3"]["f1"].mean`."""

    system: str
    provenance: Provenance
    test: str
    """Name of the test, draw 0."""
    sha256: str
    """Digest of its questions."""
    seeds: int
    draws: int
    users: int
    skipped: int
    """Users with too few interactions to be asked."""
    estimates: dict[str, dict[str, Estimate]]
    """Ratio -> name in `SIMULATION_METRICS` -> mean and interval."""

    def to_markdown(self) -> str:
        """One row per metric, one column per ratio, under a line that says what was measured."""
        head = (
            f"**{self.system}**: {self.users} users ({self.skipped} skipped), {self.draws} draws, {self.seeds} seeds, "
            f"{self.test} ({self.sha256[:12]}); {self.provenance.source} data {self.provenance.origin} "
            f"({self.provenance.sha256[:12]})."
        )
        rows = [(name, *(str(column[name]) for column in self.estimates.values())) for name in SIMULATION_METRICS]
        return f"{head}\n\n{markdown_table(('metric', *self.estimates), rows)}\n"


def simulation_report(
    system: str,
    runs: SimulationRuns,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> SimulationReport:
    """Means over seeds with intervals: users and seeds are resampled, see `bootstrap_interval`.

    Raises:
        ShapeError: the runs do not answer the same tests, or there are none.
    """
    test = tests_of(runs)[0]
    estimates = {
        ratio: simulation_estimates(simulation_counts(runs, ratio), level=level, resamples=resamples, rng=rng)
        for ratio in test.ratios
    }
    return SimulationReport(
        system=system,
        provenance=test.provenance,
        test=test.name,
        sha256=test.sha256,
        seeds=len(runs),
        draws=len(runs[0]),
        users=len(test.users),
        skipped=test.skipped,
        estimates=estimates,
    )


def simulation_estimates(
    counts: FloatArray,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """Each of `SIMULATION_METRICS` with its interval, from the counts at one ratio that `simulation_counts` makes,
    [S, U, C].
    """
    bounds = interval([counts], _simulation_statistics, level=level, resamples=resamples, rng=own_rng(rng))
    columns = zip(SIMULATION_METRICS, *(bound.tolist() for bound in bounds), strict=True)
    return {name: Estimate(*rest) for name, *rest in columns}


def simulation_difference(
    a: SimulationRuns,
    b: SimulationRuns,
    ratio: str,
    metric: str = "f1",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    rng: np.random.Generator | None = None,
) -> Difference:
    """a minus b in one metric on the same test, see `paired_difference`; a and b swap places in random users.

    Raises:
        ShapeError: the two did not answer the same questions.
        ConfigError: there is no such ratio or metric.
    """
    tests, others = tests_of(a), tests_of(b)
    if [test.sha256 for test in tests] != [test.sha256 for test in others]:
        raise ShapeError(
            f"A paired difference needs the same questions. Expected {[test.name for test in tests]} with equal "
            f"digests, found {[test.name for test in others]}. Put one test to both agents."
        )
    return counted_difference(
        simulation_counts(a, ratio),
        simulation_counts(b, ratio),
        metric,
        level=level,
        resamples=resamples,
        permutations=permutations,
        rng=rng,
    )


def counted_difference(
    a: FloatArray,
    b: FloatArray,
    metric: str = "f1",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    rng: np.random.Generator | None = None,
) -> Difference:
    """`simulation_difference` of counts that were kept, of one test at one ratio. [S, U, C] each.

    Raises:
        ConfigError: there is no such metric.
    """
    if metric not in SIMULATION_METRICS:
        raise ConfigError(f"Expected one of the metrics {list(SIMULATION_METRICS)}, found {metric!r}. Name one.")
    column = list(SIMULATION_METRICS).index(metric)

    def statistic(sums: FloatArray) -> FloatArray:
        return _simulation_statistics(sums)[..., [column]]

    return difference(a, b, statistic, level=level, resamples=resamples, permutations=permutations, rng=rng)


def simulation_counts(runs: SimulationRuns, ratio: str) -> FloatArray:
    """`Simulation.counts` averaged over draws, [S, U, C]."""
    tests_of(runs)
    counts = np.array([[simulation.counts(ratio) for simulation in seed] for seed in runs], dtype=np.float64)
    return np.asarray(counts.mean(1))


def tests_of(runs: SimulationRuns) -> list[UserTest]:
    """The test of each draw, the same for all seeds.

    Raises:
        ShapeError: they differ, there are none, or the runs are nested otherwise.
    """
    try:
        names = {tuple(simulation.test.sha256 for simulation in seed) for seed in runs}
        users = {tuple(user.user for user in simulation.test.users) for seed in runs for simulation in seed}
    except (AttributeError, TypeError) as reason:
        raise ShapeError(
            f"Runs are lists of lists. Expected the answers to each draw of the test as runs[seed][draw], found "
            f"{runs!r:.200}. Pass [[simulation]] for one."
        ) from reason
    if len(names) != 1 or len(users) != 1:
        raise ShapeError(
            "All runs must answer the same tests. Expected one list of draws over one list of users, found "
            f"{len(names)} and {len(users)}. Put the same tests to the agents of all seeds."
        )
    return [simulation.test for simulation in runs[0]]
