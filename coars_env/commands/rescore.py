"""Compute the rewards and metrics of stored dialogues again, and compare with what was paid when they were played.

    coars rescore dialogues.jsonl --check
    coars rescore dialogues.jsonl --out scores.jsonl --beta 0
    coars rescore dialogues.jsonl --reward my_reward:Sparse

A score is a pure function of a transcript, so equal transcripts have equal score lines, byte for byte, on every
machine; and each transcript holds what was paid.
"""

import inspect
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import tyro

from coars_env.errors import ConfigError, TranscriptError
from coars_env.evaluation.metrics import metrics_of
from coars_env.evaluation.reports import markdown_table
from coars_env.files import write_atomically
from coars_env.imports import import_object
from coars_env.rewards import CoarsReward, MirroredStage, RewardTerms
from coars_env.scoring import TranscriptReward, check_transcript_reward, score_transcripts
from coars_env.transcript import Transcript, transcript_lines

_MOST_ERRORS = 20


@dataclass(frozen=True, kw_only=True)
class RescoreConfig:
    """Compute rewards and metrics of stored dialogues again."""

    path: Annotated[Path, tyro.conf.Positional]
    """Transcripts, as `write_transcripts` writes them."""
    out: Path | None = None
    """File for the scores, one JSON object a dialogue; nothing is written without."""
    check: bool = False
    """Fail unless every reward is, byte for byte, the one that was paid when the dialogue was played."""
    reward: str | None = None
    """A reward of your own as module:attribute, also from the working directory: an object, a class without required
    arguments, or a function of a transcript, see `TranscriptReward`. CoARS's by default."""
    alpha: float = 0.1
    """Weight of the peer term."""
    beta: float = 1 / 3
    """Spread of the stage sensitivity; 0 weighs all turns alike."""
    invalid: float = -1.0
    """Reward of a message that could not be used."""


def reward_of(config: RescoreConfig) -> TranscriptReward:
    """Make the reward that the command line asks for.

    Raises:
        ConfigError: it cannot be imported, is no reward, or has settings of CoARS's beside it.
    """
    if config.reward is None:
        return CoarsReward(alpha=config.alpha, stage=MirroredStage(config.beta), invalid=config.invalid)
    given = [name for name in ("alpha", "beta", "invalid") if getattr(config, name) != getattr(RescoreConfig, name)]
    if given:
        raise ConfigError(
            f"--reward {config.reward} goes without --{given[0]}, a setting of CoARS's reward. Leave it out."
        )
    reward = import_object(config.reward)
    if isinstance(reward, type):
        try:
            inspect.signature(reward).bind()
        except TypeError as error:
            raise ConfigError(
                f"{config.reward} is a class that cannot be made without arguments ({error}). Name an object of it."
            ) from error
        reward = reward()
    check_transcript_reward(reward)
    return cast(TranscriptReward, reward)


def score_line(transcript: Transcript, terms: Sequence[RewardTerms]) -> str:
    """Return one line of JSON, keys sorted: the dialogue, what each turn earned with every factor, each of `METRICS`.

    A metric that is undefined is null.
    """
    metrics = {name: float(values[0]) for name, values in metrics_of([transcript], [terms]).items()}
    row = {
        "task_id": transcript.task.task_id,
        "seed": transcript.seed,
        "ending": transcript.ending,
        "terms": [entry.to_row() for entry in terms],
        "metrics": {name: None if math.isnan(value) else value for name, value in metrics.items()},
    }
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=float)


def compare_paid(transcript: Transcript, terms: Sequence[RewardTerms]) -> list[str]:
    """Compare what was paid with what is computed, byte for byte. Returns a word for each turn."""
    if not transcript.rewards:
        return ["not recorded"] * len(transcript.turns)
    pairs = zip(transcript.rewards, terms, strict=True)
    return ["equal" if _bytes(paid) == _bytes(now.rewards) else "different" for paid, now in pairs]


def _bytes(rewards: Mapping[str, float]) -> str:
    return json.dumps({agent: float(reward) for agent, reward in rewards.items()}, sort_keys=True)


def read_all(path: Path) -> list[Transcript]:
    """Every transcript of a file.

    Raises:
        TranscriptError: no such file; no line in it; or lines that are no transcripts, all of them named.
    """
    transcripts, errors = [], []
    for number, line in enumerate(transcript_lines(path), start=1):
        try:
            transcripts.append(Transcript.from_json(line))
        except TranscriptError as error:
            errors.append(f"line {number}: {error}")
    if errors:
        more = f"\n... and {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
        raise TranscriptError(
            f"Every line must be a transcript. Expected {len(transcripts) + len(errors)} in {path}, found "
            f"{len(errors)} that are none. Nothing was written.\n" + "\n".join(errors[:_MOST_ERRORS]) + more
        )
    if not transcripts:
        raise TranscriptError(f"There must be something to score. Expected a line or more in {path}, found none.")
    return transcripts


def summary(transcripts: Sequence[Transcript], scored: Sequence[Sequence[RewardTerms]], compared: Iterable[str]) -> str:
    """Return the means of the metrics over all dialogues, and how the turns compare with what was paid."""
    counts = Counter(compared)
    rows = []
    for name, values in metrics_of(transcripts, scored).items():
        defined = values[~np.isnan(values)]
        rows.append((name, f"{defined.mean():.3f}" if len(defined) else "-", len(values) - len(defined)))
    turns = ", ".join(f"{counts[kind]} {kind}" for kind in ("equal", "different", "not recorded"))
    return f"{len(transcripts)} dialogues; rewards of turns: {turns}.\n\n" + markdown_table(
        ("metric", "mean", "undefined"), rows
    )


def main(argv: Sequence[str]) -> None:
    """`coars rescore dialogues.jsonl`."""
    config = tyro.cli(RescoreConfig, prog="coars rescore", args=list(argv))
    reward = reward_of(config)
    if config.out is not None and config.out.resolve() == config.path.resolve():
        raise ConfigError(
            f"Scores must not overwrite the dialogues. Expected another file than {config.path} as --out, found the "
            "same. Name another."
        )
    transcripts = read_all(config.path)
    scored = score_transcripts(reward, transcripts)
    compared = list(map(compare_paid, transcripts, scored))
    if config.check:
        wrong = [number for number, kinds in enumerate(compared, start=1) if set(kinds) - {"equal"}]
        if wrong:
            raise TranscriptError(
                f"With --check, rewards must be those that were paid. Expected that in every line of {config.path}, "
                f"found other rewards, or none recorded, in {len(wrong)}: {', '.join(map(str, wrong[:_MOST_ERRORS]))}"
                f"{', ...' if len(wrong) > _MOST_ERRORS else ''}. Use the reward and the settings of that game."
            )
    if config.out is not None:
        lines = "".join(line + "\n" for line in map(score_line, transcripts, scored))
        write_atomically(config.out, lines)
    print(summary(transcripts, scored, (kind for kinds in compared for kind in kinds)))
