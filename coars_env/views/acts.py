"""Acts: what both sides can do, as numbers of one `Discrete`; from a number to words and back."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import Facet
from coars_env.observation import Action, Observation, askable_kinds, asked_kind, read_reveal
from coars_env.rendering.wording import DECLINE, question_text, wish_text
from coars_env.roles import RECOMMENDER, ROLES, Role, side_of
from coars_env.transcript import ACTIONS, STRENGTH_EDGES, clamp_strength

Mask = npt.NDArray[np.int8]

STEPS = 5
"""Strengths that an act can express for each of the four actions, .05 apart."""
NUM_ANSWERS = len(ACTIONS) * STEPS
"""Acts by which the user answers a proposal."""
ACT_STRENGTHS: tuple[float, ...] = tuple(
    clamp_strength(a, STRENGTH_EDGES[a] + 0.05 * k) for a in range(len(ACTIONS)) for k in range(STEPS)
)
"""Strength of each of these: .25 a + .05 k for act 5 a + k."""
RATIONALE = "This may be for you."
REPLIES = ("Not for me.", "Not now.", "I will keep it in mind.", "Yes, that one.")
"""What a side that thinks in numbers says for itself; the user, one sentence for each action."""
_DISLIKE = 0


@dataclass(frozen=True)
class Acts:
    """The acts of a game with K candidates, Q kinds of facets and V facets; the same numbers for both sides.

    | act | recommender | user |
    |---|---|---|
    | 0 .. K - 1 | proposes the candidate | |
    | K .. K + Q - 1 | asks for the kind | |
    | 0 .. 19 | | answers a proposal: act 5 a + k is action a with strength .25 a + .05 k |
    | 20 .. 20 + V - 1 | | reveals the facet: in answer to a question, or with a dislike of the proposal |
    | 20 + V | | declines to answer a question |
    | n - 1 | waits | waits |

    Without an instruction Q = V = 0: nothing is asked, revealed or declined.
    """

    num_candidates: int
    kinds: tuple[str, ...] = ()
    facets: tuple[Facet, ...] = ()
    """In the order of `facet_vocabulary`."""

    @cached_property
    def decline(self) -> int:
        """The user's act that answers a question and reveals nothing; 20 where there are no questions."""
        return NUM_ANSWERS + len(self.facets)

    @cached_property
    def n(self) -> int:
        """Number of acts, "wait" included."""
        return max(self.num_candidates + len(self.kinds), self.decline + bool(self.kinds)) + 1

    @property
    def wait(self) -> int:
        """The act that does nothing: what the silent side says."""
        return self.n - 1

    def to_action(self, act: int, role: Role, question: bool = False) -> Action:
        """Return an act in words, as `CoarsEnv` takes them. What is no act of the side now cannot be read.

        Args:
            act: the number.
            role: whose act it is.
            question: of the recommender, whether it may ask now; of the user, whether it is asked now.
        """
        act, k = int(act), self.num_candidates
        if role == RECOMMENDER:
            if 0 <= act < k:
                return {"item": act, "message": RATIONALE}
            asks = k <= act < k + len(self.kinds)
            if asks and question:
                kind = self.kinds[act - k]
                return {"ask": kind, "item": k, "message": question_text(kind)}
            reason = "asks where nothing may be asked" if asks else "names no candidate"
            return {"item": k, "message": "", "error": f"act {act} {reason}"}
        nothing: Action = {"action": len(ACTIONS), "strength": 0.0, "message": ""}
        if 0 <= act < NUM_ANSWERS and not question:
            action = act // STEPS
            return {"action": action, "strength": ACT_STRENGTHS[act], "message": REPLIES[action]}
        if NUM_ANSWERS <= act < self.decline:
            facet = self.facets[act - NUM_ANSWERS]
            message = wish_text(facet) if question else f"{REPLIES[_DISLIKE]} {wish_text(facet)}"
            strength = clamp_strength(_DISLIKE, None)
            return {"action": _DISLIKE, "strength": strength, "message": message, "reveal": str(facet)}
        if question and act == self.decline:
            return {**nothing, "message": DECLINE}
        return {**nothing, "error": f"act {act} is no answer{' to a question' if question else ''}"}

    def to_act(self, action: Action, role: Role, question: bool = False) -> int:
        """Return the act nearest to an action in words; "wait" where nothing could be read.

        It is the inverse of `to_action` on the acts that may be done. A facet that is revealed with a star or a click
        is left out: the answer counts for more.
        """
        if role == RECOMMENDER:
            if action.get("ask"):
                return (
                    self.num_candidates + self.kinds.index(action["ask"]) if action["ask"] in self.kinds else self.wait
                )
            return int(action["item"]) if action["item"] < self.num_candidates else self.wait
        kind, facet = int(action["action"]), read_reveal(action)
        if kind >= len(ACTIONS) and (action.get("error") or not question):
            return self.wait
        if facet in self.facets and (question or STRENGTH_EDGES[kind] < 0.5):
            return NUM_ANSWERS + self.facets.index(facet)
        if question:
            return self.decline
        above = clamp_strength(kind, float(action["strength"])) - STRENGTH_EDGES[kind]
        return kind * STEPS + min(round(above * 100) // STEPS, STEPS - 1)

    @cached_property
    def masks(self) -> Mask:
        """Which acts are legal: [2 sides, 2, 2, n], 0 or 1. The second axis is 1 in one's own half-turn; the third is
        `question` of `to_action`. In the other side's half-turn a side may only wait, which it may not in its own.
        """
        masks = np.zeros((len(ROLES), 2, 2, self.n), np.int8)
        masks[:, 0, :, -1] = 1
        masks[0, 1, :, : self.num_candidates] = 1
        masks[0, 1, 1, self.num_candidates : self.num_candidates + len(self.kinds)] = 1
        masks[1, 1, 0, : self.decline] = 1
        masks[1, 1, 1, NUM_ANSWERS : self.decline + bool(self.kinds)] = 1
        masks.flags.writeable = False
        return masks

    def mask(self, role: Role, *, question: bool = False, forbidden: Collection[int] = ()) -> Mask:
        """Return which acts a side may do in its own half-turn. [n], 0 or 1.

        Args:
            role: the side.
            question: see `to_action`.
            forbidden: candidates that the recommender must not propose, see `Dialogue.forbidden`.
        """
        mask: Mask = self.masks[side_of(role), 1, int(question)].copy()
        if forbidden and role == RECOMMENDER:
            mask[list(forbidden)] = 0
        return mask

    def mask_of(self, observation: Observation, role: Role) -> Mask:
        """Return which acts a side may do now, by what it observes; only "wait" in the other's half-turn. [n]."""
        if observation["speaker"] != (side := side_of(role)):
            waiting: Mask = self.masks[side, 0, 0].copy()
            return waiting
        forbidden = np.flatnonzero(1 - observation["allowed"]).tolist() if "allowed" in observation else ()
        return self.mask(role, question=question_open(observation, role), forbidden=forbidden)


def question_open(observation: Observation, role: Role) -> bool:
    """Whether the recommender may ask now, or the user is asked now, by what the side observes."""
    return bool(askable_kinds(observation)) if role == RECOMMENDER else asked_kind(observation) is not None
