"""Controls: a user whose words, or whose instruction, are not its own. Do the words help, or something else?

They wrap any agent that plays a user. If a recommender does as well with one of them, what it gained did not come from
the words (`ShuffledWords`, `WithoutWords`), or not from the user at all (`OtherInstruction`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coars_env.errors import ConfigError, expect
from coars_env.observation import Action, Observation, as_one, num_users_of, read_reveal
from coars_env.partners.agent import Agent, check_plays
from coars_env.rendering.text import answer_text, instruction_text
from coars_env.tasks import Task
from coars_env.transcript import ACTIONS, Answer, Turn, clean_message

_STREAM = 0xC0
"""Keeps the generators of controls apart from those of the agents, which are seeded by the same numbers."""


class _Reworded:
    """A user whose actions are kept and whose words, message and reveal, are others. It sees its own words."""

    def __init__(self, user: Agent) -> None:
        check_plays(user, "The user whose words are replaced")
        self._user = user

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._user.start(seeds)
        self._own: list[dict[int, Action]] = [{} for _ in seeds]  # what it said in each turn of each dialogue

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        actions = self._user.act({n: _as_said(seen, self._own[n]) for n, seen in observations.items()})
        said = {n: (_question(observations[n]), action) for n, action in actions.items()}
        said = {n: (asked, action) for n, (asked, action) in said.items() if _readable(asked, action)}
        for n, (_, action) in said.items():
            self._own[n][int(observations[n]["turn"])] = action
        heard = self._words(said, {n: n - (_place(observations[n]) or 0) for n in said})
        return {n: {**action, **_words_of(heard[n], action)} if n in said else action for n, action in actions.items()}

    def _words(self, said: Mapping[int, tuple[str, Action]], groups: Mapping[int, int]) -> Mapping[int, Action]:
        """Return the action whose words replace those of each dialogue, from (kind that is asked for, action).

        Users that decide together have the same number in `groups`.
        """
        raise NotImplementedError


class WithoutWords(_Reworded):
    """A user that acts as before and says nothing: empty messages, no reveals. Example: `WithoutWords(user)`.

    Raises:
        ConfigError: it is no agent.
    """

    def _words(self, said: Mapping[int, tuple[str, Action]], groups: Mapping[int, int]) -> Mapping[int, Action]:
        return {n: {"message": ""} for n in said}


class ShuffledWords(_Reworded):
    """A user that acts as before, and whose words in each half-turn are those of another dialogue of its batch, and of
    another group.

    They come from a dialogue in which the user was asked and did the same, if there is one, so that the words
    go with the action and only what they say of the wish is another's; else from one in which it was asked the same;
    else from any. Where one dialogue alone is left in the half-turn its words are empty.

    Unlike all other agents its dialogues depend on their neighbours: the batch size of `rollout` matters. The same
    batch under the same seeds has the same words. What could not be read is left as it is and is not lent.

    Raises:
        ConfigError: it is no agent.
    """

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        super().start(seeds)
        opening = [int(number) for number in seeds[0]] if len(seeds) else []
        self._order: list[int] = np.random.default_rng([*opening, _STREAM]).permutation(len(seeds)).tolist()

    def _words(self, said: Mapping[int, tuple[str, Action]], groups: Mapping[int, int]) -> Mapping[int, Action]:
        order = [n for n in self._order if n in said]
        kinds = {n: (kind, None if kind else action.get("action")) for n, (kind, action) in said.items()}
        found: dict[int, Action] = {}
        for place, n in enumerate(order):
            others = [m for m in (*order[place + 1 :], *order[:place]) if groups[m] != groups[n]]
            same = [m for m in others if kinds[m] == kinds[n]] or [m for m in others if kinds[m][0] == kinds[n][0]]
            found[n] = said[(same or others)[0]][1] if others else {"message": ""}
        return found


class OtherInstruction:
    """A user that is shown the instruction of another task, drawn for each dialogue among those that differ.

    Example: `OtherInstruction(user, episodes)`.

    Raises:
        ConfigError: it is no agent; or the tasks have no two different instructions.
    """

    def __init__(self, user: Agent, tasks: Iterable[Task]) -> None:
        check_plays(user, "The user that is shown another instruction")
        self._user = user
        tasks = list(tasks)
        for task in tasks:
            expect(Task, task, "Instructions are those of tasks.", "Pass the episode set that is played.")
        wishes = [member.instruction for task in tasks for member in task.members]
        self._shown = [str(wish) for wish in wishes if wish is not None]
        if len(set(self._shown)) < 2:
            raise ConfigError(
                f"The {len(tasks)} tasks have {len(set(self._shown))} different instructions, but two are needed to "
                "show another one. Pass episodes with instructions, such as freeze(builder(split, instructions=...))."
            )

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._user.start(seeds)
        self._rngs = [np.random.default_rng([*map(int, seed), _STREAM]) for seed in seeds]
        self._drawn: dict[int, str] = {}

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        return self._user.act({n: self._with_other(n, seen) for n, seen in observations.items()})

    def _with_other(self, n: int, observation: Observation) -> Observation:
        if "instruction" not in observation:  # a game in which there is none to replace
            return observation
        own = observation["instruction"]
        while self._drawn.get(n, own) == own:
            self._drawn[n] = self._shown[int(self._rngs[n].integers(len(self._shown)))]
        before, after = (instruction_text(text.split("\n")) for text in (own, self._drawn[n]))
        lines = [after if line == before else line for line in observation["text"].split("\n")]
        return {**observation, "instruction": self._drawn[n], "text": "\n".join(lines)}


def control_users(user: Agent, tasks: Iterable[Task]) -> dict[str, Agent]:
    """Return the controls of a user, by the names that tables give them. The tasks are those that are played."""
    return {
        "shuffled words": ShuffledWords(user),
        "no words": WithoutWords(user),
        "other instruction": OtherInstruction(user, tasks),
    }


def _question(observation: Observation) -> str:
    """Kind that the recommender asks for in this turn; "" where it proposes."""
    questions = observation.get("questions", ())
    return str(questions[int(observation["turn"])]) if questions else ""


def _readable(asked: str, action: Action) -> bool:
    usable = asked != "" or action.get("action") in range(len(ACTIONS))
    return "message" in action and not action.get("error") and usable


def _words_of(donor: Action, action: Action) -> dict[str, Any]:
    """The words of another action; a reveal where one of the two may have one."""
    words: dict[str, Any] = {"message": donor["message"]}
    return {**words, "reveal": donor.get("reveal", "")} if "reveal" in {**donor, **action} else words


def _as_said(observation: Observation, own: Mapping[int, Action]) -> Observation:
    """What the user sees, with the words that it said itself in place of those that the recommender heard."""
    if not own:
        return observation
    place, one, lines = _place(observation), as_one(observation), observation["text"].split("\n")
    group, user = (num_users_of(observation), "User " if place is None else f"User {place} ")
    said: dict[str, list[str]] = {key: list(one[key]) for key in ("replies", "reveals") if key in one}
    for turn, action in own.items():
        reveal = read_reveal(action)
        acted = int(one["actions"][turn])
        message, strength = clean_message(action["message"]), float(one["strengths"][turn])
        proposed = acted >= 0
        answer = Answer(acted if proposed else None, strength if proposed else None, message, reveal=reveal)
        line = answer_text(turn + 1, Turn(None, "", (answer,) * group)).split("\n")[place or 0]
        lines = [line if old.startswith(f"Turn {turn + 1}. {user}") else old for old in lines]
        said["replies"][turn] = message
        if "reveals" in said:
            said["reveals"][turn] = "" if reveal is None else str(reveal)
    seen: dict[str, Any] = {key: tuple(texts) for key, texts in said.items()}
    if place is not None:
        seen = {key: (*observation[key][:place], texts, *observation[key][place + 1 :]) for key, texts in seen.items()}
    return {**observation, **seen, "text": "\n".join(lines)}


def _place(observation: Observation) -> int | None:
    """The place of a user among those of its group; None where one user plays."""
    return int(observation["agent"]) - 1 if "agent" in observation else None
