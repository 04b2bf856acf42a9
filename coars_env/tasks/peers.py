"""VectorPeers: training users of similar taste who took an item; how alike they are, and what they have to say for it.

The vectors come from any function of histories, an `Embed`; `SvdPeers` takes them from the training matrix itself.
"""

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ConfigError, ShapeError, TaskError, expect, whole_number
from coars_env.tasks.splits import Split
from coars_env.tasks.task import NUM_OPINIONS, OPINION_WIDTH

Embed = Callable[[Sequence[Sequence[int]]], FloatArray]
"""(M histories, oldest first, perhaps empty) -> user vectors, [M, d].

Asked once for the whole training sequences and then for visible histories; what reads the last ten items of either, as
a sequential model does, cuts them itself. Vectors that differ by rounding between machines should be rounded here.
"""
Small = npt.NDArray[np.int32]
"""Half as large as `IntArray`: there are as many of them as interactions."""
LEVEL_EDGES = (0.2, 0.4)
"""Least cosine of the second and of the third level of likeness; ours. Of the three nearest owners of uniform
candidates of MovieLens 100K about a third fall into each, by `SvdPeers`."""


class Said(NamedTuple):
    """What peers say of a list of candidates, as a `Task` stores it."""

    similarity: tuple[float, ...]
    """q of each."""
    opinions: tuple[int, ...]
    """See `Task.opinions`."""


class VectorPeers:
    """Peer similarity q of a user and an item, and the opinions of the nearest peers, from vectors of users.

    Peers of u and i are the training users, u excluded, whose training sequence holds i. q(u, i) is the mean cosine
    between u and the `k` most similar of them; 0 if there is none. In [-1, 1]. Vectors are scaled to length 1 and
    centred on the mean of all others. u's own comes from the visible history alone, so nothing held out enters. The
    paper takes SASRec's user vectors and does not publish the formula: this reading is ours (`peer_k`, `peer_pool =
    item_owners`).

    The three nearest say their opinion: how alike they are, by `LEVEL_EDGES`, and which two items they took right
    before this one. All are of the training part. Among equal cosines (to 6 decimals) the first in the split is nearer.
    Which items a peer names is not published either.
    """

    def __init__(
        self, split: Split, embed: Embed, *, k: int = 10, level_edges: tuple[float, float] = LEVEL_EDGES
    ) -> None:
        """Read the training part of the split.

        Args:
            split: only `train` is read.
            embed: gives a vector for each history.
            k: how many peers count in q.
            level_edges: least cosine of the second and of the third level of likeness.

        Raises:
            TaskError: the split has no training users.
            ShapeError: `embed` gives something else than a vector of finite numbers for each history.
            ConfigError: it is no split, nobody is counted, or the edges do not ascend.
        """
        _refuse_nobody(split)
        expect(Callable, embed, "Users become vectors by a function of histories.", "Pass an `Embed`.")
        k = whole_number("Peers are counted.", "k", k, 1)
        if not -1 <= level_edges[0] <= level_edges[1] <= 1:
            raise ConfigError(
                f"Levels of likeness are intervals of the cosine. Expected two edges that ascend within [-1, 1], found "
                f"{level_edges}. Sort them."
            )
        self._embed, self._k = embed, k
        self._edges = np.array(level_edges) * _STEPS
        self._users = np.array([s.user for s in split.train], dtype=np.int64)  # [U]
        self._rows: dict[int, list[int]] = {}
        for row, user in enumerate(self._users.tolist()):
            self._rows.setdefault(user, []).append(row)
        self._vectors = self._vectors_of([s.items for s in split.train])  # [U, d]
        self._squares = (self._vectors**2).sum(1)  # [U]
        self._sum = self._vectors.sum(0)
        taken = _ones([s.items for s in split.train])
        self._items = taken.columns.astype(np.int32)  # [N] of all training sequences, one after the other
        self._starts = np.searchsorted(taken.rows, np.arange(taken.height))  # [U] where each begins
        by_item = np.argsort(taken.columns, kind="stable").astype(np.int32)  # [N] places in `_items`
        ends = np.searchsorted(taken.columns[by_item], np.arange(1, split.dataset.num_items))
        self._places = np.split(by_item, ends)  # I arrays: where in `_items` the item stands
        self._owners = np.split(taken.rows[by_item].astype(np.int32), ends)  # I arrays: the rows of those who took it
        self._numbers = np.arange(-1, max(split.dataset.num_items, len(level_edges) + 1)).astype(object)

    def __call__(self, user: int, history: Sequence[int], candidates: Sequence[int]) -> Said:
        """Of each candidate. q is rounded to 4 decimals: a frozen set has the same digest on every machine."""
        return self.batch([(user, history, candidates)])[0]

    def batch(self, asked: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> list[Said]:
        """The same for many users, histories and lists of candidates at once, which is much faster."""
        if not asked:
            return []
        users = np.array([user for user, _, _ in asked], dtype=np.int64)  # [M]
        means = np.array([self._mean_of_others(user) for user, _, _ in asked])  # [M, d]
        mine = _unit(self._vectors_of([history for _, history, _ in asked]) - means)  # [M, d]
        offset, square = (means * mine).sum(1), (means**2).sum(1)  # [M]
        listed = _ones([candidates for _, _, candidates in asked])
        asker, items = listed.rows, listed.columns  # [Q]
        q = np.zeros(len(items))
        opinions: Small = np.full((len(items), NUM_OPINIONS, OPINION_WIDTH), -1, np.int32)
        by_item = np.argsort(items, kind="stable")
        for places in np.split(by_item, np.flatnonzero(np.diff(items[by_item])) + 1):
            if not len(places) or not len(owners := self._owners[items[places[0]]]):
                continue
            theirs, at_once = self._vectors[owners].T, max(1, _CELLS // len(owners))  # [d, owners]
            for first in range(0, len(places), at_once):
                part = places[first : first + at_once]
                m = asker[part]
                # cosine of (theirs - mean) and mine, without writing down the differences
                squared = self._squares[owners] - 2 * (means[m] @ theirs) + square[m, None]
                cosine = (mine[m] @ theirs - offset[m, None]) / np.sqrt(np.maximum(squared, 1e-12))  # [part, owners]
                cosine[users[m, None] == self._users[owners]] = -np.inf
                q[part] = _mean_of_best(cosine, self._k)
                opinions[part] = self._opinions(cosine, owners, self._places[items[places[0]]])
        similarity = [min(max(round(value, 4), -1.0), 1.0) for value in q.tolist()]
        bounds = np.searchsorted(asker, np.arange(len(asked) + 1)).tolist()
        return [
            Said(tuple(similarity[a:b]), tuple(self._numbers[opinions[a:b].ravel() + 1])) for a, b in pairwise(bounds)
        ]

    def _opinions(self, cosine: FloatArray, owners: Small, places: Small) -> Small:
        """What the nearest of an item's owners say. cosine [m, owners], -inf for the user; places of the item in their
        sequences. [m, NUM_OPINIONS, OPINION_WIDTH].
        """
        cosine = np.rint(cosine * _STEPS)
        said: Small = np.full((len(cosine), NUM_OPINIONS, OPINION_WIDTH), -1, np.int32)
        everyone = np.arange(len(cosine))
        for rank in range(min(NUM_OPINIONS, cosine.shape[1])):
            nearest = cosine.argmax(1)  # the first of equals
            found = cosine[everyone, nearest]
            known = found > -np.inf
            said[known, rank, 0] = np.searchsorted(self._edges, found[known], side="right")
            place, start = places[nearest], self._starts[owners[nearest]]
            for back in range(1, OPINION_WIDTH):
                there = known & (place - back >= start)
                said[there, rank, OPINION_WIDTH - back] = self._items[place[there] - back]
            cosine[everyone, nearest] = -np.inf
        return said

    def _vectors_of(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        """Vectors of length 1, [M, d]."""
        vectors = np.asarray(self._embed(histories), np.float64)
        if vectors.ndim != 2 or len(vectors) != len(histories) or not np.isfinite(vectors).all():
            raise ShapeError(
                f"Each history needs a vector. Expected {len(histories)} rows of finite numbers, found an array of "
                f"shape {vectors.shape}. Correct the function that was passed as `embed`."
            )
        return _unit(vectors)

    def _mean_of_others(self, user: int) -> FloatArray:
        rows = self._rows.get(user, [])
        mean: FloatArray = (self._sum - self._vectors[rows].sum(0)) / max(len(self._users) - len(rows), 1)
        return mean


class SvdPeers(VectorPeers):
    """Peers by a truncated SVD of the training matrix: `SvdPeers(split)`.

    A user's vector is the projection of the 0/1 row of all its items on the leading right singular vectors. It is
    scaled to length 1, else a visible history of ten would be dwarfed by the mean of full histories.
    """

    def __init__(
        self,
        split: Split,
        *,
        rank: int = 32,
        k: int = 10,
        level_edges: tuple[float, float] = LEVEL_EDGES,
        directions: FloatArray | None = None,
    ) -> None:
        """Read the training part of the split.

        Args:
            split: only `train` is read.
            rank: number of singular vectors.
            k: how many peers count in q.
            level_edges: see `VectorPeers`.
            directions: [I, rank], the right singular vectors; None computes them from the split.

        Raises:
            TaskError: the split has no training users.
            ConfigError: it is no split, or a number is smaller than 1.
        """
        _refuse_nobody(split)
        rank = whole_number("Vectors have a length.", "rank", rank, 1)
        self.directions: FloatArray = _right_singular_vectors(split, rank) if directions is None else directions
        super().__init__(split, self._project, k=k, level_edges=level_edges)

    def _project(self, histories: Sequence[Sequence[int]]) -> FloatArray:
        return _ones(histories).times(self.directions)


PeersOf = Callable[[Split], VectorPeers | None]
"""Makes the peers of a split; None for a game without. `SvdPeers` is one."""

_CELLS = 1 << 17
"""Cosines computed at a time; as many as stay in the cache."""
_STEPS = 1e6
"""Cosines are ranked in millionths, so that who is nearest does not hang on the last bits of a machine."""


def _refuse_nobody(split: Split) -> None:
    expect(Split, split, "Peers are those of a split.", "`coars_env.load_split` makes one.")
    if not split.train:
        raise TaskError(
            f"Peers are training users. Expected one or more in {split.name!r} of {split.dataset.name!r}, found "
            "none: every user has too few interactions. Use more data, or pass peers=None."
        )


def _mean_of_best(cosine: FloatArray, k: int) -> FloatArray:
    """Mean of the k highest of each row [m, n] that are finite; 0 where none is. [m]."""
    if cosine.shape[1] > k:
        cosine = np.partition(cosine, -k, axis=1)[:, -k:]
    known = cosine > -np.inf
    return np.asarray(cosine.sum(1, where=known) / np.maximum(known.sum(1), 1))


def _unit(x: FloatArray) -> FloatArray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))


class _Ones(NamedTuple):
    """A sparse matrix of zeros and ones."""

    rows: IntArray  # [N] of each one, ascending
    columns: IntArray  # [N]
    height: int

    def times(self, x: FloatArray) -> FloatArray:
        """The product with a dense x. [height, x.shape[1]]. In parts that stay in the cache."""
        product = np.zeros((self.height, x.shape[1]))
        for first in range(0, len(self.rows), 4096):
            rows, columns = self.rows[first : first + 4096], self.columns[first : first + 4096]
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            product[rows[starts]] += np.add.reduceat(x[columns], starts, axis=0)
        return product


def _ones(lists: Sequence[Sequence[int]]) -> _Ones:
    """One row for each list of items."""
    lengths = [len(items) for items in lists]
    columns = np.fromiter(chain.from_iterable(lists), np.int64, sum(lengths))
    return _Ones(np.repeat(np.arange(len(lists)), lengths), columns, len(lists))


def _right_singular_vectors(split: Split, rank: int) -> FloatArray:
    """The leading right singular vectors of the 0/1 training matrix, [I, at most rank], by subspace iteration.

    N. Halko et al., SIAM Review 2011, doi:10.1137/090771806, algorithm 4.4. Double precision and a fixed start: the
    result is the same to about 1e-12 on every machine. Directions of singular value 0 are left out.
    """
    matrix = _ones([s.items for s in split.train])
    by_item = np.argsort(matrix.columns, kind="stable")
    transposed = _Ones(matrix.columns[by_item], matrix.rows[by_item], split.dataset.num_items)
    width = min(rank + 8, matrix.height, transposed.height)
    basis = np.random.default_rng(0).standard_normal((transposed.height, width))
    for _ in range(10):
        basis = np.linalg.qr(transposed.times(matrix.times(basis)))[0]
    _, values, turn = np.linalg.svd(matrix.times(basis), full_matrices=False)
    kept = values[:rank] > 1e-6 * values[0]
    return np.asarray(basis @ turn[:rank][kept].T)
