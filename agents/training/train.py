"""train: the loop, from tasks to trained adapters.

Left out on purpose: importance ratios (each batch is used once, on the policy that made it; only what a server sampled
is weighed, see `truncated_ratio`) and, unless `Optimisation` asks for them, a baseline and a KL term (the paper names
neither).

All chance of an update comes from generators that are made anew from (seed, number of the update); none is global. So
an update depends on adapters, optimizers and its number, and a run needs nothing else to go on.

Several processes may make an update together, see `agents.training.distributed`. They share the playing and the passes
of the model; each does everything else for itself, on the same numbers.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from agents.models.policy import Policy
from agents.training.distributed import SINGLE_PROCESS, ProcessGroup
from agents.training.learner import Optimisation, Players, learners_of
from agents.training.rollout import collect
from agents.training.samples import sort_by_length
from agents.training.sharding import pad_to_world_size
from agents.training.update import Optimizers, StepMetrics, new_optimizers, update
from coars_env import (
    RECOMMENDER,
    CoarsReward,
    Item,
    Reward,
    TaskBuilder,
    TrainingError,
    Transcript,
    TranscriptReward,
    episode_meters,
    episode_metrics,
    item_counts,
)

OnStep = Callable[[int, StepMetrics, Sequence[Transcript]], None]
"""(number of the update, its metrics, the dialogues it learnt from) -> None, called after each update."""


def train(
    policy: Policy,
    tasks: TaskBuilder,
    players: Players,
    *,
    reward: TranscriptReward,
    optimisation: Optimisation,
    optimizers: Optimizers | None = None,
    first: int = 0,
    on_step: OnStep | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Train the adapters of one side or both from dialogues, in place.

    Training that was stopped after n updates goes on with the adapters and optimizers of that moment and `first=n`,
    and ends bit-equal to training that was not stopped.

    Example:

        recommender = Learner(agent=LLMAgent(policy, RECOMMENDER, items), learning_rate=2e-3)
        players = {RECOMMENDER: recommender, USER: FixedUser()}
        train(policy, builder(split), players, reward=CoarsReward(), optimisation=Optimisation(steps=40))

    Args:
        policy: base and adapters.
        tasks: makes the training tasks; candidates are drawn anew for each.
        players: who plays each side: a `Learner`, or any `Agent` as its partner.
        reward: what the turns of a finished dialogue earn, see `coars_env.TranscriptReward`.
        optimisation: how many updates of what size.
        optimizers: one for each adapter; new ones by default.
        first: number of the first update.
        on_step: called after each update, with the dialogues of all processes.
        processes: that train together. All make the same call, and their adapters stay bit-equal.

    Raises:
        ConfigError: players of which none learns, or that cannot learn, see `learners_of`; or a reward that returns
            other than finite numbers for every turn.
        TrainingError: all dialogues of an update failed; a loss or gradient is not finite; the entropy of a side fell
            below `LEAST_ENTROPY`; or its log-probabilities differ from the server's by more than `MOST_MISMATCH`.
            `on_step` is not called for that update. All processes raise it.
        BackboneError: see `Server.publish`.
    """
    learners = learners_of(policy, players)
    optimizers = optimizers or new_optimizers(policy)
    reported = reward if isinstance(reward, Reward) else CoarsReward()
    items, popularity = tasks.split.dataset.items, item_counts(tasks.split)
    for step in range(first, optimisation.steps):
        started = time.perf_counter()
        rollout = collect(policy, tasks, players, reward, optimisation, step, processes)
        played = time.perf_counter()
        metrics = rollout_metrics(rollout.transcripts, reported, items, popularity)
        if all(transcript.ending == "failed" for transcript in rollout.transcripts):
            raise TrainingError(
                f"All {len(rollout.transcripts)} dialogues of update {step} failed: {rollout.transcripts[0].cause}. "
                "Correct the agent."
            )
        of_users = optimisation.episodes_per_step * tasks.split.num_users  # rows of the user's adapter
        for role, learner in learners.items():
            metrics |= update(
                policy,
                role,
                learner,
                sort_by_length(pad_to_world_size(rollout.samples[role], processes)),
                optimizers[role],
                optimisation,
                learning_rate=learner.learning_rate * optimisation.schedule(step, optimisation.steps),
                # the recommender does not learn from the explored dialogues
                num_episodes=len(rollout.transcripts) if role == RECOMMENDER else of_users,
                processes=processes,
            )
        metrics["seconds_rollout"] = played - started
        metrics["seconds"] = time.perf_counter() - started
        metrics["tokens_per_second"] = sum(processes.all_gather(rollout.tokens)) / metrics["seconds"]
        if on_step is not None:
            on_step(step, metrics, rollout.transcripts)


def rollout_metrics(
    transcripts: Sequence[Transcript], reward: Reward, items: Sequence[Item], popularity: npt.ArrayLike
) -> StepMetrics:
    """Average all metrics and meters over a batch of dialogues; see `episode_metrics` and `episode_meters`."""
    metrics = episode_metrics(transcripts, reward=reward) | episode_meters(transcripts, items, popularity)
    return {name: float(np.nanmean(values)) for name, values in metrics.items() if np.isfinite(values).any()}
