"""Afl: two prompted agents with a trained model at their side, arXiv:2410.20027 (Agentic Feedback Loop).

    recommender, first turn: history, candidates, and the pick of a sequential model; later turns: the dialogue so far
    user, every turn:        history, proposal, reason, and the model's score of the proposal
    until the user accepts, or four rounds are over

The sequential model is SASRec with AFL's settings, of the same split, as for all systems. Faithful: prior pick in the
first round alone (the published code), a numeric score (the paper; the code shows a shortlist of candidates, which our
user never sees), append-only memory of the dialogue on both sides, and for the test of the user a first dialogue that
is played before and remembered. Ours: the wording; the user answers by action and score, and yes is a star or a click;
a starred proposal goes on as a rejected one does. The defects of the published code are not copied: answers that cannot
be read end as counted failures, titles are compared whole, and the user reads its memory.

Published Hit@1 with 20 candidates (Table 4, SASRec as the prior; LastFM / Steam / MovieLens): SASRec .2869 / .3800 /
.4105, recommender alone .3197 / .3900 / .4105, AFL .3770 / .4100 / .4316, by GPT-4o-mini. F1 of the user on MovieLens
at 1:1, 1:3, 1:9 (Table 5): .6185 / .5924 / .4371. A public replication of 13 runs on LastFM finds .2951, .3020 and
.2945. A small local model that cannot read a score falls behind all of them.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from agents.models.prompts import Pieces, title
from agents.players.text_agent import TextAgent
from agents.sequential import SequentialModel, load_sasrec
from baselines.system import Resources, System
from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Item,
    Observation,
    Split,
    UserSequence,
    UserTest,
    builder,
    history_of,
    rollout,
)

SUGGESTS = "\nAnother model suggests"
SCORES = "\nAnother model scores it"
HINT = "; scores may be negative, and are hints."
BEFORE = "\nBefore, you were recommended"
YOU = "; your answer:"


class Afl(System):
    """Both sides, and what the user remembers of dialogues before a test."""

    plays = ROLES
    recommender: TextAgent
    user: TextAgent

    def __init__(self, recommender: TextAgent, user: TextAgent, memory: dict[tuple[int, ...], Pieces]) -> None:
        super().__init__(recommender, user)
        self.memory = memory
        """By visible history."""

    @classmethod
    def fit(cls, split: Split, *, seed: int = 0, resources: Resources = Resources()) -> Self:
        """Learn nothing but the sequential model, once a split."""
        prior, model = Prior(load_sasrec(split), split.dataset.items), resources.language_model(split)
        memory: dict[tuple[int, ...], Pieces] = {}

        def told(observation: Observation) -> Pieces:
            return (*prior.score(observation), *memory.get(tuple(history_of(observation)), ()))

        recommender = TextAgent(model, RECOMMENDER, split.dataset.items, notes=prior.pick)
        user = TextAgent(model, USER, split.dataset.items, notes=told)
        return cls(recommender, user, memory)

    def prepare_user_test(self, split: Split, test: UserTest, *, seed: int) -> None:
        """Let each user of a test have one dialogue about the last item of its visible history, and remember it."""
        asked = [user for user in test.users if len(user.history) > 1]
        tasks = builder(split).batch(
            (
                f"first-{n}",
                UserSequence(user.user, user.history),
                len(user.history) - 1,
                np.random.default_rng([seed, n]),
            )
            for n, user in enumerate(asked)
        )
        played = rollout(tasks, test.items, self.recommender, self.user, provenance=test.provenance, seed=seed)
        for user, transcript in zip(asked, played, strict=True):
            pieces: list[str] = []
            for turn in transcript.turns:
                action = turn.answer.action if turn.answer else None
                if turn.proposal is not None and action is not None:
                    pieces += [BEFORE, title(test.items, turn.proposal), YOU, f" {ACTIONS[action]}", "."]
            self.memory[user.history] = tuple(pieces)


class Prior:
    """What the sequential model tells."""

    def __init__(self, model: SequentialModel, items: Sequence[Item]) -> None:
        self._model, self._items = model, items

    def pick(self, observation: Observation) -> Pieces:
        """The best of the candidates, in the first turn."""
        if observation["turn"]:
            return ()
        candidates = observation["candidates"]
        scores = self._model.scorer(np.array(history_of(observation), dtype=np.int64), candidates)
        return (SUGGESTS, title(self._items, int(candidates[int(np.argmax(scores))])), ".")

    def score(self, observation: Observation) -> Pieces:
        """Of the proposal, if there is one."""
        proposal = observation["proposals"][int(observation["turn"])]
        if proposal < 0:
            return ()
        history = np.array(history_of(observation), dtype=np.int64)
        (score,) = self._model.scorer(history, np.array([proposal]))
        return (SCORES, f" {score:.1f}", HINT)
