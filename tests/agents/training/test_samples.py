"""Tokens joined to turns, and batches of them: what is trained on, what the teacher sees."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from agents.models.prompts import hindsight
from agents.models.replies import DEFAULT_FORMATS
from agents.players.llm_agent import LLMAgent, Row
from agents.training.credit import teacher_logprobs
from agents.training.samples import (
    Baseline,
    TrainingSample,
    TurnSample,
    balance_hits,
    batch_mean,
    collate,
    collate_teacher,
    group_mean,
    group_normalized,
    shard_samples,
    training_sample,
)
from coars_env import RECOMMENDER, ROLES, USER, Dialogue, RewardTerms, Role, ShapeError, play
from coars_env.testing import ScriptedAgent, toy_dataset, toy_episodes

KINDS = ("pocket", "llama", "qwen3")
CPU = torch.device("cpu")

# Two turns of a side: context 7 8 9, header 5, reply 3 4 6 (3 given); context 7, header 5, reply 4 (chosen).
EXAMPLE = TrainingSample(
    token_ids=[7, 8, 9, 5, 3, 4, 6, 7, 5, 4],
    rollout_logprobs=[0, 0, 0, 0, 0, -0.1, -0.2, 0, 0, -0.3],
    allowed=[None, None, None, None, (3,), (4, 8), None, None, None, (2, 4)],
    turns=(
        TurnSample(context_end=3, start=4, end=7, columns=(5, 6), reward=0.5, hindsight=(11, 12)),
        TurnSample(context_end=8, start=9, end=10, columns=(9,), reward=-1.0, hindsight=(13,)),
    ),
)
SHORT = TrainingSample(
    token_ids=[7, 5, 4],
    rollout_logprobs=[0, 0, -0.7],
    allowed=[None, None, None],
    turns=(TurnSample(context_end=1, start=2, end=3, columns=(2,), reward=2.0, hindsight=()),),
)


# One dialogue ---------------------------------------------------------------------------------------------------------


def played_row() -> Row:
    """Of the example above."""
    return Row(
        token_ids=EXAMPLE.token_ids,
        sampled=[False, False, False, False, False, True, True, False, False, True],
        logprobs=EXAMPLE.rollout_logprobs,
        allowed=EXAMPLE.allowed,
        context_ends=[3, 8],
        replies=[(4, 7), (9, 10)],
    )


def played_dialogue(*, clicks: bool = False) -> Dialogue:
    """A miss the user disliked and a hit it starred or clicked."""
    dialogue = Dialogue(toy_episodes().tasks[0], toy_dataset().items, max_turns=2)
    dialogue.recommend(1, "A crime film.")
    dialogue.reply(0, 0.0, "No.")
    dialogue.recommend(0, "A dream.")
    dialogue.reply(3 if clicks else 2, 0.8, "Yes.")
    return dialogue


def sample_of(
    lab: Any, row: Row, role: Role, dialogue: Dialogue, terms: list[RewardTerms] | None = None
) -> TrainingSample:
    transcript = dialogue.transcript(toy_dataset().provenance)
    return training_sample(row, role, transcript, terms or dialogue.terms, dialogue.items, lab.backbone())


def test_a_turn_knows_its_columns_its_reward_and_its_hindsight(lab: Any) -> None:
    dialogue = played_dialogue()
    backbone = lab.backbone()
    for role, rewards in (
        (RECOMMENDER, [terms.rewards[RECOMMENDER] for terms in dialogue.terms]),
        (USER, [terms.rewards[USER] for terms in dialogue.terms]),
    ):
        sample = sample_of(lab, played_row(), role, dialogue)
        assert sample.token_ids == EXAMPLE.token_ids
        assert [(t.context_end, t.start, t.end, t.columns) for t in sample.turns] == [
            (3, 4, 7, (5, 6)),
            (8, 9, 10, (9,)),
        ]
        assert [t.reward for t in sample.turns] == rewards
        for number, turn in enumerate(sample.turns, start=1):
            told = hindsight(role, dialogue.task, dialogue.turns[:number], dialogue.items)
            assert list(turn.hindsight) == backbone.encode_all(told)


def test_an_excluded_turn_is_left_out_for_the_excluded_side_alone(lab: Any) -> None:
    dialogue = played_dialogue()
    terms = [replace(dialogue.terms[0], excluded=frozenset({USER})), dialogue.terms[1]]
    assert [t.start for t in sample_of(lab, played_row(), USER, dialogue, terms).turns] == [9]
    assert [t.start for t in sample_of(lab, played_row(), RECOMMENDER, dialogue, terms).turns] == [4, 9]
    assert sample_of(lab, played_row(), USER, dialogue, terms).token_ids == EXAMPLE.token_ids


def test_later_turns_change_no_earlier_hindsight(lab: Any) -> None:
    first, second = (sample_of(lab, played_row(), USER, played_dialogue(clicks=clicks)) for clicks in (False, True))
    assert first.turns[0].hindsight == second.turns[0].hindsight
    assert first.turns[1].hindsight != second.turns[1].hindsight


def test_a_row_that_does_not_fit_its_transcript_is_refused(lab: Any) -> None:
    row = played_row()
    row.replies.pop()
    with pytest.raises(ShapeError, match="Expected 2 replies and no failure, found 1"):
        sample_of(lab, row, USER, played_dialogue())
    failed = Dialogue(toy_episodes().tasks[0], toy_dataset().items, max_turns=2)
    failed.fail("broken")
    with pytest.raises(ShapeError, match=r"ending 'failed' \(broken\)"):
        sample_of(lab, Row(), USER, failed)


def test_the_user_does_not_train_on_its_answer_to_a_proposal_that_could_not_be_read(lab: Any) -> None:
    policy = lab.policy()
    nothing = {"item": lab.build.num_candidates, "message": "Something!", "error": "no item"}
    recommender = ScriptedAgent([nothing, {"item": 0, "message": ""}, nothing])
    user = LLMAgent(policy, USER, lab.split.dataset.items)
    dialogues = lab.dialogues(6)
    play(dialogues, recommender, user)
    for row, dialogue in zip(user.rows, dialogues, strict=True):
        transcript = dialogue.transcript(lab.split.dataset.provenance)
        sample = training_sample(row, USER, transcript, dialogue.terms, user.items, policy.backbone)
        assert [turn.start for turn in sample.turns] == [start for start, _ in row.replies[1:2]]


# Batches --------------------------------------------------------------------------------------------------------------


def test_a_batch_lists_every_chosen_token_once(lab: Any) -> None:
    batch = collate([EXAMPLE, SHORT], 0, CPU)
    assert batch.token_ids.tolist() == [[7, 8, 9, 5, 3, 4, 6, 7, 5, 4], [7, 5, 4, 0, 0, 0, 0, 0, 0, 0]]
    assert [x.tolist() for x in batch.places] == [[0, 0, 0, 1], [5, 6, 9, 2]]
    assert batch.allowed == [(4, 8), None, (2, 4), None]
    assert batch.rollout_logprobs.tolist() == pytest.approx([-0.1, -0.2, -0.3, -0.7])
    assert batch.rewards.tolist() == [0.5, 0.5, -1.0, 2.0]
    assert batch.weights.tolist() == [0.5, 0.5, 1.0, 1.0]


def test_the_teacher_reads_each_reply_after_its_context_and_hindsight() -> None:
    batch = collate_teacher([EXAMPLE, SHORT], 0, CPU)
    #                               d       header reply | d   header reply
    assert batch.token_ids[0].tolist() == [11, 12, 5, 3, 4, 6, 13, 5, 4]
    assert batch.position_ids[0].tolist() == [3, 4, 5, 6, 7, 8, 8, 9, 10]
    assert [x.tolist() for x in batch.places] == [[0, 0, 0, 1], [4, 5, 8, 1]]
    assert batch.allowed == [(4, 8), None, (2, 4), None]
    # ten columns of the dialogue, then the nine of the blocks
    sees = [[column for column, seen in enumerate(row) if seen] for row in batch.mask[0, 0].tolist()]
    assert sees[:6] == [[0, 1, 2, *range(10, n + 1)] for n in range(10, 16)]  # first context and own block
    assert sees[6:] == [[*range(8), *range(16, n + 1)] for n in range(16, 19)]  # second context and own block
    # the short one: its only context is column 0, and its block has no hindsight
    assert batch.token_ids[1, :2].tolist() == [5, 4]
    assert batch.position_ids[1, :2].tolist() == [1, 2]
    short = [[column for column, seen in enumerate(row) if seen] for row in batch.mask[1, 0].tolist()]
    assert short[:2] == [[0, 10], [0, 10, 11]]
    assert all(short)  # no query sees nothing, padding included


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("every_kind", [False, True])
def test_packed_scores_of_the_teacher_equal_plain_ones_turn_by_turn(
    lab: Any, plain_logprobs: Any, kind: str, role: Role, every_kind: bool
) -> None:
    policy = lab.policy(kind)
    samples = lab.play(policy, 6, formats=lab.every_kind if every_kind else DEFAULT_FORMATS).samples(role)
    samples[0] = replace(samples[0], turns=samples[0].turns[-1:])  # as if earlier turns were excluded
    assert len({len(s.turns) for s in samples}) > 1
    for who in (role, None):
        found = iter(teacher_logprobs(policy, who, samples, temperature=1.3).tolist())
        for sample in samples:
            for turn in sample.turns:
                context, reply = sample.token_ids[: turn.context_end], sample.token_ids[turn.context_end : turn.end]
                row = [*context, *turn.hindsight, *reply]
                columns = [column + len(turn.hindsight) for column in turn.columns]
                allowed = [sample.allowed[column] for column in turn.columns]
                expected = plain_logprobs(policy, who, row, columns, allowed, 1.3)
                assert [next(found) for _ in columns] == pytest.approx(expected, abs=1e-5)
        assert next(found, None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_hindsight_never_quotes_the_reply(lab: Any, kind: str) -> None:
    played = lab.play(lab.policy(kind), 12, max_turns=4)
    backbone, items = played.agents[USER].policy.backbone, lab.split.dataset.items
    for role in ROLES:
        for sample, transcript in zip(played.samples(role), played.transcripts, strict=True):
            for turn in sample.turns:
                told, reply = backbone.decode(turn.hindsight), sample.token_ids[turn.start : turn.end]
                assert f"The item taken next was {items[transcript.task.target].title}." in told
                for item in items:
                    told = told.replace(" " + item.title, "\ufffc")
                runs = (reply[n : n + 8] for n in range(len(reply) - 7))
                assert not any(backbone.decode(run) in told for run in runs)


@pytest.mark.parametrize("role", ROLES)
def test_hindsight_changes_nothing_the_student_sees(lab: Any, role: Role) -> None:
    samples = lab.play(lab.policy(), 4).samples(role)
    without = [replace(s, turns=tuple(replace(t, hindsight=()) for t in s.turns)) for s in samples]
    a, b = collate(samples, 0, CPU), collate(without, 0, CPU)
    assert torch.equal(a.token_ids, b.token_ids)
    assert all(torch.equal(x, y) for x, y in zip(a.places, b.places, strict=True))
    assert a.allowed == b.allowed


@pytest.mark.parametrize("kind", KINDS)
def test_scored_places_are_exactly_the_chosen_tokens(lab: Any, kind: str) -> None:
    played = lab.play(lab.policy(kind), 5)
    for role in ROLES:
        batch = collate(played.samples(role), 0, CPU)
        rows = played.agents[role].rows
        expected = [(r, c) for r, row in enumerate(rows) for c, own in enumerate(row.sampled) if own]
        assert list(zip(*(x.tolist() for x in batch.places), strict=True)) == expected


def test_balanced_hits_and_misses_weigh_alike() -> None:
    """One hit and three misses: a hit weighs 4 / 2, a miss 4 / 6."""

    def sample(*hits: bool) -> TrainingSample:
        turns = tuple(TurnSample(0, 1, 2, (1,), reward=0.5, hindsight=(), hit=hit) for hit in hits)
        return TrainingSample([7, 8], [0.0, -1.0], [None, None], turns)

    found = balance_hits([sample(False, True), sample(False, False)])
    assert [[turn.weight for turn in each.turns] for each in found] == [[2 / 3, 2.0], [2 / 3, 2 / 3]]
    assert all(turn.reward == 0.5 for each in found for turn in each.turns)
    only_misses = [sample(False, False)]
    assert balance_hits(only_misses) == only_misses


def test_questions_are_neither_hits_nor_misses() -> None:
    """One hit, one miss and two questions: all weigh 1."""
    question = TurnSample(0, 1, 2, (1,), reward=0.0, hindsight=(), question=True)
    turns = (question, replace(question, hit=True, question=False), question, replace(question, question=False))
    found = balance_hits([TrainingSample([7, 8], [0.0, -1.0], [None, None], turns)])
    assert [turn.weight for turn in found[0].turns] == [1.0, 1.0, 1.0, 1.0]
    found = balance_hits([TrainingSample([7, 8], [0.0, -1.0], [None, None], (*turns, turns[3]))])
    assert [turn.weight for turn in found[0].turns] == [1.0, 3 / 2, 1.0, 3 / 4, 3 / 4]


def test_samples_are_dealt_out_by_turns_and_those_that_begin_alike_stay_together() -> None:
    alone, twin, other = replace(SHORT), replace(EXAMPLE, opening=2), replace(EXAMPLE, opening=3)
    hand = [alone, twin, twin, other, alone]  # four beginnings: none, (7, 8) twice, (7, 8, 9), none
    assert shard_samples(hand, 0, 1) == hand
    assert shard_samples(hand, 0, 2) == [alone, other]
    assert shard_samples(hand, 1, 2) == [twin, twin, alone]
    assert shard_samples(hand, 4, 5) == []


def test_rewards_of_a_group_are_centred_and_normalized() -> None:
    def sample(beginning: int, *rewards: float) -> TrainingSample:
        turns = tuple(TurnSample(2, 2, 3, (2,), r, (), number=n) for n, r in enumerate(rewards, start=1))
        return TrainingSample([beginning, beginning, 5], [0.0] * 3, [None] * 3, turns, opening=2)

    samples = [sample(7, 1.0, 0.5), sample(7, 0.0), sample(8, 1.0), sample(8, 1.0)]

    def rewards(baseline: Baseline) -> list[float]:
        return [t.reward for s in baseline(samples) for t in s.turns]

    assert rewards(group_mean) == [0.5, 0.0, -0.5, 0.0, 0.0]
    assert rewards(group_normalized) == pytest.approx([1.0, 0.0, -1.0, 0.0, 0.0], abs=1e-5)
    assert rewards(batch_mean) == pytest.approx([0.3, -0.2, -0.7, 0.3, 0.3])
