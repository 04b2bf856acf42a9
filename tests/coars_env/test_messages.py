from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import ACTIONS, RECOMMENDER, ROLES, USER, Dialogue, clean_message, messages, read_reply
from coars_env.testing import toy_episodes
from coars_env.views.acts import Acts
from coars_env.views.messages import RULES, reply_text

any_text = st.text(st.characters(), max_size=60)


def toy_dialogue() -> Dialogue:
    episodes = toy_episodes()
    return Dialogue(episodes.tasks[0], episodes.items)


def chat(dialogue: Dialogue, role: Any) -> list[tuple[str, str]]:
    told = messages(dialogue.observe(role), role, dialogue.items)
    assert told[0] == {"role": "system", "content": RULES[role]}
    return [(message["role"], message["content"]) for message in told[1:]]


TAKEN = "Taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)"
LISTS = f"{TAKEN}\nCandidates:\n0. Brazil (1985)\n1. Heat (1995)\n2. 七人の侍 (1954)"


def test_a_dialogue_as_chat_by_hand() -> None:
    dialogue = toy_dialogue()
    assert chat(dialogue, RECOMMENDER) == [("user", LISTS)]
    assert chat(dialogue, USER) == [("user", TAKEN)]
    dialogue.recommend(1, "You like crime.")
    proposed = "Item: 1\nReason: You like crime."
    assert chat(dialogue, RECOMMENDER) == [("user", LISTS), ("assistant", proposed)]
    peers = (
        "Peers: one somewhat like you took it after Alien (1979) and Fargo (1996); one little like you took it after "
        "Fargo (1996); one little like you took it."
    )
    heard = f"{TAKEN}\nThe recommender proposes Heat (1995): You like crime.\n{peers}"
    assert chat(dialogue, USER) == [("user", heard)]
    dialogue.reply(1, 0.3, "Not today.")
    answered = ("user", "The user answers skip (0.30): Not today.")
    assert chat(dialogue, RECOMMENDER) == [("user", LISTS), ("assistant", proposed), answered]
    said = ("assistant", "Action: skip\nScore: 0.30\nReason: Not today.")
    assert chat(dialogue, USER) == [("user", heard), said]
    dialogue.recommend(3, "Guess!", "no candidate")
    assert chat(dialogue, RECOMMENDER)[3:] == [("assistant", "Guess!")]
    again = ("user", "The recommender proposes nothing that can be read: Guess!")
    assert chat(dialogue, USER) == [("user", heard), said, again]
    dialogue.reply(4, None, "Hm.")
    assert chat(dialogue, RECOMMENDER)[4:] == [("user", "The user gives no answer that can be read.")]
    assert chat(dialogue, USER)[3:] == [("assistant", "Hm.")]


@given(st.lists(st.tuples(st.integers(0, 3), any_text, st.integers(0, 4), any_text), min_size=1, max_size=4))
def test_a_chat_alternates_and_only_grows(said: list[tuple[int, str, int, str]]) -> None:
    dialogue = toy_dialogue()
    before: dict[str, list[Any]] = {role: [] for role in ROLES}
    for position, rationale, action, reply in said:
        if dialogue.ending is None:
            for role in ROLES:
                if role == RECOMMENDER:
                    dialogue.recommend(position, rationale)
                else:
                    dialogue.reply(action, None, reply)
                for side in ROLES:
                    told = messages(dialogue.observe(side), side, dialogue.items)
                    assert told[: len(before[side])] == before[side]
                    assert [m["role"] for m in told] == ["system", *["user", "assistant"] * 9][: len(told)]
                    before[side] = told
    assert not any("Brazil" in m["content"] for m in before[USER]) or any(turn.proposal == 5 for turn in dialogue.turns)


def test_acts_written_as_replies_are_the_same_acts() -> None:
    acts = Acts(3)
    for role, legal in ((RECOMMENDER, 3), (USER, 20)):
        for act in range(legal):
            text = reply_text(acts.to_action(act, role), role, 3)
            assert acts.to_act(read_reply(text, role, 3), role) == act
        assert acts.to_act(read_reply(reply_text(acts.to_action(20, role), role, 3), role, 3), role) == 20


@given(st.integers(0, 19), any_text, st.integers(0, 3), st.integers(0, 24))
def test_a_written_reply_is_read_as_it_was_meant(item: int, words: str, action: int, hundredths: int) -> None:
    words = clean_message(words).strip()
    proposal = {"item": item, "message": words}
    assert read_reply(reply_text(proposal, RECOMMENDER, 20), RECOMMENDER, 20) == proposal
    answer = {"action": action, "strength": round(0.25 * action + hundredths / 100, 2), "message": words}
    assert read_reply(reply_text(answer, USER, 20), USER, 20) == answer


@given(any_text, st.sampled_from(ROLES))
def test_any_reply_is_an_action(text: str, role: Any) -> None:
    dialogue = toy_dialogue()
    if role == USER:
        dialogue.recommend(0, "")
    dialogue.act(read_reply(text, role, 3))
    assert dialogue.turns


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Reason: You like crime.\nItem: 2", 2),
        ("I think so.\n\n**Item:** 2.\n**Reason:** You like crime.", 2),
        ("item : 0002\nreason:You like\n crime.", 2),
        ("Item: 20\nReason: You like crime.", None),
        ("Item: 2 or 3\nReason: You like crime.", None),
        ("Item: 2\nItem: 2\nReason: You like crime.", None),
        ("Item: -2\nReason: You like crime.", None),
        ("Item: ٢\nReason: You like crime.", None),
        ("Heat, because you like crime.", None),
        ("", None),
    ],
)
def test_a_proposal_is_read_and_never_guessed(text: str, item: int | None) -> None:
    action = read_reply(text, RECOMMENDER, 20)
    if item is None:
        assert (action["item"], action["message"]) == (20, text)
        assert "twice" in action["error"] or action["error"].startswith("expected Item: 0..19, found")
    else:
        assert action == {"item": item, "message": "You like crime."}


@pytest.mark.parametrize(
    ("text", "action", "strength"),
    [
        ("Action: click\nScore: 0.9\nReason: Yes.", 3, 0.9),
        ("Reason: Yes.\nAction: CLICK.\nScore: 1", 3, 1.0),
        ("Action: skip\nScore: .9\nReason: Yes.", 1, 0.49),
        ("Action: star\nReason: Yes.", 2, 0.62),
        ("Action: skip or click\nScore: 0.9\nReason: Yes.", None, 0),
        ("Action: skip\nScore: 7/10\nReason: Yes.", None, 0),
        ("Action: skip\nScore: 1.5\nReason: Yes.", None, 0),
        ("Action: skip\nScore: nan\nReason: Yes.", None, 0),
        ("Score: 0.9\nReason: Yes.", None, 0),
    ],
)
def test_an_answer_is_read_and_never_guessed(text: str, action: int | None, strength: float) -> None:
    read = read_reply(text, USER, 20)
    if action is None:
        assert (read["action"], read["message"]) == (len(ACTIONS), text)
        assert read["error"].startswith("expected ")
    else:
        assert read == {"action": action, "strength": strength, "message": "Yes."}
