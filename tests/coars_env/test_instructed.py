import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coars_env import (
    ACTIONS,
    USER,
    Agent,
    ConfigError,
    Dialogue,
    Facet,
    FixedRecommender,
    InstructedUser,
    Instruction,
    ScorerUser,
    ShuffledUser,
    SilentUser,
    Task,
    TaskError,
    Turn,
    play,
    rollout,
)
from coars_env.testing import ScriptedAgent, check_agent, toy_episodes
from turns import group_of

TOY = toy_episodes(instructed=True)
ITEMS = TOY.items
TASK = TOY.tasks[0]
"""Wants "genre: Comedy" and "decade: 1980s", which is Brazil, item 5; Heat (1) has neither, Samurai (3) neither."""
COMEDY, EIGHTIES = Facet("genre", "Comedy"), Facet("decade", "1980s")
TASTE = ScorerUser(lambda history, items: items * 1.0, threshold=2.5, scale=1.0)


def turns(user: Agent, *acts: Any, task: Task = TASK, seed: int = 0) -> list[Turn]:
    """Turns of one dialogue in which the recommender asks for kinds (texts) and proposes places (numbers)."""
    actions = [{"ask": a, "message": ""} if isinstance(a, str) else {"item": a, "message": ""} for a in acts]
    dialogue = Dialogue(task, ITEMS, max_turns=len(acts) + 1)
    play([dialogue], ScriptedAgent([*actions, {"item": 3, "message": "", "error": "done"}]), user, seed=seed)
    return dialogue.turns[: len(acts)]


USERS: list[Agent] = [
    InstructedUser(ITEMS),
    InstructedUser(ITEMS, volunteer=1.0, taste=TASTE),
    SilentUser(ITEMS),
    ShuffledUser(ITEMS, TOY),
    ShuffledUser(ITEMS, TOY, whole=True, volunteer=1.0),
]


@pytest.mark.parametrize("instructed", [False, True])
@pytest.mark.parametrize("user", USERS, ids=lambda user: type(user).__name__)
def test_they_keep_the_protocol(user: Agent, instructed: bool) -> None:
    check_agent(user, USER, instructed=instructed)


# What it says ---------------------------------------------------------------------------------------------------------


def test_asked_it_says_truthfully_what_it_wants() -> None:
    genre, decade = turns(InstructedUser(ITEMS), "genre", "decade")
    assert (genre.answer.reveal, genre.answer.message) == (COMEDY, "I want the genre Comedy.")
    assert (decade.answer.reveal, decade.answer.message) == (EIGHTIES, "I want something of the 1980s.")
    assert genre.answered
    assert genre.answer.action is None


def test_asked_twice_it_says_what_is_unsaid_and_then_repeats_itself() -> None:
    both = Instruction((COMEDY, Facet("genre", "Sci-Fi")), ("genre",))
    asked = turns(InstructedUser(ITEMS), "genre", "genre", "genre", task=dataclasses.replace(TASK, instruction=both))
    assert [turn.answer.reveal for turn in asked] == [COMEDY, Facet("genre", "Sci-Fi"), COMEDY]


def test_it_declines_what_it_has_no_wish_about() -> None:
    task = dataclasses.replace(TASK, instruction=Instruction((COMEDY,), ("genre", "decade")))
    (turn,) = turns(InstructedUser(ITEMS), "decade", task=task)
    assert (turn.answer.reveal, turn.answer.message) == (None, "I would rather not say.")
    assert turn.answered


def test_a_rejection_carries_first_what_the_proposal_lacks() -> None:
    # Fargo (1996), Comedy and Crime, has the genre but not the decade
    task = dataclasses.replace(TASK, candidates=(5, 4, 3))
    first, second, third = turns(InstructedUser(ITEMS, volunteer=1.0), 1, 1, 1, task=task)
    assert (first.answer.reveal, first.answer.message) == (EIGHTIES, "Not that one. I want something of the 1980s.")
    assert second.answer.reveal == COMEDY
    assert (third.answer.reveal, third.answer.message) == (None, "Not that one.")  # all is said


@pytest.mark.parametrize("volunteer", [0.0, 0.3, 1.0])
def test_it_volunteers_as_often_as_it_is_to(volunteer: float) -> None:
    dialogues = [Dialogue(TASK, ITEMS, max_turns=1) for _ in range(400)]
    play(dialogues, FixedRecommender(1), InstructedUser(ITEMS, volunteer=volunteer))
    told = np.mean([dialogue.turns[0].answer.reveal == COMEDY for dialogue in dialogues])
    assert abs(told - volunteer) <= 3 * np.sqrt(volunteer * (1 - volunteer) / 400)


# How it judges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "taste", "expected"),
    [
        (5, None, ("click", 1.0)),  # all it wants
        (4, None, ("skip", 0.38)),  # half of what it wants, taste 1: 3/4 of .5
        (1, None, ("skip", 0.25)),  # nothing, taste 1: half of .5
        (5, TASTE, ("click", 0.98)),  # taste 1 / (1 + exp(-2.5)) = .924
        (1, TASTE, ("dislike", 0.05)),  # nothing, taste .182: .091 of .5
    ],
)
def test_it_clicks_what_fits_and_rejects_by_how_little_is_missing(item: int, taste: Any, expected: Any) -> None:
    others = [i for i in (5, 4, 1) if i != item]
    task = dataclasses.replace(TASK, candidates=(item, *others))
    (turn,) = turns(InstructedUser(ITEMS, taste=taste), 0, task=task)
    assert (ACTIONS[turn.answer.action or 0], turn.answer.strength) == expected


def test_what_fits_and_is_not_to_its_taste_is_rejected_most_mildly() -> None:
    picky = ScorerUser(lambda history, items: items * 1.0, threshold=5.1, scale=1.0)  # Brazil: .475
    (turn,) = turns(InstructedUser(ITEMS, taste=picky), 0)
    assert (ACTIONS[turn.answer.action or 0], turn.answer.strength) == ("skip", 0.37)  # (1 + .475) / 2 of .5
    assert turn.rejected


def test_without_an_instruction_taste_alone_decides() -> None:
    plain = dataclasses.replace(TASK, instruction=None)
    assert [t.answer.action for t in turns(InstructedUser(ITEMS), 1, task=plain)] == [ACTIONS.index("click")]
    assert [t.rejected for t in turns(InstructedUser(ITEMS, taste=TASTE), 1, task=plain)] == [True]


def test_offered_nothing_it_says_so_and_keeps_its_wish() -> None:
    (turn,) = turns(InstructedUser(ITEMS, volunteer=1.0), 3)
    assert (turn.answer.message, turn.answer.reveal) == ("I was offered nothing.", None)


# The controls ---------------------------------------------------------------------------------------------------------


def test_a_silent_user_judges_the_same_and_says_nothing() -> None:
    for acts in ((1, "genre", "decade", 2), (2, 1, 0)):
        silent, talks = (
            turns(SilentUser(ITEMS, volunteer=1.0), *acts),
            turns(InstructedUser(ITEMS, volunteer=1.0), *acts),
        )
        assert [turn.answer.reveal for turn in silent] == [None] * len(acts)
        assert any(turn.answer.reveal for turn in talks)
        judged = [[(turn.answer.action, turn.answer.strength) for turn in one] for one in (silent, talks)]
        assert judged[0] == judged[1]


def test_a_shuffled_user_reveals_by_another_task_and_judges_by_its_own() -> None:
    others = {Facet("genre", ITEMS[task.target].genres[0]) for task in TOY.tasks[1:]}
    found = set()
    for seed in range(30):
        asked, hit, *_ = turns(ShuffledUser(ITEMS, TOY), "genre", 0, seed=seed)
        found.add(asked.answer.reveal)
        assert hit.accepted
    assert found == others - {None}


def test_a_wholly_shuffled_user_also_judges_by_the_other_task() -> None:
    # of tasks 0 and 3 only the other is left: "genre: Horror", "decade: 1970s", which is Alien, item 2
    user = ShuffledUser(ITEMS, [TASK, TOY.tasks[3]], whole=True)
    task = dataclasses.replace(TASK, candidates=(5, 2, 3))
    rejected, asked, clicked = turns(user, 0, "genre", 1, task=task)
    assert rejected.rejected
    assert asked.answer.reveal == Facet("genre", "Horror")
    assert clicked.accepted
    half = ShuffledUser(ITEMS, [TASK, TOY.tasks[3]])
    assert turns(half, 0, task=task)[0].accepted


def test_one_dialogue_has_one_other_task() -> None:
    for transcript in rollout(
        TOY,
        ITEMS,
        ScriptedAgent([{"ask": "genre", "message": ""}]),
        ShuffledUser(ITEMS, TOY),
        provenance=TOY.provenance,
    ):
        assert len({turn.answer.reveal for turn in transcript.turns if turn.question}) == 1


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: InstructedUser(ITEMS, volunteer=1.5),
            ConfigError,
            r"volunteer must be a probability in \[0, 1\], got 1\.5",
        ),
        (lambda: SilentUser(ITEMS, volunteer=-1), ConfigError, r"volunteer must be a probability in \[0, 1\], got -1"),
        (lambda: InstructedUser(ITEMS, taste=np.zeros), ConfigError, "Taste is judged by a score"),  # type: ignore[arg-type]
        (lambda: ShuffledUser(ITEMS, toy_episodes()), TaskError, "Task 'toy-0' has no instruction to reveal"),
        (lambda: ShuffledUser(ITEMS, ["toy-0"]), ConfigError, "Instructions are part of tasks"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_shuffled_user_needs_another_task_of_the_same_game() -> None:
    with pytest.raises(TaskError, match=r"None of 1 tasks has instructions of kinds \('genre', 'decade'\) and another"):
        turns(ShuffledUser(ITEMS, [TASK]), "genre")
    other = dataclasses.replace(TOY.tasks[1], instruction=Instruction((COMEDY,), ("genre",)))
    with pytest.raises(TaskError, match="None of 1 tasks has instructions of kinds"):
        turns(ShuffledUser(ITEMS, [other]), "genre")


def test_what_is_shuffled_comes_from_another_group() -> None:
    group = group_of(TASK, ((1,), (Facet("genre", "Sci-Fi"),)))
    user = ShuffledUser(ITEMS, [group, TOY.tasks[3]])
    user.start([[seed] for seed in range(8)])
    for place in range(2):
        seen = Dialogue(group, ITEMS).observe(f"user_{place}")
        assert {user.says(n, seen) for n in range(8)} == {TOY.tasks[3].instruction.facets}  # type: ignore[union-attr]


def test_each_user_of_a_group_reveals_what_it_wants_itself() -> None:
    group = group_of(TASK, ((1,), (Facet("genre", "Sci-Fi"),)))
    users = InstructedUser(ITEMS, volunteer=1.0)
    played = rollout(
        [group], ITEMS, ScriptedAgent(({"item": 1, "message": ""},) * 3), users, provenance=TOY.provenance, max_turns=3
    )
    revealed = [tuple(answer.reveal for answer in turn.answers) for turn in played[0].turns]
    own = TASK.instruction.facets  # type: ignore[union-attr]
    assert [both[1] for both in revealed] == [Facet("genre", "Sci-Fi"), None, None]
    assert {both[0] for both in revealed} - {None} <= set(own)
    assert revealed[0][0] in own
