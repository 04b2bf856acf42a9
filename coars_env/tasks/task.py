"""Task, EpisodeSet: one decision to be played, and a frozen, hashed list of them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from coars_env.datasets.dataset import OWN_KINDS, Dataset, Facet, Item, Provenance
from coars_env.errors import TaskError, expect
from coars_env.files import write_atomically
from coars_env.tasks.instruction import Instruction, check_instruction

EPISODES_VERSION = 3
"""Of files that hold instructions or groups; those without are of version 2, so that their digests stay."""
HISTORY_LENGTH = 10
"""Visible history: the last 10 items, as AFL and LLaRA (arXiv:2410.20027, arXiv:2312.02445)."""
NUM_CANDIDATES = 20
NUM_OPINIONS = 3
"""Peers whose opinion of an item is told; the paper is silent, so this is ours."""
OPINION_WIDTH = 3
"""Numbers of one opinion where it is stored: level, earlier item, later item."""
_LEVELS = frozenset((-1, 0, 1, 2))


class Opinion(NamedTuple):
    """What one peer who took an item has to say for it. Example: `Opinion(2, (4, 7))`: a peer much like the user took
    items 4 and 7, and then this one.
    """

    level: int
    """How alike peer and user are: 0, 1 or 2, see `SvdPeers`."""
    items: tuple[int, ...]
    """What the peer took right before it: at most two catalogue indices, oldest first. It may have been the first."""


@dataclass(frozen=True)
class Member:
    """One user of a group that decides together: what is its own in a task. See `Task.others`."""

    user: int
    history: tuple[int, ...]
    peer_similarity: tuple[float, ...] = ()
    opinions: tuple[int, ...] = ()
    instruction: Instruction | None = None


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
    opinions: tuple[int, ...] = ()
    """What peers say of each candidate, same order: nine numbers each, three opinions of level, earlier item and later
    item, nearest peer first; -1 where there is none. Empty means none throughout. `opinions_of` reads them."""
    retrieved: bool = False
    """Whether the candidates are what a retriever found, which may have missed the target. There is no hit then: every
    proposal is a miss, and is rewarded and counted as one. See `TopCandidates`."""
    instruction: Instruction | None = None
    """What the user wants now; seen by the user alone. None in the paper's game."""
    others: tuple[Member, ...] = ()
    """The other users of a group, who all took the target next; user, history, peer similarities, opinions and
    instruction of the task are those of `user_0`. Empty where one user plays."""

    def __post_init__(self) -> None:
        if self.others:
            self._check_others()
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
        width = NUM_OPINIONS * OPINION_WIDTH
        if self.opinions and len(self.opinions) != len(self.candidates) * width:
            raise TaskError(
                f"Opinions are told of each candidate. Expected {len(self.candidates)} times {width} numbers in task "
                f"{self.task_id!r}, found {len(self.opinions)}. Rebuild the set."
            )
        if not _LEVELS.issuperset(self.opinions[::OPINION_WIDTH]):
            raise TaskError(
                f"Peers are alike in one of three levels. Expected 0, 1 or 2, or -1 for no opinion, in task "
                f"{self.task_id!r}, found {sorted(set(self.opinions[::OPINION_WIDTH]))}. Rebuild the set."
            )

    def _check_others(self) -> None:
        tasks = [self.for_user(place) for place in range(self.num_users)]  # each is checked as it is made
        if len({task.user for task in tasks}) < len(tasks):
            found = [task.user for task in tasks]
            raise TaskError(f"The users of task {self.task_id!r} must be different, got {found}. Name each once.")
        kinds = {task.instruction.kinds if task.instruction else () for task in tasks}
        if len(kinds) > 1:
            raise TaskError(
                f"The users of task {self.task_id!r} have instructions of different kinds: {sorted(kinds)}. Draw them "
                "by one rule."
            )

    @property
    def num_users(self) -> int:
        """How many users decide together; 1 in the paper's game."""
        return 1 + len(self.others)

    @property
    def members(self) -> tuple[Member, ...]:
        """What is each user's own, in the order of the agents."""
        own = Member(self.user, self.history, self.peer_similarity, self.opinions, self.instruction)
        return (own, *self.others)

    def for_user(self, place: int) -> "Task":
        """Return the task as the user at this place has it alone, counted from 0; the task itself where one plays.

        Raises:
            TaskError: there is no such user.
        """
        if not 0 <= place < self.num_users:
            raise TaskError(f"Task {self.task_id!r} has {self.num_users} users, got place {place}. Count from 0.")
        own = vars(self.members[place])
        return dataclasses.replace(self, **own, others=()) if self.others else self

    def q(self, item: int) -> float:
        """Peer similarity of a candidate, in [-1, 1]; 0 where none was computed."""
        return self.peer_similarity[self.candidates.index(item)] if self.peer_similarity else 0.0

    def opinions_of(self, item: int) -> tuple[Opinion, ...]:
        """What peers say of a candidate, nearest first; empty where nobody does."""
        if not self.opinions:
            return ()
        width = NUM_OPINIONS * OPINION_WIDTH
        start = self.candidates.index(item) * width
        return read_opinions(self.opinions[start : start + width])


def read_opinions(numbers: Sequence[int]) -> tuple[Opinion, ...]:
    """Opinions of one item from the numbers they are stored as, see `Task.opinions`."""
    rows = [numbers[start : start + OPINION_WIDTH] for start in range(0, len(numbers), OPINION_WIDTH)]
    return tuple(Opinion(level, tuple(i for i in items if i >= 0)) for level, *items in rows if level >= 0)


@dataclass(frozen=True, eq=False, repr=False)
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
        kinds = {task.instruction.kinds if task.instruction else () for task in self.tasks}
        if len(kinds) > 1:
            raise TaskError(
                f"The tasks of {self.name!r} have instructions of different kinds: {sorted(kinds)}. Draw them by one "
                "rule, or split the set."
            )
        sizes = sorted({task.num_users for task in self.tasks})
        if len(sizes) > 1:
            raise TaskError(f"The tasks of {self.name!r} have different numbers of users: {sizes}. Split the set.")

    def __repr__(self) -> str:
        return f"EpisodeSet({self.name!r}, {len(self)} tasks, {self.provenance.source} data)"

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

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of facets that the two sides can talk about; empty without instructions."""
        instruction = self.tasks[0].instruction if self.tasks else None
        return instruction.kinds if instruction else ()

    @property
    def num_users(self) -> int:
        """How many users decide together in each task."""
        return self.tasks[0].num_users if self.tasks else 1

    @cached_property
    def _by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of name, provenance and tasks; independent of machine and process."""
        return _sha256([_json(self._head), *self._rows])

    @property
    def _head(self) -> dict[str, Any]:
        version = EPISODES_VERSION if any(t.instruction or t.others for t in self.tasks) else EPISODES_VERSION - 1
        head = {"version": version, "name": self.name, "provenance": dataclasses.asdict(self.provenance)}
        facets = {kind: [item.values(kind) for item in self.items] for kind in self.kinds if kind not in OWN_KINDS}
        return {**head, "facets": facets} if facets else head

    @property
    def _rows(self) -> list[str]:
        return [_json(task_row(task)) for task in self.tasks]

    def save(self, path: str | Path) -> None:
        """Write JSONL: a header line with the digest, then one task a line. Atomic.

        Facets that the game is about, but for genre and decade, are written too: what an item is like depends on a
        split, and not every copy of the data has its tags.

        Raises:
            ConfigError: nothing can be written there.
        """
        lines = [_json({**self._head, "sha256": self.sha256}), *self._rows]
        write_atomically(path, "".join(f"{line}\n" for line in lines))

    @classmethod
    def load(cls, path: str | Path, dataset: Dataset) -> "EpisodeSet":
        """Read what `save` wrote and check that not a byte has changed and that it belongs to the dataset.

        Raises:
            TaskError: not such a file, changed since it was written, or made from another dataset.
            ConfigError: it is no dataset.
        """
        expect(Dataset, dataset, "Episodes are of a dataset.", "Load the one that the file was made from.")
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
        if version not in (EPISODES_VERSION - 1, EPISODES_VERSION):
            raise TaskError(
                f"Episode files carry a version. Expected 2 or {EPISODES_VERSION} in {path}, found {version!r}. "
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
        try:
            tasks = tuple(task_from_row(json.loads(row)) for row in rows)
            items = _with_facets(dataset.items, head.get("facets", {}))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TaskError(
                f"An episode file must hold tasks, and facets of every item in its first line where its game is about "
                f"some. Expected one in each line of {path} but the first, found {error!r}. Write it again with "
                "EpisodeSet.save."
            ) from error
        return cls(name, tasks, items, provenance)


def _with_facets(items: tuple[Item, ...], facets: dict[str, list[list[str]]]) -> tuple[Item, ...]:
    """The items with these facets in place of their own of the same kinds."""
    for kind, values in facets.items():
        if not all(isinstance(value, str) for own in values for value in own):
            raise ValueError("facets are texts")
        items = tuple(
            dataclasses.replace(
                item, facets=(*(f for f in item.facets if f.kind != kind), *(Facet(kind, value) for value in own))
            )
            for item, own in zip(items, values, strict=True)
        )
    return items


def check_titles(task: Task, items: Sequence[Item]) -> None:
    """Refuse a candidate list in which two items read the same, or a task in which a user has an unknown item.

    Raises:
        TaskError: equal titles, or an index outside the catalogue.
    """
    for place in range(1, task.num_users):
        check_titles(task.for_user(place), items)
    told = [i for column in (1, 2) for i in task.opinions[column::OPINION_WIDTH] if i != -1]
    indices = (*task.candidates, *task.history, *told)
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
    if task.instruction is not None:
        check_instruction(task.instruction, task.task_id, task.target, items)


def task_row(task: Task) -> dict[str, Any]:
    """The fields of a task as they are stored. `retrieved` is left out where false, `opinions`, `instruction` and
    `others` where there are none.
    """
    row = _stored(task)
    if task.others:
        row["others"] = [_stored(member) for member in task.others]
    return row


def _stored(part: Task | Member) -> dict[str, Any]:
    optional = ("retrieved", "opinions", "instruction", "others")
    row = {name: value for name, value in vars(part).items() if value or name not in optional}
    if part.instruction is not None:
        row["instruction"] = {**vars(part.instruction), "facets": [list(facet) for facet in part.instruction.facets]}
    return row


def task_from_row(row: dict[str, Any]) -> Task:
    """Inverse of `task_row` after a trip through JSON.

    Raises:
        TaskError, ValueError, LookupError, TypeError: no task is stored so.
    """
    history, candidates, similarity = (tuple(row[key]) for key in ("history", "candidates", "peer_similarity"))
    retrieved, opinions = bool(row.get("retrieved", False)), tuple(row.get("opinions", ()))
    numbers = (row["user"], row["target"], *history, *candidates, *opinions)
    if {type(number) for number in numbers} != {int} or not isinstance(row["task_id"], str):
        raise ValueError("a task has a text as its id, and users, items and opinions are whole numbers")
    if not all(-1 <= q <= 1 for q in similarity):
        raise ValueError("a peer similarity lies in [-1, 1]")
    instruction = _read_instruction(row["instruction"]) if row.get("instruction") else None
    own = {"user", "history", "peer_similarity", "opinions", "instruction", "others"}
    shared = {name: value for name, value in row.items() if name not in own}
    others = tuple(task_from_row({**shared, **member}).members[0] for member in row.get("others", ()))
    user, target = row["user"], row["target"]
    return Task(row["task_id"], user, history, candidates, target, similarity, opinions, retrieved, instruction, others)


def _read_instruction(row: dict[str, Any]) -> Instruction:
    facets = tuple(Facet(*facet) for facet in row["facets"])
    if not all(isinstance(text, str) for text in (*row["kinds"], *(text for facet in facets for text in facet))):
        raise ValueError("kinds and facets are texts")
    return Instruction(facets, tuple(row["kinds"]), float(row["noise"]))


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
