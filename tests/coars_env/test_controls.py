"""Controls by hand: four users of the wish toy who say what they want, and what the recommender hears instead."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coars_env import (
    ROLES,
    USER,
    Action,
    ConfigError,
    EpisodeSet,
    Facet,
    FixedUser,
    Instruction,
    Observation,
    OtherInstruction,
    Provenance,
    ShuffledWords,
    Task,
    Transcript,
    WithoutWords,
    control_users,
    has_facet,
    instruction_of,
    reveals_of,
    rollout,
)
from coars_env.dialogue import Dialogue
from coars_env.partners import copy_agent
from coars_env.testing import ScriptedAgent, check_agent
from turns import FILMS, WISH, group_of

GENRE, KINDS = "genre", ("genre", "decade")
WISHES = (Facet(GENRE, "Comedy"), Facet(GENRE, "Drama"), Facet(GENRE, "War"), Facet("decade", "1990s"))


def wishing(n: int, facet: Facet, target: int) -> Task:
    return replace(WISH, task_id=f"wish-{n}", user=n, target=target, instruction=Instruction((facet,), kinds=KINDS))


EPISODES = EpisodeSet(
    "wish",
    tuple(wishing(n, *each) for n, each in enumerate(zip(WISHES, (1, 3, 4, 1), strict=True))),
    FILMS,
    Provenance("custom", "wish", "0" * 64),
)
ASKS, FIRST, SECOND = (
    {"ask": "genre", "item": 4, "message": "?"},
    {"item": 0, "message": "a"},
    {"item": 2, "message": "b"},
)


class Frank:
    """Says what it wants; takes what has it and dislikes the rest."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.seen: list[list[Observation]] = [[] for _ in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._answer(n, observation) for n, observation in observations.items()}

    def _answer(self, n: int, observation: Observation) -> dict[str, Any]:
        self.seen[n].append(observation)
        (wish,) = instruction_of(observation)
        proposed = int(observation["proposals"][observation["turn"]])
        fits = proposed >= 0 and has_facet(FILMS[proposed], wish)
        words = {"message": f"I want {wish.value}.", "reveal": str(wish)}
        return {"action": 2 if fits else 0, "strength": 0.6 if fits else 0.1, **words}


def played(user: object, *actions: Action, batch_size: int = 256) -> list[Transcript]:
    agents: tuple[Any, Any] = ScriptedAgent(actions), user
    provenance, turns = EPISODES.provenance, len(actions)
    return rollout(EPISODES, FILMS, *agents, provenance=provenance, max_turns=turns, batch_size=batch_size)


def words(transcripts: Sequence[Transcript], turn: int) -> list[tuple[str, str]]:
    answers = [transcript.turns[turn].answers[0] for transcript in transcripts]
    return [(answer.message, str(answer.reveal or "")) for answer in answers]


def acts(transcripts: Sequence[Transcript]) -> list[list[tuple[int | None, float | None]]]:
    return [[(turn.answers[0].action, turn.answers[0].strength) for turn in t.turns] for t in transcripts]


def test_words_are_shuffled_between_dialogues_and_actions_stay() -> None:
    real, shuffled = played(Frank(), ASKS, FIRST, SECOND), played(ShuffledWords(Frank()), ASKS, FIRST, SECOND)
    assert acts(shuffled) == acts(real)
    for turn in range(3):
        was, became = words(real, turn), words(shuffled, turn)
        assert sorted(was) == sorted(became)  # each is lent once
        assert all(own != heard for own, heard in zip(was, became, strict=True))
    # Item 1 suits 0 and 3, who swap their words, and so do 1 and 2, who dislike it.
    swapped = words(real, 1)
    assert words(shuffled, 1) == [swapped[3], swapped[2], swapped[1], swapped[0]]
    assert shuffled == played(ShuffledWords(Frank()), ASKS, FIRST, SECOND)


def test_words_depend_on_the_batch_and_one_dialogue_alone_is_silent() -> None:
    pairs = played(ShuffledWords(Frank()), ASKS, FIRST, batch_size=2)
    real = words(played(Frank(), ASKS, FIRST), 0)
    assert words(pairs, 0) == [real[1], real[0], real[3], real[2]]
    # In the first pair one likes item 1 and one does not: where none did the same the other one lends.
    assert words(pairs, 1)[0][0] == "I want Drama."
    assert words(played(ShuffledWords(Frank()), ASKS, FIRST, batch_size=1), 1) == [("", "")] * 4


def test_a_user_without_words_acts_as_before() -> None:
    real, silent = played(Frank(), ASKS, FIRST, SECOND), played(WithoutWords(Frank()), ASKS, FIRST, SECOND)
    assert acts(silent) == acts(real)
    assert [words(silent, turn) for turn in range(3)] == [[("", "")] * 4] * 3


@pytest.mark.parametrize("control", [ShuffledWords, WithoutWords])
def test_the_user_sees_its_own_words_and_the_recommender_the_others(control: type) -> None:
    frank, plain = Frank(), Frank()
    recommender = ScriptedAgent([ASKS, FIRST, SECOND])
    rollout(EPISODES, FILMS, recommender, control(frank), provenance=EPISODES.provenance, max_turns=3)
    played(plain, ASKS, FIRST, SECOND)
    for seen, expected in zip(frank.seen, plain.seen, strict=True):
        assert [(o["replies"], o["reveals"], o["text"]) for o in seen] == [
            (o["replies"], o["reveals"], o["text"]) for o in expected
        ]
    heard = recommender.observed[0][2]
    assert heard["replies"][:2] != plain.seen[0][2]["replies"][:2]
    assert "Comedy" not in heard["text"]
    assert reveals_of(heard)[1] == (WISHES[3] if control is ShuffledWords else None)  # the other one who takes item 1


def test_what_could_not_be_read_is_left_as_it_is_and_is_not_lent() -> None:
    class Mumbles(Frank):
        def _answer(self, n: int, observation: Observation) -> dict[str, Any]:
            own = super()._answer(n, observation)
            return {**own, "action": 4, "error": "mumbled", "message": "hm"} if n == 1 else own

    transcripts = played(ShuffledWords(Mumbles()), ASKS, FIRST)
    assert [t.turns[0].answers[0].error for t in transcripts] == [None, "mumbled", None, None]
    assert [t.turns[1].answers[0].message for t in transcripts][1] == "hm"
    assert {t.turns[0].answers[0].message for t in transcripts} == {
        "hm",
        *(f"I want {WISHES[n].value}." for n in (0, 2, 3)),
    }


def test_another_instruction_is_shown_in_its_place() -> None:
    frank = Frank()
    transcripts = played(OtherInstruction(frank, EPISODES), ASKS, FIRST)
    for n, (seen, transcript) in enumerate(zip(frank.seen, transcripts, strict=True)):
        shown = {o["instruction"] for o in seen}
        assert len(shown) == 1  # the same in all turns
        assert shown <= set(map(str, WISHES)) - {str(WISHES[n])}
        assert f"You want: {shown.pop()}." in seen[1]["text"]
        assert f"You want: {WISHES[n]}." not in seen[1]["text"]
        assert str(transcript.turns[0].answers[0].reveal) == seen[0]["instruction"]
        assert transcript.task.instruction == EPISODES.tasks[n].instruction
    assert transcripts == played(OtherInstruction(Frank(), EPISODES), ASKS, FIRST, batch_size=1)


def test_controls_are_agents_that_can_be_copied() -> None:
    for control in (WithoutWords(FixedUser()), OtherInstruction(FixedUser(), EPISODES)):
        check_agent(control, USER)
    users = control_users(Frank(), EPISODES)
    assert list(users) == ["shuffled words", "no words", "other instruction"]
    for name, user in users.items():
        before = played(user, ASKS, FIRST)
        copied = copy_agent(user)
        copied.start([(1, 1, 1)])
        assert played(user, ASKS, FIRST) == before, name


def test_what_is_no_user_or_no_instruction_is_refused() -> None:
    for make in (ShuffledWords, WithoutWords, lambda user: OtherInstruction(user, EPISODES)):
        with pytest.raises(ConfigError, match=r"The user .* is an agent, with the methods `start` and `act`"):
            make(FixedUser)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="The 1 tasks have 1 different instructions, but two are needed"):
        OtherInstruction(FixedUser(), EPISODES.tasks[:1])
    with pytest.raises(ConfigError, match="The 1 tasks have 0 different instructions"):
        OtherInstruction(FixedUser(), [replace(WISH, instruction=None)])
    with pytest.raises(ConfigError, match="Instructions are those of tasks"):
        OtherInstruction(FixedUser(), [1])  # type: ignore[list-item]


def test_the_game_without_instructions_has_words_to_shuffle_too() -> None:
    tasks = [replace(task, instruction=None) for task in EPISODES]
    said = [{"action": 0, "strength": 0.1, "message": "no"}]
    for control in (ShuffledWords, WithoutWords):
        dialogues = rollout(
            tasks, FILMS, ScriptedAgent([FIRST]), control(ScriptedAgent(said)), provenance=EPISODES.provenance
        )
        expected = "no" if control is ShuffledWords else ""
        assert {turn.answers[0].message for t in dialogues for turn in t.turns} == {expected}
    assert Dialogue(tasks[0], FILMS).agents == ROLES


def groups() -> EpisodeSet:
    """Two pairs, about items 1 and 4: each user in its own words."""
    first = group_of(wishing(3, WISHES[3], 1), ((2,), (WISHES[0],)))
    second = group_of(replace(wishing(2, WISHES[2], 4), user=7), ((3,), (Facet("decade", "1950s"),)))
    return EpisodeSet("pairs", (first, second), FILMS, EPISODES.provenance)


def test_words_of_groups_come_from_other_groups() -> None:
    episodes = groups()

    def said(user: object, **options: Any) -> list[tuple[str, ...]]:
        agents: tuple[Any, Any] = ScriptedAgent((ASKS,)), user
        found = rollout(episodes, FILMS, *agents, provenance=episodes.provenance, max_turns=2, **options)
        return [tuple(answer.message for answer in one.turns[0].answers) for one in found]

    real = [("I want 1990s.", "I want Comedy."), ("I want War.", "I want 1950s.")]
    assert said(Frank()) == real
    heard = said(ShuffledWords(Frank()))
    assert all(set(now) <= set(other) for now, other in zip(heard, reversed(real), strict=True))
    assert said(ShuffledWords(Frank()), batch_size=1) == [("", "")] * 2  # one's own group lends nothing
    assert said([ShuffledWords(Frank()), ShuffledWords(Frank())]) == real[::-1]
    others = said(OtherInstruction(Frank(), episodes))
    assert all(now != own for pair in zip(others, real, strict=True) for now, own in zip(*pair, strict=True))


def test_a_user_of_a_group_sees_its_own_words_and_what_the_others_said() -> None:
    frank = Frank()
    rollout(groups(), FILMS, ScriptedAgent((ASKS, FIRST)), WithoutWords(frank), provenance=EPISODES.provenance)
    seen = frank.seen[1][1]  # user 1 of the first group, in its second turn
    assert [row[0] for row in seen["replies"]] == ["", "I want Comedy."]
    assert [row[0] for row in seen["reveals"]] == ["", "genre: Comedy"]
    assert "Turn 1. User 0 reveals nothing: " in seen["text"].split("\n")
    assert "Turn 1. User 1 wants genre: Comedy: I want Comedy." in seen["text"].split("\n")
