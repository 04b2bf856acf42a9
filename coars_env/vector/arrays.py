"""Arrays: the tasks of a set, the acts of the user, and what was asked and revealed, for many games at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coars_env.datasets.dataset import IntArray
from coars_env.observation import read_reveal
from coars_env.tasks import HISTORY_LENGTH, EpisodeSet, Task
from coars_env.transcript import ACTIONS, RECOMMENDER, USER, Turn, clean_message
from coars_env.turns import open_turn, read_answer, repeat_error
from coars_env.views.acts import Acts
from coars_env.views.numeric import Bools, Encoder, Floats


class TaskArrays:
    """The tasks of a set as arrays; M tasks."""

    def __init__(self, tasks: Sequence[Task], encoder: Encoder) -> None:
        history = np.full((len(tasks), HISTORY_LENGTH), -1, np.int64)
        for row, task in enumerate(tasks):
            history[row, HISTORY_LENGTH - len(task.history) :] = task.history
        self.candidates = candidates = np.array([task.candidates for task in tasks], np.int64)  # [M, K]
        self.wanted = np.zeros((len(tasks), len(encoder.acts.facets)), np.bool_)  # [M, V]
        for row, task in enumerate(tasks):
            wanted = encoder.numbers_of(task.instruction.facets if task.instruction else ())
            self.wanted[row, [number for number in wanted if number >= 0]] = True
        none = (0.0,) * encoder.num_candidates
        self.peer_similarity = np.array([task.peer_similarity or none for task in tasks])  # [M, K]
        at_target = candidates == np.array([task.target for task in tasks])[:, None]
        self.target = np.where(at_target.any(1), at_target.argmax(1), -2)  # [M] place in the list; -2: not listed
        shown = encoder.static(history, candidates)
        self.static = [shown, encoder.static(history, np.full_like(candidates, -1))]  # of each side, [M, static_size]
        self.described = shown[:, encoder.described - 1 :].reshape(*candidates.shape, -1)  # [M, K, F + 1]


class UserActs:
    """What each act of the user means, as arrays [n]; `encoded` is its part of a turn, see `Encoder.turns`."""

    def __init__(self, encoder: Encoder) -> None:
        acts = encoder.acts
        answers = [acts.to_action(act, USER) for act in range(acts.n)]
        told = [acts.to_action(act, USER, question=True) for act in range(acts.n)]
        legal = [answer["action"] < len(ACTIONS) for answer in answers]
        self.action = np.where(legal, [answer["action"] for answer in answers], -1)  # -1 if it answers no proposal
        self.strength = np.where(legal, [answer["strength"] for answer in answers], np.nan)
        self.unread = np.array(["error" in answer for answer in told])  # in answer to a question
        self.reveal = np.array(encoder.numbers_of([read_reveal(answer) for answer in answers]))  # -1 if it reveals none
        strengths = np.where(legal, self.strength, -1.0)[:, None].astype(np.float32)
        nothing = np.zeros((acts.n, 1, encoder.described), np.float32)
        self.encoded = encoder.turns(nothing, self.action[:, None], strengths)[:, 0, encoder.described :]


class Talk:
    """What was asked and revealed in N games, see `Encoder.facets`."""

    def __init__(self, encoder: Encoder, num_envs: int) -> None:
        acts, self._encoder = encoder.acts, encoder
        self.now = np.full(num_envs, -1, np.int64)  # the kind that is asked for, in the user's half-turn
        self._asked = np.zeros((num_envs, len(acts.kinds)), np.bool_)
        self._revealed = np.zeros((num_envs, len(acts.facets)), np.bool_)
        self._matches = np.zeros((num_envs, acts.num_candidates, len(acts.kinds)), np.float32)

    def begin(self, games: IntArray) -> None:
        self.now[games], self._asked[games], self._revealed[games], self._matches[games] = -1, False, False, 0.0

    def ask(self, kinds: IntArray) -> None:
        """Ask for these kinds, none where -1 or less. [N]."""
        self.now = np.maximum(kinds, -1)
        games = np.flatnonzero(self.now >= 0)
        self._asked[games, self.now[games]] = True

    def answer(self, facets: IntArray, candidates: IntArray) -> None:
        """Reveal these facets, none where -1. [N] and [N, K]."""
        self.now = np.full_like(self.now, -1)
        self._encoder.hear(facets, candidates, self._revealed, self._matches)

    def shown(self, side: int, games: IntArray, proposal: IntArray, wanted: Bools) -> Floats:
        """What a side sees in these games."""
        asked, now, revealed, matches = self._asked[games], self.now[games], self._revealed[games], self._matches[games]
        return self._encoder.facets(side, asked, now, proposal, wanted, revealed, matches)


def opened_turn(episodes: EpisodeSet, place: int, acts: Acts, act: int, may_ask: bool, *, named: bool) -> Turn:
    """Return the open turn that the recommender's act makes, as `Dialogue` records it.

    Args:
        episodes: the set.
        place: of the task.
        acts: what the sides can do.
        act: the recommender's.
        may_ask: whether it may ask now.
        named: whether its act proposes what may be proposed.
    """
    task, action = episodes.tasks[place], acts.to_action(act, RECOMMENDER, may_ask)
    if action.get("ask"):
        return Turn(None, clean_message(action["message"]), question=action["ask"])
    position, error = action["item"], action.get("error")
    if position < acts.num_candidates and not named:
        position, error = acts.num_candidates, repeat_error(episodes.items[task.candidates[position]])
    return open_turn(task, position, action["message"], error)


def answered_turn(opened: Turn, acts: Acts, act: int) -> Turn:
    """Return the finished turn that the user's act makes of an open one, as `Dialogue` records it."""
    asked = opened.question is not None
    action = acts.to_action(act, USER, asked)
    said = (action["action"], action["strength"], action["message"], action.get("error"))
    return replace(opened, answers=(read_answer(*said, reveal=read_reveal(action), asked=asked),))
