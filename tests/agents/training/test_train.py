"""The training loop: both sides move, the base does not, and what is the same stays the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.models.backbones.pocket import PocketConfig, load_pocket
from agents.models.policy import Policy
from agents.players.demonstrator import Demonstrator
from agents.players.llm_agent import LLMAgent
from agents.training.coars import Coars, RewardConfig
from agents.training.credit import SelfDistillation, distilled_advantages, teacher_logprobs
from agents.training.learner import Learner, warmup_cosine
from agents.training.losses import kl_to_base
from agents.training.recipe import CoTraining, Recipe, Setting, Training, run_recipe
from agents.training.rollout import Explorer
from agents.training.samples import TrainingSample, TurnSample, collate, training_sample
from agents.training.update import StepMetrics, new_optimizers
from baselines.coars import OutcomeRecipe
from baselines.grpo import GrpoJudgeRecipe, GrpoRecipe, GrpoTurnRecipe
from baselines.rejection_sampling import RejectionSamplingRecipe
from baselines.supervised import SupervisedRecipe
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    CoarsReward,
    ConfigError,
    Dialogue,
    FixedUser,
    RewardTerms,
    Task,
    TaskBuilder,
    TrainingError,
    Transcript,
    Turn,
    VectorPeers,
    builder,
    episode_meters,
    episode_metrics,
    freeze,
    from_interactions,
    item_counts,
    kept_terms,
    leave_last,
    outcome_terms,
    play,
    rollout,
    sample_train_tasks,
)

SIDES = ("rec", "user")
STILL = {"learning_rate_recommender": 0.0, "learning_rate_user": 0.0}


def learn(policy: Policy, build: TaskBuilder, recipe: Recipe, *, opinions: bool = True, **options: Any) -> None:
    run_recipe(recipe, Setting(policy=policy, split=build.split, opinions=opinions), build, **options)


PAPER = RewardConfig(exclude_positive_miss=("recommender", "user"))


def coars(**settings: Any) -> Coars:
    return Coars(reward=PAPER, **settings)


def a_run(
    policy: Policy,
    build: TaskBuilder,
    *,
    recipe: Callable[..., CoTraining] = coars,
    opinions: bool = True,
    **settings: Any,
) -> list[tuple[StepMetrics, list[Transcript]]]:
    """Metrics, without times, and dialogues of each step."""
    told: list[tuple[StepMetrics, list[Transcript]]] = []

    def on_step(step: int, metrics: StepMetrics, transcripts: Sequence[Transcript]) -> None:
        assert step == len(told)
        told.append(({k: v for k, v in metrics.items() if "second" not in k}, list(transcripts)))

    made = recipe(**{"steps": 2, "episodes_per_step": 8, "max_turns": 3, "explored_share": 0.0, **settings})
    learn(policy, build, made, opinions=opinions, on_step=on_step)
    assert len(told) == made.steps
    return told


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.peft.named_parameters()}


@pytest.mark.parametrize("kind", ["pocket", "qwen3"])
@pytest.mark.parametrize("teacher", ["live", "base", "ema"])
def test_an_update_moves_both_sides_and_leaves_the_base_bit_equal(
    lab: Any, build: TaskBuilder, kind: str, teacher: str
) -> None:
    policy = lab.policy(kind, scale=0.1)
    before = weights(policy)
    for metrics, transcripts in a_run(policy, build, teacher=teacher):
        assert len(transcripts) == 8
        for side in SIDES:
            assert metrics[f"{side}_gradient"] > 0
            assert metrics[f"{side}_tokens"] > 0
            # the batch is used at once: what was recorded while playing is what the update computes
            assert metrics[f"{side}_ratio_max"] == pytest.approx(1.0, abs=1e-4)
    for name, parameter in policy.peft.named_parameters():
        assert torch.equal(parameter, before[name]) == (".recommender." not in name and ".user." not in name), name


def test_equal_seeds_give_equal_runs_to_the_bit_and_others_do_not(lab: Any, build: TaskBuilder) -> None:
    runs = []
    for seed in (0, 0, 1):
        policy = lab.policy(scale=0.1)
        told = a_run(policy, build, seed=seed)
        runs.append((told, weights(policy)))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], tensor) for name, tensor in runs[1][1].items())
    assert [t.turns for t in runs[0][0][0][1]] != [t.turns for t in runs[2][0][0][1]]


@pytest.mark.parametrize("trained", ["recommender", "user"])
def test_a_side_that_is_not_trained_stays_as_it_was(lab: Any, build: TaskBuilder, trained: Any) -> None:
    policy = lab.policy(scale=0.1)
    before = weights(policy)
    ((metrics, _),) = a_run(policy, build, steps=1, learners=trained)
    assert {name for name, value in weights(policy).items() if not torch.equal(value, before[name])} == {
        name for name in before if f".{trained}." in name
    }
    assert ("rec_gradient" in metrics, "user_gradient" in metrics) == (trained == "recommender", trained == "user")


def test_without_credit_the_reward_is_all(lab: Any, build: TaskBuilder) -> None:
    found = []
    for settings in ({"credit": "none"}, {"lambda_recommender": 0.0, "lambda_user": 0.0}):
        policy = lab.policy(scale=0.1)
        a_run(policy, build, steps=1, **settings)
        found.append(weights(policy))
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_each_kind_of_credit_teaches_something_else(lab: Any, build: TaskBuilder) -> None:
    found = []
    for credit in ("log_ratio", "sign_from_reward", "none"):
        policy = lab.policy(scale=0.1)
        a_run(policy, build, steps=1, credit=credit)
        found.append(torch.cat([p.detach().flatten() for role in ROLES for p in policy.parameters(role)]))
    assert not any(torch.equal(a, b) for a, b in combinations(found, 2))


def test_an_averaged_teacher_is_the_live_one_at_first_and_follows_it(lab: Any, build: TaskBuilder) -> None:
    """At a rate of 1 it is the live one always; else it is so in the first update, and later on it is not."""

    def credits(**settings: Any) -> list[float]:
        return [metrics["user_credit"] for metrics, _ in a_run(lab.policy(scale=0.1), build, **settings)]

    live, fast, slow = credits(teacher="live"), credits(teacher="ema", teacher_rate=1.0), credits(teacher="ema")
    assert fast == pytest.approx(live, rel=1e-4)
    assert slow[0] == pytest.approx(live[0], rel=1e-4)
    assert slow[1] != pytest.approx(live[1], rel=1e-3)
    with pytest.raises(ConfigError, match=r"teacher_rate must be in \(0, 1\], got 0\.0"):
        Coars(teacher_rate=0.0)


def test_a_written_diagnosis_teaches_something_else(lab: Any, build: TaskBuilder) -> None:
    found = []
    for diagnosis in ("template", "written", "written"):
        policy = lab.policy(scale=0.1)
        a_run(policy, build, steps=1, diagnosis=diagnosis)
        found.append(torch.cat([p.detach().flatten() for role in ROLES for p in policy.parameters(role)]))
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])


@dataclass(frozen=True, kw_only=True)
class ByOutcome(CoTraining):
    kl: float = 0.0

    def build(self, setting: Setting) -> Training:
        return Training(self.players(setting), outcome_terms, self.optimisation(kl=self.kl))


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_paid_by_the_outcome_all_turns_of_a_dialogue_earn_alike(lab: Any, build: TaskBuilder, kl: float) -> None:
    """Without credit the update of the recommender is that of the rewards, and of the divergence from the base if that
    has a weight, made by hand here.
    """
    policy = lab.policy(scale=0.1)
    ((metrics, transcripts),) = a_run(policy, build, recipe=ByOutcome, steps=1, kl=kl, **STILL)
    played = lab.play(
        policy,
        dialogues=[Dialogue(t.task, lab.split.dataset.items, max_turns=3, reward=CoarsReward()) for t in transcripts],
    )
    assert [t.turns for t in played.transcripts] == [t.turns for t in transcripts]
    loss = torch.zeros(())
    for sample, transcript in zip(played.samples(RECOMMENDER), transcripts, strict=True):
        paid = 1.0 if transcript.final_item == transcript.task.target else -1.0
        everything = replace(sample, turns=tuple(replace(turn, reward=paid) for turn in all_turns(sample, transcript)))
        batch = collate([everything], 0, policy.backbone.device)
        logprobs = policy.score(RECOMMENDER, batch.token_ids, batch.places, batch.allowed)
        loss = loss - (batch.weights * batch.rewards * logprobs).sum() / len(transcripts)
        with torch.no_grad():
            base = policy.score(None, batch.token_ids, batch.places, batch.allowed)
        loss = loss + kl * (batch.weights * kl_to_base(logprobs, base)).sum() / len(transcripts)
    gradients = torch.autograd.grad(loss, policy.parameters(RECOMMENDER))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert metrics["rec_gradient"] == pytest.approx(float(norm), rel=1e-3)


def all_turns(sample: TrainingSample, transcript: Transcript) -> tuple[TurnSample, ...]:
    assert len(sample.turns) == len(transcript.turns)  # nothing is left out
    return sample.turns


def test_a_run_touches_no_global_random_state(lab: Any, build: TaskBuilder) -> None:
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    a_run(lab.policy(), build, steps=1)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


def test_the_size_of_a_pass_changes_no_number_of_an_update(lab: Any, build: TaskBuilder) -> None:
    runs = [a_run(lab.policy(scale=0.1), build, steps=1, micro_batch=size)[0] for size in (1, 3, 8, 64)]
    for metrics, transcripts in runs[1:]:
        assert transcripts == runs[0][1]
        assert metrics == pytest.approx(runs[0][0], rel=1e-3, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("teacher", ["live", "base"])
def test_an_update_reports_the_credit_of_its_own_side(lab: Any, build: TaskBuilder, teacher: str) -> None:
    """The same dialogues played again by hand."""
    policy = lab.policy()
    ((metrics, transcripts),) = a_run(
        policy, build, steps=1, learning_rate_recommender=0.0, learning_rate_user=0.0, teacher=teacher
    )
    dialogues = [Dialogue(t.task, lab.split.dataset.items, max_turns=3, reward=PAPER.build()) for t in transcripts]
    played = lab.play(policy, dialogues=dialogues)
    assert [t.turns for t in played.transcripts] == [t.turns for t in transcripts]
    for role, side in zip(ROLES, SIDES, strict=True):
        samples = [sample for sample in played.samples(role) if sample.turns]
        student = collate(samples, 0, policy.backbone.device).rollout_logprobs
        credit = distilled_advantages(teacher_logprobs(policy, role if teacher == "live" else None, samples), student)
        assert metrics[f"{side}_credit"] == pytest.approx(credit.mean().item(), abs=1e-5)
        assert metrics[f"{side}_surprise"] == pytest.approx(-student.mean().item(), abs=1e-5)
        assert metrics[f"{side}_tokens"] == len(student)


def test_without_weight_the_credit_changes_nothing(lab: Any, build: TaskBuilder) -> None:
    found = []
    for teacher in ("live", "base"):
        policy = lab.policy(scale=0.1)
        a_run(policy, build, teacher=teacher, lambda_recommender=0.0, lambda_user=0.0)
        found.append(weights(policy))
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_a_learning_rate_of_zero_moves_nothing(lab: Any, build: TaskBuilder) -> None:
    policy = lab.policy(scale=0.1)
    before = weights(policy)
    a_run(policy, build, **STILL)
    assert all(torch.equal(p, before[name]) for name, p in policy.peft.named_parameters())


def test_the_user_alone_learns_from_explored_dialogues(lab: Any, build: TaskBuilder) -> None:
    """Of 8 dialogues 2 are explored: 6 teach the recommender, and their metrics alone are reported."""
    told = a_run(lab.policy(scale=0.1), build, steps=1, explored_share=0.25)
    alone = a_run(lab.policy(scale=0.1), build, steps=1)
    assert len(told[0][1]) == 6
    assert told[0][1] == alone[0][1][2:]
    assert told[0][0]["rec_tokens"] < alone[0][0]["rec_tokens"]
    assert told[0][0]["user_tokens"] > sum(len(t.turns) for t in told[0][1])


def test_an_explorer_changes_the_item_and_not_the_words(lab: Any, build: TaskBuilder) -> None:
    tasks = sample_train_tasks(build, 40, np.random.default_rng(0), prefix="x")
    policy, items = lab.policy(scale=0.1), build.split.dataset.items
    played = []
    for explored in (0, 30):
        dialogues = [Dialogue(task, items, max_turns=1) for task in tasks]
        recommender = LLMAgent(policy, RECOMMENDER, items)
        play(dialogues, Explorer(recommender, explored), FixedUser())
        played.append([dialogue.turns[0] for dialogue in dialogues])
    assert [turn.rationale for turn in played[0]] == [turn.rationale for turn in played[1]]
    same = [a.proposal == b.proposal for a, b in zip(*played, strict=True)]
    assert all(same[30:])
    assert sum(same[:30]) < 15


def test_training_needs_dialogues_of_the_trained_recommender() -> None:
    with pytest.raises(ConfigError, match=r"explored_share must be in \[0, 1\), got 1\.0"):
        Coars(explored_share=1.0)


def test_training_on_broken_dialogues_alone_is_refused(lab: Any, build: TaskBuilder) -> None:
    policy = lab.policy()
    for parameter in policy.parameters(RECOMMENDER):
        parameter.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"All 8 dialogues of update 0 failed: "):
        a_run(policy, build)


def test_an_update_that_diverges_is_not_reported(lab: Any, build: TaskBuilder) -> None:
    """The first update throws the adapters out of all bounds; the second finds that, and is none."""
    told: list[int] = []
    config = coars(steps=3, episodes_per_step=8, max_turns=2, explored_share=0.0, learning_rate_user=1e30)
    with pytest.raises(TrainingError, match=r"diverged|All 8 dialogues"):
        lab.train(lab.policy(scale=0.1), build, config, on_step=lambda step, *_: told.append(step))
    assert told == [0]


def test_a_gradient_that_is_not_finite_moves_nothing(lab: Any, build: TaskBuilder) -> None:
    """Rewards times 1e38 overflow in the gradient, though every dialogue is sound."""
    policy = lab.policy(scale=0.1)
    before = weights(policy)
    huge: Any = CoarsReward(invalid=-1.0, alpha=0.0, stage=lambda turn, turns, hit: 3e38)
    with pytest.raises(TrainingError, match=r"Training diverged: the loss of recommender_0 is"):
        lab.train(policy, build, coars(steps=1, episodes_per_step=8, max_turns=2), reward=huge)
    assert all(torch.equal(p, before[name]) for name, p in policy.peft.named_parameters())


class NothingToLearn(CoarsReward):
    """Leaves every turn out, for both sides."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        return replace(super().turn(task, turn, number, max_turns), excluded=frozenset(ROLES))


def test_a_batch_that_is_left_out_as_a_whole_changes_nothing_and_is_counted(
    lab: Any, build: TaskBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    policy = lab.policy(scale=0.1)
    before = weights(policy)
    told: list[StepMetrics] = []
    config = coars(steps=1, episodes_per_step=8, max_turns=2)
    lab.train(policy, build, config, reward=NothingToLearn(), on_step=lambda step, metrics, _: told.append(metrics))
    (metrics,) = told
    assert (metrics["rec_tokens"], metrics["user_tokens"]) == (0, 0)
    assert (metrics["excluded_recommender"], metrics["excluded_user"]) == (1, 1)
    assert [record.message.partition(" in this")[0] for record in caplog.records] == [
        f"{role} has nothing to learn from" for role in ROLES
    ]
    assert all(torch.equal(p, before[name]) for name, p in policy.peft.named_parameters())


def test_a_side_without_choice_left_ends_the_training(lab: Any, build: TaskBuilder) -> None:
    """At a temperature near 0 every token is certain."""
    told: list[int] = []
    config = coars(steps=1, episodes_per_step=8, max_turns=2, temperature=1e-6)
    with pytest.raises(TrainingError, match=r"The entropy of recommender_0 fell to .* nats a token, below 0\.01"):
        lab.train(
            lab.policy(scale=0.1),
            build,
            config,
            reward=CoarsReward(),
            on_step=lambda step, *_: told.append(step),
        )
    assert told == []


def test_the_divergence_from_the_base_is_that_of_the_sampled_tokens(lab: Any, build: TaskBuilder) -> None:
    policy = lab.policy()
    ((metrics, transcripts),) = a_run(policy, build, steps=1, **STILL)
    dialogues = [Dialogue(t.task, lab.split.dataset.items, max_turns=3, reward=PAPER.build()) for t in transcripts]
    played = lab.play(policy, dialogues=dialogues)
    for role, side in zip(ROLES, SIDES, strict=True):
        batch = collate([sample for sample in played.samples(role) if sample.turns], 0, policy.backbone.device)
        with torch.no_grad():
            base = policy.score(None, batch.token_ids, batch.places, batch.allowed)
        d = (base - batch.rollout_logprobs).double().numpy()
        assert metrics[f"{side}_kl"] == pytest.approx(float(np.mean(np.exp(d) - d - 1)), rel=1e-3)
        assert metrics[f"{side}_kl"] > 0.005
    ((fresh, _),) = a_run(lab.policy(scale=0), build, steps=1, **STILL)
    assert fresh["rec_kl"] == fresh["user_kl"] == 0
    ((live, _),) = a_run(lab.policy(), build, steps=1, teacher="live", **STILL)
    assert "rec_kl" not in live  # it would take a pass of its own


def test_the_meters_of_an_update_are_those_of_its_dialogues(lab: Any, build: TaskBuilder) -> None:
    ((metrics, transcripts),) = a_run(lab.policy(), build, steps=1)
    meters = episode_meters(transcripts, lab.split.dataset.items, item_counts(lab.split))
    for name, values in meters.items():
        if np.isfinite(values).any():
            assert metrics[name] == pytest.approx(np.nanmean(values))
    assert "target_named" in metrics


def test_training_goes_on_from_adapters_and_optimizers_alone(lab: Any, build: TaskBuilder) -> None:
    """After 2 of 4 updates everything but these is made anew; no generator has a state."""
    whole, stopped = lab.policy(scale=0.1), lab.policy(scale=0.1)
    told = a_run(whole, build, steps=4)
    config = coars(steps=4, episodes_per_step=8, max_turns=3, explored_share=0.0)
    optimizers, found = new_optimizers(stopped), []

    def until_two(step: int, metrics: StepMetrics, transcripts: Sequence[Transcript]) -> None:
        found.append([t.turns for t in transcripts])
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.train(stopped, build, config, optimizers=optimizers, on_step=until_two)
    lab.train(stopped, build, config, optimizers=optimizers, first=2, on_step=until_two)
    assert found == [[t.turns for t in transcripts] for _, transcripts in told]
    assert all(torch.equal(p, weights(whole)[name]) for name, p in weights(stopped).items())


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    factors = [warmup_cosine(step, 101) for step in range(101)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4]  # the warm-up is over
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[-1] == pytest.approx(0.1, abs=0.001)


# What peers say ------------------------------------------------------------------------------------------------


class Silent(VectorPeers):
    """Peers who count in q and say nothing."""

    def __init__(self, peers: VectorPeers) -> None:
        self.peers = peers

    def batch(self, asked: Sequence[Any]) -> list[Any]:
        return [said._replace(opinions=()) for said in self.peers.batch(asked)]


def test_what_is_kept_out_of_the_prompt_still_counts_in_the_reward(lab: Any, build: TaskBuilder) -> None:
    """Training with deaf ears is, to the bit, training in a game whose peers are silent."""
    assert build.peers is not None
    runs = []
    for peers, opinions in ((build.peers, False), (Silent(build.peers), True), (build.peers, True)):
        silent: Any = replace(build, peers=peers)
        ((metrics, transcripts),) = a_run(lab.policy(), silent, steps=1, opinions=opinions)
        runs.append((metrics, [t.turns for t in transcripts], [t.rewards for t in transcripts]))
    assert runs[0] == runs[1]
    assert runs[0][0]["user_gradient"] != runs[2][0]["user_gradient"]


# Learning -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three hundred users in ten clubs of twelve songs, ten taken by each, in any order; the frozen test questions,
    with ten candidates each; and a backbone that knows the sequences. All songs are about equally popular.
    """
    rng = np.random.default_rng(0)
    taken = [(user, f"{user % 10}-{song}") for user in range(300) for song in rng.permutation(12)[:10]]
    songs = [(club, song) for club in range(10) for song in range(12)]
    dataset = from_interactions(
        {
            "user_id": [user for user, _ in taken],
            "item_id": [song for _, song in taken],
            "timestamp": list(range(len(taken))),
        },
        {
            "item_id": [f"{club}-{song}" for club, song in songs],
            "title": [f"Song {song} of club {club}" for club, song in songs],
        },
    )
    split = leave_last(dataset)
    build = builder(split, num_candidates=10)
    config = PocketConfig(hidden=48, layers=2, heads=2, steps=240, batch=48, sequence_length=20)
    folder = tmp_path_factory.mktemp("school")
    return build, freeze(build, "test"), lambda: load_pocket(split, config, cache_dir=folder)


def hit_at_1(policy: Policy, build: TaskBuilder, questions: Any) -> float:
    items = build.split.dataset.items
    sides = (LLMAgent(policy, role, items, temperature=0.0) for role in (RECOMMENDER, USER))
    transcripts = rollout(questions.tasks, items, *sides, provenance=questions.provenance, max_turns=2)
    return float(np.nanmean(episode_metrics(transcripts)["hit_final"]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_coars_learns_to_recommend(school: Any, seed: int) -> None:
    """Chance is .1, and a base that knows the clubs is above it unasked; one standard error of 300 users is .03."""
    build, questions, backbone = school
    policy = Policy(backbone(), seed=seed)
    before = hit_at_1(policy, build, questions)
    learn(policy, build, coars(steps=30, episodes_per_step=64, max_turns=2, seed=seed))
    assert hit_at_1(policy, build, questions) > before + 0.06
    assert all(bool(p.detach().any()) for role in ROLES for p in policy.parameters(role))


# Other rewards --------------------------------------------------------------------------------------------------------


RECIPES = [OutcomeRecipe, GrpoRecipe, GrpoTurnRecipe, GrpoJudgeRecipe, RejectionSamplingRecipe, SupervisedRecipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_under_every_recipe_both_sides_learn(lab: Any, build: TaskBuilder, recipe: type[CoTraining]) -> None:
    policy = lab.policy(scale=0.1)
    before = {role: [p.detach().clone() for p in policy.parameters(role)] for role in ROLES}
    ((metrics, _),) = a_run(policy, build, recipe=recipe, steps=1)
    for role in ROLES:
        assert any(not torch.equal(p, q) for p, q in zip(before[role], policy.parameters(role), strict=True))
    assert metrics["rec_tokens"] > 0


def test_demonstrations_make_the_choices_of_the_logs(lab: Any, build: TaskBuilder) -> None:
    policy = lab.policy(scale=0.1)
    ((_, transcripts),) = a_run(policy, build, steps=1, recipe=SupervisedRecipe, **STILL)
    for transcript in transcripts:
        assert [(turn.proposal, turn.answer.action, turn.answer.strength) for turn in transcript.turns] == [
            (transcript.task.target, ACTIONS.index("click"), 1.0)
        ]


def test_the_update_by_demonstrations_raises_their_likelihood(lab: Any, build: TaskBuilder) -> None:
    """Its gradient is that of the mean log-probability a token, made by hand here."""
    policy = lab.policy(scale=0.1)
    ((metrics, transcripts),) = a_run(policy, build, steps=1, recipe=SupervisedRecipe, **STILL)
    items = lab.split.dataset.items
    recommender, user = (Demonstrator(policy, role, items) for role in ROLES)
    for side in (recommender, user):
        side.prepare([t.task for t in transcripts])
    dialogues = [Dialogue(t.task, items, max_turns=3) for t in transcripts]
    play(dialogues, recommender, user)
    assert [tuple(d.turns) for d in dialogues] == [t.turns for t in transcripts]
    loss = torch.zeros(())
    for row, transcript in zip(recommender.rows, transcripts, strict=True):
        sample = training_sample(row, RECOMMENDER, transcript, kept_terms(transcript), items, policy.backbone)
        batch = collate([sample], 0, policy.backbone.device)
        loss = loss - policy.score(RECOMMENDER, batch.token_ids, batch.places, batch.allowed).mean() / len(transcripts)
    gradients = torch.autograd.grad(loss, policy.parameters(RECOMMENDER))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert metrics["rec_gradient"] == pytest.approx(float(norm), rel=1e-3)


def test_hindsight_does_not_judge_demonstrations(lab: Any) -> None:
    agent = Demonstrator(lab.policy(), RECOMMENDER, lab.split.dataset.items)
    with pytest.raises(ConfigError, match="Token credit judges what a side chose itself, but a Demonstrator"):
        Learner(agent=agent, learning_rate=1e-3, credit=SelfDistillation())
