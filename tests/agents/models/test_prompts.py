"""What each side is told and how replies are read; no model takes part."""

from dataclasses import replace

import pytest

from agents.models.backbones.pocket_wording import POCKET_INSTRUCTED_PHRASES
from agents.models.fields import Field, OneOf, candidate_titles
from agents.models.prompts import (
    ACTION_TEXTS,
    ASKING_SYSTEM,
    INSTRUCTED_PHRASES,
    PHRASES,
    RECOMMENDER_SYSTEM,
    USER_SYSTEM,
    WANTING_SYSTEM,
    Pieces,
    hindsight,
    prompt,
    score_texts,
    without_opinions,
)
from agents.models.replies import ReplyFormat
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Dialogue,
    Facet,
    Instruction,
    Item,
    Member,
    Role,
    Rules,
    Task,
    Turn,
    clamp_strength,
)
from coars_env.testing import toy_dataset, toy_episodes
from turns import turn_of

ITEMS = toy_dataset().items
TASK = toy_episodes().tasks[0]  # history Amélie, Fargo; candidates Brazil, Heat, 七人の侍; target Brazil
BRAZIL, HEAT, AMÉLIE, FARGO = 5, 1, 0, 4
TITLES = [ITEMS[i].title for i in TASK.candidates]


def told(dialogue: Dialogue, role: Role) -> Pieces:
    return prompt(role, dialogue.observe(role), ITEMS, "\n-").content


def test_the_recommender_is_told_history_and_candidates_then_only_what_is_new() -> None:
    dialogue = Dialogue(TASK, ITEMS)
    first = prompt(RECOMMENDER, dialogue.observe(RECOMMENDER), ITEMS, "\n-")
    assert first.system == RECOMMENDER_SYSTEM
    assert "".join(first.content) == (
        "Taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)\nCandidates:\n- Brazil (1985)\n- Heat (1995)"
        "\n- 七人の侍 (1954)\nReply with a Reason and one Item of the candidates."
    )
    dialogue.recommend(1, "A crime film.")
    dialogue.reply(action=0, strength=0.1, message="Too grim.")
    assert "".join(told(dialogue, RECOMMENDER)) == "The user's answer: dislike 0.10\nBecause: Too grim.\nPropose again."


def test_the_user_is_told_history_and_proposal_but_no_candidates() -> None:
    dialogue = Dialogue(replace(TASK, opinions=()), ITEMS)
    dialogue.recommend(1, "A crime film.")
    first = prompt(USER, dialogue.observe(USER), ITEMS, "\n-")
    assert first.system == USER_SYSTEM
    assert "".join(first.content) == (
        "Taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)\nRecommended: Heat (1995)\nBecause: A crime film."
        "\nReply with a Reason, an Action and a Score."
    )
    dialogue.reply(action=1, strength=0.3, message="")
    dialogue.recommend(0, "")
    assert "".join(told(dialogue, USER)) == ("Recommended: Brazil (1985)\nReply with a Reason, an Action and a Score.")


def test_the_user_is_told_what_peers_say_of_each_proposal() -> None:
    dialogue = Dialogue(TASK, ITEMS)
    dialogue.recommend(1, "A crime film.")
    heard = "".join(told(dialogue, USER))
    assert heard.endswith(
        "\nRecommended: Heat (1995)\nBecause: A crime film."
        "\nA peer somewhat like you took it after Alien (1979) and Fargo (1996)"
        "\nA peer little like you took it after Fargo (1996)\nA peer little like you took it"
        "\nReply with a Reason, an Action and a Score."
    )
    silent = prompt(USER, without_opinions(dialogue.observe(USER)), ITEMS, "\n-").content
    assert silent == prompt(USER, unheard(dialogue).observe(USER), ITEMS, "\n-").content
    dialogue.reply(action=1, strength=0.3, message="")
    assert "peer" not in "".join(told(dialogue, RECOMMENDER))
    dialogue.recommend(2, "")
    assert "peer" not in "".join(told(dialogue, USER))  # nobody took it
    dialogue.reply(action=1, strength=0.3, message="")
    dialogue.recommend(0, "")
    assert "".join(told(dialogue, USER)) == (
        "Recommended: Brazil (1985)\nA peer much like you took it after Alien (1979)"
        "\nReply with a Reason, an Action and a Score."
    )


def unheard(dialogue: Dialogue) -> Dialogue:
    """The same dialogue of a task without opinions."""
    other = Dialogue(replace(TASK, opinions=()), ITEMS)
    for turn in dialogue.turns:
        assert turn.proposal is not None
        other.recommend(TASK.candidates.index(turn.proposal), turn.rationale)
    return other


def test_a_message_that_could_not_be_read_is_told_as_such() -> None:
    dialogue = Dialogue(TASK, ITEMS)
    dialogue.recommend(len(TITLES), "Something!", error="no item")
    assert "Recommended: nothing from the list\nBecause: Something!" in "".join(told(dialogue, USER))
    dialogue.reply(action=len(ACTIONS), strength=0.0, message="What?", error="no action")
    assert "".join(told(dialogue, RECOMMENDER)) == "The user's answer: none that could be read\nPropose again."


def test_titles_of_one_token_stand_in_a_list_without_separator() -> None:
    content = prompt(RECOMMENDER, Dialogue(TASK, ITEMS).observe(RECOMMENDER), ITEMS, "").content
    assert content[:3] == ("Taken so far, oldest first:", " Amélie (2001)", " Fargo (1996)")


@pytest.mark.parametrize("role", ROLES)
def test_no_prompt_depends_on_the_target(role: Role) -> None:
    seen = set()
    for target in TASK.candidates:
        dialogue = Dialogue(replace(TASK, target=target), ITEMS)
        pieces: list[Pieces] = []
        for position in (1, 0, 2):
            pieces.append(told(dialogue, RECOMMENDER) if role == RECOMMENDER else ())
            dialogue.recommend(position, "This one?")
            pieces.append(told(dialogue, USER) if role == USER else ())
            dialogue.reply(action=1, strength=0.4, message="No.")
        seen.add(tuple(pieces))
    assert len(seen) == 1


def test_the_scores_of_an_action_lie_in_its_interval_and_together_cover_the_range() -> None:
    texts = [score_texts(action) for action in range(len(ACTIONS))]
    assert texts[0] == (" 0.00", " 0.05", " 0.10", " 0.15", " 0.20")
    assert texts[3] == (" 0.75", " 0.80", " 0.85", " 0.90", " 0.95", " 1.00")
    assert [float(text) for group in texts for text in group] == pytest.approx([0.05 * n for n in range(21)])
    for action, group in enumerate(texts):
        assert [clamp_strength(action, float(text)) for text in group] == [float(text) for text in group]
    assert ACTION_TEXTS == (" dislike", " skip", " star", " click")


def test_fixed_phrases_are_all_different_and_none_is_empty() -> None:
    phrases = PHRASES + INSTRUCTED_PHRASES
    assert len(set(phrases)) == len(phrases)
    assert all(phrases)
    assert set(INSTRUCTED_PHRASES) == set(POCKET_INSTRUCTED_PHRASES)


# Instructions ---------------------------------------------------------------------------------------------------------

COMEDY, EIGHTIES = Facet("genre", "Comedy"), Facet("decade", "1980s")
WISHING = replace(TASK, opinions=(), instruction=Instruction((COMEDY, EIGHTIES), ("genre", "decade")))
OPENING = (
    "Taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)\nCandidates:\n- Brazil (1985)\n- Heat (1995)"
    "\n- 七人の侍 (1954)"
)


def test_the_recommender_is_told_what_it_may_ask_and_what_was_answered() -> None:
    dialogue = Dialogue(WISHING, ITEMS)
    first = prompt(RECOMMENDER, dialogue.observe(RECOMMENDER), ITEMS, "\n-")
    assert first.system == ASKING_SYSTEM
    assert "".join(first.content) == (
        f"{OPENING}\nYou may ask: Which genre? Of which decade?"
        "\nReply with a Reason and one Item of the candidates or a question."
    )
    dialogue.ask("genre", "To be sure.")
    dialogue.reply(0, None, "I want the genre Comedy.", reveal=COMEDY)
    assert "".join(told(dialogue, RECOMMENDER)) == "The user's answer:\nWants: Comedy\nPropose again, or ask."  # once
    dialogue.recommend(1, "A crime film.")
    dialogue.reply(0, 0.1, "Too grim. I want something of the 1980s.", reveal=EIGHTIES)
    assert "".join(told(dialogue, RECOMMENDER)) == (
        "The user's answer: dislike 0.10\nBecause: Too grim.\nWants: 1980s\nPropose again, or ask."
    )
    dialogue.ask("decade", "")
    dialogue.reply(0, None, "No.")
    assert "".join(told(dialogue, RECOMMENDER)) == (  # the last turn must propose
        "The user's answer:\nWants: nothing\nBecause: No.\nPropose again."
    )
    assert prompt(RECOMMENDER, dialogue.observe(RECOMMENDER), ITEMS, "\n-").system == ASKING_SYSTEM


def test_no_question_is_offered_where_none_may_be_asked() -> None:
    dialogue = Dialogue(WISHING, ITEMS, rules=Rules(questions=False))
    assert "".join(told(dialogue, RECOMMENDER)) == f"{OPENING}\nReply with a Reason and one Item of the candidates."
    dialogue.recommend(len(TITLES), "?", error="no item")
    dialogue.reply(len(ACTIONS), 0.0, "?", error="no action")
    assert "".join(told(dialogue, RECOMMENDER)) == "The user's answer: none that could be read\nPropose again."


def test_a_format_without_questions_is_told_of_none() -> None:
    dialogue, silent = Dialogue(WISHING, ITEMS), ReplyFormat((Field("Item", OneOf(candidate_titles)),))
    first = prompt(RECOMMENDER, dialogue.observe(RECOMMENDER), ITEMS, "\n-", reply_format=silent)
    assert "".join(first.content) == f"{OPENING}\nReply with one Item of the candidates."
    dialogue.recommend(1, "")
    dialogue.reply(0, 0.1, "")
    later = prompt(RECOMMENDER, dialogue.observe(RECOMMENDER), ITEMS, "\n-", reply_format=silent)
    assert later.content[-1] == "\nPropose again."


def test_the_user_is_told_what_it_wants_and_what_is_asked() -> None:
    dialogue = Dialogue(WISHING, ITEMS)
    dialogue.ask("genre", "To be sure.")
    first = prompt(USER, dialogue.observe(USER), ITEMS, "\n-")
    assert first.system == WANTING_SYSTEM
    assert "".join(first.content) == (
        "Taken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)\nYou want: Comedy; 1980s\n"
        "The recommender asks: Which genre?\nBecause: To be sure.\nReply with a Wish."
    )
    assert "".join(first.content[: first.opening]).endswith("\nYou want: Comedy; 1980s\n")
    dialogue.reply(0, None, "", reveal=COMEDY)
    dialogue.recommend(1, "")
    assert "".join(told(dialogue, USER)) == (
        "Recommended: Heat (1995)\nReply with a Reason, an Action, a Score and a Wish."
    )


def test_a_user_that_wants_nothing_is_told_so() -> None:
    dialogue = Dialogue(replace(WISHING, instruction=Instruction((), ("genre",))), ITEMS)
    dialogue.recommend(1, "")
    assert "\nYou want: anything\n" in "".join(told(dialogue, USER))


def test_the_recommender_is_told_nothing_of_the_instruction() -> None:
    heard = set()
    for wants in ((), (COMEDY,), (EIGHTIES, COMEDY), (Facet("genre", "Sci-Fi"),)):
        dialogue = Dialogue(replace(WISHING, instruction=Instruction(wants, ("genre", "decade"))), ITEMS)
        pieces = [told(dialogue, RECOMMENDER)]
        for _ in range(3):
            dialogue.ask("genre", "")
            dialogue.reply(0, None, "", reveal=Facet("genre", "Horror"))
            pieces.append(told(dialogue, RECOMMENDER))
        heard.add(tuple(pieces))
    assert len(heard) == 1


# Hindsight ------------------------------------------------------------------------------------------------------------

MISSED = turn_of(HEAT, "A heist, zebra-like.", 1, 0.3, "Quagga no.")
HIT = turn_of(BRAZIL, "A dream, zebra-like.", 3, 0.9, "Quagga yes.")


def test_hindsight_tells_the_course_the_target_the_verdict_and_a_diagnosis() -> None:
    assert "".join(hindsight(RECOMMENDER, TASK, [MISSED], ITEMS)) == (
        "\nHindsight. Heat (1995) skip miss.\nThe item taken next was Brazil (1985).\nThe proposal was wrong."
        " Brazil (1985) shares Comedy with Fargo (1996); Heat (1995) does not."
    )
    assert "".join(hindsight(RECOMMENDER, TASK, [MISSED, HIT], ITEMS)) == (
        "\nHindsight. Heat (1995) skip miss. Brazil (1985) click hit.\nThe item taken next was Brazil (1985)."
        "\nThe proposal was right. Brazil (1985) shares Comedy with Fargo (1996)."
    )


@pytest.mark.parametrize(("turn", "verdict"), [(MISSED, "\nRejecting is right."), (HIT, "\nAccepting is right.")])
def test_the_user_is_told_whether_accepting_or_rejecting_was_right(turn: Turn, verdict: str) -> None:
    pieces = hindsight(USER, TASK, [turn], ITEMS)
    assert verdict in pieces
    assert " Brazil (1985)" in pieces


def test_hindsight_tells_of_messages_that_could_not_be_read() -> None:
    unread = turn_of(None, "?", None, None, "?", "no item", "no action")
    assert "".join(hindsight(RECOMMENDER, TASK, [unread], ITEMS)) == (
        "\nHindsight. nothing from the list miss.\nThe item taken next was Brazil (1985).\nThe proposal was wrong."
        " Brazil (1985) shares Comedy with Fargo (1996)."
    )


@pytest.mark.parametrize("role", ROLES)
def test_hindsight_quotes_nobody(role: Role) -> None:
    text = "".join(hindsight(role, TASK, [MISSED, HIT], ITEMS))
    assert "zebra" not in text
    assert "Quagga" not in text


def test_a_diagnosis_names_the_latest_of_the_most_alike_and_nothing_the_wrong_proposal_has_too() -> None:
    items = (
        Item("T", ("A", "B", "C")),
        Item("one", ("A", "B")),
        Item("two", ("B", "A")),
        Item("three", ("C",)),
        Item("wrong", ("A", "C")),
        Item("alien", ("Z",)),
    )
    task = Task("t", 0, history=(1, 2, 3), candidates=(0, 4), target=0)
    right, wrong = turn_of(0, "", 3, 1.0, ""), turn_of(4, "", 0, 0.0, "")
    assert "".join(hindsight(USER, task, [right], items)).endswith(" T shares A B with two.")
    assert "".join(hindsight(USER, task, [wrong], items)).endswith(" T shares B with two; wrong does not.")
    unlike = replace(task, history=(5,))
    assert "".join(hindsight(USER, unlike, [right], items)).endswith("\nAccepting is right.")


ASKED = Turn(None, "Zebra?", (replace(HIT.answers[0], action=None, strength=None, reveal=COMEDY),), question="genre")
TAKEN_NEXT = "\nThe item taken next was Brazil (1985)."
WHY = " Brazil (1985) shares Comedy with Fargo (1996)"


def test_hindsight_of_a_question_names_the_true_answer_to_both_sides() -> None:
    for role in ROLES:
        assert "".join(hindsight(role, WISHING, [ASKED], ITEMS)) == (
            f"\nHindsight. Which genre?{TAKEN_NEXT}\nThe true answer is Comedy.{WHY}."
        )
        tag = replace(ASKED, question="decade")
        unknown = replace(WISHING, instruction=Instruction((COMEDY,), ("genre", "decade")))
        assert "\nThe true answer is nothing." in "".join(hindsight(role, unknown, [tag], ITEMS))


def test_hindsight_of_a_proposal_names_what_the_user_might_have_said() -> None:
    assert "".join(hindsight(USER, WISHING, [MISSED], ITEMS)) == (
        f"\nHindsight. Heat (1995) skip miss.{TAKEN_NEXT}\nRejecting is right.\nTrue to say: Comedy; 1980s."
        f"{WHY}; Heat (1995) does not."
    )
    assert "\nTrue to say: 1980s." in "".join(hindsight(USER, WISHING, [ASKED, MISSED], ITEMS))  # it said Comedy
    said = replace(MISSED, answers=(replace(MISSED.answers[0], reveal=EIGHTIES),))
    assert "\nTrue to say: 1980s." in "".join(hindsight(USER, WISHING, [ASKED, said], ITEMS))  # so it is still true
    assert "\nTrue to say: nothing." in "".join(hindsight(USER, WISHING, [ASKED, said, HIT], ITEMS))


def test_hindsight_of_a_proposal_names_the_instruction_to_the_recommender() -> None:
    assert "".join(hindsight(RECOMMENDER, WISHING, [ASKED, MISSED], ITEMS)) == (
        f"\nHindsight. Which genre? Heat (1995) skip miss.{TAKEN_NEXT}\nThe proposal was wrong."
        f"\nThe user wants Comedy; 1980s.{WHY}; Heat (1995) does not."
    )
    empty = replace(WISHING, instruction=Instruction((), ("genre",)))
    assert "\nThe user wants anything." in "".join(hindsight(RECOMMENDER, empty, [HIT], ITEMS))


@pytest.mark.parametrize("role", ROLES)
def test_hindsight_names_nothing_else(role: Role) -> None:
    """No candidate that was not proposed, no word that was said, and no facet that was revealed and is not true."""
    lie = Facet("genre", "Horror")
    turns = [replace(turn, answers=(replace(turn.answers[0], reveal=lie),)) for turn in (ASKED, MISSED)]
    for number in (1, 2):
        text = "".join(hindsight(role, WISHING, turns[:number], ITEMS))
        assert not any(word in text for word in ("zebra", "Zebra", "Quagga", "Horror", "七人の侍"))
        assert ("Heat" in text) == (number == 2)


# Groups ---------------------------------------------------------------------------------------------------------------


def group(kinds: tuple[str, ...] = ()) -> Task:
    wish, other = (Instruction((facet,), kinds) if kinds else None for facet in (COMEDY, Facet("decade", "1980s")))
    return replace(TASK, opinions=(), instruction=wish, others=(Member(9, (2,), instruction=other),))


COMEDY = Facet("genre", "Comedy")
ANSWERS = {
    "user_0": {"action": 1, "strength": 0.3, "message": "No."},
    "user_1": {"action": 3, "strength": 0.9, "message": "Yes."},
}


def told_to(dialogue: Dialogue, agent: str) -> str:
    role = RECOMMENDER if agent == RECOMMENDER else USER
    return "".join(prompt(role, dialogue.observe(agent), ITEMS, "\n-").content)


def test_the_recommender_of_a_group_is_told_of_each_user() -> None:
    dialogue = Dialogue(group(), ITEMS)
    assert told_to(dialogue, RECOMMENDER) == (
        "\nUser 0:\nTaken so far, oldest first:\n- Amélie (2001)\n- Fargo (1996)"
        "\nUser 1:\nTaken so far, oldest first:\n- Alien (1979)"
        "\nCandidates:\n- Brazil (1985)\n- Heat (1995)\n- 七人の侍 (1954)"
        "\nReply with a Reason and one Item of the candidates."
    )
    dialogue.recommend(1, "Crime.")
    dialogue.act_all(ANSWERS)
    assert told_to(dialogue, RECOMMENDER) == (
        "\nUser 0:\nThe user's answer: skip 0.30\nBecause: No.\nUser 1:\nThe user's answer: click 0.90\nBecause: Yes."
        "\nPropose again."
    )


def test_a_user_of_a_group_is_told_its_own_history_and_what_the_others_said() -> None:
    dialogue = Dialogue(group(("genre", "decade")), ITEMS)
    dialogue.recommend(1, "Crime.")
    assert told_to(dialogue, "user_1") == (
        "You are user 1.\nTaken so far, oldest first:\n- Alien (1979)\nYou want: 1980s\nRecommended: Heat (1995)"
        "\nBecause: Crime.\nReply with a Reason, an Action, a Score and a Wish."
    )
    dialogue.act_all({**ANSWERS, "user_0": {**ANSWERS["user_0"], "reveal": "genre: Comedy"}})
    dialogue.recommend(0, "")
    assert told_to(dialogue, "user_1") == (
        "\nUser 0:\nThe user's answer: skip 0.30\nBecause: No.\nWants: Comedy\nRecommended: Brazil (1985)"
        "\nReply with a Reason, an Action, a Score and a Wish."
    )
    assert "\nUser 1:\nThe user's answer: click 0.90\nBecause: Yes.\nWants: nothing\n" in told_to(dialogue, "user_0")


def test_hindsight_tells_the_recommender_of_a_group_what_all_want() -> None:
    dialogue = Dialogue(group(("genre", "decade")), ITEMS)
    dialogue.recommend(1, "")
    dialogue.act_all(ANSWERS)
    assert "".join(hindsight(RECOMMENDER, dialogue.task, dialogue.turns, ITEMS)) == (
        "\nHindsight. Heat (1995) skip click miss.\nThe item taken next was Brazil (1985).\nThe proposal was wrong."
        "\nThe user wants Comedy; 1980s. Brazil (1985) shares Comedy with Fargo (1996); Heat (1995) does not."
    )
