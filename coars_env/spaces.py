"""The spaces of the game in words: what each side observes, what it may do, and whether an action is a member."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from coars_env.datasets.dataset import Facet, Item
from coars_env.observation import Action
from coars_env.roles import RECOMMENDER, USER, Role, agents_of
from coars_env.rules import Rules
from coars_env.tasks import HISTORY_LENGTH, NUM_OPINIONS, OPINION_WIDTH, facet_vocabulary
from coars_env.transcript import ACTIONS, LIKENESS, MAX_MESSAGE_LENGTH, clean_message
from coars_env.turns import clean_fields


class UnicodeText(spaces.Text):
    """Any string up to `max_length`, the empty one included. Gymnasium's own Text knows no blanks and no accents."""

    def __init__(self, max_length: int, seed: int | None = None) -> None:
        printable = "".join(chr(c) for c in range(32, 127))
        super().__init__(max_length, min_length=0, charset=printable, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"


class OneText(gymnasium.Space[str]):
    """One of several texts, the empty one for "none" among them."""

    def __init__(self, options: Sequence[str], seed: int | None = None) -> None:
        self.options = tuple(options)
        super().__init__(None, str, seed)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return self.options[int(self.np_random.integers(len(self.options)))]

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and x in self.options

    def __repr__(self) -> str:
        return f"OneText({len(self.options)} options such as {self.options[-1]!r:.40})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneText) and self.options == other.options


def observation_space(
    num_candidates: int,
    items: Sequence[Item],
    kinds: Sequence[str],
    rules: Rules,
    max_turns: int,
    *,
    role: Role = USER,
    num_users: int = 1,
) -> spaces.Dict:
    """The space of an agent's observations, see `CoarsEnv`. Those of a group differ in `history` only."""
    message = UnicodeText(MAX_MESSAGE_LENGTH)
    title = max(len(item.title) for item in items) + 16  # with its number or dash
    said = (1 + num_users) * (MAX_MESSAGE_LENGTH + 64) + NUM_OPINIONS * (2 * title + 64) + title
    facets = facet_vocabulary(items, kinds) if kinds else ()
    wish = max((len(str(facet)) for facet in facets), default=0) + 2
    listed = num_users * (HISTORY_LENGTH + 4) + num_candidates
    text = listed * title + max_turns * (said + num_users * wish) + len(facets) * wish
    highest = np.full((max_turns, NUM_OPINIONS, OPINION_WIDTH), len(items) - 1, np.int64)
    highest[..., 0] = len(LIKENESS) - 1

    def indices(n: int, high: int) -> spaces.Box:
        return spaces.Box(-1, high, (n,), np.int64)

    def of_users(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
        """The same for each user of a group."""
        if num_users == 1:
            return space
        if isinstance(space, spaces.Box):
            return spaces.Box(-1, space.high.flat[0], (num_users, *space.shape), space.dtype)
        return spaces.Tuple([space] * num_users)

    history = indices(HISTORY_LENGTH, len(items) - 1)
    parts: dict[str, gymnasium.Space[Any]] = {}
    if num_users > 1:
        parts["agent"] = spaces.Discrete(1 + num_users)
    if kinds:
        parts |= {
            "instruction": UnicodeText(len(facets) * wish),
            "kinds": UnicodeText(len("\n".join(kinds))),
            "askable": spaces.MultiBinary(len(kinds)),
            "questions": spaces.Tuple([OneText(["", *kinds])] * max_turns),
            "reveals": of_users(spaces.Tuple([UnicodeText(MAX_MESSAGE_LENGTH)] * max_turns)),
        }
    if rules.repeats == "forbidden":
        parts["allowed"] = spaces.MultiBinary(num_candidates)
    return spaces.Dict(
        {
            "text": UnicodeText(text),
            "speaker": spaces.Discrete(2),
            "turn": spaces.Discrete(max_turns + 1),
            "history": of_users(history) if role == RECOMMENDER else history,
            "candidates": indices(num_candidates, len(items) - 1),
            "proposals": indices(max_turns, len(items) - 1),
            "actions": of_users(indices(max_turns, len(ACTIONS) - 1)),
            "strengths": of_users(spaces.Box(-1.0, 1.0, (max_turns,), np.float32)),
            "opinions": spaces.Box(np.full_like(highest, -1), highest, dtype=np.int64),
            "rationales": spaces.Tuple([message] * max_turns),
            "replies": of_users(spaces.Tuple([message] * max_turns)),
            **parts,
        }
    )


def action_spaces(
    num_candidates: int, items: Sequence[Item], kinds: Sequence[str], rules: Rules, *, num_users: int = 1
) -> dict[str, spaces.Dict]:
    """Return each agent's action space, see `CoarsEnv`."""
    ask: dict[str, gymnasium.Space[Any]] = {"ask": OneText(["", *kinds])} if kinds and rules.questions else {}
    facets = ["", *map(str, facet_vocabulary(items, kinds))] if kinds else []
    reveal: dict[str, gymnasium.Space[Any]] = {"reveal": OneText(facets)} if kinds else {}
    return {
        RECOMMENDER: spaces.Dict(
            {"item": spaces.Discrete(num_candidates + 1), "message": UnicodeText(MAX_MESSAGE_LENGTH), **ask}
        ),
    } | {
        user: spaces.Dict(
            {
                "action": spaces.Discrete(len(ACTIONS) + 1),
                "strength": spaces.Box(0.0, 1.0, (), np.float32),
                "message": UnicodeText(MAX_MESSAGE_LENGTH),
                **reveal,
            }
        )
        for user in agents_of(num_users)[1:]
    }


def as_member(action: Action, space: gymnasium.Space[Any]) -> Action | None:
    """Return the action as a member of the space, its message cut to what the space allows; None if it is none.

    The keys `error` and `fields` are no part of the space and are kept. Missing keys `ask` and `reveal` mean "nothing",
    and an action that asks needs no `item`.

    Raises:
        ActionError: its `fields` are no mapping of texts.
    """
    if not isinstance(action, Mapping):
        return None
    member = {key: value for key, value in action.items() if key not in ("error", "fields")}
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    member |= {key: "" for key in ("ask", "reveal") if key in parts and key not in member}
    if isinstance(member.get("reveal"), Facet):
        member["reveal"] = str(member["reveal"])
    if member.get("ask") and "ask" in parts:
        nothing = parts["item"]
        assert isinstance(nothing, spaces.Discrete)
        member.setdefault("item", int(nothing.n) - 1)
    beside = {"error": action.get("error"), "fields": clean_fields(action)}
    if isinstance(member.get("message"), str):
        member["message"] = clean_message(member["message"])
    try:
        if "strength" in member:
            member["strength"] = np.asarray(member["strength"], dtype=np.float32)
        return {**member, **beside} if space.contains(member) else None
    except (TypeError, ValueError, OverflowError):  # what numpy cannot even read is no member
        return None
