"""What answers tell: a fixed observer's belief about the target, turn by turn. Pure functions of a transcript."""

from collections.abc import Sequence

import numpy as np

from coars_env.datasets.dataset import Facet, FloatArray, Item
from coars_env.errors import ConfigError, number_or_nan
from coars_env.tasks import Scorer, has_facet, scores_of
from coars_env.transcript import Transcript, Turn

NOISE = 0.1
"""How often the observer takes an answer to be wrong (our choice)."""


def beliefs(transcript: Transcript, items: Sequence[Item], scorer: Scorer, *, noise: float = NOISE) -> FloatArray:
    """Return an observer's belief about which candidate is the target, before the first turn and after each.

    It starts from a scorer: the softmax of the scores, standardised within the list; in a group, of their mean over the
    users. Then it goes by Bayes' rule and takes every answer to be wrong with probability `noise`: a revealed facet
    speaks for the candidates that have it, a star or click (of all users) for the proposal, a dislike or skip against
    it; what is said again adds nothing. It depends on what was said alone, so that users are measured on one scale,
    whatever their recommenders make of it.

    Args:
        transcript: the episode.
        items: the catalogue.
        scorer: the prior.
        noise: in (0, .5].

    Returns:
        Probabilities, shape [turns + 1, K].

    Raises:
        ConfigError: no such noise.
        TaskError: the scorer returns no finite number for each candidate.
    """
    if not 0 < number_or_nan(noise) <= 0.5:
        raise ConfigError(f"noise must be above 0 and at most .5, got {noise!r}.")
    task = transcript.task
    candidates = np.array(task.candidates, np.int64)
    histories = [np.array(member.history, np.int64) for member in task.members]
    scores = np.mean([scores_of(scorer, history, candidates) for history in histories], axis=0)
    logits = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    found, heard = [logits], set[_Statement]()
    for turn in transcript.turns:
        for statement in _statements(turn):
            if statement not in heard:
                logits = logits + np.log(np.where(_true(statement, task.candidates, items), 1 - noise, noise))
            heard.add(statement)
        found.append(logits)
    weights = np.exp(np.array(found) - np.max(found, axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def turn_information(
    transcript: Transcript, items: Sequence[Item], scorer: Scorer, *, noise: float = NOISE
) -> tuple[FloatArray, FloatArray]:
    """Return how many bits each turn gives, shape [turns] twice, see `beliefs`.

    First by how much the entropy of the belief falls, whether what was said is true or not; then by how much the
    logarithm of the belief in the target rises, which is below 0 where the turn misleads. The second is NaN where the
    target is no candidate.
    """
    belief = beliefs(transcript, items, scorer, noise=noise)
    entropy = -(belief * np.log2(belief)).sum(1)
    task = transcript.task
    if task.target not in task.candidates:
        return -np.diff(entropy), np.full(len(transcript.turns), np.nan)
    return -np.diff(entropy), np.diff(np.log2(belief[:, task.candidates.index(task.target)]))


_Statement = Facet | tuple[int, bool]
"""A facet that the user wants; or a proposal, and whether the user took it well."""


def _statements(turn: Turn) -> list[_Statement]:
    """What a turn says; nothing where it could not be read."""
    said: list[_Statement] = [answer.reveal for answer in turn.answers if answer.reveal is not None]
    if turn.usable and turn.proposal is not None:
        said.append((turn.proposal, turn.positive))
    return said


def _true(statement: _Statement, candidates: Sequence[int], items: Sequence[Item]) -> list[bool]:
    """Whether a statement is true if each of the candidates is the target."""
    if isinstance(statement, Facet):
        return [has_facet(items[item], statement) for item in candidates]
    proposal, liked = statement
    return [(item == proposal) == liked for item in candidates]
