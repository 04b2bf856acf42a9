"""SvdPeers: the peer similarity q of the user reward."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import TaskError, expect, whole_number
from coars_env.tasks.splits import Split


class SvdPeers:
    """Peer similarity q of a user and an item, from a truncated SVD of the training matrix.

    q(u, i) is the mean cosine between u and the `k` most similar training users, u excluded, whose training history
    holds i; 0 if nobody's does. In [-1, 1]. A user's vector is the projection of the 0/1 row of items on the leading
    right singular vectors, scaled to length 1 (else a visible history of ten would be dwarfed by the mean of full
    histories) and centred on the mean of all others. u's own vector comes from the visible history alone, so nothing
    held out enters. The paper takes SASRec's user vectors and does not publish the formula: this reading is ours
    (`peer_k`, `peer_pool = item_owners`).
    """

    def __init__(self, split: Split, *, rank: int = 32, k: int = 10, directions: FloatArray | None = None) -> None:
        """Read the training part of the split.

        Args:
            split: only `train` is read.
            rank: number of singular vectors.
            k: how many peers count.
            directions: [I, rank], the right singular vectors; None computes them from the split.

        Raises:
            TaskError: nobody is trained on.
            ConfigError: it is no split, or a number is smaller than 1.
        """
        expect(Split, split, "Peers are those of a split.", "`coars_env.load_split` makes one.")
        rank = whole_number("Vectors have a length.", "rank", rank, 1)
        k = whole_number("Peers are counted.", "k", k, 1)
        if not split.train:
            raise TaskError(
                f"Peers are training users. Expected one or more in {split.name!r} of {split.dataset.name!r}, found "
                "none: every user has too few interactions. Use more data, or pass peers=None."
            )
        self._k = k
        self._users = np.array([s.user for s in split.train], dtype=np.int64)  # [U]
        self._rows: dict[int, list[int]] = {}
        for row, user in enumerate(self._users.tolist()):
            self._rows.setdefault(user, []).append(row)
        lengths = [len(s.items) for s in split.train]
        rows = np.repeat(np.arange(len(split.train)), lengths)  # [N] ascending
        columns = np.fromiter(chain.from_iterable(s.items for s in split.train), np.int64, sum(lengths))  # [N]
        by_item = np.argsort(columns, kind="stable")
        matrix = _Ones(rows, columns, len(split.train))
        transposed = _Ones(columns[by_item], rows[by_item], split.dataset.num_items)
        self.directions = _right_singular_vectors(matrix, transposed, rank) if directions is None else directions
        self._vectors = _unit(matrix.times(self.directions))  # [U, rank]
        self._squares = (self._vectors**2).sum(1)  # [U]
        self._sum = self._vectors.sum(0)
        starts = np.searchsorted(transposed.rows, np.arange(1, split.dataset.num_items))
        self._owners = np.split(transposed.columns, starts)  # I arrays: the rows of those who took the item

    def __call__(self, user: int, history: Sequence[int], candidates: Sequence[int]) -> tuple[float, ...]:
        """The q of each candidate, rounded to 4 decimals so that a frozen set has the same digest on every machine."""
        return self.batch([(user, history, candidates)])[0]

    def batch(self, asked: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> list[tuple[float, ...]]:
        """The same for many users, histories and lists of candidates at once, which is much faster."""
        if not asked:
            return []
        users = np.array([user for user, _, _ in asked], dtype=np.int64)  # [M]
        means = np.array([self._mean_of_others(user) for user, _, _ in asked])  # [M, rank]
        own = np.array([self.directions[list(history)].sum(0) for _, history, _ in asked])
        mine = _unit(_unit(own) - means)  # [M, rank]
        offset, square = (means * mine).sum(1), (means**2).sum(1)  # [M]
        lengths = [len(candidates) for _, _, candidates in asked]
        asker = np.repeat(np.arange(len(asked)), lengths)  # [Q]
        items = np.fromiter(chain.from_iterable(candidates for _, _, candidates in asked), np.int64, sum(lengths))
        q = np.zeros(len(items))
        by_item = np.argsort(items, kind="stable")
        for places in np.split(by_item, np.flatnonzero(np.diff(items[by_item])) + 1):
            if not len(places) or not len(owners := self._owners[items[places[0]]]):
                continue
            theirs, at_once = self._vectors[owners].T, max(1, _CELLS // len(owners))  # [rank, owners]
            for first in range(0, len(places), at_once):
                part = places[first : first + at_once]
                m = asker[part]
                # cosine of (theirs - mean) and mine, without writing down the differences
                squared = self._squares[owners] - 2 * (means[m] @ theirs) + square[m, None]
                cosine = (mine[m] @ theirs - offset[m, None]) / np.sqrt(np.maximum(squared, 1e-12))  # [part, owners]
                cosine[users[m, None] == self._users[owners]] = -np.inf
                q[part] = _mean_of_best(cosine, self._k)
        answers = iter([min(max(round(value, 4), -1.0), 1.0) for value in q.tolist()])
        return [tuple(islice(answers, length)) for length in lengths]

    def _mean_of_others(self, user: int) -> FloatArray:
        rows = self._rows.get(user, [])
        mean: FloatArray = (self._sum - self._vectors[rows].sum(0)) / max(len(self._users) - len(rows), 1)
        return mean


_CELLS = 1 << 17
"""Cosines computed at a time; as many as stay in the cache."""


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


def _right_singular_vectors(matrix: _Ones, transposed: _Ones, rank: int) -> FloatArray:
    """The leading right singular vectors of a sparse 0/1 matrix, [I, at most rank], by subspace iteration.

    N. Halko et al., SIAM Review 2011, doi:10.1137/090771806, algorithm 4.4. Double precision and a fixed start: the
    result is the same to about 1e-12 on every machine. Directions of singular value 0 are left out.
    """
    width = min(rank + 8, matrix.height, transposed.height)
    basis = np.random.default_rng(0).standard_normal((transposed.height, width))
    for _ in range(10):
        basis = np.linalg.qr(transposed.times(matrix.times(basis)))[0]
    _, values, turn = np.linalg.svd(matrix.times(basis), full_matrices=False)
    kept = values[:rank] > 1e-6 * values[0]
    return np.asarray(basis @ turn[:rank][kept].T)
