"""TextAgent: a language model that plays a side by its prompt alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from agents.models.fields import Number
from agents.models.language_model import LanguageModel, Request
from agents.models.prompts import Notes, Pieces, no_notes, prompt, without_opinions
from agents.models.replies import RECOMMENDER_FORMAT, ReplyFormat, user_format, written
from agents.models.usage import Usage
from coars_env import ACTIONS, RECOMMENDER, USER, Action, ConfigError, Item, Observation, Role

PROMPTED_FORMATS: dict[Role, ReplyFormat] = {
    RECOMMENDER: RECOMMENDER_FORMAT,
    USER: user_format(Number(0, 1, 0.05)),
}
"""Default formats of agents that live by prompts: their user may write any score, and the game moves it into the
quarter of the action (our choice)."""


def without_history(observation: Observation) -> Observation:
    """The same for an agent that is not told what was taken."""
    return {**observation, "history": np.full_like(observation["history"], -1)}


class TextAgent:
    """One side, played by a language model that reads what CoARS's agents read, and what `notes` adds.

    Replies that could not be read are turns without proposal or answer, with the cause. What the model was asked and
    said remains in its messages of the dialogue, append-only.
    """

    def __init__(
        self,
        model: LanguageModel,
        role: Role,
        items: Sequence[Item],
        *,
        notes: Notes = no_notes,
        reply_format: ReplyFormat | None = None,
        opinions: bool = True,
        history: bool = True,
    ) -> None:
        """Prepare to play; nothing is asked yet.

        Args:
            model: answers.
            role: side that is played.
            items: the catalogue.
            notes: pieces that go before the request; called in every turn.
            reply_format: fields of a reply; None for `PROMPTED_FORMATS` of the role.
            opinions: whether a user reads what peers say.
            history: whether it reads what was taken; notes know it in any case.

        Raises:
            ConfigError: a format without a field that is the proposal or the action of this role.
        """
        self.model, self.role, self.items = model, role, items
        self.notes, self.opinions, self.history = notes, opinions, history
        self.reply_format = reply_format or PROMPTED_FORMATS[role]
        self.reply_format.deciding(role)
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
                self._messages[number].append(written(request.fields, reply.values))
                actions[number] = self.reply_format.action(
                    self.role, request.fields, reply.values, observations[number], self.items
                )
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
        told = prompt(
            self.role,
            shown,
            self.items,
            self.model.separator,
            reply_format=self.reply_format,
            notes=self.notes(observation),
        )
        messages = self._messages[number]
        messages.append(told.content)
        seed = (*self._seeds[number], int(observation["turn"]))
        return Request(told.system, tuple(messages), self.reply_format.bind(observation, self.items), seed)

    def _unread(self, observation: Observation, text: str, error: str | None) -> Action:
        if self.role == RECOMMENDER:
            return {"item": len(observation["candidates"]), "message": text, "error": error}
        return {"action": len(ACTIONS), "strength": 0.0, "message": text, "error": error}
