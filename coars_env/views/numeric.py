"""Encoder: the game in numbers. Items become features, half-turns become acts; for one dialogue or many at once.

Every function here works on arrays whose first axis counts dialogues and treats each row on its own, so a single
environment and a vector of them that call the same functions see the same bits.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from coars_env.datasets.dataset import Facet, FloatArray, IntArray, Item
from coars_env.errors import ConfigError, ShapeError, whole_number
from coars_env.observation import Observation, asked_kind, instruction_of, kinds_of, num_users_of, reveals_by_turn
from coars_env.roles import Role, side_of
from coars_env.tasks import Split, SvdPeers, facet_vocabulary
from coars_env.transcript import ACTIONS
from coars_env.views.acts import Acts

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

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


# --- observations -----------------------------------------------------------------------------------------------------


class Encoder:
    """Observations of all agents as vectors of one length, every entry in [-1, 1].

    A vector is a static part, known when the task is, a dynamic part and, in games with an instruction, what was said
    of facets (F features, K candidates, T turns, M users, Q kinds of V facets in the order of `facet_vocabulary`):

    | part | entries | meaning |
    |---|---|---|
    | static | F | mean of the features of the history; for the recommender the mean of that over the users |
    | | K (F + 1) | features of each candidate, and its cosine with that mean; zeros for the user |
    | dynamic | 3 | own side and side that speaks (0 recommender, 1 user); finished turns / T |
    | | K | 1 for candidates proposed before; zeros for the user |
    | | F + 1 | the proposal to be answered now, likewise described; zeros in the recommender's half-turn |
    | | T (F + 1 + 5 M) | each turn: the proposal, described; one-hot of each user's action and its strength |
    | group | M | one-hot of the own place among the users; zeros for the recommender; no entries where one user plays |
    | facets | Q | 1 for kinds asked for so far |
    | | Q | 1 for the kind that is asked for now, in the user's half-turn |
    | | K Q | share of the facets revealed of each kind that each candidate has; zeros for the user |
    | | Q | share of its own facets of each kind that the proposal on the table has; zeros for the recommender |
    | | V | 1 for the facets that the user wants; zeros for the recommender |
    | | V | 1 for the facets revealed so far by any user, true or not |

    What was not said or could not be read is zero. What the recommender must not propose again stands in the mask.
    """

    def __init__(
        self,
        features: Floats,
        *,
        num_candidates: int,
        max_turns: int,
        items: Sequence[Item] = (),
        kinds: Sequence[str] = (),
        num_users: int = 1,
    ) -> None:
        """Take the items' features.

        Args:
            features: [I, F], in [-1, 1], as from `item_features`.
            num_candidates: K.
            max_turns: T.
            items: the catalogue, I items; needed where there are kinds.
            kinds: kinds of facets that the two sides talk about, `episodes.kinds`.
            num_users: M.

        Raises:
            ShapeError: not a matrix, or another number of items.
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
        self.num_users = num_users
        self.num_items, width = features.shape
        self._features = np.concatenate([features, np.zeros((1, width), np.float32)])  # [I + 1, F]; row -1: no item
        self._lengths = np.sqrt((self._features**2).sum(-1))  # [I + 1]
        self.described = width + 1
        """F + 1: entries that describe one proposal or candidate."""
        self.acts = Acts(num_candidates, tuple(kinds), facet_vocabulary(items, kinds) if kinds else ())
        """What both sides can do."""
        self.static_size = width + num_candidates * self.described
        self.turn_size = self.described + num_users * (len(ACTIONS) + 1)
        """Entries of one turn."""
        self.dynamic_size = 3 + num_candidates + self.described + max_turns * self.turn_size
        self.group_size = num_users if num_users > 1 else 0
        q, v = len(kinds), len(self.acts.facets)
        self.facets_size = 2 * q + num_candidates * q + q + 2 * v
        self.size = self.static_size + self.dynamic_size + self.group_size + self.facets_size
        if len(items) != self.num_items and (items or kinds):
            raise ShapeError(
                f"Every item needs features. Expected {len(items)} rows, found {self.num_items}. Take them from the "
                "split the episodes were made of."
            )
        self._number = {facet: number for number, facet in enumerate(self.acts.facets)}
        self._kind = np.array([self.acts.kinds.index(facet.kind) for facet in self.acts.facets], np.int64)  # [V]
        self._of_kind = (self._kind[:, None] == np.arange(q)).astype(np.float32)  # [V, Q]
        self._has = np.zeros((self.num_items + 1, v), np.bool_)  # [I + 1, V]; row -1: no item
        for row, item in enumerate(items if kinds else ()):
            self._has[row, [self._number[Facet(kind, value)] for kind in kinds for value in item.values(kind)]] = True

    def observation_space(self) -> spaces.Box:
        """Box float32 [L] in [-1, 1], the same for all agents."""
        return spaces.Box(-1.0, 1.0, (self.size,), np.float32)

    def action_space(self) -> spaces.Discrete:
        """Discrete(n), the same for all agents, see `Acts`."""
        return spaces.Discrete(self.acts.n)

    def summary(self, history: IntArray) -> Floats:
        """Mean of the features of the items taken, and of that over users. history [N, H] or [N, M, H], -1 is padding;
        [N, F].
        """
        taken = np.maximum((history >= 0).sum(-1, keepdims=True), 1).astype(np.float32)
        means = np.asarray(self._features[history].sum(-2) / taken)
        return means if means.ndim == 2 else means.mean(1, dtype=np.float32)

    def describe(self, items: IntArray, summary: Floats) -> Floats:
        """Features of items and their cosine with a summary [N, F]. items [N, M], -1 is none; [N, M, F + 1]."""
        features = self._features[items]
        length = self._lengths[items] * np.sqrt((summary**2).sum(-1))[:, None]
        cosine = (features * summary[:, None]).sum(-1) / np.maximum(length, np.float32(1e-12))
        return np.concatenate([features, np.clip(cosine, -1, 1)[..., None]], axis=-1)

    def static(self, history: IntArray, candidates: IntArray) -> Floats:
        """The static part. history as for `summary`, candidates [N, K], -1 where not shown; [N, static_size]."""
        summary = self.summary(history)
        described = self.describe(candidates, summary)
        return np.concatenate([summary, described.reshape(len(described), -1)], axis=1)

    def turns(self, proposals: Floats, actions: IntArray, strengths: npt.NDArray[np.floating]) -> Floats:
        """Proposals and answers of T turns each. [N, T, turn_size].

        Args:
            proposals: [N, T, F + 1], what was proposed, from `describe`; zeros where nothing was.
            actions: [N, T], or [N, M, T] of a group, -1 where there is none.
            strengths: likewise, negative where there is none.
        """
        parts = [proposals]
        for place in range(self.num_users):
            own, sure = (actions, strengths) if self.num_users == 1 else (actions[:, place], strengths[:, place])
            parts += [own[:, :, None] == np.arange(len(ACTIONS)), np.maximum(sure, 0)[:, :, None]]
        return np.concatenate(parts, axis=-1, dtype=np.float32)

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
            turns: [N, T, turn_size], from `turns`.
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

    def numbers_of(self, facets: Sequence[Facet | None]) -> list[int]:
        """Return the place of each facet in the vocabulary; -1 for none and for one that no item has."""
        return [-1 if facet is None else self._number.get(facet, -1) for facet in facets]

    def hear(self, facets: IntArray, candidates: IntArray, revealed: Bools, matches: Floats) -> None:
        """Note in place what was revealed in a turn; what was revealed before counts once.

        Args:
            facets: [N], numbers of facets, -1 for none.
            candidates: [N, K], -1 where not shown.
            revealed: [N, V], facets revealed so far.
            matches: [N, K, Q], how many of these each candidate has.
        """
        games = np.flatnonzero(facets >= 0)
        games = games[~revealed[games, facets[games]]]
        new = facets[games]
        revealed[games, new] = True
        matches[games, :, self._kind[new]] += self._has[candidates[games], new[:, None]]

    def facets(
        self,
        side: int,
        asked: Bools,
        asked_now: IntArray,
        proposal: IntArray,
        wanted: Bools,
        revealed: Bools,
        matches: Floats,
    ) -> Floats:
        """What was said of facets. [N, facets_size].

        Args:
            side: whose observation it is: 0 recommender, 1 user.
            asked: [N, Q], kinds asked for so far.
            asked_now: [N], number of the kind that is asked for now, or -1.
            proposal: [N], the item on the table, or -1.
            wanted: [N, V], facets that the user wants; read for the user only.
            revealed: [N, V], see `hear`.
            matches: [N, K, Q], see `hear`; read for the recommender only.
        """
        n, q = asked.shape
        none = np.zeros((n, q), np.float32)
        fits, shares, wants = none, np.zeros_like(matches), np.zeros_like(wanted)
        if side == 0:
            shares = matches / np.maximum(revealed @ self._of_kind, np.float32(1))[:, None]
        else:
            own = np.maximum(wanted @ self._of_kind, np.float32(1))
            fits, wants = ((self._has[proposal] & wanted) @ self._of_kind) / own, wanted
        now = asked_now[:, None] == np.arange(q)
        parts = (asked, now, shares.reshape(n, -1), fits, wants, revealed)
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def encode(self, observations: Sequence[Observation], role: Role) -> Floats:
        """Observations of one side, as `Dialogue.observe` gives them, in numbers. [N, size]. Any user's role will do
        for those of all users.

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
        if (kinds := kinds_of(observations[0])) != self.acts.kinds:
            raise ShapeError(
                f"An encoder serves one kind of game. Expected kinds of facets {self.acts.kinds}, found {kinds}. Make "
                "an Encoder for this one."
            )
        if (users := num_users_of(observations[0])) != self.num_users:
            raise ShapeError(
                f"An encoder serves one kind of game. Expected groups of {self.num_users} users, found {users}. Make "
                "an Encoder for this one."
            )
        static = self.static(column("history"), candidates)
        proposed = ((candidates[:, :, None] == items[:, None]) & (items[:, None] >= 0)).any(-1)
        proposals = self.describe(items, static[:, : self.described - 1])
        turns = self.turns(proposals, column("actions"), column("strengths"))
        side, speaker, turn = side_of(role), column("speaker"), column("turn")
        dynamic = self.dynamic(side, speaker, turn, proposed, turns)
        parts = [static, dynamic]
        if users > 1:
            parts.append((column("agent")[:, None] == np.arange(1, users + 1)).astype(np.float32))
        if kinds:
            on_table = items[np.arange(len(turn)), np.minimum(turn, self.max_turns - 1)]
            parts.append(self._facets(observations, side, candidates, np.where(speaker == 1, on_table, -1)))
        return np.concatenate(parts, axis=1)

    def _facets(
        self, observations: Sequence[Observation], side: int, candidates: IntArray, proposal: IntArray
    ) -> Floats:
        kinds, n = self.acts.kinds, len(observations)
        asked = np.array([[kind in one["questions"] for kind in kinds] for one in observations])
        now = np.array([-1 if (kind := asked_kind(one)) is None else kinds.index(kind) for one in observations])
        wanted, revealed = (np.zeros((n, len(self.acts.facets)), np.bool_) for _ in range(2))
        matches = np.zeros((n, self.num_candidates, len(kinds)), np.float32)
        for row, one in enumerate(observations):
            wanted[row, [number for number in self.numbers_of(instruction_of(one)) if number >= 0]] = True
        told = np.full((n, self.max_turns * self.num_users), -1)
        for row, one in enumerate(observations):
            numbers = self.numbers_of([facet for said in reveals_by_turn(one) for facet in said])
            told[row, : len(numbers)] = numbers
        for facets in told.T:
            self.hear(facets, candidates, revealed, matches)
        return self.facets(side, asked, now, proposal, wanted, revealed, matches)
