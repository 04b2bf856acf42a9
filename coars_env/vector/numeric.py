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
from coars_env.tasks import Task
from coars_env.transcript import ACTIONS, Turn
from coars_env.vector.arrays import Talk, TaskArrays, UserActs, answered_turn, opened_turn
from coars_env.vector.streams import ByRole, Streams
from coars_env.views.acts import Mask
from coars_env.views.numeric import Bools, Floats
from coars_env.views.numeric_env import NumericEnv, refuse_groups

STAR, CLICK = ACTIONS.index("star"), ACTIONS.index("click")


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
            ConfigError: no games, or several users; in `step`, a reward that returns what cannot be paid.

        Warns:
            CoarsWarning: the reward has no method `batch`, so each turn is scored in a Python loop.
        """
        expect(NumericEnv, env, "Arrays are those of the game in numbers.", "Make one by make(name, view='numeric').")
        refuse_groups(env, "A game in arrays")
        game, self.encoder = env.env, env.encoder
        self._one_by_one = not callable(getattr(game.reward, "batch", None))
        if self._one_by_one:
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
        self._reward, self._rules = game.reward, game.rules
        self._tasks = TaskArrays(self.episodes.tasks, self.encoder)
        self._acts = UserActs(self.encoder)
        self._streams = Streams(self.num_envs, len(self.episodes))
        n, t, k = self.num_envs, self.max_turns, self.encoder.num_candidates
        self._task = np.full(n, -1, np.int64)  # -1 before the first reset
        self._speaker = 0  # of all games: each has two half-turns in a turn, so they stay in step
        self._turn = np.zeros(n, np.int64)  # finished turns
        self._position = np.full(n, -1, np.int64)  # of the latest proposal among the candidates; -1 if it named none
        self._proposed, self._rejected = np.zeros((n, k), np.bool_), np.zeros((n, k), np.bool_)
        self._never = np.zeros(n, np.bool_)
        self._nothing = np.zeros((n, k), np.bool_)  # what the user sees of `_proposed`
        self._talk = Talk(self.encoder, n) if self.encoder.acts.kinds else None
        self._opened: list[Turn] = []  # the open turns, where the reward pays single turns only
        self._turns = np.zeros((n, t, self.encoder.turn_size), np.float32)
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
        acts = self._checked(actions)
        rewards, ended = np.zeros((len(self.possible_agents), self.num_envs)), np.zeros(self.num_envs, np.bool_)
        if self._speaker == 0:
            self._propose(acts)
        else:
            rewards, ended = self._answer(acts)
        self._speaker = 1 - self._speaker
        for side in range(len(self.possible_agents)):
            self._write_dynamic(side)
        self._write_facets()
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

    def _checked(self, actions: Mapping[str, npt.ArrayLike]) -> IntArray:
        """The acts of the side whose half-turn it is, checked. [N]."""
        if self._task[0] < 0:
            raise ActionError("An action needs a running game. Expected reset() first, found step(). Call reset().")
        if not isinstance(actions, Mapping) or any(role not in actions for role in self.possible_agents):
            raise ActionError(
                f"Both sides act in every step. Expected a dict with acts of {self.possible_agents}, found "
                f"{list(actions) if isinstance(actions, Mapping) else actions!r}. Pass any for the silent side: they "
                "are ignored."
            )
        speaker, highest = self.possible_agents[self._speaker], self.encoder.acts.wait
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
        everywhere, k = np.arange(self.num_envs), self.encoder.num_candidates
        if self._talk:
            self._talk.ask(np.where(self._may_ask() & (acts < k + len(self.encoder.acts.kinds)), acts - k, -1))
        named = acts < k
        if self._rules.repeats == "forbidden":
            named &= self._allowed()[everywhere, np.minimum(acts, k - 1)]
        self._position = np.where(named, acts, -1)
        described = np.where(named[:, None], self._tasks.described[self._task, self._position], np.float32(0))
        self._turns[everywhere, self._turn, : self.encoder.described] = described
        games = np.flatnonzero(named)
        self._proposed[games, acts[games]] = True
        if self._one_by_one:
            places, flags = zip(self._task.tolist(), named.tolist(), strict=True), self._may_ask().tolist()
            self._opened = [
                opened_turn(self.episodes, place, self.encoder.acts, act, may_ask, named=name)
                for (place, name), act, may_ask in zip(places, acts.tolist(), flags, strict=True)
            ]

    def _may_ask(self) -> Bools:
        """Whether the recommender may ask. [N]."""
        return (self._turn < self.max_turns - 1) & (self._talk is not None and self._rules.questions)

    def _asked(self) -> Bools:
        """Whether the user is asked. [N]."""
        return self._talk.now >= 0 if self._talk else self._never

    def _allowed(self) -> Bools:
        """Candidates that may be proposed where repeats are forbidden. [N, K]."""
        return ~self._rejected | self._rejected.all(1, keepdims=True)

    def _answer(self, acts: IntArray) -> tuple[FloatArray, Bools]:
        """Rewards [2, N], and whether the game has ended."""
        everywhere, named, question = np.arange(self.num_envs), self._position >= 0, self._asked()
        answers = np.where(question, self.encoder.acts.wait, acts) if self._talk else acts  # to proposals
        action = self._acts.action[answers]
        if self._one_by_one:
            rewards = self._paid_one_by_one(acts)
        else:
            q = self._tasks.peer_similarity[self._task, self._position]
            turns = TurnArrays(
                hit=self._position == self._tasks.target[self._task],
                named=named,
                question=question,
                unread=np.where(question, self._acts.unread[acts], action < 0) if self._talk else action < 0,
                action=action,
                strength=self._acts.strength[answers],
                peer_similarity=np.where(named, q, 0.0),
                number=self._turn + 1,
            )
            rewards = self._paid(turns)
        if self._rules.repeats != "paid":
            if self._rules.repeats == "unpaid":
                repeated = named & self._rejected[everywhere, self._position]
                rewards = np.where(repeated & (rewards > 0), 0.0, rewards)
            rejected = np.flatnonzero(named & (action >= 0) & (action < STAR))
            self._rejected[rejected, self._position[rejected]] = True
        self._turns[everywhere, self._turn, self.encoder.described :] = self._acts.encoded[answers]
        if self._talk:
            self._talk.answer(self._acts.reveal[acts], self._tasks.candidates[self._task])
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
        games = zip(self._task.tolist(), (self._turn + 1).tolist(), self._opened, acts.tolist(), strict=True)
        for n, (place, number, opened, act) in enumerate(games):
            task, turn = self.episodes.tasks[place], answered_turn(opened, self.encoder.acts, act)
            terms = self._reward.turn(task, turn, number, self.max_turns)
            check_terms(terms, self._reward, task, number, self.possible_agents)
            rewards[:, n] = [terms.rewards[agent] for agent in self.possible_agents]
        return rewards

    def _begin(self, games: IntArray, chosen: Task | None = None) -> None:
        """Begin the next episode in these games, of the chosen task if there is one, and write what both sides see."""
        drawn = self._streams.draw(games)[:, 1]  # also drawn where it is not played
        self._task[games] = drawn if chosen is None else self.episodes.tasks.index(chosen)
        self._turn[games], self._position[games], self._proposed[games], self._turns[games] = 0, -1, False, 0.0
        self._rejected[games] = False
        if self._talk:
            self._talk.begin(games)
        for seen, static, fresh in zip(self._seen, self._tasks.static, self._fresh, strict=True):
            seen[games, : self.encoder.static_size] = static[self._task[games]]
            seen[games, self.encoder.static_size : self.encoder.static_size + self.encoder.dynamic_size] = fresh
        self._write_facets(games)

    def _observations(self) -> ByRole:
        return {role: seen.copy() for role, seen in zip(self.possible_agents, self._seen, strict=True)}

    def _write_dynamic(self, side: int) -> Floats:
        return self.encoder.dynamic(
            side,
            np.full(self.num_envs, self._speaker),
            self._turn,
            self._nothing if side else self._proposed,
            self._turns,
            out=self._seen[side][:, self.encoder.static_size : self.encoder.size - self.encoder.facets_size],
        )

    def _write_facets(self, games: IntArray | None = None) -> None:
        """Write what was said of facets; everywhere, or in these games."""
        if not self._talk:
            return
        rows = np.arange(self.num_envs) if games is None else games
        task, position = self._task[rows], self._position[rows]
        proposal = np.where((position >= 0) & (self._speaker == 1), self._tasks.candidates[task, position], -1)
        for side, seen in enumerate(self._seen):
            seen[rows, -self.encoder.facets_size :] = self._talk.shown(side, rows, proposal, self._tasks.wanted[task])

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {
            role: {"action_mask": self._mask(side), "task": self._task.copy()}
            for side, role in enumerate(self.possible_agents)
        }

    def _mask(self, side: int) -> Mask:
        """Legal acts of a side. [N, n]."""
        masks = self.encoder.acts.masks[side, int(self._speaker == side)]
        mask: Mask = np.tile(masks[0], (self.num_envs, 1))
        if self._talk and self._speaker == side:
            mask = masks[(self._asked() if side else self._may_ask()).astype(np.int64)]
        if side == self._speaker == 0 and self._rules.repeats == "forbidden":
            mask[:, : self.encoder.num_candidates] &= self._allowed()
        return mask
