"""Report: what transcripts say about a pair of agents, with intervals; and AFL's test of a user agent.

Results have three axes: S seeds (of training, or of sampling), D candidate draws, N rows. A row is a user. `evaluate`
plays them, `summarize` makes a `Report`, `paired_difference` compares two systems on the same rows, `user_simulation`
asks a user agent about single items. All but `evaluate` and `user_simulation` read nothing but transcripts.
"""

from coars_env.evaluation.intervals import Difference, Estimate, bootstrap_interval, paired_difference
from coars_env.evaluation.metrics import METRICS, TurnRates, by_turn, episode_metrics
from coars_env.evaluation.reports import Report, Runs, evaluate, markdown_table, metric_values, summarize
from coars_env.evaluation.simulation import (
    SIMULATION_METRICS,
    Simulation,
    SimulationReport,
    UserItems,
    UserTest,
    simulation_difference,
    simulation_report,
    user_simulation,
    user_test,
)

__all__ = [
    "METRICS",
    "SIMULATION_METRICS",
    "Difference",
    "Estimate",
    "Report",
    "Runs",
    "Simulation",
    "SimulationReport",
    "TurnRates",
    "UserItems",
    "UserTest",
    "bootstrap_interval",
    "by_turn",
    "episode_metrics",
    "evaluate",
    "markdown_table",
    "metric_values",
    "paired_difference",
    "simulation_difference",
    "simulation_report",
    "summarize",
    "user_simulation",
    "user_test",
]
