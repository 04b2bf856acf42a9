"""FacetInstructions: draws what the user of a task wants now; with_likes, for facets that come from who took what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coars_env.datasets.dataset import Facet, IntArray, Item
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan, whole_number
from coars_env.tasks.instruction import Instruction, are_kinds, facet_kinds
from coars_env.tasks.splits import Split

NUM_LIKES = 10
"""Items that an item is like: its nearest ones. Our choice."""
LIKE = "like"

InstructionSampler = Callable[[int, np.random.Generator], Instruction]
"""(target, a catalogue index; generator) -> what the user wants."""


@dataclass(frozen=True)
class FacetInstructions:
    """Draws an `Instruction` for a target: at most `most` facets, each of another kind and true of the target.

    Example: `make("movielens", instructions=FacetInstructions(("genre", "decade")))`.

    Where the target has more kinds than `most`, kinds are drawn uniformly, and so is one value of each kind. What holds
    the title of the target is never drawn. A target that has none of the kinds gets an instruction without facets.

    Raises:
        ConfigError: no kinds, one twice, fewer than one facet, or a noise that is no probability.
    """

    kinds: tuple[str, ...]
    """What the game is about, such as "genre", "decade", "tag", "category", "brand" or "like"; see `facet_kinds`."""
    most: int = 2
    """Most facets of an instruction."""
    noise: float = 0.0
    """Chance that a facet is drawn from another random item that has the kind: a user who errs about its wish."""

    def __post_init__(self) -> None:
        kinds = self.kinds
        if not are_kinds(kinds):
            raise ConfigError(f"kinds must be one or more different words, got {kinds!r:.200}. Pass ('genre',), say.")
        object.__setattr__(self, "kinds", tuple(kinds))
        object.__setattr__(self, "most", whole_number("An instruction has facets.", "most", self.most, 1))
        if not 0 <= number_or_nan(self.noise) <= 1:
            raise ConfigError(f"noise must be a probability in [0, 1], got {self.noise!r}. Pass 0 for none.")

    def __str__(self) -> str:
        """The kinds, and what differs from the default: "genre+decade-noise0.1". Part of the names of episode sets."""
        most = "" if self.most == type(self).most else f"-most{self.most}"
        noise = f"-noise{self.noise:g}" if self.noise else ""
        return "+".join(self.kinds) + most + noise

    def of(self, items: Sequence[Item]) -> InstructionSampler:
        """Return the function that draws for targets of a catalogue.

        Raises:
            ConfigError: no item has one of the kinds.
        """
        known = facet_kinds(items)
        if missing := [kind for kind in self.kinds if kind not in known]:
            has = f"only {', '.join(map(repr, known))}" if known else "none"
            raise ConfigError(
                f"kinds must be in the data, got {', '.join(map(repr, missing))} where the items have {has}. Choose "
                f"among these, or {LIKE!r}, which `coars_env.builder` adds to any data."
            )
        holders = {kind: [i for i, item in enumerate(items) if item.values(kind)] for kind in self.kinds}

        def draw(target: int, rng: np.random.Generator) -> Instruction:
            title = items[target].title.casefold()

            def values(item: int, kind: str) -> list[str]:
                return [value for value in items[item].values(kind) if title not in value.casefold()]

            own = [kind for kind in self.kinds if values(target, kind)]
            facets = []
            for place in sorted(rng.permutation(len(own))[: self.most].tolist()):
                source, errs, others = target, rng.random() < self.noise, holders[own[place]]
                while errs and source == target and len(others) > 1:
                    source = others[rng.integers(len(others))]
                if choices := values(source, own[place]):
                    facets.append(Facet(own[place], choices[rng.integers(len(choices))]))
            return Instruction(tuple(facets), self.kinds, float(self.noise))

        return draw


def with_likes(split: Split) -> Split:
    """Return a copy of a split whose items know what they are like: `Facet("like", title)` of the nearest ten items.

    Nearness is the cosine of the sets of training sequences that hold two items; equal ones go by how many hold both,
    then by catalogue index. No item is like itself or another one of its title; an item that is not in the training
    part is like nothing. Provenance and digest of the data stay.

    Raises:
        ConfigError: it is no split.
        TaskError: no two items stand in one training sequence.
    """
    expect(Split, split, "Likeness is learnt from a split.", "`coars_env.load_split` makes one.")
    items, nearest = split.dataset.items, _nearest(split)
    if not any(len(near) for near in nearest):
        raise TaskError(
            f"Items are like others where they were taken together. Expected two items in a training sequence of "
            f"{split.name!r} of {split.dataset.name!r}, found none. Use more data."
        )
    liked = []
    for item, near in zip(items, nearest, strict=True):
        titles = dict.fromkeys(items[other].title for other in near.tolist())
        titles.pop(item.title, None)
        facets = tuple(Facet(LIKE, title) for title in list(titles)[:NUM_LIKES])
        liked.append(replace(item, facets=(*(facet for facet in item.facets if facet.kind != LIKE), *facets)))
    return replace(split, dataset=replace(split.dataset, items=tuple(liked)))


def _nearest(split: Split) -> list[IntArray]:
    """The nearest items of each, at least `NUM_LIKES` other ones where there are so many, nearest first."""
    sequences = [np.array(sequence.items, dtype=np.int64) for sequence in split.train]
    owners: list[list[int]] = [[] for _ in split.dataset.items]
    for row, sequence in enumerate(split.train):
        for item in sequence.items:
            owners[item].append(row)
    counts = np.array([len(rows) for rows in owners])
    nearest = []
    for item, rows in enumerate(owners):
        if not rows:
            nearest.append(np.empty(0, dtype=np.int64))
            continue
        together = np.bincount(np.concatenate([sequences[row] for row in rows]))
        together[item] = 0
        others = np.flatnonzero(together)
        both = together[others]
        cosine = both / np.sqrt(counts[others] * len(rows))
        # twice as many as needed, since titles may repeat
        nearest.append(others[np.lexsort((others, -both, -cosine))[: 2 * NUM_LIKES]])
    return nearest
