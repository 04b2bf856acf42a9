"""Observation, Action: what one side sees and does, as plain dicts, and functions that read them."""

from collections.abc import Mapping
from typing import Any

from coars_env.datasets.dataset import Facet
from coars_env.errors import ActionError
from coars_env.tasks import Opinion, read_opinions

Observation = dict[str, Any]
"""What one side sees; a member of the space described in `CoarsEnv`."""
Action = Mapping[str, Any]
"""What one side does; a member of its space described in `CoarsEnv`, perhaps with the keys `error` and `fields`."""


def read_reveal(action: Action) -> Facet | None:
    """Return the facet that a user's action reveals, written as "kind: value"; None where it reveals nothing.

    Raises:
        ActionError: it is written otherwise.
    """
    written = action.get("reveal")
    if isinstance(written, Facet) or written is None:
        return written
    try:
        if isinstance(written, str):
            return Facet.parse(written)
        reason = "it is no text"
    except ValueError as error:
        reason = str(error)
    raise ActionError(f"reveal={written!r:.200} is no facet: {reason}. Write such as 'genre: Comedy'.")


def instruction_of(observation: Observation) -> tuple[Facet, ...]:
    """Return what the user wants, as it observes it; empty for the recommender and in games without an instruction."""
    lines = str(observation.get("instruction", "")).split("\n")
    return tuple(facet for line in lines if (facet := Facet.parse(line)) is not None)


def reveals_of(observation: Observation) -> tuple[Facet | None, ...]:
    """Return what the user revealed in each finished turn; None where it revealed nothing."""
    return tuple(map(Facet.parse, observation.get("reveals", ())[: int(observation["turn"])]))


def kinds_of(observation: Observation) -> tuple[str, ...]:
    """Return the kinds of facets that the two sides can talk about; none in games without an instruction."""
    return tuple(filter(None, str(observation.get("kinds", "")).split("\n")))


def askable_kinds(observation: Observation) -> tuple[str, ...]:
    """Return the kinds that the recommender may ask for in this turn."""
    kinds = kinds_of(observation)
    return tuple(kind for kind, open_ in zip(kinds, observation.get("askable", ()), strict=bool(kinds)) if open_)


def asked_kind(observation: Observation) -> str | None:
    """Return the kind of facet that the recommender asks for in this turn, which the user has to answer; else None."""
    if not observation["speaker"]:
        return None
    questions = observation.get("questions", ())
    return (questions[int(observation["turn"])] or None) if questions else None


def history_of(observation: Observation) -> list[int]:
    """Return the items taken before, as one side observes them: oldest first, without the padding."""
    return [item for item in observation["history"].tolist() if item >= 0]


def opinions_heard(observation: Observation, turn: int) -> tuple[Opinion, ...]:
    """What peers say of the proposal of a turn, counted from 0, as the user observes it; nearest first."""
    return read_opinions(observation["opinions"][turn].ravel().tolist())
