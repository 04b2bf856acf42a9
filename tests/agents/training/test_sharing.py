"""Prompts that dialogues have in common: read once, and everything comes out as if each had read its own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from agents.models.decoding import open_cache, unique_prefixes
from agents.models.policy import Policy
from agents.training.coars import Coars
from agents.training.credit import student_logprobs, teacher_logprobs
from agents.training.samples import (
    TrainingSample,
    TurnSample,
    batch_mean,
    collate,
    collate_teacher,
    group_mean,
    sort_by_length,
)
from coars_env import RECOMMENDER, ROLES, CoarsReward, ConfigError, Dialogue, Role

KINDS = ("pocket", "llama", "qwen3")
CPU = torch.device("cpu")


def groups(lab: Any, *sizes: int, max_turns: int = 3) -> list[Dialogue]:
    """Dialogues of as many tasks, each played so often; the tasks' histories differ in length."""
    tasks = [
        replace(dialogue.task, history=dialogue.task.history[3 * number :])
        for number, dialogue in enumerate(lab.dialogues(len(sizes)))
    ]
    reward = CoarsReward()
    return [
        Dialogue(task, lab.split.dataset.items, max_turns=max_turns, reward=reward)
        for task, size in zip(tasks, sizes, strict=True)
        for _ in range(size)
    ]


def alone(samples: list[TrainingSample]) -> list[TrainingSample]:
    """The same, sharing nothing."""
    return [replace(sample, opening=0) for sample in samples]


def gradient(policy: Policy, role: Role) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in policy.parameters(role) if p.grad is not None])
    policy.peft.zero_grad()
    return found


def test_equal_openings_are_numbered_once_and_empty_ones_are_equal_to_none() -> None:
    assert unique_prefixes([[1, 2], [], [3], [1, 2], []]) == ([(1, 2), (), (3,), ()], [0, 1, 2, 0, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_after_a_shared_prompt_is_what_is_said_alone(lab: Any, kind: str) -> None:
    policy = lab.policy(kind)
    together = lab.play(policy, dialogues=groups(lab, 4, 1, 3))
    for n, dialogue in enumerate(groups(lab, 4, 1, 3)):
        single = lab.play(policy, dialogues=[dialogue], first=n)
        assert single.transcripts[0].turns == together.transcripts[n].turns
        for role in ROLES:
            a, b = single.agents[role].rows[0], together.agents[role].rows[n]
            assert a.token_ids == b.token_ids
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert len({tuple(row.token_ids) for row in together.agents[RECOMMENDER].rows[:4]}) > 1  # each has its own dice


def test_a_prompt_is_read_once_for_all_dialogues_of_its_task(lab: Any) -> None:
    policy = lab.policy()
    read: list[int] = []
    hook = policy.backbone.model.get_input_embeddings().register_forward_hook(lambda *_: read.append(_[1][0].numel()))
    with policy.use_adapter(RECOMMENDER) as model:
        cache, starts = open_cache(model, [[5, 6, 7], [8, 9], [5, 6, 7], [5, 6, 7]])
        assert (sum(read), starts, cache.num_rows) == (6, [3, 2, 3, 3], 4)  # 3 + 2, and one that pads
        read.clear()
        cache, starts = open_cache(model, [[5, 6, 7], [8, 9]])
        assert (read, starts, cache.num_rows) == ([], [0, 0], 2)
    hook.remove()


def test_what_all_dialogues_of_a_task_begin_with_is_known(lab: Any) -> None:
    """The recommender's whole first message; of the user's, what it took."""
    played = lab.play(lab.policy(), dialogues=groups(lab, 3, 3))
    for role in ROLES:
        rows, samples = played.agents[role].rows, played.samples(role)
        assert [row.opening == row.context_ends[0] for row in rows] == [role == RECOMMENDER] * 6
        assert unique_prefixes([sample.shared_prefix for sample in samples])[1] == [0, 0, 0, 1, 1, 1]
        assert all(len(sample.shared_prefix) == row.opening for row, sample in zip(rows, samples, strict=True))


def test_rows_that_begin_alike_are_cut_by_hand() -> None:
    """Two begin with 7 8 9, one with 4; the reply header is 5."""
    turn = TurnSample(context_end=3, start=4, end=6, columns=(4, 5), reward=1.0, hindsight=(2,))
    short = TurnSample(context_end=1, start=2, end=3, columns=(2,), reward=1.0, hindsight=())
    samples = [
        TrainingSample([7, 8, 9, 5, 3, 6], [0.0] * 6, [None] * 6, (turn,), 3),
        TrainingSample([4, 5, 6], [0.0] * 3, [None] * 3, (short,), 1),
        TrainingSample([7, 8, 9, 5, 6, 3], [0.0] * 6, [None] * 6, (turn,), 3),
    ]
    batch = collate(samples, 0, CPU)
    assert batch.shared_prefixes is not None
    assert batch.position_ids is not None
    assert batch.mask is not None
    assert batch.shared_prefixes.token_ids.tolist() == [[7, 8, 9], [4, 0, 0]]
    assert batch.shared_prefixes.of_row.tolist() == [0, 1, 0]
    assert batch.token_ids.tolist() == [[5, 3, 6], [5, 6, 0], [5, 6, 3]]
    assert [x.tolist() for x in batch.places] == [[0, 0, 1, 2, 2], [1, 2, 1, 1, 2]]
    assert batch.position_ids.tolist() == [[3, 4, 5], [1, 2, 3], [3, 4, 5]]
    sees = [[[c for c, seen in enumerate(q) if seen] for q in row[0]] for row in batch.mask.tolist()]
    assert sees == [
        [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]],
        [[0, 3], [0, 3, 4], [0, 3, 4, 5]],
        [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]],
    ]
    teacher = collate_teacher(samples, 0, CPU)  # six columns that were read, then its own
    assert teacher.token_ids.tolist() == [[2, 5, 3, 6], [5, 6, 0, 0], [2, 5, 6, 3]]
    assert [c for c, seen in enumerate(teacher.mask[0, 0, 1].tolist()) if seen] == [0, 1, 2, 6, 7]
    assert [c for c, seen in enumerate(teacher.mask[1, 0, 1].tolist()) if seen] == [0, 6, 7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("every_kind", [False, True])
def test_log_probabilities_and_gradients_behind_a_shared_prompt_equal_plain_ones(
    lab: Any, kind: str, role: Role, every_kind: bool
) -> None:
    """Of the default formats, and of fields of every kind with notes that each dialogue has for itself."""
    policy, numbers = lab.policy(kind), iter(range(100))
    how = {"formats": lab.every_kind, "notes": lambda observation: (f"\nLesson {next(numbers)}",)} if every_kind else {}
    samples = lab.play(policy, dialogues=groups(lab, 4, 1, 3), **how).samples(role)
    samples[0] = replace(samples[0], turns=samples[0].turns[-1:])  # as if earlier turns were excluded
    assert max(len(sample.turns) for sample in samples) > 1
    found = []
    for each in (samples, alone(samples)):
        batch, read = collate(each, 0, CPU), DynamicCache()
        assert (batch.shared_prefixes is None) == (each is not samples)
        logprobs = student_logprobs(policy, role, batch, temperature=1.3, read=read)
        # credits that differ from token to token, so that an exchange of two tokens shows
        (logprobs * torch.linspace(-1, 2, len(logprobs))).sum().backward()
        live = teacher_logprobs(policy, role, each, temperature=1.3, read=read)
        base = teacher_logprobs(policy, None, each, temperature=1.3)
        unread = teacher_logprobs(policy, role, each, temperature=1.3)
        assert torch.allclose(live, unread, atol=1e-5)
        found.append((logprobs.detach(), live, base, gradient(policy, role)))
    for shared, plain in zip(found[0][:3], found[1][:3], strict=True):
        assert float((shared - plain).abs().max()) <= 1e-5
    (*_, shared), (*_, plain) = found
    assert float((shared - plain).norm() / plain.norm()) <= 1e-4
    assert float(plain.norm()) > 0


def test_without_anything_in_common_a_batch_is_read_as_it_is(lab: Any) -> None:
    policy = lab.policy()
    samples = lab.play(policy, 4).samples(RECOMMENDER)
    batch = collate(samples, 0, CPU)
    assert batch.shared_prefixes is None
    plain = policy.score(RECOMMENDER, batch.token_ids, batch.places, batch.allowed)
    assert torch.equal(student_logprobs(policy, RECOMMENDER, batch), plain)


# Groups ---------------------------------------------------------------------------------------------------------------


def of_rewards(begins: int, *rewards: float, first: int = 1) -> TrainingSample:
    """A dialogue that begins with one token and has these rewards from turn `first` on."""
    turns = tuple(
        TurnSample(1, 2, 3, (2,), reward=reward, hindsight=(), number=first + n) for n, reward in enumerate(rewards)
    )
    return TrainingSample([begins, 5, 6], [0.0] * 3, [None] * 3, turns, 1)


def rewards_of(samples: list[TrainingSample]) -> list[list[float]]:
    return [[turn.reward for turn in sample.turns] for sample in samples]


def test_a_baseline_by_hand() -> None:
    """Of the first task, turn 1 has the mean (1 + 0 + 0.5) / 3, turn 2 is reached by two: (1 - 1) / 2; turn 3 and the
    second task by one each. Of all seven turns the mean is 3 / 7.
    """
    samples = [of_rewards(7, 1.0, 1.0), of_rewards(7, 0.0, -1.0, 0.5), of_rewards(7, 0.5), of_rewards(8, 1.0)]
    assert rewards_of(group_mean(samples)) == [[0.5, 1.0], [-0.5, -1.0, 0.0], [0.0], [0.0]]
    mean = 3 / 7
    assert rewards_of(batch_mean(samples)) == [
        pytest.approx([r - mean for r in rewards]) for rewards in rewards_of(samples)
    ]


def test_a_turn_counts_by_its_place_in_the_dialogue_not_among_the_trained_ones() -> None:
    samples = [of_rewards(7, 1.0, 0.0), of_rewards(7, 1.0, first=2)]  # the first turn of the second is excluded
    assert rewards_of(group_mean(samples)) == [[0.0, -0.5], [0.5]]


def test_dialogues_that_begin_alike_stay_together_and_others_are_sorted_by_length() -> None:
    def of_length(begins: int, length: int) -> TrainingSample:
        return replace(of_rewards(begins, 1.0), token_ids=[begins, *range(5, 4 + length)])

    samples = [of_length(7, 9), of_length(8, 4), of_length(7, 3), of_length(9, 5)]
    assert [(s.token_ids[0], len(s.token_ids)) for s in sort_by_length(samples)] == [(8, 4), (9, 5), (7, 3), (7, 9)]
    different = [of_length(n, 10 - n % 3) for n in range(9)]
    assert sort_by_length(different) == sorted(different, key=lambda sample: len(sample.token_ids))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"group_size": 3}, "episodes_per_step=8 is no multiple of group_size=3"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"baseline": "group"}, "A group of 1 is its own mean"),
    ],
)
def test_groups_that_do_not_fit_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Coars(episodes_per_step=8, **wrong)


def test_each_task_is_played_by_a_whole_group_and_explored_by_whole_ones(lab: Any) -> None:
    told: list[Any] = []
    config = Coars(steps=1, episodes_per_step=12, group_size=3, max_turns=2, explored_share=0.5, baseline="group")
    policy = lab.policy(scale=0.1)
    lab.train(policy, lab.build, config, on_step=lambda step, metrics, transcripts: told.append((metrics, transcripts)))
    ((metrics, transcripts),) = told
    assert len(transcripts) == 6
    tasks = [t.task.task_id for t in transcripts]
    assert tasks == [tasks[0]] * 3 + [tasks[3]] * 3
    assert tasks[0] != tasks[3]
    assert metrics["rec_gradient"] > 0
    assert metrics["rec_ratio_max"] == pytest.approx(1.0, abs=1e-4)  # what was recorded is what the update computes
    assert metrics["user_ratio_max"] == pytest.approx(1.0, abs=1e-4)
