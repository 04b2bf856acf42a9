"""Report: what a pair of agents did on frozen episodes, with intervals over users and seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from coars_env.datasets.dataset import FloatArray, Provenance
from coars_env.dialogue import MAX_TURNS, checked_seed
from coars_env.errors import ConfigError, ShapeError
from coars_env.evaluation.intervals import Estimate, interval, mean_components, means, own_rng
from coars_env.evaluation.metrics import ANSWER_METRICS, METRICS, TurnRates, by_turn, episode_metrics, hit_so_far
from coars_env.partners.agent import Agent
from coars_env.rollout import rollout
from coars_env.rules import Rules
from coars_env.scoring import TranscriptReward
from coars_env.tasks import EpisodeSet
from coars_env.transcript import Transcript

Runs = Sequence[Sequence[Sequence[Transcript]]]
"""runs[s][d][n]: the transcript of row n under candidate draw d, played by the agents of seed s."""


@dataclass(frozen=True)
class Report:
    """What one pair of agents did. Example: `summarize("popularity", runs).estimates["hit_final"].mean`."""

    system: str
    provenance: Provenance
    seeds: int
    draws: int
    rows: int
    estimates: dict[str, Estimate]
    """By the names of `METRICS`."""
    turns: tuple[TurnRates, ...]
    level: float = 0.95
    """Coverage of the intervals."""

    def table(self) -> list[tuple[str, str, str, int]]:
        """(metric, mean, interval, undefined) of each metric, ready to print."""
        return [
            (name, f"{e.mean:.3f}", f"[{e.low:.3f}, {e.high:.3f}]", e.undefined) for name, e in self.estimates.items()
        ]

    def to_markdown(self) -> str:
        """A table of all metrics and one of the turns, under a line that says what was measured."""
        head = (
            f"**{self.system}**: {self.rows} rows, {self.draws} candidate draws, {self.seeds} seeds; "
            f"{self.provenance.source} data {self.provenance.origin} ({self.provenance.sha256[:12]})."
        )
        metric_table = markdown_table(("metric", "mean", f"{self.level:.0%} interval", "undefined"), self.table())
        turn_table = markdown_table(
            ("turn", "reached", "asked", "hit", "hit so far", "best so far", "acceptance on hits", "on misses"),
            [
                (turn, reached, *(f"{share:.3f}" for share in shares))
                for turn, reached, *shares in map(astuple, self.turns)
            ],
        )
        return f"{head}\n\n{metric_table}\n\n{turn_table}\n"


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown of plain cells, whatever they hold: a line break becomes a blank, and "|" is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(content: object) -> str:
    return " ".join(str(content).splitlines()).replace("|", r"\|")


def evaluate(
    recommender: Agent,
    user: Agent | Sequence[Agent],
    episode_sets: Sequence[EpisodeSet],
    *,
    seeds: Sequence[int] = (0,),
    max_turns: int = MAX_TURNS,
    rules: Rules | None = None,
    batch_size: int = 256,
) -> list[list[list[Transcript]]]:
    """Play every set (one per candidate draw) under every seed of sampling. Returns runs[s][d][n].

    Trained systems have one pair of agents per training seed: call this once for each and join the outer lists.

    Raises:
        CoarsError: as `rollout`; or the sets or seeds are no lists of such.
    """
    episode_sets, seeds = check_sets(episode_sets), check_seeds(seeds)
    return [
        [
            rollout(
                draw.tasks,
                draw.items,
                recommender,
                user,
                provenance=draw.provenance,
                max_turns=max_turns,
                rules=rules,
                seed=seed,
                batch_size=batch_size,
            )
            for draw in episode_sets
        ]
        for seed in seeds
    ]


def check_sets(episode_sets: Sequence[EpisodeSet]) -> list[EpisodeSet]:
    """The episode sets as a list.

    Raises:
        ConfigError: it is one set, is empty, or holds something else.
    """
    sets = list(episode_sets) if isinstance(episode_sets, Iterable) else [episode_sets]
    if not sets or isinstance(episode_sets, EpisodeSet) or not all(isinstance(draw, EpisodeSet) for draw in sets):
        raise ConfigError(
            "There is an episode set for each candidate draw. Expected a list of EpisodeSets, found "
            f"{episode_sets!r:.200}. Pass [episodes], also for one."
        )
    return sets


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list of Python's own integers.

    Raises:
        ConfigError: it is none, holds something else, or one of them twice.
    """
    if not isinstance(seeds, Iterable):
        raise ConfigError(f"There are several seeds of sampling. Expected a list, found {seeds!r}. Pass [{seeds!r}].")
    checked = [checked_seed(seed) for seed in seeds]
    if len(set(checked)) < len(checked):
        raise ConfigError(
            f"Equal seeds play equal episodes. Expected different ones, found {checked}. Drop the others."
        )
    return checked


def metric_values(runs: Runs, *, reward: TranscriptReward | None = None) -> dict[str, FloatArray]:
    """Compute each of `METRICS`, shape [S, D, N], see `episode_metrics`.

    Rows are taken as independent: one task per user, as `freeze` makes them.

    Raises:
        ShapeError: the rows of the runs are not the same users and targets in the same order, or there are none, or
            the runs are nested otherwise.
        ConfigError: as `score_transcripts`.
    """
    try:
        rows = {tuple((t.task.user, t.task.target) for t in draw) for seed in runs for draw in seed}
    except (AttributeError, TypeError) as reason:
        raise ShapeError(
            f"Runs are lists of lists of lists. Expected the transcript of each row as runs[seed][draw][row], found "
            f"{runs!r:.200}. Pass what `evaluate` returns."
        ) from reason
    if len(rows) != 1 or rows == {()} or len({len(seed) for seed in runs}) != 1:
        raise ShapeError(
            "Runs must hold the same rows. Expected equally many draws of the same users and targets in the same "
            f"order, found {len(rows)} different lists and {sorted(len(seed) for seed in runs)} draws. Evaluate all on "
            "the same episode sets."
        )
    parts = [[episode_metrics(draw, reward=reward) for draw in seed] for seed in runs]
    return {name: np.array([[draw[name] for draw in seed] for seed in parts]) for name in METRICS}


def hit_by_turn(runs: Runs) -> dict[str, FloatArray]:
    """Compute Hit@1 had every episode stopped at a turn, shape [S, D, N], by metric and turn: "hit_final@1" to
    "hit_best@4". A dialogue that has proposed nothing by then is a miss, see `hit_so_far`.
    """
    found = {}
    for answer, metric in ANSWER_METRICS.items():
        for turn in range(1, max((t.max_turns for seed in runs for draw in seed for t in draw), default=0) + 1):
            hits = [[[hit_so_far(t, turn, answer) for t in draw] for draw in seed] for seed in runs]
            found[f"{metric}@{turn}"] = np.array(hits, dtype=np.float64)
    return found


def summarize(
    system: str,
    runs: Runs,
    *,
    reward: TranscriptReward | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> Report:
    """Means and intervals of all metrics, see `bootstrap_interval`, and the rates by turn pooled over all runs.

    Raises:
        ShapeError, ConfigError: as `metric_values` and `bootstrap_interval`.
    """
    arrays = metric_values(runs, reward=reward)
    return Report(
        system=system,
        provenance=runs[0][0][0].provenance,
        seeds=len(runs),
        draws=len(runs[0]),
        rows=len(runs[0][0]),
        estimates=joint_estimates(arrays, level=level, resamples=resamples, rng=rng),
        turns=by_turn([t for seed in runs for draw in seed for t in draw]),
        level=level,
    )


def joint_estimates(
    arrays: Mapping[str, FloatArray],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> dict[str, Estimate]:
    """`bootstrap_interval` of several arrays [S, D, N] of the same rows at once, by name, from the same samples.

    Raises:
        ShapeError: there are none, or their shapes differ.
    """
    shapes = {np.shape(array) for array in arrays.values()}
    if len(shapes) != 1:
        raise ShapeError(f"Arrays of the same rows have one shape. Expected that, found {sorted(shapes)}. Pass such.")
    components = np.concatenate([mean_components(array) for array in arrays.values()], axis=-1)  # [S, N, 2M]
    point, low, high = interval([components], means, level=level, resamples=resamples, rng=own_rng(rng))
    undefined = [int(np.isnan(array).sum()) for array in arrays.values()]
    columns = zip(arrays, point.tolist(), low.tolist(), high.tolist(), undefined, strict=True)
    return {name: Estimate(*rest) for name, *rest in columns}
