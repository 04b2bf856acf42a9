"""The stream: order by recency, importance and relevance computed by hand, insights, and what is forgotten."""

from dataclasses import replace
from itertools import cycle

import pytest

from agents.models.language_model import Request
from agents.models.prompts import ITEM
from agents.players.memory import Entry, Memory, Recalled
from baselines.memory_stream import (
    INSIGHT,
    RATING,
    REMEMBERED,
    TEXT_BYTES,
    MemoryStream,
    observations,
    ranked,
    ripe_for_insight,
    standing,
    told,
)
from baselines.system import Resources
from coars_env import ACTIONS, RECOMMENDER, USER, Dialogue, Facet, Instruction, Split, load_split
from coars_env.testing import toy_episodes
from scripted import Scripted, by_hash, text_of


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=60, interactions=800, source="synthetic")


def entry(number: int, *, importance: float = 1.0, used: int = 0, text: str = "") -> Entry:
    return Entry(number, "recommender_0 7", "", text, importance, 0, used)


# The order ------------------------------------------------------------------------------------------------------------


def test_entries_are_ordered_by_recency_importance_and_relevance() -> None:
    # in step 10, .99^10 = .9044, .99^5 = .9510, .99^0 = 1; the best relevance is 4
    #   number  recency         importance         relevance  together
    #   1       .9044  used 0   .15 *  2/10 = .03  4/4 = 1    1.9344
    #   2       .9510  used 5   .15 * 10/10 = .15  3/4 = .75  1.8510
    #   3       1.     used 10  .15 *  2/10 = .03  1/4 = .25  1.28
    recalled = [
        Recalled(entry(1, importance=2, used=0), 4.0),
        Recalled(entry(2, importance=10, used=5), 3.0),
        Recalled(entry(3, importance=2, used=10), 1.0),
    ]
    assert [one.number for one in ranked(recalled, now=10)] == [1, 2, 3]
    # without relevance, weight and age decide: .9344, 1.1010, 1.03
    assert [one.number for one in ranked([Recalled(one.entry, 0.0) for one in recalled], now=10)] == [2, 3, 1]
    # with equal weights and relevance, age alone
    assert [one.number for one in ranked([Recalled(entry(n, used=n), 1.0) for n in (1, 2, 3)], now=10)] == [3, 2, 1]


def test_of_equal_entries_the_later_comes_first() -> None:
    assert [one.number for one in ranked([Recalled(entry(n), 2.0) for n in (1, 2, 3)], now=4)] == [3, 2, 1]


def test_standing_is_recency_plus_weight() -> None:
    assert standing(entry(1, importance=4, used=3), now=5) == pytest.approx(0.99**2 + 0.15 * 0.4)


def test_what_stands_lowest_is_forgotten() -> None:
    memory = Memory({})
    for importance in (1.0, 10.0, 5.0):
        memory.write("user_0 7", "Heat", "", step=0, importance=importance)
    memory.use([1], step=30)  # 1 + .015; the others .7397 + .15 and .7397 + .075
    memory.forget(2, key="user_0 *", value=lambda one: standing(one, now=30))
    assert [one.number for one in memory.entries()] == [1, 2]


@pytest.mark.parametrize(("marks", "ripe"), [((10, 10, 10), False), ((10, 10, 10, 1), True), ((5,) * 6, False)])
def test_an_insight_needs_more_than_three_full_marks(marks: tuple[int, ...], ripe: bool) -> None:
    assert ripe_for_insight([entry(n, importance=mark) for n, mark in enumerate(marks)]) == ripe


# What is written ------------------------------------------------------------------------------------------------------


def test_each_turn_is_remembered_as_it_turned_out() -> None:
    episodes = toy_episodes()
    dialogue = Dialogue(episodes.tasks[0], episodes.items, max_turns=3)  # took 0 and 4; the target is 5
    dialogue.recommend(1, "a classic")
    dialogue.reply(ACTIONS.index("skip"), 0.3, "too grim")
    dialogue.recommend(3, "", "names nothing")
    dialogue.reply(4, None, "", "says nothing")
    dialogue.recommend(0, "odd")
    dialogue.reply(ACTIONS.index("click"), 0.9, "x" * 500)
    taken = "Amélie (2001); Fargo (1996)"
    assert observations(dialogue, RECOMMENDER) == [
        ("recommender_0 0", f"{taken}; Heat (1995)", "Heat (1995): skip 0.30. Not taken next. a classic"),
        ("recommender_0 0", taken, "nothing: no answer. Not taken next."),
        ("recommender_0 0", f"{taken}; Brazil (1985)", "Brazil (1985): click 0.90. Taken next. odd"),
    ]
    first, _, last = observations(dialogue, USER)
    assert first == ("user_0 0", f"{taken}; Heat (1995)", "Heat (1995): skip 0.30. Not taken next. too grim")
    assert len(last[2]) == len("Brazil (1985): click 0.90. Taken next.")  # a word too long for the rest is left out
    assert len(last[2].encode()) <= TEXT_BYTES


def test_a_question_is_remembered_with_its_answer() -> None:
    episodes, wish = toy_episodes(), Facet("genre", "Comedy")
    task = replace(episodes.tasks[0], instruction=Instruction((wish,), ("genre",)))
    dialogue = Dialogue(task, episodes.items, max_turns=2)
    dialogue.ask("genre", "to be sure")
    dialogue.reply(0, None, "", reveal=wish)
    dialogue.recommend(1, "a classic")
    dialogue.reply(ACTIONS.index("skip"), 0.3, "", reveal=wish)
    (_, _, first), (_, _, last) = observations(dialogue, RECOMMENDER)
    assert first == "Which genre?: wants genre: Comedy. to be sure"
    assert last == "Heat (1995): skip 0.30, wants genre: Comedy. Not taken next. a classic"


def rating_all(mark: str) -> Scripted:
    """A user that clicks everything, so that a dialogue has one turn, and a model that rates everything alike."""

    def script(request: Request) -> str:
        if request.fields == (RATING,):
            return f"Importance: {mark}"
        if request.fields[-1].label == ITEM:
            return by_hash(request)
        return "Reason: so\nAction: click\nScore: 1.00"

    return Scripted(script)


def test_ratings_become_importance_and_full_marks_of_four_turns_an_insight(split: Split) -> None:
    system = MemoryStream.fit(split, resources=Resources(rating_all("7"), dialogues=3))
    # one walk of three dialogues of one turn, seen by two sides; .7 * 3 is not above 3
    assert [one.importance for one in system.memory.entries()] == [7.0] * 6
    assert {one.key.split()[0] for one in system.memory.entries()} == {RECOMMENDER, USER}


def test_an_insight_sums_up_what_came_since_the_last_and_is_as_important_as_the_most_important(split: Split) -> None:
    marks = cycle((8, 10, 9, 9))

    def script(request: Request) -> str:
        if request.fields == (RATING,):
            return f"Importance: {next(marks):02d}"
        if request.fields == (INSIGHT,):
            return f"Insight: of {text_of(request).count(chr(10) + '- ')}"
        if request.fields[-1].label == ITEM:
            return by_hash(request)
        return "Reason: so\nAction: skip\nScore: 0.30"

    model = Scripted(script)
    system = MemoryStream.fit(split, resources=Resources(model, dialogues=3))
    found = [one for one in system.memory.entries() if one.text.startswith("of ")]
    # four turns and 3.6 marks a dialogue, so three insights of four observations on each side
    assert [(one.text, one.importance) for one in found] == [("of 4", 10.0)] * 6
    assert len(system.memory.entries()) == 2 * 3 * (4 + 1)


def test_a_rating_that_cannot_be_read_is_the_least(split: Split) -> None:
    system = MemoryStream.fit(split, resources=Resources(rating_all("much"), dialogues=3))
    assert {one.importance for one in system.memory.entries()} == {1.0}


def test_what_is_told_in_training_counts_as_used(split: Split) -> None:
    system = MemoryStream.fit(split, resources=Resources(rating_all("7"), dialogues=3))
    # steps 0, 1, 2: what was written in 0 is told in 1 and 2, what was written in 1 is told in 2
    assert [(one.written, one.used) for one in system.memory.entries()] == [(0, 2)] * 2 + [(1, 2)] * 2 + [(2, 2)] * 2


# What is told ---------------------------------------------------------------------------------------------------------


def test_a_side_is_told_its_own_three_at_the_beginning() -> None:
    episodes, memory = toy_episodes(), Memory({})
    for films, text in (("Fargo", "one"), ("Heat Fargo", "two"), ("Alien", "three"), ("Brazil", "four")):
        memory.write("recommender_0 3", films, text, step=0)
    memory.write("user_0 3", "Brazil", "the user's", step=0)
    dialogue = Dialogue(episodes.tasks[1], episodes.items)  # took Heat and Fargo
    notes = told(memory, RECOMMENDER, episodes.items, 1, dialogue.observe(RECOMMENDER))
    assert notes == (REMEMBERED, "\n- two", "\n- one", "\n- four")
    dialogue.recommend(2, "")
    assert told(memory, USER, episodes.items, 1, dialogue.observe(USER)) == (REMEMBERED, "\n- the user's")
    dialogue.reply(0, None, "")
    assert told(memory, RECOMMENDER, episodes.items, 1, dialogue.observe(RECOMMENDER)) == ()
