"""Lines: a dialogue with its rewards, to be read by people."""

from collections.abc import Sequence
from typing import NamedTuple

from coars_env.datasets.dataset import Item
from coars_env.rendering.text import answer_text, dialogue_text, instruction_text, opinions_text, proposal_text
from coars_env.rewards import RewardTerms
from coars_env.tasks import Task
from coars_env.transcript import RECOMMENDER, USER, EndingKind, Turn

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
    if task.instruction is not None:
        lines.append(Line(instruction_text(map(str, task.instruction.facets), "The user wants"), "dim"))
    for number, turn in enumerate(turns, start=1):
        lines.append(Line(proposal_text(number, turn, items), "bold" if turn.error is None else "magenta"))
        lines += [Line(text, "dim") for text in opinions_text(number, task, turn, items)]
        if number <= len(terms):
            lines.append(Line(answer_text(number, turn), _answer_style(turn)))
            earned = terms[number - 1].rewards
            rewards = f"recommender {earned[RECOMMENDER]:+.2f}, user {earned[USER]:+.2f}"
            lines.append(Line(f"Turn {number}. Rewards: {rewards}.", "dim"))
    if ending is not None:
        lines.append(Line(f"Ended: {ending}. Truly taken next: {items[task.target].title}.", "bold"))
    return lines


def _answer_style(turn: Turn) -> str:
    if turn.answered:
        return "cyan"
    action = turn.answer.action if turn.answer else None
    return "magenta" if action is None else _ANSWER_STYLES[action]


def show(lines: Sequence[Line]) -> None:
    """Print them, coloured where the terminal can."""
    from rich.console import Console  # here, for importing coars_env to stay light
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        console.print(Text(line.text, style=line.style), soft_wrap=True)  # titles may hold what rich takes for markup
