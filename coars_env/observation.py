"""Observation, Action: what one side sees and does, as plain dicts, and functions that read them."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from coars_env.datasets.dataset import Facet
from coars_env.errors import ActionError
from coars_env.tasks import Opinion, read_opinions

Observation = dict[str, Any]
"""What one side sees; a member of the space described in `CoarsEnv`."""
_BY_USER = ("actions", "strengths", "replies", "reveals")
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
    """Return what the user revealed in each finished turn; None where it revealed nothing. In a group, see `as_one`."""
    return tuple(map(Facet.parse, as_one(observation).get("reveals", ())[: int(observation["turn"])]))


def reveals_by_turn(observation: Observation) -> list[list[Facet | None]]:
    """Return what each user revealed in each finished turn; no turns in games without an instruction."""
    said = observation.get("reveals", ())
    turns = zip(*(said if "agent" in observation else (said,)), strict=True)
    return [list(map(Facet.parse, turn)) for turn in islice(turns, int(observation["turn"]))]


def all_reveals(observation: Observation) -> tuple[Facet, ...]:
    """Return what all users revealed in the finished turns, in order and each facet once."""
    found = (facet for turn in reveals_by_turn(observation) for facet in turn)
    return tuple(dict.fromkeys(facet for facet in found if facet is not None))


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
    """Return the items taken before, as one side observes them: oldest first, without the padding.

    For the recommender of a group these are the items of all users, the latest of each last; see `histories_of`.
    """
    return [item for item in observation["history"].T.ravel().tolist() if item >= 0]


def histories_of(observation: Observation) -> list[list[int]]:
    """Return `history_of` each user whose history is observed: all users' for the recommender, one's own for a user."""
    rows = observation["history"].reshape(-1, observation["history"].shape[-1])
    return [[item for item in row if item >= 0] for row in rows.tolist()]


def as_one(observation: Observation) -> Observation:
    """Return what an agent of a group sees as a game with one user shows it; the observation itself where one plays.

    A user keeps its own answers and loses the others'. To the recommender the group is one user, who took what all took
    (`history_of`), answers as the least willing of them does, with the mean strength, says what all said, and reveals
    what the first of them revealed. An answer that could not be read is the least willing.
    """
    if "agent" not in observation:
        return observation
    if observation["agent"]:
        return of_user(observation, int(observation["agent"]) - 1)
    actions, strengths = observation["actions"].min(0), observation["strengths"]
    one = {key: value for key, value in observation.items() if key != "agent"}
    one |= {"actions": actions, "strengths": np.where(actions < 0, -1, strengths.mean(0)).astype(strengths.dtype)}
    one["replies"] = tuple(" ".join(filter(None, said)) for said in zip(*one["replies"], strict=True))
    if "reveals" in one:
        one["reveals"] = tuple(next(filter(None, said), "") for said in zip(*one["reveals"], strict=True))
    return {**one, "history": observation["history"].T.ravel()}


def of_user(observation: Observation, place: int) -> Observation:
    """Return what an agent of a group sees with the answers of one user alone, as a game with one user shows them.

    To the recommender, with the history of that user, too. The observation itself where one user plays.
    """
    if "agent" not in observation:
        return observation
    one = {key: value for key, value in observation.items() if key != "agent"}
    one |= {key: one[key][place] for key in _BY_USER if key in one}
    return one if observation["agent"] else {**one, "history": observation["history"][place]}


def num_users_of(observation: Observation) -> int:
    """Return how many users decide together."""
    return len(observation["replies"]) if "agent" in observation else 1


def opinions_heard(observation: Observation, turn: int) -> tuple[Opinion, ...]:
    """What peers say of the proposal of a turn, counted from 0, as the user observes it; nearest first."""
    return read_opinions(observation["opinions"][turn].ravel().tolist())
