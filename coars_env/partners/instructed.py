"""Users with an instruction: one that says truthfully what it wants, one that is silent, one that is mixed up."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from coars_env.datasets.dataset import Facet, Item
from coars_env.errors import ConfigError, TaskError, expect, number_or_nan
from coars_env.observation import Action, Observation, history_of, instruction_of, kinds_of, reveals_of
from coars_env.partners.users import ScorerUser, decline, nothing_offered, proposal_of, question_of
from coars_env.rendering.wording import wish_text
from coars_env.tasks import Instruction, Task, has_facet
from coars_env.transcript import ACTIONS, STRENGTH_EDGES

_, _SKIP, _STAR, _CLICK = STRENGTH_EDGES


class InstructedUser:
    """Knows what it wants, says so when asked, and clicks the first proposal that has all of it and is to its taste.

    Asked for a kind, it reveals the first facet of that kind in its instruction that it has not revealed yet, else one
    it has, and declines where there is none. Any other proposal it rejects, with a strength that is half the mean of
    the share of wanted facets that the item has and its taste for it, below .5; and with probability `volunteer` it
    then also reveals a facet that is still unsaid, first one that the proposal lacks. Without an instruction it wants
    nothing and judges by taste alone. Example: `InstructedUser(episodes.items)`.

    Args:
        items: the catalogue.
        volunteer: the chance that a rejection carries a facet.
        taste: judges proposals; what it would star or click is to this user's taste. None: everything is.

    Raises:
        ConfigError: `volunteer` is no probability, or the taste is no `ScorerUser`.
    """

    def __init__(self, items: Sequence[Item], *, volunteer: float = 0.5, taste: ScorerUser | None = None) -> None:
        if not 0 <= number_or_nan(volunteer) <= 1:
            raise ConfigError(f"volunteer must be a probability in [0, 1], got {volunteer!r}. Use 0.5.")
        if taste is not None:
            expect(ScorerUser, taste, "Taste is judged by a score.", "Pass ScorerUser.fit(...), or None.")
        self._items, self._volunteer, self._taste = items, volunteer, taste

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return {n: self._answer(n, observation) for n, observation in observations.items()}

    def wants(self, n: int, observation: Observation) -> tuple[Facet, ...]:
        """Return the facets by which the user judges in dialogue n."""
        return instruction_of(observation)

    def says(self, n: int, observation: Observation) -> tuple[Facet, ...]:
        """Return the facets that the user reveals from in dialogue n, in order."""
        return instruction_of(observation)

    def _answer(self, n: int, observation: Observation) -> Action:
        said = reveals_of(observation)
        facets = sorted(self.says(n, observation), key=lambda facet: facet in said)  # the unsaid first
        if kind := question_of(observation):
            return decline(next((facet for facet in facets if facet.kind == kind), None))
        if proposal_of(observation) < 0:
            return nothing_offered()
        item, wanted = self._items[proposal_of(observation)], self.wants(n, observation)
        fit = float(np.mean([has_facet(item, facet) for facet in wanted])) if wanted else 1.0
        taste = 1.0 if self._taste is None else self._taste.strength(observation)
        if fit == 1 and taste >= _STAR:
            strength = _CLICK + (1 - _CLICK) * taste
            return {"action": ACTIONS.index("click"), "strength": strength, "message": "Yes, that one."}
        unsaid = sorted((f for f in facets if f not in said), key=lambda facet: has_facet(item, facet))
        strength = (fit + taste) / 2 * _STAR
        answer = {"action": int(strength >= _SKIP), "strength": strength, "message": "Not that one."}
        if unsaid and self._rngs[n].random() < self._volunteer:
            answer |= {"message": f"Not that one. {wish_text(unsaid[0])}", "reveal": str(unsaid[0])}
        return answer


class SilentUser(InstructedUser):
    """Judges as an `InstructedUser` and never reveals what it wants: a control for what words bring."""

    def says(self, n: int, observation: Observation) -> tuple[Facet, ...]:
        return ()


class ShuffledUser(InstructedUser):
    """Reveals by the instruction of another task, drawn by seed from `tasks`, and judges by its own.

    A control: the words are as many and as natural, but tell nothing of the target beyond what all targets share.

    Args:
        items: the catalogue.
        tasks: with instructions of the game that is played; those with the user's own history are passed over.
        whole: True also judges by the other instruction, so that nothing is left of its own.
        volunteer, taste: see `InstructedUser`.

    Raises:
        ConfigError: as `InstructedUser`.
        TaskError: a task without an instruction; in `act`, no task of another history that has the kinds played.
    """

    def __init__(
        self,
        items: Sequence[Item],
        tasks: Iterable[Task],
        *,
        whole: bool = False,
        volunteer: float = 0.5,
        taste: ScorerUser | None = None,
    ) -> None:
        super().__init__(items, volunteer=volunteer, taste=taste)
        self._whole = whole
        self._others: list[tuple[frozenset[tuple[int, ...]], Instruction]] = []
        for task in tasks:
            expect(Task, task, "Instructions are part of tasks.", "Pass the episode set that is played.")
            if task.instruction is None:
                raise TaskError(f"Task {task.task_id!r} has no instruction to reveal. Pass episodes with instructions.")
            histories = frozenset(member.history for member in task.members)
            self._others += [(histories, member.instruction) for member in task.members if member.instruction]

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        super().start(seeds)
        self._firsts = [rng.integers(2**31) for rng in self._rngs]

    def wants(self, n: int, observation: Observation) -> tuple[Facet, ...]:
        return self.says(n, observation) if self._whole else instruction_of(observation)

    def says(self, n: int, observation: Observation) -> tuple[Facet, ...]:
        kinds, own = kinds_of(observation), tuple(history_of(observation))
        if not kinds:
            return ()
        first = int(self._firsts[n])
        for step in range(len(self._others)):
            histories, instruction = self._others[(first + step) % len(self._others)]
            if own not in histories and instruction.kinds == kinds:
                return instruction.facets
        raise TaskError(
            f"None of {len(self._others)} tasks has instructions of kinds {kinds} and another history than {own}. Pass "
            "the episode set that is played."
        )
