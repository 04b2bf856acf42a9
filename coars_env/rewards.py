"""RewardTerms: what each agent earns in a turn, with every factor kept. Pure functions of a transcript.

Coupled interaction rewards of CoARS (arXiv:2604.10029, Eq. 7-8); no environment, model, clock or random numbers needed.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from coars_env.datasets.dataset import FloatArray, IntArray
from coars_env.errors import ConfigError, expect, number_or_nan
from coars_env.roles import RECOMMENDER, ROLES, USER, agents_of
from coars_env.rules import Rules
from coars_env.tasks import Task
from coars_env.transcript import Transcript, Turn, rejected_items

Bools = npt.NDArray[np.bool_]
Values = TypeVar("Values", float, FloatArray)
"""A number of one turn, or those of many turns, shape [N]."""


@dataclass(frozen=True)
class RewardTerms:
    """One turn's reward of each agent, and what the rewards are made of.

    Example: `RewardTerms(hit=True, rewards={"recommender_0": 1.0, "user_0": 0.5})`.
    """

    hit: bool
    """Whether the turn proposes the target."""
    rewards: Mapping[str, float]
    """Each agent's reward by its name, also where the turn is excluded from training. Finite numbers."""
    excluded: frozenset[str] = frozenset()
    """Agents whose message of this turn must not be trained on."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Named numbers that explain the rewards; a factor that is undefined in this turn is left out. `CoarsReward` gives
    `strength` (s), `stage` (D) and `peer_similarity` (q); in a group `strength_0`, `peer_similarity_0` and so on."""

    def to_row(self) -> dict[str, Any]:
        """Return the terms as a plain dict that JSON can hold."""
        return {
            "hit": self.hit,
            "rewards": dict(self.rewards),
            "excluded": sorted(self.excluded),
            "factors": dict(self.factors),
        }


@runtime_checkable
class Reward(Protocol):
    """What an environment pays: any object with this method, see `coars_env.testing.check_reward`."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        """Score the `number`-th turn, counted from 1, of at most `max_turns`. Depends on nothing else."""
        ...


@dataclass(frozen=True, eq=False)
class TurnArrays:
    """Finished turns, each of another dialogue, as arrays of shape [N].

    Attributes:
        hit: bool; whether the turn proposes the target.
        named: bool; whether the turn proposes a candidate at all.
        question: bool; whether the turn asks in place of proposing.
        unread: bool; whether the user's message could not be used.
        action: int64; index into `ACTIONS`, or -1 where the user's message holds no action.
        strength: float64; acceptance s in [0, 1], or NaN where there is no action.
        peer_similarity: float64; q in [-1, 1] of the proposal, or 0 where there is no proposal.
        number: int64; place of the turn in its dialogue, counted from 1.
    """

    hit: Bools
    named: Bools
    question: Bools
    unread: Bools
    action: IntArray
    strength: FloatArray
    peer_similarity: FloatArray
    number: IntArray


class BatchReward(Reward, Protocol):
    """A reward that also scores many turns at once, for speed in `VectorNumericEnv`. Both methods pay the same."""

    def batch(self, turns: TurnArrays, max_turns: int) -> Mapping[str, FloatArray]:
        """Return each agent's rewards by its name. Shape [N] each."""
        ...


StageSensitivity = Callable[[int, int, bool], float]
"""(turn counted from 1, maximum of turns T, hit) -> D > 0."""


def constant_stage(turn: int, max_turns: int, hit: bool) -> float:
    """Weigh every turn the same: D = 1."""
    return 1.0


@dataclass(frozen=True)
class MirroredStage:
    """Early hits pay more, late misses cost more.

        g_t = 1 - 2 (t - 1) / (T - 1)  (0 for T = 1);   D = 1 + beta (2 hit - 1) g_t

    The paper calls D hand-designed and publishes no formula: this one is ours. Positive, and of mean 1 over the T turns
    for hits and for misses, so the scale of the reward does not move with beta. T = 4, beta = 1/3: a hit weighs 4/3,
    10/9, 8/9, 2/3; a miss the reverse.
    """

    beta: float = 1 / 3

    def __post_init__(self) -> None:
        if not 0 <= number_or_nan(self.beta) < 1:
            raise ConfigError(
                f"The stage sensitivity must stay positive. Expected 0 <= beta < 1, found {self.beta!r}. Lower beta."
            )

    def __call__(self, turn: int, max_turns: int, hit: bool) -> float:
        return 1 + self.beta * (1 if hit else -1) * _stage_of_dialogue(turn, max_turns)


@dataclass(frozen=True)
class LinearStage:
    """Hits and misses alike weigh less from turn to turn, or more: D = 1 + beta g_t, with g_t of `MirroredStage`.

    Unlike the mirrored one it cannot do both things that are wanted: if it falls it also excuses late misses, if it
    rises it also makes early hits cheap. For comparison; ours.
    """

    beta: float
    """In (-1, 1): above 0 early turns weigh more, below 0 late ones."""

    def __post_init__(self) -> None:
        if not -1 < number_or_nan(self.beta) < 1:
            raise ConfigError(
                f"The stage sensitivity must stay positive. Expected -1 < beta < 1, found {self.beta!r}. Mend beta."
            )

    def __call__(self, turn: int, max_turns: int, hit: bool) -> float:
        return 1 + self.beta * _stage_of_dialogue(turn, max_turns)


def _stage_of_dialogue(turn: int, max_turns: int) -> float:
    """g_t, from 1 in the first turn to -1 in the last; 0 where there is but one."""
    return 1 - 2 * (turn - 1) / (max_turns - 1) if max_turns > 1 else 0.0


def recommender_reward(hit: Values, strength: Values, stage: Values) -> Values:
    """Compute R_rec = (2 hit - 1) (0.5 + 0.5 s) D of one turn, or of arrays of them. arXiv:2604.10029, Eq. 7."""
    return (2 * hit - 1) * (0.5 + 0.5 * strength) * stage


def user_reward(hit: Values, strength: Values, peer_similarity: Values, alpha: float) -> Values:
    """Compute R_user = (2 hit - 1) v (1 - alpha q v) with v = 2 s - 1, likewise. arXiv:2604.10029, Eq. 8."""
    v = 2 * strength - 1
    return (2 * hit - 1) * v * (1 - alpha * peer_similarity * v)


@dataclass(frozen=True)
class CoarsReward:
    """The rewards of one turn. Example: `CoarsReward(alpha=0.1)(transcript)[0].rewards["user_0"]`."""

    alpha: float = 0.1
    """Weight of the peer term; published."""
    stage: StageSensitivity = MirroredStage()
    """D; ours, see `MirroredStage`."""
    exclude_positive_miss: frozenset[str] = frozenset()
    """Agents that do not train on a miss the user liked, since the log may lack that interaction; `user_0` names each
    user of a group that liked it itself, the recommender is left out where all did. The rule is published, its scope is
    not; an empty scope is our choice. If both are excluded, a user that accepts everything never meets a penalty, and
    that is what it learns; if the recommender is, it soon learns from its hits alone; see docs/log.md."""
    invalid: float = -1.0
    """Reward of a message that could not be used, for its author; ours."""
    question_cost: float = 0.0
    """What a question costs the recommender; the user earns 0 by its answer (our choice: Eq. 7-8 are about proposals).
    Questions that cost nothing are asked until the last turn."""

    def __post_init__(self) -> None:
        if not 0 <= number_or_nan(self.alpha) < 0.5:
            raise ConfigError(
                f"The user's reward must rise with the strength on a hit. Expected 0 <= alpha < 0.5, found "
                f"{self.alpha!r}. Lower alpha."
            )
        expect(Callable, self.stage, "The stage sensitivity D is computed.", "Pass a `StageSensitivity`.")
        if not isinstance(self.exclude_positive_miss, frozenset) or not self.exclude_positive_miss <= set(ROLES):
            raise ConfigError(
                f"Only the two sides can be excluded. Expected a frozenset of some of {ROLES}, found "
                f"{self.exclude_positive_miss!r}. Use the agents' names."
            )
        if not math.isfinite(number_or_nan(self.invalid)):
            raise ConfigError(f"A reward is a finite number. Expected such as `invalid`, found {self.invalid!r}.")
        if not 0 <= number_or_nan(self.question_cost) < math.inf:
            raise ConfigError(f"question_cost must be a number of at least 0, got {self.question_cost!r}.")

    def __call__(self, transcript: Transcript) -> list[RewardTerms]:
        """Score each turn of a transcript."""
        return [
            self.turn(transcript.task, turn, number, transcript.max_turns)
            for number, turn in enumerate(transcript.turns, start=1)
        ]

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        """Score the `number`-th turn, counted from 1.

        A message that could not be used costs its author `invalid`; a usable message of the partner in that turn earns
        0 and is not trained on. A question costs `question_cost`, however it is answered. In a group each user is paid
        by Eq. 8 for itself and the recommender by the mean of Eq. 7 over the usable answers (our choice).
        """
        users, answers = agents_of(task.num_users)[1:], turn.answers or (None,) * task.num_users
        if turn.question is not None:
            unread = [answer is not None and answer.error is not None for answer in answers]
            paid = {user: self.invalid if wrong else 0.0 for user, wrong in zip(users, unread, strict=True)}
            unheard = frozenset({RECOMMENDER} if all(unread) else ())
            return RewardTerms(False, {RECOMMENDER: 0.0 - self.question_cost, **paid}, unheard)
        hit = turn.proposal == task.target
        stage = self._positive_stage(number, max_turns, hit)
        factors = {"stage": stage}
        of_recommender, rewards, excluded = list[float](), dict[str, float](), set[str]()
        for place, (user, answer) in enumerate(zip(users, answers, strict=True)):
            mark = f"_{place}" if len(users) > 1 else ""
            q, strength = 0.0, None if answer is None else answer.strength
            if turn.proposal is not None:
                q = factors[f"peer_similarity{mark}"] = task.for_user(place).q(turn.proposal)
            if strength is not None:
                factors[f"strength{mark}"] = strength
            if answer is None or strength is None:
                rewards[user] = self.invalid
            elif turn.proposal is None:
                rewards[user] = 0.0
                excluded.add(user)
            else:
                of_recommender.append(recommender_reward(hit, strength, stage))
                rewards[user] = user_reward(hit, strength, q, self.alpha)
                if answer.positive and not hit and USER in self.exclude_positive_miss:
                    excluded.add(user)
        if of_recommender:
            own = sum(of_recommender) / len(of_recommender)
            if turn.positive and not hit and RECOMMENDER in self.exclude_positive_miss:
                excluded.add(RECOMMENDER)
        elif turn.proposal is None:
            own = self.invalid
        else:
            own = 0.0
            excluded.add(RECOMMENDER)
        return RewardTerms(hit, {RECOMMENDER: own, **rewards}, frozenset(excluded), factors)

    def batch(self, turns: TurnArrays, max_turns: int) -> dict[str, FloatArray]:
        """Score many turns at once, as `turn` scores each. Shape [N] for each agent."""
        numbers = range(1, max_turns + 1)
        stages = np.array([[self._positive_stage(t, max_turns, hit) for hit in (False, True)] for t in numbers])
        hit = turns.hit.astype(np.float64)
        stage = stages[turns.number - 1, turns.hit.astype(np.int64)]
        answered = turns.action >= 0
        unusable = np.where(~turns.named, self.invalid, 0.0), np.where(~answered, self.invalid, 0.0)
        usable = turns.named & answered
        recommender = np.where(usable, recommender_reward(hit, turns.strength, stage), unusable[0])
        user = np.where(usable, user_reward(hit, turns.strength, turns.peer_similarity, self.alpha), unusable[1])
        if turns.question.any():
            recommender = np.where(turns.question, 0.0 - self.question_cost, recommender)
            user = np.where(turns.question, np.where(turns.unread, self.invalid, 0.0), user)
        return {RECOMMENDER: recommender, USER: user}

    def _positive_stage(self, number: int, max_turns: int, hit: bool) -> float:
        stage = self.stage(number, max_turns, hit)
        if not stage > 0:
            raise ConfigError(
                f"The stage sensitivity must not turn a reward round. Expected D > 0, found {stage} in turn {number} "
                f"of {max_turns}. Correct `stage`."
            )
        return stage


def outcome_terms(transcript: Transcript) -> list[RewardTerms]:
    """Pay in each turn what the dialogue as a whole was worth: learning without interaction rewards.

    The recommender has 1 if what the dialogue answered, see `Rules.answer`, was the target and -1 else; the user the
    mean over its answers of 1 for each that is right (positive on the target, negative on another item) and -1 for each
    that is not (our choice); the scale is [-1, 1], that of Eq. 7-8. Turns with a message that could not be used are
    paid and left out by `CoarsReward.turn`; no other turn is left out.
    """
    terms = turn_outcome_terms(transcript)
    used = [_usable_by(turn, transcript.task) for turn in transcript.turns]
    rewards = {RECOMMENDER: 1.0 if transcript.answer_item == transcript.task.target else -1.0}
    for user in agents_of(transcript.task.num_users)[1:]:
        answers = [term.rewards[user] for usable, term in zip(used, terms, strict=True) if user in usable]
        rewards[user] = sum(answers) / len(answers) if answers else 0.0
    return [
        replace(term, rewards={**term.rewards, **(rewards if turn.answered else {a: rewards[a] for a in usable})})
        for turn, usable, term in zip(transcript.turns, used, terms, strict=True)
    ]


def turn_outcome_terms(transcript: Transcript) -> list[RewardTerms]:
    """Pay what can be checked of each turn and nothing else: 1 for what is right, -1 for what is not (our choice).

    The recommender is right if it proposed the target, the user if it was positive on the target or negative on another
    item. How strongly, in which turn and what peers take counts for nothing. Turns with a message that could not be
    used are paid and left out by `CoarsReward.turn`; no other turn is left out.
    """
    found = []
    for turn, term in zip(transcript.turns, CoarsReward()(transcript), strict=True):
        usable = _usable_by(turn, transcript.task)
        if usable:
            users = zip(agents_of(transcript.task.num_users)[1:], turn.answers, strict=True)
            right = {user: 2.0 * (answer.positive == term.hit) - 1 for user, answer in users if user in usable}
            rewards = {**term.rewards, RECOMMENDER: 2.0 * term.hit - 1, **right}
            term = replace(term, rewards=rewards, factors={**term.factors, "stage": 1.0})
        found.append(term)
    return found


def _usable_by(turn: Turn, task: Task) -> frozenset[str]:
    """Return the agents that CoARS pays for a proposal: the users that answered it with an action, and the recommender
    if there are any.
    """
    users = zip(agents_of(task.num_users)[1:], turn.answers, strict=turn.answers != ())
    answered = {user for user, answer in users if answer.action is not None and turn.proposal is not None}
    return frozenset({RECOMMENDER, *answered} if answered else ())


def kept_terms(transcript: Transcript) -> list[RewardTerms]:
    """Pay 1 for replies that were right and leave all others out: rejection sampling.

    To raise the likelihood of what is kept is fine-tuning on one's own successes, as in RAFT (arXiv:2304.06767) and
    ReST-EM (arXiv:2312.06585); that a single turn is kept or not, rather than a dialogue, is ours.
    """
    return [
        replace(
            term,
            rewards={agent: max(reward, 0.0) for agent, reward in term.rewards.items()},
            excluded=term.excluded | {agent for agent, reward in term.rewards.items() if reward <= 0},
        )
        for term in turn_outcome_terms(transcript)
    ]


def apply_repeats(terms: RewardTerms, turns: Sequence[Turn], rules: Rules) -> RewardTerms:
    """Return what the last of `turns` pays by the rules: at most 0 to each side where it proposes again what the user
    has rejected and repeats are "unpaid"; else the terms as they are.
    """
    if rules.repeats != "unpaid" or turns[-1].proposal not in rejected_items(turns[:-1]):
        return terms
    return replace(terms, rewards={agent: min(reward, 0.0) for agent, reward in terms.rewards.items()})


def reward_or_default(reward: Reward | None) -> Reward:
    """Return the reward that was passed, or that of CoARS if none was.

    Raises:
        ConfigError: it is no `Reward`.
    """
    if reward is None:
        return CoarsReward()
    expect(Reward, reward, "A reward has a method `turn`.", "Write one as in `coars_env.Reward`, or pass None.")
    return reward


def check_terms(terms: object, reward: object, task: Task, number: int, agents: Collection[str] = ROLES) -> None:
    """Refuse terms that cannot be paid, naming the reward, the task and the turn.

    Raises:
        ConfigError: no `RewardTerms`; rewards of other agents, or that are no finite numbers; unknown agents excluded.
    """
    if problem := _problem(terms, agents):
        raise ConfigError(
            f"{reward_name(reward)} returns {problem} in turn {number} of task {task.task_id!r}. A reward pays each of "
            f"{list(agents)} a finite number in every turn; `coars_env.testing.check_reward` checks one."
        )


def reward_name(reward: object) -> str:
    """Return how an error names a reward: a function by its name, an object by its representation."""
    return getattr(reward, "__qualname__", None) or f"{reward!r:.200}"


def _problem(terms: object, agents: Collection[str]) -> str | None:
    if not isinstance(terms, RewardTerms):
        return f"{terms!r:.200} in place of RewardTerms"
    if not isinstance(terms.rewards, Mapping) or terms.rewards.keys() != set(agents):
        return f"rewards={terms.rewards!r:.200}, which are not those of {list(agents)},"
    for kind, values in (("reward", terms.rewards), ("factor", terms.factors)):
        for name, value in values.items():
            if not _is_finite(value):
                return f"{kind} {name}={value!r:.80}, which is no finite number,"
    if not set(terms.excluded) <= set(agents):
        return f"excluded={sorted(terms.excluded)}, which are not all agents,"
    return None


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
