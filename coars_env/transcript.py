"""Transcript: everything said and done in one episode. Messages only; tokens stay with the agents.

A transcript holds all a reward needs (the task with candidates, order, target, peer similarities and opinions, every
parsed action, the ending), so stored dialogues can be scored and read again, also with a reward written later.
"""

import dataclasses
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from coars_env.datasets.dataset import Facet, Provenance
from coars_env.errors import ActionError, CoarsError, TranscriptError
from coars_env.files import write_atomically
from coars_env.roles import RECOMMENDER as RECOMMENDER
from coars_env.roles import ROLES as ROLES
from coars_env.roles import USER as USER
from coars_env.roles import Role as Role
from coars_env.roles import agents_of as agents_of
from coars_env.roles import find_role as find_role
from coars_env.rules import PAPER, Rules
from coars_env.tasks import Task, task_from_row, task_row

EndingKind = Literal["accepted", "max_turns", "failed"]

TRANSCRIPT_VERSION = 4
"""Of transcripts with an instruction or several users, or by other rules than `PAPER`; all others are of version 3."""

ACTIONS = ("dislike", "skip", "star", "click")
"""What a user can do, from worst to best; an action's index is its number in the spaces."""
STRENGTH_EDGES = (0.0, 0.25, 0.5, 0.75)
"""Lower edge of each action's interval of acceptance strength; the paper is silent, so these are ours."""
_POSITIVE = STRENGTH_EDGES[ACTIONS.index("star")]
_CLICK = ACTIONS.index("click")
MAX_MESSAGE_LENGTH = 2048
"""Longest rationale in characters; longer ones are cut."""
LIKENESS = ("little like you", "somewhat like you", "much like you")
"""How a peer of each level is introduced to the user, see `Opinion.level`."""


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
class Answer:
    """One user's answer to a proposal.

    Example: `Answer(action=3, strength=0.9, message="I loved Heat.")`.
    """

    action: int | None
    """Index into `ACTIONS`; None if the message holds none, see `error`."""
    strength: float | None
    """Acceptance in [0, 1], inside the interval of the action; None without an action."""
    message: str
    """The reason, as the recommender reads it."""
    error: str | None = None
    """Why the message could not be used; None if it could."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Labelled parts of the reply that the partner does not see, such as a thought. No observation holds them."""
    reveal: Facet | None = None
    """What the user says that it wants; true or not. None if it reveals nothing."""

    @property
    def positive(self) -> bool:
        """Whether the user reacted well: star or click, strength >= .5."""
        return self.strength is not None and self.strength >= _POSITIVE


@dataclass(frozen=True)
class Turn:
    """A proposal and the users' answers to it.

    Example: `Turn(proposal=12, rationale="Like Heat.", answers=(Answer(3, 0.9, "I loved Heat."),))`.
    """

    proposal: int | None
    """Catalogue index; None if the recommender asks, or its message could not be used, see `error`."""
    rationale: str
    """The recommender's reason, as the users read it."""
    answers: tuple[Answer, ...] = ()
    """One answer for each user, in the order of the agents; empty while the turn is open."""
    error: str | None = None
    """Why the recommender's message could not be used; None if it could. A turn with an error is played, recorded and
    counted."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Labelled parts of the recommender's reply that the users do not see, see `Answer.fields`."""
    question: str | None = None
    """Kind of facet that the recommender asks for, in place of a proposal; None if it does not ask. The answers to a
    question hold no action and no strength."""

    @property
    def answer(self) -> Answer | None:
        """The answer of the only or first user; None while the turn is open."""
        return self.answers[0] if self.answers else None

    @property
    def usable(self) -> bool:
        """Whether the turn names a candidate and every user answered with an action."""
        answers = self.answers
        return self.proposal is not None and bool(answers) and all(answer.action is not None for answer in answers)

    @property
    def positive(self) -> bool:
        """Whether every user reacted well: star or click, strength >= .5."""
        return bool(self.answers) and all(answer.positive for answer in self.answers)

    @property
    def answered(self) -> bool:
        """Whether the turn is a question and every user's answer could be read."""
        answers = self.answers
        return self.question is not None and bool(answers) and all(answer.error is None for answer in answers)

    @property
    def rejected(self) -> bool:
        """Whether some user disliked or skipped the proposal."""
        return self.usable and not self.positive

    @property
    def accepted(self) -> bool:
        """Whether every user clicked the proposal, which ends the episode."""
        return self.usable and all(answer.action == _CLICK for answer in self.answers)

    @property
    def strength(self) -> float:
        """Mean acceptance strength over the users, in [0, 1]; -1 without a proposal or a usable answer."""
        given = [answer.strength for answer in self.answers if answer.strength is not None]
        return sum(given) / len(given) if given and self.proposal is not None else -1.0


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
    rewards: tuple[Mapping[str, float], ...] = field(default=(), hash=False)
    """What each agent earned in each turn, by name, from the reward that the game was played with; empty where none was
    paid. `coars rescore` computes them again."""
    rules: Rules = PAPER
    """The rules that it was played by."""

    @property
    def final_item(self) -> int | None:
        """Catalogue index of the last turn's proposal, accepted or not; None without turns or if it named none."""
        return self.turns[-1].proposal if self.turns else None

    @property
    def best_item(self) -> int | None:
        """Catalogue index of the accepted proposal, else of the one accepted most strongly, see `best_proposal`."""
        return best_proposal(self.turns)

    @property
    def answer_item(self) -> int | None:
        """What the dialogue answered by its rules: `final_item` or `best_item`; None if the dialogue failed."""
        if self.ending == "failed":
            return None
        return self.final_item if self.rules.answer == "last" else self.best_item

    def to_json(self) -> str:
        """One line, keys sorted: equal transcripts give equal bytes."""
        row = {"version": TRANSCRIPT_VERSION, **dataclasses.asdict(self), "task": task_row(self.task)}
        if self.task.instruction is None and self.rules == PAPER and not self.task.others:
            row["version"] = 3
            del row["rules"]
            for turn in row["turns"]:
                del turn["question"]
                for answer in turn["answers"]:
                    del answer["reveal"]
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
            if version in (2, 3, TRANSCRIPT_VERSION):
                read_turn, read_rewards = (_turn_v2, _rewards_v2) if version == 2 else (_turn, _rewards)
                row["task"] = task_from_row(row["task"])
                row["turns"] = tuple(map(read_turn, row["turns"]))
                row["provenance"] = Provenance(**row["provenance"])
                row["rewards"] = tuple(map(read_rewards, row.get("rewards", ())))
                if version != TRANSCRIPT_VERSION and "rules" in row:
                    raise ValueError(f"version {version} knows no rules")
                row["rules"] = Rules(**row["rules"]) if version == TRANSCRIPT_VERSION else PAPER
                transcript = cls(**row)
                _check(transcript)
                return transcript
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, CoarsError) as error:
            raise TranscriptError(
                f"A transcript is one JSON object a line. Expected one written by Transcript.to_json, found "
                f"{line!r:.60} ({error!r}). Play the episode again, or take the line out."
            ) from error
        raise TranscriptError(
            f"Transcripts carry a version. Expected 2, 3 or {TRANSCRIPT_VERSION}, found {version!r}. "
            "Read it with the version of coars-env that wrote it."
        )


def rejected_items(turns: Sequence[Turn]) -> set[int]:
    """Return the items that were proposed in some turn and rejected."""
    return {turn.proposal for turn in turns if turn.proposal is not None and turn.rejected}


def best_proposal(turns: Sequence[Turn]) -> int | None:
    """Return the accepted proposal, else the one accepted most strongly, the earlier on ties; None without any."""
    proposing = [turn for turn in turns if turn.proposal is not None]
    return max(proposing, key=lambda turn: (turn.accepted, turn.strength)).proposal if proposing else None


def _turn(row: dict[str, Any]) -> Turn:
    return Turn(**{**row, "answers": tuple(map(_answer, row["answers"]))})


def _answer(row: dict[str, Any]) -> Answer:
    reveal = row.get("reveal")
    return Answer(**{**row, "reveal": None if reveal is None else Facet(*reveal)})


def _rewards(row: dict[str, Any]) -> dict[str, float]:
    return {agent: float(reward) for agent, reward in row.items()}


def _turn_v2(row: dict[str, Any]) -> Turn:
    """Read a turn of version 2, which held one user's answer beside the proposal."""
    own = {"action", "strength", "reply", "user_error"}
    answer = Answer(row["action"], row["strength"], row["reply"], row["user_error"])
    rest = {key: value for key, value in row.items() if key not in own}
    return Turn(answers=(answer,), error=rest.pop("recommender_error"), **rest)


def _rewards_v2(row: Iterable[Any]) -> dict[str, float]:
    """Read what version 2 paid: a number to the recommender and one to the user."""
    return {agent: float(reward) for agent, reward in zip(ROLES, row, strict=True)}


def _check(transcript: Transcript) -> None:
    """Refuse what no dialogue could have left behind; a reward must never see it."""
    turns = transcript.turns
    proposals = [turn.proposal for turn in turns if turn.proposal is not None]
    actions = [answer.action for turn in turns for answer in turn.answers if answer.action is not None]
    whole = {type(number) for number in (transcript.seed, transcript.max_turns, *proposals, *actions)}
    if whole != {int} or transcript.seed < 0:
        raise ValueError(
            "seed, number of turns, proposals and actions must be whole numbers, and the seed not negative"
        )
    replies: list[Turn | Answer] = [*turns, *(answer for turn in turns for answer in turn.answers)]
    texts = [*vars(transcript.provenance).values(), transcript.cause or "", *(reply.error or "" for reply in replies)]
    texts += [text for reply in replies for pair in reply.fields.items() for text in pair]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("provenance, cause, errors and fields must be texts")
    if transcript.ending not in get_args(EndingKind) or len(turns) > transcript.max_turns:
        raise ValueError(f"ending {transcript.ending!r} after {len(turns)} of {transcript.max_turns} turns")
    _check_rewards(transcript)
    for number, turn in enumerate(turns, start=1):
        _check_turn(transcript.task, turn, number)
        _check_rules(transcript, number)
    finished = "max_turns" if len(turns) == transcript.max_turns else "failed"
    ended = "accepted" if any(turn.accepted for turn in turns[-1:]) else finished
    if any(turn.accepted for turn in turns[:-1]) or transcript.ending not in ("failed", ended):
        raise ValueError(f"ending {transcript.ending!r}, which does not follow from the turns")


def _check_rewards(transcript: Transcript) -> None:
    rewards, turns = transcript.rewards, transcript.turns
    agents = agents_of(transcript.task.num_users)
    if len(rewards) not in (0, len(turns)) or not all(
        set(paid) == set(agents) and all(map(math.isfinite, paid.values())) for paid in rewards
    ):
        wanted = f"a finite reward for each of {list(agents)}, or none has"
        raise ValueError(f"each of {len(turns)} turns must have {wanted}")


def _check_rules(transcript: Transcript, number: int) -> None:
    rules, turn = transcript.rules, transcript.turns[number - 1]
    if turn.question is not None and (not rules.questions or number == transcript.max_turns):
        raise ValueError(f"turn {number} asks where nothing may be asked")
    rejected = rejected_items(transcript.turns[: number - 1])
    if rules.repeats == "forbidden" and turn.proposal in rejected and set(transcript.task.candidates) - rejected:
        raise ValueError(f"turn {number} proposes {turn.proposal} again, which is forbidden")


def _check_turn(task: Task, turn: Turn, number: int) -> None:
    if len(turn.answers) != task.num_users:
        raise ValueError(f"turn {number} must have one answer for each user, and has {len(turn.answers)}")
    whole = [sum(part is not None for part in (turn.proposal, turn.question, turn.error)) == 1]
    for answer in turn.answers:
        empty = answer.action is None and answer.strength is None
        none = (answer.action is None) == (answer.strength is None) == (answer.error is not None)
        whole.append(none if turn.question is None else empty)
    if not all(whole):
        raise ValueError(f"turn {number} must have either content or an error on each side")
    if not all(isinstance(text, str) for text in (turn.rationale, *(answer.message for answer in turn.answers))):
        raise ValueError(f"turn {number} must have a text on each side")
    kinds = task.instruction.kinds if task.instruction else ()
    facets = [answer.reveal for answer in turn.answers if answer.reveal is not None]
    if not {*(facet.kind for facet in facets), *([turn.question] if turn.question is not None else [])} <= set(kinds):
        raise ValueError(f"turn {number} asks for or reveals a facet of another kind than {list(kinds)}")
    if not all(isinstance(text, str) for facet in facets for text in facet):
        raise ValueError(f"turn {number} reveals what is no facet")
    if turn.proposal is not None and turn.proposal not in task.candidates:
        raise ValueError(f"turn {number} proposes {turn.proposal}, which is no candidate")
    for answer in turn.answers:
        if answer.action is not None and answer.strength is not None:
            low, high = (*STRENGTH_EDGES, math.inf)[answer.action : answer.action + 2]
            if not (answer.action >= 0 and low <= answer.strength < high and answer.strength <= 1):
                raise ValueError(f"turn {number} has action {answer.action} with strength {answer.strength}")


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
