"""SingleAgentEnv: one side of the game as a Gymnasium environment; a partner plays the other."""

from typing import Any, Literal

import gymnasium

from coars_env.dialogue import Dialogue
from coars_env.env import CoarsEnv
from coars_env.observation import Action
from coars_env.partners import Agent, agent_seed, check_plays
from coars_env.transcript import RECOMMENDER, ROLES, USER, find_role
from coars_env.views.acts import Mask
from coars_env.views.numeric import Floats
from coars_env.views.numeric_env import NumericEnv, refuse_groups

RoleName = Literal["recommender", "user", "recommender_0", "user_0"]


class SingleAgentEnv(gymnasium.Env[Any, Any]):
    """One side of the game: each `step` is one of its half-turns, and the partner's answer happens inside.

    Observations, acts and rewards are those of this side in `NumericEnv`. The reward is that of the turn which the
    act belongs to, and `info` the one of its end. An episode of seed s and task t is the one that `rollout` plays of
    t alone with seed s. `action_masks()` says which acts are legal, as MaskablePPO asks; "wait" never is.

    What the partner raises is raised.
    """

    metadata = {"render_modes": CoarsEnv.metadata["render_modes"], "render_fps": 1}  # noqa: RUF012  # no ClassVar in Gymnasium

    def __init__(self, env: NumericEnv, role: RoleName, partner: Agent) -> None:
        """Take a side.

        Args:
            env: the game.
            role: the side to be played; "recommender" and "user" will do.
            partner: plays the other side.

        Raises:
            ConfigError: one of them is no such thing, or several users play.
        """
        refuse_groups(env, "A game for one side")
        check_plays(partner, "The partner")
        self.env = env
        self.role = find_role(role)
        self.partner = partner
        self.partner_role = next(role for role in env.possible_agents if role != self.role)
        self.render_mode = env.render_mode
        self.observation_space = env.encoder.observation_space()
        self.action_space = env.encoder.action_space()

    def action_masks(self) -> Mask:
        """[n], 1 where the act is legal; before the first reset, as an episode begins."""
        game = self.env.env
        return self.env.legal_acts(self.role, game.dialogue or game.new_dialogue(game.episodes.tasks[0]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """See `CoarsEnv.reset`. Where the partner begins, it has spoken."""
        game = self.env.env
        _, infos = game.reset(seed, options)
        super().reset(seed=seed)
        self.partner.start([agent_seed(game.episode_seed, ROLES.index(self.partner_role), 0)])
        if self.role == USER:
            self._partner_speaks()
        return self._observation(), infos[self.role]

    def step(self, action: int) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Play one half-turn of one's own, and the partner's next.

        Raises:
            ActionError: the act lies outside its space, or the episode has ended.
        """
        told = self._play(self.env.in_words(action, self.role))
        if self.role == RECOMMENDER:
            told = self._partner_speaks()
        elif not told[2][self.role]:
            self._partner_speaks()
        _, rewards, terminations, truncations, infos = told
        return self._observation(), *(part[self.role] for part in (rewards, terminations, truncations, infos))

    def render(self) -> str | None:
        """See `CoarsEnv.render`."""
        return self.env.render()

    def _partner_speaks(self) -> tuple[Any, ...]:
        observation = self._dialogue.observe(self.partner_role)
        return self._play(self.partner.act({0: observation}).get(0, {}))

    def _play(self, action: Action) -> tuple[Any, ...]:
        return self.env.env.step(dict.fromkeys(self.env.possible_agents, action))

    def _observation(self) -> Floats:
        observation: Floats = self.env.encoder.encode([self._dialogue.observe(self.role)], self.role)[0]
        return observation

    @property
    def _dialogue(self) -> Dialogue:
        assert self.env.dialogue is not None
        return self.env.dialogue
