"""Groups: users of the log who took the same item next, for games in which several users decide together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coars_env.errors import TaskError, expect, whole_number
from coars_env.tasks.splits import Split, UserSequence

LAST = 5
"""Of how many last items a group shares one (our choice)."""
Cut = tuple[UserSequence, int]
"""A sequence and the place of its target."""


def hold_out_groups(split: Split, num_users: int, *, last: int = LAST, seed: int = 0) -> Split:
    """Return the split with groups of users in place of single ones, named for instance "leave_last_groups_3".

    A group are users whose sequences in the held-out part have an item in common among the `last` items of each, not
    as the first. That item is what they decide about: each one's history ends right before it, so none holds it or
    what came after it. No earlier part of the split keeps it, or what came after it, in the sequence of a user of the
    group: training ends there. Other users' training sequences stay.

    Users are taken in an order drawn by seed; each takes one of its last items, in an order drawn likewise, that enough
    users share who are in no group yet, and as many of them by lot. Every user is in one group at most; users without
    company are left out of the part. With 3 users, leave-last of MovieLens 100K has 289 groups.

    Example: `freeze(builder(hold_out_groups(load_split("movielens"), 3)), "test")`.

    Args:
        split: single users; groups are made of its validation and test parts.
        num_users: of a group.
        last: how many last items count.
        seed: draws the groups.

    Raises:
        TaskError: the part that is tested has no group of this size, or the split has groups already.
        ConfigError: it is no split, or a number is too small.
    """
    expect(Split, split, "Groups are held out from a split.", "`coars_env.load_split` makes one.")
    num_users = whole_number("Groups have users.", "num_users", num_users, 2)
    last = whole_number("Last items are counted.", "last", last, 1)
    seed = whole_number("A seed feeds a random generator.", "seed", seed, 0)
    if split.num_users > 1:
        raise TaskError(f"{split!r} has groups of {split.num_users} already. Pass the split that they were made from.")
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for number, part in ((2, "test"), (1, "validation")):
        groups = _groups(parts[part], num_users, last, np.random.default_rng([seed, number]))
        if part == "test" and not groups:
            most = max(map(len, _sharing(parts[part], last).values()), default=0)
            raise TaskError(
                f"No {num_users} users of {split!r} share one of their last {last} items: at most {most} do. Ask for "
                "smaller groups, or count more items with `last`."
            )
        cuts = {sequence.user: sequence.items[place] for group in groups for sequence, place in group}
        parts[part] = tuple(UserSequence(s.user, s.items[: place + 1]) for group in groups for s, place in group)
        for earlier in list(parts)[:number]:
            parts[earlier] = _ended(parts[earlier], cuts)
    name, train = f"{split.name}_groups_{num_users}", parts["train"]
    validation, test = parts["validation"], parts["test"]
    return replace(split, name=name, num_users=num_users, train=train, validation=validation, test=test)


def _sharing(sequences: Sequence[UserSequence], last: int | None) -> dict[int, list[Cut]]:
    """Whose last items each item is among, and where; not as the first item of a sequence."""
    found: dict[int, list[Cut]] = {}
    for sequence in sequences:
        size = len(sequence.items)
        for place in range(max(1, size - last) if last is not None else _first(sequence), size):
            found.setdefault(sequence.items[place], []).append((sequence, place))
    return found


def _first(sequence: UserSequence) -> int:
    """The first place at which a training sequence is cut: after three items where it is long enough."""
    return min(3, len(sequence.items) - 1)


def _groups(
    sequences: Sequence[UserSequence], num_users: int, last: int, rng: np.random.Generator
) -> list[tuple[Cut, ...]]:
    sharing, grouped, groups = _sharing(sequences, last), set[int](), list[tuple[Cut, ...]]()
    for row in rng.permutation(len(sequences)).tolist():
        sequence = sequences[row]
        places = range(max(1, len(sequence.items) - last), len(sequence.items))
        for place in rng.permutation(np.array(places, np.int64)).tolist() if sequence.user not in grouped else ():
            group = _company((sequence, place), sharing[sequence.items[place]], num_users, rng, grouped)
            if group:
                groups.append(group)
                grouped.update(member.user for member, _ in group)
                break
    return groups


def _company(
    own: Cut, sharing: Sequence[Cut], num_users: int, rng: np.random.Generator, barred: set[int]
) -> tuple[Cut, ...]:
    """The first user and others by lot, all different; empty where there are too few."""
    free = {cut[0].user: cut for cut in sharing if cut[0].user != own[0].user and cut[0].user not in barred}
    others = list(free.values())
    if len(others) < num_users - 1:
        return ()
    return (own, *(others[k] for k in rng.choice(len(others), num_users - 1, replace=False).tolist()))


def _ended(sequences: Sequence[UserSequence], cuts: dict[int, int]) -> tuple[UserSequence, ...]:
    """The sequences, ended before what their users decide about; empty ones are left out."""
    ended = []
    for sequence in sequences:
        target = cuts.get(sequence.user)
        items = sequence.items[: sequence.items.index(target)] if target in sequence.items else sequence.items
        if items:
            ended.append(UserSequence(sequence.user, items))
    return tuple(ended)


class TrainingGroups:
    """Groups of training users who took the same item: `TrainingGroups(split.train, 3).draw(sequence, rng)`."""

    def __init__(self, sequences: Sequence[UserSequence], num_users: int) -> None:
        self._num_users = num_users
        self._sharing = _sharing(sequences, None)

    def draw(self, sequence: UserSequence, rng: np.random.Generator) -> tuple[Cut, ...]:
        """A user with others, cut before an item drawn from those that enough users took; empty if there is none."""
        places = [
            place
            for place in range(_first(sequence), len(sequence.items))
            if len({cut[0].user for cut in self._sharing[sequence.items[place]]}) >= self._num_users
        ]
        if not places:
            return ()
        place = places[int(rng.integers(len(places)))]
        return _company((sequence, place), self._sharing[sequence.items[place]], self._num_users, rng, set())
