"""Task, EpisodeSet: one decision to be played, and a frozen, hashed list of them.

A split says which part of each user's sequence may be trained on and what is held out; a candidate sampler draws the
negatives; `SvdPeers` computes the peer similarity q of the user reward. All three are passed in, and what they return
is stored in the task, so that a stored dialogue can be rewarded again without any of them.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Dataset, FloatArray, IntArray, Item, Provenance
from coars_env.datasets.llara import llara_sequences
from coars_env.errors import ConfigError, TaskError

EPISODES_VERSION = 1
HISTORY_LENGTH = 10
"""Visible history: the last 10 items, as AFL and LLaRA (arXiv:2410.20027, arXiv:2312.02445)."""
NUM_CANDIDATES = 20


@dataclass(frozen=True)
class Task:
    """One decision: which of the candidates did this user take next?

    Example: `Task("llara-test-uniform-d0-0003", user=7, history=(4, 2), candidates=(5, 1, 0), target=1,
    peer_similarity=(0.1, 0.4, 0.0))` asks whether the user who took item 4 and then item 2 took 5, 1 or 0 next.
    """

    task_id: str
    user: int
    """Index of the user in the dataset. For grouping and checks; never shown to an agent."""
    history: tuple[int, ...]
    """Catalogue indices, oldest first, at most `HISTORY_LENGTH`; the target is not among them."""
    candidates: tuple[int, ...]
    """Catalogue indices in the order shown; distinct items with distinct titles."""
    target: int
    """The item the user truly took next; one of the candidates, unless these were retrieved."""
    peer_similarity: tuple[float, ...] = ()
    """q of each candidate in [-1, 1], same order; empty means 0 throughout. See `SvdPeers`."""
    retrieved: bool = False
    """Whether the candidates are what a retriever found, which may have missed the target. There is no hit then: every
    proposal is a miss, and is rewarded and counted as one. See `TopCandidates`."""

    def __post_init__(self) -> None:
        if self.target not in self.candidates and not self.retrieved:
            raise TaskError(
                f"The target must be among the candidates. Expected item {self.target} among the "
                f"{len(self.candidates)} of task {self.task_id!r}, found none. Rebuild the set with a candidate "
                "sampler that keeps the target."
            )
        if self.target in self.history or len(self.history) > HISTORY_LENGTH:
            raise TaskError(
                f"The visible history must be short and without the target. Expected at most {HISTORY_LENGTH} items "
                f"other than {self.target} in task {self.task_id!r}, found {self.history}. Rebuild the set."
            )
        if len(set(self.candidates)) != len(self.candidates):
            raise TaskError(
                f"Candidates must be distinct. Expected {len(self.candidates)} different items in task "
                f"{self.task_id!r}, found {len(set(self.candidates))}. Rebuild the set."
            )
        if self.peer_similarity and len(self.peer_similarity) != len(self.candidates):
            raise TaskError(
                f"Each candidate needs one peer similarity. Expected {len(self.candidates)} in task "
                f"{self.task_id!r}, found {len(self.peer_similarity)}. Rebuild the set."
            )

    def q(self, item: int) -> float:
        """Peer similarity of a candidate, in [-1, 1]; 0 where none was computed."""
        return self.peer_similarity[self.candidates.index(item)] if self.peer_similarity else 0.0


@dataclass(frozen=True, eq=False)
class EpisodeSet:
    """A frozen list of tasks over one catalogue, with where it came from and a digest that names its exact content."""

    name: str
    """For instance "movielens-100k/llara/test/uniform/d0"."""
    tasks: tuple[Task, ...]
    items: tuple[Item, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        for task in self.tasks:
            check_titles(task, self.items)
        if len(self._by_id) < len(self.tasks):
            raise TaskError(
                f"A task is found by its id. Expected {len(self.tasks)} different ids in {self.name!r}, found "
                f"{len(self._by_id)}. Give each task its own."
            )

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        task = self._by_id.get(task_id) if isinstance(task_id, str) else None
        if task is None:
            raise TaskError(
                f"The task must be in the set. Expected one of {len(self.tasks)} ids such as "
                f"{self.tasks[0].task_id if self.tasks else None!r}, found {task_id!r}. List them with "
                "`[task.task_id for task in episodes]`."
            )
        return task

    @cached_property
    def _by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of name, provenance and tasks; independent of machine and process."""
        return _sha256([_json(self._head), *self._rows])

    @property
    def _head(self) -> dict[str, Any]:
        return {"version": EPISODES_VERSION, "name": self.name, "provenance": dataclasses.asdict(self.provenance)}

    @property
    def _rows(self) -> list[str]:
        return [_json(task_row(task)) for task in self.tasks]

    def save(self, path: str | Path) -> None:
        """Write JSONL: a header line with the digest, then one task a line. Atomic."""
        lines = [_json({**self._head, "sha256": self.sha256}), *self._rows]
        write_atomically(path, "".join(f"{line}\n" for line in lines))

    @classmethod
    def load(cls, path: str | Path, dataset: Dataset) -> "EpisodeSet":
        """Read what `save` wrote and check that not a byte has changed and that it belongs to the dataset.

        Raises:
            TaskError: not such a file, changed since it was written, or made from another dataset.
        """
        try:
            first, *rows, last = Path(path).read_bytes().decode().split("\n")
            head = json.loads(first)
            expected = head.pop("sha256")
            name, version, provenance = head["name"], head["version"], Provenance(**head["provenance"])
            found = _sha256([_json(head), *rows])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TaskError(
                f"An episode file must be JSONL with a header line. Expected that in {path}, found {error!r}. "
                "Write it again with EpisodeSet.save."
            ) from error
        if version != EPISODES_VERSION:
            raise TaskError(
                f"Episode files carry a version. Expected {EPISODES_VERSION} in {path}, found {version!r}. "
                "Read it with the version of coars-env that wrote it."
            )
        if found != expected or last or first != _json({**head, "sha256": expected}):
            raise TaskError(
                f"An episode file must not change. Expected the content of sha256 {expected} in {path}, found another "
                f"({found}). Write it again with EpisodeSet.save, or fetch an intact copy."
            )
        if provenance != dataset.provenance:
            raise TaskError(
                f"Episodes belong to one dataset. Expected {provenance} for {path}, found {dataset.provenance}. "
                "Load the dataset the file was made from."
            )
        return cls(name, tuple(task_from_row(json.loads(row)) for row in rows), dataset.items, provenance)


def check_titles(task: Task, items: Sequence[Item]) -> None:
    """Refuse a candidate list in which two items read the same, or that names an unknown item.

    Raises:
        TaskError: equal titles, or an index outside the catalogue.
    """
    indices = (*task.candidates, *task.history)
    if min(indices) < 0 or max(indices) >= len(items):
        raise TaskError(
            f"A task may only name items of the catalogue. Expected indices 0..{len(items) - 1} in task "
            f"{task.task_id!r}, found {min(indices)}..{max(indices)}. Rebuild the set from its dataset."
        )
    titles = [items[i].title for i in task.candidates]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise TaskError(
            f"Titles must be unique within a candidate list. Expected {len(titles)} different titles in task "
            f"{task.task_id!r}, found {twice[0]!r} twice. Rebuild the set: the samplers here avoid it."
        )


def task_row(task: Task) -> dict[str, Any]:
    """The fields of a task as they are stored. `retrieved` is left out where it is false, as before there was any."""
    row = dict(vars(task))
    if not task.retrieved:
        del row["retrieved"]
    return row


def task_from_row(row: dict[str, Any]) -> Task:
    """Inverse of `task_row` after a trip through JSON."""
    history, candidates, similarity = (tuple(row[key]) for key in ("history", "candidates", "peer_similarity"))
    retrieved = bool(row.get("retrieved", False))
    return Task(row["task_id"], row["user"], history, candidates, row["target"], similarity, retrieved)


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        whole = Path(folder, path.name)
        whole.write_bytes(text.encode())
        os.replace(whole, path)


# --- splits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UserSequence:
    """One user's items, oldest first. In a held-out part the last of them is the target."""

    user: int
    items: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """What may be trained on and what is held out. Targets of `validation` and `test` never occur in a user's `train`.

    `owned[u]` holds everything user u ever took, held-out items included: the default samplers never offer those as
    negatives.
    """

    name: str
    dataset: Dataset
    train: tuple[UserSequence, ...]
    validation: tuple[UserSequence, ...]
    test: tuple[UserSequence, ...]
    owned: Mapping[int, frozenset[int]]


def leave_last(dataset: Dataset, *, min_rating: float | None = None) -> Split:
    """Hold out each user's last item (test); train on the rest. There is no separate validation part.

    Ties in time keep the order of the source (44 % of ml-100k's last items are tied with the one before). An item taken
    more than once counts where it was first taken. Users with fewer than three items are left out.

    Raises:
        TaskError: the rows of the dataset are no sequences.
    """
    _refuse_without(dataset, ("seconds", "order"), "leave_last")
    return _last_held_out("leave_last", dataset, _sequences(dataset, min_rating), min_rating)


def random_holdout(dataset: Dataset, *, seed: int = 0, min_rating: float | None = None) -> Split:
    """Hold out one item of each user, drawn by seed; train on the rest, in an order drawn by seed.

    For data without times, such as LastFM's listens: what is called history is then a set of other items of the user,
    not a sequence. Users with fewer than three items are left out.
    """
    ranks = np.random.default_rng(seed).random(len(dataset.users))
    rows = np.lexsort((ranks, dataset.users))  # rows of a user stay together
    items, ratings = dataset.item_indices[rows], dataset.ratings[rows]
    sequences = []
    for user in range(dataset.num_users):
        own = items[dataset.rows(user)]
        if min_rating is not None:
            own = own[ratings[dataset.rows(user)] >= min_rating]
        sequences.append(UserSequence(user, tuple(dict.fromkeys(own.tolist()))))
    return _last_held_out("random_holdout", dataset, sequences, min_rating)


def published(dataset: Dataset) -> Split:
    """The publisher's own split, for instance AFL's of LastFM: the last item of each held-out user is the target.

    AFL's has no order in time. In its files the items of every user ascend by artist id, so that the target is always
    the one of the highest id; here histories and training sequences are shuffled by a fixed seed.

    Raises:
        TaskError: the publisher has none.
    """
    if dataset.parts is None:
        raise TaskError(
            f"A published split must be part of the data. Expected parts in {dataset.name!r}, found none. Use another "
            "split, or a variant that has one, such as variant='afl' of lastfm."
        )
    sequences = _sequences(dataset, None)
    train, validation, test = (
        tuple(s for s in sequences if dataset.parts[s.user] == part and len(s.items) > 1)
        for part in ("train", "validation", "test")
    )
    return Split("published", dataset, train, validation, test, _Owned(dataset, None))


def llara(dataset: Dataset) -> Split:
    """LLaRA's division of users 8:1:1 by the time of their first rating (arXiv:2312.02445); ratings of 3 or more.

    The last item of each held-out user is the target; a training user's whole sequence may be trained on.

    Raises:
        TaskError: the dataset has no times.
        DatasetError: fewer than ten users with two such ratings.
    """
    _refuse_without(dataset, ("seconds",), "llara")
    parts, numbers = llara_sequences(dataset), _numbers(dataset)
    train, validation, test = (
        tuple(UserSequence(user, tuple(dict.fromkeys(numbers[items].tolist()))) for user, items in part)
        for part in (parts.train, parts.validation, parts.test)
    )
    return Split("llara", dataset, train, validation, test, _Owned(dataset, None))


def _refuse_without(dataset: Dataset, times: Sequence[str], split: str) -> None:
    if dataset.times not in times:
        raise TaskError(
            f"The split {split!r} goes by time. Expected a dataset whose times are {' or '.join(times)}, found "
            f"{dataset.times!r} in {dataset.name!r}. Use random_holdout, which needs none."
        )


def _last_held_out(name: str, dataset: Dataset, sequences: Sequence[UserSequence], min_rating: float | None) -> Split:
    long = tuple(s for s in sequences if len(s.items) > 2)
    train = tuple(UserSequence(s.user, s.items[:-1]) for s in long)
    return Split(name, dataset, train, (), long, _Owned(dataset, min_rating))


def _sequences(dataset: Dataset, min_rating: float | None) -> list[UserSequence]:
    numbers = _numbers(dataset)
    return [
        UserSequence(u, tuple(dict.fromkeys(numbers[dataset.sequence(u, min_rating=min_rating)].tolist())))
        for u in range(dataset.num_users)
    ]


def _numbers(dataset: Dataset) -> npt.NDArray[np.object_]:
    """The catalogue's indices as Python's integers, one object each: millions of interactions share them. Shape [I]."""
    return np.arange(dataset.num_items).astype(object)


class _Owned(Mapping[int, frozenset[int]]):
    """Each user's items, made into a set when asked for: all sets together are larger than the dataset."""

    def __init__(self, dataset: Dataset, min_rating: float | None) -> None:
        self._dataset, self._min_rating = dataset, min_rating

    def __getitem__(self, user: int) -> frozenset[int]:
        if user not in range(len(self)):
            raise KeyError(user)
        return frozenset(self._dataset.sequence(user, min_rating=self._min_rating).tolist())

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return self._dataset.num_users


# --- candidates -------------------------------------------------------------------------------------------------------

CandidateSampler = Callable[[frozenset[int], int, np.random.Generator], IntArray]
"""(items that must not be drawn, how many, generator) -> distinct catalogue indices, shape [n]."""


def uniform_candidates(num_items: int) -> CandidateSampler:
    """Every allowed item is equally likely."""

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        _check_enough(num_items - len(forbidden), n)
        chosen: dict[int, None] = {}
        while missing := n - len(chosen):
            drawn = rng.integers(num_items, size=missing).tolist()
            chosen.update((item, None) for item in drawn if item not in forbidden)
        return np.array(list(chosen), dtype=np.int64)

    return draw


def popularity_candidates(split: Split) -> CandidateSampler:
    """An allowed item is drawn in proportion to its training interactions (never-taken items count as .01)."""
    counts = np.full(split.dataset.num_items, 0.01)
    for sequence in split.train:
        counts[list(sequence.items)] += 1.0  # an item stands once in a sequence

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        _check_enough(len(counts) - len(forbidden), n)
        weights = counts.copy()
        weights[list(forbidden)] = 0.0
        return rng.choice(len(weights), size=n, replace=False, p=weights / weights.sum()).astype(np.int64)

    return draw


Scorer = Callable[[IntArray, IntArray], FloatArray]
"""(history [H], oldest first; items [N]) -> scores [N], higher is better. All are catalogue indices; H may be 0."""


@dataclass(frozen=True)
class TopCandidates:
    """The items that a scorer likes best for a history: a list as hard as the scorer is good. Only its order is drawn.

    In the place of a sampler: `TaskBuilder(split, TopCandidates(scorer))`. What the builder bars is not offered. Equal
    scores go by catalogue index; scores that differ by rounding between machines should be rounded by the scorer.
    """

    scorer: Scorer
    keep_target: bool = True
    """True: the target takes the last place if the scorer did not put it among the best. False: the list is what the
    scorer retrieved, with or without the target, and tasks are marked as `retrieved`; the share of tasks that list
    their target then bounds every hit rate."""

    def best(self, history: Sequence[int], target: int, barred: frozenset[int], items: Sequence[Item]) -> Iterator[int]:
        """Items that are not barred, best first, each title once.

        The target is never barred, nor is its title given to another item.
        """
        scores = np.asarray(self.scorer(np.array(history, dtype=np.int64), np.arange(len(items))), dtype=np.float64)
        if scores.shape != (len(items),) or np.isnan(scores).any():
            raise TaskError(
                f"A scorer must score what it is asked for. Expected {len(items)} numbers, found shape {scores.shape} "
                f"with {int(np.isnan(scores).sum())} NaN. Correct the scorer."
            )
        titles = {items[target].title}
        for item in np.argsort(-scores, kind="stable").tolist():
            if item == target or (item not in barred and items[item].title not in titles):
                titles.add(items[item].title)
                yield item


def _check_enough(available: int, n: int) -> None:
    if available < n:
        raise TaskError(
            f"There must be enough items to draw negatives from. Expected at least {n} that are not barred, found "
            f"{available}. Ask for fewer candidates."
        )


# --- peers ------------------------------------------------------------------------------------------------------------


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
        """
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


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskBuilder:
    """Turns a sequence and a cut into a task: `builder(task_id, sequence, cut, rng)`. Objects in, no names.

    `batch` makes many at once, which is much faster where there are peers.
    """

    split: Split
    sampler: CandidateSampler | TopCandidates
    peers: SvdPeers | None = None
    num_candidates: int = NUM_CANDIDATES
    exclude_owned: bool = True
    """True: negatives are never any item of the user. False: only the target and the visible history are barred, as
    LLaRA and AFL do, so that about one negative a list was in fact watched."""

    def __post_init__(self) -> None:
        if self.num_candidates < 2:
            raise ConfigError(
                f"A choice needs candidates. Expected num_candidates >= 2, found {self.num_candidates}. Raise it."
            )

    def __call__(self, task_id: str, sequence: UserSequence, cut: int, rng: np.random.Generator) -> Task:
        """The task whose target is `sequence.items[cut]` and whose history ends before it."""
        return self.batch([(task_id, sequence, cut, rng)])[0]

    def batch(self, wanted: Iterable[tuple[str, UserSequence, int, np.random.Generator]]) -> list[Task]:
        """One task for each; what is wanted next is asked for when the candidates of the one before are drawn."""
        tasks = [self._without_peers(*one) for one in wanted]
        if self.peers is None:
            return tasks
        q = self.peers.batch([(task.user, task.history, task.candidates) for task in tasks])
        return [dataclasses.replace(task, peer_similarity=own) for task, own in zip(tasks, q, strict=True)]

    def _without_peers(self, task_id: str, sequence: UserSequence, cut: int, rng: np.random.Generator) -> Task:
        if not 0 <= cut < len(sequence.items):
            raise TaskError(
                f"A sequence is cut at one of its items. Expected a place in 0..{len(sequence.items) - 1} of user "
                f"{sequence.user} for task {task_id!r}, found {cut}. Cut elsewhere."
            )
        target = sequence.items[cut]
        history = sequence.items[max(0, cut - HISTORY_LENGTH) : cut]
        barred = self.split.owned[sequence.user] if self.exclude_owned else frozenset((*history, target))
        if isinstance(self.sampler, TopCandidates):
            listed = self._best(self.sampler, history, target, barred)
            retrieved = not self.sampler.keep_target
        else:
            listed, retrieved = [target, *self._negatives(self.sampler, target, barred | {target}, rng)], False
        candidates = tuple(listed[i] for i in rng.permutation(self.num_candidates))
        return Task(task_id, sequence.user, history, candidates, target, retrieved=retrieved)

    def _best(self, top: TopCandidates, history: Sequence[int], target: int, barred: frozenset[int]) -> list[int]:
        best = top.best(history, target, barred, self.split.dataset.items)
        listed = list(islice(best, self.num_candidates))
        _check_enough(len(listed), self.num_candidates)
        if top.keep_target and target not in listed:
            listed[-1] = target
        return listed

    def _negatives(
        self, sampler: CandidateSampler, target: int, barred: frozenset[int], rng: np.random.Generator
    ) -> list[int]:
        """As many items as are missing, of different titles. Ends with the sampler's error when no item is left."""
        items = self.split.dataset.items
        chosen: dict[str, int] = {items[target].title: target}
        while missing := self.num_candidates - len(chosen):
            drawn = sampler(barred, missing, rng).tolist()
            if not set(drawn).isdisjoint(barred) or len(set(drawn)) != missing:
                raise TaskError(
                    f"A candidate sampler must keep to what it is asked for. Expected {missing} different items that "
                    f"are not barred, found {drawn}. Correct the sampler."
                )
            barred = barred.union(drawn)
            for item in drawn:
                chosen.setdefault(items[item].title, item)
        return list(chosen.values())[1:]


def freeze(builder: TaskBuilder, subset: str, *, rule: str, draw: int = 0, seed: int = 0) -> EpisodeSet:
    """One task for the last item of each sequence of "test", "validation" or "train", in the order of the split.

    Args:
        builder: split, candidate sampler and peers.
        subset: which part of the split.
        rule: name of the candidate rule, part of the set's name.
        draw: number of the candidate draw; tasks of two draws differ in candidates and order only.
        seed: seed of the family of draws.
    """
    parts = {"train": builder.split.train, "validation": builder.split.validation, "test": builder.split.test}
    if subset not in parts:
        raise ConfigError(f"A split has three parts. Expected one of {sorted(parts)}, found {subset!r}. Name one.")
    if min(draw, seed) < 0:
        raise ConfigError(f"Draws and seeds are counted from 0. Expected >= 0, found {draw} and {seed}. Raise them.")
    split = builder.split
    stem = f"{split.name}-{subset}-{rule}-d{draw}"
    tasks = builder.batch(
        (f"{stem}-{row:04d}", sequence, len(sequence.items) - 1, np.random.default_rng([seed, draw, row]))
        for row, sequence in enumerate(parts[subset])
    )
    name = f"{split.dataset.name}/{split.name}/{subset}/{rule}/d{draw}"
    return EpisodeSet(name, tuple(tasks), split.dataset.items, split.dataset.provenance)


def sample_train_tasks(builder: TaskBuilder, n: int, rng: np.random.Generator, *, prefix: str) -> list[Task]:
    """Fresh training tasks of n distinct users (repeated only when n exceeds their number), cut at a random place.

    At least three items stand before the cut where the sequence is long enough. Candidates are drawn anew for each, so
    the set of training tasks has no end and no file.
    """
    sequences = [sequence for sequence in builder.split.train if len(sequence.items) > 1]
    if not sequences:
        raise TaskError(
            f"Training tasks are cut from training sequences. Expected one of two items or more in split "
            f"{builder.split.name!r} of {builder.split.dataset.name!r}, found none. Use more data."
        )
    rows: list[int] = []
    while len(rows) < n:
        rows.extend(rng.permutation(len(sequences)).tolist())

    def cut_at_random() -> Iterator[tuple[str, UserSequence, int, np.random.Generator]]:
        for number, row in enumerate(rows[:n]):
            sequence = sequences[row]
            cut = int(rng.integers(min(3, len(sequence.items) - 1), len(sequence.items)))
            yield f"{prefix}-{number:04d}", sequence, cut, rng

    return builder.batch(cut_at_random())
