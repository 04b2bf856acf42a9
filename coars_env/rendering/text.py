"""A dialogue in lines of text, as each side may see it."""

from collections.abc import Iterable, Sequence

from coars_env.datasets.dataset import Item
from coars_env.roles import Role, find_role, user_of
from coars_env.tasks import Opinion, Task
from coars_env.transcript import ACTIONS, LIKENESS, Answer, Turn


def dialogue_text(task: Task, turns: Sequence[Turn], items: Sequence[Item], role: Role) -> str:
    """The episode so far as one agent may see it. The list of candidates is the recommender's, what peers say of the
    proposals the user's; nobody is shown the target. Of a group, a user reads its own history and everybody's answers.
    """
    place, lines = user_of(find_role(role)), list[str]()
    own = task if place is None else task.for_user(place)
    if place is not None and task.others:
        lines.append(f"You are user {place}; {task.num_users} users decide together.")
    for number in range(task.num_users) if place is None else (place,):
        whose = f"User {number}, recently" if place is None and task.others else "Recently"
        taken = task.for_user(number).history
        lines += [f"{whose} taken, oldest first:", *(f"- {items[i].title}" for i in taken)]
    if place is not None and own.instruction is not None:
        lines.append(instruction_text(map(str, own.instruction.facets)))
    if place is None:
        lines += ["Candidates:", *(f"{n}. {items[i].title}" for n, i in enumerate(task.candidates))]
    for number, turn in enumerate(turns, start=1):
        lines.append(proposal_text(number, turn, items))
        if place is not None:
            lines += opinions_text(number, own, turn, items)
        if turn.answers:
            lines.append(answer_text(number, turn))
    return "\n".join(lines)


def instruction_text(facets: Iterable[str], subject: str = "You want") -> str:
    """One line: what the user wants."""
    return f"{subject}: {'; '.join(facets) or 'anything'}."


def proposal_text(number: int, turn: Turn, items: Sequence[Item]) -> str:
    """One line: the first half of the `number`-th turn, counted from 1."""
    if turn.question is not None:
        return f"Turn {number}. Recommender asks for the {turn.question}: {turn.rationale}"
    title = "(no item)" if turn.proposal is None else items[turn.proposal].title
    return f"Turn {number}. Recommender proposes {title}: {turn.rationale}"


def opinions_text(number: int, task: Task, turn: Turn, items: Sequence[Item]) -> list[str]:
    """What peers say of the turn's proposal, in one line for the user; no line where they say nothing."""
    opinions = () if turn.proposal is None else task.opinions_of(turn.proposal)
    return [f"Turn {number}. {peers_text(opinions, items)}"] if opinions else []


def peers_text(opinions: Sequence[Opinion], items: Sequence[Item]) -> str:
    """Opinions in words: "Peers: one much like you took it after Heat (1995) and Fargo (1996); one little like ..."."""
    told = []
    for opinion in opinions:
        before = " and ".join(items[i].title for i in opinion.items)
        told.append(f"one {LIKENESS[opinion.level]} took it{f' after {before}' if before else ''}")
    return f"Peers: {'; '.join(told)}."


def answer_text(number: int, turn: Turn) -> str:
    """One line for each user: the second half of the `number`-th turn."""
    if len(turn.answers) > 1:
        return "\n".join(_answered(number, f"User {place}", answer) for place, answer in enumerate(turn.answers))
    return _answered(number, "User", turn.answer)


def _answered(number: int, user: str, answer: Answer | None) -> str:
    if answer is None or answer.error is not None:
        return f"Turn {number}. {user} gives no usable answer."
    if answer.action is None:
        revealed = "reveals nothing" if answer.reveal is None else f"wants {answer.reveal}"
        return f"Turn {number}. {user} {revealed}: {answer.message}"
    revealed = "" if answer.reveal is None else f", wants {answer.reveal}"
    return f"Turn {number}. {user} answers {ACTIONS[answer.action]} ({answer.strength:.2f}){revealed}: {answer.message}"
