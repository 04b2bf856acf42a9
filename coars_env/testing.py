"""Checks for one's own agents and rewards, and a game small enough to check by hand: for tests of extensions."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import cast

import numpy as np

from coars_env.datasets.dataset import Dataset, FloatArray, Item
from coars_env.env import Action, Dialogue, Observation, action_spaces, as_member
from coars_env.partners import Agent
from coars_env.rewards import BatchReward, Reward, TurnArrays
from coars_env.rollout import play
from coars_env.tasks import EpisodeSet, Task, task_from_row
from coars_env.transcript import ACTIONS, RECOMMENDER, ROLES, USER, Role, Turn

NUM_CANDIDATES = 3
"""Candidates of each toy task."""


def toy_dataset() -> Dataset:
    """Four users, six items.

        user  items, oldest first   the last is held out by leave_last
        0     0 4 5
        1     1 4 0
        2     2 5 1 3
        3     4 1 2

    Training interactions per item without the last ones: 1 3 1 0 3 1.
    """
    sequences = [(0, 4, 5), (1, 4, 0), (2, 5, 1, 3), (4, 1, 2)]
    rows = [(user, item, time) for user, items in enumerate(sequences) for time, item in enumerate(items)]
    users, items, times = np.array(rows, dtype=np.int64).T
    return Dataset(
        name="toy",
        items=(
            Item("Amélie (2001)", ("Comedy", "Romance"), 2001),
            Item("Heat (1995)", ("Crime", "Thriller"), 1995),
            Item("Alien (1979)", ("Horror", "Sci-Fi"), 1979),
            Item("七人の侍 (1954)", ("Action", "Drama"), 1954),
            Item("Fargo (1996)", ("Comedy", "Crime"), 1996),
            Item("Brazil (1985)", ("Comedy", "Sci-Fi"), 1985),
        ),
        item_ids=("a", "b", "c", "d", "e", "f"),
        user_ids=("ann", "bob", "cem", "dee"),
        users=users,
        item_indices=items,
        ratings=np.where(items == 5, 2.0, 4.0),
        timestamps=times,
        source="custom",
        origin="toy",
    )


def toy_episodes() -> EpisodeSet:
    """The last item of each toy user among three candidates, with made-up peer similarities (none in the third)."""
    tasks = (
        Task("toy-0", 0, history=(0, 4), candidates=(5, 1, 3), target=5, peer_similarity=(0.5, -1.0, 0.0)),
        Task("toy-1", 1, history=(1, 4), candidates=(2, 0, 5), target=0, peer_similarity=(0.0, 1.0, -0.5)),
        Task("toy-2", 2, history=(2, 5, 1), candidates=(0, 4, 3), target=3),
        Task("toy-3", 3, history=(4, 1), candidates=(0, 2, 3), target=2, peer_similarity=(0.25, 0.5, -0.25)),
    )
    dataset = toy_dataset()
    return EpisodeSet("toy/by-hand", tasks, dataset.items, dataset.provenance)


class ScriptedAgent:
    """Plays given actions and notes what it saw.

    Its n-th half-turn of any dialogue is `actions[n]`, the last action being repeated for ever. An exception among the
    actions is raised. Example: `ScriptedAgent([{"item": 0, "message": ""}, {"item": 2, "message": "Or this?"}])`.
    """

    def __init__(self, actions: Sequence[Action | Exception]) -> None:
        self._actions = actions
        self.seeds: list[Sequence[int]] = []
        """Seeds of the dialogues of the latest batch."""
        self.observed: list[list[Observation]] = []
        """observed[n]: what the agent saw in dialogue n of the latest batch, one entry per half-turn of its own."""

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self.seeds = list(seeds)
        self.observed = [[] for _ in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._next(n, observation) for n, observation in observations.items()}

    def _next(self, n: int, observation: Observation) -> Action:
        action = self._actions[min(len(self.observed[n]), len(self._actions) - 1)]
        self.observed[n].append(observation)
        if isinstance(action, Exception):
            raise action
        return action


_PARTNERS: dict[Role, list[Action | Exception]] = {  # of an agent under test: odd, but within the spaces
    RECOMMENDER: [
        {"item": NUM_CANDIDATES, "message": "Reason: ?", "error": "no item"},
        {"item": 0, "message": ""},
        {"item": 1, "message": "Ein schöner Film; 素晴らしい 🎬"},
        {"item": 1, "message": "The same again. " * 40},
    ],
    USER: [
        {"action": len(ACTIONS), "strength": 0.0, "message": "", "error": "no action"},
        {"action": 0, "strength": 0.1, "message": "Zu lang; 長すぎる 😴"},
        {"action": 1, "strength": 0.3, "message": "No. " * 100},
        {"action": 2, "strength": 0.6, "message": ""},
    ],
}


def check_agent(agent: Agent, role: Role) -> None:
    """Play the toy episodes and ask for what `Agent` promises.

    It answers every dialogue it is asked about and no other, with members of its action space; it leaves its
    observations as they were; it stands odd messages of its partner; equal seeds give equal dialogues; and a dialogue
    goes alike alone and in a batch.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
    """
    batch = _played(agent, role, range(4))
    again = _played(agent, role, range(4))
    assert batch == again, f"Equal seeds must give equal dialogues. {_first_difference(batch, again)}"
    alone = [transcript for n in range(4) for transcript in _played(agent, role, [n])]
    assert batch == alone, f"A dialogue must go alike alone and in a batch. {_first_difference(batch, alone)}"


def _played(agent: Agent, role: Role, numbers: Sequence[int]) -> list[str]:
    """Transcripts of some of the toy episodes, as JSON."""
    episodes = toy_episodes()
    dialogues = [Dialogue(episodes.tasks[n], episodes.items) for n in numbers]
    watched = _Watched(agent, role)
    other = ScriptedAgent(_PARTNERS[USER if role == RECOMMENDER else RECOMMENDER])
    sides: tuple[Agent, Agent] = (watched, other) if role == RECOMMENDER else (other, watched)
    play(dialogues, *sides, seed=7, first=numbers[0])
    assert watched.violation is None, watched.violation
    for dialogue in dialogues:
        assert dialogue.ending != "failed", f"An agent must not break. Expected an action, found {dialogue.cause}"
    return [dialogue.transcript(episodes.provenance, seed=7).to_json() for dialogue in dialogues]


class _Watched:
    """An agent whose answers are looked at before they are played."""

    def __init__(self, agent: Agent, role: Role) -> None:
        self._agent = agent
        self._space = action_spaces(NUM_CANDIDATES)[role]
        self.violation: str | None = None

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._agent.start(seeds)

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        before = copy.deepcopy(dict(observations))
        actions = self._agent.act(observations)
        self.violation = self.violation or self._find(before, observations, actions)
        return actions

    def _find(
        self, before: Mapping[int, Observation], after: Mapping[int, Observation], actions: Mapping[int, Action]
    ) -> str | None:
        if (found := sorted(actions)) != (expected := sorted(before)):
            return f"An agent answers where it is asked. Expected dialogues {expected}, found {found}"
        for action in actions.values():
            if as_member(action, self._space) is None:
                return f"An action must lie in its space. Expected one of {self._space}, found {action}"
        if not all(np.array_equal(before[n][key], after[n][key]) for n in before for key in before[n]):
            return "An agent must leave its observations alone. Expected them unchanged, found others"
        return None


def _first_difference(expected: list[str], found: list[str]) -> str:
    pairs = zip(expected, found, strict=True)
    return next(f"Expected {a}, found {b}" for a, b in pairs if a != b)


def check_reward(reward: Reward) -> None:
    """Score every kind of turn of the toy episodes and ask for what `Reward` promises.

    Rewards are finite, the excluded roles exist, and a turn earns the same again after a trip through JSON, so that
    stored dialogues can be scored. If there is a method `batch` (see `BatchReward`), it pays to the bit the same.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
    """
    strengths = (*((action, s) for action, s in enumerate((0.1, 0.3, 0.6, 0.9))), (2, 0.5), (None, None))
    rows: list[tuple[float, ...]] = []
    for task, number, (action, strength) in product(toy_episodes(), range(1, 5), strengths):
        for proposal in (*task.candidates, None):
            unread = "no item" if proposal is None else None
            turn = Turn(proposal, "Why?", action, strength, "So.", unread, "no action" if action is None else None)
            terms = reward.turn(task, turn, number, 4)
            for name in ("recommender", "user"):
                paid = getattr(terms, name)
                assert math.isfinite(paid), f"A reward is a finite number. Expected one for {turn}, found {paid}"
            found = set(terms.excluded)
            assert found <= set(ROLES), f"Only the two sides can be excluded. Expected some of {ROLES}, found {found}"
            stored_task, stored_turn = json.loads(json.dumps([asdict(task), asdict(turn)]))
            again = reward.turn(task_from_row(stored_task), Turn(**stored_turn), number, 4)
            assert again == terms, f"A reward depends on the turn alone. Expected {terms} again, found {again}"
            answer = (-1, math.nan) if action is None or strength is None else (action, strength)
            q = 0.0 if proposal is None else task.q(proposal)
            hit = proposal == task.target
            rows.append((hit, proposal is not None, *answer, q, number, terms.recommender, terms.user))
    if hasattr(reward, "batch"):
        _check_batch(cast(BatchReward, reward), np.array(rows).T)


def _check_batch(reward: BatchReward, columns: FloatArray) -> None:
    """The columns are those of `TurnArrays` and then what the two sides were paid for each turn."""
    hit, named, action, strength, q, number, *expected = columns
    turns = TurnArrays(hit > 0, named > 0, action.astype(np.int64), strength, q, number.astype(np.int64))
    for role, alone, together in zip(ROLES, expected, reward.batch(turns, 4), strict=True):
        assert np.array_equal(alone, together), (
            f"Turns must earn the same one by one and at once. Expected {alone} for {role}, found {together}"
        )
