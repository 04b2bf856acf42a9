"""Transcript: everything that was said and done in one episode. Messages only; tokens stay with the agents.

A transcript holds all a reward needs (the task with candidates, order, target and peer similarities, every parsed action,
the ending), so stored dialogues can be scored again, also with a reward written later.
"""

import dataclasses
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coars_env.datasets.dataset import Item, Provenance
from coars_env.errors import CoarsError, TranscriptError
from coars_env.tasks import Task, write_atomically

TRANSCRIPT_VERSION = 1
RECOMMENDER = "recommender_0"
USER = "user_0"
ROLES = (RECOMMENDER, USER)

ACTIONS = ("dislike", "skip", "star", "click")
"""What a user can do, from worst to best; an action's index is its number in the spaces."""
STRENGTH_EDGES = (0.0, 0.25, 0.5, 0.75)
"""Lower edge of each action's interval of acceptance strength; the paper is silent, so these are ours."""
MAX_MESSAGE_LENGTH = 2048
"""Longest rationale in characters; longer ones are cut."""

Role = Literal["recommender_0", "user_0"]
EndingKind = Literal["accepted", "max_turns", "failed"]


def clamp_strength(action: int, strength: float) -> float:
    """The strength moved into the interval of the action, in steps of .01: the action decides (our choice).

    >>> clamp_strength(ACTIONS.index("skip"), 0.9)
    0.49
    """
    low = STRENGTH_EDGES[action]
    high = STRENGTH_EDGES[action + 1] - 0.01 if action + 1 < len(ACTIONS) else 1.0
    return round(min(max(round(float(strength), 2), low), high), 2)


def clean_message(text: str) -> str:
    """NFC, control characters made blanks, at most `MAX_MESSAGE_LENGTH` characters. Any string is a legal message."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return text[:MAX_MESSAGE_LENGTH]


@dataclass(frozen=True)
class Turn:
    """A proposal and the answer to it.

    Example: `Turn(proposal=12, rationale="Like Heat.", action=3, strength=0.9, reply="I loved Heat.")`.
    """

    proposal: int | None
    """Catalogue index; None if the recommender's message named no candidate, see `recommender_error`."""
    rationale: str
    action: int | None
    """Index into `ACTIONS`; None if the user's message held none, see `user_error`."""
    strength: float | None
    """Acceptance in [0, 1], inside the interval of the action; None with no action."""
    reply: str
    recommender_error: str | None = None
    """Why the message could not be used. A turn with an error is played, recorded and counted."""
    user_error: str | None = None

    @property
    def positive(self) -> bool:
        """Whether the user reacted well: star or click, strength >= .5."""
        return self.strength is not None and self.strength >= STRENGTH_EDGES[ACTIONS.index("star")]


@dataclass(frozen=True)
class Transcript:
    """One finished episode."""

    task: Task
    max_turns: int
    turns: tuple[Turn, ...]
    ending: EndingKind
    """"accepted": the user clicked a proposal; "max_turns": it never did; "failed": see `cause`."""
    cause: str | None
    """Why it failed; None otherwise."""
    provenance: Provenance
    seed: int = 0
    """Seed of the attempt. Two attempts at one task have different seeds."""

    @property
    def final_item(self) -> int | None:
        """Catalogue index of the last proposal, accepted or not; None if there is none."""
        return self.turns[-1].proposal if self.turns else None

    def to_json(self) -> str:
        """One line, keys sorted: equal transcripts give equal bytes."""
        row = {"version": TRANSCRIPT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> "Transcript":
        """Inverse of `to_json`.

        Raises:
            TranscriptError: not JSON, not a transcript, or of an unknown version.
        """
        try:
            row: dict[str, Any] = json.loads(line)
            version = row.pop("version")
            if version == TRANSCRIPT_VERSION:
                task = row.pop("task")
                tuples = {k: tuple(task.pop(k)) for k in ("history", "candidates", "peer_similarity")}
                return cls(
                    task=Task(**task, **tuples),
                    turns=tuple(Turn(**turn) for turn in row.pop("turns")),
                    provenance=Provenance(**row.pop("provenance")),
                    **row,
                )
        except (ValueError, KeyError, TypeError, AttributeError, CoarsError) as error:
            raise TranscriptError(
                f"A transcript is one JSON object a line. Expected one written by Transcript.to_json, found "
                f"{line[:60]!r} ({error!r}). Play the episode again, or take the line out."
            ) from error
        raise TranscriptError(
            f"Transcripts carry a version. Expected {TRANSCRIPT_VERSION}, found {version!r}. "
            "Read it with the version of coars-env that wrote it."
        )


def write_transcripts(path: Path, transcripts: Iterable[Transcript]) -> None:
    """Write JSONL, atomically."""
    write_atomically(path, "".join(t.to_json() + "\n" for t in transcripts))


def read_transcripts(path: Path) -> Iterator[Transcript]:
    """Read JSONL, naming the line of anything that is not a transcript."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TranscriptError(
            f"Transcripts are read from a UTF-8 text file. Expected one at {path}, found {error!r}. Check the path."
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            yield Transcript.from_json(line)
        except TranscriptError as error:
            raise TranscriptError(f"{path}, line {number}: {error}") from error


def dialogue_text(task: Task, turns: Sequence[Turn], items: Sequence[Item], role: Role) -> str:
    """The episode so far as one side may see it: the user is not shown the list of candidates; nobody the target."""
    lines = ["Recently taken, oldest first:", *(f"- {items[i].title}" for i in task.history)]
    if role == RECOMMENDER:
        lines += ["Candidates:", *(f"{n}. {items[i].title}" for n, i in enumerate(task.candidates))]
    for number, turn in enumerate(turns, start=1):
        title = "(no item)" if turn.proposal is None else items[turn.proposal].title
        lines.append(f"Turn {number}. Recommender proposes {title}: {turn.rationale}")
        if turn.action is not None:
            lines.append(f"Turn {number}. User answers {ACTIONS[turn.action]} ({turn.strength:.2f}): {turn.reply}")
        elif turn.user_error is not None:
            lines.append(f"Turn {number}. User gives no usable answer.")
    return "\n".join(lines)
