"""Demonstrator: a side with reasons of its own that makes the choice the logs call right; for supervised training."""

from collections.abc import Mapping, Sequence

from agents.models.fields import Field
from agents.models.wishes import NO_WISH, facet_text, question_heard, true_wishes
from agents.players.llm_agent import LLMAgent
from coars_env import ACTIONS, RECOMMENDER, Observation, Task, instruction_of, kinds_of, reveals_of


class Demonstrator(LLMAgent):
    """Proposes the item truly taken; clicks at it with the highest strength, and dislikes all others with the lowest.

    In games with an instruction it never asks, and reveals what it truly wants, one facet after the other. An upper
    control: it knows what no dialogue reveals. All other fields are sampled, those after the choice given the choice;
    so is the proposal if the item may not be proposed. The choice has log-probability 0 in the record, since it is not
    sampled.
    """

    demonstrates = True
    _tasks: Sequence[Task] = ()

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Take the tasks of a batch, by number of the dialogue."""
        self._tasks = tasks

    def _given(self, number: int, observation: Observation, fields: Sequence[Field]) -> Mapping[str, int]:
        target, options = self._tasks[number].target, {field.name: field.options or () for field in fields}
        choice, strength = self.reply_format.deciding(self.role).name, self.reply_format.strength
        if self.role == RECOMMENDER:
            taken = self.items[target].title
            return {choice: options[choice].index(taken)} if taken in options[choice] else {}
        given: dict[str, int] = {}
        if choice in options:
            hit = int(observation["proposals"][int(observation["turn"])]) == target
            given = {choice: ACTIONS.index("click" if hit else "dislike")}
            given |= {strength: -1 if hit else 0} if strength in options else {}
        if (wish := self.reply_format.wish) is not None and wish.name in options:
            said, asked = reveals_of(observation), question_heard(observation)
            true = true_wishes(instruction_of(observation), said, asked)[:1]
            texts = [facet_text(facet, self.items, kinds_of(observation)) for facet in true] or [NO_WISH]
            given[wish.name] = options[wish.name].index(texts[0] if texts[0] in options[wish.name] else NO_WISH)
        return given
