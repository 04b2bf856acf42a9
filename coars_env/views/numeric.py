"""Encoder: the game in numbers. Items become features, half-turns become acts; for one dialogue or many at once.

Every function here works on arrays whose first axis counts dialogues and treats each row on its own, so a single
environment and a vector of them that call the same functions see the same bits.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ConfigError, ShapeError, whole_number
from coars_env.observation import Action, Observation
from coars_env.tasks import Split, SvdPeers, Task
from coars_env.transcript import ACTIONS, RECOMMENDER, ROLES, STRENGTH_EDGES, USER, Role, Turn, clamp_strength
from coars_env.turns import open_turn, read_answer

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.int8]

STEPS = 5
"""Strengths that an act can express for each of the four actions, .05 apart."""
NUM_USER_ACTS = len(ACTIONS) * STEPS
ACT_STRENGTHS: tuple[float, ...] = tuple(
    clamp_strength(a, STRENGTH_EDGES[a] + 0.05 * k) for a in range(len(ACTIONS)) for k in range(STEPS)
)
"""Strength of each of the user's acts: .25 a + .05 k for act 5 a + k."""
RATIONALE = "This may be for you."
REPLIES = ("Not for me.", "Not now.", "I will keep it in mind.", "Yes, that one.")
"""What a side that thinks in numbers says for itself; the user, one sentence for each action."""


# --- items ------------------------------------------------------------------------------------------------------------


def item_features(split: Split, *, size: int = 8, directions: FloatArray | None = None) -> Floats:
    """What the training part of a split tells about each item. [I, size + 1], in [-1, 1].

    The first columns are the item's row of the leading right singular vectors of the training matrix (see `SvdPeers`),
    scaled to length 1; the last is log(1 + training interactions) over its maximum. An item nobody took is all zeros.
    Rounded to 4 decimals, and each direction turned so that its largest entry is positive: the same on every machine.
    The choice is ours.

    Args:
        split: only `train` is read.
        size: how many directions; where there are fewer, the rest is 0.
        directions: [I, rank], `SvdPeers(split).directions` if they are known already.

    Raises:
        ConfigError: a negative size.
        TaskError: nobody is trained on.
    """
    size = whole_number("Directions are counted.", "size", size, 0)
    if directions is None:
        directions = SvdPeers(split).directions
    directions = directions[:, :size]
    largest = directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])]
    directions = directions * np.where(largest < 0, -1.0, 1.0)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    taken = [item for sequence in split.train for item in sequence.items]
    counts = np.log1p(np.bincount(taken, minlength=split.dataset.num_items))
    features = np.zeros((split.dataset.num_items, size + 1))
    features[:, : directions.shape[1]] = np.where(length > 1e-9, directions / np.maximum(length, 1e-9), 0.0)
    features[:, -1] = counts / max(counts.max(), 1.0)
    return np.round(features, 4).astype(np.float32) + np.float32(0)  # no negative zeros


# --- acts -------------------------------------------------------------------------------------------------------------


def num_acts(num_candidates: int) -> int:
    """n of both sides' `Discrete(n)`: the recommender's K candidates or the user's 20 acts, and "wait"."""
    return max(num_candidates, NUM_USER_ACTS) + 1


def to_action(act: int, role: Role, num_candidates: int) -> Action:
    """An act in words, as `CoarsEnv` takes them.

    Recommender: act i proposes candidate i. User: act 5 a + k is action a with strength .25 a + .05 k. Any other
    number, "wait" among them, becomes a message that cannot be read.
    """
    act = int(act)
    if role == RECOMMENDER:
        if 0 <= act < num_candidates:
            return {"item": act, "message": RATIONALE}
        return {"item": num_candidates, "message": "", "error": f"act {act} names no candidate"}
    if 0 <= act < NUM_USER_ACTS:
        action = act // STEPS
        return {"action": action, "strength": ACT_STRENGTHS[act], "message": REPLIES[action]}
    return {"action": len(ACTIONS), "strength": 0.0, "message": "", "error": f"act {act} is no answer"}


def to_act(action: Action, role: Role, num_candidates: int) -> int:
    """The act nearest to an action in words; "wait" where nothing could be read. Inverse of `to_action` on its acts."""
    wait = num_acts(num_candidates) - 1
    if role == RECOMMENDER:
        return int(action["item"]) if action["item"] < num_candidates else wait
    kind = int(action["action"])
    if kind >= len(ACTIONS):
        return wait
    above = clamp_strength(kind, float(action["strength"])) - STRENGTH_EDGES[kind]
    return kind * STEPS + min(round(above * 100) // STEPS, STEPS - 1)


def turn_of_acts(task: Task, proposed: int, answered: int) -> Turn:
    """Return the finished turn that the recommender's act and the user's make, as `Dialogue` records it."""
    k = len(task.candidates)
    proposal, answer = to_action(proposed, RECOMMENDER, k), to_action(answered, USER, k)
    turn = open_turn(task, proposal["item"], proposal["message"], proposal.get("error"))
    return replace(turn, answers=(read_answer(**answer),))


def act_masks(num_candidates: int) -> Mask:
    """Which acts are legal: [2 sides, 2, n], 0 or 1; `[side, 1]` in one's own half-turn, `[side, 0]` in the other's.

    In its own half-turn a side may do all its acts but "wait"; in the other's it may only wait.
    """
    masks = np.zeros((len(ROLES), 2, num_acts(num_candidates)), np.int8)
    masks[:, 0, -1] = 1
    masks[0, 1, :num_candidates] = 1
    masks[1, 1, :NUM_USER_ACTS] = 1
    return masks


# --- observations -----------------------------------------------------------------------------------------------------


class Encoder:
    """Observations of both sides as vectors of one length, every entry in [-1, 1].

    A vector is a static part, known when the task is, and a dynamic part (F features, K candidates, T turns):

    | part | entries | meaning |
    |---|---|---|
    | static | F | mean of the features of the history |
    | | K (F + 1) | features of each candidate, and its cosine with that mean; zeros for the user |
    | dynamic | 3 | own side and side that speaks (0 recommender, 1 user); finished turns / T |
    | | K | 1 for candidates proposed before; zeros for the user |
    | | F + 1 | the proposal to be answered now, likewise described; zeros in the recommender's half-turn |
    | | T (F + 1 + 5) | each turn: the proposal, described; one-hot of the action; strength |

    What was not said or could not be read is zero.
    """

    def __init__(self, features: Floats, *, num_candidates: int, max_turns: int) -> None:
        """Take the items' features.

        Args:
            features: [I, F], in [-1, 1], as from `item_features`.
            num_candidates: K.
            max_turns: T.

        Raises:
            ShapeError: not a matrix.
            ConfigError: entries outside [-1, 1].
        """
        try:
            features = np.asarray(features, np.float32)
        except (TypeError, ValueError) as reason:
            raise ShapeError(f"Items need features. Expected an array of numbers, found {features!r:.200}.") from reason
        if features.ndim != 2 or not features.size:
            raise ShapeError(
                f"Items need features. Expected an array [items, features], found shape {features.shape}. Pass one row "
                "for each item of the catalogue."
            )
        if not (np.abs(features) <= 1).all():
            raise ConfigError(
                f"Observations are bounded, so features must be. Expected entries in [-1, 1], found "
                f"{features.min()}..{features.max()}. Scale them."
            )
        self.num_candidates = num_candidates
        self.max_turns = max_turns
        self.num_items, width = features.shape
        self._features = np.concatenate([features, np.zeros((1, width), np.float32)])  # [I + 1, F]; row -1: no item
        self._lengths = np.sqrt((self._features**2).sum(-1))  # [I + 1]
        self.described = width + 1
        """F + 1: entries that describe one proposal or candidate."""
        self.wait = num_acts(num_candidates) - 1
        """The act that does nothing: what the silent side says."""
        self.static_size = width + num_candidates * self.described
        self.dynamic_size = 3 + num_candidates + self.described + max_turns * (self.described + len(ACTIONS) + 1)
        self.size = self.static_size + self.dynamic_size
        self.masks = act_masks(num_candidates)
        """See `act_masks`."""

    def observation_space(self) -> spaces.Box:
        """Box float32 [L] in [-1, 1], the same for both sides."""
        return spaces.Box(-1.0, 1.0, (self.size,), np.float32)

    def action_space(self) -> spaces.Discrete:
        """Discrete(n), the same for both sides, see `num_acts`."""
        return spaces.Discrete(num_acts(self.num_candidates))

    def summary(self, history: IntArray) -> Floats:
        """Mean of the features of the items taken. history [N, H], -1 is padding; [N, F]."""
        taken = np.maximum((history >= 0).sum(1, keepdims=True), 1).astype(np.float32)
        return np.asarray(self._features[history].sum(1) / taken)

    def describe(self, items: IntArray, summary: Floats) -> Floats:
        """Features of items and their cosine with a summary [N, F]. items [N, M], -1 is none; [N, M, F + 1]."""
        features = self._features[items]
        length = self._lengths[items] * np.sqrt((summary**2).sum(-1))[:, None]
        cosine = (features * summary[:, None]).sum(-1) / np.maximum(length, np.float32(1e-12))
        return np.concatenate([features, np.clip(cosine, -1, 1)[..., None]], axis=-1)

    def static(self, history: IntArray, candidates: IntArray) -> Floats:
        """The static part. history [N, H], candidates [N, K], -1 where not shown; [N, static_size]."""
        summary = self.summary(history)
        described = self.describe(candidates, summary)
        return np.concatenate([summary, described.reshape(len(described), -1)], axis=1)

    def turns(self, proposals: Floats, actions: IntArray, strengths: npt.NDArray[np.floating]) -> Floats:
        """Proposals and answers of M turns each. [N, M, F + 6].

        Args:
            proposals: [N, M, F + 1], what was proposed, from `describe`; zeros where nothing was.
            actions: [N, M], -1 where there is none.
            strengths: [N, M], negative where there is none.
        """
        answers = actions[:, :, None] == np.arange(len(ACTIONS))
        return np.concatenate([proposals, answers, np.maximum(strengths, 0)[:, :, None]], axis=-1, dtype=np.float32)

    def dynamic(
        self,
        side: int,
        speaker: IntArray,
        turn: IntArray,
        proposed: npt.NDArray[np.bool_],
        turns: Floats,
        *,
        out: Floats | None = None,
    ) -> Floats:
        """The dynamic part.

        Args:
            side: whose observation it is: 0 recommender, 1 user.
            speaker: [N], whose half-turn it is.
            turn: [N], finished turns.
            proposed: [N, K], candidates proposed so far; all false for the user.
            turns: [N, T, F + 6], from `turns`.
            out: [N, dynamic_size], written to if given.

        Returns:
            [N, dynamic_size].
        """
        n, (k, d) = len(turn), (self.num_candidates, self.described)
        out = np.empty((n, self.dynamic_size), np.float32) if out is None else out
        out[:, 0] = side
        out[:, 1] = speaker
        out[:, 2] = turn / np.float32(self.max_turns)
        out[:, 3 : 3 + k] = proposed
        latest = turns[np.arange(n), np.minimum(turn, self.max_turns - 1), :d]
        out[:, 3 + k : 3 + k + d] = np.where(speaker[:, None] == 1, latest, 0)
        out[:, 3 + k + d :] = turns.reshape(n, -1)
        return out

    def encode(self, observations: Sequence[Observation], role: Role) -> Floats:
        """Observations of one side, as `Dialogue.observe` gives them, in numbers. [N, size].

        Raises:
            ShapeError: they are of another game than the encoder.
        """

        def column(key: str) -> npt.NDArray[Any]:
            return np.array([observation[key] for observation in observations])

        candidates, items = column("candidates"), column("proposals")
        if (found := (candidates.shape[1], items.shape[1])) != (self.num_candidates, self.max_turns):
            raise ShapeError(
                f"An encoder serves one kind of game. Expected {self.num_candidates} candidates and {self.max_turns} "
                f"turns, found {found[0]} and {found[1]}. Make an Encoder for this one."
            )
        static = self.static(column("history"), candidates)
        proposed = ((candidates[:, :, None] == items[:, None]) & (items[:, None] >= 0)).any(-1)
        proposals = self.describe(items, static[:, : self.described - 1])
        turns = self.turns(proposals, column("actions"), column("strengths"))
        dynamic = self.dynamic(ROLES.index(role), column("speaker"), column("turn"), proposed, turns)
        return np.concatenate([static, dynamic], axis=1)
