import json
import math
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    MAX_MESSAGE_LENGTH,
    RECOMMENDER,
    USER,
    ActionError,
    Answer,
    CoarsReward,
    ConfigError,
    Dialogue,
    Facet,
    Provenance,
    Rules,
    Transcript,
    TranscriptError,
    Turn,
    clamp_strength,
    clean_message,
    dialogue_text,
    read_transcripts,
    write_transcripts,
)
from coars_env.rules import PAPER
from coars_env.testing import toy_dataset, toy_episodes, toy_instructed_episodes
from coars_env.transcript import rejected_items
from turns import turn_of

TASK = toy_episodes()["toy-0"]  # history 0 4, candidates 5 1 3, target 5
ITEMS = toy_dataset().items
PROVENANCE = Provenance("custom", "toy", "0" * 64)
TRANSCRIPT = Transcript(
    TASK,
    max_turns=4,
    turns=(
        turn_of(1, "You like crime.", action=1, strength=0.3, message="Not today."),
        turn_of(5, "Then a comedy.", action=3, strength=0.9, message="Yes!"),
    ),
    ending="accepted",
    cause=None,
    provenance=PROVENANCE,
    seed=3,
)

TURNS = json.loads(TRANSCRIPT.to_json())["turns"]

any_text = st.text(st.characters(), max_size=80)  # lone surrogates and control characters included
messages = any_text.map(clean_message)
errors = messages.filter(bool)
proposals = st.one_of(
    st.tuples(st.sampled_from(TASK.candidates), messages, st.none()), st.tuples(st.none(), messages, errors)
)
answers = st.one_of(
    st.tuples(st.integers(0, 3), st.floats(0, 1), messages, st.none()),
    st.tuples(st.none(), st.none(), messages, errors),
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    proposal, rationale, recommender_error = draw(proposals)
    action, strength, reply, user_error = draw(answers)
    if action is not None:
        strength = clamp_strength(action, strength)
    return turn_of(proposal, rationale, action, strength, reply, recommender_error, user_error)


@st.composite
def endings(draw: st.DrawFn) -> Transcript:
    """Played until a proposal is clicked, the turns run out, or somebody breaks."""
    played: list[Turn] = []
    for turn in draw(st.lists(turns(), max_size=4)):
        played.append(turn)
        if turn.proposal is not None and turn.answer.action == 3:
            return Transcript(TASK, 4, tuple(played), "accepted", None, PROVENANCE, draw(st.integers(0, 2**40)))
    if len(played) == 4:
        return Transcript(TASK, 4, tuple(played), "max_turns", None, PROVENANCE, draw(st.integers(0, 2**40)))
    return Transcript(TASK, 4, tuple(played), "failed", draw(messages), PROVENANCE, draw(st.integers(0, 2**40)))


transcripts = endings()


# Messages -------------------------------------------------------------------------------------------------------------


@given(any_text)
def test_any_string_becomes_one_line_of_utf8(text: str) -> None:
    cleaned = clean_message(text)
    cleaned.encode()
    assert len(cleaned.splitlines()) <= 1
    assert len(cleaned) <= MAX_MESSAGE_LENGTH
    assert unicodedata.is_normalized("NFC", cleaned)
    assert clean_message(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  kept  ", "  kept  "),
        ("Ame\u0301lie", "Am\u00e9lie"),
        ("a\nTurn 2. User answers click", "a Turn 2. User answers click"),  # nobody writes the partner's lines
        ("a\x00b\u2028c\ud800d", "a b c d"),
        ("七人の侍 🎬", "七人の侍 🎬"),
        ("x" * 3000, "x" * 2048),
    ],
)
def test_messages_are_cleaned(text: str, expected: str) -> None:
    assert clean_message(text) == expected


# Storage --------------------------------------------------------------------------------------------------------------


@given(transcripts)
def test_a_transcript_survives_json_in_any_alphabet(transcript: Transcript) -> None:
    line = transcript.to_json()
    assert Transcript.from_json(line) == transcript
    assert Transcript.from_json(line).to_json() == line


@given(written=st.lists(transcripts, max_size=3))
def test_transcripts_survive_a_file_in_any_alphabet(
    written: list[Transcript], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("transcripts") / "new" / "folder.jsonl"
    write_transcripts(path, written)
    assert list(read_transcripts(path)) == written


def test_dialogues_of_version_2_are_still_read(tmp_path: Path) -> None:
    first, second = read_transcripts(Path(__file__).with_name("transcripts_v2.jsonl"))
    assert first.turns == (
        turn_of(1, "You like crime.", 1, 0.3, "Not today."),
        turn_of(None, "Hm?", 2, 0.6, "What?", "no candidate"),
        turn_of(3, "七人の侍!", None, None, "...", None, "the message holds no action"),
        turn_of(5, "Then a comedy.", 3, 0.9, "Yes!"),
    )
    assert (first.task, first.ending, first.seed) == (TASK, "accepted", 7)
    assert first.rewards[1:3] == ({RECOMMENDER: -1.0, USER: 0.0}, {RECOMMENDER: 0.0, USER: -1.0})
    assert (second.ending, second.cause, len(second.turns)) == ("failed", "user_0: RuntimeError('gone')", 1)
    for transcript in (first, second):
        assert transcript.rewards == tuple(terms.rewards for terms in CoarsReward()(transcript))
        assert json.loads(transcript.to_json())["version"] == 3
        assert Transcript.from_json(transcript.to_json()) == transcript


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_transcripts(tmp_path / "t.jsonl", [TRANSCRIPT, TRANSCRIPT])

    def breaks() -> Any:
        yield TRANSCRIPT
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_transcripts(tmp_path / "t.jsonl", breaks())
    assert len(list(read_transcripts(tmp_path / "t.jsonl"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_equal_transcripts_have_equal_bytes() -> None:
    shuffled = dict(reversed(json.loads(TRANSCRIPT.to_json()).items()))
    assert Transcript.from_json(json.dumps(shuffled)).to_json() == TRANSCRIPT.to_json()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "A transcript is one JSON object a line"),
        ("{", "A transcript is one JSON object a line"),
        ("[1]", "A transcript is one JSON object a line"),
        ("[" * 100_000, "A transcript is one JSON object a line"),
        ("{}", "KeyError.*version"),
        ('{"version": 99}', "Transcripts carry a version. Expected 2, 3 or 4, found 99"),
        ('{"version": 3}', "A transcript is one JSON object a line"),
    ],
)
def test_a_line_that_is_no_transcript_is_refused(line: str, message: str) -> None:
    with pytest.raises(TranscriptError, match=message):
        Transcript.from_json(line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ending": "won"}, "ending 'won' after 2 of 4 turns"),
        ({"ending": "max_turns"}, "ending 'max_turns', which does not follow from the turns"),
        ({"turns": TURNS[::-1]}, "ending 'accepted', which does not follow from the turns"),
        ({"turns": TURNS[1:] * 2}, "ending 'accepted', which does not follow from the turns"),
        ({"max_turns": 1}, "after 2 of 1 turns"),
        ({"unknown": 1}, "unexpected keyword argument"),
        ({"rules": {"repeats": "paid", "answer": "best", "questions": True}}, "version 3 knows no rules"),
        ({"turns": [{"proposal": 1, "answers": []}]}, "missing"),
        ({"task": {**asdict(TASK), "target": 0}}, "The target must be among the candidates"),
    ],
)
def test_a_changed_transcript_is_refused(change: dict[str, Any], message: str) -> None:
    line = json.dumps({**json.loads(TRANSCRIPT.to_json()), **change})
    with pytest.raises(TranscriptError, match=message):
        Transcript.from_json(line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": math.nan}, "action 1 with strength nan"),
        ({"strength": 0.5}, "action 1 with strength 0.5"),
        ({"action": 3, "strength": 1.01}, "action 3 with strength 1.01"),
        ({"action": 4}, "not enough values"),
        ({"action": -1}, "not enough values"),
        ({"strength": None}, "either content or an error"),
        ({"action": None, "strength": None}, "either content or an error"),
        ({"error": "?"}, "either content or an error"),
        ({"proposal": None}, "either content or an error"),
        ({"proposal": 0}, "proposes 0, which is no candidate"),
        ({"message": 7}, "must have a text on each side"),
        ({"rationale": 7}, "must have a text on each side"),
        ({"answers": []}, "must have one answer for each user, and has 0"),
        ({"answers": [asdict(TRANSCRIPT.turns[0].answers[0])] * 2}, "must have one answer for each user, and has 2"),
        ({"fields": {"thought": 7}}, "fields must be texts"),
    ],
)
def test_what_no_dialogue_can_hold_never_reaches_a_reward(change: dict[str, Any], message: str) -> None:
    row = json.loads(TRANSCRIPT.to_json())
    turn = row["turns"][0]
    (turn["answers"][0] if set(change) <= {"action", "strength", "message", "error"} else turn).update(change)
    with pytest.raises(TranscriptError, match=message):
        Transcript.from_json(json.dumps(row))


def test_the_line_of_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f"{TRANSCRIPT.to_json()}\nnonsense\n", encoding="utf-8")
    with pytest.raises(TranscriptError, match=r"t\.jsonl, line 2: A transcript is one JSON object a line"):
        list(read_transcripts(path))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "x"},
        {"seed": -1},
        {"seed": [1]},
        {"max_turns": 4.0},
        {"cause": 3},
        {"provenance": {"source": 1, "origin": "", "sha256": ""}},
        {"turns": [asdict(turn_of(1, "", True, 0.3, ""))]},
        {"turns": [{**asdict(TRANSCRIPT.turns[0]), "proposal": True}]},
        {"turns": [{**asdict(TRANSCRIPT.turns[0]), "proposal": None, "error": 3}]},
    ],
)
def test_a_stored_field_has_its_kind(change: dict[str, Any]) -> None:
    line = json.dumps({**json.loads(TRANSCRIPT.to_json()), "ending": "failed", **change})
    with pytest.raises(TranscriptError, match=r"must be (whole numbers|texts)"):
        Transcript.from_json(line)
    with pytest.raises(TranscriptError, match="found None"):
        Transcript.from_json(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["file/below", "folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=rf"{place} cannot be written: .*Name a path in a folder you may write to"):
        write_transcripts(tmp_path / place, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\xff\xfe")
    for name in ("t.jsonl", "absent.jsonl"):
        with pytest.raises(TranscriptError, match="Transcripts are read from a UTF-8 text file"):
            list(read_transcripts(tmp_path / name))


# What is read off a transcript ----------------------------------------------------------------------------------------


def test_the_final_item_is_that_of_the_last_turn() -> None:
    assert TRANSCRIPT.final_item == 5
    assert replace(TRANSCRIPT, turns=()).final_item is None
    unread = turn_of(None, "", 0, 0.1, "", error="?")
    assert replace(TRANSCRIPT, turns=(*TRANSCRIPT.turns, unread)).final_item is None


def test_star_and_click_are_positive() -> None:
    answered = {"dislike": 0.24, "skip": 0.49, "star": 0.5, "click": 0.75}
    assert [turn_of(1, "", n, s, "").positive for n, s in enumerate(answered.values())] == [False, False, True, True]
    assert not turn_of(1, "", None, None, "", user_error="?").positive


def test_the_user_is_shown_neither_the_list_nor_the_target() -> None:
    started = TRANSCRIPT.turns[:1]
    assert dialogue_text(TASK, started, ITEMS, RECOMMENDER) == (
        "Recently taken, oldest first:\n- Amélie (2001)\n- Fargo (1996)\n"
        "Candidates:\n0. Brazil (1985)\n1. Heat (1995)\n2. 七人の侍 (1954)\n"
        "Turn 1. Recommender proposes Heat (1995): You like crime.\n"
        "Turn 1. User answers skip (0.30): Not today."
    )
    assert dialogue_text(TASK, started, ITEMS, USER) == (
        "Recently taken, oldest first:\n- Amélie (2001)\n- Fargo (1996)\n"
        "Turn 1. Recommender proposes Heat (1995): You like crime.\n"
        "Turn 1. Peers: one somewhat like you took it after Alien (1979) and Fargo (1996); one little like you took it "
        "after Fargo (1996); one little like you took it.\n"
        "Turn 1. User answers skip (0.30): Not today."
    )


def test_what_could_not_be_read_is_told_to_both_sides() -> None:
    open_turn = Turn(None, "Hm.", error="?")
    closed = replace(open_turn, answers=(Answer(None, None, "", "?"),))
    assert dialogue_text(TASK, [open_turn], ITEMS, USER).endswith("Turn 1. Recommender proposes (no item): Hm.")
    assert dialogue_text(TASK, [closed], ITEMS, USER).endswith("\nTurn 1. User gives no usable answer.")


def test_a_side_goes_by_its_short_name_too_and_another_name_by_none() -> None:
    for name, role in (("recommender", RECOMMENDER), ("user", USER)):
        shown = dialogue_text(TASK, (), ITEMS, role)
        assert dialogue_text(TASK, (), ITEMS, name) == shown  # type: ignore[arg-type]
        assert Dialogue(TASK, ITEMS).observe(name)["text"] == shown  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Expected role 'recommender' or 'user', found 'critic'"):
        dialogue_text(TASK, (), ITEMS, "critic")  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [-1, 4])
def test_a_strength_belongs_to_one_of_the_four_actions(action: int) -> None:
    with pytest.raises(ActionError, match=rf"Expected a number in 0\.\.3, found {action}"):
        clamp_strength(action, 0.5)


# Instructions, questions and rules ------------------------------------------------------------------------------------

ASKING = toy_instructed_episodes()
COMEDY = Facet("genre", "Comedy")
BEST = Rules(repeats="forbidden", answer="best")
ASKED = Turn(None, "Which?", (Answer(None, None, "A comedy.", reveal=COMEDY),), question="genre")


def asking(*turns: Turn, rules: Rules = PAPER, ending: Any = "max_turns", **changes: Any) -> Transcript:
    """A dialogue about the first instructed toy, of as many turns as it has: candidates 5 1 3, target 5."""
    told = Transcript(ASKING.tasks[0], len(turns), turns, ending, None, ASKING.provenance, rules=rules)
    return replace(told, **changes)


def rejected(item: int, strength: float = 0.1) -> Turn:
    return turn_of(item, "", int(strength >= 0.25), strength, "")


def test_a_version_is_as_old_as_it_can_be() -> None:
    plain = TASK
    turn = rejected(5)
    for told, version in (
        (asking(turn), 4),
        (asking(turn, task=plain), 3),
        (asking(turn, task=plain, rules=BEST), 4),
        (asking(turn, task=plain, rules=Rules(questions=False)), 4),
    ):
        row = json.loads(told.to_json())
        assert row["version"] == version
        assert ("rules" in row, "question" in row["turns"][0], "reveal" in row["turns"][0]["answers"][0]) == (
            (version == 4,) * 3
        )
        assert Transcript.from_json(told.to_json()) == told


def test_a_stored_dialogue_with_questions_by_hand() -> None:
    told = asking(ASKED, turn_of(5, "This.", 3, 0.9, "Yes."), rules=BEST, ending="accepted")
    row = json.loads(told.to_json())
    assert row["rules"] == {"repeats": "forbidden", "answer": "best", "questions": True}
    assert row["task"]["instruction"] == {"facets": [["genre", "Comedy"]], "kinds": ["genre", "decade"], "noise": 0.0}
    assert row["turns"][0]["question"] == "genre"
    assert row["turns"][0]["answers"][0]["reveal"] == ["genre", "Comedy"]
    again = Transcript.from_json(told.to_json())
    assert again == told
    assert isinstance(again.turns[0].answers[0].reveal, Facet)


@pytest.mark.parametrize(
    ("turns", "rules", "message"),
    [
        ([rejected(5), ASKED], PAPER, "turn 2 asks where nothing may be asked"),  # it is the last
        ([ASKED, rejected(5)], Rules(questions=False), "turn 1 asks where nothing may be asked"),
        ([replace(ASKED, question="brand"), rejected(5)], PAPER, "turn 1 asks for or reveals a facet of another kind"),
        ([replace(rejected(5), question="genre"), rejected(5)], PAPER, "either content or an error"),
        ([replace(ASKED, error="?"), rejected(5)], PAPER, "either content or an error"),
        ([replace(ASKED, answers=(Answer(1, 0.3, ""),)), rejected(5)], PAPER, "either content or an error"),
        (
            [replace(ASKED, answers=(Answer(None, None, "", reveal=Facet("brand", "A")),)), rejected(5)],
            PAPER,
            r"reveals a facet of another kind than \['genre', 'decade'\]",
        ),
        ([replace(ASKED, answers=(Answer(None, None, "", reveal=Facet("genre", 7)),)), rejected(5)], PAPER, "no facet"),  # type: ignore[arg-type]
        ([rejected(1), rejected(5), rejected(1)], BEST, "turn 3 proposes 1 again, which is forbidden"),
    ],
)
def test_what_the_rules_do_not_allow_is_no_transcript(turns: list[Turn], rules: Rules, message: str) -> None:
    with pytest.raises(TranscriptError, match=message):
        Transcript.from_json(asking(*turns, rules=rules).to_json())


def test_what_was_rejected_may_come_back_when_nothing_is_left_or_where_it_is_allowed() -> None:
    for told in (
        asking(rejected(1), rejected(5), rejected(3), rejected(1), rules=BEST),
        asking(rejected(1), rejected(1), rules=Rules(repeats="unpaid")),
        asking(turn_of(1, "", 2, 0.6, ""), rejected(1), rules=BEST),
    ):
        assert Transcript.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    "change",
    [
        {"rules": {"repeats": "free", "answer": "best", "questions": True}},
        {"rules": {"repeats": "paid", "order": "any"}},
        {"rules": None},
    ],
)
def test_rules_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    line = json.dumps({**json.loads(asking(rejected(5), rules=BEST).to_json()), **change})
    with pytest.raises(TranscriptError, match="A transcript is one JSON object a line"):
        Transcript.from_json(line)


@pytest.mark.parametrize(
    ("turns", "best"),
    [
        ([rejected(1, 0.3), rejected(5, 0.3), rejected(3, 0.1)], 1),  # the earlier on ties
        ([rejected(1, 0.2), turn_of(5, "", 2, 0.74, ""), turn_of(3, "", 2, 0.6, "")], 5),
        ([ASKED, rejected(1)], 1),
        ([turn_of(1, "", None, None, "", user_error="?"), rejected(5, 0.0)], 5),
        ([turn_of(1, "", None, None, "", user_error="?"), turn_of(None, "", 0, 0.1, "", error="?")], 1),
        ([turn_of(None, "", 3, 1.0, "", error="?")], None),
        ([], None),
    ],
)
def test_the_best_proposal_is_the_one_accepted_most_strongly(turns: list[Turn], best: int | None) -> None:
    told = asking(*turns, rules=BEST)
    assert (told.best_item, told.answer_item) == (best, best)
    last = replace(told, rules=PAPER)
    assert last.answer_item == last.final_item == (turns[-1].proposal if turns else None)


def test_what_was_accepted_is_the_answer_and_a_failed_dialogue_has_none() -> None:
    told = asking(rejected(1), turn_of(5, "", 3, 0.75, ""), rules=BEST, ending="accepted")
    assert (told.best_item, told.final_item, told.answer_item) == (5, 5, 5)
    broken = asking(rejected(1), rules=BEST, ending="failed", max_turns=4)
    assert (broken.best_item, broken.answer_item) == (1, None)
    assert replace(broken, rules=PAPER).answer_item is None


def test_what_is_rejected_answered_and_strong_of_a_turn() -> None:
    unread = Turn(None, "", (Answer(None, None, "", "?"),), question="genre")
    empty = Turn(None, "", question="genre")
    assert [turn.answered for turn in (ASKED, unread, empty, rejected(1))] == [True, False, False, False]
    assert [
        turn.rejected for turn in (rejected(1), ASKED, turn_of(1, "", 2, 0.5, ""), turn_of(None, "", 0, 0.1, ""))
    ] == [*(True, False, False, False)]
    assert [turn.strength for turn in (rejected(1), ASKED, turn_of(None, "", 3, 0.9, ""))] == [0.1, -1.0, -1.0]
    assert rejected_items([rejected(1), ASKED, turn_of(5, "", 2, 0.6, ""), rejected(3)]) == {1, 3}


def test_a_dialogue_of_version_3_has_the_rules_of_the_paper() -> None:
    row = json.loads(asking(rejected(1), rejected(1), task=TASK).to_json())
    told = Transcript.from_json(json.dumps(row))
    assert (told.rules, told.turns[0].question, told.turns[0].answers[0].reveal) == (PAPER, None, None)
