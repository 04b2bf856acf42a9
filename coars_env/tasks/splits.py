"""Split: which part of each user's sequence may be trained on and what is held out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Dataset
from coars_env.datasets.llara import llara_sequences
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan, whole_number


@dataclass(frozen=True)
class UserSequence:
    """One user's items, oldest first. In a held-out part the last of them is the target."""

    user: int
    items: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        parts = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"Split({self.name!r} of {self.dataset.name!r}: {parts})"

    def part(self, name: str) -> tuple[UserSequence, ...]:
        """One of the three parts, by name, somebody in it.

        Raises:
            ConfigError: there is no such part.
            TaskError: nobody is in it.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in list(parts):
            raise ConfigError(f"A split has three parts. Expected one of {sorted(parts)}, found {name!r}. Name one.")
        if not parts[name]:
            remedy = "No user has enough interactions: use more data."
            if any(parts.values()):
                remedy = (
                    "Take a part that is not empty, or another split: 'llara' has all three, 'published' those its "
                    "publisher made."
                )
            raise TaskError(f"A part must have users. Expected some in {name!r}, found none in {self!r}. {remedy}")
        return parts[name]


def leave_last(dataset: Dataset, *, min_rating: float | None = None) -> Split:
    """Hold out each user's last item (test); train on the rest. There is no separate validation part.

    Ties in time keep the order of the source (44 % of ml-100k's last items are tied with the one before). An item taken
    more than once counts where it was first taken. Users with fewer than three items are left out.

    Raises:
        TaskError: the rows of the dataset are no sequences.
    """
    _check(dataset, min_rating)
    _refuse_without(dataset, ("seconds", "order"), "leave_last")
    return _last_held_out("leave_last", dataset, _sequences(dataset, min_rating), min_rating)


def random_holdout(dataset: Dataset, *, seed: int = 0, min_rating: float | None = None) -> Split:
    """Hold out one item of each user, drawn by seed; train on the rest, in an order drawn by seed.

    For data without times, such as LastFM's listens: what is called history is then a set of other items of the user,
    not a sequence. Users with fewer than three items are left out. There is no separate validation part.

    Raises:
        ConfigError: it is no dataset, or a number that cannot be.
    """
    _check(dataset, min_rating)
    seed = whole_number("A seed feeds a random generator.", "seed", seed, 0)
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
    _check(dataset)
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
    _check(dataset)
    _refuse_without(dataset, ("seconds",), "llara")
    parts, numbers = llara_sequences(dataset), _numbers(dataset)
    train, validation, test = (
        tuple(UserSequence(user, tuple(dict.fromkeys(numbers[items].tolist()))) for user, items in part)
        for part in (parts.train, parts.validation, parts.test)
    )
    return Split("llara", dataset, train, validation, test, _Owned(dataset, None))


def _check(dataset: Dataset, min_rating: float | None = None) -> None:
    expect(Dataset, dataset, "A dataset is divided.", "`coars_env.load(name)` reads one.")
    if min_rating is not None and math.isnan(number_or_nan(min_rating)):
        raise ConfigError(f"Ratings are numbers. Expected one as min_rating, or None, found {min_rating!r}.")


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
