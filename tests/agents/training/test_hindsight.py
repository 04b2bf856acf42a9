"""Diagnoses in the model's own words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.models.prompts import ASK_DIAGNOSIS
from agents.training.hindsight import with_written_diagnoses
from agents.training.samples import TrainingSample, training_sample
from coars_env import RECOMMENDER, ROLES, USER, Role


def undiagnosed(lab: Any, policy: Any, role: Role) -> list[TrainingSample]:
    played = lab.play(policy, 5)
    agent = played.agents[role]
    return [
        training_sample(row, role, transcript, dialogue.terms, agent.items, policy.backbone, diagnosed=False)
        for row, transcript, dialogue in zip(agent.rows, played.transcripts, played.dialogues, strict=True)
    ]


@pytest.mark.parametrize("kind", ["pocket", "qwen3"])
@pytest.mark.parametrize("role", ROLES)
def test_a_sentence_is_added_to_each_verdict_and_nothing_else_changes(lab: Any, kind: str, role: Role) -> None:
    policy = lab.policy(kind)
    samples = undiagnosed(lab, policy, role)
    found = with_written_diagnoses(policy, samples, np.random.default_rng(0))
    added = []
    for before, after in zip(samples, found, strict=True):
        for old, new in zip(before.turns, after.turns, strict=True):
            assert new.hindsight[: len(old.hindsight)] == old.hindsight
            added.append(new.hindsight[len(old.hindsight) :])
            assert replace(new, hindsight=old.hindsight) == old
        assert replace(after, turns=before.turns) == before
    assert len(added) > 5
    assert len(set(added)) > 1
    for sentence in added:  # one line, not too long
        assert 1 <= len(sentence) <= 2 * policy.backbone.max_reason_tokens + 1
        assert [token in policy.backbone.newline_ids for token in sentence] == [False] * (len(sentence) - 1) + [True]


def test_the_base_writes_it_from_context_and_verdict_alone(lab: Any, plain_logprobs: Any) -> None:
    """What was drawn has the probability that the bare base gives it there, and another reply changes nothing."""
    policy = lab.policy()
    backbone = policy.backbone
    samples = undiagnosed(lab, policy, USER)
    found = with_written_diagnoses(policy, samples, np.random.default_rng(3))
    scrambled = [
        replace(
            s, token_ids=s.token_ids[: s.turns[-1].context_end] + [5] * (len(s.token_ids) - s.turns[-1].context_end)
        )
        for s in samples
    ]
    again = with_written_diagnoses(policy, scrambled, np.random.default_rng(3))
    assert [s.turns[-1].hindsight for s in again] == [s.turns[-1].hindsight for s in found]

    def mean_surprise(role: Role | None) -> float:
        surprises = []
        for before, after in zip(samples, found, strict=True):
            asked = [*before.token_ids[: before.turns[0].context_end], *before.turns[0].hindsight]
            asked += [*backbone.encode(ASK_DIAGNOSIS), *backbone.header]
            written = after.turns[0].hindsight[len(before.turns[0].hindsight) :]
            columns = range(len(asked), len(asked) + len(written))
            surprises += plain_logprobs(policy, role, [*asked, *written], columns, [None] * len(written))
        return -float(np.mean(surprises))

    assert mean_surprise(None) < mean_surprise(RECOMMENDER)
    assert mean_surprise(None) < mean_surprise(USER)


def test_no_global_random_state_is_touched(lab: Any) -> None:
    policy = lab.policy()
    samples = undiagnosed(lab, policy, USER)
    state = torch.random.get_rng_state()
    with_written_diagnoses(policy, samples, np.random.default_rng(0))
    assert torch.equal(torch.random.get_rng_state(), state)
