"""Simulation: the answers of a user agent to AFL's test, and what they are counted as."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coars_env.datasets.dataset import FloatArray, Item
from coars_env.dialogue import MAX_TURNS, Dialogue, checked_seed
from coars_env.errors import CoarsError, ConfigError, expect, whole_number
from coars_env.evaluation.calibration import calibration_counts
from coars_env.evaluation.user_test import UserTest
from coars_env.partners.agent import Agent, check_plays
from coars_env.rollout import agent_seed
from coars_env.tasks import Task
from coars_env.transcript import ACTIONS, ROLES, STRENGTH_EDGES, USER, Transcript

COUNT_COLUMNS = 12
"""Columns of `Simulation.counts` before those of the calibration."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """A test and the answers to it: one transcript per question, in the order of `UserTest.tasks`."""

    test: UserTest
    transcripts: tuple[Transcript, ...]

    def counts(self, ratio: str) -> FloatArray:
        """What `SIMULATION_METRICS` are made of, per user: shape [U, C].

        Columns: true positives, false positives, false negatives, true negatives, yes, unusable, then value and
        "is defined" of the user's own precision, recall and AUC; then those of `calibration_counts`. An unusable answer
        is counted as wrong, as AFL does, and left out of calibration.

        Raises:
            ConfigError: the test has no such ratio.
        """
        if ratio not in self.test.ratios:
            raise ConfigError(f"Expected one of the ratios {sorted(self.test.ratios)}, found {ratio!r}. Name one.")
        num_positives, num_negatives = self.test.ratios[ratio]
        rows, first = [], 0
        for user in self.test.users:
            answers = [_answer(transcript) for transcript in self.transcripts[first : first + len(user.questions)]]
            first += len(user.questions)
            asked = answers[: len(user.positives)][:num_positives], answers[len(user.positives) :][:num_negatives]
            rows.append(_count(*asked))
        return np.array(rows)


def _answer(transcript: Transcript) -> float:
    """Acceptance strength; NaN if there is no usable answer."""
    answer = transcript.turns[0].answer if transcript.turns else None
    strength = answer.strength if answer else None
    return np.nan if strength is None else strength


def _count(positives: list[float], negatives: list[float]) -> list[float]:
    yes = STRENGTH_EDGES[ACTIONS.index("star")]
    right, wrong = np.nan_to_num(positives, nan=0.0), np.nan_to_num(negatives, nan=1.0)  # unusable: counted as wrong
    tp, fp = int((right >= yes).sum()), int((wrong >= yes).sum())
    fn, tn = len(right) - tp, len(wrong) - fp
    both = np.array([*positives, *negatives])
    auc = float((np.sign(right[:, None] - wrong).mean() + 1) / 2)
    precision = tp / (tp + fp) if tp + fp else 0.0
    own = [precision, float(tp + fp > 0), tp / len(right), 1.0, auc, 1.0]
    counts = [tp, fp, fn, tn, float((both >= yes).sum()), float(np.isnan(both).sum()), *own]
    return [*counts, *calibration_counts(positives, negatives)]


def user_simulation(
    agent: Agent, test: UserTest, *, seed: int = 0, max_turns: int = MAX_TURNS, batch_size: int = 256
) -> Simulation:
    """Put each item to the user agent as the recommender's proposal of turn 1 for one answer, see `neutral_rationale`.

    `max_turns` is the horizon the agent is told of; the recorded episodes have one turn. A batch in which the agent
    raises is recorded as failed.

    Raises:
        CoarsError: settings that cannot be, what is no agent, or what an agent raises as such.
    """
    check_plays(agent, "The user")
    expect(UserTest, test, "The questions are those of a test.", "`user_test(split)` makes one.")
    seed, batch_size = checked_seed(seed), whole_number("A batch holds dialogues.", "batch_size", batch_size, 1)
    tasks, transcripts = test.tasks(), []
    positions = [position for user in test.users for position in range(len(user.questions))]
    for first in range(0, len(tasks), batch_size):
        batch = [Dialogue(task, test.items, max_turns=max_turns) for task in tasks[first : first + batch_size]]
        for position, dialogue in zip(positions[first:], batch, strict=False):
            dialogue.recommend(position, neutral_rationale(dialogue.task, test.items))
        cause = _ask(agent, batch, seed, first)
        for dialogue in batch:
            if dialogue.speaker == USER:
                dialogue.fail(cause or "")
            turns, ending = tuple(dialogue.turns), dialogue.ending or "max_turns"
            transcripts.append(
                Transcript(dialogue.task, 1, turns, ending, dialogue.cause, provenance=test.provenance, seed=seed)
            )
    return Simulation(test, tuple(transcripts))


def neutral_rationale(task: Task, items: Sequence[Item]) -> str:
    """The reason under which every question is put, whatever its item: the latest of the history is named.

    AFL's questions name an item and no reason. In this game a proposal comes with one, and an agent that never met a
    bare proposal would be tested on its form rather than its taste; ours.
    """
    return f"It goes well with {items[task.history[-1]].title}." if task.history else "It is one of the list."


def _ask(agent: Agent, dialogues: Sequence[Dialogue], seed: int, first: int) -> str | None:
    """Let the user agent answer where it can; the cause if it broke."""
    agent.start([agent_seed(seed, ROLES.index(USER), first + n) for n in range(len(dialogues))])
    try:
        actions = agent.act({n: dialogue.observe(dialogue.speaker) for n, dialogue in enumerate(dialogues)})
        for n, dialogue in enumerate(dialogues):
            dialogue.act(actions[n])
    except CoarsError:
        raise
    except Exception as error:  # a defect of the agent is data, whatever it is
        return f"{USER}: {error!r}"
    return None
