"""list[Transcript]: many dialogues played in lockstep, a batch of observations at a time. Re-exports `Agent`."""

import logging
from collections.abc import Iterable, Sequence

from coars_env.datasets.dataset import Item, Provenance
from coars_env.dialogue import MAX_TURNS, Dialogue, checked_seed
from coars_env.errors import ActionError, CoarsError, ConfigError, expect, whole_number
from coars_env.partners.agent import Agent, agent_seed, check_plays
from coars_env.rewards import Reward
from coars_env.rules import Rules
from coars_env.tasks import Task
from coars_env.transcript import RECOMMENDER, USER, Role, Transcript

__all__ = ["Agent", "agent_seed", "play", "rollout"]

_log = logging.getLogger("coars_env")


def play(
    dialogues: Sequence[Dialogue],
    recommender: Agent,
    user: Agent,
    *,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> None:
    """Play dialogues to their end, in place.

    A dialogue of number n draws from `agent_seed(seed, side, n)`, whatever stands beside it; `numbers` has one for
    each, 0, 1, 2, ... by default. What an agent breaks is recorded and logged, not raised: one that raises ends the
    dialogues it was asked about as "failed" with the cause, and an answer that is missing or no action of its side ends
    its own dialogue so. A `CoarsError` of the agent is a wrong set-up and is raised.

    Raises:
        CoarsError: what is no agent, a negative seed, too few numbers or too many, a reward that cannot be paid, or
            what an agent raises as such.
    """
    agents: dict[Role, Agent] = {RECOMMENDER: recommender, USER: user}
    numbers = range(len(dialogues)) if numbers is None else numbers
    if len(numbers) != len(dialogues):
        raise ConfigError(
            f"Every dialogue draws by its number. Expected {len(dialogues)} numbers, found {len(numbers)}. Pass one "
            "for each dialogue."
        )
    for name, agent in zip(("The recommender", "The user"), agents.values(), strict=True):
        check_plays(agent, name)
    for side, agent in enumerate(agents.values()):
        agent.start([agent_seed(seed, side, n) for n in numbers])
    while live := [n for n, dialogue in enumerate(dialogues) if dialogue.ending is None]:
        role = dialogues[live[0]].speaker  # fresh dialogues stay in step; others wait for their half-turn
        asked = {n: dialogues[n].observe(role) for n in live if dialogues[n].speaker == role}
        try:
            actions = dict(agents[role].act(asked))
        except CoarsError:
            raise
        except Exception as error:
            _log.exception("%s raised in %d dialogues", role, len(asked))
            for n in asked:
                dialogues[n].fail(f"{role}: {error!r}")
            continue
        for n in asked:
            try:
                dialogues[n].act(actions.get(n, {}))
            except ActionError as error:
                _log.error("%s: %s", role, error)
                dialogues[n].fail(f"{role}: {error!r}")


def rollout(
    tasks: Iterable[Task],
    items: Sequence[Item],
    recommender: Agent,
    user: Agent,
    *,
    provenance: Provenance,
    max_turns: int = MAX_TURNS,
    rules: Rules | None = None,
    reward: Reward | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Transcript]:
    """Play every task once, `batch_size` at a time, and return the transcripts in the same order.

    The batch size changes the speed only, see `Agent`. An `EpisodeSet` will do for the tasks.

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
