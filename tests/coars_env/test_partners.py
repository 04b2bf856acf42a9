import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coars_env import (
    ACTIONS,
    RECOMMENDER,
    ROLES,
    USER,
    Agent,
    CoarsReward,
    ConfigError,
    Dialogue,
    EpisodeSet,
    FixedRecommender,
    FixedUser,
    GreedyRecommender,
    InstructedUser,
    Instruction,
    OracleUser,
    RandomRecommender,
    Replay,
    Role,
    Rules,
    ScorerUser,
    ShapeError,
    SvdPeers,
    Task,
    TaskError,
    Transcript,
    item_counts,
    kernel_scorer,
    leave_last,
    make,
    play,
    popularity_scorer,
    rollout,
    split_users,
    svd_scorer,
)
from coars_env.testing import ScriptedAgent, check_agent, toy_dataset, toy_episodes

TOY = toy_episodes()
INSTRUCTED = toy_episodes(instructed=True)
TOY_SPLIT = leave_last(toy_dataset())
POPULARITY = popularity_scorer(TOY_SPLIT)  # training interactions: 1 3 1 0 3 1


def played(recommender: Agent, user: Agent, *, episodes: EpisodeSet = TOY, **options: Any) -> list[Transcript]:
    return rollout(episodes, episodes.items, recommender, user, provenance=episodes.provenance, **options)


STORED = played(RandomRecommender(), OracleUser(TOY, flip=0.3), seed=7)
AGENTS: list[tuple[Role, Agent]] = [
    (RECOMMENDER, RandomRecommender()),
    (RECOMMENDER, FixedRecommender()),
    (RECOMMENDER, FixedRecommender(2, "Toujours le même, 同じ.")),
    (RECOMMENDER, GreedyRecommender(POPULARITY)),
    (RECOMMENDER, Replay(STORED, RECOMMENDER)),
    (USER, FixedUser()),
    (USER, FixedUser("skip", 0.3, "Nein, 否.")),
    (USER, OracleUser(TOY)),
    (USER, OracleUser(TOY, flip=0.5)),
    (USER, ScorerUser(POPULARITY, threshold=2.0, scale=1.0)),
    (USER, ScorerUser.fit(svd_scorer(SvdPeers(TOY_SPLIT).directions), TOY, accept=0.3)),
    (USER, Replay(STORED, USER)),
]


@pytest.mark.parametrize(("role", "agent"), AGENTS, ids=lambda case: type(case).__name__)
def test_scripted_partners_keep_the_protocol(role: Role, agent: Agent) -> None:
    check_agent(agent, role)
    check_agent(agent, role, instructed=True)


def test_a_user_who_always_clicks_ends_every_episode_at_turn_one_with_all_misses_excluded() -> None:
    reward = CoarsReward(exclude_positive_miss=frozenset(ROLES))
    dialogues = [Dialogue(task, TOY.items, reward=reward) for task in TOY.tasks * 30]
    play(dialogues, RandomRecommender(), FixedUser())
    assert {(dialogue.ending, len(dialogue.turns)) for dialogue in dialogues} == {("accepted", 1)}
    for dialogue in dialogues:
        (terms,) = dialogue.terms
        assert terms.excluded == (frozenset() if terms.hit else frozenset(ROLES))
    hits = sum(dialogue.terms[0].hit for dialogue in dialogues)
    assert abs(hits - 40) < 3 * np.sqrt(120 * 2 / 9)  # one in three of 120, within three standard errors


def test_a_user_who_always_dislikes_hears_every_turn() -> None:
    transcripts = rollout(
        TOY.tasks, TOY.items, RandomRecommender(), FixedUser("dislike", 0.0), provenance=TOY.provenance, max_turns=3
    )
    assert {(transcript.ending, len(transcript.turns)) for transcript in transcripts} == {("max_turns", 3)}
    assert not any(turn.positive for transcript in transcripts for turn in transcript.turns)


def test_a_user_who_knows_no_such_action_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"A user acts in one of four ways\. Expected one of .* found 'love'"):
        FixedUser("love")


def test_the_random_recommender_draws_anew_in_each_turn() -> None:
    dialogues = [Dialogue(TOY.tasks[0], TOY.items, max_turns=40)]
    play(dialogues, RandomRecommender(), FixedUser("skip"))
    assert {turn.proposal for turn in dialogues[0].turns} == set(TOY.tasks[0].candidates)


def answers(user: Agent, task: Task) -> list[tuple[str | None, float | None]]:
    """To each candidate in turn, in as many dialogues, so that no click ends the asking."""
    dialogues = [Dialogue(task, TOY.items, max_turns=1) for _ in task.candidates]
    for place, dialogue in enumerate(dialogues):
        dialogue.recommend(place, "")
    play(dialogues, RandomRecommender(), user)
    turns = [dialogue.turns[0] for dialogue in dialogues]
    return [
        (None if turn.answer.action is None else ACTIONS[turn.answer.action], turn.answer.strength) for turn in turns
    ]


# Users ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TOY.tasks, ids=lambda task: task.task_id)
def test_an_oracle_clicks_the_target_alone_and_an_adversary_all_else(task: Task) -> None:
    honest = [("click", 1.0) if item == task.target else ("dislike", 0.0) for item in task.candidates]
    assert answers(OracleUser(TOY), task) == honest
    adverse = [("dislike", 0.0) if item == task.target else ("click", 1.0) for item in task.candidates]
    assert answers(OracleUser(TOY, flip=1.0), task) == adverse


def test_a_noisy_user_errs_as_often_as_it_says_and_is_as_good_as_its_seed() -> None:
    dialogues = [Dialogue(task, TOY.items, max_turns=30) for task in TOY.tasks * 10]
    nothing = ScriptedAgent([{"item": 3, "message": ""}])
    play(dialogues, nothing, OracleUser(TOY, flip=0.2))  # nothing is named, so every turn is played
    assert {turn.answer.action for dialogue in dialogues for turn in dialogue.turns} == {0}
    for place in range(3):
        dialogues = [Dialogue(task, TOY.items, max_turns=1) for task in TOY.tasks * 100]
        play(dialogues, FixedRecommender(place), OracleUser(TOY, flip=0.2))
        wrong = [(d.ending == "accepted") != d.terms[0].hit for d in dialogues]
        assert abs(np.mean(wrong) - 0.2) < 3 * np.sqrt(0.2 * 0.8 / 400)


def test_tasks_of_one_history_are_all_taken() -> None:
    task = TOY.tasks[0]
    twin = Task("twin", 9, task.history, (1, 3, 2), target=3)
    assert [action for action, _ in answers(OracleUser([task, twin]), task)] == ["click", "dislike", "click"]


def test_an_oracle_of_other_tasks_says_so() -> None:
    with pytest.raises(TaskError, match=r"An oracle must know the tasks .* one of 2 histories, found \(2, 5, 1\)\. Bu"):
        played(RandomRecommender(), OracleUser(TOY.tasks[:2]))


@pytest.mark.parametrize(
    ("user", "expected"),
    # popularity of the candidates 5 1 3 is 1 3 0
    [
        (ScorerUser(POPULARITY, threshold=1.0, scale=1.0), [("star", 0.5), ("click", 0.88), ("skip", 0.27)]),
        (ScorerUser(POPULARITY, threshold=2.9, scale=0.01), [("dislike", 0.0), ("click", 1.0), ("dislike", 0.0)]),
    ],
    ids=["graded", "picky"],
)
def test_a_user_with_a_score_answers_by_the_logistic_function(user: Agent, expected: list[Any]) -> None:
    found = answers(user, TOY.tasks[0])
    assert [action for action, _ in found] == [action for action, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=0.006)


@pytest.mark.parametrize("accept", [0.1, 0.5, 0.9])
def test_a_fitted_user_accepts_its_share(accept: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    tasks = [Task(f"{n}", n, (), tuple(range(10 * n, 10 * n + 10)), target=10 * n) for n in range(100)]
    user = ScorerUser.fit(lambda history, items: values[items], tasks, accept=accept)
    assert np.mean(values >= user.threshold) == pytest.approx(accept, abs=0.001)
    assert user.scale == pytest.approx(values.std() / 4)


# Recommenders ---------------------------------------------------------------------------------------------------------


def test_the_greedy_recommender_goes_down_its_list_and_never_back() -> None:
    # candidates 0 2 3 of toy-3, popularity 1 1 0: a tie first, the least popular last
    (_, _, _, transcript) = played(GreedyRecommender(POPULARITY), FixedUser("dislike", 0.1), max_turns=4)
    proposed = [turn.proposal for turn in transcript.turns]
    assert sorted(proposed[:2]) == [0, 2]  # type: ignore[type-var]
    assert proposed[2:] == [3, proposed[0]]  # all rejected: the best again
    (first, *_) = played(GreedyRecommender(POPULARITY), FixedUser("star", 0.6))
    assert [turn.proposal for turn in first.turns] == [1, 1, 1, 1]  # a star is no rejection


def test_the_greedy_recommender_may_give_a_reason_for_what_it_proposes() -> None:
    recommender = GreedyRecommender(POPULARITY, lambda seen, item: f"turn {seen['turn']}, {TOY.items[item].title}")
    for transcript in played(recommender, FixedUser("dislike", 0.1), max_turns=2):
        expected = [f"turn {n}, {TOY.items[t.proposal or 0].title}" for n, t in enumerate(transcript.turns)]
        assert [turn.rationale for turn in transcript.turns] == expected


def test_ties_are_drawn_by_the_seed_of_the_dialogue() -> None:
    dialogues = [Dialogue(TOY.tasks[0], TOY.items, max_turns=1) for _ in range(300)]
    play(dialogues, GreedyRecommender(lambda history, items: np.zeros(len(items))), FixedUser())
    counts = np.bincount([TOY.tasks[0].candidates.index(d.turns[0].proposal) for d in dialogues])  # type: ignore[arg-type]
    assert np.abs(counts - 100).max() < 3 * np.sqrt(300 * 2 / 9)


def test_the_fixed_recommender_keeps_its_place() -> None:
    for transcript in played(FixedRecommender(1), FixedUser("skip", 0.3)):
        assert {turn.proposal for turn in transcript.turns} == {transcript.task.candidates[1]}


# Replay ---------------------------------------------------------------------------------------------------------------


def test_both_sides_replayed_are_the_dialogue_byte_for_byte() -> None:
    odd = ScriptedAgent(
        [{"item": 3, "message": "?", "error": "lost"}, {"item": 1, "message": "Ä"}, {"item": 2, "message": ""}]
    )
    moody = ScriptedAgent(
        [{"action": 1, "strength": 0.3, "message": "No."}, {"action": 4, "strength": 0.0, "message": "", "error": "x"}]
    )
    for stored in (STORED, played(odd, moody, seed=7)):
        again = played(Replay(stored, RECOMMENDER), Replay(stored, USER), seed=7)
        assert [t.to_json() for t in again] == [t.to_json() for t in stored]


def test_an_answer_is_replayed_to_its_own_proposal_only() -> None:
    stored = played(FixedRecommender(0), ScriptedAgent([{"action": 2, "strength": 0.6, "message": "Hm."}]))
    same = played(FixedRecommender(0), Replay(stored, USER))
    assert [turn.answer.message for turn in same[0].turns] == ["Hm."] * 4
    other = played(FixedRecommender(1), Replay(stored, USER))
    assert {turn.answer.error for turn in other[0].turns} == {"no stored dialogue went this way"}


def test_a_replayed_question_and_a_replayed_wish_are_the_same_game() -> None:
    asks: list[Any] = [
        {"ask": "genre", "message": "Which genre?"},
        {"item": 1, "message": ""},
        {"item": 0, "message": ""},
    ]
    stored = played(ScriptedAgent(asks), InstructedUser(TOY.items, volunteer=0.5), episodes=INSTRUCTED, seed=7)
    assert any(turn.question for transcript in stored for turn in transcript.turns)
    assert any(answer.reveal for transcript in stored for turn in transcript.turns for answer in turn.answers)
    again = played(Replay(stored, RECOMMENDER), Replay(stored, USER), episodes=INSTRUCTED, seed=7)
    assert [t.to_json() for t in again] == [t.to_json() for t in stored]
    # another answer to the question, another game, and one without questions: nothing that was said fits
    for other in (
        played(Replay(stored, RECOMMENDER), FixedUser(), episodes=INSTRUCTED)[0].turns[1],
        played(Replay(stored, RECOMMENDER), FixedUser())[0].turns[0],
        played(Replay(stored, RECOMMENDER), FixedUser(), episodes=INSTRUCTED, rules=Rules(questions=False))[0].turns[0],
    ):
        assert other.error == "no stored dialogue went this way"
    wants_more = dataclasses.replace(INSTRUCTED.tasks[0], instruction=Instruction((), INSTRUCTED.kinds))
    dialogue = Dialogue(wants_more, TOY.items)
    play([dialogue], ScriptedAgent(asks), Replay(stored, USER))
    assert dialogue.turns[0].answer.error == "no stored dialogue went this way"


# In games with an instruction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user", [agent for role, agent in AGENTS if role == USER], ids=lambda user: type(user).__name__
)
def test_users_without_a_wish_decline_to_answer(user: Agent) -> None:
    if isinstance(user, Replay):
        return
    asks = ScriptedAgent([{"ask": "genre", "message": ""}])
    for transcript in played(asks, user, episodes=INSTRUCTED, max_turns=2):
        assert transcript.turns[0].answered
        assert transcript.turns[0].answer.reveal is None
        assert transcript.turns[0].answer.message == "I would rather not say."


@pytest.mark.parametrize("recommender", [RandomRecommender(), GreedyRecommender(POPULARITY)])
def test_recommenders_do_not_repeat_themselves_where_that_is_forbidden(recommender: Agent) -> None:
    for seed in range(10):
        options: dict[str, Any] = {"seed": seed, "max_turns": 3, "rules": Rules(repeats="forbidden")}
        for transcript in played(recommender, FixedUser("dislike", 0.1), episodes=INSTRUCTED, **options):
            assert len({turn.proposal for turn in transcript.turns}) == 3
            assert all(turn.error is None for turn in transcript.turns)


def test_a_fixed_place_that_was_rejected_is_a_recorded_error_where_repeats_are_forbidden() -> None:
    (first, *_) = played(FixedRecommender(1), FixedUser("skip", 0.3), rules=Rules(repeats="forbidden"))
    assert [turn.error is None for turn in first.turns] == [True, False, False, False]
    assert first.turns[1].error == "'Heat (1995)' was rejected in an earlier turn, and repeats are forbidden"


# Scores ---------------------------------------------------------------------------------------------------------------


def test_items_are_counted_in_the_training_part() -> None:
    assert item_counts(TOY_SPLIT).tolist() == [1, 3, 1, 0, 3, 1]


def test_the_kernel_score_by_hand() -> None:
    # training: 0 4 | 1 4 | 2 5 1 | 4 1; counts 1 3 1 0 3 1, one more each
    near, far = kernel_scorer(TOY_SPLIT, window=1), kernel_scorer(TOY_SPLIT)
    items = np.arange(6)
    assert near(np.array([2]), items).tolist() == [0, 0, 0, 0, 0, 0.5]  # 5 right after 2
    assert far(np.array([2]), items).tolist() == pytest.approx([0, 1 / 8**0.5, 0, 0, 0, 0.5], abs=1e-6)
    # 1 after 4 and 1 after 5: 1 / sqrt(4 * 4) + 1 / sqrt(2 * 4)
    assert far(np.array([4, 5]), np.array([1])) == pytest.approx(1 / 4 + 1 / 8**0.5, abs=1e-6)
    assert near(np.array([2, 0]), items).tolist() == pytest.approx([0, 0, 0, 0, 1 / 8**0.5, 0], abs=1e-6)
    assert far(np.array([], np.int64), items).tolist() == [0] * 6


def test_a_kernel_of_sequences_of_one_item_knows_nothing(dataset_of: Callable[..., Any]) -> None:
    split = split_users(dataset_of((0, 1, 2), (3, 4, 5)), test=1.0)
    assert kernel_scorer(split)(np.array([0]), np.arange(6)).tolist() == [0] * 6


def test_the_svd_score_is_a_projection_by_hand() -> None:
    score = svd_scorer(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]))
    # taste of items 0 and 1 is (2, 1) of length sqrt 5
    found = score(np.array([0, 1]), np.array([0, 1, 2]))
    assert found.tolist() == pytest.approx([2 / 5**0.5, 3 / 5**0.5, 2 / 5**0.5], abs=5e-5)
    assert score(np.array([], np.int64), np.array([0, 1])).tolist() == [0, 0]


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: kernel_scorer(TOY_SPLIT, window=0), ConfigError, r"Expected window >= 1, found 0"),
        (lambda: OracleUser(TOY, flip=1.5), ConfigError, r"Expected 0 <= flip <= 1, found 1\.5"),
        (lambda: FixedRecommender(-1), ConfigError, r"Expected position >= 0, found -1"),
        (lambda: ScorerUser(POPULARITY, threshold=1.0, scale=0.0), ConfigError, r"Expected scale > 0, found 0\.0"),
        (lambda: ScorerUser.fit(POPULARITY, TOY, accept=1.0), ConfigError, r"Expected 0 < accept < 1, found 1\.0"),
        (lambda: ScorerUser.fit(POPULARITY, [], accept=0.5), TaskError, r"Expected at least one, found none"),
    ],
)
def test_partners_that_cannot_be_are_refused(build: Callable[[], Agent], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("position", [3, 99])
def test_a_place_that_the_list_lacks_is_a_wrong_set_up(position: int) -> None:
    dialogues = [Dialogue(task, TOY.items) for task in TOY]
    with pytest.raises(ConfigError, match=rf"Expected position <= 2 for 3 candidates, found {position}\. Lower it"):
        play(dialogues, FixedRecommender(position), FixedUser())


@pytest.mark.parametrize("scores", [None, "good", [1.0], [float("nan")] * 3])
def test_a_score_for_every_item_is_asked_for(scores: Any) -> None:
    def scorer(history: Any, items: Any) -> Any:
        return scores

    dialogues = [Dialogue(TOY.tasks[0], TOY.items)]
    with pytest.raises(TaskError, match=r"A scorer must score what it is asked for\. Expected 3 numbers"):
        play(dialogues, GreedyRecommender(scorer), FixedUser())
    with pytest.raises(TaskError, match="A scorer must score what it is asked for"):
        ScorerUser.fit(scorer, TOY, accept=0.5)


def test_directions_are_a_matrix() -> None:
    for directions in (3, np.zeros(6), None):
        with pytest.raises(ShapeError, match=r"Expected an array \[items, rank\], found"):
            svd_scorer(directions)  # type: ignore[arg-type]


def test_scorers_travel_to_other_processes() -> None:
    split = leave_last(toy_dataset())
    history, items = np.array([0, 4]), np.arange(6)
    for scorer in (popularity_scorer(split), kernel_scorer(split), svd_scorer(SvdPeers(split).directions)):
        assert np.array_equal(pickle.loads(pickle.dumps(scorer))(history, items), scorer(history, items))


def test_groups_are_replayed_user_by_user() -> None:
    env = make("synthetic", num_users=2, users=120, items=120, interactions=3000)
    episodes = env.episodes
    users = ScorerUser.fit(lambda history, items: (items * 7 + sum(history)) % 31 * 1.0, episodes, accept=0.3)
    some, items, provenance = episodes.tasks[:6], episodes.items, episodes.provenance
    stored = rollout(some, items, RandomRecommender(), users, provenance=provenance)
    assert len({turn.answers for one in stored for turn in one.turns if len(set(turn.answers)) > 1}) > 1
    again = rollout(some, items, Replay(stored, RECOMMENDER), Replay(stored, USER), provenance=provenance)
    assert again == stored
    other = rollout(some, items, FixedRecommender(0), Replay(stored, USER), provenance=provenance)
    wrong = [one for one, own in zip(other, stored, strict=True) if one.turns[0].proposal != own.turns[0].proposal]
    assert wrong
    assert {answer.error for one in wrong for answer in one.turns[0].answers} == {"no stored dialogue went this way"}
