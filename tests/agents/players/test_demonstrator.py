"""Demonstrations in any format: the choice the logs call right, everything else sampled, and recorded as it was."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agents.models.fields import Field, OneOf, Text, candidate_titles
from agents.models.replies import ReplyFormat
from agents.players.demonstrator import Demonstrator
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    Dialogue,
    FixedUser,
    Observation,
    RandomRecommender,
    Rules,
    play,
)


def played(
    lab: Any, policy: Any, formats: Any, *, random: bool = False
) -> tuple[dict[str, Demonstrator], list[Dialogue]]:
    dialogues = lab.dialogues(6, max_turns=2)
    agents = {role: Demonstrator(policy, role, lab.split.dataset.items, reply_format=formats[role]) for role in ROLES}
    for agent in agents.values():
        agent.prepare([dialogue.task for dialogue in dialogues])
    play(dialogues, RandomRecommender() if random else agents[RECOMMENDER], agents[USER])
    assert [dialogue.cause for dialogue in dialogues] == [None] * 6
    return agents, dialogues


@pytest.mark.parametrize("kind", ["pocket", "qwen3"])
def test_it_makes_the_right_choice_in_any_format(lab: Any, kind: str) -> None:
    _, dialogues = played(lab, lab.policy(kind), lab.every_kind)
    for dialogue in dialogues:
        assert [(turn.proposal, turn.answer.action, turn.answer.strength) for turn in dialogue.turns] == [
            (dialogue.task.target, ACTIONS.index("click"), 1.0)
        ]
    _, dialogues = played(lab, lab.policy(kind), lab.every_kind, random=True)
    wrong = [turn for one in dialogues for turn in one.turns if turn.proposal != one.task.target]
    assert len(wrong) > 3
    assert {(turn.answer.action, turn.answer.strength) for turn in wrong} == {(ACTIONS.index("dislike"), 0.0)}


class Asking:
    """Asks for the genre and the decade, and then proposes the first candidate."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        pass

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        script: tuple[Action, ...] = ({"ask": "genre"}, {"ask": "decade"}, {"item": 0}, {"item": 0})
        return {n: {"message": "", **script[int(seen["turn"])]} for n, seen in observations.items()}


def test_with_an_instruction_it_reveals_what_is_true_and_never_asks(lab: Any) -> None:
    policy, items = lab.policy("instructed"), lab.split.dataset.items
    user, recommender = (Demonstrator(policy, role, items) for role in (USER, RECOMMENDER))
    dialogues = lab.instructed(6)
    user.prepare([dialogue.task for dialogue in dialogues])
    play(dialogues, Asking(), user)
    for dialogue in dialogues:
        genre, decade = dialogue.task.instruction.facets
        assert [turn.answer.reveal for turn in dialogue.turns] == [genre, decade, None, None][: len(dialogue.turns)]
    dialogues = lab.instructed(6, rules=Rules(repeats="forbidden"))
    for agent in (user, recommender):
        agent.prepare([dialogue.task for dialogue in dialogues])
    play(dialogues, RandomRecommender(), user)
    for dialogue in dialogues:
        revealed = [turn.answer.reveal for turn in dialogue.turns]
        assert revealed == [*dialogue.task.instruction.facets, None, None][: len(revealed)]
    dialogues = lab.instructed(6)
    play(dialogues, recommender, user)
    assert [[turn.proposal for turn in dialogue.turns] for dialogue in dialogues] == [
        [dialogue.task.target] for dialogue in dialogues
    ]


def test_what_may_not_be_proposed_again_is_not_given(lab: Any) -> None:
    dialogues = lab.instructed(4, rules=Rules(repeats="forbidden"))
    recommender = Demonstrator(lab.policy("instructed"), RECOMMENDER, lab.split.dataset.items)
    recommender.prepare([dialogue.task for dialogue in dialogues])
    play(dialogues, recommender, FixedUser("skip"))
    for dialogue in dialogues:
        assert dialogue.turns[0].proposal == dialogue.task.target
        assert all(turn.error is None and turn.proposal != dialogue.task.target for turn in dialogue.turns[1:])


@pytest.mark.parametrize("kind", ["pocket", "qwen3"])
def test_what_is_not_given_is_sampled_and_recorded(lab: Any, plain_logprobs: Any, kind: str) -> None:
    """A reason after the choice is sampled given the choice: its log-probabilities are those of a fresh pass."""
    policy = lab.policy(kind)
    after = ReplyFormat((Field("Item", OneOf(candidate_titles)), Field("Reason", Text(min_tokens=2))))
    agents, _ = played(lab, policy, {RECOMMENDER: after, USER: lab.every_kind[USER]})
    given, sampled = 0, 0
    for role in ROLES:
        for row in agents[role].rows:
            columns = [column for column, own in enumerate(row.sampled) if own]
            expected = plain_logprobs(policy, role, row.token_ids, columns, [row.allowed[c] for c in columns])
            for column, logprob in zip(columns, expected, strict=True):
                if row.logprobs[column] == 0:
                    assert isinstance(row.allowed[column], tuple)
                    given += 1
                else:
                    assert row.logprobs[column] == pytest.approx(logprob, abs=1e-5)
                    sampled += 1
    assert given >= 6
    assert sampled > 30
