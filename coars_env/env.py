"""CoarsEnv: the dialogue as a PettingZoo parallel environment. `Dialogue` is the game itself, without the API."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from coars_env.datasets.dataset import Item, Provenance
from coars_env.errors import ActionError, ConfigError, TaskError
from coars_env.rewards import CoarsReward, RewardTerms
from coars_env.tasks import HISTORY_LENGTH, EpisodeSet, Task
from coars_env.transcript import (
    ACTIONS,
    MAX_MESSAGE_LENGTH,
    RECOMMENDER,
    ROLES,
    USER,
    EndingKind,
    Role,
    Transcript,
    Turn,
    clamp_strength,
    clean_message,
    dialogue_text,
)

MAX_TURNS = 4
"""T; the paper is silent, 4 is AFL's value (arXiv:2410.20027)."""
MAX_TEXT_LENGTH = 32768
"""Longest `text` observation in characters."""

Observation = dict[str, Any]
Action = Mapping[str, Any]


class UnicodeText(spaces.Text):
    """Any string up to `max_length`, the empty one included. Gymnasium's own Text knows no blanks and no accents."""

    def __init__(self, max_length: int, seed: int | None = None) -> None:
        printable = "".join(chr(c) for c in range(32, 127))
        super().__init__(max_length, min_length=0, charset=printable, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


class Dialogue:
    """One episode being played: half-turns alternate, the recommender begins.

    Example: `d = Dialogue(task, items); d.recommend(position=3, message="..."); d.reply(action=3, strength=.9,
    message="..."); d.ending == "accepted"`.
    """

    def __init__(
        self, task: Task, items: Sequence[Item], *, max_turns: int = MAX_TURNS, reward: CoarsReward | None = None
    ) -> None:
        self.task = task
        self.items = items
        self.max_turns = max_turns
        self.turns: list[Turn] = []
        self.terms: list[RewardTerms] = []
        self.speaker: Role = RECOMMENDER
        self.ending: EndingKind | None = None
        self.cause: str | None = None
        self._reward = reward or CoarsReward()

    def recommend(self, position: int, message: str, error: str | None = None) -> None:
        """The recommender proposes candidate `position`; `len(candidates)` means that it named none."""
        named = position < len(self.task.candidates)
        self.turns.append(
            Turn(
                proposal=self.task.candidates[position] if named else None,
                rationale=clean_message(message),
                action=None,
                strength=None,
                reply="",
                recommender_error=None if named else error or "the message names no candidate",
            )
        )
        self.speaker = USER

    def reply(self, action: int, strength: float, message: str, error: str | None = None) -> RewardTerms:
        """The user answers; `len(ACTIONS)` means that the message held no action. Ends the turn and rewards it."""
        opened = asdict(self.turns.pop())
        usable = action < len(ACTIONS)
        opened |= {
            "action": action if usable else None,
            "strength": clamp_strength(action, strength) if usable else None,
            "reply": clean_message(message),
            "user_error": None if usable else error or "the message holds no action",
        }
        turn = Turn(**opened)
        self.turns.append(turn)
        terms = self._reward.turn(self.task, turn, len(self.turns), self.max_turns)
        self.terms.append(terms)
        self.speaker = RECOMMENDER
        if turn.proposal is not None and turn.action == ACTIONS.index("click"):
            self.ending = "accepted"
        elif len(self.turns) == self.max_turns:
            self.ending = "max_turns"
        return terms

    def fail(self, cause: str) -> None:
        """End the episode because an agent broke; a half-finished turn is dropped."""
        if self.speaker == USER:
            self.turns.pop()
        self.ending, self.cause = "failed", cause

    def act(self, action: Action) -> RewardTerms | None:
        """Play the speaker's action, a member of its action space. Returns the turn's rewards when a turn closes."""
        error = action.get("error")
        if self.speaker == RECOMMENDER:
            self.recommend(int(action["item"]), str(action["message"]), error)
            return None
        return self.reply(int(action["action"]), float(action["strength"]), str(action["message"]), error)

    def observe(self, role: Role) -> Observation:
        """What one side may see now; a member of `observation_space`."""
        task, turns, length = self.task, self.turns, self.max_turns
        candidates = task.candidates if role == RECOMMENDER else (-1,) * len(task.candidates)
        missing = range(length - len(turns))
        return {
            "text": dialogue_text(task, turns, self.items, role)[:MAX_TEXT_LENGTH],
            "speaker": ROLES.index(self.speaker),
            "turn": min(len(turns) - (self.speaker == USER), length),
            "history": np.array([*(-1 for _ in range(HISTORY_LENGTH - len(task.history))), *task.history]),
            "candidates": np.array(candidates),
            "proposals": np.array([*(-1 if t.proposal is None else t.proposal for t in turns), *(-1 for _ in missing)]),
            "actions": np.array([*(-1 if t.action is None else t.action for t in turns), *(-1 for _ in missing)]),
            "strengths": np.array(
                [*(-1.0 if t.strength is None else t.strength for t in turns), *(-1.0 for _ in missing)],
                dtype=np.float32,
            ),
            "rationales": (*(t.rationale for t in turns), *("" for _ in missing)),
            "replies": (*(t.reply for t in turns), *("" for _ in missing)),
        }

    def transcript(self, provenance: Provenance, *, seed: int = 0) -> Transcript:
        """The finished episode."""
        assert self.ending is not None
        return Transcript(self.task, self.max_turns, tuple(self.turns), self.ending, self.cause, provenance, seed)


def observation_space(num_items: int, num_candidates: int, max_turns: int) -> spaces.Dict:
    """The space of both sides' observations, see `CoarsEnv`."""
    message = UnicodeText(MAX_MESSAGE_LENGTH)

    def indices(n: int, high: int) -> spaces.Box:
        return spaces.Box(-1, high, (n,), np.int64)

    return spaces.Dict(
        {
            "text": UnicodeText(MAX_TEXT_LENGTH),
            "speaker": spaces.Discrete(len(ROLES)),
            "turn": spaces.Discrete(max_turns + 1),
            "history": indices(HISTORY_LENGTH, num_items - 1),
            "candidates": indices(num_candidates, num_items - 1),
            "proposals": indices(max_turns, num_items - 1),
            "actions": indices(max_turns, len(ACTIONS) - 1),
            "strengths": spaces.Box(-1.0, 1.0, (max_turns,), np.float32),
            "rationales": spaces.Tuple([message] * max_turns),
            "replies": spaces.Tuple([message] * max_turns),
        }
    )


def action_spaces(num_candidates: int) -> dict[str, spaces.Dict]:
    """Each side's action space, see `CoarsEnv`."""
    return {
        RECOMMENDER: spaces.Dict(
            {"item": spaces.Discrete(num_candidates + 1), "message": UnicodeText(MAX_MESSAGE_LENGTH)}
        ),
        USER: spaces.Dict(
            {
                "action": spaces.Discrete(len(ACTIONS) + 1),
                "strength": spaces.Box(0.0, 1.0, (), np.float32),
                "message": UnicodeText(MAX_MESSAGE_LENGTH),
            }
        ),
    }


class CoarsEnv(ParallelEnv[str, Observation, Action]):
    """Two agents talk about one next-item decision.

    A turn has two half-turns. In the first `recommender_0` proposes one of K candidates and says why; in the second
    `user_0` answers with an action (dislike, skip, star, click), an acceptance strength in [0, 1] and a reason. Each
    call of `step` plays one half-turn: both agents must pass an action, the silent side's is ignored.

    **Observations** (both sides, one `spaces.Dict`; K candidates, T turns, I items of the catalogue, -1 is padding):

    | key | space | meaning |
    |---|---|---|
    | `text` | text | the episode so far in words, as this side may see it |
    | `speaker` | Discrete(2) | whose half-turn it is: 0 recommender, 1 user |
    | `turn` | Discrete(T + 1) | finished turns |
    | `history` | Box int64 [10] | items taken before, oldest first, padded on the left |
    | `candidates` | Box int64 [K] | the list to choose from; all -1 for the user, who is not shown it |
    | `proposals` | Box int64 [T] | item proposed in each turn |
    | `actions`, `strengths` | Box [T] | the user's answers |
    | `rationales`, `replies` | Tuple of T texts | both sides' reasons |

    Item numbers are places in a seeded permutation of the catalogue and carry no order of the source.

    **Actions.** `recommender_0`: Dict(`item`: Discrete(K + 1), `message`: text); K means "no item could be read".
    `user_0`: Dict(`action`: Discrete(5), `strength`: Box [], `message`: text); 4 means "no action could be read". The
    strength is moved into its action's interval: dislike [0, .25), skip [.25, .5), star [.5, .75), click [.75, 1]. An
    optional key `error` says why nothing could be read. An action outside its space raises `ActionError` and changes
    nothing.

    **Rewards.** Both sides are paid when the user has answered, by `CoarsReward` (arXiv:2604.10029, Eq. 7-8); 0 in the
    recommender's half-turn. `infos[agent]["reward_terms"]` holds every factor, and whether CoARS would leave the turn
    out of training.

    **Endings.** Both agents terminate together, at a click or after T turns. T is a rule of the game and is observed,
    so it terminates; nothing truncates. `transcript` then holds the episode.

    **Seeds.** `reset(seed=...)` seeds the choice of the task; `reset()` goes on with that stream;
    `reset(options={"task_id": ...})` plays one task of the set.

        env = coars_env.make("movielens")
        observations, infos = env.reset(seed=0)
        while env.agents:
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            observations, rewards, terminations, truncations, infos = env.step(actions)
        print(env.transcript)
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "coars_v0",
        "render_modes": ["ansi", "human"],
        "is_parallelizable": True,
    }

    def __init__(
        self,
        episodes: EpisodeSet,
        *,
        max_turns: int = MAX_TURNS,
        reward: CoarsReward | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not len(episodes):
            raise TaskError(f"An environment needs tasks. Expected at least one in {episodes.name!r}, found none.")
        lengths = sorted({len(task.candidates) for task in episodes.tasks})
        if len(lengths) > 1:
            raise TaskError(
                f"All tasks of an environment need equally many candidates. Expected one number in {episodes.name!r}, "
                f"found {lengths}. Split the set."
            )
        if max_turns < 1:
            raise ConfigError(f"A dialogue needs turns. Expected max_turns >= 1, found {max_turns}. Raise it.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"Expected render_mode None, 'ansi' or 'human', found {render_mode!r}. Choose one.")
        self.episodes = episodes
        self.max_turns = max_turns
        self.render_mode = render_mode
        self.possible_agents = list(ROLES)
        self.agents: list[str] = []
        self.dialogue: Dialogue | None = None
        self._reward = reward or CoarsReward()
        self._rng = np.random.default_rng()
        self._seed = 0
        space = observation_space(len(episodes.items), lengths[0], max_turns)
        self.observation_spaces = {agent: space for agent in ROLES}
        self.action_spaces = cast(dict[str, gymnasium.Space[Any]], action_spaces(lengths[0]))

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.action_spaces[agent]

    @property
    def transcript(self) -> Transcript:
        """The finished episode.

        Raises:
            TaskError: the episode has not ended.
        """
        if self.dialogue is None or self.dialogue.ending is None:
            raise TaskError("A transcript is of a finished episode. Expected one, found none. Play on to the end.")
        return self.dialogue.transcript(self.episodes.provenance, seed=self._seed)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        if seed is not None:
            self._rng, self._seed = np.random.default_rng(seed), seed
        task_id = (options or {}).get("task_id")
        drawn = int(self._rng.integers(len(self.episodes)))
        task = self.episodes.tasks[drawn] if task_id is None else self.episodes[task_id]
        self.dialogue = Dialogue(task, self.episodes.items, max_turns=self.max_turns, reward=self._reward)
        self.agents = list(ROLES)
        return self._observations(), {agent: {"task_id": task.task_id} for agent in ROLES}

    def step(
        self, actions: dict[str, Action]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        dialogue = self.dialogue
        if dialogue is None or dialogue.ending is not None:
            raise ActionError("A finished episode takes no actions. Expected reset() first, found step(). Call reset().")
        speaker = dialogue.speaker
        self._check(speaker, actions)
        terms = dialogue.act(actions[speaker])
        ended = dialogue.ending is not None
        infos = {agent: self._info(terms) for agent in ROLES}
        rewards = {RECOMMENDER: terms.recommender if terms else 0.0, USER: terms.user if terms else 0.0}
        observations = self._observations()
        if ended:
            self.agents = []
        return observations, rewards, dict.fromkeys(ROLES, ended), dict.fromkeys(ROLES, False), infos

    def render(self) -> str | None:
        """The dialogue in words, returned for "ansi" and printed for "human"."""
        if self.render_mode is None or self.dialogue is None:
            return None
        text = dialogue_text(self.dialogue.task, self.dialogue.turns, self.episodes.items, RECOMMENDER)
        if self.render_mode == "ansi":
            return text
        print(text)
        return None

    def close(self) -> None:
        """Nothing to release."""

    def _observations(self) -> dict[str, Observation]:
        assert self.dialogue is not None
        return {agent: self.dialogue.observe(agent) for agent in ROLES}

    def _info(self, terms: RewardTerms | None) -> dict[str, Any]:
        assert self.dialogue is not None
        info: dict[str, Any] = {"task_id": self.dialogue.task.task_id}
        if terms is not None:
            turn = self.dialogue.turns[-1]
            info["reward_terms"] = asdict(terms)
            info["parse_error"] = turn.recommender_error or turn.user_error
        return info

    def _check(self, speaker: str, actions: dict[str, Action]) -> None:
        if missing := [agent for agent in ROLES if agent not in actions]:
            raise ActionError(
                f"Every live agent acts in every step. Expected actions of {list(ROLES)}, found none of {missing}. "
                "Pass any action for the silent side: it is ignored."
            )
        action, space = actions[speaker], self.action_spaces[speaker]
        told = {key: value for key, value in action.items() if key != "error"} if isinstance(action, Mapping) else action
        if isinstance(told, dict) and "strength" in told:
            told["strength"] = np.asarray(told["strength"], dtype=np.float32)
        if not space.contains(told):
            raise ActionError(
                f"An action must lie in its space. Expected a member of {space} from {speaker}, found {action!r}. "
                "The episode is unchanged: pass another action."
            )
