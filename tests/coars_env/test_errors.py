"""What a stranger passes by mistake: each is refused in words, before anything is played."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    USER,
    AecEnv,
    CoarsEnv,
    CoarsReward,
    ConfigError,
    Dialogue,
    FixedRecommender,
    FixedUser,
    GreedyRecommender,
    MirroredStage,
    NumericAgent,
    NumericEnv,
    OracleUser,
    RandomRecommender,
    Replay,
    ScorerUser,
    SvdPeers,
    TaskBuilder,
    TopCandidates,
    VectorDialogueEnv,
    VectorNumericEnv,
    VectorPeers,
    builder,
    evaluate,
    freeze,
    item_counts,
    item_features,
    leave_last,
    load,
    make,
    random_holdout,
    register,
    rollout,
    sample_train_tasks,
    single_agent,
    uniform_candidates,
    user_simulation,
    user_test,
)
from coars_env.errors import expect, number_or_nan, whole_number
from coars_env.testing import check_agent, check_dataset, check_env, check_reward, toy_dataset, toy_episodes

TOY = toy_episodes()
SPLIT = leave_last(toy_dataset())
BUILD = TaskBuilder(SPLIT, uniform_candidates(6), num_candidates=3)
RANDOM, CLICKS = RandomRecommender(), FixedUser()


def toy_env(**options: Any) -> Any:
    return CoarsEnv(TOY, **options)


def toy_numbers() -> NumericEnv:
    return NumericEnv(toy_env(), item_features(SPLIT))


WRONG_KINDS: list[tuple[Callable[[], object], str]] = [
    (lambda: toy_env(reward=3), r"A reward has a method `turn`\. Expected .* Reward, found 3\."),
    (lambda: toy_env(reward=0), r"found 0\."),
    (lambda: toy_env(reward=CoarsReward), r"found the class CoarsReward\. Make an object of it: CoarsReward\(\.\.\.\)"),
    (lambda: Dialogue(TOY.tasks[0], TOY.items, reward="coars"), r"found 'coars'"),  # type: ignore[arg-type]
    (lambda: Dialogue("toy-0", TOY.items), r"Expected an object of the kind Task, found 'toy-0'"),  # type: ignore[arg-type]
    (lambda: CoarsEnv("movielens"), r"kind EpisodeSet, found 'movielens'\. `coars_env.make` makes one"),  # type: ignore[arg-type]
    (lambda: NumericEnv(toy_numbers(), np.zeros((6, 2))), r"kind CoarsEnv, found <"),  # type: ignore[arg-type]
    (lambda: AecEnv("movielens"), r"Expected .*CoarsEnv \| .*NumericEnv, found 'movielens'"),  # type: ignore[arg-type]
    (lambda: VectorNumericEnv(toy_env(), 2), r"Make one by make\(name, view='numeric'\)"),
    (lambda: VectorDialogueEnv(toy_numbers(), 2), r"kind CoarsEnv, found <"),  # type: ignore[arg-type]
    (lambda: single_agent(toy_numbers(), partner="random"), r"The partner is an agent, .* found 'random'\. Pass one"),  # type: ignore[arg-type]
    (lambda: single_agent(toy_numbers(), partner=FixedUser), r"found the class FixedUser"),  # type: ignore[arg-type]
    (lambda: single_agent(toy_numbers(), partner=0), r"found 0\."),  # type: ignore[arg-type]
    (lambda: single_agent(toy_numbers(), render_mode="ansi"), r"Expected no view, and none at all beside an env"),
    (lambda: single_agent("synthetic", view="masked"), r"one side is always played in numbers"),
    (lambda: evaluate(RandomRecommender, CLICKS, [TOY]), r"The recommender is an agent, .* the class Random"),  # type: ignore[arg-type]
    (lambda: evaluate(RANDOM, "clicks", [TOY]), r"The user is an agent, .* found 'clicks'"),  # type: ignore[arg-type]
    (lambda: user_simulation(CLICKS, TOY), r"kind UserTest, found EpisodeSet"),  # type: ignore[arg-type]
    (lambda: check_agent(FixedUser, USER), r"What is checked is an agent"),  # type: ignore[arg-type]
    (lambda: check_env(toy_env()), r"Several instances are played\. .* Pass a function that makes one"),
    (lambda: check_env(lambda: 3), r"kind ParallelEnv, found 3"),  # type: ignore[arg-type, return-value]
    (lambda: check_dataset("movielens"), r"kind Dataset, found 'movielens'"),  # type: ignore[arg-type]
    (lambda: VectorPeers(SPLIT, 3), r"Pass an `Embed`"),  # type: ignore[arg-type]
    (lambda: item_counts(toy_dataset()), r"kind Split, found Dataset\("),  # type: ignore[arg-type]
    (lambda: check_reward(CoarsReward), r"found the class CoarsReward"),  # type: ignore[arg-type]
    (lambda: NumericAgent(3, toy_numbers().encoder), r"A policy is a function\. .* found 3"),  # type: ignore[arg-type]
    (lambda: NumericAgent(lambda o, m: 0, toy_numbers()), r"kind Encoder, found <"),  # type: ignore[arg-type]
    (lambda: GreedyRecommender(3), r"Pass a `Scorer`"),  # type: ignore[arg-type]
    (lambda: ScorerUser(None, threshold=0.0, scale=1.0), r"Pass a `Scorer`"),  # type: ignore[arg-type]
    (lambda: TopCandidates([1.0]), r"Pass a `Scorer`"),  # type: ignore[arg-type]
    (lambda: OracleUser("toy"), r"kind Task, found 't'"),  # type: ignore[arg-type]
    (lambda: Replay(TOY.tasks, USER), r"kind Transcript, found Task\("),  # type: ignore[arg-type]
    (lambda: Replay([], "critic"), r"Expected role 'recommender' or 'user', found 'critic'"),  # type: ignore[arg-type]
    (lambda: leave_last("movielens"), r"kind Dataset, found 'movielens'\. `coars_env.load\(name\)` reads one"),  # type: ignore[arg-type]
    (lambda: builder(toy_dataset()), r"kind Split, found Dataset\("),  # type: ignore[arg-type]
    (lambda: builder(SPLIT, peers=SvdPeers(SPLIT)), r"Peers are made from the split\. .* `lambda split: my_peers`"),  # type: ignore[arg-type]
    (lambda: builder(SPLIT, peers=3), r"Expected a function of it, such as SvdPeers, found 3"),  # type: ignore[arg-type]
    (lambda: user_test(SPLIT, peers=SvdPeers), r"Opinions are those of peers\. .* the class SvdPeers"),  # type: ignore[arg-type]
    (lambda: TaskBuilder(SPLIT, "uniform"), r"`CandidateSampler` of your own or `TopCandidates`"),  # type: ignore[arg-type]
    (lambda: TaskBuilder(SPLIT, uniform_candidates(6), 3), r"Pass SvdPeers\(split\), or None"),  # type: ignore[arg-type]
    (lambda: freeze(SPLIT, "test"), r"kind TaskBuilder, found Split\("),  # type: ignore[arg-type]
    (lambda: sample_train_tasks(BUILD, 1, 0, prefix="s"), r"Pass numpy\.random\.default_rng\(seed\)"),  # type: ignore[arg-type]
    (lambda: rollout(TOY, TOY.items, RANDOM, CLICKS, provenance="toy"), r"Pass `episodes\.provenance`"),  # type: ignore[arg-type]
    (lambda: register("toy-of-errors", toy_dataset()), r"A loader is a function that returns a Dataset"),  # type: ignore[arg-type]
    (lambda: load("movielens", data_dir=3), r"Data lie in a folder\. .* found 3"),  # type: ignore[arg-type]
    (lambda: TOY.save(3), r"A file has a path\. .* found 3"),  # type: ignore[arg-type]
    (lambda: toy_env().reset(options=["toy-0"]), r"found \['toy-0'\]\. Pass \{'task_id': \.\.\.\}"),
]


@pytest.mark.parametrize(("passing", "message"), WRONG_KINDS)
def test_another_kind_of_object_is_refused(passing: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        passing()


WRONG_NUMBERS: list[tuple[Callable[[Any], object], str, tuple[object, ...]]] = [
    (lambda n: toy_env(max_turns=n), "max_turns >= 1", (0, "4", 2.5, None)),
    (lambda n: TaskBuilder(SPLIT, uniform_candidates(6), num_candidates=n), "num_candidates >= 2", (1, "20", 2.5)),
    (lambda n: freeze(BUILD, "test", draw=n), "draw >= 0", (-1, "0", 0.5)),
    (lambda n: toy_env().reset(seed=n), "seed >= 0", (-1, "0", 1.5, [1])),
    (lambda n: single_agent(toy_numbers()).reset(seed=n), "seed >= 0", (-1, "0")),
    (lambda n: VectorNumericEnv(toy_numbers(), 2).reset(seed=n), "seed >= 0", (-1, "0", [1, 2])),
    (lambda n: VectorDialogueEnv(toy_env(), 2).reset(seed=n), "seed >= 0", (-1, "0")),
    (lambda n: evaluate(RANDOM, CLICKS, [TOY], seeds=(n,)), "seed >= 0", (-1, "0")),
    (lambda n: rollout(TOY, TOY.items, RANDOM, CLICKS, provenance=TOY.provenance, seed=n), "seed >= 0", (-1, "a")),
    (lambda n: VectorNumericEnv(toy_numbers(), n), "num_envs >= 1", (0, "2", None, 2.5)),
    (lambda n: FixedRecommender(n), "position >= 0", (-1, "0")),
    (lambda n: FixedUser(strength=n), "0 <= strength <= 1", (1.5, -0.1, "1", float("nan"))),
    (lambda n: OracleUser(TOY, flip=n), "0 <= flip <= 1", (2, "0.2", None)),
    (lambda n: ScorerUser(lambda h, i: i, threshold=n, scale=1.0), "Expected a number", (float("nan"), "0")),
    (lambda n: CoarsReward(alpha=n), "0 <= alpha < 0.5", (0.5, "0.1", None)),
    (lambda n: CoarsReward(invalid=n), "`invalid`", (float("nan"), "-1")),
    (lambda n: CoarsReward(stage=n), "StageSensitivity", (1.0, None)),
    (lambda n: CoarsReward(exclude_positive_miss=n), "a frozenset of some of", ("user_0", ["user_0"])),
    (lambda n: MirroredStage(n), "0 <= beta < 1", (1, "0", float("nan"))),
    (lambda n: SvdPeers(SPLIT, rank=n), "rank >= 1", (0, -1, "8")),
    (lambda n: SvdPeers(SPLIT, k=n), "k >= 1", (0, 2.5)),
    (lambda n: item_features(SPLIT, size=n), "size >= 0", (-1, "8")),
    (lambda n: random_holdout(toy_dataset(), seed=n), "seed >= 0", (-1, "0")),
    (lambda n: leave_last(toy_dataset(), min_rating=n), "as min_rating, or None", ("3", float("nan"))),
    (lambda n: sample_train_tasks(BUILD, n, np.random.default_rng(0), prefix="s"), "n >= 0", (-1, 1.5)),
    (lambda n: make("synthetic", users=n), "users >= 0", (-5, "20", 20.5)),
    (lambda n: make("synthetic", seed=n), "seed >= 0", (-1, "0")),
]


@pytest.mark.parametrize(("passing", "expected", "numbers"), WRONG_NUMBERS, ids=lambda case: str(case)[:20])
def test_a_number_out_of_its_range_is_refused(
    passing: Callable[[Any], object], expected: str, numbers: tuple[object, ...]
) -> None:
    for number in numbers:
        with pytest.raises(ConfigError, match=expected) as caught:
            passing(number)
        assert f"found {number!r}" in str(caught.value)


def test_whole_numbers_become_pythons_own() -> None:
    for value in (3, np.int64(3), np.array(3), True + 2):
        number = whole_number("Things are counted.", "things", value, 3)
        assert (type(number), number) == (int, 3)
    with pytest.raises(ConfigError, match=r"^Things are counted\. Expected things >= 3, found 2\. Pass a whole number"):
        whole_number("Things are counted.", "things", 2, 3)


def test_what_is_no_number_lies_in_no_range() -> None:
    assert [number_or_nan(value) for value in (1, 0.5, np.float32(0.5))] == [1.0, 0.5, 0.5]
    assert all(np.isnan(number_or_nan(value)) for value in ("1", None, [1.0]))


def test_an_agent_is_known_by_its_methods() -> None:
    duck = SimpleNamespace(start=CLICKS.start, act=CLICKS.act)
    assert [t.ending for t in evaluate(RANDOM, duck, [TOY])[0][0]] == ["accepted"] * 4
    with pytest.raises(ConfigError, match="Expected an object of the kind int, found 'one'"):
        expect(int, "one", "A number.", "Pass one.")
