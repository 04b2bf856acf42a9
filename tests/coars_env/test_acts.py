import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    CoarsEnv,
    Dialogue,
    Facet,
    Rules,
    facet_vocabulary,
    question_text,
    read_question,
    read_wish,
)
from coars_env.rules import PAPER
from coars_env.spaces import as_member
from coars_env.testing import toy_instructed_episodes
from coars_env.views.acts import ACT_STRENGTHS, Acts, question_open

TOY = toy_instructed_episodes()
KINDS = ("genre", "decade")
PLAIN = Acts(3)
# K = 3, Q = 2, V = 13: acts 3 and 4 ask, 20 to 32 reveal, 33 declines, 34 waits
ASKING = Acts(3, KINDS, facet_vocabulary(TOY.items, KINDS))
COMEDY, NINETIES, DECLINE, WAIT = 21, 31, 33, 34


# Without an instruction -----------------------------------------------------------------------------------------------


def test_acts_of_the_user_are_four_actions_of_five_strengths() -> None:
    assert [round(0.25 * a + 0.05 * k, 2) for a in range(4) for k in range(5)] == list(ACT_STRENGTHS)
    assert {**PLAIN.to_action(13, USER), "message": ""} == {"action": 2, "strength": 0.65, "message": ""}
    assert {**PLAIN.to_action(1, RECOMMENDER), "message": ""} == {"item": 1, "message": ""}


@pytest.mark.parametrize("num_candidates", [3, 20, 30])
def test_an_act_in_words_is_the_same_act(num_candidates: int) -> None:
    acts = Acts(num_candidates)
    assert (acts.n, acts.wait) == (max(num_candidates, 20) + 1, max(num_candidates, 20))
    for role in ROLES:
        legal = acts.mask(role)
        for act in np.flatnonzero(legal):
            assert acts.to_act(acts.to_action(act, role), role) == act
        for act in (*np.flatnonzero(1 - legal), -1, 10**6):
            action = acts.to_action(act, role)
            assert f"act {act} " in action["error"]
            assert acts.to_act(action, role) == acts.wait


@given(st.integers(0, 3), st.floats(0, 1, width=32))
def test_the_nearest_act_keeps_the_action_and_its_strength_to_a_twentieth(action: int, strength: float) -> None:
    act = PLAIN.to_act({"action": action, "strength": strength, "message": ""}, USER)
    assert act // 5 == action
    low, high = 0.25 * action, 0.25 * action + 0.25
    if low <= strength <= high - 0.01:
        assert ACT_STRENGTHS[act] == pytest.approx(strength, abs=0.051)


def test_masks_leave_the_speaker_its_acts_and_the_other_nothing_but_to_wait() -> None:
    masks = PLAIN.masks[:, :, 0]
    assert masks.shape == (2, 2, 21)
    assert np.flatnonzero(masks[0, 1]).tolist() == [0, 1, 2]
    assert np.flatnonzero(masks[1, 1]).tolist() == list(range(20))
    assert [np.flatnonzero(mask).tolist() for mask in masks[:, 0]] == [[20], [20]]
    assert np.flatnonzero(Acts(30).mask(RECOMMENDER)).tolist() == list(range(30))


# With one -------------------------------------------------------------------------------------------------------------


def test_the_numbers_of_acts_by_hand() -> None:
    assert (ASKING.n, ASKING.wait, ASKING.decline) == (35, WAIT, DECLINE)
    assert Acts(40, KINDS, ASKING.facets).n == 40 + 2 + 1
    assert ASKING.to_action(3, RECOMMENDER, True) == {"ask": "genre", "item": 3, "message": "Which genre?"}
    assert ASKING.to_action(4, RECOMMENDER, True)["ask"] == "decade"
    wish = {"action": 0, "strength": 0.12, "reveal": "genre: Comedy"}
    on_proposal = {**wish, "message": "Not for me. I want the genre Comedy."}
    assert ASKING.to_action(COMEDY, USER) == on_proposal
    assert ASKING.to_action(COMEDY, USER, True) == {**wish, "message": "I want the genre Comedy."}
    assert ASKING.to_action(NINETIES, USER, True)["message"] == "I want something of the 1990s."
    declined = {"action": 4, "strength": 0.0, "message": "I would rather not say."}
    assert ASKING.to_action(DECLINE, USER, True) == declined


@pytest.mark.parametrize("question", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_every_act_in_words_is_the_same_act_and_read_from_its_words_alone(role: str, question: bool) -> None:
    legal = ASKING.mask(role, question=question)
    count = {(RECOMMENDER, False): 3, (RECOMMENDER, True): 5, (USER, False): 33, (USER, True): 14}
    assert legal.sum() == count[role, question]
    for act in range(ASKING.n):
        action = ASKING.to_action(act, role, question)
        assert ("error" in action) == (not legal[act])
        assert ASKING.to_act(action, role, question) == (act if legal[act] else WAIT)
        asks, reveals = role == RECOMMENDER and 3 <= act < 5, role == USER and 20 <= act < DECLINE
        assert read_question(action["message"], KINDS) == (KINDS[act - 3] if asks and question else None)
        assert read_wish(action["message"], ASKING.facets) == (ASKING.facets[act - 20] if reveals else None)


@pytest.mark.parametrize(
    ("act", "role", "question", "error"),
    [
        (3, RECOMMENDER, False, "act 3 asks where nothing may be asked"),
        (5, RECOMMENDER, True, "act 5 names no candidate"),
        (WAIT, RECOMMENDER, True, "act 34 names no candidate"),
        (DECLINE, USER, False, "act 33 is no answer"),
        (7, USER, True, "act 7 is no answer to a question"),
        (WAIT, USER, True, "act 34 is no answer to a question"),
    ],
)
def test_an_act_that_may_not_be_done_cannot_be_read(act: int, role: str, question: bool, error: str) -> None:
    assert ASKING.to_action(act, role, question)["error"] == error


@pytest.mark.parametrize(
    ("action", "question", "act"),
    [
        ({"action": 1, "strength": 0.3, "reveal": "genre: Comedy"}, False, COMEDY),  # a rejection that says why
        ({"action": 2, "strength": 0.6, "reveal": "genre: Comedy"}, False, 12),
        ({"action": 3, "strength": 0.9, "reveal": "genre: Comedy"}, False, 18),
        ({"action": 3, "strength": 0.9, "reveal": Facet("genre", "Comedy")}, True, COMEDY),
        ({"action": 3, "strength": 0.9, "reveal": ""}, True, DECLINE),
        ({"action": 1, "strength": 0.3, "reveal": "genre: Western"}, False, 6),  # which no item has
        ({"action": 1, "strength": 0.3, "reveal": "genre: Western"}, True, DECLINE),
        ({"action": 4, "strength": 0.0, "reveal": "genre: Comedy"}, False, WAIT),
        ({"action": 4, "strength": 0.0, "error": "?"}, True, WAIT),
        ({"action": 4, "strength": 0.0}, True, DECLINE),
    ],
)
def test_the_nearest_act_of_the_user(action: dict[str, Any], question: bool, act: int) -> None:
    assert ASKING.to_act({"message": "", **action}, USER, question) == act


def test_a_question_of_another_kind_is_no_act() -> None:
    assert ASKING.to_act({"ask": "brand", "message": ""}, RECOMMENDER, True) == WAIT


@pytest.mark.parametrize("role", ROLES)
def test_acts_in_words_are_members_of_the_spaces_of_the_text_view(role: str) -> None:
    space = CoarsEnv(TOY).action_space(role)
    for act in range(ASKING.n):
        for question in (False, True):
            assert as_member(ASKING.to_action(act, role, question), space) is not None


# What the dialogue allows ---------------------------------------------------------------------------------------------


def legal(dialogue: Dialogue, role: str) -> list[int]:
    acts: list[int] = np.flatnonzero(ASKING.mask_of(dialogue.observe(role), role)).tolist()
    return acts


def test_masks_follow_the_dialogue() -> None:
    dialogue = Dialogue(TOY.tasks[0], TOY.items, max_turns=3, rules=PAPER)
    assert (legal(dialogue, RECOMMENDER), legal(dialogue, USER)) == ([0, 1, 2, 3, 4], [WAIT])
    dialogue.ask("genre", "")
    assert (legal(dialogue, RECOMMENDER), legal(dialogue, USER)) == ([WAIT], list(range(20, 34)))
    dialogue.reply(0, None, "", reveal=Facet("genre", "Comedy"))
    dialogue.recommend(1, "")
    assert legal(dialogue, USER) == list(range(33))
    dialogue.reply(1, 0.3, "")
    assert legal(dialogue, RECOMMENDER) == [0, 1, 2]  # the last turn must propose
    dialogue.recommend(1, "")
    dialogue.reply(1, 0.3, "")
    assert legal(dialogue, RECOMMENDER) == [0, 1, 2]


def test_masks_follow_the_rules() -> None:
    silent = Dialogue(TOY.tasks[0], TOY.items, rules=Rules(questions=False))
    assert legal(silent, RECOMMENDER) == [0, 1, 2]
    assert not question_open(silent.observe(RECOMMENDER), RECOMMENDER)
    strict = Dialogue(TOY.tasks[0], TOY.items, rules=Rules(repeats="forbidden"))
    for position, left in ((1, [0, 2, 3, 4]), (0, [2, 3, 4]), (2, [0, 1, 2])):  # when all were rejected, all come back
        strict.recommend(position, "")
        assert legal(strict, USER) == list(range(33))
        strict.reply(0, 0.1, "")
        assert legal(strict, RECOMMENDER) == left
    assert ASKING.mask(USER, forbidden=[1]).sum() == 33


def test_a_mask_may_be_changed_by_whom_it_was_given_to() -> None:
    dialogue = Dialogue(TOY.tasks[0], TOY.items)
    for mask in (ASKING.mask(USER), ASKING.mask_of(dialogue.observe(USER), USER)):
        mask[:] = 0
    assert legal(dialogue, USER) == [WAIT]
    with pytest.raises(ValueError, match="read-only"):
        ASKING.masks[:] = 0


@given(
    st.lists(st.tuples(st.integers(0, WAIT), st.integers(0, WAIT)), min_size=4, max_size=4), st.sampled_from(TOY.tasks)
)
def test_any_play_in_acts_ends_with_every_act_that_was_not_legal_recorded(said: list[Any], task: Any) -> None:
    dialogue = Dialogue(task, TOY.items, rules=Rules(repeats="forbidden"))
    for pair in said:
        for role, act in zip(ROLES, pair, strict=True):
            if dialogue.ending is None:
                observed = dialogue.observe(role)
                allowed = ASKING.mask_of(observed, role)[act]
                dialogue.act(ASKING.to_action(act, role, question_open(observed, role)))
                assert (dialogue.parse_error(role) is None) == allowed
    assert dialogue.ending is not None


def test_the_words_are_those_of_the_template_language() -> None:
    assert question_text("genre") == ASKING.to_action(3, RECOMMENDER, True)["message"]
    assert re.fullmatch(r"Not for me\. .*", ASKING.to_action(COMEDY, USER)["message"])
    assert len(ACTIONS) == 4
