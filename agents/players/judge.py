"""Judge: the bare base grades finished dialogues, and its grades are the reward.

The rubric is ours, as is the choice of the base, adapters off and greedy: a judge whose weights learn drifts with what
it judges. It never sees what the user truly took; a judge that did would be one more outcome reward. Judges like length
and confidence, so its grades are to be compared with Hit@1.
"""

from collections.abc import Sequence
from dataclasses import replace

from agents.models.fields import Field, Number
from agents.models.language_model import LocalModel, Request
from agents.models.policy import Policy
from agents.models.prompts import (
    ACTION_TEXTS,
    ANSWER,
    CANDIDATES,
    NO_ANSWER,
    TAKEN,
    Pieces,
    because,
    proposed,
    titles,
    wanted,
)
from coars_env import RECOMMENDER, ROLES, USER, ConfigError, Item, RewardTerms, Role, Transcript, turn_outcome_terms

GRADES = Number(0, 1, 0.25)
RUBRIC = tuple(Field(name, GRADES) for name in ("Fits the history", "Honest reasons", "Heeds the other"))
JUDGE_SYSTEM = "You judge one side of a dialogue. Grade it from 0 to 1 by each line."
JUDGED = {RECOMMENDER: "\nGrade the recommender.", USER: "\nGrade the user."}


class Judge:
    """Grades by the base of a policy: the mean of three, each 0, .25, .5, .75 or 1. A `TranscriptReward`."""

    def __init__(self, policy: Policy, items: Sequence[Item], roles: Sequence[Role] = ROLES) -> None:
        """Make a judge.

        Args:
            policy: its base grades.
            items: the catalogue.
            roles: sides that are graded.
        """
        self.policy, self.items, self.roles = policy, items, roles
        self.model = LocalModel(policy.backbone, "judge")

    def score(self, transcripts: Sequence[Transcript]) -> list[list[RewardTerms]]:
        """Pay each turn the grade of its dialogue.

        Sides that are not graded, and failed dialogues, earn 0. Messages that could not be used cost what they cost in
        `CoarsReward`.

        Raises:
            ConfigError: several users decide together.
        """
        if groups := [one.task for one in transcripts if one.task.others]:
            raise ConfigError(
                f"A judge grades one recommender and one user, got task {groups[0].task_id!r} with "
                f"{groups[0].num_users} users. Pay groups by CoarsReward."
            )
        asked = [(n, role) for n, one in enumerate(transcripts) if one.ending != "failed" for role in self.roles]
        with self.policy.use_adapter(None):
            replies = self.model.answer([self.request(transcripts[n], role) for n, role in asked])
        grades = {
            place: sum(map(float, reply.values or ())) / len(RUBRIC)
            for place, reply in zip(asked, replies, strict=True)
        }
        return [
            [
                replace(term, rewards={role: grades.get((n, role), 0.0) for role in ROLES})
                if turn.usable or turn.answered
                else term
                for turn, term in zip(one.turns, turn_outcome_terms(one), strict=True)
            ]
            for n, one in enumerate(transcripts)
        ]

    def request(self, transcript: Transcript, role: Role) -> Request:
        """The dialogue, without what was truly taken, and the three lines."""
        task, separator = transcript.task, self.model.separator
        pieces: Pieces = (
            *(TAKEN, *titles(self.items, task.history, separator)),
            *(CANDIDATES, *titles(self.items, task.candidates, separator)),
        )
        for turn in transcript.turns:
            pieces = (*pieces, "\n", *proposed(turn.proposal, turn.question, self.items), *because(turn.rationale))
            for answer in turn.answers:
                said: Pieces = (NO_ANSWER,) if answer.error is not None else ()
                if answer.action is not None and answer.strength is not None:
                    said = (ACTION_TEXTS[answer.action], f" {answer.strength:.2f}")
                if task.instruction is not None and answer.error is None:
                    said = (*said, *wanted(answer.reveal, self.items, task.instruction.kinds))
                pieces = (*pieces, "\n", ANSWER, *said, *because(answer.message))
        return Request(JUDGE_SYSTEM, ((*pieces, JUDGED[role]),), RUBRIC)
