import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

import cloudpickle
import numpy as np
import pytest
from gymnasium.spaces import MultiDiscrete
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    ActionError,
    CoarsEnv,
    CoarsReward,
    CoarsWarning,
    ConfigError,
    EpisodeSet,
    FixedUser,
    NumericEnv,
    RandomRecommender,
    RewardTerms,
    Role,
    Rules,
    Task,
    TaskError,
    Turn,
    TurnArrays,
    VectorDialogueEnv,
    VectorNumericEnv,
    builder,
    constant_stage,
    freeze,
    item_features,
    leave_last,
    load_split,
    make_vec,
    rollout,
)
from coars_env.testing import toy_dataset, toy_episodes, toy_instructed_episodes
from turns import turn_of

TOY = toy_episodes()
ASKING = toy_instructed_episodes()
WAIT = 20


RULES = [Rules("paid", "last"), Rules("unpaid", "best"), Rules("forbidden", "best")]


def toy_game(episodes: EpisodeSet = TOY, **options: Any) -> NumericEnv:
    return NumericEnv(CoarsEnv(episodes, **options), item_features(leave_last(toy_dataset())))


@pytest.fixture(scope="module")
def wide_game() -> NumericEnv:
    """More candidates than the user has acts, and peer similarities that are not zero."""
    split = load_split("synthetic", users=60, items=120, interactions=2_000)
    episodes = freeze(builder(split, num_candidates=24), "test")
    return NumericEnv(CoarsEnv(episodes, max_turns=3), item_features(split, size=3))


def random_acts(rng: np.random.Generator, env: VectorNumericEnv) -> dict[str, Any]:
    """Legal acts and, now and then, others of the space."""
    return {role: rng.integers(env.single_action_space.n, size=env.num_envs) for role in ROLES}


class Singles:
    """Single environments, played side by side as `VectorNumericEnv` says: a new episode in the step that ends one."""

    def __init__(self, game: NumericEnv, num_envs: int) -> None:
        self.envs = [toy_or_same(game) for _ in range(num_envs)]
        self.transcripts: list[Any] = []

    def reset(self, seed: int | None = None) -> dict[str, list[Any]]:
        told = [env.reset(None if seed is None else seed + n)[0] for n, env in enumerate(self.envs)]
        return {role: [observations[role] for observations in told] for role in ROLES}

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, ...]:
        """Observations, rewards, terminations, last observations."""
        told = [env.step({role: int(actions[role][n]) for role in ROLES}) for n, env in enumerate(self.envs)]
        seen = {role: [observations[role] for observations, *_ in told] for role in ROLES}
        ended = [n for n, (_, _, terminations, *_) in enumerate(told) if terminations[USER]]
        last = {role: [seen[role][n] for n in ended] for role in ROLES}
        for n in ended:
            self.transcripts.append(self.envs[n].transcript)
            again, _ = self.envs[n].reset()
            for role in ROLES:
                seen[role][n] = again[role]
        rewards, terminations = ({role: [one[part][role] for one in told] for role in ROLES} for part in (1, 2))
        return seen, rewards, terminations, last

    def masks(self, role: Role) -> list[Any]:
        acts = self.envs[0].encoder.acts
        return [acts.mask_of(env.dialogue.observe(role), role) for env in self.envs if env.dialogue]

    @property
    def tasks(self) -> list[Task]:
        return [env.dialogue.task for env in self.envs if env.dialogue]

    @property
    def speaker(self) -> str:
        assert self.envs[0].dialogue
        return self.envs[0].dialogue.speaker


def toy_or_same(game: NumericEnv) -> NumericEnv:
    inner = game.env
    env = CoarsEnv(inner.episodes, max_turns=inner.max_turns, reward=inner.reward, rules=inner.rules)
    again = NumericEnv(env, np.zeros((len(inner.episodes.items), 1), np.float32))
    again.encoder = game.encoder
    return again


def missed(task: Task) -> Task:
    """The same list of candidates, as a retriever would give it that missed the target."""
    target = next(item for item in range(len(TOY.items)) if item not in (*task.candidates, *task.history))
    return replace(task, target=target, retrieved=True)


def same_bits(found: Any, expected: Any, dtype: Any = np.float32) -> bool:
    """Equal to the last bit, the signs of zeros included."""
    return np.asarray(found).dtype == dtype and np.asarray(found).tobytes() == np.array(expected, dtype).tobytes()


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 7])
@pytest.mark.parametrize("kind", ["toy", "one task", "one turn", "other reward", "missed target", "wide"])
def test_a_vector_is_many_single_environments(kind: str, num_envs: int, wide_game: NumericEnv) -> None:
    game = {
        "toy": lambda: toy_game(),
        "one task": lambda: toy_game(replace(TOY, tasks=TOY.tasks[:1])),
        "one turn": lambda: toy_game(max_turns=1),
        "other reward": lambda: toy_game(reward=CoarsReward(alpha=0.3, stage=constant_stage, invalid=-0.5)),
        "missed target": lambda: toy_game(replace(TOY, tasks=tuple(map(missed, TOY.tasks)))),
        "wide": lambda: wide_game,
    }[kind]()
    vector, singles, rng = VectorNumericEnv(game, num_envs), Singles(game, num_envs), np.random.default_rng(1)
    for seed in (5, None):  # the second begins in mid-episode
        observations, infos = vector.reset(seed)
        expected = singles.reset(seed)
        assert all(same_bits(observations[role], expected[role]) for role in ROLES)
        for _ in range(41):
            acts = random_acts(rng, vector)
            observations, rewards, terminations, truncations, infos = vector.step(acts)
            seen, paid, ended, last = singles.step(acts)
            for role in ROLES:
                assert same_bits(observations[role], seen[role])
                assert same_bits(rewards[role], paid[role], np.float64)
                assert same_bits(terminations[role], ended[role], np.bool_)
                assert same_bits(infos[role]["final_obs"], last[role])
                assert not truncations[role].any()
                assert same_bits(infos[role]["action_mask"], singles.masks(role), np.int8)
                assert [game.env.episodes.tasks[task] for task in infos[role]["task"]] == singles.tasks
    assert len(singles.transcripts) >= 10 * num_envs


@pytest.mark.parametrize("max_turns", [1, 5])
@pytest.mark.parametrize("reward", ["batch", "one by one"])
@pytest.mark.parametrize(
    ("episodes", "rules"),
    [*((TOY, rules) for rules in RULES), *((ASKING, rules) for rules in (*RULES, Rules(questions=False)))],
    ids=str,
)
def test_a_vector_keeps_the_rules_of_single_environments(
    episodes: EpisodeSet, rules: Rules, reward: str, max_turns: int
) -> None:
    paid = CoarsReward(question_cost=0.25, invalid=-0.5)
    game = toy_game(episodes, rules=rules, max_turns=max_turns, reward=paid if reward == "batch" else Words())
    with contextlib.nullcontext() if reward == "batch" else pytest.warns(CoarsWarning):
        vector = VectorNumericEnv(game, 5)
    singles, rng = Singles(game, 5), np.random.default_rng(3)
    observations, infos = vector.reset(2)
    seen = singles.reset(2)
    for number in range(60):
        for role in ROLES:
            assert same_bits(observations[role], seen[role])
            assert same_bits(infos[role]["action_mask"], singles.masks(role), np.int8)
        if number % 3:  # legal acts; every third half-turn any
            acts = {r: np.array([rng.choice(np.flatnonzero(one)) for one in infos[r]["action_mask"]]) for r in ROLES}
        else:
            acts = {RECOMMENDER: rng.integers(6, size=5), USER: rng.integers(vector.single_action_space.n, size=5)}
        observations, rewards, terminations, _, infos = vector.step(acts)
        seen, earned, ended, last = singles.step(acts)
        for role in ROLES:
            assert same_bits(rewards[role], earned[role], np.float64)
            assert same_bits(terminations[role], ended[role], np.bool_)
            assert same_bits(infos[role]["final_obs"], last[role])
    turns = [turn for told in singles.transcripts for turn in told.turns]
    assert any(turn.question for turn in turns) == (episodes is ASKING and rules.questions and max_turns > 1)
    assert any(turn.answer.reveal for turn in turns) == (episodes is ASKING)
    repeats = any("repeats are forbidden" in (turn.error or "") for turn in turns)
    assert repeats == (rules.repeats == "forbidden" and max_turns > 1)


def test_tasks_drawn_ahead_are_those_of_a_single_environment_for_ever() -> None:
    vector, singles = VectorNumericEnv(toy_game(max_turns=1), 2), Singles(toy_game(max_turns=1), 2)
    vector.reset(3)
    singles.reset(3)
    acts = {role: np.zeros(2, np.int64) for role in ROLES}
    for _ in range(2 * 150):
        infos = vector.step(acts)[-1]
        singles.step(acts)
        assert [TOY.tasks[task] for task in infos[USER]["task"]] == singles.tasks


@pytest.mark.parametrize("reward", [CoarsReward(), CoarsReward(alpha=0.49, stage=constant_stage, invalid=-2.0)])
def test_what_a_vector_pays_is_what_its_transcripts_earn(reward: CoarsReward) -> None:
    vector = VectorNumericEnv(toy_game(reward=reward), 5)
    singles, rng = Singles(toy_game(), 5), np.random.default_rng(0)
    vector.reset(0)
    singles.reset(0)
    paid: list[list[tuple[float, float]]] = [[] for _ in range(5)]
    told: list[list[tuple[float, float]]] = []
    for number in range(80):
        acts = random_acts(rng, vector)
        _, rewards, terminations, *_ = vector.step(acts)
        singles.step(acts)
        if number % 2:
            for n in range(5):
                paid[n].append((rewards[RECOMMENDER][n], rewards[USER][n]))
            for n in np.flatnonzero(terminations[USER]):
                told.append(paid[n])
                paid[n] = []
        else:
            assert not np.any([rewards[role] for role in ROLES])
    earned = [
        [(terms.rewards[RECOMMENDER], terms.rewards[USER]) for terms in reward(told)] for told in singles.transcripts
    ]
    assert told == earned
    assert len({pair for episode in told for pair in episode}) > 20


def test_an_episode_by_hand() -> None:
    env = VectorNumericEnv(toy_game(replace(TOY, tasks=TOY.tasks[:1])), 2)  # candidates 5 1 3, target 5, q .5 -1 0
    env.reset(seed=0)
    observations, rewards, terminations, _, infos = env.step({RECOMMENDER: [0, 2], USER: [WAIT, WAIT]})
    assert infos[USER]["action_mask"].tolist() == [[1] * 20 + [0]] * 2
    assert infos[RECOMMENDER]["action_mask"].tolist() == [[0] * 20 + [1]] * 2
    assert infos[USER]["final_obs"].shape == (0, env.encoder.size)
    click, skip = 3 * 5 + 3, 1 * 5 + 1  # .9 and .3
    observations, rewards, terminations, _, infos = env.step({RECOMMENDER: [WAIT, WAIT], USER: [click, skip]})
    assert terminations[RECOMMENDER].tolist() == terminations[USER].tolist() == [True, False]
    # the hit: .95 D and v (1 - .1 q v) with v = .8, D = 4/3; the miss: -.65 D, D = 2/3, and .4 (1 + .1 * 0)
    assert rewards[RECOMMENDER] == pytest.approx([0.95 * 4 / 3, -0.65 * 2 / 3])
    assert rewards[USER] == pytest.approx([0.8 * (1 - 0.1 * 0.5 * 0.8), 0.4])
    assert infos[RECOMMENDER]["action_mask"].tolist() == [[1] * 3 + [0] * 18] * 2
    first = env.encoder.static_size
    assert observations[RECOMMENDER][:, first + 2].tolist() == [0, 0.25]  # finished turns of 4: one game began anew
    assert infos[RECOMMENDER]["final_obs"][:, first + 2].tolist() == [0.25]


def test_seeds_are_those_of_the_games_one_after_the_other() -> None:
    vector = VectorNumericEnv(toy_game(), 6)
    first = vector.reset(seed=4)[1][USER]["task"]
    assert vector.reset(seed=5)[1][USER]["task"].tolist()[:-1] == first.tolist()[1:]
    assert vector.reset(seed=4)[1][USER]["task"].tolist() == first.tolist()
    assert set(first.tolist()) <= set(range(4))


@pytest.mark.parametrize("seed", [2**63 - 2, 2**70])
def test_the_seed_of_a_vector_has_64_bits(seed: int) -> None:
    for env in (VectorNumericEnv(toy_game(), 3), VectorDialogueEnv(CoarsEnv(TOY), 3)):
        with pytest.raises(ConfigError, match=rf"kept in 64 bits\. Expected seed < 2\*\*63 - N, found {seed}"):
            env.reset(seed=seed)


def test_without_a_seed_vectors_differ() -> None:
    a, b = (VectorNumericEnv(toy_game(), 64).reset()[1][USER]["task"] for _ in range(2))
    assert a.tolist() != b.tolist()


def test_batches_lie_in_their_spaces() -> None:
    vector = VectorNumericEnv(toy_game(), 3)
    observations, _ = vector.reset(seed=1)
    for role in ROLES:
        space = vector.observation_space(role)
        assert space is vector.observation_space(role) is vector.observation_spaces[role]
        assert space.contains(observations[role])
        assert space == batch_space(vector.single_observation_space, 3)
        assert vector.action_space(role) == MultiDiscrete([21, 21, 21])
        vector.action_space(role).seed(0)
    for _ in range(4):
        vector.step({role: vector.action_space(role).sample() for role in ROLES})
    assert vector.action_space(RECOMMENDER) is not vector.action_space(USER)  # each draws from a generator of its own


def test_dialogues_have_the_spaces_of_a_single_one() -> None:
    game = CoarsEnv(TOY)
    vector = VectorDialogueEnv(game, 2)
    observations, _ = vector.reset(seed=1)
    for role in ROLES:
        assert vector.observation_space(role) is game.observation_space(role)
        assert vector.action_space(role) is game.action_space(role)
    assert all(vector.observation_space(RECOMMENDER).contains(shown) for shown in observations.values())


def test_one_task_may_be_asked_for_everywhere() -> None:
    vector, words = VectorNumericEnv(toy_game(), 5), VectorDialogueEnv(CoarsEnv(TOY), 5)
    assert vector.reset(seed=3, options={"task_id": "toy-2", "other": 1})[1][USER]["task"].tolist() == [2] * 5
    words.reset(seed=3, options={"task_id": "toy-2"})
    assert {dialogue.task.task_id for dialogue in words.dialogues} == {"toy-2"}
    after = vector.reset()[1][USER]["task"].tolist()  # the streams have gone on as without the wish
    vector.reset(seed=3)
    assert vector.reset()[1][USER]["task"].tolist() == after
    for env in (vector, words):
        with pytest.raises(TaskError, match="found 'toy-9'"):
            env.reset(options={"task_id": "toy-9"})


@pytest.mark.parametrize(
    "paid",
    [
        {RECOMMENDER: np.array([1.0, np.nan]), USER: np.zeros(2)},
        {RECOMMENDER: 1.0, USER: 2.0},
        {RECOMMENDER: np.zeros(2)},
        {RECOMMENDER: np.zeros(2), USER: np.zeros(2), "user_1": np.zeros(2)},
        (np.zeros(2), np.zeros(2)),
        None,
    ],
)
def test_what_is_no_reward_for_every_turn_is_not_paid(paid: Any) -> None:
    class Odd(OneByOne):
        def batch(self, turns: TurnArrays, max_turns: int) -> Any:
            return paid

    env = VectorNumericEnv(toy_game(reward=Odd()), 2)
    env.reset(seed=0)
    env.step({role: np.zeros(2, np.int64) for role in ROLES})
    with pytest.raises(ConfigError, match=r"The method `batch` of .*Odd.* returns .*It must return 2 finite"):
        env.step({role: np.zeros(2, np.int64) for role in ROLES})


def test_what_is_handed_out_may_be_changed() -> None:
    spoilt, kept = (VectorNumericEnv(toy_game(), 3) for _ in range(2))
    told: list[Any] = [spoilt.reset(seed=1), kept.reset(seed=1)]
    for _ in range(6):
        for role in ROLES:
            for array in (*(part[role] for part in told[0][:-1]), *told[0][-1][role].values()):
                array[...] = 1
        acts = {role: np.array([0, 1, 2]) for role in ROLES}
        told = [spoilt.step(acts), kept.step(acts)]
        for role in ROLES:
            assert all(np.array_equal(a[role], b[role]) for a, b in zip(told[0][:-1], told[1][:-1], strict=True))
            assert all(np.array_equal(told[0][-1][role][key], told[1][-1][role][key]) for key in told[1][-1][role])


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        ({RECOMMENDER: [0, 1]}, r"Both sides act in every step\. Expected .*found \['recommender_0'\]"),
        ([0, 1], r"Both sides act in every step\. Expected .*found \[0, 1\]"),
        ({RECOMMENDER: [0, 21], USER: [0, 0]}, r"Expected 0\.\.20 from recommender_0, found 21 in game 1"),
        ({RECOMMENDER: [-1, 0], USER: [0, 0]}, r"Expected 0\.\.20 from recommender_0, found -1 in game 0"),
        (
            {RECOMMENDER: [0], USER: [0, 0]},
            r"Expected integers of shape \(2,\) from recommender_0, found int64",
        ),
        ({RECOMMENDER: [0.0, 1.0], USER: [0, 0]}, r"from recommender_0, found float64 of shape \(2,\)"),
        ({RECOMMENDER: [True, False], USER: [0, 0]}, r"from recommender_0, found bool of shape \(2,\)"),
        ({RECOMMENDER: [0, [1]], USER: [0, 0]}, r"from recommender_0, found object of shape \(\)"),
    ],
)
def test_what_is_no_act_is_refused_and_changes_nothing(acts: Any, message: str) -> None:
    env, untouched = (VectorNumericEnv(toy_game(), 2) for _ in range(2))
    env.reset(seed=0)
    untouched.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(acts)
    legal = {RECOMMENDER: [1, 2], USER: [999, -1]}  # the silent side's are ignored
    assert same_bits(env.step(legal)[0][USER], untouched.step(legal)[0][USER])


def test_a_vector_must_be_reset_first() -> None:
    with pytest.raises(ActionError, match=r"Expected reset\(\) first, found step\(\)"):
        VectorNumericEnv(toy_game(), 2).step({role: [0, 0] for role in ROLES})


@pytest.mark.parametrize("kind", [VectorNumericEnv, VectorDialogueEnv])
def test_no_games_are_refused(kind: Any) -> None:
    game = toy_game() if kind is VectorNumericEnv else CoarsEnv(TOY)
    with pytest.raises(ConfigError, match=r"A vector holds games\. Expected num_envs >= 1, found 0"):
        kind(game, 0)


class OneByOne:
    """A reward that pays single turns only."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        return CoarsReward().turn(task, turn, number, max_turns)


class Words:
    """A reward of single turns that reads all that a turn holds; half of them cost the recommender something."""

    def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
        said = crc32(repr((turn, number)).encode())
        return RewardTerms(turn.proposal == task.target, {RECOMMENDER: said - 2.0**31, USER: number / 7})


def test_a_reward_of_single_turns_is_scored_in_a_loop_with_one_warning() -> None:
    game = toy_game(reward=Words())
    with pytest.warns(CoarsWarning, match=r"Words object.* has no method `batch`.* Python loop") as caught:
        vector = VectorNumericEnv(game, 5)
    singles, rng, paid = Singles(game, 5), np.random.default_rng(2), set()
    vector.reset(4)
    singles.reset(4)
    for _ in range(80):  # a second warning would be an error
        acts = random_acts(rng, vector)
        _, rewards, *_ = vector.step(acts)
        _, expected, *_ = singles.step(acts)
        for role in ROLES:
            assert same_bits(rewards[role], expected[role], np.float64)
            paid |= set(rewards[role].tolist())
    assert len(caught) == 1
    assert len(paid) > 40


def test_a_loop_names_the_turn_that_cannot_be_paid() -> None:
    class Odd(OneByOne):
        def turn(self, task: Task, turn: Turn, number: int, max_turns: int) -> RewardTerms:
            return replace(super().turn(task, turn, number, max_turns), rewards={RECOMMENDER: 0.0})

    with pytest.warns(CoarsWarning):
        env = VectorNumericEnv(toy_game(replace(TOY, tasks=TOY.tasks[:1]), reward=Odd()), 2)
    env.reset(seed=0)
    env.step({role: np.zeros(2, np.int64) for role in ROLES})
    with pytest.raises(ConfigError, match=r"Odd object.* returns rewards=.*not those of .* in turn 1 of task 'toy-0'"):
        env.step({role: np.zeros(2, np.int64) for role in ROLES})


def test_a_vector_goes_on_after_pickling() -> None:
    env = VectorNumericEnv(toy_game(), 4)
    env.reset(seed=2)
    rng = np.random.default_rng(0)
    env.step(random_acts(rng, env))
    again = cloudpickle.loads(cloudpickle.dumps(env))
    for _ in range(20):
        acts = random_acts(rng, env)
        assert same_bits(env.step(acts)[0][RECOMMENDER], again.step(acts)[0][RECOMMENDER])


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.booleans(),
            st.integers(0, 3),
            st.none() | st.integers(0, 24),
            st.floats(-1, 1),
            st.integers(1, 5),
        ),
        min_size=1,
        max_size=20,
    ),
    st.floats(0, 0.499),
)
def test_turns_earn_the_same_one_by_one_and_at_once(rows: list[Any], alpha: float) -> None:
    reward, paid, columns = CoarsReward(alpha=alpha), [], []
    for hit, named, action, hundredths, q, number in rows:
        task = Task("t", 0, (), (7, 8), 7 if hit else 8, (q, q))
        strength = None if hundredths is None else 0.25 * action + 0.01 * hundredths
        usable = None if strength is None else action
        turn = turn_of(7 if named else None, "", usable, strength, "", None if named else "e", None if usable else "e")
        terms = reward.turn(task, turn, number, 5)
        paid.append((terms.rewards[RECOMMENDER], terms.rewards[USER]))
        answer = (-1, np.nan) if strength is None else (action, strength)
        columns.append((hit and named, named, *answer, q if named else 0.0, number))
    is_hit, is_named, actions, strengths, qs, numbers = np.array(columns).T
    none, unread = np.zeros(len(rows), np.bool_), actions < 0
    turns = TurnArrays(is_hit > 0, is_named > 0, none, unread, actions.astype(int), strengths, qs, numbers.astype(int))
    assert list(zip(*(side.tolist() for side in reward.batch(turns, 5).values()), strict=True)) == paid


def test_an_instructed_episode_by_hand() -> None:
    # acts of K = 3, Q = 2, V = 13: 3 asks for the genre; 21 wants a comedy, 33 declines, 34 waits
    game = toy_game(replace(ASKING, tasks=ASKING.tasks[:1]), reward=CoarsReward(question_cost=0.25), max_turns=2)
    env = VectorNumericEnv(game, 3)
    _, infos = env.reset(seed=0)
    assert infos[RECOMMENDER]["action_mask"].sum(1).tolist() == [5, 5, 5]
    _, _, _, _, infos = env.step({RECOMMENDER: [3, 0, 4], USER: [34] * 3})
    legal = [np.flatnonzero(row).tolist() for row in infos[USER]["action_mask"]]
    assert legal == [list(range(20, 34)), list(range(33)), list(range(20, 34))]
    seen, rewards, _, _, infos = env.step({RECOMMENDER: [34] * 3, USER: [21, 21, 7]})
    # a question, a hit disliked with .12 (turn 1 of 2: D = 4/3, q = .5, v = -.76), a question without an answer
    assert rewards[RECOMMENDER] == pytest.approx([-0.25, 0.56 * 4 / 3, -0.25])
    assert rewards[USER] == pytest.approx([0.0, -0.76 * (1 + 0.1 * 0.5 * 0.76), -1.0])
    revealed = seen[RECOMMENDER][:, -13:]
    assert revealed.tolist() == [[0, 1, *[0] * 11], [0, 1, *[0] * 11], [0] * 13]
    assert infos[RECOMMENDER]["action_mask"].sum(1).tolist() == [3, 3, 3]  # the last turn must propose


# Words ----------------------------------------------------------------------------------------------------------------


class RandomUser:
    """Answers by the toss of its dialogue's own generator, unreadable answers included."""

    def start(self, seeds: Any) -> None:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Mapping[int, Any]) -> dict[int, Any]:
        return {
            n: {"action": int(self._rngs[n].integers(5)), "strength": self._rngs[n].random(), "message": f"ü {n}"}
            for n in observations
        }


def test_dialogues_in_step_are_those_of_single_environments() -> None:
    vector, single = VectorDialogueEnv(CoarsEnv(TOY, max_turns=3), 9), CoarsEnv(TOY, max_turns=3)
    agents: dict[str, Any] = {RECOMMENDER: RandomRecommender(), USER: RandomUser()}
    for agent in agents.values():
        agent.start([[n] for n in range(9)])
    script: list[list[Any]] = [[] for _ in range(9)]  # what was seen, done and paid in each
    observations, infos = vector.reset(seed=11)
    while observations:
        speaker = vector.speaker
        actions = agents[speaker].act(observations)
        shown = observations
        observations, rewards, terminations, truncations, infos = vector.step(actions)
        for n, action in actions.items():
            error = infos[speaker]["parse_error"][n]
            paid = tuple(rewards[role][n] for role in ROLES)
            script[n].append((speaker, shown[n], action, paid, terminations[USER][n], error))
        assert not truncations[USER].any()
    assert terminations[RECOMMENDER].all()
    for n in range(9):
        seen, _ = single.reset(seed=11 + n)
        for speaker, observation, action, paid, ended, error in script[n]:
            assert all(np.array_equal(seen[speaker][key], observation[key]) for key in observation)
            seen, rewards, terminations, _, told = single.step(dict.fromkeys(ROLES, action))
            assert tuple(rewards.values()) == paid
            assert terminations[USER] == ended
            assert told[speaker]["parse_error"] == error
        assert single.transcript.to_json() == vector.transcripts[n].to_json()
        assert infos[USER]["task_id"][n] == single.transcript.task.task_id
    assert len({len(turns) for turns in script}) > 1


def test_dialogues_in_step_are_those_of_a_rollout() -> None:
    vector = VectorDialogueEnv(CoarsEnv(TOY), 5)
    recommender, user = RandomRecommender(), FixedUser("star", 0.6)
    observations, _ = vector.reset(seed=0)
    recommender.start([(0, 0, n, 1) for n in range(5)])
    while observations:
        agent = recommender if vector.speaker == RECOMMENDER else user
        observations, *_ = vector.step(agent.act(observations))
    tasks = [dialogue.task for dialogue in vector.dialogues]
    expected = rollout(tasks, TOY.items, recommender, user, provenance=TOY.provenance)
    assert [transcript.turns for transcript in vector.transcripts] == [transcript.turns for transcript in expected]


def test_instructed_dialogues_in_step_are_those_of_single_environments() -> None:
    rules = Rules(repeats="forbidden")
    vector, single = (VectorDialogueEnv(CoarsEnv(ASKING, rules=rules), 6), CoarsEnv(ASKING, rules=rules))
    for number, role in enumerate(ROLES):
        vector.action_space(role).seed(number)
    observations, _ = vector.reset(seed=4)
    said: list[list[Any]] = [[] for _ in range(6)]
    while observations:
        speaker = vector.speaker
        actions = {n: vector.action_space(speaker).sample() for n in observations}
        for n, action in actions.items():
            assert vector.observation_space(speaker).contains(observations[n])
            said[n].append(action)
        observations, *_ = vector.step(actions)
    for n, actions_of_one in enumerate(said):
        single.reset(seed=4 + n)
        for action in actions_of_one:
            single.step(dict.fromkeys(ROLES, action))
        assert single.transcript.to_json() == vector.transcripts[n].to_json()
    assert any(turn.question for told in vector.transcripts for turn in told.turns)


def test_a_reset_begins_all_dialogues_anew() -> None:
    vector, single = VectorDialogueEnv(CoarsEnv(TOY), 3), CoarsEnv(TOY)
    vector.reset(seed=0)
    observations, infos = vector.reset()
    single.reset(seed=1)
    single.reset()
    assert single.dialogue
    assert infos[USER]["task_id"][1] == single.dialogue.task.task_id
    assert list(observations) == [0, 1, 2]
    assert infos[USER]["parse_error"] == [None, None, None]
    with pytest.raises(TaskError, match="A transcript is of a finished episode"):
        _ = vector.transcripts


PROPOSE = {"item": 0, "message": ""}


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({0: PROPOSE}, r"Every running dialogue needs an action\. Expected numbers \[0, 1\], found \[0\]"),
        ({0: PROPOSE, 1: PROPOSE, 2: PROPOSE}, r"Expected numbers \[0, 1\], found \[0, 1, 2\]"),
        ({0: PROPOSE, 1: {"item": 9, "message": ""}}, r"from recommender_0, found \{'item': 9.* in dialogue 1"),
    ],
)
def test_answers_that_do_not_fit_are_refused_and_change_nothing(actions: Any, message: str) -> None:
    vector = VectorDialogueEnv(CoarsEnv(TOY), 2)
    vector.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        vector.step(actions)
    assert all(not dialogue.turns for dialogue in vector.dialogues)


def test_dialogues_must_be_reset_first() -> None:
    with pytest.raises(ActionError, match=r"found \[0\]\. Call reset\(\) first"):
        VectorDialogueEnv(CoarsEnv(TOY), 1).step({0: PROPOSE})
    with pytest.raises(TaskError, match=r"Transcripts are of finished episodes\. Expected some, found none"):
        VectorDialogueEnv(CoarsEnv(TOY), 1).transcripts  # noqa: B018
    env = VectorDialogueEnv(CoarsEnv(TOY), 1)
    env.reset(seed=0)
    for actions, found in ((None, "None"), ({0: PROPOSE, "1": PROPOSE}, r"\[0, '1'\]")):
        with pytest.raises(ActionError, match=rf"Expected numbers \[0\], found {found}\."):
            env.step(actions)  # type: ignore[arg-type]


# By name --------------------------------------------------------------------------------------------------------------


def test_vectors_are_made_by_the_name_of_a_dataset() -> None:
    sizes = {"users": 40, "items": 60, "interactions": 800}
    numeric = make_vec("synthetic", num_envs=3, max_turns=2, **sizes)
    text = make_vec("synthetic", 2, view="text", **sizes)
    assert (numeric.num_envs, numeric.max_turns, numeric.episodes.name) == (
        3,
        2,
        "synthetic/leave_last/test/uniform/d0",
    )
    assert numeric.reset(seed=0)[0][USER].shape == (3, *numeric.single_observation_space.shape)
    assert list(text.reset(seed=0)[0]) == [0, 1]
    assert text.episodes.sha256 == numeric.episodes.sha256
    with pytest.raises(ConfigError, match=r"Expected 'numeric' or 'text', found 'masked'"):
        make_vec("synthetic", 2, view="masked")  # type: ignore[call-overload]
