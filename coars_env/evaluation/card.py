"""UserCard: what is known of a simulated user. It belongs beside every score that was reached against that user."""

from dataclasses import dataclass

from coars_env.evaluation.calibration import ReliabilityBin, reliability
from coars_env.evaluation.reports import markdown_table
from coars_env.evaluation.simulation import COUNT_COLUMNS
from coars_env.evaluation.simulation_report import (
    SimulationReport,
    SimulationRuns,
    simulation_counts,
    simulation_report,
)


@dataclass(frozen=True)
class UserCard:
    """Agreement of a user agent with held-out choices. Example: `print(user_card("svd 0.1.0", runs).to_markdown())`."""

    report: SimulationReport
    """Every metric of `SIMULATION_METRICS`: F1, AUC, false accepts and rejects, Brier score, ECE and the others."""
    bins: dict[str, tuple[ReliabilityBin, ...]]
    """Ratio -> reliability. A user can be calibrated at one ratio of positives to negatives only."""

    def to_markdown(self) -> str:
        """The report, then a reliability table for each ratio."""
        parts = [self.report.to_markdown()]
        for ratio, bins in self.bins.items():
            rows = [
                (f"[{b.low:.1f}, {b.high:.1f}{']' if b is bins[-1] else ')'}", f"{b.answers:.1f}", *_means(b))
                for b in bins
            ]
            table = markdown_table(("strength", "answers", "mean strength", "share taken"), rows)
            parts.append(f"Reliability at {ratio}:\n\n{table}\n")
        return "\n".join(parts)


def _means(entry: ReliabilityBin) -> tuple[str, str]:
    return ("-", "-") if not entry.answers else (f"{entry.strength:.3f}", f"{entry.taken:.3f}")


def user_card(system: str, runs: SimulationRuns) -> UserCard:
    """The card of a user agent from its answers to `user_test`.

    Args:
        system: name of the agent, with its version: a score against a user means nothing without it.
        runs: runs[s][d], the answers of the agent of seed s to draw d of the test, see `user_simulation`.

    Raises:
        ShapeError: the runs do not answer the same tests, or there are none.
    """
    report = simulation_report(system, runs)
    bins = {
        ratio: reliability(simulation_counts(runs, ratio).mean(0).sum(0)[COUNT_COLUMNS:]) for ratio in report.estimates
    }
    return UserCard(report, bins)
