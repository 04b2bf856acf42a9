"""The judge reads a dialogue without its truth, and what it grades is what is paid."""

from typing import Any

import pytest

from agents.models.language_model import Reply, Request
from agents.players.judge import GRADES, RUBRIC, Judge
from coars_env import RECOMMENDER, ROLES, USER, Item


class Fixed:
    """Grades recommenders .25, .5 and .75, users 1, 1 and 1."""

    name, separator = "fixed", ""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def answer(self, requests: list[Request]) -> list[Reply]:
        self.asked = list(requests)
        grades = [("0.25", "0.50", "0.75") if "recommender" in r.messages[0][-1] else ("1.00",) * 3 for r in requests]
        return [Reply(grade, None, "") for grade in grades]


def judged(lab: Any, roles: tuple[Any, ...] = ROLES) -> tuple[Fixed, Any, Any]:
    played = lab.play(lab.policy(), 3)
    judge = Judge(played.agents[RECOMMENDER].policy, lab.split.dataset.items, roles)
    model = Fixed()
    judge.model = model  # type: ignore[assignment]
    return model, played.transcripts, judge.score(played.transcripts)


def test_each_turn_earns_the_mean_grade_of_its_dialogue(lab: Any) -> None:
    _, transcripts, terms = judged(lab)
    assert [len(turns) for turns in terms] == [len(transcript.turns) for transcript in transcripts]
    assert {(term.rewards[RECOMMENDER], term.rewards[USER]) for turns in terms for term in turns} == {(0.5, 1.0)}
    assert not any(term.excluded for turns in terms for term in turns)


def test_only_the_sides_that_learn_are_graded(lab: Any) -> None:
    model, transcripts, terms = judged(lab, (USER,))
    assert len(model.asked) == len(transcripts)
    assert {term.rewards[RECOMMENDER] for turns in terms for term in turns} == {0.0}


def test_the_judge_reads_every_word_and_is_not_told_the_target(lab: Any) -> None:
    model, transcripts, _ = judged(lab)
    items: list[Item] = lab.split.dataset.items
    for transcript, request in zip(transcripts, model.asked[::2], strict=True):
        text = "".join(request.messages[0])
        target = items[transcript.task.target].title
        proposals = [turn.proposal for turn in transcript.turns]
        assert text.count(target) == 1 + proposals.count(transcript.task.target)  # in the list, as all candidates
        for turn in transcript.turns:
            assert turn.answer.message.strip() in text
            assert turn.rationale.strip() in text


def test_the_judge_reads_questions_and_wishes(lab: Any) -> None:
    policy = lab.policy("instructed")
    judge = Judge(policy, lab.split.dataset.items)
    (dialogue,) = lab.instructed(1, max_turns=2)
    genre, decade = dialogue.task.instruction.facets
    dialogue.ask("genre", "Say.")
    dialogue.reply(0, None, "", reveal=genre)
    dialogue.recommend(0, "This.")
    dialogue.reply(1, 0.3, "No.", reveal=decade)
    transcript = dialogue.transcript(lab.split.dataset.provenance)
    text = "".join(judge.request(transcript, USER).messages[0])
    assert f"\nThe recommender asks: Which genre?\nBecause: Say.\nThe user's answer:\nWants: {genre.value}\n" in text
    assert text.endswith(f"\nThe user's answer: skip 0.30\nWants: {decade.value}\nBecause: No.\nGrade the user.")
    first, last = judge.score([transcript])[0]
    assert first.rewards == last.rewards  # a question is graded with its dialogue


def test_the_base_grades_by_the_form(lab: Any) -> None:
    played = lab.play(lab.policy(), 3)
    judge = Judge(played.agents[RECOMMENDER].policy, lab.split.dataset.items)
    (reply,) = judge.model.answer([judge.request(played.transcripts[0], USER)])
    assert reply.values is not None
    assert [value in GRADES.texts for value in reply.values] == [True] * len(RUBRIC)
    grades = [term.rewards[USER] for turns in judge.score(played.transcripts) for term in turns]
    assert min(grades) >= 0
    assert max(grades) <= 1
    assert sum(map(float, reply.values)) / 3 == pytest.approx(grades[0])
