"""What each side is told and how replies are read; no model takes part."""

from dataclasses import replace

import pytest

from agents.models.prompts import (
    ACTION_TEXTS,
    PHRASES,
    RECOMMENDER_SYSTEM,
    USER_SYSTEM,
    Pieces,
    hindsight,
    prompt,
    score_texts,
    without_opinions,
)
from coars_env import ACTIONS, RECOMMENDER, ROLES, USER, Dialogue, Item, Role, Task, Turn, clamp_strength
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
    assert len(set(PHRASES)) == len(PHRASES)
    assert all(PHRASES)


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
