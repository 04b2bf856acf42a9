"""The scripted partners of games with instructions, as systems."""

import pytest

from baselines import Resources, load_system
from baselines.system import load_user
from coars_env import (
    RECOMMENDER,
    USER,
    FacetInstructions,
    Split,
    builder,
    episode_metrics,
    evaluate,
    freeze,
    load_split,
)


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("synthetic", users=60, items=120, interactions=2000)


def test_asking_asks_listening_does_not_and_both_gain_by_what_is_said(split: Split) -> None:
    wishes = FacetInstructions(("genre", "decade"))
    episodes = freeze(builder(split, instructions=wishes), "test")
    resources = Resources(instructions=wishes)
    user = load_user("instructed").fit(split, resources=resources).agent(USER)
    found = {}
    for name in ("asking", "listening"):
        recommender = load_system(name).fit(split, resources=resources).agent(RECOMMENDER)
        found[name] = episode_metrics(evaluate(recommender, user, [episodes])[0][0])
    assert found["asking"]["questions"].mean() > 0.5
    assert found["listening"]["questions"].sum() == 0
    for metrics in found.values():
        assert metrics["hit_best"].mean() > metrics["hit_first"].mean() + 0.1
        assert metrics["true_reveals"][metrics["revealed"] > 0].min() == 1


def test_the_noise_of_the_instructions_is_known_to_who_asks(split: Split) -> None:
    noisy = Resources(instructions=FacetInstructions(("genre",), noise=0.25))
    plain, told = (load_system("asking").fit(split, resources=r).agent(RECOMMENDER) for r in (Resources(), noisy))
    episodes = freeze(builder(split, instructions=FacetInstructions(("genre",), noise=1.0)), "test")
    user = load_user("instructed").fit(split).agent(USER)
    # Of a user that always errs the one that knows of noise believes less, so the dialogues differ.
    assert evaluate(plain, user, [episodes]) != evaluate(told, user, [episodes])
