"""Metrics of one episode, and the rates by turn: pure functions of transcripts.

A turn that asks proposes nothing: it counts as a turn, and no metric of proposals or actions counts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env.datasets.dataset import FloatArray
from coars_env.rewards import CoarsReward, RewardTerms
from coars_env.rules import AnswerRule
from coars_env.scoring import TranscriptReward, score_transcripts
from coars_env.transcript import RECOMMENDER, Transcript, Turn, best_proposal, rejected_items

METRICS = {
    "hit_final": "Hit@1 of the last proposal: 1 if it is the target, else 0; 0 after a failure, which has no answer",
    "hit_best": "Hit@1 of the best proposal, the accepted one, else the one accepted most strongly, the earlier on "
    "ties: 1 if it is the target, else 0; 0 after a failure",
    "hit_first": "1 if the proposal of turn 1 is the target, else 0; 0 if turn 1 asks",
    "hit_first_proposal": "the same for the first turn that does not ask",
    "hit_any": "1 if any turn proposes the target, else 0",
    "turns": "finished turns, 0 to T",
    "turns_to_hit": "the first turn that proposes the target, 1 to T; NaN if none does",
    "accepted": "1 if the user clicked a proposal, else 0",
    "turns_to_accept": "turns of an accepted episode, 1 to T; NaN if nothing was accepted",
    "questions": "turns that ask, 0 to T - 1",
    "revealed": "different facets that the user revealed, 0 to T",
    "true_reveals": "honesty: share of these that the user's instruction holds, in [0, 1]; NaN if it revealed none",
    "reward_recommender": "mean of the recommender's reward over the turns, those that ask too; NaN without turns",
    "reward_user": "mean of the user's reward over the turns; NaN without turns",
    "acceptance_on_hits": "share of turns proposing the target that got a star or click, in [0, 1]; NaN without such",
    "acceptance_on_misses": "the same for turns that propose another item",
    "excluded_recommender": "share of turns whose recommender message is left out of training; NaN without turns",
    "excluded_user": "the same for the user's message",
    "parse_errors_recommender": "turns whose recommender message named no candidate, 0 to T",
    "parse_errors_user": "turns whose user message could not be read, 0 to T",
    "repeats": "turns that propose an item proposed before, 0 to T - 1",
    "repeats_rejected": "turns that propose an item that the user rejected (dislike or skip) before, 0 to T - 1",
    "failed": "1 if an agent broke, else 0",
}
"""Each metric of an episode: formula, range and when it is undefined. NaN is left out of means and counted."""
ANSWER_METRICS: dict[AnswerRule, str] = {"last": "hit_final", "best": "hit_best"}
"""The metric that says whether the answer of a game was right, by `Rules.answer`."""


def episode_metrics(
    transcripts: Sequence[Transcript], *, reward: TranscriptReward | None = None
) -> dict[str, FloatArray]:
    """Compute each of `METRICS`, shape [N], for N episodes.

    Args:
        transcripts: the episodes.
        reward: scores them, `CoarsReward()` by default; any `TranscriptReward`. The metrics `reward_*` and `excluded_*`
            come from it, all others from the turns alone.

    Raises:
        ConfigError: as `score_transcripts`.
    """
    return metrics_of(transcripts, score_transcripts(CoarsReward() if reward is None else reward, transcripts))


def metrics_of(transcripts: Sequence[Transcript], scored: Sequence[Sequence[RewardTerms]]) -> dict[str, FloatArray]:
    """Compute each of `METRICS`, shape [N], for N episodes that `score_transcripts` has scored."""
    rows = [_episode(transcript, terms) for transcript, terms in zip(transcripts, scored, strict=True)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in METRICS}


def _episode(transcript: Transcript, terms: Sequence[RewardTerms]) -> dict[str, float]:
    turns, target = transcript.turns, transcript.task.target
    accepted, failed = transcript.ending == "accepted", transcript.ending == "failed"
    proposals = [turn.proposal for turn in turns if turn.proposal is not None]
    opening = opening_turn(turns)
    said = {(place, answer.reveal) for turn in turns for place, answer in enumerate(turn.answers) if answer.reveal}
    wishes = [member.instruction for member in transcript.task.members]
    return {
        "hit_final": float(not failed and transcript.final_item == target),
        "hit_best": float(not failed and transcript.best_item == target),
        "hit_first": float(bool(turns) and turns[0].proposal == target),
        "hit_first_proposal": float(opening is not None and opening.proposal == target),
        "hit_any": float(target in proposals),
        "turns": len(turns),
        "turns_to_hit": next((n for n, turn in enumerate(turns, 1) if turn.proposal == target), np.nan),
        "accepted": float(accepted),
        "turns_to_accept": len(turns) if accepted else np.nan,
        "questions": sum(turn.question is not None for turn in turns),
        "revealed": len(said),
        "true_reveals": _mean([(wish := wishes[place]) is not None and facet in wish.facets for place, facet in said]),
        "reward_recommender": _mean([term.rewards[RECOMMENDER] for term in terms]),
        "reward_user": _mean([paid for term in terms for agent, paid in term.rewards.items() if agent != RECOMMENDER]),
        "acceptance_on_hits": _mean([turn.positive for turn in turns if turn.proposal == target]),
        "acceptance_on_misses": _mean([turn.positive for turn in turns if turn.proposal not in (None, target)]),
        "excluded_recommender": _mean([RECOMMENDER in term.excluded for term in terms]),
        "excluded_user": _mean([a in term.excluded for term in terms for a in term.rewards if a != RECOMMENDER]),
        "parse_errors_recommender": sum(turn.error is not None for turn in turns),
        "parse_errors_user": sum(answer.error is not None for turn in turns for answer in turn.answers),
        "repeats": len(proposals) - len(set(proposals)),
        "repeats_rejected": sum(turn.proposal in rejected_items(turns[:n]) for n, turn in enumerate(turns)),
        "failed": float(failed),
    }


def opening_turn(turns: Sequence[Turn]) -> Turn | None:
    """Return the first turn that does not ask; None if all do, or there is none."""
    return next((turn for turn in turns if turn.question is None), None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else np.nan


@dataclass(frozen=True)
class TurnRates:
    """How the episodes stood at one turn. Shares are NaN where nothing is counted."""

    turn: int
    """Counted from 1."""
    reached: int
    """Episodes that played this turn."""
    asked: float
    """Share of the episodes that reached it whose turn is a question."""
    hit: float
    """Share of the episodes that reached it whose proposal in this turn is the target; a question is a miss."""
    hit_so_far: float
    """Hit@1 of the last proposal had every episode stopped here: share of ALL episodes whose last proposal up to this
    turn is the target, see `hit_so_far`."""
    best_so_far: float
    """The same for the best proposal up to this turn."""
    acceptance_on_hits: float
    acceptance_on_misses: float


def by_turn(transcripts: Sequence[Transcript]) -> tuple[TurnRates, ...]:
    """One entry per turn, pooled over the transcripts."""
    entries = []
    for n in range(max((len(t.turns) for t in transcripts), default=0)):
        reached = [(t.turns[n], t.turns[n].proposal == t.task.target) for t in transcripts if len(t.turns) > n]
        entries.append(
            TurnRates(
                turn=n + 1,
                reached=len(reached),
                asked=_mean([turn.question is not None for turn, _ in reached]),
                hit=_mean([hit for _, hit in reached]),
                hit_so_far=_mean([hit_so_far(t, n + 1, "last") for t in transcripts]),
                best_so_far=_mean([hit_so_far(t, n + 1, "best") for t in transcripts]),
                acceptance_on_hits=_mean([turn.positive for turn, hit in reached if hit]),
                acceptance_on_misses=_mean(
                    [turn.positive for turn, hit in reached if not hit and turn.proposal is not None]
                ),
            )
        )
    return tuple(entries)


def hit_so_far(transcript: Transcript, turn: int, answer: AnswerRule) -> bool:
    """Return whether the answer, by a rule of `Rules.answer`, had been the target had the episode stopped there.

    An episode that had proposed nothing up to that turn, or had failed before it, is a miss; one that had ended keeps
    its answer. Turns that ask are passed over: what was proposed before them is still the last proposal.
    """
    if transcript.ending == "failed" and len(transcript.turns) < turn:
        return False
    proposing = [one for one in transcript.turns[:turn] if one.question is None]
    found = best_proposal(proposing) if answer == "best" else proposing[-1].proposal if proposing else None
    return found == transcript.task.target
