"""check_agent: what `Agent` promises, asked of any agent on the toy episodes."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from coars_env.dialogue import Dialogue
from coars_env.observation import Action, Observation
from coars_env.partners.agent import Agent, check_plays, copy_agent
from coars_env.rollout import play
from coars_env.rules import Rules
from coars_env.spaces import action_spaces, as_member
from coars_env.tasks import EpisodeSet
from coars_env.testing.toys import NUM_CANDIDATES, ScriptedAgent, toy_episodes
from coars_env.transcript import ACTIONS, RECOMMENDER, USER, Role, find_role

_PARTNERS: dict[Role, list[Action | Exception]] = {  # of an agent under test: odd, but within the spaces
    RECOMMENDER: [
        {"item": NUM_CANDIDATES, "message": "Reason: ?", "error": "no item"},
        {"item": 0, "message": ""},
        {"item": 1, "message": "Ein schöner Film; 素晴らしい 🎬"},
        {"item": 1, "message": "The same again. " * 40},
    ],
    USER: [
        {"action": len(ACTIONS), "strength": 0.0, "message": "", "error": "no action"},
        {"action": 0, "strength": 0.1, "message": "Zu lang; 長すぎる 😴"},
        {"action": 1, "strength": 0.3, "message": "No. " * 100},
        {"action": 2, "strength": 0.6, "message": ""},
    ],
}
_INSTRUCTED: dict[Role, list[Action | Exception]] = {  # the same where there are questions
    RECOMMENDER: [
        {"ask": "genre", "message": "長い質問? " * 40},
        {"item": 0, "message": ""},
        {"ask": "decade", "message": ""},
        {"item": 1, "message": "Then this."},
    ],
    USER: [
        {"action": len(ACTIONS), "strength": 0.0, "message": "", "error": "no action"},
        {"action": 1, "strength": 0.3, "message": "Etwas Lustiges.", "reveal": "genre: Comedy"},
        {"action": 0, "strength": 0.1, "message": "", "reveal": "decade: 1950s"},
        {"action": 2, "strength": 0.6, "message": "", "reveal": "genre: Comedy"},
    ],
}


def check_agent(agent: Agent, role: Role, *, instructed: bool = False) -> None:
    """Play the toy episodes and ask for what `Agent` promises.

    It answers every dialogue it is asked about and no other, with members of its action space; it leaves its
    observations as they were; it stands odd messages of its partner; equal seeds give equal dialogues; and a dialogue
    goes alike alone and in a batch, also when a copy of the agent has opened another batch meanwhile, as
    `SingleAgentVectorEnv` does.

    Args:
        agent: the agent; its items are those of the toy.
        role: the side that it plays.
        instructed: whether users have an instruction and the recommender may ask, see `toy_episodes`.

    Raises:
        AssertionError: it does not; the message says what was expected and found.
        ConfigError: it is no agent, or there is no such side.
    """
    check_plays(agent, "What is checked")
    role = find_role(role)
    batch = _played(agent, role, range(4), instructed)
    again = _played(agent, role, range(4), instructed)
    assert batch == again, f"Equal seeds must give equal dialogues. {_first_difference(batch, again)}"
    alone = [transcript for n in range(4) for transcript in _played(agent, role, [n], instructed)]
    assert batch == alone, f"A dialogue must go alike alone and in a batch. {_first_difference(batch, alone)}"
    disturbed = _played(_Disturbed(agent), role, range(4), instructed)
    assert batch == disturbed, (
        "`start` must bind what the agent keeps of a dialogue anew: a copy that opens a batch changes what "
        f"the agent says in its own. {_first_difference(batch, disturbed)}"
    )


def _played(agent: Agent, role: Role, numbers: Sequence[int], instructed: bool) -> list[str]:
    """Transcripts of some of the toy episodes, as JSON."""
    episodes = toy_episodes(instructed=instructed)
    dialogues = [Dialogue(episodes.tasks[n], episodes.items) for n in numbers]
    watched = _Watched(agent, role, episodes)
    partners = _INSTRUCTED if instructed else _PARTNERS
    other = ScriptedAgent(partners[USER if role == RECOMMENDER else RECOMMENDER])
    sides: tuple[Agent, Agent] = (watched, other) if role == RECOMMENDER else (other, watched)
    play(dialogues, *sides, seed=7, numbers=numbers)
    assert watched.violation is None, watched.violation
    for dialogue in dialogues:
        assert dialogue.ending != "failed", f"An agent must not break. Expected an action, found {dialogue.cause}"
    return [dialogue.transcript(episodes.provenance, seed=7).to_json() for dialogue in dialogues]


class _Disturbed:
    """An agent of which a copy opens another batch before each of its answers."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._agent.start(seeds)

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        copy_agent(self._agent).start([(9, 9)])
        return self._agent.act(observations)


class _Watched:
    """An agent whose answers are looked at before they are played."""

    def __init__(self, agent: Agent, role: Role, episodes: EpisodeSet) -> None:
        self._agent = agent
        self._space = action_spaces(NUM_CANDIDATES, episodes.items, episodes.kinds, Rules())[role]
        self.violation: str | None = None

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        self._agent.start(seeds)

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        before = copy.deepcopy(dict(observations))
        actions = self._agent.act(observations)
        self.violation = self.violation or self._find(before, observations, actions)
        return actions

    def _find(
        self, before: Mapping[int, Observation], after: Mapping[int, Observation], actions: Mapping[int, Action]
    ) -> str | None:
        if (found := sorted(actions)) != (expected := sorted(before)):
            return f"An agent answers where it is asked. Expected dialogues {expected}, found {found}"
        for action in actions.values():
            if as_member(action, self._space) is None:
                return f"An action must lie in its space. Expected one of {self._space}, found {action}"
        if not all(np.array_equal(before[n][key], after[n][key]) for n in before for key in before[n]):
            return "An agent must leave its observations alone. Expected them unchanged, found others"
        return None


def _first_difference(expected: list[str], found: list[str]) -> str:
    pairs = zip(expected, found, strict=True)
    return next(f"Expected {a}, found {b}" for a, b in pairs if a != b)
