"""list[Transcript]: many dialogues played in lockstep, a batch of observations at a time. Re-exports `Agent`."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coars_env.datasets.dataset import Item, Provenance
from coars_env.dialogue import MAX_TURNS, Dialogue, checked_seed
from coars_env.errors import ActionError, CoarsError, ConfigError, expect, whole_number
from coars_env.observation import Action
from coars_env.partners.agent import Agent, agent_seed, check_plays
from coars_env.rewards import Reward
from coars_env.roles import RECOMMENDER, USER, Role, agents_of
from coars_env.rules import Rules
from coars_env.tasks import Task
from coars_env.transcript import Transcript

__all__ = ["Agent", "agent_seed", "play", "rollout"]

_log = logging.getLogger("coars_env")


def play(
    dialogues: Sequence[Dialogue],
    recommender: Agent,
    user: Agent | Sequence[Agent],
    *,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> None:
    """Play dialogues to their end, in place.

    One agent may play all users of a group: user i of the n-th of dialogues with N users is its dialogue N n + i. Of a
    list of agents each plays the user of its place.

    A dialogue of number n draws from `agent_seed(seed, side, n)`, whatever stands beside it; `numbers` has one for
    each, 0, 1, 2, ... by default. What an agent breaks is recorded and logged, not raised: one that raises ends the
    dialogues it was asked about as "failed" with the cause, and an answer that is missing or no action of its side ends
    its own dialogue so. A `CoarsError` of the agent is a wrong set-up and is raised.

    Raises:
        CoarsError: what is no agent, a negative seed, too few numbers or too many, a reward that cannot be paid, or
            what an agent raises as such.
    """
    numbers = range(len(dialogues)) if numbers is None else numbers
    if len(numbers) != len(dialogues):
        raise ConfigError(
            f"Every dialogue draws by its number. Expected {len(dialogues)} numbers, found {len(numbers)}. Pass one "
            "for each dialogue."
        )
    check_plays(recommender, "The recommender")
    first = _Player(RECOMMENDER, recommender, [(n, RECOMMENDER) for n in range(len(dialogues))])
    sides = [first], _users(dialogues, user)
    for player in (first, *sides[1]):
        seats = ((numbers[n], dialogues[n].agents.index(role)) for n, role in player.seats)
        player.agent.start([agent_seed(seed, side, number) for number, side in seats])
    while live := [n for n, dialogue in enumerate(dialogues) if dialogue.ending is None]:
        turn = dialogues[live[0]].speaker != RECOMMENDER  # fresh dialogues stay in step; others wait
        _half_turn(dialogues, sides[turn], [n for n in live if (dialogues[n].speaker != RECOMMENDER) == turn])


class _Player(NamedTuple):
    """An agent and whom it plays: its n-th dialogue is the n-th of `seats`, a dialogue and the agent's name there."""

    name: str
    agent: Agent
    seats: Sequence[tuple[int, Role]]


def _users(dialogues: Sequence[Dialogue], user: Agent | Sequence[Agent]) -> list[_Player]:
    if isinstance(user, str) or not isinstance(user, Sequence):
        check_plays(user, "The user")
        seats = [(n, role) for n, dialogue in enumerate(dialogues) for role in dialogue.agents[1:]]
        return [_Player("users" if len(seats) > len(dialogues) else USER, user, seats)]
    for agent in user:
        check_plays(agent, "Each user")
    sizes = {len(dialogue.agents) - 1 for dialogue in dialogues}
    if sizes - {len(user)} or len(set(map(id, user))) < len(user):
        raise ConfigError(
            f"A list of users must have another agent for each user, got {len(user)} agents for dialogues of "
            f"{sorted(sizes)} users. Pass one agent that plays them all, or a list of as many."
        )
    return [
        _Player(role, agent, [(n, role) for n in range(len(dialogues))])
        for agent, role in zip(user, agents_of(len(user))[1:], strict=True)
    ]


def _half_turn(dialogues: Sequence[Dialogue], players: Sequence[_Player], running: Sequence[int]) -> None:
    """Let one side act in the dialogues of these numbers, which wait for it."""
    actions: dict[int, dict[Role, Action]] = {n: {} for n in running}
    for player in players:
        seats = {
            place: seat
            for place, seat in enumerate(player.seats)
            if seat[0] in actions and seat[1] in dialogues[seat[0]].speakers
        }
        asked = {place: dialogues[n].observe(role) for place, (n, role) in seats.items()}
        try:
            said = dict(player.agent.act(asked)) if asked else {}
        except CoarsError:
            raise
        except Exception as error:
            _log.exception("%s raised in %d dialogues", player.name, len(asked))
            for n in dict.fromkeys(n for n, _ in seats.values()):
                dialogues[n].fail(f"{player.name}: {error!r}")
                del actions[n]
            continue
        for place, (n, role) in seats.items():
            actions[n][role] = said.get(place, {})
    name = players[0].name if len(players) == 1 else "users"
    for n, acted in actions.items():
        try:
            dialogues[n].act_all(acted)
        except ActionError as error:
            _log.error("%s: %s", name, error)
            dialogues[n].fail(f"{name}: {error!r}")


def rollout(
    tasks: Iterable[Task],
    items: Sequence[Item],
    recommender: Agent,
    user: Agent | Sequence[Agent],
    *,
    provenance: Provenance,
    max_turns: int = MAX_TURNS,
    rules: Rules | None = None,
    reward: Reward | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Transcript]:
    """Play every task once, `batch_size` at a time, and return the transcripts in the same order.

    The batch size changes the speed only, see `Agent`. An `EpisodeSet` will do for the tasks. Who plays the users of
    groups: see `play`.

    Raises:
        CoarsError: settings that cannot be, what is no agent, or what an agent raises as such.
    """
    batch_size = whole_number("A batch holds dialogues.", "batch_size", batch_size, 1)
    expect(Provenance, provenance, "A transcript says where its data come from.", "Pass `episodes.provenance`.")
    tasks, seed, transcripts = tuple(tasks), checked_seed(seed), []
    for first in range(0, len(tasks), batch_size):
        batch = [
            Dialogue(task, items, max_turns=max_turns, reward=reward, rules=rules)
            for task in tasks[first : first + batch_size]
        ]
        play(batch, recommender, user, seed=seed, numbers=range(first, first + len(batch)))
        transcripts += [dialogue.transcript(provenance, seed=seed) for dialogue in batch]
    return transcripts
