"""VectorDialogueEnv: many games at once in words, for agents that answer a batch."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from coars_env.dialogue import Dialogue
from coars_env.env import CoarsEnv, asked_task
from coars_env.errors import ActionError, TaskError, expect, whole_number
from coars_env.observation import Action, Observation
from coars_env.spaces import as_member
from coars_env.transcript import RECOMMENDER, Role, Transcript
from coars_env.vector.streams import ByRole, Streams


class VectorDialogueEnv:
    """N dialogues of `CoarsEnv` in step: a batch of what one side is shown comes out, a batch of its answers goes in.

    For rollouts of language models, which answer many prompts at once. All dialogues begin together and their
    half-turns stay in step, so all that have not ended wait for the same side, `speaker`. Observations and actions are
    dicts from the number of a dialogue to what `CoarsEnv` shows and takes, which is what `Agent.act` takes and gives.
    In the users' half-turn of groups of M, number M n + i is user i of dialogue n, for one agent that plays them all.
    There is no automatic reset: dialogues that end drop out, `observations` is empty when none is left, and `reset`
    begins N new ones. Dialogue n of `reset(seed=s)` is the one of a single environment after `reset(seed=s + n)`.

        env = coars_env.make_vec("movielens", num_envs=64, view="text")
        agents = {"recommender_0": recommender, "user_0": user}
        observations, infos = env.reset(seed=0)
        while observations:
            actions = agents[env.speaker].act(observations)
            observations, rewards, terminations, truncations, infos = env.step(actions)
        print(env.transcripts[0])

    Rewards and endings are as in `VectorNumericEnv`, terminations staying true; `infos[role]` holds the lists `task_id`
    and `parse_error`, see `CoarsEnv`. `rollout` does all this with agents that may fail.
    """

    def __init__(self, env: CoarsEnv, num_envs: int) -> None:
        """Take the game from a single environment, which is left as it is.

        Args:
            env: the game.
            num_envs: N.

        Raises:
            ConfigError: no dialogues.
        """
        expect(CoarsEnv, env, "Dialogues are those of the game in words.", "Make one by coars_env.make(name).")
        self.num_envs = whole_number("A vector holds games.", "num_envs", num_envs, 1)
        self.episodes = env.episodes
        self.possible_agents: list[str] = list(env.possible_agents)
        self.dialogues: list[Dialogue] = []
        """Running and finished ones; `dialogues[n].terms` holds the rewards with all factors."""
        self._env = env
        self._streams = Streams(self.num_envs, len(self.episodes))
        self._seeds: list[int] = []

    @property
    def speaker(self) -> Role:
        """The side that all running dialogues wait for."""
        return next((dialogue.speaker for dialogue in self.dialogues if dialogue.ending is None), RECOMMENDER)

    @property
    def _seats(self) -> dict[int, tuple[int, Role]]:
        """The dialogue and the agent of each number that `observations` has now."""
        running = [(n, one.speakers) for n, one in enumerate(self.dialogues) if one.ending is None]
        return {n * len(speakers) + place: (n, role) for n, speakers in running for place, role in enumerate(speakers)}

    @property
    def transcripts(self) -> list[Transcript]:
        """The finished episodes. Shape [N].

        Raises:
            TaskError: one has not ended.
        """
        if not self.dialogues:
            raise TaskError("Transcripts are of finished episodes. Expected some, found none. Call reset() and play.")
        pairs = zip(self.dialogues, self._seeds, strict=True)
        return [dialogue.transcript(self.episodes.provenance, seed=seed) for dialogue, seed in pairs]

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """What a side is shown of one dialogue, see `CoarsEnv`; the same object on each call."""
        return self._env.observation_space(agent)

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """What a side answers in one dialogue, see `CoarsEnv`; the same object on each call."""
        return self._env.action_space(agent)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[int, Observation], dict[str, dict[str, Any]]]:
        """Begin N dialogues. Without a seed each goes on with its stream of tasks.

        Raises:
            TaskError, ConfigError: as `CoarsEnv.reset`, whose options these are, in all dialogues.
        """
        chosen = asked_task(options, self.episodes)
        if seed is not None:
            self._streams.seed(seed)
        drawn = self._streams.draw(np.arange(self.num_envs))
        self._seeds = drawn[:, 0].tolist()
        tasks, env = self.episodes.tasks, self._env
        self.dialogues = [env.new_dialogue(chosen or tasks[task]) for task in drawn[:, 1].tolist()]
        return self._observe(), self._infos()

    def step(
        self, actions: Mapping[int, Action]
    ) -> tuple[dict[int, Observation], ByRole, ByRole, ByRole, dict[str, dict[str, Any]]]:
        """Play one half-turn in every dialogue that has not ended.

        Raises:
            ActionError: a running dialogue has no action, or one outside the space of `speaker`. Nothing has changed
                then.
        """
        speaker, seats = self.speaker, self._seats
        if not seats or not isinstance(actions, Mapping) or set(actions) != set(seats):
            raise ActionError(
                f"Every running dialogue needs an action. Expected numbers {list(seats)}, found "
                f"{list(actions) if isinstance(actions, Mapping) else actions!r}. "
                f"{'Answer all observations.' if seats else 'Call reset() first.'}"
            )
        space = self._env.action_spaces[speaker]
        members = {n: as_member(action, space) for n, action in actions.items()}
        for n, member in members.items():
            if member is None:
                raise ActionError(
                    f"An action must lie in its space. Expected a member of {space} from {speaker}, found "
                    f"{actions[n]!r} in dialogue {n}. No dialogue has changed: pass other actions."
                )
        rewards = np.zeros((len(self.possible_agents), self.num_envs))
        acted: dict[int, dict[Role, Action]] = {}
        for number, member in members.items():
            if member:
                acted.setdefault(seats[number][0], {})[seats[number][1]] = member
        for n, of_agents in acted.items():
            if terms := self.dialogues[n].act_all(of_agents):
                rewards[:, n] = [terms.rewards[role] for role in self.possible_agents]
        ended = np.array([dialogue.ending is not None for dialogue in self.dialogues])
        return (
            self._observe(),
            dict(zip(self.possible_agents, rewards, strict=True)),
            {role: ended.copy() for role in self.possible_agents},
            {role: np.zeros_like(ended) for role in self.possible_agents},
            self._infos(),
        )

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self) -> dict[int, Observation]:
        return {number: self.dialogues[n].observe(role) for number, (n, role) in self._seats.items()}

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {
            role: {
                "task_id": [dialogue.task.task_id for dialogue in self.dialogues],
                "parse_error": [dialogue.parse_error(role) for dialogue in self.dialogues],
            }
            for role in self.possible_agents
        }
