"""How turns come from what the sides say, and how their answers are shown."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from coars_env.datasets.dataset import Facet, Item
from coars_env.errors import ActionError
from coars_env.observation import Action
from coars_env.roles import Role
from coars_env.tasks import Task
from coars_env.transcript import ACTIONS, MAX_MESSAGE_LENGTH, Answer, Turn, clamp_strength, clean_message


def clean_fields(action: Action) -> dict[str, str]:
    """Return the action's `fields`, each label and text cleaned by `clean_message`; none where there is no such key.

    Raises:
        ActionError: they are no mapping of texts.
    """
    fields = action.get("fields")
    if fields is None:
        return {}
    if not isinstance(fields, Mapping) or not all(isinstance(text, str) for pair in fields.items() for text in pair):
        raise ActionError(
            f"The fields of an action must be a mapping from labels to texts, got {fields!r:.200}. Pass such as "
            "{'thought': 'They like crime.'}, or leave them out."
        )
    return {clean_message(label): clean_message(text) for label, text in fields.items()}


def clean_facet(facet: Facet) -> Facet | None:
    """Return a facet whose value was cleaned by `clean_message`; None where nothing is left of it."""
    value = clean_message(facet.value)[: MAX_MESSAGE_LENGTH - len(facet.kind) - 2].strip()
    return Facet(facet.kind, value) if value else None


def open_turn(
    task: Task, position: int, message: str, error: str | None = None, fields: Mapping[str, str] | None = None
) -> Turn:
    """Return the turn that a recommender's message opens, see `Dialogue.recommend`."""
    named = position < len(task.candidates)
    return Turn(
        proposal=task.candidates[position] if named else None,
        rationale=clean_message(message),
        error=None if named else clean_message(error or "the message names no candidate"),
        fields=clean_fields({"fields": fields}),
    )


def repeat_error(item: Item) -> str:
    """Return why a proposal could not be used where repeats are forbidden."""
    return f"{item.title!r} was rejected in an earlier turn, and repeats are forbidden"


def read_answer(
    action: int,
    strength: float | None,
    message: str,
    error: str | None = None,
    fields: Mapping[str, str] | None = None,
    *,
    reveal: Facet | None = None,
    asked: bool = False,
) -> Answer:
    """Return a user's answer as a turn records it, see `Dialogue.reply`. An answer to a question has no action."""
    if asked:
        error = clean_message(error) if error and action == len(ACTIONS) else None
        reveal = reveal if error is None else None
        return Answer(None, None, clean_message(message), error, clean_fields({"fields": fields}), reveal)
    usable = action < len(ACTIONS)
    return Answer(
        action=action if usable else None,
        strength=clamp_strength(action, strength) if usable else None,
        message=clean_message(message),
        error=None if usable else clean_message(error or "the message holds no action"),
        fields=clean_fields({"fields": fields}),
        reveal=reveal if usable else None,
    )


@contextmanager
def reading(speaker: Role, action: object) -> Iterator[None]:
    """Make what a mapping without the keys of its space raises an `ActionError`."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as reason:
        raise ActionError(
            f"An action is a dict with the keys of its space. Expected one from {speaker}, found {action!r} "
            f"({reason!r}). See the docstring of CoarsEnv."
        ) from reason


def answer_rows(turns: Sequence[Turn], max_turns: int, num_users: int) -> dict[str, Any]:
    """Return the answers to turns as an observation holds them: `actions`, `strengths`, `replies` and `reveals`.

    One entry for each of `max_turns` turns; of a group, a row of these for each user.
    """
    actions, strengths = np.full((num_users, max_turns), -1, np.int64), np.full((num_users, max_turns), -1, np.float32)
    replies, reveals = ([[""] * max_turns for _ in range(num_users)] for _ in range(2))
    for number, turn in enumerate(turns):
        for place, answer in enumerate(turn.answers):
            if answer.action is not None:
                actions[place, number], strengths[place, number] = answer.action, answer.strength
            replies[place][number], reveals[place][number] = answer.message, str(answer.reveal or "")
    rows = {"actions": actions, "strengths": strengths}
    texts = {"replies": tuple(map(tuple, replies)), "reveals": tuple(map(tuple, reveals))}
    found: dict[str, Any] = {**rows, **texts}
    return found if num_users > 1 else {key: of_users[0] for key, of_users in found.items()}
