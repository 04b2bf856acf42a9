"""turn_of, asking: finished turns of one user in one line; told: a dialogue of the instructed toy."""

from collections.abc import Sequence
from dataclasses import replace

from coars_env import Answer, Facet, Instruction, Item, Member, Provenance, Rules, Task, Transcript, Turn


def turn_of(
    proposal: int | None,
    rationale: str,
    action: int | None,
    strength: float | None,
    message: str,
    error: str | None = None,
    user_error: str | None = None,
    reveal: Facet | None = None,
) -> Turn:
    return Turn(proposal, rationale, (Answer(action, strength, message, user_error, reveal=reveal),), error)


def asking(kind: str, message: str = "", reveal: Facet | None = None, error: str | None = None) -> Turn:
    return Turn(None, f"Which {kind}?", (Answer(None, None, message, error, reveal=reveal),), question=kind)


COMEDY, WAR, NINETIES = Facet("genre", "Comedy"), Facet("genre", "War"), Facet("decade", "1990s")
FILMS = (
    Item("Seen (1990)", ("Drama",), 1990),
    Item("Funny (1995)", ("Comedy",), 1995),
    Item("Old Fun (1950)", ("Comedy",), 1950),
    Item("Sad (1991)", ("Drama",), 1991),
    Item("Front (1951)", ("War",), 1951),
)
WISH = Task("wish", 0, (0,), (1, 2, 3, 4), 1, instruction=Instruction((COMEDY, NINETIES), kinds=("genre", "decade")))
"""The user wants item 1, the only comedy of the nineties."""


def told(
    turns: Sequence[Turn],
    ending: str = "max_turns",
    *,
    rules: Rules | None = None,
    task: Task = WISH,
    max_turns: int = 4,
) -> Transcript:
    cause = "user_0: broke" if ending == "failed" else None
    provenance = Provenance("custom", "wish", "0" * 64)
    return Transcript(task, max_turns, tuple(turns), ending, cause, provenance, rules=rules or Rules())  # type: ignore[arg-type]


def group_of(task: Task, *others: tuple[tuple[int, ...], tuple[Facet, ...]]) -> Task:
    """The task with more users, each of a history and what it wants."""
    kinds = task.instruction.kinds if task.instruction else ()
    members = tuple(
        Member(task.user + place, history, instruction=Instruction(wants, kinds) if kinds else None)
        for place, (history, wants) in enumerate(others, start=1)
    )
    return replace(task, others=members)
