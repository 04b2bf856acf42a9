"""I2Agent: profiles are rewritten when the truth is known, told to those alike, and the interest stays private."""

from dataclasses import replace

import pytest

from agents.models.language_model import Request
from agents.models.prompts import BECAUSE, RECOMMENDED, TAKEN, TAKEN_NEXT
from agents.players.memory import Memory
from baselines.i2agent import ABOUT, ASK_PROFILE, INTEREST, PROFILE, SO_FAR, I2Agent, revealed, told
from baselines.system import Resources
from coars_env import ACTIONS, RECOMMENDER, Dialogue, Facet, FixedUser, Instruction, Split, load_split, play
from coars_env.testing import toy_episodes
from scripted import Scripted, by_hash, text_of


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=40, items=60, interactions=800, source="synthetic")


def test_the_writer_reads_the_dialogue_the_truth_and_the_profile_so_far() -> None:
    episodes, memory = toy_episodes(), Memory({})
    dialogue = Dialogue(episodes.tasks[0], episodes.items, max_turns=1)  # took 0 and 4; the target is 5
    dialogue.recommend(1, "a classic")
    dialogue.reply(ACTIONS.index("skip"), 0.3, "too grim")
    seen = (
        f"{TAKEN}\n- Amélie (2001)\n- Fargo (1996)\n{RECOMMENDED} Heat (1995) skip{BECAUSE} too grim"
        f"{TAKEN_NEXT} Brazil (1985)."
    )
    assert "".join(revealed(memory, dialogue, "\n-")) == seen + ASK_PROFILE
    memory.write("user 0", "", "old", step=0)
    memory.write("user 1", "", "another's", step=0)
    assert "".join(revealed(memory, dialogue, "\n-")) == f"{seen}{SO_FAR} old{ASK_PROFILE}"


def test_the_writer_reads_questions_and_wishes() -> None:
    episodes, wish = toy_episodes(), Facet("genre", "Comedy")
    task = replace(episodes.tasks[0], instruction=Instruction((wish,), ("genre",)))
    dialogue = Dialogue(task, episodes.items, max_turns=2)
    dialogue.ask("genre", "")
    dialogue.reply(0, None, "", reveal=wish)
    text = "".join(revealed(Memory({}), dialogue, "\n-"))
    assert "\nThe recommender asks: Which genre?\nWants: Comedy\nThe item taken next" in text


def numbered() -> Scripted:
    """A user that clicks everything; profiles are numbered."""
    written = iter(range(1, 1000))

    def script(request: Request) -> str:
        if request.fields == (PROFILE,):
            return f"Profile: number {next(written)}"
        if request.fields[0] == INTEREST:
            return by_hash(request)
        return "Reason: so\nAction: click\nScore: 1.00"

    return Scripted(script)


def test_a_profile_is_rewritten_after_each_dialogue_and_only_the_last_is_kept(split: Split) -> None:
    model = numbered()
    system = I2Agent.fit(split, resources=Resources(model, dialogues=3))  # one walk
    (kept,) = system.memory.entries()
    assert (kept.text, kept.number) == ("number 3", 3)
    asked = [text_of(request) for request in model.asked if request.fields == (PROFILE,)]
    assert [f"{SO_FAR} number {n}" in text for n, text in enumerate(asked)] == [False, True, True]


def test_the_profile_of_one_dialogue_is_told_in_the_next(split: Split) -> None:
    model = numbered()
    I2Agent.fit(split, resources=Resources(model, dialogues=3))
    plays = [text_of(request) for request in model.asked if request.fields != (PROFILE,)]
    assert [ABOUT in text for text in plays] == [False, False, True, True, True, True]
    assert f"{ABOUT} number 1" in plays[2]


def test_what_cannot_be_read_leaves_the_profile(split: Split) -> None:
    system = I2Agent.fit(split, resources=Resources(Scripted(lambda request: "nothing"), dialogues=6))
    assert system.memory.entries() == []


def test_the_nearest_profile_is_told_once_and_none_where_no_word_is_shared() -> None:
    episodes, memory = toy_episodes(), Memory({})
    memory.write("user 5", "Brazil", "dreamer", step=0)
    dialogue = Dialogue(episodes.tasks[0], episodes.items)  # took Amélie and Fargo
    assert told(memory, episodes.items, dialogue.observe(RECOMMENDER)) == ()
    memory.write("user 6", "Fargo", "northerner", step=0)
    assert told(memory, episodes.items, dialogue.observe(RECOMMENDER)) == (ABOUT, " northerner")
    dialogue.recommend(0, "")
    dialogue.reply(0, None, "")
    assert told(memory, episodes.items, dialogue.observe(RECOMMENDER)) == ()


def test_the_interest_is_written_before_the_reason_and_not_told_to_the_user(split: Split) -> None:
    def script(request: Request) -> str:
        (*_, items) = request.fields
        return f"Interest: secret\nReason: open\nItem: {(items.options or ())[0]}"

    model = Scripted(script)
    system = I2Agent.fit(split, resources=Resources(model, dialogues=0))
    dialogue = Dialogue(toy_episodes().tasks[0], split.dataset.items, max_turns=1)
    play([dialogue], system.recommender, FixedUser())
    assert dialogue.turns[0].rationale == "open"
    assert model.asked[0].fields[0] == INTEREST
