"""Transcript: everything that was said and done in one episode. Messages only; tokens stay with the agents.

A transcript holds all a reward needs (the task with candidates, order, target, peer similarities and opinions, every
parsed action, the ending), so stored dialogues can be scored and read again, also with a reward written later.
"""

import dataclasses
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from coars_env.datasets.dataset import Provenance
from coars_env.errors import ActionError, CoarsError, ConfigError, TranscriptError
from coars_env.files import write_atomically
from coars_env.tasks import Task, task_from_row, task_row

Role = Literal["recommender_0", "user_0"]
EndingKind = Literal["accepted", "max_turns", "failed"]

TRANSCRIPT_VERSION = 2
RECOMMENDER: Role = "recommender_0"
USER: Role = "user_0"
ROLES: tuple[Role, Role] = (RECOMMENDER, USER)

ACTIONS = ("dislike", "skip", "star", "click")
"""What a user can do, from worst to best; an action's index is its number in the spaces."""
STRENGTH_EDGES = (0.0, 0.25, 0.5, 0.75)
"""Lower edge of each action's interval of acceptance strength; the paper is silent, so these are ours."""
MAX_MESSAGE_LENGTH = 2048
"""Longest rationale in characters; longer ones are cut."""
LIKENESS = ("little like you", "somewhat like you", "much like you")
"""How a peer of each level is introduced to the user, see `Opinion.level`."""


def find_role(name: str) -> Role:
    """The side that a name means: "recommender" and "user" will do.

    Raises:
        ConfigError: it means none.
    """
    for role in ROLES:
        if name in (role, role.removesuffix("_0")):
            return role
    raise ConfigError(f"There are two sides. Expected role 'recommender' or 'user', found {name!r}. Choose one.")


def clamp_strength(action: int, strength: float | None) -> float:
    """The strength moved into the interval of the action, in steps of .01: the action decides (our choice).

    None and NaN, a missing strength, become the middle of the interval.

    >>> clamp_strength(ACTIONS.index("skip"), 0.9)
    0.49

    Raises:
        ActionError: there is no such action.
    """
    if not 0 <= action < len(ACTIONS):
        raise ActionError(f"There are four actions. Expected a number in 0..{len(ACTIONS) - 1}, found {action!r}.")
    low = STRENGTH_EDGES[action]
    high = STRENGTH_EDGES[action + 1] - 0.01 if action + 1 < len(ACTIONS) else 1.0
    if strength is None or math.isnan(strength):
        strength = (low + high) / 2
    return round(min(max(float(strength), low), high), 2)


def clean_message(text: str) -> str:
    """NFC, control characters and line breaks made blanks, at most `MAX_MESSAGE_LENGTH` characters.

    Any string is a legal message; what comes out fits in one line of UTF-8.
    """
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():  # what is printable holds none of these
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
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
    """Why the message could not be used; None if it could. A turn with an error is played, recorded and counted."""
    user_error: str | None = None
    """The same for the reply. With neither `action` nor `user_error` the turn is open: the user has yet to answer."""

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
    rewards: tuple[tuple[float, float], ...] = ()
    """What was paid to the recommender and to the user for each turn, by whatever reward the game was played with;
    empty where nobody was paid. `coars rescore` computes them again."""

    @property
    def final_item(self) -> int | None:
        """Catalogue index of the last turn's proposal, accepted or not; None without turns or if it named none."""
        return self.turns[-1].proposal if self.turns else None

    def to_json(self) -> str:
        """One line, keys sorted: equal transcripts give equal bytes."""
        row = {"version": TRANSCRIPT_VERSION, **dataclasses.asdict(self), "task": task_row(self.task)}
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
                row["task"] = task_from_row(row["task"])
                row["turns"] = tuple(Turn(**turn) for turn in row["turns"])
                row["provenance"] = Provenance(**row["provenance"])
                row["rewards"] = tuple((float(a), float(b)) for a, b in row.get("rewards", ()))
                transcript = cls(**row)
                _check(transcript)
                return transcript
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, CoarsError) as error:
            raise TranscriptError(
                f"A transcript is one JSON object a line. Expected one written by Transcript.to_json, found "
                f"{line!r:.60} ({error!r}). Play the episode again, or take the line out."
            ) from error
        raise TranscriptError(
            f"Transcripts carry a version. Expected {TRANSCRIPT_VERSION}, found {version!r}. "
            "Read it with the version of coars-env that wrote it."
        )


def _check(transcript: Transcript) -> None:
    """Refuse what no dialogue could have left behind; a reward must never see it."""
    turns, task = transcript.turns, transcript.task
    whole = [
        transcript.seed,
        transcript.max_turns,
        *(n for t in turns for n in (t.proposal, t.action) if n is not None),
    ]
    if {type(number) for number in whole} != {int} or transcript.seed < 0:
        raise ValueError(
            "seed, number of turns, proposals and actions must be whole numbers, and the seed not negative"
        )
    texts = [*vars(transcript.provenance).values(), transcript.cause or ""]
    texts += [error or "" for turn in turns for error in (turn.recommender_error, turn.user_error)]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("provenance, cause and errors must be texts")
    if transcript.ending not in get_args(EndingKind) or len(turns) > transcript.max_turns:
        raise ValueError(f"ending {transcript.ending!r} after {len(turns)} of {transcript.max_turns} turns")
    if len(transcript.rewards) not in (0, len(turns)) or not all(map(math.isfinite, chain(*transcript.rewards))):
        raise ValueError(f"there must be two finite rewards for each of {len(turns)} turns, or none at all")
    for number, turn in enumerate(turns, start=1):
        proposed = (turn.proposal is None) == (turn.recommender_error is not None)
        answered = (turn.action is None) == (turn.strength is None) == (turn.user_error is not None)
        if not (proposed and answered):
            raise ValueError(f"turn {number} must have either content or an error on each side")
        if not (isinstance(turn.rationale, str) and isinstance(turn.reply, str)):
            raise ValueError(f"turn {number} must have a text on each side")
        if turn.proposal is not None and turn.proposal not in task.candidates:
            raise ValueError(f"turn {number} proposes {turn.proposal}, which is no candidate")
        if turn.action is not None and turn.strength is not None:
            low, high = (*STRENGTH_EDGES, math.inf)[turn.action : turn.action + 2]
            if not (turn.action >= 0 and low <= turn.strength < high and turn.strength <= 1):
                raise ValueError(f"turn {number} has action {turn.action} with strength {turn.strength}")
    clicked = [turn.proposal is not None and turn.action == ACTIONS.index("click") for turn in turns]
    ended = "accepted" if any(clicked[-1:]) else "max_turns" if len(turns) == transcript.max_turns else "failed"
    if any(clicked[:-1]) or transcript.ending not in ("failed", ended):
        raise ValueError(f"ending {transcript.ending!r}, which does not follow from the turns")


def write_transcripts(path: str | Path, transcripts: Iterable[Transcript]) -> None:
    """Write JSONL, atomically.

    Raises:
        ConfigError: nothing can be written there.
    """
    write_atomically(path, "".join(t.to_json() + "\n" for t in transcripts))


def read_transcripts(path: str | Path) -> Iterator[Transcript]:
    """Read JSONL.

    Raises:
        TranscriptError: there is no such file, or a line is no transcript; the message names it.
    """
    for number, line in enumerate(transcript_lines(path), start=1):
        try:
            yield Transcript.from_json(line)
        except TranscriptError as error:
            raise TranscriptError(f"{path}, line {number}: {error}") from error


def transcript_lines(path: str | Path) -> list[str]:
    """The lines of a file of transcripts, unread.

    Raises:
        TranscriptError: there is no such file, or it is not UTF-8.
    """
    try:
        lines = Path(path).read_bytes().decode().split("\n")  # splitlines would also split inside messages
    except (OSError, UnicodeDecodeError) as error:
        raise TranscriptError(
            f"Transcripts are read from a UTF-8 text file. Expected one at {path}, found {error!r}. Check the path."
        ) from error
    return lines[:-1] if lines[-1] == "" else lines
