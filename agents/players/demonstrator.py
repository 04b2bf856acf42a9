"""Demonstrator: a side with reasons of its own that makes the choice the logs say is right; for supervised training."""

from collections.abc import Mapping, Sequence

from agents.models.decoding import Choice, Form
from agents.players.llm_agent import PLACE_OF_CHOICE, LLMAgent
from coars_env import ACTIONS, RECOMMENDER, Action, Observation, Task


class Demonstrator(LLMAgent):
    """Proposes the item truly taken; clicks at it with the highest score, and dislikes all others with the lowest.

    An upper control: it is told what no dialogue tells. The reason is sampled. The choice has log-probability 0 in the
    record, since nobody sampled it.
    """

    demonstrates = True
    _tasks: Sequence[Task] = ()

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Take the tasks of a batch, by number of the dialogue."""
        self._tasks = tasks

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        self._seen = observations
        return super().act(observations)

    def _fill(self, forms: Mapping[int, Form]) -> dict[int, str]:
        reasons = {number: self._forms.reason() for number in forms}
        causes = super()._fill(reasons)
        for number, form in forms.items():
            reason = reasons[number].completion
            for token, logprob, sampled in zip(reason.token_ids, reason.logprobs, reason.sampled, strict=True):
                if sampled:
                    form.push(token, logprob)
            while isinstance(part := form.part, Choice):
                form.choose(part.options[self._right(number, len(form.written))])
        return causes

    def _right(self, number: int, place: int) -> int:
        """Number of the right option."""
        task, seen = self._tasks[number], self._seen[number]
        if self.role == RECOMMENDER:
            return int(seen["candidates"].tolist().index(task.target))
        hit = int(seen["proposals"][int(seen["turn"])]) == task.target
        if place == PLACE_OF_CHOICE:
            return ACTIONS.index("click" if hit else "dislike")
        return -1 if hit else 0
