from typing import Any

import pytest

from coars_env import RECOMMENDER, ROLES, USER, ConfigError, agents_of, user_of
from coars_env.roles import find_role


def test_agents_are_the_recommender_and_then_the_users() -> None:
    assert agents_of(1) == ROLES == ("recommender_0", "user_0")
    assert agents_of(3) == ("recommender_0", "user_0", "user_1", "user_2")
    assert [user_of(role) for role in agents_of(3)] == [None, 0, 1, 2]


@pytest.mark.parametrize("num_users", [0, -1, 1.5, "two"])
def test_no_number_of_users_is_refused(num_users: Any) -> None:
    with pytest.raises(ConfigError, match=r"Expected num_users >= 1, found"):
        agents_of(num_users)


def test_a_name_means_an_agent() -> None:
    for name, role in (("recommender", RECOMMENDER), ("user", USER), (RECOMMENDER, RECOMMENDER), (USER, USER)):
        assert find_role(name) == role
    assert find_role("user_12") == "user_12"


@pytest.mark.parametrize("name", ["critic", "user_01", "user_-1", "user_x", "recommender_1", "", None])
def test_another_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"Expected role 'recommender' or 'user', found .* 'user_1' and so on"):
        find_role(name)
