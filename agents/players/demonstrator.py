"""Demonstrator: a side with reasons of its own that makes the choice the logs call right; for supervised training."""

from collections.abc import Mapping, Sequence

from agents.models.fields import Field
from agents.players.llm_agent import LLMAgent
from coars_env import ACTIONS, RECOMMENDER, Observation, Task


class Demonstrator(LLMAgent):
    """Proposes the item truly taken; clicks at it with the highest strength, and dislikes all others with the lowest.

    An upper control: it knows what no dialogue reveals. All other fields are sampled, those after the choice given the
    choice. The choice has log-probability 0 in the record, since it is not sampled.
    """

    demonstrates = True
    _tasks: Sequence[Task] = ()

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Take the tasks of a batch, by number of the dialogue."""
        self._tasks = tasks

    def _given(self, number: int, observation: Observation, fields: Sequence[Field]) -> Mapping[str, int]:
        task, choice = self._tasks[number], self.reply_format.deciding(self.role).name
        if self.role == RECOMMENDER:
            return {choice: observation["candidates"].tolist().index(task.target)}
        hit = int(observation["proposals"][int(observation["turn"])]) == task.target
        given = {choice: ACTIONS.index("click" if hit else "dislike")}
        return given if self.reply_format.strength is None else {**given, self.reply_format.strength: -1 if hit else 0}
