"""The dialogues of an update: exploration under the rules, and what later turns add to a reward."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.models.policy import Policy
from agents.models.prompts import hindsight
from agents.players.judge import Judge
from agents.players.llm_agent import LLMAgent
from agents.training.coars import Coars
from agents.training.distributed import SINGLE_PROCESS
from agents.training.learner import Learner, Optimisation
from agents.training.rollout import Explorer, Rollout, collect, discounted
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    CoarsReward,
    ConfigError,
    FacetInstructions,
    RewardTerms,
    TaskBuilder,
    builder,
    hold_out_groups,
    load_split,
    rollout,
    sample_train_tasks,
)
from coars_env.testing import ScriptedAgent


def terms(*rewards: float) -> list[RewardTerms]:
    return [RewardTerms(False, {RECOMMENDER: reward, USER: -2 * reward}) for reward in rewards]


def test_a_turn_earns_what_follows_it_discounted() -> None:
    """1 + .5 (2 + .5 * 4) = 3."""
    found = discounted(terms(1.0, 2.0, 4.0), 0.5)
    assert [term.rewards for term in found] == [
        {RECOMMENDER: 3.0, USER: -6.0},
        {RECOMMENDER: 4.0, USER: -8.0},
        {RECOMMENDER: 4.0, USER: -8.0},
    ]


def test_without_a_discount_every_turn_pays_for_itself() -> None:
    paid = terms(1.0, 2.0)
    assert discounted(paid, 0.0) == paid
    assert discounted([], 0.9) == []


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_a_discount_is_a_share(discount: float) -> None:
    with pytest.raises(ConfigError, match=r"discount must be in \[0, 1\], got"):
        Optimisation(discount=discount)


def test_exploration_keeps_questions_and_proposes_what_is_allowed() -> None:
    asking = {"ask": "genre", "message": "Which genre?"}
    observation: dict[str, Any] = {"candidates": np.array([4, 5, 6]), "allowed": np.array([0, 0, 1], np.int8)}
    explorer = Explorer(ScriptedAgent([asking, {"item": 0, "message": "Mine."}]), explored=1)
    explorer.start([(0, 0)])
    assert explorer.act({0: observation})[0] == asking
    assert explorer.act({0: observation})[0] == {"item": 2, "message": "Mine."}


# Groups ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups() -> TaskBuilder:
    return builder(hold_out_groups(load_split("synthetic", users=40, items=60, interactions=1200), 2), num_candidates=6)


def collected(lab: Any, tasks: TaskBuilder, policy: Policy, **options: Any) -> Rollout:
    items = tasks.split.dataset.items
    learners = {role: Learner(agent=LLMAgent(policy, role, items), learning_rate=0.01, **options) for role in ROLES}
    optimisation = Optimisation(steps=1, episodes_per_step=4, max_turns=3)
    return collect(policy, tasks, learners, CoarsReward(), optimisation, 0, SINGLE_PROCESS)


def test_every_user_of_a_group_is_a_row_of_one_adapter(lab: Any, groups: TaskBuilder) -> None:
    played = collected(lab, groups, lab.policy())
    recommender, users = played.samples[RECOMMENDER], played.samples[USER]
    assert [len(played.transcripts), len(recommender), len(users)] == [4, 4, 8]
    for n, transcript in enumerate(played.transcripts):
        terms = CoarsReward()(transcript)
        assert [turn.reward for turn in recommender[n].turns] == [term.rewards[RECOMMENDER] for term in terms]
        for place in range(2):
            sample = users[2 * n + place]
            assert [turn.reward for turn in sample.turns] == [term.rewards[f"user_{place}"] for term in terms]
            text = lab.backbone().tokenizer.decode(sample.token_ids[: sample.turns[0].context_end])
            own = transcript.task.for_user(place)
            assert f"You are user {place}." in text
            titles = [groups.split.dataset.items[i].title for i in own.history]
            assert all(title in text for title in titles)
            alone = tuple(replace(turn, answers=(turn.answers[place],)) for turn in transcript.turns)
            told = hindsight(USER, own, alone[:1], groups.split.dataset.items)
            assert sample.turns[0].hindsight == tuple(lab.backbone().encode_all(told))


def test_what_a_group_says_depends_on_no_other_dialogue(lab: Any, groups: TaskBuilder) -> None:
    policy, items = lab.policy(), groups.split.dataset.items
    tasks = sample_train_tasks(groups, 3, np.random.default_rng(0), prefix="t")
    agents = [LLMAgent(policy, role, items, temperature=1.0) for role in ROLES]
    options = {"provenance": groups.split.dataset.provenance, "max_turns": 3, "seed": 1}
    together, one_by_one = (rollout(tasks, items, *agents, batch_size=size, **options) for size in (3, 1))  # type: ignore[arg-type]
    assert together == one_by_one
    assert {len(turn.answers) for one in together for turn in one.turns} == {2}


@pytest.mark.parametrize("instructions", [None, FacetInstructions(("genre", "decade"))])
def test_both_sides_learn_from_groups(lab: Any, groups: TaskBuilder, instructions: FacetInstructions | None) -> None:
    build = builder(groups.split, num_candidates=6, instructions=instructions)
    policy = lab.policy("pocket" if instructions is None else "instructed")
    before = {role: [p.detach().clone() for p in policy.parameters(role)] for role in ROLES}
    recipe = Coars(steps=1, episodes_per_step=4, max_turns=3, explored_share=0.25, micro_batch=3)
    lab.train(policy, build, recipe)
    for role in ROLES:
        assert any((old != new).any() for old, new in zip(before[role], policy.parameters(role), strict=True))


def test_an_update_of_groups_does_not_depend_on_the_micro_batch(lab: Any, groups: TaskBuilder) -> None:
    adapters = []
    for micro_batch in (2, 8):
        policy = lab.policy()
        lab.train(policy, groups, Coars(steps=1, episodes_per_step=4, max_turns=2, micro_batch=micro_batch))
        adapters.append([p.detach() for role in ROLES for p in policy.parameters(role)])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*adapters, strict=True))


def test_a_judge_refuses_groups(lab: Any, groups: TaskBuilder) -> None:
    played = collected(lab, groups, lab.policy())
    with pytest.raises(ConfigError, match=r"grades one recommender and one user, got task '.*' with 2 users"):
        Judge(lab.policy(), groups.split.dataset.items).score(played.transcripts)
