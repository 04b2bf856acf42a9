"""Reflexion: what counts as failure, when a plan is written and told, and that it does not name the answer."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agents.models.language_model import Request
from agents.models.prompts import CANDIDATES, ITEM, RECOMMENDED, RECOMMENDER_SYSTEM
from agents.players.memory import Memory
from baselines.reflexion import (
    ASK_PLAN,
    LESSONS,
    PLAN,
    PLAN_BYTES,
    Reflexion,
    failed,
    mistakes,
    reflection,
    told,
    without,
)
from baselines.system import Resources
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    USER,
    Dialogue,
    EpisodeSet,
    Facet,
    Instruction,
    Split,
    leave_last,
    load_split,
)
from coars_env.testing import toy_dataset, toy_episodes
from scripted import Scripted, by_hash, text_of

HEAT, FARGO = 1, 4


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=60, interactions=800, source="synthetic")


def played(*turns: tuple[int, str]) -> Dialogue:
    """A dialogue about the first toy task: candidates 5, 1, 3 at places 0, 1, 2; the target is item 5."""
    dialogue = Dialogue(toy_episodes().tasks[0], toy_dataset().items, max_turns=len(turns))
    for place, action in turns:
        dialogue.recommend(place, "")
        dialogue.reply(ACTIONS.index(action), None, "")
    return dialogue


def test_a_question_is_no_failure_and_its_answer_is_read() -> None:
    task = replace(toy_episodes().tasks[0], instruction=Instruction((Facet("genre", "Comedy"),), ("genre",)))
    dialogue = Dialogue(task, toy_dataset().items, max_turns=2)
    dialogue.ask("genre", "")
    dialogue.reply(0, None, "")
    dialogue.recommend(1, "")
    dialogue.reply(ACTIONS.index("skip"), None, "", reveal=Facet("genre", "Comedy"))
    assert (failed(dialogue, RECOMMENDER), failed(dialogue, USER)) == (True, False)
    assert "\nWants: Comedy\nThis was not" in "".join(reflection(dialogue, RECOMMENDER))


@pytest.mark.parametrize(
    ("turns", "recommender", "clicked_a_miss", "rejected_the_hit"),
    [
        ([(0, "click")], False, False, False),
        ([(1, "click")], True, True, False),
        ([(1, "skip"), (0, "star")], False, False, False),
        ([(0, "dislike"), (1, "star")], True, False, True),
        ([(0, "skip"), (1, "click")], True, True, True),
        ([(3, "click"), (0, "click")], False, False, False),  # a click on nothing
    ],
)
def test_failure_is_what_the_spec_says(
    turns: Sequence[tuple[int, str]], recommender: bool, clicked_a_miss: bool, rejected_the_hit: bool
) -> None:
    dialogue = played(*turns)
    assert failed(dialogue, RECOMMENDER) == recommender
    assert mistakes(dialogue) == (clicked_a_miss, rejected_the_hit)
    assert failed(dialogue, USER) == (clicked_a_miss or rejected_the_hit)


def test_a_broken_dialogue_teaches_nothing() -> None:
    dialogue = played((1, "skip"), (1, "skip"))
    dialogue.ending = "failed"
    assert not failed(dialogue, RECOMMENDER)


def careful(request: Request) -> str:
    """Proposes the first candidate, or the last once a lesson says so; clicks everything."""
    if request.fields == (PLAN,):
        return "Lesson: Take the last." if request.system == RECOMMENDER_SYSTEM else "Lesson: Be strict."
    (*_, asked) = request.fields
    if asked.label == ITEM and asked.options:
        return f"Reason: so\nItem: {asked.options[-1 if 'Take the last.' in text_of(request) else 0]}"
    return "Reason: so\nAction: click\nScore: 1.00"


def test_a_lesson_of_the_first_trial_changes_the_choice_in_the_second(split: Split) -> None:
    model = Scripted(careful)
    system = Reflexion.fit(split, resources=Resources(model, dialogues=3))  # one walk of three trials, a turn each
    choices = [request for request in model.asked if request.fields[-1].label == ITEM]
    first, second, *_ = choices
    assert LESSONS not in text_of(first)
    assert f"{LESSONS}\n- Take the last." in text_of(second)
    assert [careful(request) for request in (first, second)] == [
        f"Reason: so\nItem: {(first.fields[-1].options or ())[0]}",
        f"Reason: so\nItem: {(second.fields[-1].options or ())[-1]}",
    ]
    (plan, *_) = [request for request in model.asked if request.fields == (PLAN,)]
    assert plan.messages[:1] == first.messages
    assert plan.messages[-1][-1] == ASK_PLAN
    assert {(entry.key, entry.text) for entry in system.memory.entries()} == {
        (RECOMMENDER, "Take the last."),
        (USER, "Be strict."),
    }


def test_a_success_ends_the_trials_and_writes_nothing(split: Split) -> None:
    model = Scripted(lambda request: oracle(request, split))
    system = Reflexion.fit(split, resources=Resources(model, dialogues=60))
    assert system.memory.entries() == []
    assert system.learning.calls == len(model.asked) == 40  # 20 walks, a trial each, both sides once


def next_title(split: Split, titles: list[str]) -> str:
    """What a training user who took these took next."""
    items = split.dataset.items
    for sequence in split.train:
        names = [items[item].title for item in sequence.items]
        for cut in range(1, len(names)):
            if names[max(0, cut - 10) : cut] == titles:
                return names[cut]
    raise AssertionError(titles)


def oracle(request: Request, split: Split) -> str:
    if request.fields[-1].label != ITEM:
        return "Reason: so\nAction: click\nScore: 1.00"
    shown = text_of(request).partition(CANDIDATES)[0].split("\n- ")[1:]
    return f"Reason: so\nItem: {next_title(split, shown)}"


def test_the_target_is_taken_out_of_a_plan() -> None:
    assert without("Heat (1995)", "Try Heat (1995), or heat. Cheaters wheat.") == "Try that item, or that item. " + (
        "Cheaters wheat."
    )
    assert without("七人の侍 (1954)", "見る 七人の侍 !") == "見る that item !"


def test_a_plan_that_quotes_all_proposals_names_no_target_and_is_bounded(split: Split) -> None:
    def quoting(request: Request) -> str:
        if request.fields != (PLAN,):
            return by_hash(request)
        named = re.findall(rf"{RECOMMENDED} (.*)\n", text_of(request))
        return "Lesson: " + ", ".join(reversed(named)) + " and so on" * 40

    system = Reflexion.fit(split, resources=Resources(Scripted(quoting), dialogues=120))
    plans = system.memory.entries()
    for plan in plans:
        assert next_title(split, plan.situation.split("; ")) not in plan.text
        assert len(plan.text.encode()) <= PLAN_BYTES
    assert any("that item" in plan.text for plan in plans)
    assert any(item.title in plan.text for plan in plans for item in split.dataset.items)


def test_a_plan_is_told_in_situations_like_its_own_at_the_first_turn_alone() -> None:
    episodes: EpisodeSet = toy_episodes()
    items, memory = episodes.items, Memory({})
    for number, films in enumerate(("Amélie (2001)", "Heat (1995)", "Fargo (1996)", "Alien (1979)")):
        memory.write(RECOMMENDER, films, f"plan {number}", step=0)
    memory.write(USER, "Heat (1995)", "of the user", step=0)
    dialogue = Dialogue(episodes.tasks[1], items)  # took Heat, then Fargo
    notes = told(memory, RECOMMENDER, items, dialogue.observe(RECOMMENDER))
    assert notes == (LESSONS, "\n- plan 2", "\n- plan 1", "\n- plan 3")
    dialogue.recommend(0, "")
    assert told(memory, USER, items, dialogue.observe(USER)) == (LESSONS, "\n- of the user")
    dialogue.reply(0, None, "")
    assert told(memory, RECOMMENDER, items, dialogue.observe(RECOMMENDER)) == ()


def test_without_plans_nothing_is_added() -> None:
    episodes = toy_episodes()
    observation = Dialogue(episodes.tasks[1], episodes.items).observe(RECOMMENDER)
    assert told(Memory({}), RECOMMENDER, episodes.items, observation) == ()


def test_the_toy_is_divided_as_the_tests_say() -> None:
    assert [sequence.items[-1] for sequence in leave_last(toy_dataset()).test] == [5, 0, 3, 2]
