"""AgentCF: who is rewritten when, by hand on one interaction, and what is told in the three modes."""

from typing import Any

import numpy as np
import pytest

from agents.models.language_model import Request
from agents.models.prompts import ITEM, TAKEN, title
from agents.players.memory import Memory
from baselines.agentcf import (
    ABOUT_ITEM,
    ABOUT_ITEMS,
    ABOUT_USER,
    BEFORE,
    ITEM_FIELD,
    NOBODY,
    RIGHT,
    USER_FIELD,
    WRONG,
    AgentCF,
    AgentCFBasic,
    told,
)
from baselines.system import Resources
from coars_env import RECOMMENDER, USER, Dataset, Dialogue, Item, Split, UserSequence
from coars_env.testing import toy_dataset, toy_episodes
from scripted import Scripted, text_of


@pytest.fixture
def split() -> Split:
    """One training user, who took Heat and then Alien; the third film is the only other one."""
    items = (Item("Heat", ("Crime",)), Item("Alien", ("Horror",)), Item("Amélie"))
    dataset = Dataset(
        name="three",
        items=items,
        item_ids=("a", "b", "c"),
        user_ids=("ann",),
        users=np.zeros(2, np.int64),
        item_indices=np.array([0, 1]),
        ratings=np.ones(2),
        timestamps=np.arange(2),
        source="custom",
        origin="three",
    )
    return Split("by hand", dataset, (UserSequence(0, (0, 1)),), (), (), {0: frozenset({0, 1})})


def choosing(*choices: str) -> Any:
    """A model that chooses these in turn and numbers its descriptions."""
    left, written = list(choices), iter(range(1, 100))

    def script(request: Request) -> str:
        if request.fields == (USER_FIELD,):
            return f"Description: taste {next(written)}"
        if request.fields == (ITEM_FIELD,):
            return f"Description: kind {next(written)}"
        return f"Reason: so\nItem: {left.pop(0)}"

    return Scripted(script)


def contents(memory: Memory) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in memory.entries():
        found.setdefault(entry.key, []).append(entry.text)
    return found


def test_a_wrong_choice_rewrites_the_user_then_both_items_and_is_asked_again(split: Split) -> None:
    model = choosing("Amélie", "Alien")
    system = AgentCF.fit(split, resources=Resources(model, dialogues=3))
    asked = [text_of(request) for request in model.asked]
    # a choice, the user, two items; then the second round, which is right and confirms
    kinds = [request.fields[-1] if len(request.fields) == 1 else ITEM for request in model.asked]
    assert kinds == [ITEM, USER_FIELD, ITEM_FIELD, ITEM_FIELD] * 2
    assert NOBODY in asked[0]
    assert ": Horror" in asked[0]
    assert WRONG in asked[1]
    assert all("taste 1" in text for text in asked[2:4])
    assert all(f" {text}" in asked[4] for text in ("taste 1", "kind 2", "kind 3"))
    assert RIGHT in asked[5]
    pair = [next(key for key in ("Alien", "Amélie") if f"The item {key}:" in text) for text in asked[2:4]]
    expected = {"user 0": ["taste 1", "taste 4"]}
    numbers = {"Alien": "item 1", "Amélie": "item 2"}
    for name, kinds in zip(pair, (["kind 2", "kind 5"], ["kind 3", "kind 6"]), strict=True):
        expected[numbers[name]] = kinds
    assert contents(system.memory) == expected
    assert system.learning.calls == 8


def test_a_right_choice_is_confirmed_once(split: Split) -> None:
    model = choosing("Alien")
    system = AgentCF.fit(split, resources=Resources(model, dialogues=3))
    assert len(model.asked) == 4
    assert RIGHT in text_of(model.asked[1])
    assert contents(system.memory)["user 0"] == ["taste 1"]


def test_two_wrong_choices_end_the_rounds(split: Split) -> None:
    model = choosing("Amélie", "Amélie")
    AgentCF.fit(split, resources=Resources(model, dialogues=3))
    assert len(model.asked) == 8


def test_a_choice_that_cannot_be_read_is_wrong_and_an_unread_description_changes_nothing(split: Split) -> None:
    model = Scripted(lambda request: "no fields here")
    system = AgentCF.fit(split, resources=Resources(model, dialogues=3))
    assert contents(system.memory) == {}
    assert text_of(model.asked[1]).count("no fields here") == 1


def filled() -> Memory:
    """Two users; of the first an older description. Items 5 and 3 of the toy are described."""
    memory = Memory({})
    memory.write("user 0", "Heat (1995); Brazil (1985)", "older", step=0)
    memory.write("user 0", "Heat (1995); Alien (1979)", "newer", step=1)
    memory.write("user 1", "Fargo (1996)", "another", step=1)
    memory.write("item 5", "Brazil (1985)", "dreams", step=1)
    memory.write("item 3", "七人の侍 (1954)", "swords", step=1)
    return memory


def test_the_recommender_is_told_of_the_nearest_user_and_of_candidates() -> None:
    episodes = toy_episodes()
    dialogue = Dialogue(episodes.tasks[0], episodes.items)  # took Amélie and Fargo; candidates 5, 1, 3
    brazil, samurai = (title(episodes.items, item) for item in (5, 3))
    assert told(filled(), RECOMMENDER, episodes.items, "sequential", dialogue.observe(RECOMMENDER)) == (
        *(ABOUT_USER, " another"),
        *(ABOUT_ITEMS, "\n-", brazil, ":", " dreams", "\n-", samurai, ":", " swords"),
    )


def test_the_user_is_told_of_itself_once_and_of_each_proposal() -> None:
    episodes = toy_episodes()
    dialogue = Dialogue(episodes.tasks[0], episodes.items)
    dialogue.recommend(0, "")
    assert told(filled(), USER, episodes.items, "sequential", dialogue.observe(USER)) == (
        *(ABOUT_USER, " another", ABOUT_ITEM, " dreams"),
    )
    dialogue.reply(0, None, "")
    dialogue.recommend(1, "")  # Heat has no description
    assert told(filled(), USER, episodes.items, "sequential", dialogue.observe(USER)) == ()


def test_rag_adds_the_past_description_that_fits_the_candidates() -> None:
    episodes = toy_episodes()
    dialogue = Dialogue(episodes.tasks[3], episodes.items)  # took Fargo and Heat; candidates 0, 2, 3
    memory = Memory({})
    for films, text in (("Heat; Alien", "alien"), ("Heat; Brazil", "brazil"), ("Heat; Fargo", "now")):
        memory.write("user 0", films, text, step=0)
    found = told(memory, RECOMMENDER, episodes.items, "rag", dialogue.observe(RECOMMENDER))
    assert found == (ABOUT_USER, " now", BEFORE, " alien")


def test_where_no_word_is_shared_nobody_is_near() -> None:
    episodes, memory = toy_episodes(), Memory({})
    memory.write("user 0", "Brazil", "stranger", step=0)
    observation = Dialogue(episodes.tasks[0], episodes.items).observe(RECOMMENDER)
    assert told(memory, RECOMMENDER, episodes.items, "sequential", observation) == ()


def test_basic_hides_the_history_and_knows_the_user_by_it(split: Split) -> None:
    asked = []
    for kind in (AgentCFBasic, AgentCF):
        model = choosing("Alien", "Alien")
        system = kind.fit(split, resources=Resources(model, dialogues=3))
        task = toy_episodes().tasks[3]  # items 4 and 1 of a catalogue in which the third film is not taken
        dialogue = Dialogue(type(task)("t", 0, (0,), (1, 2), 1), split.dataset.items)
        system.recommender.start([(0,)])
        system.recommender.act({0: dialogue.observe(RECOMMENDER)})
        asked.append(text_of(model.asked[-1]))
    assert [f"{TAKEN}\n- Heat" in text for text in asked] == [False, True]
    assert all(f"{ABOUT_USER} taste 1" in text for text in asked)


def test_the_toy_has_the_titles_used_here() -> None:
    assert [toy_dataset().items[n].title for n in (3, 5)] == ["七人の侍 (1954)", "Brazil (1985)"]
