"""SingleAgentVectorEnv: one side of many games as a Gymnasium vector environment; a partner plays the other side."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium.vector
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from coars_env.dialogue import Dialogue
from coars_env.env import asked_task
from coars_env.errors import ActionError, whole_number
from coars_env.observation import Action
from coars_env.partners import Agent, agent_seed, check_plays, copy_agent
from coars_env.rewards import RewardTerms
from coars_env.spaces import as_member
from coars_env.tasks import Task
from coars_env.transcript import RECOMMENDER, ROLES, Role, find_role
from coars_env.vector.streams import Streams
from coars_env.views.acts import Mask
from coars_env.views.numeric import Floats
from coars_env.views.numeric_env import NumericEnv, refuse_groups
from coars_env.views.single import RoleName

_MODES = getattr(gymnasium.vector, "AutoresetMode", None)  # since Gymnasium 1.1


class SingleAgentVectorEnv(gymnasium.vector.VectorEnv[Floats, Any, Any]):
    """N games of `SingleAgentEnv` in step, in which the partner answers all games as a batch.

    `step` takes an act for each game, integers [N], and returns observations float32 [N, L], rewards float64 [N] and
    terminations bool [N]; nothing truncates. Observations, acts and rewards are those of the side in `NumericEnv`.
    Game n of `reset(seed=s)` plays the episodes that a `SingleAgentEnv` plays after `reset(seed=s + n)` and then
    `reset()` again and again.

    **Infos** are those of Gymnasium's `SyncVectorEnv` of N such environments (`task_id`, `parse_error`,
    `reward_terms`, each with a mask `_...`), and `action_mask`, int8 [N, n], 1 where an act is legal, see
    `MaskedEnv`: all acts of the side but "wait", where nothing is asked or forbidden.

    **Automatic reset** in the same step, `AutoresetMode.SAME_STEP`: where a game has ended, the observation and the
    infos are those of the next game; `infos["final_obs"]` and `infos["final_info"]` hold the last of the game that
    ended.

    Since `Agent.start` opens a whole batch, games that begin in different steps have different copies of the partner,
    at most T at a time; they share its model. `check_agent` asks whether an agent can be copied so. What the partner
    raises is raised.

        env = coars_env.make_vec("movielens", num_envs=64, role="recommender", partner=user)
        env = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # a plain attribute in Gymnasium
        "name": "coars_single_agent_vector_v0",
        "autoreset_mode": _MODES.SAME_STEP if _MODES else "SameStep",
    }

    def __init__(self, env: NumericEnv, num_envs: int, role: RoleName, partner: Agent) -> None:
        """Take the game from a single environment, which is left as it is.

        Args:
            env: the game.
            num_envs: N.
            role: the side to be played; "recommender" and "user" will do.
            partner: plays the other side.

        Raises:
            ConfigError: no games, no such side, several users, or an argument of another kind.
        """
        refuse_groups(env, "A game for one side")
        check_plays(partner, "The partner")
        self.num_envs = whole_number("A vector holds games.", "num_envs", num_envs, 1)
        self.role = find_role(role)
        self.partner = partner
        self.episodes = env.env.episodes
        self.encoder = env.encoder
        self.single_observation_space = self.encoder.observation_space()
        self.single_action_space = self.encoder.action_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.dialogues: dict[int, Dialogue] = {}
        """The running one of each game; empty before the first reset."""
        self._env = env
        self._side = ROLES.index(self.role)
        self._streams = Streams(self.num_envs, len(self.episodes))
        self._partners: dict[int, Agent] = {}  # of each game; games that began in one step share one
        self._numbers: dict[int, int] = {}  # of each game among those of its partner

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin a game everywhere. Without a seed each game goes on with its stream of tasks.

        Raises:
            TaskError, ConfigError: as `CoarsEnv.reset`, whose options these are, in all games.
        """
        chosen = asked_task(options, self.episodes)
        if seed is not None:
            self._streams.seed(seed)
        super().reset(seed=seed)
        games = list(range(self.num_envs))
        self._begin(games, chosen)
        infos: dict[str, Any] = {}
        for n in games:
            infos = self._add_info(infos, self._info(n), n)
        return self._observe(games), infos | {"action_mask": self.action_masks()}

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[Floats, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Play a half-turn of one's own and the partner's next in every game; begin anew where a game has ended.

        Raises:
            ActionError: an act lies outside its space, or there was no reset. No game has changed then.
        """
        games = list(range(self.num_envs))
        terms = self._speak(self._in_words(actions), self.role)
        if self.role == RECOMMENDER:
            terms = self._speak(self._asked(games), self._partner_role)
        infos = {n: self._info(n, terms[n]) for n in games}
        rewards = np.array([terms[n].rewards[self.role] for n in games], np.float64)
        over = [n for n in games if self.dialogues[n].ending is not None]
        running = [n for n in games if n not in set(over)]
        if self.role != RECOMMENDER:
            self._speak(self._asked(running), self._partner_role)
        told: dict[str, Any] = {}
        for n, last in zip(over, self._observe(over), strict=True):
            told = self._add_info(told, {"final_obs": last, "final_info": infos[n]}, n)
        self._begin(over)
        infos |= {n: self._info(n) for n in over}
        for n in games:
            told = self._add_info(told, infos[n], n)
        ended = np.isin(games, over)
        return self._observe(games), rewards, ended, np.zeros_like(ended), told | {"action_mask": self.action_masks()}

    def action_masks(self) -> Mask:
        """Return [N, n], 1 where an act is legal; before the first reset, as an episode begins."""
        fresh = self._env.env.new_dialogue(self.episodes.tasks[0])
        masks = [self._env.legal_acts(self.role, self.dialogues.get(n, fresh)) for n in range(self.num_envs)]
        return np.array(masks, np.int8)

    @property
    def _partner_role(self) -> Role:
        return ROLES[1 - self._side]

    def _begin(self, games: Sequence[int], chosen: Task | None = None) -> None:
        """Begin the next episode in these games, with a copy of the partner for them. Where it begins, it speaks."""
        if not games:
            return
        drawn = self._streams.draw(np.array(games)).tolist()  # also drawn where the task is not played
        partner = copy_agent(self.partner)
        partner.start([agent_seed(seed, 1 - self._side, 0) for seed, _ in drawn])
        game = self._env.env
        for number, (n, (_, place)) in enumerate(zip(games, drawn, strict=True)):
            task = chosen or self.episodes.tasks[place]
            self.dialogues[n] = game.new_dialogue(task)
            self._partners[n], self._numbers[n] = partner, number
        if self.role != RECOMMENDER:
            self._speak(self._asked(games), self._partner_role)

    def _asked(self, games: Sequence[int]) -> dict[int, Action]:
        """What the partner does in these games; one batch for all that began in one step."""
        batches: dict[int, list[int]] = {}
        for n in games:
            batches.setdefault(id(self._partners[n]), []).append(n)
        actions: dict[int, Action] = {}
        for batch in batches.values():
            shown = {self._numbers[n]: self.dialogues[n].observe(self._partner_role) for n in batch}
            said = self._partners[batch[0]].act(shown)
            actions |= {n: said.get(self._numbers[n], {}) for n in batch}
        return actions

    def _speak(self, actions: Mapping[int, Action], role: Role) -> dict[int, Any]:
        """Play a half-turn of a side in some games; the terms of the turns that it closes.

        Raises:
            ActionError: an action lies outside its space.
        """
        space = self._env.env.action_spaces[role]
        members = {n: as_member(action, space) for n, action in actions.items()}
        for n, member in members.items():
            if member is None:
                raise ActionError(
                    f"An action must lie in its space. Expected a member of {space} from {role}, found {actions[n]!r} "
                    f"in game {n}. No game has changed: pass other actions, or correct the partner."
                )
        return {n: self.dialogues[n].act(member) for n, member in members.items() if member is not None}

    def _in_words(self, actions: npt.ArrayLike) -> dict[int, Action]:
        """The acts of one's own side, checked."""
        if not self.dialogues:
            raise ActionError("An action needs a running game. Expected reset() first, found step(). Call reset().")
        acts = np.asarray(actions)
        if acts.shape != (self.num_envs,) or acts.dtype.kind not in "iu":
            raise ActionError(
                f"Every game needs an act. Expected integers of shape ({self.num_envs},), found {acts.dtype} of shape "
                f"{acts.shape}. Pass one for each game."
            )
        return {n: self._env.in_words(act, self.role, self.dialogues[n]) for n, act in enumerate(acts.tolist())}

    def _observe(self, games: Sequence[int]) -> Floats:
        """What one's own side sees in these games. [games, L]."""
        if not games:
            return np.zeros((0, self.encoder.size), np.float32)
        return self.encoder.encode([self.dialogues[n].observe(self.role) for n in games], self.role)

    def _info(self, n: int, terms: RewardTerms | None = None) -> dict[str, Any]:
        """As `CoarsEnv` has it for the side."""
        return self._env.env.info(self.dialogues[n], self.role, terms)
