"""Lines: a dialogue with its rewards, to be read by people."""

from collections.abc import Sequence
from typing import NamedTuple

from coars_env.datasets.dataset import Item
from coars_env.rendering.text import answer_text, dialogue_text, instruction_text, opinions_text, proposal_text
from coars_env.rewards import RewardTerms
from coars_env.roles import RECOMMENDER, agents_of
from coars_env.tasks import Task
from coars_env.transcript import Answer, EndingKind, Turn

_ANSWER_STYLES = ("red", "yellow", "cyan", "green")


class Line(NamedTuple):
    """A line of text and its style, in the words of rich."""

    text: str
    style: str


def dialogue_lines(
    task: Task, turns: Sequence[Turn], terms: Sequence[RewardTerms], items: Sequence[Item], ending: EndingKind | None
) -> list[Line]:
    """The recommender's lists, what the user wants, all turns with what peers tell the user, and the rewards of the
    closed ones. The target only once it has ended.
    """
    lines = [Line(text, "dim") for text in dialogue_text(task, (), items, RECOMMENDER).split("\n")]
    for place, member in enumerate(task.members):
        if member.instruction is not None:
            subject = f"User {place} wants" if task.others else "The user wants"
            lines.append(Line(instruction_text(map(str, member.instruction.facets), subject), "dim"))
    for number, turn in enumerate(turns, start=1):
        lines.append(Line(proposal_text(number, turn, items), "bold" if turn.error is None else "magenta"))
        for place in range(task.num_users):
            said = opinions_text(number, task.for_user(place), turn, items)
            lines += [Line(f"{text} (to user {place})" if task.others else text, "dim") for text in said]
        if number <= len(terms):
            for text, answer in zip(answer_text(number, turn).split("\n"), turn.answers, strict=True):
                lines.append(Line(text, _answer_style(turn, answer)))
            earned = terms[number - 1].rewards
            names = {agent: agent.replace("_", " ") if task.others else agent.removesuffix("_0") for agent in earned}
            rewards = ", ".join(f"{names[agent]} {earned[agent]:+.2f}" for agent in agents_of(task.num_users))
            lines.append(Line(f"Turn {number}. Rewards: {rewards}.", "dim"))
    if ending is not None:
        lines.append(Line(f"Ended: {ending}. Truly taken next: {items[task.target].title}.", "bold"))
    return lines


def _answer_style(turn: Turn, answer: Answer) -> str:
    if turn.question is not None and answer.error is None:
        return "cyan"
    return "magenta" if answer.action is None else _ANSWER_STYLES[answer.action]


def show(lines: Sequence[Line]) -> None:
    """Print them, coloured where the terminal can."""
    from rich.console import Console  # here, for importing coars_env to stay light
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        console.print(Text(line.text, style=line.style), soft_wrap=True)  # titles may hold what rich takes for markup
