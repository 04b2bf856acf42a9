"""Split: which part of each user's sequence may be trained on and what is held out."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Dataset, id_text
from coars_env.datasets.llara import llara_sequences
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan, whole_number


@dataclass(frozen=True)
class UserSequence:
    """One user's items, oldest first. In a held-out part the last of them is the target."""

    user: int
    items: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """What may be trained on and what is held out.

    No target occurs in an earlier part: of a user in several parts, the target of `validation` is not in `train`, and
    that of `test` in neither of the two.

    Raises:
        TaskError: a part holds a user that the dataset lacks or a held-out user without items, or parts overlap.
    """

    name: str
    dataset: Dataset
    train: tuple[UserSequence, ...]
    validation: tuple[UserSequence, ...]
    test: tuple[UserSequence, ...]
    owned: Mapping[int, frozenset[int]] = None  # type: ignore[assignment]  # replaced in __post_init__
    """Everything each user ever took, held-out items included: the default samplers never offer those as negatives. By
    default, all of the user's items in the dataset."""
    num_users: int = 1
    """Users of a task. Above 1 the held-out parts consist of groups: so many sequences one after another end with the
    same item. See `hold_out_groups`."""

    def __post_init__(self) -> None:
        if self.owned is None:
            object.__setattr__(self, "owned", _Owned(self.dataset, None))
        earlier: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
        for part in ("train", "validation", "test"):
            sequences: tuple[UserSequence, ...] = getattr(self, part)
            if part != "train":
                for sequence in sequences:
                    self._check_held_out(part, sequence, earlier.get(sequence.user, ()))
            for sequence in sequences:
                earlier.setdefault(sequence.user, []).append((part, sequence.items))
        for part in ("validation", "test") if self.num_users > 1 else ():
            for group in self._groups(getattr(self, part)):
                users, targets = {s.user for s in group}, {s.items[-1] for s in group}
                if len(users) < self.num_users or len(targets) > 1:
                    raise TaskError(
                        f"part {part!r} must consist of groups of {self.num_users} users with one target, got users "
                        f"{sorted(users)} with targets {sorted(targets)}. `hold_out_groups` makes some."
                    )

    def _check_held_out(
        self, part: str, sequence: UserSequence, earlier: Iterable[tuple[str, tuple[int, ...]]]
    ) -> None:
        if sequence.user not in range(self.dataset.num_users) or not sequence.items:
            raise TaskError(
                f"part {part!r} must hold users of {self.dataset.name!r} with an item or more, got {sequence}. Users "
                f"are numbered 0..{self.dataset.num_users - 1}; `split_users` makes a split from ids."
            )
        for other, items in earlier:
            if sequence.items[-1] in items:
                raise TaskError(
                    f"parts {other!r} and {part!r} overlap: the {part} target of user {sequence.user}, item "
                    f"{sequence.items[-1]}, is in the user's {other} sequence. End that sequence before the target, or "
                    "put the user in one part only."
                )

    def owned_by(self, user: int) -> frozenset[int]:
        """Return everything a user ever took.

        Raises:
            TaskError: `owned` lacks the user.
        """
        try:
            return self.owned[user]
        except KeyError as reason:
            raise TaskError(
                f"`owned` lacks user {user}, whose own items could then be drawn as negatives. Leave `owned` out for "
                "all items of the dataset, or add the user."
            ) from reason

    def __repr__(self) -> str:
        parts = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"Split({self.name!r} of {self.dataset.name!r}: {parts})"

    def groups(self, name: str) -> list[tuple[UserSequence, ...]]:
        """The sequences of a held-out part in groups of `num_users`, somebody in it; alone where one user plays.

        Raises:
            ConfigError: there is no such part.
            TaskError: nobody is in it, or it is the training part of a split with groups, which has none.
        """
        sequences = self.part(name)
        if name == "train" and self.num_users > 1:
            raise TaskError(
                f"The training part of {self!r} has no fixed groups. Draw some with `sample_train_tasks`, or take "
                "another part."
            )
        return self._groups(sequences)

    def _groups(self, sequences: tuple[UserSequence, ...]) -> list[tuple[UserSequence, ...]]:
        return [sequences[first : first + self.num_users] for first in range(0, len(sequences), self.num_users)]

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
                    "Take a part that is not empty, or another split: 'llara' and 'leave_last_two' have all three, "
                    "'published' those its publisher made."
                )
            raise TaskError(f"A part must have users. Expected some in {name!r}, found none in {self!r}. {remedy}")
        return parts[name]


def leave_last(dataset: Dataset, *, validation: bool = False, min_rating: float | None = None) -> Split:
    """Hold out each user's last item (test); train on the rest.

    Ties in time keep the order of the source (44 % of ml-100k's last items are tied with the one before). An item taken
    more than once counts where it was first taken. Users with fewer than three items are left out.

    Args:
        dataset: users with sequences.
        validation: False leaves the validation part empty. True also holds out the item before the last, as SASRec
            (arXiv:1808.09781) does, and names the split "leave_last_two": the validation target is a user's
            second-last item, with the items before it as history, and training sequences end before it. The test part
            keeps its users, histories and targets; the second-last item is in the history of a test task, though
            nothing is trained on it. What is computed from training sequences (popularity, peers, and thus the digests
            of episode sets) differs from that of "leave_last". A user with exactly three items has no validation
            target and is trained on as in "leave_last" (our choice).
        min_rating: leave out interactions that are rated lower.

    Raises:
        TaskError: the rows of the dataset are no sequences.
    """
    _check(dataset, min_rating)
    _refuse_without(dataset, ("seconds", "order"), "leave_last")
    split = _last_held_out("leave_last", dataset, _sequences(dataset, min_rating), min_rating)
    if not validation:
        return split
    longer = [len(s.items) > 2 for s in split.train]
    train = tuple(UserSequence(s.user, s.items[:-1]) if cut else s for s, cut in zip(split.train, longer, strict=True))
    second_last = tuple(s for s, cut in zip(split.train, longer, strict=True) if cut)
    return replace(split, name="leave_last_two", train=train, validation=second_last)


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


def split_users(
    dataset: Dataset,
    *,
    train: Sequence[object] | float | None = None,
    validation: Sequence[object] | float = (),
    test: Sequence[object] | float = (),
    seed: int = 0,
) -> Split:
    """Divide whole users: train on all items of some, hold out the last item of each of the others.

    Example: `split_users(dataset, train=.8, validation=.1, test=.1)`, or `split_users(dataset, test=["ann", 7])`.

    Parts are lists of user ids or shares. Users with fewer than two items are left out. Without times the rows of a
    user have an order drawn by seed, so the target is a random item of the user.

    Args:
        dataset: the users.
        train: ids of the users to train on, as in `dataset.user_ids` (7 and "7" are the same), or their share of all
            users; None takes every user in no other part.
        validation: ids or share of the users to choose settings on.
        test: ids or share of the users to report on.
        seed: draws the users of shares.

    Raises:
        TaskError: an id that is not in the data, or in two parts.
        ConfigError: lists beside shares, or shares that are negative, do not add up to 1 or leave a part without users.
    """
    _check(dataset)
    seed = whole_number("A seed feeds a random generator.", "seed", seed, 0)
    sequences = [sequence for sequence in _sequences(dataset, None) if len(sequence.items) > 1]
    given: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    numbers = {name for name, part in given.items() if isinstance(part, Real)}
    lists = set()
    for name, part in given.items():
        if name not in numbers and part is not None:
            if isinstance(part, str) or not isinstance(part, Collection):
                raise ConfigError(f"part {name!r} must be a list of user ids or a share, got {part!r:.80}. Pass one.")
            if len(part):  # an empty part fits beside ids and beside shares
                lists.add(name)
    if numbers and lists:
        raise ConfigError(
            f"parts must be all lists of user ids or all shares, got shares for {', '.join(sorted(numbers))} and lists "
            f"for {', '.join(sorted(lists))}. Pass one kind."
        )
    if numbers:
        part_of = _users_by_share(given, [sequence.user for sequence in sequences], seed)
    else:
        part_of = _users_by_id(given, dataset)
    in_train, in_validation, in_test = (
        tuple(sequence for sequence in sequences if part_of.get(sequence.user) == name) for name in given
    )
    return Split("split_users", dataset, in_train, in_validation, in_test)


def _users_by_share(given: Mapping[str, Any], users: Sequence[int], seed: int) -> dict[int, str]:
    """Part of each user, drawn by seed; each part has its share of the users, rounded."""
    shares = {name: float(part) for name, part in given.items() if isinstance(part, Real)}
    if given["train"] is None:
        shares["train"] = 1 - sum(shares.values())
    total = math.fsum(shares.values())
    if not all(0 <= share <= 1 for share in shares.values()) or abs(total - 1) > 1e-9:
        shown = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ConfigError(f"shares must be 0 or more and add up to 1, got {shown}, together {total:g}. Correct them.")
    order = np.random.default_rng(seed).permutation(users).tolist()
    part_of, taken, first = dict[int, str](), 0.0, 0
    for name in (name for name in given if name in shares):
        taken += shares[name]
        last = round(taken * len(order))
        if shares[name] > 0 and first == last:
            raise ConfigError(
                f"part {name!r} must have users, got a share of {shares[name]:g} of {len(order)} users with two items "
                "or more. Raise the share."
            )
        part_of |= dict.fromkeys(order[first:last], name)
        first = last
    return part_of


def _users_by_id(given: Mapping[str, Any], dataset: Dataset) -> dict[int, str]:
    """Part of each user, by the ids of the data; "train" of all others where it is None."""
    index_of = {user_id: user for user, user_id in enumerate(dataset.user_ids)}
    ids_of = {name: [id_text(one) for one in part] for name, part in given.items() if part is not None}
    unknown = [one for ids in ids_of.values() for one in ids if one not in index_of]
    if unknown:
        raise TaskError(
            f"users must be in the data, got {len(unknown)} of {dataset.name!r} that are not: {_some(unknown)}. Ids "
            f"there look like {_some(dataset.user_ids)}; see `dataset.user_ids`."
        )
    part_of: dict[int, str] = {}
    for name, ids in ids_of.items():
        both = [one for one in ids if part_of.get(index_of[one], name) != name]
        if both:
            raise TaskError(
                f"parts {part_of[index_of[both[0]]]!r} and {name!r} overlap: {len(both)} users are in both, "
                f"{_some(both)}. Put each user in one part."
            )
        part_of |= {index_of[one]: name for one in ids}
    if given["train"] is None:
        part_of = dict.fromkeys(range(dataset.num_users), "train") | part_of
    return part_of


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")


def published(dataset: Dataset) -> Split:
    """Divide users as the data say: by the publisher's own split, for instance AFL's of LastFM, or by a column of one's
    own table, see `from_interactions`. The last item of each held-out user is the target.

    AFL's has no order in time. In its files the items of every user ascend by artist id, so that the target is always
    the one of the highest id; here histories and training sequences are shuffled by a fixed seed.

    Raises:
        TaskError: the data come without one.
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

    def __contains__(self, user: object) -> bool:
        return user in range(len(self))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return self._dataset.num_users
