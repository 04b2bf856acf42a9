"""Role: the names of the agents of a game, and what they mean."""

import re

from coars_env.errors import ConfigError, whole_number

Role = str
"""Name of an agent: "recommender_0", "user_0"."""
RECOMMENDER: Role = "recommender_0"
USER: Role = "user_0"
ROLES: tuple[Role, ...] = (RECOMMENDER, USER)
"""The agents of a game with one user: the recommender, then the user. See `agents_of`."""


def find_role(name: str) -> Role:
    """The agent that a name means: "recommender" will do for "recommender_0" and "user" for "user_0".

    Raises:
        ConfigError: it means none.
    """
    for role in ROLES:
        if name in (role, role.removesuffix("_0")):
            return role
    if isinstance(name, str) and re.fullmatch(r"user_[1-9]\d{0,8}", name, re.ASCII):
        return name
    raise ConfigError(
        f"There are two sides. Expected role 'recommender' or 'user', found {name!r}. Choose one; the users of a group "
        "are 'user_0', 'user_1' and so on."
    )


def agents_of(num_users: int) -> tuple[Role, ...]:
    """Return the agents of a game: the recommender, then the users: `recommender_0, user_0, user_1, ...`.

    Raises:
        ConfigError: no number of users.
    """
    num_users = whole_number("Somebody must be recommended to.", "num_users", num_users, 1)
    return (RECOMMENDER, *(f"user_{place}" for place in range(num_users)))


def side_of(role: Role) -> int:
    """Return 0 for the recommender and 1 for every user, as `speaker` of an observation counts the sides."""
    return int(role != RECOMMENDER)


def user_of(role: Role) -> int | None:
    """Return the place of a user among the users, 1 for "user_1"; None for the recommender."""
    return None if role == RECOMMENDER else int(role.removeprefix("user_"))
