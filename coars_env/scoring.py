"""score_transcripts: finished dialogues scored by any reward, the one way for metrics, training and `coars rescore`.

Three kinds of rewards will do, see `TranscriptReward`. An object with a method `turn` is what an environment pays:

    score_transcripts(CoarsReward(alpha=0.2), transcripts)

A function of one transcript sees the whole dialogue, so it can reward turns by how the dialogue ends:

    score_transcripts(outcome_terms, transcripts)

An object with a method `score` scores many dialogues at once, as a judge that is a language model does:

    class Novelty:
        def score(self, transcripts):
            seen = Counter(turn.proposal for one in transcripts for turn in one.turns)
            return [[self.terms(one.task, turn, 1 / seen[turn.proposal]) for turn in one.turns] for one in transcripts]

        def terms(self, task, turn, worth):
            return RewardTerms(turn.proposal == task.target, {RECOMMENDER: worth, USER: 0.0})
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from coars_env.errors import ConfigError
from coars_env.rewards import Reward, RewardTerms, apply_repeats, check_terms, reward_name
from coars_env.roles import agents_of
from coars_env.transcript import Transcript


@runtime_checkable
class TranscriptScorer(Protocol):
    """Scores many finished dialogues at once."""

    def score(self, transcripts: Sequence[Transcript]) -> Sequence[Sequence[RewardTerms]]:
        """Return the terms of every turn of every transcript, in order."""
        ...


TranscriptReward = Reward | Callable[[Transcript], Sequence[RewardTerms]] | TranscriptScorer
"""What scores finished dialogues: a `Reward`, turn by turn (`CoarsReward()`); a function of one transcript that returns
the terms of its turns (`outcome_terms`); or an object whose method `score` does many transcripts at once."""


def score_transcripts(reward: TranscriptReward, transcripts: Sequence[Transcript]) -> list[list[RewardTerms]]:
    """Score every turn of finished dialogues.

    Args:
        reward: scores them, see `TranscriptReward`. A method `score` goes before a method `turn`, and that before a
            call.
        transcripts: finished dialogues.

    Returns:
        The terms of each turn of each transcript.

    Raises:
        ConfigError: the reward is none, or returns what cannot be paid: no finite number, other agents, or another
            number of turns. The message names the reward, the task and the turn.
    """
    check_transcript_reward(reward)
    if isinstance(reward, TranscriptScorer):
        scored = list(reward.score(transcripts))
        if len(scored) != len(transcripts):
            raise ConfigError(
                f"{reward_name(reward)} scores {len(scored)} of {len(transcripts)} transcripts. Its method `score` "
                "must return a list for each."
            )
    elif isinstance(reward, Reward):
        scored = [_by_turn(reward, one) for one in transcripts]
    else:
        scored = [reward(one) for one in transcripts]
    return [_checked(terms, reward, one) for terms, one in zip(scored, transcripts, strict=True)]


def _by_turn(reward: Reward, transcript: Transcript) -> list[RewardTerms]:
    """Score the turns as `Dialogue` does, by the rules of the dialogue."""
    task, turns, scored = transcript.task, transcript.turns, []
    for number, turn in enumerate(turns, start=1):
        terms = reward.turn(task, turn, number, transcript.max_turns)
        if isinstance(terms, RewardTerms):
            terms = apply_repeats(terms, turns[:number], transcript.rules)
        scored.append(terms)
    return scored


def check_transcript_reward(reward: object) -> None:
    """Refuse what is no `TranscriptReward`.

    Raises:
        ConfigError: a class in place of an object, or an object that scores nothing.
    """
    if isinstance(reward, type):
        raise ConfigError(f"The reward is the class {reward.__name__}. Make an object of it: {reward.__name__}(...).")
    if not (isinstance(reward, Reward | TranscriptScorer) or callable(reward)):
        raise ConfigError(
            f"{reward!r:.200} is no reward. Pass an object with a method `turn` or `score`, or a function of a "
            "transcript, see `TranscriptReward`."
        )
    if not isinstance(reward, Reward | TranscriptScorer) and not _takes_one(reward):
        raise ConfigError(f"{reward_name(reward)} cannot be called with one transcript. Write a function of one.")


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        return True
    return True


def _checked(terms: object, reward: TranscriptReward, transcript: Transcript) -> list[RewardTerms]:
    task, turns = transcript.task, transcript.turns
    if isinstance(terms, str) or not isinstance(terms, Sequence):
        raise ConfigError(
            f"{reward_name(reward)} returns {terms!r:.200} for task {task.task_id!r}. It must return a list of "
            "RewardTerms, one for each turn."
        )
    for number, entry in enumerate(terms[: len(turns)], start=1):
        check_terms(entry, reward, task, number, agents_of(task.num_users))
    if len(terms) != len(turns):
        raise ConfigError(
            f"{reward_name(reward)} returns terms of {len(terms)} turns for task {task.task_id!r}, whose dialogue has "
            f"{len(turns)}: turn {min(len(terms), len(turns)) + 1} has no counterpart. Return one for each."
        )
    return list(terms)
