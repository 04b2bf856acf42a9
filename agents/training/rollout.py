"""Rollout: the dialogues of one update, and what its learners can learn from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.models.policy import Policy
from agents.players.llm_agent import LLMAgent
from agents.training.distributed import ProcessGroup
from agents.training.hindsight import with_written_diagnoses
from agents.training.learner import Learner, Optimisation, Players, agent_of, learners_of
from agents.training.samples import TrainingSample, training_sample
from agents.training.sharding import in_step
from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Action,
    Agent,
    Dialogue,
    Observation,
    Reward,
    RewardTerms,
    Role,
    Task,
    TaskBuilder,
    Transcript,
    TranscriptReward,
    agents_of,
    play,
    sample_train_tasks,
    score_transcripts,
)


@dataclass(frozen=True)
class Rollout:
    """What all processes played for one update."""

    transcripts: list[Transcript]
    """Of the recommender as it is, without the explored dialogues."""
    samples: dict[Role, list[TrainingSample]]
    """Of each learner, with baseline and weights."""
    tokens: int
    """Sampled by the language models of this process."""


class Explorer:
    """A recommender whose item is replaced by a random candidate in the dialogues numbered below `explored`.

    Its questions stay, and a candidate that may not be proposed is not. The words stay its own, so nothing but the item
    tells the user which kind of dialogue it is in.
    """

    def __init__(self, recommender: Agent, explored: int) -> None:
        self._recommender, self._explored = recommender, explored

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._recommender.start(seeds)
        self._rngs = [np.random.default_rng([*seed, 1]) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        actions = self._recommender.act(observations)
        for number in [n for n, action in actions.items() if n < self._explored and not action.get("ask")]:
            observation = observations[number]
            places = np.flatnonzero(observation.get("allowed", np.ones(len(observation["candidates"]))))
            item = int(places[self._rngs[number].integers(len(places))])
            actions[number] = {**actions[number], "item": item}
        return actions


def collect(
    policy: Policy,
    build: TaskBuilder,
    players: Players,
    reward: TranscriptReward,
    optimisation: Optimisation,
    step: int,
    processes: ProcessGroup,
) -> Rollout:
    """Play the dialogues of update `step` and turn them into samples. Each process plays its share."""
    learners = learners_of(policy, players)
    user = learners.get(USER)
    explored = optimisation.explored(user.explored_share) if user else 0
    tasks = _tasks(build, optimisation, step, processes)
    dialogues = {
        number: Dialogue(
            task,
            build.split.dataset.items,
            max_turns=optimisation.max_turns,
            rules=optimisation.rules,
            reward=reward if isinstance(reward, Reward) else None,
        )
        for number, task in tasks.items()
    }
    recommender, user_agent = (agent_of(players[role]) for role in ROLES)
    for role, agent in zip(ROLES, (recommender, user_agent), strict=True):
        if isinstance(agent, LLMAgent):
            agent.prepare([task for task in tasks.values() for _ in _played_by(role, task)])
    with in_step(policy, processes):
        play(
            list(dialogues.values()),
            Explorer(recommender, sum(number < explored for number in dialogues)),
            user_agent,
            seed=optimisation.seed,
            numbers=[step * optimisation.episodes_per_step + number for number in dialogues],
        )
    played = {
        number: dialogue.transcript(build.split.dataset.provenance, seed=optimisation.seed)
        for number, dialogue in dialogues.items()
    }
    with in_step(policy, processes):  # a reward may ask the base
        terms = [discounted(paid, optimisation.discount) for paid in score_transcripts(reward, list(played.values()))]
    samples = {}
    for role, learner in learners.items():
        first = explored if role == RECOMMENDER else 0
        samples[role] = processes.merge(_samples(learner, played, terms, first=first))
    language_models = [agent for player in players.values() if isinstance(agent := agent_of(player), LLMAgent)]
    tokens = sum(sum(row.sampled) for agent in language_models for row in agent.rows)
    for agent in language_models:
        agent.forget()  # no cache outlives the weights it was made with
    transcripts = processes.merge(played)[explored:]
    for role, learner in learners.items():
        if learner.credit is not None and learner.credit.written_diagnosis:
            rng = np.random.default_rng([optimisation.seed, 3, step, ROLES.index(role)])
            samples[role] = with_written_diagnoses(policy, samples[role], rng, processes)
        if optimisation.baseline is not None:
            samples[role] = optimisation.baseline(samples[role])
        if learner.weigh is not None:
            samples[role] = learner.weigh(samples[role])
    return Rollout(transcripts, samples, tokens)


def discounted(terms: Sequence[RewardTerms], discount: float) -> list[RewardTerms]:
    """Return the terms with what each turn earns and what follows: R_t + gamma R_(t+1) + ..., for each side."""
    found: list[RewardTerms] = []
    for term in reversed(terms):
        later = found[-1].rewards if found else dict.fromkeys(term.rewards, 0.0)
        rewards = {agent: reward + discount * later[agent] for agent, reward in term.rewards.items()}
        found.append(replace(term, rewards=rewards) if discount else term)
    return found[::-1]


def _tasks(build: TaskBuilder, optimisation: Optimisation, step: int, processes: ProcessGroup) -> dict[int, Task]:
    """Draw the tasks of update `step` and return this process's share by the number of the dialogue.

    Whole groups go to the processes in turn, so each has its share of the explored ones, which cost less.
    """
    size, groups = optimisation.group_size, optimisation.episodes_per_step // optimisation.group_size
    rng = np.random.default_rng([optimisation.seed, 2, step])
    drawn = sample_train_tasks(build, groups, rng, prefix=f"train-{step:05d}")
    numbers = range(optimisation.episodes_per_step)
    return {n: drawn[n // size] for n in numbers if n // size % processes.world_size == processes.rank}


def _samples(
    learner: Learner,
    transcripts: Mapping[int, Transcript],
    terms: Sequence[Sequence[RewardTerms]],
    *,
    first: int,
) -> dict[int, TrainingSample]:
    """Turn the last batch of a learner into samples by the number of the dialogue, from number `first` on.

    One adapter plays all users of a group: user i of dialogue n is number M n + i, where M play. Failed dialogues and
    those without a turn to learn from are left out.
    """
    agent = learner.agent
    diagnosed = learner.credit is None or not learner.credit.written_diagnosis
    seats = [
        (number * len(players) + place, player, number >= first, transcript, paid)
        for (number, transcript), paid in zip(transcripts.items(), terms, strict=True)
        for players in (_played_by(agent.role, transcript.task),)
        for place, player in enumerate(players)
    ]
    samples = {
        number: training_sample(row, player, transcript, paid, agent.items, agent.policy.backbone, diagnosed=diagnosed)
        for row, (number, player, learns, transcript, paid) in zip(agent.rows, seats, strict=True)
        if learns and transcript.ending != "failed"
    }
    return {number: sample for number, sample in samples.items() if sample.turns}


def _played_by(role: Role, task: Task) -> tuple[Role, ...]:
    """The agents of a task that a side plays: the recommender, or all users."""
    return (role,) if role == RECOMMENDER else agents_of(task.num_users)[1:]
