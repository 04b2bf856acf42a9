"""Report: what transcripts say about a pair of agents, with intervals; and AFL's test of a user agent.

Results have three axes: S seeds (of training, or of sampling), D candidate draws, N rows. A row is a user. `evaluate`
plays them, `summarize` makes a `Report`, `paired_difference` compares two systems on the same rows, `user_simulation`
asks a user agent about single items. `meter_report` shows what a good score may hide, `user_card` how far a user is to
be trusted, `cross_play` how far a score depends on the partner. A `Benchmark` is all of these questions, frozen; what a
system did on it is `Played`, its figures are `Scores`, and a `ScoreTable` puts systems side by side. All but those that
play read nothing but transcripts.
"""

from coars_env.evaluation.benchmark import Benchmark, Played
from coars_env.evaluation.calibration import ReliabilityBin
from coars_env.evaluation.card import UserCard, user_card
from coars_env.evaluation.controls import OtherInstruction, ShuffledWords, WithoutWords, control_users
from coars_env.evaluation.crossplay import CrossPlay, cross_play
from coars_env.evaluation.environment import environment_info
from coars_env.evaluation.information import turn_information
from coars_env.evaluation.intervals import Difference, Estimate, bootstrap_interval, holm, paired_difference
from coars_env.evaluation.meters import (
    METERS,
    MeterReport,
    PositionBias,
    episode_meters,
    meter_report,
    position_bias,
)
from coars_env.evaluation.metrics import ANSWER_METRICS, METRICS, TurnRates, by_turn, episode_metrics, hit_so_far
from coars_env.evaluation.ranking import (
    Ranker,
    Ranks,
    expected_hit,
    full_ranking,
    ranking_metrics,
    target_ranks,
)
from coars_env.evaluation.reports import (
    Report,
    Runs,
    evaluate,
    hit_by_turn,
    joint_estimates,
    markdown_table,
    metric_values,
    summarize,
)
from coars_env.evaluation.score_table import (
    AS_IT_IS,
    ScoreTable,
    TableRow,
    comparison_lines,
    control_lines,
    csv_text,
    markdown_lines,
    print_lines,
    signed,
    table_rows,
)
from coars_env.evaluation.scores import Cost, Scores
from coars_env.evaluation.simulation import Simulation, user_simulation
from coars_env.evaluation.simulation_report import (
    SIMULATION_METRICS,
    SimulationReport,
    counted_difference,
    simulation_counts,
    simulation_difference,
    simulation_estimates,
    simulation_report,
)
from coars_env.evaluation.user_test import UserItems, UserTest, afl_user_test, user_test

__all__ = [
    "ANSWER_METRICS",
    "AS_IT_IS",
    "METERS",
    "METRICS",
    "SIMULATION_METRICS",
    "Benchmark",
    "Cost",
    "CrossPlay",
    "Difference",
    "Estimate",
    "MeterReport",
    "OtherInstruction",
    "Played",
    "PositionBias",
    "Ranker",
    "Ranks",
    "ReliabilityBin",
    "Report",
    "Runs",
    "ScoreTable",
    "Scores",
    "ShuffledWords",
    "Simulation",
    "SimulationReport",
    "TableRow",
    "TurnRates",
    "UserCard",
    "UserItems",
    "UserTest",
    "WithoutWords",
    "afl_user_test",
    "bootstrap_interval",
    "by_turn",
    "comparison_lines",
    "control_lines",
    "control_users",
    "counted_difference",
    "cross_play",
    "csv_text",
    "environment_info",
    "episode_meters",
    "episode_metrics",
    "evaluate",
    "expected_hit",
    "full_ranking",
    "hit_by_turn",
    "hit_so_far",
    "holm",
    "joint_estimates",
    "markdown_lines",
    "markdown_table",
    "meter_report",
    "metric_values",
    "paired_difference",
    "position_bias",
    "print_lines",
    "ranking_metrics",
    "signed",
    "simulation_counts",
    "simulation_difference",
    "simulation_estimates",
    "simulation_report",
    "summarize",
    "table_rows",
    "target_ranks",
    "turn_information",
    "user_card",
    "user_simulation",
    "user_test",
]
