"""TextAgent: a language model that plays a side by its prompt alone; what it is told besides is for others to say."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agents.models.language_model import Field, LanguageModel, Request, written
from agents.models.prompts import (
    ACTION,
    ACTION_TEXTS,
    ITEM,
    REASON,
    SCORE,
    SCORE_STEP,
    Pieces,
    prompt,
    title,
    without_opinions,
)
from agents.models.usage import Usage
from coars_env import ACTIONS, RECOMMENDER, Action, ConfigError, Item, Observation, Role

Notes = Callable[[Observation], Pieces]
"""What an agent is told of its memory before it answers: pieces that begin with a line break, or nothing."""

SCORES = tuple(f" {SCORE_STEP * step:.2f}" for step in range(round(1 / SCORE_STEP) + 1))
REASONED = Field(REASON)


def nothing(observation: Observation) -> Pieces:
    """No memory."""
    return ()


def without_history(observation: Observation) -> Observation:
    """The same for an agent that is not told what was taken."""
    return {**observation, "history": np.full_like(observation["history"], -1)}


class TextAgent:
    """One side, played by a language model that is told what CoARS's agents are told, and what `notes` adds.

    Replies that could not be read are turns without proposal or answer, with the cause; what the model was asked and
    said stands in its messages of the dialogue, append-only.
    """

    def __init__(
        self,
        model: LanguageModel,
        role: Role,
        items: Sequence[Item],
        *,
        notes: Notes = nothing,
        first: Field = REASONED,
        opinions: bool = True,
        history: bool = True,
    ) -> None:
        """Nothing is asked yet.

        Args:
            model: answers.
            role: side that is played.
            items: the catalogue.
            notes: what is told besides, before what is asked; called in every turn.
            first: free text that is written before the choice, and told to the other side if it is the reason.
            opinions: whether a user is told what peers say.
            history: whether it is told what was taken; notes know it in any case.
        """
        self.model, self.role, self.items = model, role, items
        self.notes, self.first, self.opinions, self.history = notes, first, opinions, history
        self.usage = Usage()
        """Of all dialogues so far."""
        self.start(())

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._seeds = [tuple(seed) for seed in seeds]
        self._messages: list[list[Pieces]] = [[] for _ in seeds]

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        requests = {number: self._request(number, observations[number]) for number in sorted(observations)}
        actions: dict[int, Action] = {}
        replies = self.model.answer(list(requests.values()))
        for (number, request), reply in zip(requests.items(), replies, strict=True):
            self.usage += reply.usage
            if reply.values is None:
                self._messages[number].append((reply.text,))
                actions[number] = self._unread(observations[number], reply.text, reply.error)
            else:
                self._messages[number].append(written(request, reply.values))
                actions[number] = self._action(request, reply.values)
        return actions

    def conversation(self, number: int) -> tuple[Pieces, ...]:
        """What was asked and said in a dialogue so far, in turn; the last is its own."""
        return tuple(self._messages[number])

    def _request(self, number: int, observation: Observation) -> Request:
        if number >= len(self._messages) or len(self._messages[number]) != 2 * int(observation["turn"]):
            raise ConfigError(
                f"A TextAgent plays a dialogue from its first turn on. Expected {int(observation['turn'])} replies of "
                "its own, found others. Call `start` before each batch of fresh dialogues."
            )
        observation = observation if self.opinions else without_opinions(observation)
        shown = observation if self.history else without_history(observation)
        told = prompt(self.role, shown, self.items, self.model.separator)
        *before, ask = told.content
        messages = self._messages[number]
        messages.append((*before, *self.notes(observation), ask))
        seed = (*self._seeds[number], int(observation["turn"]))
        return Request(told.system, tuple(messages), self._fields(observation), seed)

    def _fields(self, observation: Observation) -> tuple[Field, ...]:
        if self.role == RECOMMENDER:
            choice = Field(ITEM, tuple(title(self.items, int(i)) for i in observation["candidates"]))
            return (*self._before, choice)
        return (*self._before, Field(ACTION, ACTION_TEXTS), Field(SCORE, SCORES, number=True))

    @property
    def _before(self) -> tuple[Field, ...]:
        return (self.first,) if self.first == REASONED else (self.first, REASONED)

    def _action(self, request: Request, values: Sequence[str]) -> Action:
        place = len(self._before)
        options = [option.strip() for option in request.fields[place].options or ()]
        chosen, message = options.index(values[place]), values[place - 1]
        if self.role == RECOMMENDER:
            return {"item": chosen, "message": message}
        return {"action": chosen, "strength": float(values[place + 1]), "message": message}

    def _unread(self, observation: Observation, text: str, error: str | None) -> Action:
        if self.role == RECOMMENDER:
            return {"item": len(observation["candidates"]), "message": text, "error": error}
        return {"action": len(ACTIONS), "strength": 0.0, "message": text, "error": error}
