"""UserTest: AFL's test of a user agent (arXiv:2410.20027, 4.1.2). Would this user take this item?"""

import hashlib
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from coars_env.datasets.dataset import Item, Provenance
from coars_env.datasets.lastfm import read_afl_users
from coars_env.errors import ConfigError, TaskError, expect, whole_number
from coars_env.tasks import HISTORY_LENGTH, Split, Task, UserSequence, VectorPeers

_STREAM = 0xAF1
"""Keeps the generator of a user apart from those of the tasks, which are seeded by (seed, draw, row) too."""
RESERVED = 10
RESERVED_RATIOS = {"1:1": (10, 10), "1:3": (5, 15), "1:9": (2, 18)}
HELD_OUT_RATIOS = {"1:1": (1, 1), "1:3": (1, 3), "1:9": (1, 9)}


@dataclass(frozen=True)
class UserItems:
    """What one user is asked. Example: `UserItems(user=7, history=(4, 2), positives=(5,), negatives=(1, 0, 3))`."""

    user: int
    history: tuple[int, ...]
    positives: tuple[int, ...]
    """Items the user took after the history, in that order."""
    negatives: tuple[int, ...]
    """Items the user never took."""
    opinions: tuple[int, ...] = ()
    """What peers say of each of the `questions`, as in `Task.opinions`."""

    @property
    def questions(self) -> tuple[int, ...]:
        """Positives, then negatives."""
        return (*self.positives, *self.negatives)


@dataclass(frozen=True, eq=False)
class UserTest:
    """AFL's test of a user agent (arXiv:2410.20027, 4.1.2): would this user take this item? See `user_test`."""

    name: str
    users: tuple[UserItems, ...]
    ratios: dict[str, tuple[int, int]]
    """Name -> how many positives and how many negatives of each user, each the first of its list."""
    skipped: int
    """Users with too few interactions."""
    items: tuple[Item, ...]
    provenance: Provenance

    @property
    def sha256(self) -> str:
        """Hex digest of the questions; independent of machine and process."""
        body = {
            "name": self.name,
            "provenance": asdict(self.provenance),
            "users": [asdict(user) for user in self.users],
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def tasks(self) -> list[Task]:
        """One task per question, user by user. Its target is the item in question where that is a positive, and the
        first positive where it is not: "hit" then says whether yes is right.
        """
        return [
            Task(
                f"{self.name}-{row:04d}-{number:02d}",
                user.user,
                user.history,
                user.questions,
                item if item in user.positives else user.positives[0],
                opinions=user.opinions,
            )
            for row, user in enumerate(self.users)
            for number, item in enumerate(user.questions)
        ]


def user_test(
    split: Split, subset: str = "test", *, draw: int = 0, seed: int = 0, peers: VectorPeers | None = None
) -> UserTest:
    """The questions of a held-out part, the same for every agent.

    Users without training text (LLaRA's split) follow AFL: the last 10 items are reserved, the history is the last 10
    before them, positives are the first 10, 5 or 2 of the reserved, negatives 10, 15 or 18 random items the user never
    took. Users without an item before the reserved ones are skipped.

    Where the users' earlier items are training text (`leave_last`) reserved ones would have been trained on. There, in
    our adaptation, the held-out item is the only positive, with 1, 3 or 9 negatives.

    Ratios share questions, so each question is asked once: 28 or 10 a user. The generator of a user is seeded by seed,
    draw and row. No negative has the title of an item of the user.

    Args:
        split: the data.
        subset: "validation" or "test".
        draw: number of the draw of negatives.
        seed: seed of the family of draws.
        peers: say their opinion of every item in question, as in the game; pass those of its tasks,
            `builder(...).peers`. None leaves opinions out.

    Raises:
        TaskError: nobody is in that part, all have too few interactions, or there are too few items to ask about.
        ConfigError: there is no such part, or a number is negative or none.
    """
    expect(Split, split, "Users are taken from a split.", "`load_split` makes one.")
    if subset not in ("test", "validation"):
        raise ConfigError(f"Users are tested on a held-out part. Expected 'test' or 'validation', found {subset!r}.")
    if peers is not None:
        expect(VectorPeers, peers, "Opinions are those of peers.", "Pass `builder(split).peers`, or None.")
    part = split.part(subset)
    draw = whole_number("Draws and seeds are counted from 0.", "draw", draw, 0)
    seed = whole_number("Draws and seeds are counted from 0.", "seed", seed, 0)
    trained = {sequence.user for sequence in split.train}
    seen = any(sequence.user in trained for sequence in part)
    reserved, ratios = (1, HELD_OUT_RATIOS) if seen else (RESERVED, RESERVED_RATIOS)
    num_negatives = max(negatives for _, negatives in ratios.values())
    asked = [
        _user_items(split, sequence, reserved, num_negatives, np.random.default_rng([seed, draw, row, _STREAM]))
        for row, sequence in enumerate(part)
    ]
    users = [user for user in asked if user.history and user.positives]
    if not users:
        raise TaskError(
            f"Somebody must be asked. Expected a user with an item before the last {reserved} in {subset!r} of "
            f"{split!r}, found none: all {len(part)} have too few interactions. Use longer histories."
        )
    if peers is not None:
        said = peers.batch([(user.user, user.history, user.questions) for user in users])
        users = [replace(user, opinions=own.opinions) for user, own in zip(users, said, strict=True)]
    return UserTest(
        name=f"{split.dataset.name}/{split.name}/{subset}/user-simulation/d{draw}",
        users=tuple(users),
        ratios=ratios,
        skipped=len(part) - len(users),
        items=split.dataset.items,
        provenance=split.dataset.provenance,
    )


def afl_user_test(split: Split, *, data_dir: str | Path | None = None, draw: int = 0, seed: int = 0) -> UserTest:
    """AFL's test with its own 60 users of LastFM, by the same rules: the last ten of a user's list are reserved, the
    history is what stands before them, and negatives are none of the user's artists. See `read_afl_users`.

    They are no users of the split, so no peers speak. All of them own the artists of a test row of the split, and most
    share half of theirs or more with a training row.

    Args:
        split: of LastFM, variant "afl".
        data_dir: where the file lies, see `load_lastfm`.
        draw: number of the draw of negatives.
        seed: seed of the family of draws.

    Raises:
        ConfigError: the split is of other data, or a number is negative or none.
        DatasetError: the file is missing or damaged.
    """
    expect(Split, split, "Users are tested on a split.", "`load_split` makes one.")
    place_of = {name: place for place, name in enumerate(split.dataset.item_ids)}
    draw = whole_number("Draws and seeds are counted from 0.", "draw", draw, 0)
    seed = whole_number("Draws and seeds are counted from 0.", "seed", seed, 0)
    rows = read_afl_users(data_dir=data_dir)
    if split.dataset.name != "lastfm-afl" or not all(artist in place_of for _, owned in rows for artist in owned):
        raise ConfigError(
            f"AFL's users are of AFL's LastFM. Expected a split of lastfm-afl, found one of {split.dataset.name!r}. "
            'Pass load_split("lastfm", variant="afl").'
        )
    users = []
    for number, (shown, full) in enumerate(rows):
        items, owned = tuple(place_of[artist] for artist in shown), {place_of[artist] for artist in full}
        negatives = _negatives(split.dataset.items, owned, 18, np.random.default_rng([seed, draw, number, _STREAM]))
        cut = len(items) - RESERVED
        users.append(UserItems(number, items[max(0, cut - HISTORY_LENGTH) : cut], items[cut:], negatives))
    return UserTest(
        name=f"{split.dataset.name}/afl-users/user-simulation/d{draw}",
        users=tuple(users),
        ratios=RESERVED_RATIOS,
        skipped=0,
        items=split.dataset.items,
        provenance=split.dataset.provenance,
    )


def _user_items(
    split: Split, sequence: UserSequence, reserved: int, num_negatives: int, rng: np.random.Generator
) -> UserItems:
    owned = split.owned[sequence.user] | set(sequence.items)
    negatives = _negatives(split.dataset.items, owned, num_negatives, rng)
    cut = max(0, len(sequence.items) - reserved)
    history = sequence.items[max(0, cut - HISTORY_LENGTH) : cut]
    positives = tuple(item for item in dict.fromkeys(sequence.items[cut:]) if item not in history)
    return UserItems(sequence.user, history, positives, negatives)


def _negatives(
    items: Sequence[Item], owned: AbstractSet[int], wanted: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Items that are not owned, nor have the title of one, in random order."""
    titles = {items[item].title for item in owned}
    negatives: list[int] = []
    for item in rng.permutation(len(items)).tolist():
        if len(negatives) == wanted:
            break
        if item not in owned and items[item].title not in titles:
            titles.add(items[item].title)
            negatives.append(item)
    if len(negatives) < wanted:
        raise TaskError(
            f"There must be enough items the user never took. Expected {wanted}, found {len(negatives)}. "
            "Test users on a larger catalogue."
        )
    return tuple(negatives)
