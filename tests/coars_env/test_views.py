import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    CoarsEnv,
    CoarsError,
    CoarsReward,
    ConfigError,
    Dataset,
    DatasetError,
    EpisodeSet,
    FacetInstructions,
    MaskedEnv,
    NumericEnv,
    Split,
    SvdPeers,
    TaskBuilder,
    TaskError,
    TopCandidates,
    builder,
    constant_stage,
    freeze,
    instruction_of,
    item_features,
    kinds_of,
    leave_last,
    llara,
    load,
    load_data,
    load_split,
    make,
    make_vec,
    popularity_scorer,
    single_agent,
    uniform_candidates,
)

SMALL: dict[str, Any] = {"users": 60, "items": 90, "interactions": 1500}


def test_an_environment_is_made_from_a_name() -> None:
    env = make("synthetic", **SMALL)
    assert isinstance(env, CoarsEnv)
    assert env.episodes.name == "synthetic/leave_last/test/uniform/d0"
    assert (len(env.episodes), env.max_turns) == (60, 4)
    assert {len(task.candidates) for task in env.episodes} == {20}
    assert any(q != 0 for task in env.episodes for q in task.peer_similarity)
    env.reset(seed=0)
    while env.agents:
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    assert env.transcript.provenance.source == "synthetic"


def test_make_is_its_own_steps() -> None:
    env = make("synthetic", candidates="popularity", draw=3, num_candidates=7, max_turns=2, seed=4, **SMALL)
    build = builder(load_split("synthetic", seed=4, **SMALL), "popularity", num_candidates=7)
    episodes = freeze(build, "test", draw=3)
    assert env.episodes.sha256 == episodes.sha256
    assert env.max_turns == 2


def test_made_environments_are_equal_and_share_nothing() -> None:
    first, second = make("synthetic", **SMALL), make("synthetic", **SMALL)
    assert first.episodes.sha256 == second.episodes.sha256
    assert first.action_space(USER) is not second.action_space(USER)
    tasks = [[env.reset(seed=1)[1][USER]["task_id"], env.reset()[1][USER]["task_id"]] for env in (first, second)]
    assert tasks[0] == tasks[1]


def test_views_by_name_are_those_made_by_hand() -> None:
    split = load_split("synthetic", **SMALL)
    for view, kind in (("numeric", NumericEnv), ("masked", MaskedEnv)):
        env = make("synthetic", view=view, max_turns=3, candidates="popularity", **SMALL)  # type: ignore[call-overload]
        assert type(env) is kind
        text = make("synthetic", max_turns=3, candidates="popularity", **SMALL)
        by_hand = kind(text, item_features(split))
        assert env.env.episodes.sha256 == text.episodes.sha256
        first, second = env.reset(seed=4)[0], by_hand.reset(seed=4)[0]
        for _ in range(3):
            assert repr(first) == repr(second)
            first, second = (one.step(dict.fromkeys(ROLES, 2))[0] for one in (env, by_hand))


def test_the_llara_split_plays_users_nobody_trains_on() -> None:
    env = make("synthetic", split="llara", subset="validation", candidates="llara", **SMALL)
    assert env.episodes.name == "synthetic/llara/validation/llara/d0"
    split = load_split("synthetic", "llara", **SMALL)
    assert [task.user for task in env.episodes] == [sequence.user for sequence in split.validation]
    assert {task.user for task in env.episodes}.isdisjoint(sequence.user for sequence in split.train)


def test_rewards_and_rendering_are_passed_on() -> None:
    env = make("synthetic", reward=CoarsReward(stage=constant_stage), render_mode="ansi", **SMALL)
    env.reset(seed=0)
    answer = {"action": 3, "strength": 1.0, "message": ""}
    actions: dict[str, Any] = {RECOMMENDER: {"item": 0, "message": "Seen it?"}, USER: answer}
    env.step(actions)
    assert abs(env.step(actions)[1][RECOMMENDER]) == 1.0
    assert "Seen it?" in (env.render() or "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "by-taste"}, ConfigError, r"Expected one of leave_last, .*, found 'by-taste'"),
        (
            {"candidates": "hard"},
            ConfigError,
            r"'popularity', 'confusable' or 'llara', found 'hard'",
        ),
        ({"candidates": ["uniform"]}, ConfigError, r"Candidates are drawn by a function, .* found \['uniform'\]"),
        ({"split": ["llara"]}, ConfigError, r"Unknown split\. .* found \['llara'\]"),
        ({"view": ["text"]}, ConfigError, r"Unknown view\. .* found \['text'\]"),
        ({"subset": ["test"]}, ConfigError, r"A split has three parts\. .* found \['test'\]"),
        ({"subset": "dev"}, ConfigError, r"A split has three parts\. .* found 'dev'"),
        ({"subset": "validation"}, TaskError, r"Expected some in 'validation', .* 60 train, 0 validation"),
        ({"num_candidates": 1}, ConfigError, r"A choice needs candidates"),
        ({"num_candidates": 90}, TaskError, r"There must be enough items to draw negatives from"),
        ({"max_turns": 0}, ConfigError, r"A dialogue needs turns"),
        ({"view": "pixels"}, ConfigError, r"Expected one of \['text', 'numeric', 'masked'\], found 'pixels'"),
        ({"draw": -1}, ConfigError, r"Draws and seeds are counted from 0"),
        ({"variant": "1m"}, ConfigError, r"variant"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make("synthetic", **{**SMALL, **options})


# From objects ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Dataset:
    return load("synthetic", **SMALL)


def test_an_environment_is_made_from_any_step_on_the_way(world: Dataset) -> None:
    expected = make("synthetic", split="llara", subset="validation", draw=2, **SMALL).episodes
    split = llara(world)
    episodes = freeze(builder(split), "validation", draw=2)
    made = (
        make(world, split="llara", subset="validation", draw=2),
        make(split, subset="validation", draw=2),
        make(episodes),
        single_agent(split, subset="validation", draw=2).env.env,
        make(episodes, view="numeric", features=item_features(split)).env,
    )
    assert {env.episodes.sha256 for env in made} == {expected.sha256}


def test_numeric_views_are_the_same_from_any_step(world: Dataset) -> None:
    split = leave_last(world)
    seen = [
        env.reset(seed=3)[0][RECOMMENDER].tobytes()
        for env in (
            make(world, view="numeric"),
            make(split, view="numeric"),
            make(freeze(builder(split), "test"), view="numeric", features=item_features(split)),
        )
    ]
    assert len(set(seen)) == 1
    vectors = [make_vec(data, 2).reset(seed=3)[0][RECOMMENDER][0].tobytes() for data in (world, split)]
    assert set(vectors) == set(seen)
    assert single_agent(split, "recommender").reset(seed=3)[0].tobytes() == seen[0]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Dataset, {"source": "real"}, r"source cannot be given beside a Dataset\. Leave it out"),
        (Dataset, {"data_dir": "there", "users": 3}, r"data_dir, users cannot be given beside a Dataset"),
        (Split, {"split": "llara", "variant": "1m"}, r"split, variant cannot be given beside a Split"),
        (EpisodeSet, {"split": "llara"}, r"split cannot be given beside an EpisodeSet"),
        (EpisodeSet, {"subset": "test"}, r"subset cannot be given beside an EpisodeSet"),
        (
            EpisodeSet,
            {"candidates": "uniform", "draw": 0, "num_candidates": 20},
            r"candidates, draw, num_candidates cannot be given beside an EpisodeSet",
        ),
        (
            EpisodeSet,
            {"instructions": FacetInstructions(("genre",))},
            r"instructions cannot be given beside an EpisodeSet",
        ),
        (Split, {"instructions": FacetInstructions(("brand",))}, r"got 'brand' where the items have only 'genre', 'de"),
        (Split, {"instructions": ("genre",)}, r"Instructions are drawn by a rule\. .* found \('genre',\)"),
        (EpisodeSet, {"view": "numeric"}, r"the numeric views of an EpisodeSet need features, got none\. Pass"),
        (Split, {"features": np.zeros((90, 2), np.float32)}, r"features cannot be given beside view='text'"),
        (Split, {"view": "numeric", "features": np.zeros((3, 2), np.float32)}, r"Every item needs features"),
    ],
)
def test_options_that_mean_nothing_beside_an_object_are_refused(
    world: Dataset, kind: type, options: dict[str, Any], message: str
) -> None:
    split = leave_last(world)
    data: Any = {Dataset: world, Split: split, EpisodeSet: freeze(builder(split), "test")}[kind]
    with pytest.raises(CoarsError, match=message):
        make(data, **options)


def test_a_game_may_be_about_what_the_user_wants(world: Dataset) -> None:
    wishes = FacetInstructions(("genre", "like"))
    env = make(world, instructions=wishes, candidates="confusable", num_candidates=8)
    expected = freeze(builder(leave_last(world), "confusable", num_candidates=8, instructions=wishes), "test")
    assert env.episodes.sha256 == expected.sha256
    assert expected.name.endswith("/test/confusable/d0/genre+like")
    seen = env.reset(seed=0)[0]
    assert kinds_of(seen[USER]) == ("genre", "like")
    assert [facet.kind for facet in instruction_of(seen[USER])] == ["genre", "like"]
    assert instruction_of(seen[RECOMMENDER]) == ()


# From a function of one's own -----------------------------------------------------------------------------------------

BOOKS = """
import coars_env

def load(users=60, data_dir=None):
    return coars_env.load("synthetic", users=users, items=90, interactions=1500)

def split():
    return coars_env.split_users(load(), validation=.1, test=.2)

def seven():
    return 7

ready = load()
"""


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_books.py").write_text(BOOKS)


@pytest.mark.usefixtures("books")
def test_data_come_from_a_function_of_ones_own() -> None:
    assert make("my_books:load").episodes.sha256 == make("synthetic", **SMALL).episodes.sha256
    assert len(make("my_books:load", users=50, data_dir="anywhere").episodes) == 50
    assert make("my_books:split", subset="validation").episodes.name == "synthetic/split_users/validation/uniform/d0"
    assert load_split("my_books:load", "llara").name == "llara"
    assert isinstance(load_data("my_books:split"), Split)


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("my_books:seven", {}, r"'my_books:seven' must return a Dataset or a Split, got 7\. Correct the function"),
        ("my_books:ready", {}, r"'my_books:ready' must name a function, got Dataset\("),
        ("my_books:gone", {}, r"my_books\.py has no 'gone'"),
        ("my_pages:load", {}, r"'my_pages:load' cannot be imported: .*No module named 'my_pages'"),
        ("my_books:load", {"source": "synthetic"}, r"has no synthetic copy, got source='synthetic'"),
        ("my_books:load", {"items": 3}, r"any of users, found 'items'"),
        ("my_books:split", {"split": "llara"}, r"split cannot be given beside the Split of 'my_books:split'"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **options)


def test_an_unknown_dataset_is_refused() -> None:
    for name in ("movies", ["movielens"], 3):
        with pytest.raises(DatasetError, match=r"found ('movies'|\['movielens'\]|3)\. Choose one"):
            make(name)  # type: ignore[call-overload]


def test_candidates_may_be_drawn_by_a_sampler_of_ones_own() -> None:
    split = load_split("synthetic", **SMALL)
    scorer = popularity_scorer(split)
    for candidates in (uniform_candidates(90), TopCandidates(scorer)):
        env = make("synthetic", candidates=candidates, view="numeric", **SMALL).env
        assert env.episodes.name == "synthetic/leave_last/test/custom/d0"
        by_hand = freeze(TaskBuilder(split, candidates, SvdPeers(split)), "test")
        assert env.episodes.sha256 == by_hand.sha256
    uniform, top = (make("synthetic", candidates=c, **SMALL) for c in (uniform_candidates(90), TopCandidates(scorer)))
    assert uniform.episodes.sha256 != top.episodes.sha256
    assert env.episodes.tasks[0].candidates == top.episodes.tasks[0].candidates


def test_an_argument_that_is_misspelt_is_refused() -> None:
    for option in ("rule", "candidate", "max_turn"):
        with pytest.raises(ConfigError, match=rf"any of users, items, interactions, seed, found '{option}'"):
            make("synthetic", **{option: 1}, **SMALL)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"for 'movielens' any of variant, download, verify, url, found 'users'"):
        make("movielens", users=3)


def test_making_an_environment_touches_no_global_generator() -> None:
    before = repr(np.random.get_state())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("synthetic", **SMALL)
    assert repr(np.random.get_state()) == before


# On real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ml100k")
def test_real_environments_are_made_by_name() -> None:
    for split, rows in (("leave_last", 943), ("llara", 95)):
        env = make("movielens", split=split, source="real", download=False)  # type: ignore[arg-type]
        assert len(env.episodes) == rows
        observations, _ = env.reset(seed=0)
        assert all(env.observation_space(role).contains(observations[role]) for role in ROLES)
        assert env.episodes.provenance.source == "real"
