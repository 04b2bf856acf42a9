"""turn_of: a finished turn of one user in one line."""

from coars_env import Answer, Turn


def turn_of(
    proposal: int | None,
    rationale: str,
    action: int | None,
    strength: float | None,
    message: str,
    error: str | None = None,
    user_error: str | None = None,
) -> Turn:
    return Turn(proposal, rationale, (Answer(action, strength, message, user_error),), error)
