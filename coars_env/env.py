"""CoarsEnv: the dialogue as a PettingZoo parallel environment."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from coars_env.dialogue import MAX_TURNS, Dialogue, checked_seed
from coars_env.errors import ActionError, ConfigError, TaskError, expect, whole_number
from coars_env.observation import Action, Observation
from coars_env.rendering.terminal import dialogue_lines, show
from coars_env.rewards import Reward, RewardTerms, reward_or_default
from coars_env.roles import Role, agents_of
from coars_env.rules import Rules
from coars_env.spaces import action_spaces, as_member, observation_space
from coars_env.tasks import EpisodeSet, Task
from coars_env.transcript import Transcript


def asked_task(options: Mapping[str, Any] | None, episodes: EpisodeSet) -> Task | None:
    """The task that `options["task_id"]` of a reset asks for; None if it asks for none.

    Raises:
        TaskError: it is not in the set.
        ConfigError: the options are no dict.
    """
    if options is None:
        return None
    expect(Mapping, options, "What a reset may be asked for has a name.", "Pass {'task_id': ...}.")
    task_id = options.get("task_id")
    return None if task_id is None else episodes[task_id]


class CoarsEnv(ParallelEnv[str, Observation, Action]):
    """A recommender and its user, or users, talk about one next-item decision.

    A turn has two half-turns. In the first `recommender_0` proposes one of K candidates and says why; in the second
    `user_0` answers with an action (dislike, skip, star, click), an acceptance strength in [0, 1] and a reason. Each
    call of `step` plays one half-turn: all agents must pass an action, the silent side's is ignored.

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
    | `opinions` | Box int64 [T, 3, 3] | what three peers say of each proposal; all -1 for the recommender, see below |
    | `rationales`, `replies` | Tuple of T texts | both sides' reasons |

    Item numbers are places in a seeded permutation of the catalogue and carry no order of the source.

    In episodes with instructions (Q kinds of facets such as genre and decade) there are five keys more, and where
    `Rules(repeats="forbidden")`, with instructions or without, the last:

    | key | space | meaning |
    |---|---|---|
    | `instruction` | text | what the user wants, one facet a line, "genre: Comedy"; empty for the recommender |
    | `kinds` | text | the kinds that the two sides can talk about, one a line |
    | `askable` | MultiBinary(Q) | 1 for kinds that the recommender may ask for in this turn |
    | `questions` | Tuple of T texts | the kind asked for in each turn; empty where the turn proposes |
    | `reveals` | Tuple of T texts | the facet that the user revealed in each turn, true or not; empty for none |
    | `allowed` | MultiBinary(K) | 1 for candidates that may be proposed now; zeros for the user |

    `instruction_of`, `kinds_of`, `askable_kinds`, `asked_kind` and `reveals_of` read them.

    **Peers** are training users of similar taste who took the proposed item. The user hears the three nearest, nearest
    first; fewer where fewer took it. A row of `opinions` is how alike they are (0 little, 1 somewhat, 2 much) and the
    two items the peer took right before, -1 where there was none. `opinions_heard` reads it. Of items that were not
    proposed nothing is told, and to the recommender nothing at all. See `VectorPeers`.

    **Actions.** `recommender_0`: Dict(`item`: Discrete(K + 1), `message`: text); K means "no item could be read".
    `user_0`: Dict(`action`: Discrete(5), `strength`: Box [], `message`: text); 4 means "no action could be read". The
    strength is moved into its action's interval: dislike [0, .25), skip [.25, .5), star [.5, .75), click [.75, 1]. An
    optional key `error` says why nothing could be read. An optional key `fields`, a mapping from labels to texts, holds
    parts of the reply that the partner does not see, such as a thought; it is recorded in the transcript and is part of
    no observation. Any string is a legal message: it is put into NFC, control
    characters become blanks, and what exceeds 2048 characters is cut. Any other action outside its space raises
    `ActionError` and changes nothing.

    **Questions.** In episodes with instructions the recommender's action has a key more, `ask`, and the user's
    `reveal`; both may be left out. `{"ask": "genre", "message": "Which genre?"}` asks: the turn proposes nothing, and
    the user answers in words and perhaps by `reveal`, such as "genre: Comedy"; its action and strength are ignored, but
    for 4 with an `error`, which means that nothing could be read. A facet may be revealed with the answer to a
    proposal, too. The last turn has to propose: a question there is a message that cannot be read.
    `Rules(questions=False)` takes the key `ask` away.

    **Rules.** See `Rules`: what a repeated proposal is worth or whether it is allowed, which proposal the dialogue
    answered, and whether the recommender may ask.

    **Rewards.** Both sides are paid when the user has answered, by `CoarsReward` (arXiv:2604.10029, Eq. 7-8); 0 in the
    recommender's half-turn. `infos[agent]` then holds `reward_terms`, see `RewardTerms`: `rewards` of all agents by
    name, the `factors` they are made of, and the agents whose message is left out of training (`excluded`).

    **Messages that cannot be read** are part of the game: the turn is recorded, `infos[agent]["parse_error"]` says what
    was wrong with the agent's own latest message (None if nothing), and the author is paid the reward's `invalid`.

    **Endings.** Both agents terminate together, at a click or after T turns. T is a rule of the game and is observed,
    so it terminates; nothing truncates. `transcript` then holds the episode.

    **Several users.** In episodes of groups (`make(..., num_users=3)`) the agents are `recommender_0`, `user_0`,
    `user_1` and so on. All users answer a proposal in one half-turn, none before it heard the others; a click of all
    ends the episode. Each user is paid for itself, the recommender the mean over the users. A user sees its own history
    and opinions, and everybody's answers: `actions` and `strengths` are [N, T], `replies` N tuples of T texts, one row
    for each of the N users. `history` of the recommender is [N, 10]. A key `agent` is the own place among the agents.

    **Seeds.** `reset(seed=...)` seeds the choice of the task; `reset()` goes on with that stream;
    `reset(options={"task_id": ...})` plays one task of the set; other options are ignored.

        env = coars_env.make("movielens")
        for agent in env.possible_agents:
            env.action_space(agent).seed(0)
        observations, infos = env.reset(seed=0)
        while env.agents:
            actions = {agent: env.action_space(agent).sample() for agent in env.agents}
            observations, rewards, terminations, truncations, infos = env.step(actions)
        print(env.transcript)

    Raises:
        TaskError: there are no tasks, or lists of different lengths.
        ConfigError: a setting that cannot be; in `step`, a reward that returns what cannot be paid.
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
        reward: Reward | None = None,
        rules: Rules | None = None,
        render_mode: str | None = None,
    ) -> None:
        expect(EpisodeSet, episodes, "An environment is made of episodes.", "`coars_env.make` makes one from a name.")
        if not len(episodes):
            raise TaskError(
                f"An environment needs tasks. Expected at least one in {episodes.name!r}, found none. Freeze a part of "
                "the split that is not empty."
            )
        lengths = sorted({len(task.candidates) for task in episodes})
        if len(lengths) > 1:
            raise TaskError(
                f"All tasks of an environment need equally many candidates. Expected one number in {episodes.name!r}, "
                f"found {lengths}. Split the set."
            )
        max_turns = whole_number("A dialogue needs turns.", "max_turns", max_turns, 1)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(
                f"There are two ways to render. Expected render_mode None, 'ansi' or 'human', found {render_mode!r}. "
                "Choose one."
            )
        self.episodes = episodes
        self.max_turns = max_turns
        self.rules = Rules() if rules is None else rules
        expect(Rules, self.rules, "An environment has rules.", "Pass Rules(...), or None.")
        kinds = episodes.kinds
        self.render_mode = render_mode
        self.possible_agents: list[str] = list(agents_of(episodes.num_users))
        self.agents: list[str] = []
        self.dialogue: Dialogue | None = None
        self.reward: Reward = reward_or_default(reward)
        self._rng = np.random.default_rng()
        self.episode_seed = 0
        """Seed of the running episode: that of `reset`, or a number of the stream after an unseeded one."""
        game, num_users = (lengths[0], episodes.items, kinds, self.rules), episodes.num_users
        self.observation_spaces: dict[str, gymnasium.Space[Any]] = {
            role: observation_space(*game, max_turns, role=role, num_users=num_users) for role in self.possible_agents
        }
        self.action_spaces = cast(dict[str, gymnasium.Space[Any]], action_spaces(*game, num_users=num_users))

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.action_spaces[agent]

    @property
    def transcript(self) -> Transcript:
        """The finished episode, with `episode_seed`.

        Raises:
            TaskError: the episode has not ended.
        """
        if self.dialogue is None:
            raise TaskError("A transcript is of a finished episode. Expected one, found none. Call reset() and play.")
        return self.dialogue.transcript(self.episodes.provenance, seed=self.episode_seed)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin an episode. Returns observations and infos of both agents; `infos[agent]["task_id"]` names the task.

        Raises:
            TaskError: `options["task_id"]` is not in the set; the running episode goes on.
            ConfigError: the seed is no whole number or negative, or the options are no dict; likewise.
        """
        chosen = asked_task(options, self.episodes)
        if seed is not None:
            seed = checked_seed(seed)
            self._rng = np.random.default_rng(seed)
        self.episode_seed = int(self._rng.integers(2**31)) if seed is None else seed
        drawn = self.episodes.tasks[self._rng.integers(len(self.episodes))]  # also drawn where it is not played
        self.dialogue = self.new_dialogue(chosen or drawn)
        self.agents = list(self.possible_agents)
        infos = {role: self.info(self.dialogue, role, None) for role in self.agents}
        return self._observations(self.dialogue), infos

    def new_dialogue(self, task: Task) -> Dialogue:
        """Return a dialogue about a task under the rules of this environment."""
        return Dialogue(task, self.episodes.items, max_turns=self.max_turns, reward=self.reward, rules=self.rules)

    def step(
        self, actions: dict[str, Action]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one half-turn.

        Raises:
            ActionError: the action of the side whose half-turn it is lies outside its space, or the episode has ended.
        """
        dialogue = self.dialogue
        if dialogue is None or dialogue.ending is not None:
            raise ActionError("An action needs a running episode. Expected reset() first, found step(). Call reset().")
        roles = self.possible_agents
        if not isinstance(actions, Mapping) or any(role not in actions for role in self.agents):
            raise ActionError(
                f"Every live agent acts in every step. Expected a dict with actions of {self.agents}, found "
                f"{list(actions) if isinstance(actions, Mapping) else actions!r}. Pass any action for the silent "
                "side: it is ignored."
            )
        terms = dialogue.act_all({role: self.member(actions[role], role) for role in dialogue.speakers})
        ended = dialogue.ending is not None
        rewards = {role: float(terms.rewards[role]) if terms else 0.0 for role in roles}
        infos = {role: self.info(dialogue, role, terms) for role in roles}
        if ended:
            self.agents = []
        return self._observations(dialogue), rewards, dict.fromkeys(roles, ended), dict.fromkeys(roles, False), infos

    def render(self) -> str | None:
        """The dialogue with its rewards, returned for "ansi" and printed for "human"; the target once it has ended.

        Without a render mode it warns, as other games do, and without an episode there is nothing to show.
        """
        dialogue = self.dialogue
        if self.render_mode is None:
            gymnasium.logger.warn(
                "You are calling render method without specifying any render mode. Pass render_mode='ansi' or 'human' "
                "where the environment is made."
            )
        if self.render_mode is None or dialogue is None:
            return None
        lines = dialogue_lines(dialogue.task, dialogue.turns, dialogue.terms, dialogue.items, dialogue.ending)
        if self.render_mode == "ansi":
            return "\n".join(line.text for line in lines)
        show(lines)
        return None

    def close(self) -> None:
        """Nothing to release."""

    def _observations(self, dialogue: Dialogue) -> dict[str, Observation]:
        return {role: dialogue.observe(role) for role in self.possible_agents}

    def info(self, dialogue: Dialogue, role: Role, terms: RewardTerms | None) -> dict[str, Any]:
        """Return the info of one side of a dialogue, with the terms of a turn that has just closed."""
        info = {"task_id": dialogue.task.task_id, "parse_error": dialogue.parse_error(role)}
        if terms is None:
            return info
        return {**info, "reward_terms": terms.to_row()}

    def member(self, action: Action, role: Role) -> Action:
        """Return an action as a member of its agent's space, see `as_member`.

        Raises:
            ActionError: it lies outside.
        """
        space = self.action_spaces[role]
        member = as_member(action, space)
        if member is None:
            raise ActionError(
                f"An action must lie in its space. Expected a member of {space} from {role}, found {action!r}. "
                "The episode is unchanged: pass another action."
            )
        return member
