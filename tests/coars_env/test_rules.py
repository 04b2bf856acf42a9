from typing import Any

import pytest

from coars_env import ConfigError, Dialogue, Rules, make
from coars_env.rules import PAPER
from coars_env.testing import toy_episodes


def test_the_rules_of_the_paper_change_nothing() -> None:
    assert (PAPER.repeats, PAPER.answer, PAPER.questions) == ("paid", "last", True)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"repeats": "free"}, r"repeats must be one of \('paid', 'unpaid', 'forbidden'\), got 'free'\. Name one"),
        ({"repeats": None}, r"repeats must be one of .*, got None"),
        ({"answer": "first"}, r"answer must be one of \('last', 'best'\), got 'first'\. Name one"),
        ({"answer": ["best"]}, r"answer must be one of .*, got \['best'\]"),
        ({"questions": "no"}, r"questions must be True or False, got 'no'"),
        ({"questions": 1}, r"questions must be True or False, got 1"),
    ],
)
def test_there_are_no_other_rules(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rules(**rules)


@pytest.mark.parametrize("rules", ["forbidden", Rules, {"repeats": "paid"}])
def test_what_is_no_rules_is_refused(rules: Any) -> None:
    episodes = toy_episodes()
    with pytest.raises(ConfigError, match=r"Expected an object of the kind Rules, found .*(Pass Rules|Make an)"):
        make(episodes, rules=rules)
    with pytest.raises(ConfigError, match=r"A dialogue has rules"):
        Dialogue(episodes.tasks[0], episodes.items, rules=rules)
