"""NumericEnv, MaskedEnv: the game for policies that think in numbers. NumericAgent: such a policy among talkers."""

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from coars_env.dialogue import Dialogue
from coars_env.env import CoarsEnv
from coars_env.errors import ActionError, ConfigError, TaskError, expect
from coars_env.observation import Action, Observation
from coars_env.roles import RECOMMENDER, ROLES, Role, side_of
from coars_env.transcript import Transcript
from coars_env.views.acts import Acts, Mask, question_open
from coars_env.views.numeric import Encoder, Floats

NumericPolicy = Callable[[Floats, Mask], int]
"""(observation, shape [L]; mask of legal acts, shape [n]) -> act."""


class NumericEnv(ParallelEnv[str, Any, int]):
    """The game of `CoarsEnv` in numbers: the same episodes, rewards and transcripts.

    **Observations.** Box float32 [L] in [-1, 1], of one length for all agents; see `Encoder` for its entries. The user
    is not shown the candidates, and the target is marked nowhere.

    **Actions.** The same Discrete(n) for all agents, n = max(K, 20) + 1. For `recommender_0` act i < K proposes
    candidate i. For `user_0` act 5 a + k < 20 is action a (dislike, skip, star, click) with strength .25 a + .05 k.
    The last number is "wait", for the side whose half-turn it is not; what that side sends is ignored. A speaker that
    waits, or sends a number that means nothing for its side, has said something that cannot be read: a turn of its own
    kind, see `CoarsEnv`. A number outside the space raises `ActionError` and changes nothing.

    In games with an instruction of Q kinds and V facets the recommender's acts K .. K + Q - 1 ask, and the user's
    20 .. 20 + V - 1 reveal a facet, in answer to a question or with a dislike; 20 + V declines to answer. Then
    n = max(K + Q, 20 + V + 1) + 1, see `Acts`. To ask in the last turn, to answer a question by an action or to
    propose again what is forbidden is also something that cannot be read.

    **Infos.** As there, but such as libraries can put into arrays: nothing after a reset; `parse_error` is empty where
    there is none; and `excluded` in `reward_terms` says whether the message of this side would be left out of training.

    **Words.** Each act becomes a fixed sentence, so transcripts, rendering and partners that talk work as ever.

    `state()` is what both sides know together: the recommender's observation.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoarsEnv.metadata, "name": "coars_numeric_v0"}

    def __init__(self, env: CoarsEnv, features: Floats) -> None:
        """Wrap an environment.

        Args:
            env: the game.
            features: [I, F] in [-1, 1], one row for each item of `env.episodes.items`, as from `item_features`.

        Raises:
            ShapeError, ConfigError: the features do not fit.
        """
        expect(CoarsEnv, env, "The game in numbers is made of the game in words.", "Make one by coars_env.make(name).")
        self.env = env
        episodes = env.episodes
        self.encoder = Encoder(
            features,
            num_candidates=len(episodes.tasks[0].candidates),
            max_turns=env.max_turns,
            items=episodes.items,
            kinds=episodes.kinds,
            num_users=episodes.num_users,
        )
        self.render_mode = env.render_mode
        self.possible_agents: list[str] = list(env.possible_agents)
        self.observation_spaces: dict[str, gymnasium.Space[Any]] = {
            role: self._space() for role in self.possible_agents
        }
        self.action_spaces: dict[str, gymnasium.Space[Any]] = {
            role: self.encoder.action_space() for role in self.possible_agents
        }
        self.state_space = self.encoder.observation_space()

    @property
    def agents(self) -> list[str]:
        """The live ones."""
        return self.env.agents

    @property
    def dialogue(self) -> Dialogue | None:
        """The running or finished episode."""
        return self.env.dialogue

    @property
    def transcript(self) -> Transcript:
        """See `CoarsEnv.transcript`."""
        return self.env.transcript

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """The same object on each call."""
        return self.action_spaces[agent]

    def state(self) -> Floats:
        """Shape [L]. What both sides know together; the target is not among it.

        Raises:
            TaskError: there is no episode yet.
        """
        if self.dialogue is None:
            raise TaskError("A state is of an episode. Expected one, found none. Call reset().")
        state: Floats = self.encoder.encode([self.dialogue.observe(RECOMMENDER)], RECOMMENDER)[0]
        return state

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """See `CoarsEnv.reset`; the infos are empty."""
        observations, _ = self.env.reset(seed, options)
        return self._shown(observations), {role: {} for role in self.possible_agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one half-turn.

        Raises:
            ActionError: the act of the side whose half-turn it is lies outside its space, or the episode has ended.
        """
        words: Any = actions
        if self.dialogue is not None and isinstance(actions, Mapping):
            acting = [role for role in self.dialogue.speakers if role in actions]
            words = {**actions, **{role: self.in_words(actions[role], role) for role in acting}}
        observations, rewards, terminations, truncations, infos = self.env.step(words)
        for role, info in infos.items():
            info["parse_error"] = info["parse_error"] or ""
            if terms := info.get("reward_terms"):
                terms["excluded"] = role in terms["excluded"]
        return self._shown(observations), rewards, terminations, truncations, infos

    def in_words(self, act: int, role: Role, dialogue: Dialogue | None = None) -> Action:
        """An act of one side of a dialogue, the running one if None, as `CoarsEnv` takes it.

        Raises:
            ActionError: it lies outside the space of its side.
        """
        space = self.action_spaces[role]
        if not space.contains(act):
            raise ActionError(
                f"An action must lie in its space. Expected a member of {space} from {role}, found {act!r}. The "
                "episode is unchanged: pass another action."
            )
        dialogue = self.dialogue if dialogue is None else dialogue
        return self.encoder.acts.to_action(act, role, dialogue is not None and _question_open(dialogue, role))

    def legal_acts(self, role: Role, dialogue: Dialogue) -> Mask:
        """Which acts a side may do in its own half-turn of a dialogue. [n], 0 or 1."""
        question = _question_open(dialogue, role)
        return self.encoder.acts.mask(role, question=question, forbidden=dialogue.forbidden)

    def render(self) -> str | None:
        """See `CoarsEnv.render`."""
        return self.env.render()

    def close(self) -> None:
        """Nothing to release."""

    def _space(self) -> gymnasium.Space[Any]:
        return self.encoder.observation_space()

    def _shown(self, observations: dict[str, Observation]) -> dict[str, Any]:
        return {role: self.encoder.encode([observations[role]], role)[0] for role in self.possible_agents}


def refuse_groups(env: NumericEnv, what: str) -> None:
    """Refuse a game with several users where one is played.

    Raises:
        ConfigError: it has several.
    """
    expect(NumericEnv, env, "One side is played in numbers.", "Make it by make(..., view='numeric').")
    episodes = env.env.episodes
    if episodes.num_users > 1:
        raise ConfigError(
            f"{what} has one user, got {episodes.name!r} with {episodes.num_users}. Play groups in CoarsEnv, "
            "NumericEnv, MaskedEnv, AecEnv or VectorDialogueEnv."
        )


def _question_open(dialogue: Dialogue, role: Role) -> bool:
    """`Acts.to_action` says what this is."""
    return bool(dialogue.askable) if role == RECOMMENDER else dialogue.asked is not None


class MaskedEnv(NumericEnv):
    """`NumericEnv` that also says which acts are legal.

    Observations are a Dict: `observation`, the Box of `NumericEnv`, and `action_mask`, int8 [n], 1 where the act is
    legal. In the other side's half-turn a side may only wait. In its own it may not wait; else it may do all its acts
    but those that cannot be read: the recommender may not ask in the last turn, nor where `Rules(questions=False)`, nor
    propose what is forbidden; the user answers a question by a facet or declines, and declines nothing else.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoarsEnv.metadata, "name": "coars_masked_v0"}

    def _space(self) -> gymnasium.Space[Any]:
        mask = spaces.Box(0, 1, (self.encoder.acts.n,), np.int8)
        return spaces.Dict({"observation": self.encoder.observation_space(), "action_mask": mask})

    def _shown(self, observations: dict[str, Observation]) -> dict[str, Any]:
        vectors, acts = super()._shown(observations), self.encoder.acts
        return {
            role: {"observation": vectors[role], "action_mask": acts.mask_of(observations[role], role)}
            for role in self.possible_agents
        }


class NumericAgent:
    """A policy that thinks in numbers, as an `Agent`: for `rollout`, `evaluate`, and partners that talk.

    Example: `NumericAgent(lambda observation, mask: int(mask.argmax()), env.encoder)` plays either side, always with
    the first of its acts.
    """

    def __init__(self, policy: NumericPolicy, encoder: Encoder) -> None:
        """Take a policy and what it sees by.

        Args:
            policy: (observation, shape [L]; mask of legal acts, shape [n]) -> act.
            encoder: `env.encoder` of a game in numbers with as many candidates and turns, and the same facets.

        Raises:
            ConfigError: one of them is no such thing.
        """
        expect(Callable, policy, "A policy is a function.", "Pass `lambda observation, mask: ...`.")
        expect(Encoder, encoder, "A policy sees by an encoder.", "Pass `env.encoder` of a NumericEnv.")
        self._policy = policy
        self._encoder = encoder
        self._acts: Acts = encoder.acts

    def start(self, seeds: Sequence[Sequence[int]]) -> None:
        """Nothing to open: what a policy remembers or draws is its own affair."""

    def act(self, observations: Mapping[int, Observation]) -> dict[int, Action]:
        """One act for each dialogue, in words. An act that is not legal becomes a message that cannot be read.

        Raises:
            ActionError: an act outside `Discrete(n)`, which no environment would take.
        """
        actions: dict[int, Action] = {}
        for role in ROLES:
            asked = [n for n, observation in observations.items() if observation["speaker"] == side_of(role)]
            if asked:
                vectors = self._encoder.encode([observations[n] for n in asked], role)
                for n, vector in zip(asked, vectors, strict=True):
                    act = self._in_space(self._policy(vector, self._acts.mask_of(observations[n], role)), role)
                    actions[n] = self._acts.to_action(act, role, question_open(observations[n], role))
        return actions

    def _in_space(self, act: object, role: Role) -> int:
        try:
            number = index(act)  # type: ignore[arg-type]
        except TypeError:
            number = -1
        if not 0 <= number <= self._acts.wait:
            raise ActionError(
                f"A policy's act must lie in its space. Expected 0..{self._acts.wait} for {role}, found {act!r}. "
                "Return one of the acts that the mask allows."
            )
        return number
