from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coars_env import (
    METRICS,
    RECOMMENDER,
    USER,
    CoarsReward,
    ConfigError,
    OracleUser,
    RandomRecommender,
    RewardTerms,
    Rules,
    Transcript,
    cross_play,
    episode_metrics,
    metric_values,
    outcome_terms,
    rollout,
    score_transcripts,
    summarize,
)
from coars_env.testing import toy_episodes, toy_instructed_episodes

TOY = toy_episodes()
PLAYED = rollout(
    TOY, TOY.items, RandomRecommender(), OracleUser(TOY, flip=0.4), provenance=TOY.provenance, max_turns=3, seed=1
)


def zeros(transcript: Transcript) -> list[RewardTerms]:
    """No factors, nobody left out."""
    return [
        RewardTerms(turn.proposal == transcript.task.target, {RECOMMENDER: 0, USER: 0}) for turn in transcript.turns
    ]


class ByNumber:
    """Pays the recommender by the place of the dialogue in the list."""

    def score(self, transcripts: Sequence[Transcript]) -> list[list[RewardTerms]]:
        return [
            [replace(terms, rewards={RECOMMENDER: number, USER: 0.5}) for terms in zeros(transcript)]
            for number, transcript in enumerate(transcripts)
        ]


class Both(ByNumber):
    def turn(self, *arguments: Any) -> RewardTerms:
        raise AssertionError("`score` goes before `turn`")


def test_a_reward_is_asked_turn_by_turn_a_function_by_the_dialogue_and_a_scorer_once() -> None:
    assert score_transcripts(CoarsReward(alpha=0.3), PLAYED) == [CoarsReward(alpha=0.3)(one) for one in PLAYED]
    assert score_transcripts(outcome_terms, PLAYED) == [outcome_terms(one) for one in PLAYED]
    for scorer in (ByNumber(), Both()):
        scored = score_transcripts(scorer, PLAYED)
        assert [{terms.rewards[RECOMMENDER] for terms in turns} for turns in scored] == [{0}, {1}, {2}, {3}]
    assert score_transcripts(zeros, []) == []


def test_metrics_take_any_reward_and_need_no_factors() -> None:
    found, paper = episode_metrics(PLAYED, reward=ByNumber()), episode_metrics(PLAYED)
    assert found["reward_recommender"].tolist() == [0, 1, 2, 3]
    assert found["reward_user"].tolist() == [0.5] * 4
    assert found["excluded_user"].tolist() == [0] * 4
    for name in set(METRICS) - {"reward_recommender", "reward_user", "excluded_recommender", "excluded_user"}:
        assert np.array_equal(found[name], paper[name], equal_nan=True)
    assert metric_values([[PLAYED]], reward=ByNumber())["reward_recommender"].tolist() == [[[0, 1, 2, 3]]]
    assert summarize("x", [[PLAYED]], reward=ByNumber()).estimates["reward_recommender"].mean == 1.5
    played = cross_play({"random": RandomRecommender()}, {"oracle": OracleUser(TOY)}, [TOY])
    assert played.estimates("reward_recommender", reward=ByNumber())["random", "oracle"].mean == 1.5
    assert "1.500 [" in played.to_markdown("reward_recommender", reward=ByNumber())


def of_turn(number: int, **change: Any) -> Any:
    """A function that scores with one turn of each dialogue changed."""

    def changed(transcript: Transcript) -> list[RewardTerms]:
        terms = zeros(transcript)
        terms[number - 1] = replace(terms[number - 1], **change)
        return terms

    return changed


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (of_turn(1, rewards={RECOMMENDER: 0.0, USER: float("nan")}), r"reward user_0=nan, which is no finite number"),
        (of_turn(1, rewards={RECOMMENDER: 0.0, USER: "1"}), r"reward user_0='1', which is no finite number"),
        (of_turn(1, rewards={RECOMMENDER: 0.0}), r"rewards=\{'recommender_0': 0.0\}, which are not those of \["),
        (of_turn(1, rewards={RECOMMENDER: 0.0, USER: 0.0, "user_1": 0.0}), r"rewards=\{.*'user_1'.*\}, which are not"),
        (of_turn(1, rewards=(1.0, 1.0)), r"rewards=\(1\.0, 1\.0\), which are not those of"),
        (of_turn(1, excluded={"critic_0"}), r"excluded=\['critic_0'\], which are not all agents"),
        (of_turn(1, factors={"strength": float("inf")}), r"factor strength=inf, which is no finite number"),
        (lambda one: [None for _ in one.turns], r"None in place of RewardTerms"),
    ],
)
def test_what_cannot_be_paid_is_refused_with_the_reward_the_task_and_the_turn(reward: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\S*(changed|<lambda>) returns {message}.* in turn 1 of task 'toy-0'"):
        score_transcripts(reward, PLAYED)
    with pytest.raises(ConfigError, match="in turn 1 of task 'toy-0'"):
        episode_metrics(PLAYED, reward=reward)


def test_the_turn_is_counted() -> None:
    long = next(one for one in PLAYED if len(one.turns) > 1)
    with pytest.raises(ConfigError, match=rf"reward user_0=nan.* in turn 2 of task '{long.task.task_id}'"):
        score_transcripts(of_turn(2, rewards={RECOMMENDER: 0.0, USER: float("nan")}), [long])


@pytest.mark.parametrize(("extra", "place"), [(-1, 1), (1, 2)])
def test_as_many_terms_as_turns(extra: int, place: int) -> None:
    one = replace(PLAYED[0], turns=PLAYED[0].turns[:1], ending="failed", cause="?", rewards=())

    def wrong(transcript: Transcript) -> list[RewardTerms]:
        return (zeros(transcript) * 2)[: 1 + extra]

    message = rf"wrong returns terms of {1 + extra} turns for task 'toy-0', whose dialogue has 1: turn {place} has no"
    with pytest.raises(ConfigError, match=message):
        score_transcripts(wrong, [one])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (CoarsReward, r"The reward is the class CoarsReward\. Make an object of it"),
        (None, r"None is no reward\. Pass an object with a method `turn` or `score`, or a function"),
        (0.5, r"0\.5 is no reward"),
        (lambda: [], r"cannot be called with one transcript\. Write a function of one"),
        (lambda one: "terms", r"returns 'terms' for task 'toy-0'\. It must return a list of RewardTerms"),
        (lambda one: None, r"returns None for task 'toy-0'\. It must return a list of RewardTerms"),
    ],
)
def test_what_is_no_reward_is_refused(reward: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score_transcripts(reward, PLAYED)


def test_a_scorer_scores_every_transcript() -> None:
    class Short(ByNumber):
        def score(self, transcripts: Sequence[Transcript]) -> list[list[RewardTerms]]:
            return super().score(transcripts)[:1]

    with pytest.raises(ConfigError, match=r"Short object.* scores 1 of 4 transcripts\. Its method `score` must return"):
        score_transcripts(Short(), PLAYED)


def test_the_example_of_the_docstring_runs() -> None:
    class Novelty:
        def score(self, transcripts: Sequence[Transcript]) -> list[list[RewardTerms]]:
            seen = Counter(turn.proposal for one in transcripts for turn in one.turns)
            return [[self.terms(one.task, turn, 1 / seen[turn.proposal]) for turn in one.turns] for one in transcripts]

        def terms(self, task: Any, turn: Any, worth: float) -> RewardTerms:
            return RewardTerms(turn.proposal == task.target, {RECOMMENDER: worth, USER: 0.0})

    paid = [terms.rewards[RECOMMENDER] for turns in score_transcripts(Novelty(), PLAYED) for terms in turns]
    assert sum(paid) == pytest.approx(len({turn.proposal for one in PLAYED for turn in one.turns}))


# Questions and repeats ------------------------------------------------------------------------------------------------


class Asks(RandomRecommender):
    """Asks in every second dialogue first, and then proposes at random what may be proposed."""

    def act(self, observations: Any) -> Any:
        said = super().act(observations)
        asks = [n for n, seen in observations.items() if n % 2 and not seen["turn"]]
        return said | {n: {"ask": "decade", "message": "Of which decade?"} for n in asks}


@pytest.mark.parametrize("repeats", ["paid", "unpaid", "forbidden"])
def test_stored_dialogues_are_scored_as_they_were_paid(repeats: Any) -> None:
    episodes, reward = toy_instructed_episodes(), CoarsReward(question_cost=0.125)
    told = rollout(
        [*episodes, *episodes],
        episodes.items,
        Asks(),
        OracleUser(episodes, flip=0.8),
        provenance=episodes.provenance,
        max_turns=6,
        rules=Rules(repeats=repeats),
        reward=reward,
        seed=3,
    )
    again = [Transcript.from_json(one.to_json()) for one in told]
    scored = score_transcripts(reward, again)
    assert [[dict(term.rewards) for term in terms] for terms in scored] == [
        list(map(dict, one.rewards)) for one in told
    ]
    assert any(turn.question for one in told for turn in one.turns)
    plain = [reward(one) for one in told]  # by the turns alone, without the rules
    assert (scored == plain) == (repeats != "unpaid")


def test_a_function_of_the_dialogue_is_not_changed_by_the_rules() -> None:
    unpaid = [replace(one, rules=Rules(repeats="unpaid")) for one in PLAYED]
    assert score_transcripts(outcome_terms, unpaid) == [outcome_terms(one) for one in unpaid]
