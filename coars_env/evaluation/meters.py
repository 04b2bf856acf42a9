"""MeterReport: signs that a pair of agents scores well for the wrong reason. Pure functions of transcripts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray, IntArray, Item, Provenance
from coars_env.errors import ShapeError, whole_number
from coars_env.evaluation.information import turn_information
from coars_env.evaluation.intervals import Estimate, own_rng
from coars_env.evaluation.metrics import opening_turn
from coars_env.evaluation.reports import Runs, joint_estimates, markdown_table, metric_values
from coars_env.evaluation.titles import names
from coars_env.tasks import has_facet
from coars_env.transcript import Transcript, rejected_items

METERS = {
    "target_named": "target leak: 1 if a reply of the user holds the title of the target before any turn proposed it, "
    "see `names`",
    "others_named": "the same for the other candidates: the share of them that was named before being proposed. A user "
    "that knows only its history names the target as often as these",
    "success_first": "1 if the target was clicked in turn 1, 0 if later; NaN if it never was",
    "always_accepts": "1 if every usable answer is a star or click; NaN without a usable answer",
    "accepts_first_miss": "1 if the first turn that does not ask proposes another item than the target and gets a star "
    "or click, 0 if it gets none; NaN if it is a hit or names nothing",
    "popularity_first": "place in [0, 1] of the first proposal among the candidates by popularity: the share of the "
    "others that are less popular, ties one half; chance gives .5; NaN as above",
    "popularity_target": "the same for the target: what a perfect recommender's first proposals have",
    "length_recommender": "mean length of the recommender's messages in characters; NaN without turns",
    "length_user": "the same for the user's replies",
    "facets_used": "share of the revealed facets that the next proposal has; NaN without a proposal after one",
    "facets_used_chance": "the same for a recommender that does not listen: the mean share of the candidates, without "
    "those rejected so far, that have the facet",
    "bits": "bits by which an answer narrows a fixed belief about the target, mean over the turns: entropy before "
    "minus after, see `turn_information`, with the popularity of the candidates as the prior; NaN without turns",
    "bits_target": "the same for the truth: log2 of the belief in the target after the answer over that before it. "
    "Below 0 where the user misleads; NaN without turns, or if the target is no candidate",
}
"""Each meter of an episode: formula, range and when it is undefined. NaN is left out of means and counted."""


def episode_meters(
    transcripts: Sequence[Transcript], items: Sequence[Item], popularity: npt.ArrayLike
) -> dict[str, FloatArray]:
    """Each of `METERS`, shape [N], for N episodes.

    Args:
        transcripts: the episodes.
        items: the catalogue, for its titles.
        popularity: [I], how often each item was taken in training, see `item_counts`.

    Raises:
        ShapeError: the popularity is of other items, or NaN.
    """
    counts = np.asarray(popularity, dtype=np.float64)
    if counts.shape != (len(items),) or np.isnan(counts).any():
        raise ShapeError(
            f"Every item has its popularity. Expected {len(items)} numbers, found shape {list(counts.shape)} with "
            f"{int(np.isnan(counts).sum())} NaN. Pass item_counts(split)."
        )
    rows = [_episode(transcript, items, counts) for transcript in transcripts]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in METERS}


def _episode(transcript: Transcript, items: Sequence[Item], counts: FloatArray) -> dict[str, float]:
    task, turns = transcript.task, transcript.turns
    replies = [answer.message for turn in turns for answer in turn.answers]
    named = {item: _named_early(transcript, item, items[item].title) for item in {*task.candidates, task.target}}
    hits = [number for number, turn in enumerate(turns) if turn.accepted and turn.proposal == task.target]
    usable = [answer.positive for turn in turns for answer in turn.answers if answer.action is not None]
    opening = opening_turn(turns)
    first = None if opening is None else opening.proposal
    used, chance = _facets_used(transcript, items)
    bits, bits_target = turn_information(transcript, items, lambda history, listed: np.log1p(counts[listed]))
    return {
        "target_named": float(named.pop(task.target)),
        "others_named": float(np.mean(list(named.values()))) if named else np.nan,
        "success_first": float(hits[0] == 0) if hits else np.nan,
        "always_accepts": float(all(usable)) if usable else np.nan,
        "accepts_first_miss": float(opening.positive) if opening and first not in (None, task.target) else np.nan,
        "popularity_first": np.nan if first is None else _popularity_place(task.candidates, first, counts),
        "popularity_target": _popularity_place(task.candidates, task.target, counts),
        "length_recommender": float(np.mean([len(turn.rationale) for turn in turns])) if turns else np.nan,
        "length_user": float(np.mean(list(map(len, replies)))) if replies else np.nan,
        "facets_used": used,
        "facets_used_chance": chance,
        "bits": float(np.mean(bits)) if turns else np.nan,
        "bits_target": float(np.mean(bits_target)) if turns else np.nan,
    }


def _facets_used(transcript: Transcript, items: Sequence[Item]) -> tuple[float, float]:
    """Shares of the revealed facets that the next proposal has, and that a candidate has."""
    turns, used, chance = transcript.turns, [], []
    for number, turn in enumerate(turns):
        proposed = next((later.proposal for later in turns[number + 1 :] if later.proposal is not None), None)
        rejected = rejected_items(turns[: number + 1])
        left = [item for item in transcript.task.candidates if item not in rejected] or transcript.task.candidates
        for facet in [answer.reveal for answer in turn.answers]:
            if facet is not None and proposed is not None:
                used.append(has_facet(items[proposed], facet))
                chance.append(np.mean([has_facet(items[item], facet) for item in left]))
    return (float(np.mean(used)), float(np.mean(chance))) if used else (np.nan, np.nan)


def _named_early(transcript: Transcript, item: int, title: str) -> bool:
    """Whether a reply before the first proposal of the item holds its title."""
    said: list[str] = []
    for turn in transcript.turns:
        if turn.proposal == item:
            break
        said.extend(answer.message for answer in turn.answers)
    return any(names(text, title) for text in said)


def _popularity_place(candidates: Sequence[int], item: int, counts: FloatArray) -> float:
    others = counts[[other for other in candidates if other != item]]
    return float((np.sign(counts[item] - others).mean() + 1) / 2) if len(others) else np.nan


@dataclass(frozen=True, eq=False)
class PositionBias:
    """Which places of the list the first proposals took. Example: `position_bias(transcripts).p_value`."""

    counts: IntArray
    """[K] first proposals at each place."""
    chi_square: float
    """Sum over places of (count - N / K)^2 / (N / K); NaN without proposals."""
    p_value: float
    """How often places drawn uniformly have a chi-square at least as large; NaN without proposals. The places of
    targets are uniform, so a perfect recommender is uniform too."""

    @property
    def distance(self) -> float:
        """Total variation from uniform in [0, 1): the share of proposals that would have to move; NaN without any."""
        total = self.counts.sum()
        return float(np.abs(self.counts / total - 1 / len(self.counts)).sum() / 2) if total else np.nan

    def __str__(self) -> str:
        if not self.counts.sum():
            return "no proposals"
        top = int(self.counts.argmax())
        return (
            f"place {top} of {len(self.counts)} most often ({self.counts[top] / self.counts.sum():.3f}), distance "
            f"from uniform {self.distance:.3f}, chi-square {self.chi_square:.1f}, p = {self.p_value:.4f}"
        )


def position_bias(
    transcripts: Sequence[Transcript], *, simulations: int = 10_000, rng: np.random.Generator | None = None
) -> PositionBias:
    """First proposals by their place among the candidates, with a Monte Carlo test of uniformity.

    Later turns are left out: what was rejected makes them depend on the first. The test takes the episodes as
    independent; pass those of one draw and one seed.

    Args:
        transcripts: episodes with equally many candidates each.
        simulations: number of simulated samples.
        rng: their source; a fixed one by default.

    Raises:
        ShapeError: there are no transcripts.
        ConfigError: no simulations.
    """
    simulations = whole_number("The test is made of simulations.", "simulations", simulations, 1)
    if not transcripts:
        raise ShapeError("Places are counted over episodes. Expected a transcript or more, found none. Play some.")
    places = [
        transcript.task.candidates.index(opening.proposal)
        for transcript in transcripts
        if (opening := opening_turn(transcript.turns)) and opening.proposal is not None
    ]
    k = len(transcripts[0].task.candidates)
    counts = np.bincount(np.array(places, dtype=np.int64), minlength=k)
    if not places:
        return PositionBias(counts, np.nan, np.nan)
    drawn = own_rng(rng).multinomial(len(places), np.full(k, 1 / k), size=simulations)
    expected = len(places) / k
    chi_square = float(((counts - expected) ** 2).sum() / expected)
    extreme = ((drawn - expected) ** 2).sum(1) / expected >= chi_square - 1e-9
    return PositionBias(counts, chi_square, float((extreme.sum() + 1) / (simulations + 1)))


@dataclass(frozen=True)
class MeterReport:
    """The meters of one pair of agents, beside their Hit@1. Example: `report.estimates["target_named"].mean`."""

    system: str
    provenance: Provenance
    hit: Estimate
    """Hit@1 of the last proposal, `hit_final` of `METRICS`."""
    hit_best: Estimate
    """Hit@1 of the best proposal."""
    estimates: dict[str, Estimate]
    """By the names of `METERS`."""
    positions: PositionBias
    """Of the first seed and draw."""

    def to_markdown(self) -> str:
        """Hit@1, then the meters, one a row, and where in the list the first proposals stood."""
        hits = {"hit_final": self.hit, "hit_best": self.hit_best}
        rows = [(name, estimate, estimate.undefined) for name, estimate in hits.items()]
        rows += [(name, estimate, estimate.undefined) for name, estimate in self.estimates.items()]
        head = f"**{self.system}**: {self.provenance.source} data {self.provenance.origin}."
        table = markdown_table(("meter", "mean [95 %]", "undefined"), rows)
        return f"{head}\n\n{table}\n\nFirst proposals: {self.positions}.\n"


def meter_report(system: str, runs: Runs, items: Sequence[Item], popularity: npt.ArrayLike) -> MeterReport:
    """Means and intervals of all meters over users, draws and seeds, see `bootstrap_interval`.

    Raises:
        ShapeError: as `metric_values` and `episode_meters`.
    """
    meters = [[episode_meters(draw, items, popularity) for draw in seed] for seed in runs]
    arrays = {name: np.array([[draw[name] for draw in seed] for seed in meters]) for name in METERS}
    played = metric_values(runs)
    estimates = joint_estimates({**{name: played[name] for name in ("hit_final", "hit_best")}, **arrays})
    return MeterReport(
        system=system,
        provenance=runs[0][0][0].provenance,
        hit=estimates.pop("hit_final"),
        hit_best=estimates.pop("hit_best"),
        estimates=estimates,
        positions=position_bias(runs[0][0]),
    )
