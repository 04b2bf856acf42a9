"""VectorNumericEnv: many games at once in arrays, for policies that think in numbers."""

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.env import asked_task
from coars_env.errors import ActionError, CoarsWarning, ConfigError, expect, whole_number
from coars_env.rewards import BatchReward, TurnArrays, check_terms, reward_name
from coars_env.tasks import HISTORY_LENGTH, Task
from coars_env.transcript import ACTIONS
from coars_env.vector.streams import ByRole, Streams
from coars_env.views.numeric import ACT_STRENGTHS, NUM_USER_ACTS, STEPS, Floats, turn_of_acts
from coars_env.views.numeric_env import NumericEnv

CLICK = ACTIONS.index("click")
_ACTIONS = np.array([*(act // STEPS for act in range(NUM_USER_ACTS)), -1])  # of each act; last, of any other number
_STRENGTHS = np.array([*ACT_STRENGTHS, np.nan])


class VectorNumericEnv:
    """N games of `NumericEnv`, played in arrays: the same observations, rewards and endings, to the last bit.

    Each `step` plays one half-turn in every game, the same side's in all. Everything that goes in or comes out is a
    dict with one entry for each side, and each entry an array whose first axis counts the games:

    | | array |
    |---|---|
    | observations | float32 [N, L], see `Encoder` |
    | actions | integers [N], see `NumericEnv`; those of the silent side are ignored |
    | rewards | float64 [N] |
    | terminations, truncations | bool [N], equal for both sides; nothing truncates |
    | infos | `action_mask`: int8 [N, n], 1 where an act is legal; `task`: [N], the place of the task in `episodes` |

    **Spaces.** `observation_space(agent)` and `action_space(agent)` are those of whole batches, as `step` gives and
    takes them; `single_observation_space` and `single_action_space` those of one game, alike for both sides.

    **Automatic reset**, in the same step (Gymnasium's `SAME_STEP`): where a game has ended, the observation, the mask
    and the task are those of the next game already, and no step is lost. The rewards and terminations belong to the
    game that ended, whose last observations are `infos[role]["final_obs"]`, [E, L], one row for each true entry of
    `terminations[role]`. As games terminate and never truncate, no learner has to value what comes after them.

    **Seeds.** Game n of `reset(seed=s)` plays the tasks that a single environment plays after `reset(seed=s + n)` and
    then `reset()` again and again.

        env = coars_env.make_vec("movielens", num_envs=1024)
        observations, infos = env.reset(seed=0)
        actions = {role: infos[role]["action_mask"].argmax(1) for role in env.possible_agents}
        observations, rewards, terminations, truncations, infos = env.step(actions)
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "coars_vector_v0", "autoreset_mode": "SameStep"}

    def __init__(self, env: NumericEnv, num_envs: int) -> None:
        """Take the game from a single environment, which is left as it is.

        Args:
            env: the game.
            num_envs: N.

        Raises:
            ConfigError: no games; in `step`, a reward that returns what cannot be paid.

        Warns:
            CoarsWarning: the reward has no method `batch`, so each turn is scored in a Python loop.
        """
        expect(NumericEnv, env, "Arrays are those of the game in numbers.", "Make one by make(name, view='numeric').")
        game, self.encoder = env.env, env.encoder
        if not callable(getattr(game.reward, "batch", None)):
            warnings.warn(
                f"{reward_name(game.reward)} has no method `batch`, so the vector environment scores each turn in a "
                "Python loop. For speed, write one, see `BatchReward`.",
                CoarsWarning,
                stacklevel=2,
            )
        self.num_envs = whole_number("A vector holds games.", "num_envs", num_envs, 1)
        self.episodes = game.episodes
        self.max_turns = game.max_turns
        self.possible_agents: list[str] = list(game.possible_agents)
        self.single_observation_space = self.encoder.observation_space()
        self.single_action_space = self.encoder.action_space()
        self._reward = game.reward
        self._tasks = _Tasks(env)
        self._streams = Streams(self.num_envs, len(self.episodes))
        n, t, k = self.num_envs, self.max_turns, self.encoder.num_candidates
        self._task = np.full(n, -1, np.int64)  # -1 before the first reset
        self._speaker = 0  # of all games: each has two half-turns in a turn, so they stay in step
        self._turn = np.zeros(n, np.int64)  # finished turns
        self._position = np.full(n, -1, np.int64)  # of the latest proposal among the candidates; -1 if it named none
        self._proposal = np.zeros(n, np.int64)  # the recommender's latest acts
        self._proposed = np.zeros((n, k), np.bool_)
        self._nothing = np.zeros((n, k), np.bool_)  # what the user sees of `_proposed`
        self._turns = np.zeros((n, t, self.encoder.described + len(ACTIONS) + 1), np.float32)
        self._answers = self._encoded_answers()
        sides = range(len(self.possible_agents))
        self._seen = [np.empty((n, self.encoder.size), np.float32) for _ in sides]  # what each side sees now
        self._fresh = [self._write_dynamic(side)[:1].copy() for side in sides]  # of a game that begins

    @cached_property
    def observation_spaces(self) -> dict[str, gymnasium.Space[Any]]:
        """The batched space of each side's observations. Made when asked for: its bounds are as large as a batch."""
        return dict.fromkeys(self.possible_agents, batch_space(self.single_observation_space, self.num_envs))

    @cached_property
    def action_spaces(self) -> dict[str, gymnasium.Space[Any]]:
        """The batched space of each side's actions."""
        return {role: batch_space(self.single_action_space, self.num_envs) for role in self.possible_agents}

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """Box float32 [N, L], the same object on each call; that of one game is `single_observation_space`."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """MultiDiscrete [N], the same object on each call; that of one game is `single_action_space`."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ByRole, dict[str, dict[str, Any]]]:
        """Begin a game everywhere. Without a seed each game goes on with its stream of tasks.

        Raises:
            TaskError, ConfigError: as `CoarsEnv.reset`, whose options these are, in all games.
        """
        chosen = asked_task(options, self.episodes)
        if seed is not None:
            self._streams.seed(seed)
        self._speaker = 0
        self._begin(np.arange(self.num_envs), chosen)
        return self._observations(), self._infos()

    def step(self, actions: Mapping[str, npt.ArrayLike]) -> tuple[ByRole, ByRole, ByRole, ByRole, dict[str, Any]]:
        """Play one half-turn everywhere, and begin anew where a game has ended.

        Raises:
            ActionError: an act of the side whose half-turn it is lies outside its space, or there was no reset. No game
                has changed then.
        """
        acts = self._acts(actions)
        rewards, ended = np.zeros((len(self.possible_agents), self.num_envs)), np.zeros(self.num_envs, np.bool_)
        if self._speaker == 0:
            self._propose(acts)
        else:
            rewards, ended = self._answer(acts)
        self._speaker = 1 - self._speaker
        for side in range(len(self.possible_agents)):
            self._write_dynamic(side)
        over = np.flatnonzero(ended)
        final = [seen[over] for seen in self._seen]
        if len(over):
            self._begin(over)
        infos = self._infos()
        for role, seen in zip(self.possible_agents, final, strict=True):
            infos[role]["final_obs"] = seen
        return (
            self._observations(),
            dict(zip(self.possible_agents, rewards, strict=True)),
            {role: ended.copy() for role in self.possible_agents},
            {role: np.zeros_like(ended) for role in self.possible_agents},
            infos,
        )

    def close(self) -> None:
        """Nothing to release."""

    def _acts(self, actions: Mapping[str, npt.ArrayLike]) -> IntArray:
        """The acts of the side whose half-turn it is, checked. [N]."""
        if self._task[0] < 0:
            raise ActionError("An action needs a running game. Expected reset() first, found step(). Call reset().")
        if not isinstance(actions, Mapping) or any(role not in actions for role in self.possible_agents):
            raise ActionError(
                f"Both sides act in every step. Expected a dict with acts of {self.possible_agents}, found "
                f"{list(actions) if isinstance(actions, Mapping) else actions!r}. Pass any for the silent side: they "
                "are ignored."
            )
        speaker, highest = self.possible_agents[self._speaker], self.encoder.wait
        try:
            acts = np.asarray(actions[speaker])
        except ValueError:  # rows of different lengths
            acts = np.asarray(None)
        if acts.shape != (self.num_envs,) or acts.dtype.kind not in "iu":
            raise ActionError(
                f"Every game needs an act. Expected integers of shape ({self.num_envs},) from {speaker}, found "
                f"{acts.dtype} of shape {acts.shape}. Pass one for each game."
            )
        if acts.min() < 0 or acts.max() > highest:
            n = int(((acts < 0) | (acts > highest)).argmax())
            raise ActionError(
                f"An action must lie in its space. Expected 0..{highest} from {speaker}, found {acts[n]} in game {n}. "
                "No game has changed: pass other acts."
            )
        return acts.astype(np.int64)

    def _propose(self, acts: IntArray) -> None:
        self._proposal = acts
        named = acts < self.encoder.num_candidates
        self._position = np.where(named, acts, -1)
        described = np.where(named[:, None], self._tasks.described[self._task, self._position], np.float32(0))
        self._turns[np.arange(self.num_envs), self._turn, : self.encoder.described] = described
        games = np.flatnonzero(named)
        self._proposed[games, acts[games]] = True

    def _answer(self, acts: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Rewards [2, N], and whether the game has ended."""
        act = np.minimum(acts, NUM_USER_ACTS)
        action, named = _ACTIONS[act], self._position >= 0
        q = self._tasks.peer_similarity[self._task, self._position]
        turns = TurnArrays(
            hit=self._position == self._tasks.target[self._task],
            named=named,
            action=action,
            strength=_STRENGTHS[act],
            peer_similarity=np.where(named, q, 0.0),
            number=self._turn + 1,
        )
        rewards = self._paid(turns) if hasattr(self._reward, "batch") else self._paid_one_by_one(acts)
        self._turns[np.arange(self.num_envs), self._turn, self.encoder.described :] = self._answers[act]
        self._turn += 1
        return rewards, (named & (action == CLICK)) | (self._turn == self.max_turns)

    def _paid(self, turns: TurnArrays) -> FloatArray:
        """Rewards [2, N], checked."""
        paid = cast(BatchReward, self._reward).batch(turns, self.max_turns)
        try:
            rewards = np.array([paid[role] for role in self.possible_agents], dtype=np.float64)
            wrong = len(paid) != len(rewards) or rewards.shape[1:] != (self.num_envs,) or not np.isfinite(rewards).all()
        except (LookupError, TypeError, ValueError):
            wrong = True
        if wrong:
            raise ConfigError(
                f"The method `batch` of {self._reward!r:.200} returns {paid!r:.400}. It must return {self.num_envs} "
                f"finite numbers for each of {self.possible_agents}; `coars_env.testing.check_reward` checks it."
            )
        return rewards

    def _paid_one_by_one(self, acts: IntArray) -> FloatArray:
        """Rewards [2, N], from a reward that scores single turns only."""
        rewards = np.empty((len(self.possible_agents), self.num_envs))
        for n, (place, number) in enumerate(zip(self._task.tolist(), (self._turn + 1).tolist(), strict=True)):
            task = self.episodes.tasks[place]
            turn = turn_of_acts(task, int(self._proposal[n]), int(acts[n]))
            terms = self._reward.turn(task, turn, number, self.max_turns)
            check_terms(terms, self._reward, task, number, self.possible_agents)
            rewards[:, n] = [terms.rewards[agent] for agent in self.possible_agents]
        return rewards

    def _begin(self, games: IntArray, chosen: Task | None = None) -> None:
        """Begin the next episode in these games, of the chosen task if there is one, and write what both sides see."""
        drawn = self._streams.draw(games)[:, 1]  # also drawn where it is not played
        self._task[games] = drawn if chosen is None else self.episodes.tasks.index(chosen)
        self._turn[games], self._position[games], self._proposed[games], self._turns[games] = 0, -1, False, 0.0
        for seen, static, fresh in zip(self._seen, self._tasks.static, self._fresh, strict=True):
            seen[games, : self.encoder.static_size] = static[self._task[games]]
            seen[games, self.encoder.static_size :] = fresh

    def _observations(self) -> ByRole:
        return {role: seen.copy() for role, seen in zip(self.possible_agents, self._seen, strict=True)}

    def _write_dynamic(self, side: int) -> Floats:
        return self.encoder.dynamic(
            side,
            np.full(self.num_envs, self._speaker),
            self._turn,
            self._nothing if side else self._proposed,
            self._turns,
            out=self._seen[side][:, self.encoder.static_size :],
        )

    def _encoded_answers(self) -> Floats:
        """How each act of the user, and last a message without an action, is written into `_turns`."""
        strengths = np.where(_ACTIONS < 0, -1.0, _STRENGTHS)[:, None].astype(np.float32)
        nothing = np.zeros((len(_ACTIONS), 1, self.encoder.described), np.float32)
        return self.encoder.turns(nothing, _ACTIONS[:, None], strengths)[:, 0, self.encoder.described :]

    def _infos(self) -> dict[str, dict[str, Any]]:
        masks = [self.encoder.masks[side, int(self._speaker == side)] for side in range(len(self.possible_agents))]
        return {
            role: {"action_mask": np.tile(mask, (self.num_envs, 1)), "task": self._task.copy()}
            for role, mask in zip(self.possible_agents, masks, strict=True)
        }


class _Tasks:
    """The tasks of a set as arrays; M tasks."""

    def __init__(self, env: NumericEnv) -> None:
        tasks, encoder = env.env.episodes.tasks, env.encoder
        history = np.full((len(tasks), HISTORY_LENGTH), -1, np.int64)
        for row, task in enumerate(tasks):
            history[row, HISTORY_LENGTH - len(task.history) :] = task.history
        candidates = np.array([task.candidates for task in tasks], np.int64)
        none = (0.0,) * encoder.num_candidates
        self.peer_similarity = np.array([task.peer_similarity or none for task in tasks])  # [M, K]
        at_target = candidates == np.array([task.target for task in tasks])[:, None]
        self.target = np.where(at_target.any(1), at_target.argmax(1), -2)  # [M] place in the list; -2: not listed
        shown = encoder.static(history, candidates)
        self.static = [shown, encoder.static(history, np.full_like(candidates, -1))]  # of each side, [M, static_size]
        self.described = shown[:, encoder.described - 1 :].reshape(*candidates.shape, -1)  # [M, K, F + 1]
