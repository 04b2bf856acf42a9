"""Task, EpisodeSet: one decision to be played, and a frozen, hashed list of them.

A split says which part of each user's sequence may be trained on and what is held out; a candidate sampler draws the
negatives; `SvdPeers` computes the peer similarity q of the user reward. All three are passed in, and what they return is
stored in the task, so that a stored dialogue can be rewarded again without any of them.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coars_env.datasets.dataset import Dataset, FloatArray, IntArray, Item, Provenance
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
    """The item the user truly took next; one of the candidates."""
    peer_similarity: tuple[float, ...] = ()
    """q of each candidate in [-1, 1], same order; empty means 0 throughout. See `SvdPeers`."""

    def __post_init__(self) -> None:
        if self.target not in self.candidates:
            raise TaskError(
                f"The target must be among the candidates. Expected item {self.target} among the "
                f"{len(self.candidates)} of task {self.task_id!r}, found none. Rebuild the set with a candidate "
                "sampler that keeps the target."
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

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        for task in self.tasks:
            if task.task_id == task_id:
                return task
        raise TaskError(
            f"The task must be in the set. Expected one of {len(self.tasks)} ids such as "
            f"{self.tasks[0].task_id if self.tasks else None!r}, found {task_id!r}. List them with "
            "`[t.task_id for t in episodes.tasks]`."
        )

    @property
    def sha256(self) -> str:
        """Hex digest of name, provenance and tasks; independent of machine and process."""
        body = "\n".join(self._lines())
        return hashlib.sha256(body.encode()).hexdigest()

    def _lines(self) -> list[str]:
        head = {"version": EPISODES_VERSION, "name": self.name, "provenance": dataclasses.asdict(self.provenance)}
        return [_json(head), *(_json(dataclasses.asdict(task)) for task in self.tasks)]

    def save(self, path: Path) -> None:
        """Write JSONL: a header line with the digest, then one task a line. Atomic."""
        head, *rows = self._lines()
        header = _json({**json.loads(head), "sha256": self.sha256})
        write_atomically(path, "\n".join([header, *rows]) + "\n")

    @classmethod
    def load(cls, path: Path, dataset: Dataset) -> "EpisodeSet":
        """Read what `save` wrote and check its digest and its dataset.

        Raises:
            TaskError: not such a file, changed since it was written, or made from another dataset.
        """
        try:
            head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            expected = head["sha256"]
            provenance = Provenance(**head["provenance"])
            tasks = tuple(_task(row) for row in rows)
            episodes = cls(head["name"], tasks, dataset.items, provenance)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise TaskError(
                f"An episode file must be JSONL with a header line. Expected that in {path}, found {error!r}. "
                "Write it again with EpisodeSet.save."
            ) from error
        if episodes.sha256 != expected:
            raise TaskError(
                f"An episode file must not change. Expected sha256 {expected} in {path}, found {episodes.sha256}. "
                "Write it again with EpisodeSet.save, or fetch an intact copy."
            )
        if provenance != dataset.provenance:
            raise TaskError(
                f"Episodes belong to one dataset. Expected {provenance}, found {dataset.provenance}. "
                "Load the dataset the file was made from."
            )
        return episodes


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


def _task(row: dict[str, Any]) -> Task:
    tuples = {k: tuple(row.pop(k)) for k in ("history", "candidates", "peer_similarity")}
    return Task(**row, **tuples)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    owned: dict[int, frozenset[int]]


def leave_last(dataset: Dataset, *, min_rating: float | None = None) -> Split:
    """Hold out each user's last item (test); train on the rest. There is no separate validation part.

    Ties in time keep the order of the source (44 % of ml-100k's last items are tied with the one before).
    """
    sequences = _sequences(dataset, min_rating)
    return Split(
        "leave_last",
        dataset,
        train=tuple(UserSequence(s.user, s.items[:-1]) for s in sequences if len(s.items) > 2),
        validation=(),
        test=tuple(s for s in sequences if len(s.items) > 2),
        owned={s.user: frozenset(s.items) for s in sequences},
    )


def _sequences(dataset: Dataset, min_rating: float | None) -> list[UserSequence]:
    return [
        UserSequence(u, tuple(int(i) for i in dataset.sequence(u, min_rating=min_rating)))
        for u in range(dataset.num_users)
    ]


# --- candidates -------------------------------------------------------------------------------------------------------

CandidateSampler = Callable[[frozenset[int], int, np.random.Generator], IntArray]
"""(items that must not be drawn, how many, generator) -> distinct catalogue indices, shape [n]."""


def uniform_candidates(num_items: int) -> CandidateSampler:
    """Every allowed item is equally likely."""

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        chosen: list[int] = []
        taken = set(forbidden)
        if num_items - len(taken) < n:
            raise TaskError(
                f"There must be enough items to draw negatives from. Expected at least {n} besides the user's own "
                f"{len(taken)}, found {num_items - len(taken)}. Ask for fewer candidates."
            )
        while len(chosen) < n:
            item = int(rng.integers(num_items))
            if item not in taken:
                taken.add(item)
                chosen.append(item)
        return np.array(chosen, dtype=np.int64)

    return draw


def popularity_candidates(split: Split) -> CandidateSampler:
    """An allowed item is drawn in proportion to its training interactions (never-taken items count as .01)."""
    counts = np.full(split.dataset.num_items, 0.01)
    for sequence in split.train:
        np.add.at(counts, list(sequence.items), 1.0)

    def draw(forbidden: frozenset[int], n: int, rng: np.random.Generator) -> IntArray:
        weights = counts.copy()
        weights[list(forbidden)] = 0.0
        if np.count_nonzero(weights) < n:
            raise TaskError(
                f"There must be enough items to draw negatives from. Expected at least {n} besides the user's own "
                f"{len(forbidden)}, found {np.count_nonzero(weights)}. Ask for fewer candidates."
            )
        return rng.choice(len(weights), size=n, replace=False, p=weights / weights.sum()).astype(np.int64)

    return draw


# --- peers ------------------------------------------------------------------------------------------------------------


class SvdPeers:
    """Peer similarity q of a user and an item, from a truncated SVD of the training matrix.

    q(u, i) is the mean cosine between u and the `k` most similar training users, u excluded, whose training history
    holds i; 0 if nobody's does. User vectors are projections of the 0/1 row on the right singular vectors, centred over
    users. In [-1, 1]. The paper takes SASRec's user vectors and does not publish the formula; this reading is ours
    (`peer_k`, `peer_pool = item_owners`). u's vector comes from the visible history alone, so nothing held out enters.
    """

    def __init__(self, split: Split, *, rank: int = 32, k: int = 10) -> None:
        self._users = np.array([s.user for s in split.train])  # [U]
        owners = np.zeros((len(split.train), split.dataset.num_items), dtype=np.float32)
        for row, sequence in enumerate(split.train):
            owners[row, list(sequence.items)] = 1.0
        self._owners = owners > 0  # [U, I]
        right = np.linalg.svd(owners, full_matrices=False)[2][:rank].T  # [I, rank]
        vectors = owners @ right
        self._right, self._mean, self._k = right, vectors.mean(0), k
        self._vectors = _unit(vectors - self._mean)  # [U, rank]

    def __call__(self, user: int, history: Sequence[int], candidates: Sequence[int]) -> tuple[float, ...]:
        """q of each candidate, rounded to 4 decimals so that a frozen set has the same digest on every machine."""
        mine = _unit(self._right[list(history)].sum(0) - self._mean)
        cosine = np.where(self._users == user, -np.inf, self._vectors @ mine)  # [U]
        of_owners = np.where(self._owners[:, list(candidates)], cosine[:, None], -np.inf)  # [U, K]
        best = -np.sort(-of_owners, axis=0)[: self._k]  # [k, K]
        found = np.isfinite(best)
        total = np.where(found, best, 0.0).sum(0) / np.maximum(found.sum(0), 1)
        return tuple(float(q) for q in np.clip(np.round(total.astype(np.float64), 4), -1.0, 1.0))


def _unit(x: FloatArray | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskBuilder:
    """Turns a sequence and a cut into a task: `builder(task_id, sequence, cut, rng)`. Objects in, no names."""

    split: Split
    sampler: CandidateSampler
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
        """The task whose target is `sequence.items[cut]`."""
        target = sequence.items[cut]
        history = sequence.items[max(0, cut - HISTORY_LENGTH) : cut]
        barred = self.split.owned[sequence.user] if self.exclude_owned else frozenset((*history, target))
        titles = self.split.dataset.items
        forbidden = set(barred)
        negatives: list[int] = []
        seen = {titles[target].title}
        while len(negatives) < self.num_candidates - 1:
            drawn = self.sampler(frozenset(forbidden), self.num_candidates - 1 - len(negatives), rng)
            for item in drawn.tolist():
                forbidden.add(item)
                if titles[item].title not in seen:
                    seen.add(titles[item].title)
                    negatives.append(item)
        order = rng.permutation(self.num_candidates)
        listed = [target, *negatives]
        candidates = tuple(listed[i] for i in order)
        q = self.peers(sequence.user, history, candidates) if self.peers else ()
        return Task(task_id, sequence.user, history, candidates, target, q)


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
    split = builder.split
    stem = f"{split.name}-{subset}-{rule}-d{draw}"
    tasks = tuple(
        builder(f"{stem}-{row:04d}", sequence, len(sequence.items) - 1, np.random.default_rng([seed, draw, row]))
        for row, sequence in enumerate(parts[subset])
    )
    name = f"{split.dataset.name}/{split.name}/{subset}/{rule}/d{draw}"
    return EpisodeSet(name, tasks, split.dataset.items, split.dataset.provenance)


def sample_train_tasks(builder: TaskBuilder, n: int, rng: np.random.Generator, *, prefix: str) -> list[Task]:
    """n fresh training tasks of distinct users (repeated only when n exceeds their number), cut at a random place.

    Candidates are drawn anew for each, so the set of training tasks has no end and no file.
    """
    users = split_rows(len(builder.split.train), n, rng)
    tasks = []
    for number, row in enumerate(users):
        sequence = builder.split.train[row]
        cut = int(rng.integers(min(3, len(sequence.items) - 1), len(sequence.items)))
        tasks.append(builder(f"{prefix}-{number:04d}", sequence, cut, rng))
    return tasks


def split_rows(available: int, n: int, rng: np.random.Generator) -> list[int]:
    """n row numbers below `available`, each as often as any other up to one."""
    rows: list[int] = []
    while len(rows) < n:
        rows.extend(rng.permutation(available).tolist())
    return rows[:n]
