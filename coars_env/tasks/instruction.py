"""Instruction: what a user wants now, which no recommender sees; and how facets are put into observations."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coars_env.datasets.dataset import OWN_KINDS, Facet, Item, is_kind
from coars_env.errors import TaskError, expect, number_or_nan


@dataclass(frozen=True)
class Instruction:
    """Facets that a user wants in this task, and kinds of facets that the two sides can talk about.

    Example: `Instruction((Facet("genre", "Comedy"),), kinds=("genre", "decade"))`.

    Raises:
        TaskError: facets that are none, of a kind that is not among `kinds`, or one twice; a kind that is no word, or
            one twice; or a noise that is no probability.
    """

    facets: tuple[Facet, ...]
    """In the order in which they are shown to the user; empty where the target has none of these kinds."""
    kinds: tuple[str, ...]
    """What the recommender may ask for, and the user reveal; all tasks of an environment have the same."""
    noise: float = 0.0
    """Chance with which each facet was drawn from another item than the target. Above 0 a facet may contradict the
    target: the user errs about what it wants."""

    def __post_init__(self) -> None:
        if not are_kinds(self.kinds):
            raise TaskError(
                f"kinds must be one or more different words, got {self.kinds!r:.200}. Pass a tuple such as ('genre',)."
            )
        if isinstance(self.facets, str | Facet) or not isinstance(self.facets, Sequence):
            raise TaskError(f"facets must be a tuple of facets, got {self.facets!r:.200}. Pass () for none.")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "facets", tuple(self.facets))
        for facet in self.facets:
            if not isinstance(facet, Facet) or facet.kind not in self.kinds or not str(facet.value).strip():
                raise TaskError(f"A facet must be of one of the kinds {self.kinds}, got {facet!r:.200}.")
            if not isinstance(facet.value, str):
                raise TaskError(f"The value of a facet must be text, got {facet!r:.200}. Pass '1990s', not 1990.")
        if len(set(self.facets)) < len(self.facets):
            raise TaskError(f"An instruction must name each facet once, got {self.facets!r:.200}.")
        if not 0 <= number_or_nan(self.noise) <= 1:
            raise TaskError(f"noise must be a probability in [0, 1], got {self.noise!r}.")

    def __str__(self) -> str:
        """One facet a line, as the user observes it."""
        return "\n".join(map(str, self.facets))

    def fits(self, item: Item) -> bool:
        """Whether the item has every facet."""
        return all(has_facet(item, facet) for facet in self.facets)


def are_kinds(kinds: object) -> bool:
    """Whether these are one or more different kinds of facets, in order."""
    if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
        return False
    return all(map(is_kind, kinds)) and len(set(kinds)) == len(kinds)


def has_facet(item: Item, facet: Facet) -> bool:
    """Whether a facet is true of an item."""
    return facet.value in item.values(facet.kind)


@lru_cache(maxsize=64)
def _vocabulary(items: tuple[Item, ...], kinds: tuple[str, ...]) -> tuple[Facet, ...]:
    return tuple(
        Facet(kind, value) for kind in kinds for value in sorted({v for item in items for v in item.values(kind)})
    )


def facet_vocabulary(items: Sequence[Item], kinds: Sequence[str]) -> tuple[Facet, ...]:
    """Return all facets of a catalogue, kind after kind, the values of each in alphabetical order.

    The place of a facet in this tuple is its number in the numeric views.
    """
    return _vocabulary(tuple(items), tuple(kinds))


def facet_kinds(items: Sequence[Item]) -> tuple[str, ...]:
    """Return the kinds of facets that a catalogue has: genre and decade first, the others in alphabetical order."""
    own = (kind for kind in OWN_KINDS if any(item.values(kind) for item in items))
    return (*own, *sorted({facet.kind for item in items for facet in item.facets}))


def check_instruction(instruction: Instruction, task_id: str, target: int, items: Sequence[Item]) -> None:
    """Refuse an instruction that does not fit the catalogue or the target.

    Raises:
        ConfigError: it is no instruction.
        TaskError: a facet whose kind no item has; one that names the title of the target; or, without noise, one that
            is not true of the target.
    """
    expect(Instruction, instruction, f"Task {task_id!r} has an instruction.", "Pass an Instruction, or None.")
    item = items[target]
    for kind in instruction.kinds:
        if not any(other.values(kind) for other in items):
            raise TaskError(
                f"Task {task_id!r} is about facets of kind {kind!r}, which no item of the catalogue has. Choose a kind "
                "that the data hold."
            )
    for facet in instruction.facets:
        if item.title.casefold() in facet.value.casefold():
            raise TaskError(
                f"The instruction of task {task_id!r} names its target: {facet}. Choose another facet, since the "
                "title would give the answer away."
            )
        if not instruction.noise and not has_facet(item, facet):
            raise TaskError(
                f"The instruction of task {task_id!r} asks for {facet}, which its target {item.title!r} does not have. "
                "Correct it, or set the noise with which it was drawn."
            )
