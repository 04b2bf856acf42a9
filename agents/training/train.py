"""Trained adapters: the CoARS loop, top to bottom.

Left out on purpose: importance ratios (each batch is used once, on the policy that made it; only what a server wrote is
weighed, see `truncated_ratio`), a KL term (the paper names none; the divergence from the base is only reported), a
division by the deviation of a group's rewards. A baseline is an option (Eq. 11-12 have none).

All chance of an update comes from generators that are made anew from (seed, number of the update); none is global. So
adapters, optimizers and that number are everything an update depends on, and all that a run needs to go on.

Several processes may make an update together, see `agents.training.distributed`. They share the playing and
the passes of the model; each does everything else for itself, on the same numbers.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import DynamicCache

from agents.models.policy import Policy
from agents.players.demonstrator import Demonstrator
from agents.players.judge import Judge
from agents.players.llm_agent import LLMAgent
from agents.players.served import MOST_MISMATCH, ServedAgent, Server
from agents.training.credit import (
    ClippedLogRatio,
    Credit,
    SignFromReward,
    TeacherKind,
    average_weights,
    averaged_weights,
    distilled_advantages,
    student_logprobs,
    teacher_logprobs,
)
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.hindsight import with_written_diagnoses
from agents.training.losses import kl_to_base, policy_gradient, truncated_ratio
from agents.training.samples import (
    Baseline,
    TrainingSample,
    balance_hits,
    collate,
    shard_samples,
    sort_by_length,
    subtract_baseline,
    training_sample,
)
from agents.training.sharding import in_step, pad_to_world_size
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    CoarsReward,
    ConfigError,
    Dialogue,
    Item,
    Observation,
    RewardTerms,
    Role,
    TaskBuilder,
    TrainingError,
    Transcript,
    episode_meters,
    episode_metrics,
    item_counts,
    kept_terms,
    outcome_terms,
    play,
    sample_train_tasks,
    score_transcripts,
    turn_outcome_terms,
)

CreditKind = Literal["log_ratio", "sign_from_reward", "none"]
PaidBy = Literal["interaction", "outcome", "turn_outcome", "judge", "kept", "demonstration"]
TERMS = {
    "outcome": outcome_terms,
    "turn_outcome": turn_outcome_terms,
    "kept": kept_terms,
    "demonstration": kept_terms,  # what is demonstrated is right
}
"""What a transcript alone decides."""

_log = logging.getLogger("coars_env")

LEAST_ENTROPY = 0.01
"""Nats a token; ours. Below it a side departs from its likeliest choice about once in a thousand tokens, so its
dialogues are all alike and nothing more can be learnt from them."""


@dataclass(frozen=True, kw_only=True)
class CoarsConfig:
    """Settings of the algorithm. "published" is the paper's, "ours" fills a gap the paper leaves."""

    steps: int = 120
    """Updates of both adapters; ours."""
    episodes_per_step: int = 192
    """Dialogues an update; ours."""
    group_size: int = 1
    """How many of them play one task. Tasks are of distinct users. What the dialogues of a task begin with is then read
    once, in playing and in learning; ours."""
    baseline: Baseline = "none"
    """What is taken off each reward; published: nothing. "group" is the mean of the same turn in the dialogues of the
    task and needs a group_size; "group_normalized" divides by the deviation, too, as GRPO; "batch" is the mean of all
    turns. Ours, see `subtract_baseline` in agents/training/samples.py."""
    kl: float = 0.0
    """Weight of the divergence from the base in the loss, k3 a token; published: none. GRPO's is .001, see
    `kl_to_base`."""
    max_turns: int = 4
    """T; ours, AFL's value."""
    credit: CreditKind = "log_ratio"
    """What hindsight adds to a reward: "log_ratio", the paper's `ClippedLogRatio`; "sign_from_reward", RLSD's, see
    `SignFromReward`, which published lambda .5 and clip .2; "none", the reward alone."""
    lambda_recommender: float = 0.1
    """Weight of the token credit; published."""
    lambda_user: float = 0.1
    """Weight of the token credit; published."""
    clip: float = 1.0
    """Largest token credit; published."""
    trained: Literal["both", "recommender", "user"] = "both"
    """Whose adapter learns; published: both. The other plays as it is."""
    teacher: TeacherKind = "base"
    """Whose weights read the hindsight; ours. "base" stays able to use it and holds the messages to the language of the
    base; "live" is the nearest reading of "the same model", and under it the reasons decay; see docs/log.md. "ema" is a
    running average of the live one."""
    teacher_rate: float = 0.05
    """Of the running average; SDPO's (arXiv:2601.20802)."""
    diagnosis: Literal["template", "written"] = "template"
    """Who writes the last part of d_t: a template that compares genres, or the base model; published is that there is
    one. See `with_written_diagnoses`."""
    paid_by: PaidBy = "interaction"
    """What a reply earns. Published: "interaction", Eq. 7-8. For comparison: the "outcome" of the dialogue
    (`outcome_terms`) or of each turn, "turn_outcome"; "judge", what the base thinks of the dialogue
    (`agents.players.judge`); "kept", 1 for right replies while others are left out (`kept_terms`, rejection sampling);
    "demonstration", 1 for the choice the logs say is right, which is written in place of the side's own
    (`agents.players.demonstrator`, supervised)."""
    learning_rate_recommender: float = 2e-3
    """AdamW without decay, linear warm-up over 5 steps, then to a tenth by a cosine; ours. Models of billions of
    parameters want 1e-5."""
    learning_rate_user: float = 5e-4
    """The same for the user; ours. At the recommender's rate its readiness to accept swings from end to end."""
    explored_share: float = 0.25
    """Share of the dialogues in which the item is drawn at random under the recommender's own words; ours. The user
    alone learns from them: a trained recommender soon proposes nothing but plausible items, and a user that hears no
    others cannot learn what to reject."""
    balance_user: bool = True
    """Weigh the user's turns so that hits and misses count alike in a batch; ours. Without it the user first learns how
    often the recommender is right at present (accept everything, or nothing), and then explores no more."""
    max_grad_norm: float = 1.0
    """Per adapter; ours."""
    temperature: float = 1.0
    """Of the rollout, full support; ours."""
    micro_batch: int = 16
    """Dialogues per forward pass of the update; changes memory, not the result."""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.episodes_per_step, self.micro_batch)
        if not 0 <= self.explored_share < 1 or min(counts) < 1 or self.temperature <= 0:
            raise ConfigError(
                "Training needs steps and dialogues of the trained recommender. Expected 0 <= explored_share < 1 and "
                f"steps, episodes_per_step, micro_batch >= 1 and temperature > 0, found {self}. Mend the settings."
            )
        if self.paid_by == "demonstration" and self.credit != "none":
            raise ConfigError(
                "Hindsight judges what a side chose itself. Expected credit none with demonstrations, found "
                f"{self.credit!r}. Pass --coars.credit none."
            )
        if self.kl < 0:
            raise ConfigError(f"A divergence is held down. Expected kl >= 0, found {self.kl}. Mend it.")
        if not 0 < self.teacher_rate <= 1:
            raise ConfigError(
                f"A running average moves. Expected 0 < teacher_rate <= 1, found {self.teacher_rate}. Mend it."
            )
        alone = self.baseline.startswith("group") and self.group_size == 1  # every reward would be 0
        if self.group_size < 1 or self.episodes_per_step % self.group_size or alone:
            raise ConfigError(
                "Every task is played by a whole group. Expected a group_size that divides episodes_per_step, and of 2 "
                f'or more with baseline "group", found {self}. Mend the settings.'
            )

    def credit_of(self, role: Role) -> Credit | None:
        """What hindsight adds to the reward of a side's tokens; None for nothing."""
        lam = self.lambda_recommender if role == RECOMMENDER else self.lambda_user
        if self.credit == "none":
            return None
        return (ClippedLogRatio if self.credit == "log_ratio" else SignFromReward)(lam, self.clip)

    @property
    def learners(self) -> tuple[Role, ...]:
        """The sides whose adapters learn."""
        return {"both": ROLES, "recommender": (RECOMMENDER,), "user": (USER,)}[self.trained]


StepMetrics = dict[str, float]
Optimizers = dict[Role, AdamW]


def new_optimizers(policy: Policy) -> Optimizers:
    """One for each adapter: AdamW without decay. `train` sets the learning rate of every update."""
    return {role: AdamW(policy.parameters(role), weight_decay=0.0) for role in ROLES}


def train(
    policy: Policy,
    build: TaskBuilder,
    config: CoarsConfig,
    *,
    reward: CoarsReward | None = None,
    opinions: bool = True,
    optimizers: Optimizers | None = None,
    first: int = 0,
    server: Server | None = None,
    on_step: Callable[[int, StepMetrics, Sequence[Transcript]], None] | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Train both adapters of a policy from the same dialogues, in place.

    Training that was stopped after n updates goes on with the adapters and optimizers of that moment and `first=n`,
    and ends bit-equal to training that was not stopped.

    Args:
        policy: base and adapters.
        build: makes the training tasks; candidates are drawn anew for each.
        config: settings.
        reward: of both sides; CoARS's by default.
        opinions: whether the user is told what peers say.
        optimizers: one for each adapter; new ones by default.
        first: number of the first update.
        server: writes the replies, with the adapters of this policy; the local decode loop by default. Not for a
        processes. on_step: called after each update with its number, its metrics and the dialogues it learnt from,
            those that other processes played among them.
        processes: the processes that train together. All make the same call, and their adapters stay bit-equal.

    Raises:
        TrainingError: an update found no dialogues, a loss or a gradient that is not finite, or a side whose entropy
            is below `LEAST_ENTROPY`, or whose log-probabilities are not the server's by `MOST_MISMATCH`. `on_step` was
            not called for it. All processes raise it.
        BackboneError: see `Server.publish`.
    """
    reward = reward or CoarsReward()
    dataset, popularity = build.split.dataset, item_counts(build.split)
    optimizers = optimizers or new_optimizers(policy)

    demonstrated = config.paid_by == "demonstration"
    if demonstrated and server is not None:
        raise ConfigError(
            "A server writes replies, not demonstrations. Expected no server with paid_by demonstration, found one. "
            "Leave --server.url out."
        )

    def new_agent(role: Role) -> LLMAgent:
        if demonstrated:
            return Demonstrator(policy, role, dataset.items, temperature=config.temperature, opinions=opinions)
        if server is None:
            return LLMAgent(policy, role, dataset.items, temperature=config.temperature, opinions=opinions)
        return ServedAgent(server, role, dataset.items, temperature=config.temperature, opinions=opinions)

    recommender, user = (new_agent(role) for role in ROLES)
    judge = Judge(policy, dataset.items, config.learners)
    groups = config.episodes_per_step // config.group_size
    explored = round(config.explored_share * groups) * config.group_size
    # whole groups by turns, so that each process has its share of explored ones, which cost less
    mine = [
        n for n in range(config.episodes_per_step) if n // config.group_size % processes.world_size == processes.rank
    ]
    for step in range(first, config.steps):
        started = time.perf_counter()
        if server is not None:
            server.publish()
        rng = np.random.default_rng([config.seed, 2, step])
        drawn = sample_train_tasks(build, groups, rng, prefix=f"train-{step:05d}")
        tasks = [drawn[n // config.group_size] for n in mine]
        dialogues = [Dialogue(task, dataset.items, max_turns=config.max_turns, reward=reward) for task in tasks]
        for agent in (recommender, user):
            if isinstance(agent, Demonstrator):
                agent.tasks = tasks
        with in_step(policy, processes):
            play(
                dialogues,
                Explorer(recommender, sum(n < explored for n in mine)),
                user,
                seed=config.seed,
                numbers=[step * config.episodes_per_step + n for n in mine],
            )
        played = {n: d.transcript(dataset.provenance, seed=config.seed) for n, d in zip(mine, dialogues, strict=True)}
        if config.paid_by in TERMS:
            terms = score_transcripts(TERMS[config.paid_by], list(played.values()))
        elif config.paid_by == "judge":
            with in_step(policy, processes):
                terms = judge.score(list(played.values()))
        else:
            terms = [d.terms for d in dialogues]
        written = config.diagnosis == "written"
        lessons = {
            RECOMMENDER: _samples(recommender, played, terms, first=explored, diagnosed=not written),
            USER: _samples(user, played, terms, diagnosed=not written),
        }
        for agent in (recommender, user):
            agent.forget()  # no cache outlives the weights it was made with
        transcripts = processes.merge(played)
        samples = {role: processes.merge(lessons[role]) for role in ROLES}
        if written and config.credit != "none":
            for role in config.learners:
                rng = np.random.default_rng([config.seed, 3, step, ROLES.index(role)])
                samples[role] = with_written_diagnoses(policy, samples[role], rng, processes)
        samples = {role: subtract_baseline(samples[role], config.baseline) for role in ROLES}
        if config.balance_user:
            samples[USER] = balance_hits(samples[USER])
        transcripts = transcripts[explored:]  # of the recommender as it is
        ended = time.perf_counter()
        metrics = rollout_metrics(transcripts, reward, dataset.items, popularity)
        if all(t.ending == "failed" for t in transcripts):
            raise TrainingError(
                f"Training needs dialogues. Expected some of {len(transcripts)} to end, found that all failed: "
                f"{transcripts[0].cause}. Mend the agent."
            )
        for role in config.learners:
            ready = sort_by_length(pad_to_world_size(samples[role], processes))
            num_episodes = len(transcripts) if role == RECOMMENDER else config.episodes_per_step
            rates = {RECOMMENDER: config.learning_rate_recommender, USER: config.learning_rate_user}
            rate = rates[role] * schedule(step, config.steps)
            metrics |= _update(
                policy, role, ready, optimizers[role], rate, num_episodes, config, processes, served=server is not None
            )
        metrics["seconds_rollout"] = ended - started
        metrics["seconds"] = time.perf_counter() - started
        chosen = sum(sum(row.sampled) for agent in (recommender, user) for row in agent.rows)
        metrics["tokens_per_second"] = sum(processes.all_gather(chosen)) / metrics["seconds"]
        if on_step is not None:
            on_step(step, metrics, transcripts)


def schedule(step: int, steps: int, *, warmup: int = 5, floor: float = 0.1) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine from 1 to `floor`."""
    decay = floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    return min(1.0, (step + 1) / warmup) * decay


class Explorer:
    """The recommender, but in the dialogues numbered below `explored` its item is replaced by a random candidate. The
    words stay its own, so nothing but the item tells the user which kind it hears.
    """

    def __init__(self, recommender: LLMAgent, explored: int) -> None:
        self._recommender, self._explored = recommender, explored

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._recommender.start(seeds)
        self._rngs = [np.random.default_rng([*seed, 1]) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        actions = self._recommender.act(observations)
        for number in [n for n in actions if n < self._explored]:
            item = int(self._rngs[number].integers(len(observations[number]["candidates"])))
            actions[number] = {**actions[number], "item": item}
        return actions


def _samples(
    agent: LLMAgent,
    transcripts: Mapping[int, Transcript],
    terms: Sequence[Sequence[RewardTerms]],
    *,
    first: int = 0,
    diagnosed: bool,
) -> dict[int, TrainingSample]:
    """What an agent's last batch teaches it, by the number of the dialogue: from number `first` on, without failed ones
    and those with no turn to learn.
    """
    samples = {
        number: training_sample(
            row, agent.role, transcript, paid, agent.items, agent.policy.backbone, diagnosed=diagnosed
        )
        for row, (number, transcript), paid in zip(agent.rows, transcripts.items(), terms, strict=True)
        if number >= first and transcript.ending != "failed"
    }
    return {number: sample for number, sample in samples.items() if sample.turns}


def _update(
    policy: Policy,
    role: Role,
    samples: Sequence[TrainingSample],
    optimizer: AdamW,
    learning_rate: float,
    num_episodes: int,
    config: CoarsConfig,
    processes: ProcessGroup,
    *,
    served: bool = False,
) -> StepMetrics:
    """One gradient step of one adapter, of the samples of the whole processes. Metrics are named by the side. What was
    `served` is weighed by its ratio.

    Raises:
        TrainingError: see `train`; the adapter is as it was.
    """
    if not samples:
        _log.warning("%s has nothing to learn from in this update: all its turns are left out", role)
    credit = config.credit_of(role)
    averages = averaged_weights(optimizer) if config.teacher == "ema" else None
    pad = policy.backbone.tokenizer.pad_token_id or 0
    optimizer.zero_grad()
    kept: dict[str, list[Tensor]] = {"credit": [], "logprob": [], "ratio": [], "kl": []}
    total = 0.0
    mine = shard_samples(samples, processes.rank, processes.world_size)
    for first in range(0, len(mine), config.micro_batch):
        part = mine[first : first + config.micro_batch]
        batch = collate(part, pad, policy.backbone.device)
        read = DynamicCache()  # what the student reads, a live teacher need not read again
        logprobs = student_logprobs(policy, role, batch, temperature=config.temperature, read=read)
        sampled = logprobs.detach() if config.paid_by == "demonstration" else batch.rollout_logprobs
        earned, weights, student = batch.rewards, batch.weights, sampled
        if served:  # the server's numbers say how it sampled, and the policy's what is to be learnt
            weights, student = weights * truncated_ratio(logprobs, student), logprobs.detach()
        reads_base = credit is not None and config.teacher == "base"
        if reads_base or config.kl:  # the base reads the dialogues itself, and says how likely they are to it
            of_base = DynamicCache()
            with torch.no_grad():
                base = student_logprobs(policy, None, batch, temperature=config.temperature, read=of_base)
            divergence = kl_to_base(logprobs, base)
            kept["kl"].append(divergence.detach())
            read = of_base if reads_base else read
        if credit is not None:
            with_hindsight = teacher_logprobs(
                policy,
                role,
                part,
                teacher=config.teacher,
                temperature=config.temperature,
                read=None if config.teacher == "ema" else read,  # the average has to read for itself
                averages=averages,
            )
            earned = earned + credit(earned, with_hindsight, student)
            kept["credit"].append(distilled_advantages(with_hindsight, student, clip=config.clip))
        loss = policy_gradient(logprobs, earned, weights, num_episodes=num_episodes)
        if config.kl:
            loss = loss + config.kl * (weights * divergence).sum() / num_episodes
        loss.backward()
        total += float(loss.detach())
        kept["logprob"].append(sampled)
        kept["ratio"].append((logprobs.detach() - sampled).exp())
    kept, total = processes.concatenate(kept), sum(processes.all_gather(total))
    if samples:
        processes.all_reduce_gradients(policy.parameters(role))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    norm = nn.utils.clip_grad_norm_(policy.parameters(role), config.max_grad_norm)
    name = "rec" if role == RECOMMENDER else "user"
    tensors = {key: torch.cat(values) if values else torch.zeros(1) for key, values in kept.items()}
    metrics = {
        f"{name}_credit": float(tensors["credit"].mean()),
        f"{name}_clipped": float((tensors["credit"].abs() >= config.clip).float().mean()),
        f"{name}_surprise": -float(tensors["logprob"].mean()),
        f"{name}_ratio_max": float(tensors["ratio"].max()),
        f"{name}_gradient": float(norm),
        f"{name}_tokens": float(sum(map(len, kept["logprob"]))),
    }
    if kept["kl"]:
        metrics[f"{name}_kl"] = float(tensors["kl"].mean())
    if served and samples:
        differences = tensors["ratio"].log().abs()
        metrics[f"{name}_mismatch"] = float(differences.mean())
        metrics[f"{name}_mismatch_max"] = float(differences.max())
        metrics[f"{name}_ratio_mean"] = float(tensors["ratio"].mean())
    if not np.isfinite([total, float(norm)]).all():
        raise TrainingError(
            f"Training diverged. Expected a finite loss of {role} with finite gradients, found loss {total} and norm "
            f"{float(norm)}. Lower its learning rate."
        )
    if served and samples and not metrics[f"{name}_mismatch"] <= MOST_MISMATCH:
        raise TrainingError(
            f"A server writes with the weights that are trained. Expected log-probabilities of {role} within "
            f"{MOST_MISMATCH} nats of the policy's, found {metrics[f'{name}_mismatch']:.3g} as the mean of "
            f"{len(differences)} tokens. See docs/serving.md on what may differ."
        )
    if samples and metrics[f"{name}_surprise"] < LEAST_ENTROPY:
        raise TrainingError(
            f"A side that is certain of every token learns no more. Expected {LEAST_ENTROPY} nats of entropy a token "
            f"of {role} or more, found {metrics[f'{name}_surprise']:.2g}. Lower its learning rate, or stop earlier."
        )
    before = [parameter.detach().clone() for parameter in policy.parameters(role)]
    optimizer.step()
    if config.teacher == "ema":
        average_weights(optimizer, before, config.teacher_rate)
    return metrics


def rollout_metrics(
    transcripts: Sequence[Transcript], reward: CoarsReward, items: Sequence[Item], popularity: npt.ArrayLike
) -> StepMetrics:
    """Means of all metrics and meters over a batch of dialogues; see `episode_metrics` and `episode_meters`."""
    metrics = episode_metrics(transcripts, reward=reward) | episode_meters(transcripts, items, popularity)
    return {name: float(np.nanmean(values)) for name, values in metrics.items() if np.isfinite(values).any()}
