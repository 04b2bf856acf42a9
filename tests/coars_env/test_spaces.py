import pickle
from typing import Any

import pytest

from coars_env import RECOMMENDER, ROLES, USER, CoarsEnv, Facet, Rules
from coars_env.rules import PAPER
from coars_env.spaces import OneText, action_spaces, as_member, observation_space
from coars_env.testing import toy_episodes, toy_instructed_episodes

ITEMS, KINDS = toy_instructed_episodes().items, ("genre", "decade")
ANSWER = {"action": 1, "strength": 0.3, "message": "No."}


def spaces(rules: Rules | None = None, kinds: tuple[str, ...] = KINDS) -> Any:
    return action_spaces(3, ITEMS, kinds, rules or PAPER)


def test_one_text_is_one_of_its_options() -> None:
    space = OneText(["", "genre", "decade"], seed=0)
    assert all(space.contains(text) for text in ("", "genre", "decade"))
    assert not any(space.contains(other) for other in ("tag", None, 0, b"genre", ["genre"]))
    assert {space.sample() for _ in range(40)} == {"", "genre", "decade"}
    assert pickle.loads(pickle.dumps(space)) == space != OneText(["", "genre"])
    assert repr(space) == "OneText(3 options such as 'decade')"
    assert not space.is_np_flattenable
    draws = [[OneText(space.options, seed=seed).sample() for _ in range(2)] for seed in range(9)]
    assert all(first == second for first, second in draws)


def test_keys_of_games_with_an_instruction() -> None:
    plain = set(observation_space(3, ITEMS, (), PAPER, 4))
    asking = set(observation_space(3, ITEMS, KINDS, PAPER, 4))
    assert asking - plain == {"instruction", "kinds", "askable", "questions", "reveals"}
    assert plain < asking
    for kinds, keys in (((), plain), (KINDS, asking)):
        assert set(observation_space(3, ITEMS, kinds, Rules(repeats="forbidden"), 4)) - keys == {"allowed"}
    assert [set(spaces()[role]) - set(spaces(kinds=())[role]) for role in ROLES] == [{"ask"}, {"reveal"}]
    assert "ask" not in spaces(Rules(questions=False))[RECOMMENDER].spaces
    assert "reveal" in spaces(Rules(questions=False))[USER].spaces
    assert spaces()[USER]["reveal"].options[:2] == ("", "genre: Action")
    assert len(spaces()[USER]["reveal"].options) == 1 + 13


@pytest.mark.parametrize("rules", [PAPER, Rules(repeats="forbidden"), Rules(questions=False)], ids=str)
@pytest.mark.parametrize("episodes", [toy_episodes(), toy_instructed_episodes()], ids=["plain", "instructed"])
def test_every_observation_lies_in_its_space(episodes: Any, rules: Rules) -> None:
    env = CoarsEnv(episodes, rules=rules, max_turns=5)
    for number, role in enumerate(ROLES):
        env.action_space(role).seed(number)
    kinds_of_turns = set()
    for seed in range(30):
        observations, _ = env.reset(seed=seed)
        while True:
            for role in ROLES:
                assert env.observation_space(role).contains(observations[role])
            if not env.agents:
                break
            observations, *_ = env.step({role: env.action_space(role).sample() for role in ROLES})
        kinds_of_turns |= {turn.question for turn in env.transcript.turns}
    asks = len(episodes.kinds) > 0 and rules.questions
    assert kinds_of_turns == ({None, "genre", "decade"} if asks else {None})


@pytest.mark.parametrize(
    ("action", "member"),
    [
        ({"item": 1, "message": "Heat?"}, {"item": 1, "message": "Heat?", "ask": ""}),
        ({"ask": "genre", "message": "Which?"}, {"item": 3, "message": "Which?", "ask": "genre"}),
        ({"ask": "genre", "item": 0, "message": "Which?"}, {"item": 0, "message": "Which?", "ask": "genre"}),
        ({"ask": "", "item": 0, "message": ""}, {"item": 0, "message": "", "ask": ""}),
        ({"ask": "brand", "message": "Which?"}, None),
        ({"ask": "", "message": ""}, None),
        ({"ask": None, "item": 0, "message": ""}, None),
        ({"ask": 5, "message": ""}, None),
    ],
)
def test_questions_are_members(action: Any, member: Any) -> None:
    found = as_member(action, spaces()[RECOMMENDER])
    assert found == (None if member is None else {**member, "error": None, "fields": {}})


@pytest.mark.parametrize(
    ("reveal", "written"),
    [
        ({}, ""),
        ({"reveal": "genre: Comedy"}, "genre: Comedy"),
        ({"reveal": Facet("genre", "Comedy")}, "genre: Comedy"),
        ({"reveal": "genre: Western"}, None),
        ({"reveal": "Comedy"}, None),
        ({"reveal": 5}, None),
    ],
)
def test_reveals_are_members(reveal: Any, written: str | None) -> None:
    found = as_member({**ANSWER, **reveal}, spaces()[USER])
    assert (None if found is None else found["reveal"]) == written


@pytest.mark.parametrize(
    ("rules", "kinds", "role", "action"),
    [
        (Rules(questions=False), KINDS, RECOMMENDER, {"ask": "genre", "item": 0, "message": ""}),
        (Rules(), (), RECOMMENDER, {"ask": "genre", "item": 0, "message": ""}),
        (Rules(), (), USER, {**ANSWER, "reveal": "genre: Comedy"}),
    ],
)
def test_nothing_is_asked_or_revealed_where_the_game_has_none_of_it(
    rules: Rules, kinds: Any, role: str, action: Any
) -> None:
    assert as_member(action, spaces(rules, kinds)[role]) is None
