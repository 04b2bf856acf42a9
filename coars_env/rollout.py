"""list[Transcript]: many dialogues played in lockstep, a batch of observations at a time. Re-exports `Agent`."""

from collections.abc import Sequence

from coars_env.datasets.dataset import Item, Provenance
from coars_env.env import MAX_TURNS, Dialogue
from coars_env.errors import CoarsError
from coars_env.partners import Agent
from coars_env.rewards import CoarsReward
from coars_env.tasks import Task
from coars_env.transcript import RECOMMENDER, ROLES, Transcript

__all__ = ["Agent", "play", "rollout"]


def play(
    dialogues: Sequence[Dialogue], recommender: Agent, user: Agent, *, seed: int = 0, first: int = 0
) -> None:
    """Play dialogues to their end, in place.

    Dialogue n draws from the seed (seed, side, first + n), whatever stands beside it. An agent that raises ends the dialogues it
    was asked about as "failed" with the cause; a `CoarsError` (a wrong set-up) is raised.
    """
    agents: tuple[Agent, Agent] = (recommender, user)
    for side, agent in enumerate(agents):
        agent.start([(seed, side, first + n) for n in range(len(dialogues))])
    while live := [n for n, d in enumerate(dialogues) if d.ending is None]:
        role = dialogues[live[0]].speaker  # all live dialogues are at the same half-turn
        agent = agents[0] if role == RECOMMENDER else agents[1]
        try:
            actions = agent.act({n: dialogues[n].observe(role) for n in live})
            for n in live:
                dialogues[n].act(actions[n])
        except CoarsError:
            raise
        except Exception as error:  # a partner's defect is data, whatever it is
            for n in live:
                if dialogues[n].ending is None and dialogues[n].speaker == role:
                    dialogues[n].fail(f"{ROLES[role != RECOMMENDER]}: {error!r}")


def rollout(
    tasks: Sequence[Task],
    items: Sequence[Item],
    recommender: Agent,
    user: Agent,
    *,
    provenance: Provenance,
    max_turns: int = MAX_TURNS,
    reward: CoarsReward | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Transcript]:
    """Play every task once and return the transcripts in the same order."""
    transcripts = []
    for first in range(0, len(tasks), batch_size):
        batch = [Dialogue(task, items, max_turns=max_turns, reward=reward) for task in tasks[first : first + batch_size]]
        play(batch, recommender, user, seed=seed, first=first)
        transcripts += [d.transcript(provenance, seed=seed) for d in batch]
    return transcripts
