"""TaskBuilder: from a sequence and a cut to a task; freeze, for a whole part of a split."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from coars_env.errors import TaskError, expect, whole_number
from coars_env.tasks.candidates import AnySampler, CandidateSampler, ConfusableCandidates, TopCandidates, check_enough
from coars_env.tasks.groups import Cut, TrainingGroups
from coars_env.tasks.instructions import FacetInstructions, InstructionSampler
from coars_env.tasks.peers import VectorPeers
from coars_env.tasks.splits import Split, UserSequence
from coars_env.tasks.task import HISTORY_LENGTH, NUM_CANDIDATES, EpisodeSet, Task


@dataclass(frozen=True)
class TaskBuilder:
    """Turns a sequence and a cut into a task: `builder(task_id, sequence, cut, rng)`. Objects in, no names.

    `batch` makes many at once, which is much faster where there are peers.
    """

    split: Split
    sampler: AnySampler
    peers: VectorPeers | None = None
    num_candidates: int = NUM_CANDIDATES
    exclude_owned: bool = True
    """True: negatives are never any item of the user. False: only the target and the visible history are barred, as
    LLaRA and AFL do, so that about one negative a list was in fact watched."""
    instructions: FacetInstructions | None = None
    """Draws what each user of a task wants, from a generator of its own: the candidates are those without it."""
    candidates: str = field(default="custom", init=False)
    """Name of the rule that draws the candidates, part of the names of episode sets. Only `coars_env.builder` sets it;
    a builder made by hand, or a changed copy of one, is "custom", so no set carries a wrong name."""

    def __post_init__(self) -> None:
        expect(Split, self.split, "Tasks are cut from a split.", "Divide a dataset by leave_last or another split.")
        expect(
            Callable | ConfusableCandidates | TopCandidates,
            self.sampler,
            "Candidates are drawn by a function, or are the best of a scorer.",
            "Pass uniform_candidates(num_items), a `CandidateSampler` of your own or `TopCandidates`.",
        )
        if self.peers is not None:
            expect(VectorPeers, self.peers, "Peers have opinions.", "Pass SvdPeers(split), or None.")
        whole_number("A choice needs candidates.", "num_candidates", self.num_candidates, 2)
        if self.instructions is not None:
            expect(FacetInstructions, self.instructions, "Instructions are drawn by a rule.", "Pass one, or None.")
            _ = self._wish  # refuses kinds that the data lack

    def __call__(self, task_id: str, sequence: UserSequence, cut: int, rng: np.random.Generator) -> Task:
        """The task whose target is `sequence.items[cut]` and whose history ends before it."""
        return self.batch([(task_id, sequence, cut, rng)])[0]

    def batch(self, wanted: Iterable[tuple[str, UserSequence, int, np.random.Generator]]) -> list[Task]:
        """One task for each; what is wanted next is asked for when the candidates of the one before are drawn."""
        return self.groups((task_id, [(sequence, cut)], rng) for task_id, sequence, cut, rng in wanted)

    def groups(self, wanted: Iterable[tuple[str, Sequence[Cut], np.random.Generator]]) -> list[Task]:
        """One task for each group of sequences, cut before the item that all took next; as `batch`.

        Negatives are no item of any user of the group, or, without `exclude_owned`, no item of any visible history.

        Raises:
            TaskError: the sequences of a group are cut before different items, or the best of a scorer are asked for.
        """
        alone, sizes = list[Task](), list[int]()
        for task_id, cuts, rng in wanted:
            sizes.append(len(cuts))
            alone += self._without_peers(task_id, cuts, rng)
        tasks = iter(self._with_peers(alone))
        groups = [[next(tasks) for _ in range(size)] for size in sizes]
        return [
            dataclasses.replace(first, others=tuple(task.members[0] for task in rest)) if rest else first
            for first, *rest in groups
        ]

    def _with_peers(self, tasks: list[Task]) -> list[Task]:
        if self.peers is None:
            return tasks
        said = self.peers.batch([(task.user, task.history, task.candidates) for task in tasks])
        return [
            dataclasses.replace(task, peer_similarity=own.similarity, opinions=own.opinions)
            for task, own in zip(tasks, said, strict=True)
        ]

    def _without_peers(self, task_id: str, cuts: Sequence[Cut], rng: np.random.Generator) -> list[Task]:
        """The task of each user of a group, all with the same candidates."""
        histories, owned = list[tuple[int, ...]](), frozenset[int]()
        for sequence, cut in cuts:
            self._check_cut(task_id, sequence, cut)
            histories.append(sequence.items[max(0, cut - HISTORY_LENGTH) : cut])
            own = self.split.owned_by(sequence.user) if self.exclude_owned else histories[-1]
            owned = owned.union(own) if owned else frozenset(own)
        targets = {sequence.items[cut] for sequence, cut in cuts}
        if len(targets) > 1:
            raise TaskError(f"The users of task {task_id!r} must take one item, got {sorted(targets)}. Cut elsewhere.")
        (target,) = targets
        if isinstance(self.sampler, TopCandidates):
            if len(cuts) > 1:
                raise TaskError("TopCandidates are the best for one history. Draw those of groups by a sampler.")
            listed = self._best(self.sampler, histories[0], target, owned)
            retrieved = not self.sampler.keep_target
        else:
            sampler = self.sampler.of(target) if isinstance(self.sampler, ConfusableCandidates) else self.sampler
            listed, retrieved = [target, *self._negatives(sampler, target, owned | {target}, rng)], False
        candidates = tuple(listed[i] for i in rng.permutation(self.num_candidates))
        wishes = [None if self._wish is None else self._wish(target, rng.spawn(1)[0]) for _ in cuts]
        return [
            Task(task_id, sequence.user, history, candidates, target, retrieved=retrieved, instruction=wish)
            for (sequence, _), history, wish in zip(cuts, histories, wishes, strict=True)
        ]

    def _check_cut(self, task_id: str, sequence: UserSequence, cut: int) -> None:
        if not 0 <= cut < len(sequence.items):
            raise TaskError(
                f"A sequence is cut at one of its items. Expected a place in 0..{len(sequence.items) - 1} of user "
                f"{sequence.user} for task {task_id!r}, found {cut}. Cut elsewhere."
            )

    @cached_property
    def _wish(self) -> InstructionSampler | None:
        return None if self.instructions is None else self.instructions.of(self.split.dataset.items)

    def _best(self, top: TopCandidates, history: Sequence[int], target: int, barred: frozenset[int]) -> list[int]:
        best = top.best(history, target, barred, self.split.dataset.items)
        listed = list(islice(best, self.num_candidates))
        check_enough(len(listed), self.num_candidates)
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
            found = sampler(barred, missing, rng)
            drawn = np.asarray(found).ravel().tolist()
            known = all(type(item) is int and 0 <= item < len(items) for item in drawn)
            if not known or not set(drawn).isdisjoint(barred) or len(set(drawn)) != missing:
                raise TaskError(
                    f"A candidate sampler must keep to what it is asked for. Expected {missing} different items that "
                    f"are not barred, found {found!r:.200}. Correct the sampler."
                )
            barred = barred.union(drawn)
            for item in drawn:
                chosen.setdefault(items[item].title, item)
        return list(chosen.values())[1:]


def freeze(builder: TaskBuilder, subset: str, *, draw: int = 0, seed: int = 0) -> EpisodeSet:
    """One task for the last item of each sequence, or group, of "test", "validation" or "train", in the split's order.

    Args:
        builder: split, candidate sampler, peers and instructions; the set is named by its rule,
            `TaskBuilder.candidates`, and by the kinds of facets.
        subset: which part of the split.
        draw: number of the candidate draw; tasks of two draws differ in candidates, order and instruction only.
        seed: seed of the family of draws.

    Raises:
        TaskError: nobody is in that part, or there are too few items for such lists.
        ConfigError: there is no such part, or a number is negative or none.
    """
    expect(TaskBuilder, builder, "Tasks are made by a builder.", "`coars_env.builder(split)` makes one.")
    split, groups = builder.split, builder.split.groups(subset)
    draw = whole_number("Draws and seeds are counted from 0.", "draw", draw, 0)
    seed = whole_number("Draws and seeds are counted from 0.", "seed", seed, 0)
    stem = f"{split.name}-{subset}-{builder.candidates}-d{draw}"
    tasks = builder.groups(
        (f"{stem}-{row:04d}", [(s, len(s.items) - 1) for s in group], np.random.default_rng([seed, draw, row]))
        for row, group in enumerate(groups)
    )
    name = f"{split.dataset.name}/{split.name}/{subset}/{builder.candidates}/d{draw}"
    if builder.instructions is not None:
        name += f"/{builder.instructions}"
    return EpisodeSet(name, tuple(tasks), split.dataset.items, split.dataset.provenance)


def sample_train_tasks(builder: TaskBuilder, n: int, rng: np.random.Generator, *, prefix: str) -> list[Task]:
    """Fresh training tasks of n distinct users (repeated only when n exceeds their number), cut at a random place.

    At least three items stand before the cut where the sequence is long enough. Candidates are drawn anew for each, so
    the set of training tasks has no end and no file. Of a split with groups, each user comes with others, drawn from
    those who took the same item.

    Raises:
        TaskError: nobody is trained on, no item was taken by so many users, or there are too few items for such lists.
        ConfigError: a negative number of tasks, or no generator.
    """
    n = whole_number("Tasks are counted.", "n", n, 0)
    expect(np.random.Generator, rng, "Tasks are drawn from a generator.", "Pass numpy.random.default_rng(seed).")
    sequences = [sequence for sequence in builder.split.train if len(sequence.items) > 1]
    if not sequences:
        raise TaskError(
            f"Training tasks are cut from training sequences. Expected one of two items or more in split "
            f"{builder.split.name!r} of {builder.split.dataset.name!r}, found none. Use more data."
        )
    if builder.split.num_users > 1:
        return _sample_groups(builder, sequences, n, rng, prefix)
    rows: list[int] = []
    while len(rows) < n:
        rows.extend(rng.permutation(len(sequences)).tolist())

    def cut_at_random() -> Iterator[tuple[str, UserSequence, int, np.random.Generator]]:
        for number, row in enumerate(rows[:n]):
            sequence = sequences[row]
            cut = int(rng.integers(min(3, len(sequence.items) - 1), len(sequence.items)))
            yield f"{prefix}-{number:04d}", sequence, cut, rng

    return builder.batch(cut_at_random())


def _sample_groups(
    builder: TaskBuilder, sequences: Sequence[UserSequence], n: int, rng: np.random.Generator, prefix: str
) -> list[Task]:
    split, drawn = builder.split, list[tuple[Cut, ...]]()
    training = TrainingGroups(sequences, split.num_users)
    while len(drawn) < n:
        before = len(drawn)
        for row in rng.permutation(len(sequences)).tolist():
            group = training.draw(sequences[row], rng) if len(drawn) < n else ()
            drawn += [group] if group else []
        if len(drawn) == before:
            raise TaskError(f"No item of the training part of {split!r} was taken by {split.num_users} users.")
    return builder.groups((f"{prefix}-{number:04d}", group, rng) for number, group in enumerate(drawn))
