from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    MAX_MESSAGE_LENGTH,
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    CoarsEnv,
    CoarsReward,
    Dialogue,
    Facet,
    Instruction,
    Rules,
    Transcript,
    reveals_of,
    rollout,
)
from coars_env.rules import PAPER
from coars_env.testing import ScriptedAgent, toy_episodes, toy_instructed_episodes

TOY = toy_instructed_episodes()
COMEDY, WESTERN = Facet("genre", "Comedy"), Facet("genre", "Western")
UNREAD = {"action": 4, "strength": 0.0, "message": "?", "error": "no wish"}


def dialogue(row: int = 0, **options: Any) -> Dialogue:
    return Dialogue(TOY.tasks[row], TOY.items, **{"rules": PAPER, **options})


def stored(played: Dialogue) -> Transcript:
    return Transcript.from_json(played.transcript(TOY.provenance).to_json())


# Questions ------------------------------------------------------------------------------------------------------------


def test_a_dialogue_with_questions_by_hand() -> None:
    # candidates: 0 Brazil, 1 Heat, 2 Seven Samurai; target Brazil, q = .5; T = 4
    played = dialogue(reward=CoarsReward(question_cost=0.25))
    assert played.askable == ("genre", "decade")
    played.ask("genre", "Which genre?")
    assert (played.speaker, played.asked, played.turns[0].proposal) == (USER, "genre", None)
    terms = played.reply(0, 0.9, "A comedy.", reveal=COMEDY)
    assert dict(terms.rewards) == {RECOMMENDER: -0.25, USER: 0.0}
    assert (terms.hit, terms.excluded, played.asked, played.ending) == (False, frozenset(), None, None)
    played.recommend(0, "This comedy.")
    terms = played.reply(3, 0.9, "Yes.")
    # a hit in turn 2: .95 * 10/9, and .8 (1 - .1 * .5 * .8), as if nothing had been asked
    assert terms.rewards == pytest.approx({RECOMMENDER: 0.95 * 10 / 9, USER: 0.8 * 0.96})
    question, proposal = played.turns
    assert (question.question, question.error, question.answered, question.usable) == ("genre", None, True, False)
    (answer,) = question.answers
    assert (answer.action, answer.strength, answer.reveal, answer.message) == (None, None, COMEDY, "A comedy.")
    assert (proposal.question, proposal.answered, played.ending) == (None, False, "accepted")
    assert stored(played).turns == tuple(played.turns)
    assert played.observe(USER)["text"].splitlines()[3:] == [
        "You want: genre: Comedy.",
        "Turn 1. Recommender asks for the genre: Which genre?",
        "Turn 1. User wants genre: Comedy: A comedy.",
        "Turn 2. Recommender proposes Brazil (1985): This comedy.",
        "Turn 2. Peers: one much like you took it after Alien (1979).",
        "Turn 2. User answers click (0.90): Yes.",
    ]


def test_a_question_takes_a_turn_and_the_last_turn_proposes() -> None:
    played = dialogue(max_turns=2)
    played.ask("decade", "")
    played.reply(0, None, "I would rather not say.")
    assert played.askable == ()
    played.ask("decade", "And now?")
    assert (played.turns[-1].error, played.turns[-1].rationale) == ("the last turn must propose", "And now?")
    assert (played.turns[-1].question, played.asked) == (None, None)
    assert played.parse_error(RECOMMENDER) == "the last turn must propose"
    terms = played.reply(0, 0.1, "What?", reveal=COMEDY)
    assert (terms.rewards[RECOMMENDER], played.ending) == (-1.0, "max_turns")
    assert stored(played).turns[1].answers[0].reveal == COMEDY


@pytest.mark.parametrize(
    ("options", "kind", "questions"),
    [({}, "brand", r"\['genre', 'decade'\]"), ({"rules": Rules(questions=False)}, "genre", r"\[\]")],
)
def test_what_cannot_be_asked_for_is_refused_and_changes_nothing(options: Any, kind: str, questions: str) -> None:
    played = dialogue(**options)
    for asking in (lambda: played.ask(kind, ""), lambda: played.act({"ask": kind, "message": ""})):
        with pytest.raises(
            ActionError, match=rf"'{kind}' cannot be asked for in task 'toy-0': its questions are {questions}"
        ):
            asking()  # type: ignore[no-untyped-call]
    assert (played.turns, played.speaker) == ([], RECOMMENDER)


def test_nothing_is_asked_without_an_instruction() -> None:
    plain = Dialogue(toy_episodes().tasks[0], TOY.items)
    assert (plain.kinds, plain.askable) == ((), ())
    with pytest.raises(ActionError, match=r"its questions are \[\]\. Play episodes with an instruction of that kind"):
        plain.ask("genre", "")
    plain.recommend(0, "")
    with pytest.raises(
        ActionError, match=r"kind 'genre' cannot be revealed in task 'toy-0': its kinds are \[\]\. Reveal"
    ):
        plain.reply(0, None, "", reveal=COMEDY)
    assert len(plain.terms) == 0


def test_the_sides_ask_and_answer_in_turn() -> None:
    played = dialogue()
    played.ask("genre", "")
    with pytest.raises(ActionError, match="The sides speak in turn"):
        played.ask("genre", "")
    with pytest.raises(ActionError, match="The sides speak in turn"):
        played.recommend(0, "")
    assert len(played.turns) == 1


@pytest.mark.parametrize(
    ("action", "error", "reveal", "user"),
    [
        ({"action": 3, "strength": 0.9, "message": "Yes"}, None, None, 0.0),  # no click on a question
        ({"action": 4, "strength": 0.0, "message": "No."}, None, None, 0.0),
        ({"action": 2, "strength": None, "message": "", "reveal": "genre: Comedy"}, None, COMEDY, 0.0),
        ({"action": 2, "strength": 0.6, "message": "", "error": "ignored"}, None, None, 0.0),
        ({**UNREAD, "reveal": "genre: Comedy"}, "no wish", None, -0.5),
    ],
)
def test_an_answer_to_a_question_has_words_alone(action: Any, error: Any, reveal: Any, user: float) -> None:
    played = dialogue(reward=CoarsReward(invalid=-0.5, question_cost=1.0))
    played.act({"ask": "genre", "message": "Which?"})
    terms = played.act(action)
    assert terms
    assert (played.turns[0].answered, played.ending) == (error is None, None)
    (answer,) = played.turns[0].answers
    assert (answer.action, answer.strength, answer.error, answer.reveal) == (None, None, error, reveal)
    assert dict(terms.rewards) == {RECOMMENDER: -1.0, USER: user}
    assert terms.excluded == (frozenset() if error is None else {RECOMMENDER})
    assert played.parse_error(USER) == error
    seen = played.observe(RECOMMENDER)
    assert (seen["actions"][0], seen["proposals"][0], seen["strengths"][0]) == (-1, -1, -1.0)


def test_fields_of_a_question_are_recorded_and_never_observed() -> None:
    played = dialogue()
    played.act({"ask": "genre", "message": "", "fields": {"thought": "zebra"}})
    played.act({"action": 0, "strength": 0.0, "message": "", "fields": {"thought": "quagga"}})
    (turn,) = played.turns
    assert (turn.fields, turn.answers[0].fields) == ({"thought": "zebra"}, {"thought": "quagga"})
    for role in ROLES:
        assert "zebra" not in repr(played.observe(role))
        assert "quagga" not in repr(played.observe(role))


# Reveals --------------------------------------------------------------------------------------------------------------


def test_a_facet_may_be_revealed_with_an_answer_true_or_not() -> None:
    played = dialogue()
    for facet in (COMEDY, Facet("genre", "Horror"), WESTERN):  # of the target, of another item, of none
        played.recommend(1, "")
        played.reply(1, 0.3, "Not that.", reveal=facet)
    played.recommend(1, "")
    played.reply(4, None, "?", reveal=COMEDY)  # a message that could not be used reveals nothing
    assert reveals_of(played.observe(RECOMMENDER)) == (COMEDY, Facet("genre", "Horror"), WESTERN, None)
    assert "Turn 1. User answers skip (0.30), wants genre: Comedy: Not that." in played.observe(RECOMMENDER)["text"]


def test_what_is_revealed_is_cleaned_as_a_message_is() -> None:
    played = dialogue()
    played.ask("genre", "")
    played.reply(0, None, "", reveal=Facet("genre", " Co\nme\tdy "))
    played.ask("genre", "")
    played.reply(0, None, "", reveal=Facet("genre", " \n"))
    played.ask("genre", "")
    played.reply(0, None, "", reveal=Facet("genre", "x" * 5000))
    first, second, third = reveals_of(played.observe(USER))
    assert (first, second) == (Facet("genre", "Co me dy"), None)
    assert len(str(third)) == MAX_MESSAGE_LENGTH
    assert CoarsEnv(TOY).observation_space(USER).contains(played.observe(USER))


@pytest.mark.parametrize(
    ("reveal", "message"),
    [
        (
            Facet("brand", "Fender"),
            r"kind 'brand' cannot be revealed in task 'toy-0': its kinds are \['genre', 'decade'\]",
        ),
        ("Comedy", r"reveal='Comedy' is no facet: a facet is written as 'kind: value'"),
        (7, r"reveal=7 is no facet: it is no text"),
    ],
)
def test_what_cannot_be_revealed_is_refused_and_changes_nothing(reveal: Any, message: str) -> None:
    played = dialogue()
    played.recommend(0, "")
    with pytest.raises(ActionError, match=message):
        played.act({"action": 0, "strength": 0.1, "message": "", "reveal": reveal})
    assert (played.terms, played.speaker) == ([], USER)


def test_the_recommender_sees_nothing_of_the_instruction_before_the_user_speaks() -> None:
    wishes = [Instruction(facets, ("genre", "decade")) for facets in ((), (COMEDY,), (Facet("decade", "1980s"),))]
    played = [Dialogue(replace(TOY.tasks[0], instruction=wish), TOY.items) for wish in wishes]
    for act in (
        lambda one: one.ask("genre", "Which?"),
        lambda one: one.reply(0, None, "Guess!"),
        lambda one: one.recommend(1, ""),
        lambda one: one.reply(0, 0.1, "No.", reveal=WESTERN),
    ):
        first, *others = [repr(one.observe(RECOMMENDER)) for one in played]
        assert others == [first, first]
        assert len({repr(one.observe(USER)) for one in played}) == 3
        for one in played:
            act(one)
    assert len({repr(one.observe(RECOMMENDER)) for one in played}) == 1


# Repeats --------------------------------------------------------------------------------------------------------------


def test_repeats_are_paid_or_not_or_forbidden() -> None:
    earned, errors = {}, {}
    for repeats in ("paid", "unpaid", "forbidden"):
        played = dialogue(rules=Rules(repeats=repeats))
        for action, strength in ((0, 0.1), (2, 0.6), (1, 0.3)):  # of the target, q = .5
            played.recommend(0, "")
            played.reply(action, strength, "")
        earned[repeats] = [term.rewards[RECOMMENDER] for term in played.terms]
        errors[repeats] = [turn.error for turn in played.turns]
    # hits: (.5 + .5 s) D with D = 4/3, 10/9, 8/9
    assert earned["paid"] == pytest.approx([0.55 * 4 / 3, 0.8 * 10 / 9, 0.65 * 8 / 9])
    assert earned["unpaid"] == pytest.approx([0.55 * 4 / 3, 0.0, 0.0])
    assert earned["forbidden"] == pytest.approx([0.55 * 4 / 3, -1.0, -1.0])
    assert errors["paid"] == errors["unpaid"] == [None] * 3
    assert errors["forbidden"][1:] == ["'Brazil (1985)' was rejected in an earlier turn, and repeats are forbidden"] * 2


def test_a_repeat_still_costs_where_it_is_unpaid() -> None:
    played = dialogue(rules=Rules(repeats="unpaid"))
    for _ in range(2):
        played.recommend(1, "")
        played.reply(0, 0.1, "")
    first, second = played.terms
    assert second.rewards[RECOMMENDER] == pytest.approx(-0.55 * 8 / 9)  # a miss in turn 2
    assert (first.rewards[USER] > 0, second.rewards[USER]) == (True, 0.0)


def test_only_what_was_rejected_is_forbidden_and_all_come_back_when_none_is_left() -> None:
    played = dialogue(rules=Rules(repeats="forbidden"), max_turns=8)
    played.recommend(0, "")
    played.reply(2, 0.6, "")  # starred
    assert (played.forbidden, played.observe(RECOMMENDER)["allowed"].tolist()) == (frozenset(), [1, 1, 1])
    for position, left in ((1, [1, 0, 1]), (0, [0, 0, 1]), (2, [1, 1, 1])):
        played.recommend(position, "")
        assert played.observe(USER)["allowed"].tolist() == [0, 0, 0]
        played.reply(0, 0.1, "")
        assert played.observe(RECOMMENDER)["allowed"].tolist() == left
    played.recommend(0, "Again.")
    assert played.turns[-1].proposal == 5
    played.reply(4, None, "")
    assert played.forbidden == frozenset()
    for _ in range(3):
        played.recommend(0, "")
        played.reply(0, None, "")
    assert stored(played).turns == tuple(played.turns)


def test_an_unusable_answer_rejects_nothing() -> None:
    played = dialogue(rules=Rules(repeats="forbidden"))
    played.recommend(0, "")
    played.reply(4, None, "")
    assert played.forbidden == frozenset()


# Whole dialogues ------------------------------------------------------------------------------------------------------

halves = st.tuples(
    st.sampled_from([{"ask": "genre"}, {"ask": "decade"}, {"item": 0}, {"item": 1}, {"item": 2}, {"item": 3}]),
    st.integers(0, 4),
    st.sampled_from(["", "genre: Comedy", "genre: Horror", "decade: 1980s"]),
    st.sampled_from([None, "?"]),
)


@given(
    st.lists(halves, min_size=5, max_size=5),
    st.sampled_from(["paid", "unpaid", "forbidden"]),
    st.sampled_from(["last", "best"]),
    st.sampled_from(TOY.tasks),
)
def test_any_dialogue_can_be_stored_and_is_observed_in_its_spaces(
    said: Any, repeats: Any, answer: Any, task: Any
) -> None:
    rules, env = Rules(repeats=repeats, answer=answer), CoarsEnv(TOY, max_turns=5, rules=Rules(repeats=repeats))
    played = Dialogue(task, TOY.items, max_turns=5, rules=rules, reward=CoarsReward(question_cost=0.1))
    for proposal, action, reveal, error in said:
        if played.ending is None:
            played.act({**proposal, "message": "So."})
            assert all(env.observation_space(role).contains(played.observe(role)) for role in ROLES)
            played.act({"action": action, "strength": None, "message": "Hm.", "reveal": reveal, "error": error})
            assert all(env.observation_space(role).contains(played.observe(role)) for role in ROLES)
    transcript = played.transcript(TOY.provenance)
    assert Transcript.from_json(transcript.to_json()) == transcript
    assert [dict(term.rewards) for term in played.terms] == [dict(paid) for paid in transcript.rewards]


def test_a_dialogue_that_asks_is_played_by_agents() -> None:
    recommender = ScriptedAgent([{"ask": "genre", "message": "Which?"}, {"item": 0, "message": ""}])
    user = ScriptedAgent(
        [
            {"action": 4, "strength": 0.0, "message": "Fun.", "reveal": COMEDY},
            {"action": 3, "strength": 1.0, "message": ""},
        ]
    )
    (told, *_) = rollout(TOY, TOY.items, recommender, user, provenance=TOY.provenance)
    assert [turn.question for turn in told.turns] == ["genre", None]
    assert told.ending == "accepted"
    assert user.observed[0][0]["instruction"] == "genre: Comedy"
    assert recommender.observed[0][1]["reveals"] == ("genre: Comedy", "", "", "")
    broken = ScriptedAgent([{"ask": "brand", "message": ""}])
    (failed, *_) = rollout(TOY, TOY.items, broken, user, provenance=TOY.provenance)
    assert failed.ending == "failed"
    assert "'brand' cannot be asked for" in (failed.cause or "")
