from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import RECOMMENDER, USER, CoarsEnv, CoarsReward, Item
from coars_env.rendering.terminal import dialogue_lines
from coars_env.testing import toy_episodes, toy_instructed_episodes

CLICK = {"action": 3, "strength": 0.9, "message": "Yes."}
SKIP = {"action": 1, "strength": 0.3, "message": "Not today."}


def played(env: CoarsEnv, said: list[tuple[int, Any]]) -> CoarsEnv:
    env.reset(options={"task_id": "toy-0"})
    for item, answer in said:
        env.step({RECOMMENDER: {"item": item, "message": "This?"}, USER: answer})
        if answer:
            env.step({RECOMMENDER: {}, USER: answer})
    return env


def test_a_dialogue_is_rendered_with_its_rewards() -> None:
    env = played(CoarsEnv(toy_episodes(), render_mode="ansi"), [(1, SKIP), (0, CLICK)])
    # the rewards of test_env: -.65 * 2/3, .4 * .96; .95 * 10/9, .8 * .96
    assert (env.render() or "").splitlines()[-10:] == [
        "2. 七人の侍 (1954)",
        "Turn 1. Recommender proposes Heat (1995): This?",
        "Turn 1. Peers: one somewhat like you took it after Alien (1979) and Fargo (1996); one little like you took it "
        "after Fargo (1996); one little like you took it.",
        "Turn 1. User answers skip (0.30): Not today.",
        "Turn 1. Rewards: recommender -0.43, user +0.38.",
        "Turn 2. Recommender proposes Brazil (1985): This?",
        "Turn 2. Peers: one much like you took it after Alien (1979).",
        "Turn 2. User answers click (0.90): Yes.",
        "Turn 2. Rewards: recommender +1.06, user +0.77.",
        "Ended: accepted. Truly taken next: Brazil (1985).",
    ]


def test_questions_and_instructions_are_rendered_for_people() -> None:
    env = CoarsEnv(toy_instructed_episodes(), render_mode="ansi", reward=CoarsReward(question_cost=0.25), max_turns=4)
    env.reset(options={"task_id": "toy-1"})
    said: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"ask": "decade", "message": "Of which decade?"}, {**SKIP, "message": "Recent.", "reveal": "decade: 2000s"}),
        ({"ask": "genre", "message": "Which genre?"}, {**SKIP, "message": "I would rather not say."}),
        ({"item": 2, "message": "This?"}, {**SKIP, "reveal": "genre: Comedy"}),
        ({"ask": "genre", "message": "Which?"}, {**SKIP, "action": 4, "error": "?", "message": ""}),
    ]
    for recommender, user in said:
        env.step({RECOMMENDER: recommender, USER: user})
        env.step({RECOMMENDER: recommender, USER: user})
    assert env.dialogue
    assert (env.render() or "").splitlines()[-15:] == [
        "2. Brazil (1985)",
        "The user wants: genre: Comedy; decade: 2000s.",
        "Turn 1. Recommender asks for the decade: Of which decade?",
        "Turn 1. User wants decade: 2000s: Recent.",
        "Turn 1. Rewards: recommender -0.25, user +0.00.",
        "Turn 2. Recommender asks for the genre: Which genre?",
        "Turn 2. User reveals nothing: I would rather not say.",
        "Turn 2. Rewards: recommender -0.25, user +0.00.",
        "Turn 3. Recommender proposes Brazil (1985): This?",
        "Turn 3. User answers skip (0.30), wants genre: Comedy: Not today.",
        "Turn 3. Rewards: recommender -0.72, user +0.39.",  # a miss: -.65 * 10/9; q = -.5: .4 (1 - .1 * .2)
        "Turn 4. Recommender proposes (no item): Which?",
        "Turn 4. User gives no usable answer.",
        "Turn 4. Rewards: recommender -1.00, user -1.00.",
        "Ended: max_turns. Truly taken next: Amélie (2001).",
    ]
    lines = dialogue_lines(env.dialogue.task, env.dialogue.turns, env.dialogue.terms, env.episodes.items, None)
    said_in = [line.style for line in lines if line.style != "dim"]
    assert said_in == ["bold", "cyan", "bold", "cyan", "bold", "yellow", "magenta", "magenta"]


def test_the_target_is_not_told_before_the_end() -> None:
    episodes = toy_episodes()
    other = replace(episodes, tasks=(replace(episodes.tasks[0], target=3), *episodes.tasks[1:]))
    said: list[tuple[int, Any]] = [(1, SKIP), (1, None)]
    rendered = [played(CoarsEnv(e, render_mode="ansi"), said).render() for e in (episodes, other)]
    assert rendered[0] == rendered[1]
    assert "Truly" not in str(rendered[0])


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30))
def test_printing_shows_what_is_returned_whatever_the_titles(title: str) -> None:
    episodes = replace(toy_episodes(), items=tuple(Item(f"{title}[/b][red]{n}") for n in range(6)))
    env = played(CoarsEnv(episodes, render_mode="ansi"), [(1, SKIP), (0, CLICK)])
    returned = str(env.render())
    with pytest.MonkeyPatch.context() as patch:
        shown: list[str] = []
        patch.setattr("sys.stdout", Written(shown))
        env.render_mode = "human"
        assert env.render() is None
    assert "".join(shown) == returned + "\n"


class Written:
    """A stream that keeps what it is given."""

    encoding = "utf-8"

    def __init__(self, kept: list[str]) -> None:
        self.write = kept.append

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False
