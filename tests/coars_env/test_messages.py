from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Dialogue,
    Facet,
    Instruction,
    Member,
    Rules,
    asked_kind,
    clean_message,
    facet_vocabulary,
    messages,
    read_reply,
)
from coars_env.testing import toy_episodes, toy_instructed_episodes
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


# Instructions and questions -------------------------------------------------------------------------------------------

ASKING = toy_instructed_episodes()
FACETS = facet_vocabulary(ASKING.items, ASKING.kinds)
ACTS = Acts(3, ASKING.kinds, FACETS)


def asking_dialogue(**options: Any) -> Dialogue:
    return Dialogue(ASKING.tasks[1], ASKING.items, **options)


def contents(dialogue: Dialogue, role: Any, **options: Any) -> list[str]:
    return [message["content"] for message in messages(dialogue.observe(role), role, dialogue.items, **options)]


def test_a_dialogue_with_questions_as_chat_by_hand() -> None:
    dialogue = asking_dialogue()
    lists = "Taken so far, oldest first:\n- Heat (1995)\n- Fargo (1996)"
    rules, heard = contents(dialogue, RECOMMENDER)
    assert rules == (
        f"{RULES[RECOMMENDER]}\nIn place of an item you may ask what the user wants, but not in the last turn:\n"
        "Ask: <genre or decade>\nReason: <your question to the user>"
    )
    assert heard == f"{lists}\nCandidates:\n0. Alien (1979)\n1. Amélie (2001)\n2. Brazil (1985)"
    dialogue.ask("genre", "Which genre?")
    rules, heard = contents(dialogue, USER)
    assert rules == (
        f"{RULES[USER]}\nYou know what you want now. To say it, add a line:\nWish: <genre or decade>: <what you want>\n"
        "If you are asked what you want, reply in two lines, a wish and a reason, or by a reason alone if you would "
        "rather not say."
    )
    assert heard == (
        f"{lists}\nYou want: genre: Comedy; decade: 2000s.\nThe recommender asks for the genre: Which genre?"
    )
    dialogue.reply(4, None, "Something funny.", reveal=Facet("genre", "Comedy"))
    dialogue.ask("decade", "Of which decade?")
    dialogue.reply(4, None, "I would rather not say.")
    dialogue.recommend(2, "This?")
    dialogue.reply(1, 0.3, "Too old.", reveal=Facet("decade", "2000s"))
    assert contents(dialogue, RECOMMENDER)[2:] == [
        "Ask: genre\nReason: Which genre?",
        "The user wants genre: Comedy: Something funny.",
        "Ask: decade\nReason: Of which decade?",
        "The user says: I would rather not say.",
        "Item: 2\nReason: This?",
        "The user answers skip (0.30), wants decade: 2000s: Too old.",
    ]
    assert contents(dialogue, USER)[2:] == [
        "Wish: genre: Comedy\nReason: Something funny.",
        "The recommender asks for the decade: Of which decade?",
        "Reason: I would rather not say.",
        "The recommender proposes Brazil (1985): This?",
        "Action: skip\nScore: 0.30\nWish: decade: 2000s\nReason: Too old.",
    ]


def test_rules_are_part_of_the_prompt() -> None:
    strict, silent = Rules(repeats="forbidden"), Rules(questions=False)
    repeats = "\nWhat the user dislikes or skips must not be recommended again."
    plain, asking = toy_dialogue(), asking_dialogue()
    assert [contents(plain, role)[0] for role in ROLES] == [RULES[role] for role in ROLES]
    forbidding = Dialogue(plain.task, plain.items, rules=strict)
    assert [contents(forbidding, role)[0] for role in ROLES] == [RULES[RECOMMENDER] + repeats, RULES[USER]]
    assert contents(asking_dialogue(rules=strict), RECOMMENDER)[0] == contents(asking, RECOMMENDER)[0] + repeats
    assert contents(asking_dialogue(rules=silent), RECOMMENDER, rules=silent)[0] == RULES[RECOMMENDER]
    assert contents(asking_dialogue(rules=silent), USER, rules=silent)[0] == contents(asking, USER)[0]
    wanting_nothing = Dialogue(ASKING.tasks[3], ASKING.items)
    wanting_nothing.recommend(0, "")
    assert "\nYou want: anything.\n" in contents(wanting_nothing, USER)[1]


halves = st.tuples(
    st.sampled_from([{"ask": "genre"}, {"ask": "decade"}, {"item": 0}, {"item": 3}]),
    any_text,
    st.integers(0, 4),
    st.sampled_from(["", "genre: Comedy", "decade: 1950s"]),
    any_text,
)


@given(st.lists(halves, min_size=4, max_size=4))
def test_a_chat_with_questions_alternates_and_only_grows(said: list[Any]) -> None:
    dialogue = asking_dialogue(rules=Rules(repeats="forbidden"))
    before: dict[str, list[Any]] = {role: [] for role in ROLES}
    for proposal, words, action, wish, reply in said:
        if dialogue.ending is None:
            for role in ROLES:
                if role == RECOMMENDER:
                    dialogue.act({**proposal, "message": words})
                else:
                    dialogue.act({"action": action, "strength": None, "message": reply, "reveal": wish, "error": words})
                for side in ROLES:
                    told = messages(dialogue.observe(side), side, dialogue.items)
                    assert told[: len(before[side])] == before[side]
                    assert [m["role"] for m in told] == ["system", *["user", "assistant"] * 9][: len(told)]
                    before[side] = told


@pytest.mark.parametrize("question", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_acts_of_an_instructed_game_written_as_replies_are_the_same_acts(role: Any, question: bool) -> None:
    asked = question and role == USER
    for act, legal in enumerate(ACTS.mask(role, question=question)):
        text = reply_text(ACTS.to_action(act, role, question), role, 3, asked=asked)
        read = read_reply(text, role, 3, facets=FACETS, asked=asked)
        assert ACTS.to_act(read, role, question) == (act if legal else ACTS.wait)
        assert ("error" in read) == (not legal)


@given(
    any_text, st.sampled_from(ROLES), st.booleans(), st.sampled_from(["", "Ask: ", "Wish: ", "Reason: ", "Item: 1\n"])
)
def test_any_reply_is_an_action_of_an_instructed_game(text: str, role: Any, asks: bool, label: str) -> None:
    dialogue = asking_dialogue()
    if role == USER:
        dialogue.act({"ask": "genre" if asks else "", "item": 0, "message": ""})
    asked = asked_kind(dialogue.observe(role)) is not None
    action = read_reply(label + text, role, 3, facets=FACETS, asked=asked)
    dialogue.act(action)
    assert dialogue.parse_error(role) == (clean_message(action["error"]) if "error" in action else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ask: genre\nReason: Which?", {"ask": "genre", "item": 3, "message": "Which?"}),
        ("Reason: Which\n one?\n**Ask:** Decade.", {"ask": "decade", "item": 3, "message": "Which one?"}),
        ("Ask: genre", {"ask": "genre", "item": 3, "message": ""}),
        ("Item: 1\nReason: Ask me.", {"item": 1, "message": "Ask me."}),
        ("Ask: brand\nReason: Which?", "expected Ask: one of genre, decade, found 'brand'"),
        ("Ask:\nReason: Which?", "expected Ask: one of genre, decade, found ''"),
        ("Ask: genre, decade\nReason: Which?", "expected Ask: one of genre, decade, found 'genre, decade'"),
        ("Ask: genre\nItem: 1\nReason: Which?", "the message states both an item and a question"),
        ("Ask: genre\nAsk: genre\nReason: Which?", "the message states ask twice"),
        ("Which genre do you like?", "expected Item: 0..2, found 'none'"),
    ],
)
def test_a_question_is_read_and_never_guessed(text: str, expected: Any) -> None:
    action = read_reply(text, RECOMMENDER, 3, facets=FACETS)
    wrong = {"item": 3, "message": text, "error": expected}
    assert action == (wrong if isinstance(expected, str) else expected)


COMEDY = {"reveal": "genre: Comedy"}
FIRST = "genre: Action, genre: Comedy, genre: Crime, genre: Drama, genre: Horror, genre: Romance, genre: Sci-Fi"


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("Wish: genre: Comedy\nReason: Fun.", True, {**COMEDY, "message": "Fun."}),
        ("wish: Genre: comedy.", True, {**COMEDY, "message": ""}),
        ("Reason: I would\n rather not.", True, {"message": "I would rather not."}),
        ("Action: click\nScore: 7\nWish: genre: Comedy", True, {**COMEDY, "message": ""}),  # no action is asked for
        ("A comedy, please.", True, "expected Wish: or Reason:, found neither"),
        ("Action: click", True, "expected Wish: or Reason:, found neither"),
        (
            "Wish: genre: Western\nReason: Yes.",
            True,
            f"expected Wish: one of {FIRST}, genre: Thriller, ..., found 'genre: Western'",
        ),
        ("Wish: Comedy", True, f"expected Wish: one of {FIRST}, genre: Thriller, ..., found 'Comedy'"),
        ("Wish: genre: Comedy\nWish: decade: 1990s", True, "the message states wish twice"),
        (
            "Action: skip\nScore: 0.3\nWish: genre: Comedy\nReason: No.",
            False,
            {"action": 1, "strength": 0.3, "message": "No.", **COMEDY},
        ),
        ("Action: skip\nReason: No.", False, {"action": 1, "strength": 0.37, "message": "No."}),
        ("Wish: genre: Comedy\nReason: No.", False, "expected Action: dislike, skip, star, click, found 'none'"),
        (
            "Action: skip\nWish: genre: Fun",
            False,
            f"expected Wish: one of {FIRST}, genre: Thriller, ..., found 'genre: Fun'",
        ),
    ],
)
def test_a_wish_is_read_and_never_guessed(text: str, asked: bool, expected: Any) -> None:
    read = read_reply(text, USER, 3, facets=FACETS, asked=asked)
    nothing = {"action": 4, "strength": 0.0}
    wrong = {**nothing, "message": text, "error": expected}
    assert read == (wrong if isinstance(expected, str) else {**nothing, **expected})


def test_without_facets_nothing_is_asked_or_wished_for() -> None:
    text = "Item: 1\nReason: See.\nAsk: genre"
    assert read_reply(text, RECOMMENDER, 3) == {"item": 1, "message": "See. Ask: genre"}
    answer = {"action": 1, "strength": 0.37, "message": "See. Wish: genre: Comedy"}
    assert read_reply("Action: skip\nReason: See.\nWish: genre: Comedy", USER, 3) == answer


def test_a_facet_is_read_whatever_its_letters() -> None:
    facets = [Facet("like", text) for text in ("Heat", "HEAT", "Dr.", "Dr", "* star", "a: b")]
    for facet in facets:
        said = {"action": 4, "strength": 0.0, "message": "So.", "reveal": str(facet)}
        assert read_reply(reply_text(said, USER, 3, asked=True), USER, 3, facets=facets, asked=True) == said
    error = read_reply("Wish: like: heat", USER, 3, facets=facets, asked=True)["error"]
    assert error.startswith("expected Wish: one of like: Heat, like: HEAT, ")  # which of the two is not guessed


def test_a_group_as_chat_by_hand() -> None:
    episodes = toy_instructed_episodes()
    first = episodes.tasks[0]
    other = Member(9, (2,), instruction=Instruction((Facet("decade", "1980s"),), episodes.kinds))
    dialogue = Dialogue(replace(first, opinions=(), others=(other,)), episodes.items)

    def contents(role: str) -> list[tuple[str, str]]:
        told = messages(dialogue.observe(role), role, dialogue.items)  # type: ignore[arg-type]
        return [(message["role"], message["content"]) for message in told[1:]]

    users = "User 0, taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)\nUser 1, taken so far, oldest first:"
    lists = f"{users}\n- Alien (1979)\nCandidates:\n0. Brazil (1985)\n1. Heat (1995)\n2. 七人の侍 (1954)"
    own = "You are user 1; 2 users decide together.\nTaken so far, oldest first:\n- Alien (1979)"
    own += "\nYou want: decade: 1980s."
    assert contents(RECOMMENDER) == [("user", lists)]
    assert contents("user_1") == [("user", own)]
    dialogue.recommend(1, "Crime.")
    answers: dict[str, Any] = {
        "user_0": {"action": 1, "strength": 0.3, "message": "No.", "reveal": "genre: Comedy"},
        "user_1": {"action": 3, "strength": 0.9, "message": "Yes."},
    }
    dialogue.act_all(answers)
    heard = "User 0 answers skip (0.30), wants genre: Comedy: No.\nUser 1 answers click (0.90): Yes."
    proposed = ("assistant", "Item: 1\nReason: Crime.")
    assert contents(RECOMMENDER) == [("user", lists), proposed, ("user", heard)]
    before = contents("user_1")
    said = ("assistant", "Action: click\nScore: 0.90\nReason: Yes.")
    assert before == [("user", f"{own}\nThe recommender proposes Heat (1995): Crime."), said]
    dialogue.ask("genre", "Which?")
    assert contents("user_1") == [
        *before,
        ("user", "User 0 answers skip (0.30), wants genre: Comedy: No.\nThe recommender asks for the genre: Which?"),
    ]
