"""Compute the rewards and metrics of stored dialogues again, and compare with what was paid when they were played.

    coars rescore dialogues.jsonl --check
    coars rescore dialogues.jsonl --out scores.jsonl --beta 0

A score is a pure function of a transcript, so equal transcripts have equal score lines, byte for byte, wherever and
whenever they are computed; and each transcript holds what was paid.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from coars_env.errors import ConfigError, TranscriptError
from coars_env.evaluation.metrics import episode_metrics
from coars_env.evaluation.reports import markdown_table
from coars_env.files import write_atomically
from coars_env.rewards import CoarsReward, MirroredStage
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
    alpha: float = 0.1
    """Weight of the peer term."""
    beta: float = 1 / 3
    """Spread of the stage sensitivity; 0 weighs all turns alike."""
    invalid: float = -1.0
    """Reward of a message that could not be used."""


def score_line(transcript: Transcript, reward: CoarsReward) -> str:
    """One line of JSON, keys sorted: whose dialogue, what each turn earned with every factor, each of `METRICS`.

    A metric that is undefined is null.
    """
    terms = [{**asdict(entry), "excluded": sorted(entry.excluded)} for entry in reward(transcript)]
    metrics = {name: float(values[0]) for name, values in episode_metrics([transcript], reward=reward).items()}
    row = {
        "task_id": transcript.task.task_id,
        "seed": transcript.seed,
        "ending": transcript.ending,
        "terms": terms,
        "metrics": {name: None if math.isnan(value) else value for name, value in metrics.items()},
    }
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def compare_paid(transcript: Transcript, reward: CoarsReward) -> list[str]:
    """Whether what was paid is what is computed, byte for byte: a word for each turn."""
    if not transcript.rewards:
        return ["not recorded"] * len(transcript.turns)
    computed = [(float(terms.recommender), float(terms.user)) for terms in reward(transcript)]
    pairs = zip(transcript.rewards, computed, strict=True)
    return ["equal" if json.dumps(paid) == json.dumps(now) else "different" for paid, now in pairs]


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


def summary(transcripts: Sequence[Transcript], reward: CoarsReward, compared: Iterable[str]) -> str:
    """Means of the metrics over all dialogues, and how the turns compare with what was paid."""
    counts = Counter(compared)
    rows = []
    for name, values in episode_metrics(transcripts, reward=reward).items():
        defined = values[~np.isnan(values)]
        rows.append((name, f"{defined.mean():.3f}" if len(defined) else "-", len(values) - len(defined)))
    turns = ", ".join(f"{counts[kind]} {kind}" for kind in ("equal", "different", "not recorded"))
    return f"{len(transcripts)} dialogues; rewards of turns: {turns}.\n\n" + markdown_table(
        ("metric", "mean", "undefined"), rows
    )


def main(argv: Sequence[str]) -> None:
    """`coars rescore dialogues.jsonl`."""
    config = tyro.cli(RescoreConfig, prog="coars rescore", args=list(argv))
    reward = CoarsReward(alpha=config.alpha, stage=MirroredStage(config.beta), invalid=config.invalid)
    if config.out is not None and config.out.resolve() == config.path.resolve():
        raise ConfigError(
            f"Scores must not overwrite the dialogues. Expected another file than {config.path} as --out, found the "
            "same. Name another."
        )
    transcripts = read_all(config.path)
    compared = [compare_paid(transcript, reward) for transcript in transcripts]
    if config.check:
        wrong = [number for number, kinds in enumerate(compared, start=1) if set(kinds) - {"equal"}]
        if wrong:
            raise TranscriptError(
                f"With --check, rewards must be those that were paid. Expected that in every line of {config.path}, "
                f"found other rewards, or none recorded, in {len(wrong)}: {', '.join(map(str, wrong[:_MOST_ERRORS]))}"
                f"{', ...' if len(wrong) > _MOST_ERRORS else ''}. Set alpha, beta and invalid as they were."
            )
    if config.out is not None:
        lines = "".join(score_line(transcript, reward) + "\n" for transcript in transcripts)
        write_atomically(config.out, lines)
    print(summary(transcripts, reward, (kind for kinds in compared for kind in kinds)))
