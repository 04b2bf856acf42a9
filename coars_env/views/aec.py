"""AecEnv: the game in turn order, for libraries that let one agent act at a time."""

from typing import Any

import gymnasium
from pettingzoo import AECEnv

from coars_env.env import CoarsEnv
from coars_env.errors import ActionError, expect
from coars_env.views.numeric import Floats
from coars_env.views.numeric_env import NumericEnv


class AecEnv(AECEnv[str, Any, Any]):
    """A parallel environment of this game, one half-turn at a time.

    `agent_selection` is the side whose half-turn it is, and only that side acts: nobody waits. A side collects what it
    earned since its last action. The users of a group act one after another, and none hears the others before all have
    acted. `state()` is there where the parallel environment has one.

        env = coars_env.AecEnv(coars_env.make("movielens", view="masked"))
        env.reset(seed=0)
        for agent in env.agent_iter():
            observation, reward, termination, truncation, info = env.last()
            over = termination or truncation
            env.step(None if over else env.action_space(agent).sample(observation["action_mask"]))

    Raises:
        ConfigError: it is made of something else.
    """

    def __init__(self, env: CoarsEnv | NumericEnv) -> None:
        expect(CoarsEnv | NumericEnv, env, "A parallel environment is put in turn order.", "coars_env.make makes one.")
        self.env = env
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self.possible_agents: list[str] = list(env.possible_agents)
        self.agents: list[str] = []
        self._observations: dict[str, Any] = {}
        self._acted: dict[str, Any] = {}  # by users of a group whose half-turn has not closed
        if isinstance(env, NumericEnv):
            self.state_space = env.state_space

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.env.observation_space(agent)

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.env.action_space(agent)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """See `CoarsEnv.reset`."""
        self._observations, self.infos = self.env.reset(seed, options)
        self.agents, self._acted = list(self.possible_agents), {}
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.agent_selection = self.agents[0]
        self._skip_agent_selection = None

    def step(self, action: Any) -> None:
        """Play the half-turn of `agent_selection`; None once it has ended.

        Raises:
            ActionError: the action lies outside its space, or there is no running episode.
        """
        self._expect_running()
        speaker = self.agent_selection
        if self.terminations[speaker]:
            self._was_dead_step(action)
            return
        waiting = [] if self.env.dialogue is None else list(self.env.dialogue.speakers)
        if speaker in waiting[:-1]:  # the half-turn closes with the last user's action
            check = self.env.member if isinstance(self.env, CoarsEnv) else self.env.in_words
            check(action, speaker)
            self._acted[speaker] = action
            self._cumulative_rewards[speaker] = 0.0
            self.rewards = dict.fromkeys(self.agents, 0.0)
            self.agent_selection = waiting[waiting.index(speaker) + 1]
            return
        actions = {**dict.fromkeys(self.possible_agents, action), **self._acted}  # the silent side's is ignored
        told = self.env.step(actions)
        self._observations, self.rewards, self.terminations, self.truncations, self.infos = told
        self._acted = {}
        self._cumulative_rewards[speaker] = 0.0
        self._accumulate_rewards()
        if self.env.dialogue is not None:
            self.agent_selection = self.env.dialogue.speaker
        self._deads_step_first()

    def observe(self, agent: str) -> Any:
        """What one side saw last.

        Raises:
            ActionError: there was no reset.
        """
        if not self._observations:
            self._expect_running()
        return self._observations[agent]

    def last(self, observe: bool = True) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What `agent_selection` sees and has earned since its last action, whether it is over, and its info.

        Raises:
            ActionError: there is no running episode.
        """
        self._expect_running()
        told: tuple[Any, float, bool, bool, dict[str, Any]] = super().last(observe)
        return told

    def _expect_running(self) -> None:
        if not self.agents:
            raise ActionError("A half-turn needs a running episode. Expected reset() first, found none. Call reset().")

    def state(self) -> Floats:
        """See `NumericEnv.state`."""
        return self.env.state()

    def render(self) -> str | None:
        """See `CoarsEnv.render`."""
        return self.env.render()

    def close(self) -> None:
        """Nothing to release."""
