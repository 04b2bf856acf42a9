import numpy as np
import pytest

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    Agent,
    ConfigError,
    Dialogue,
    FixedUser,
    RandomRecommender,
    play,
    rollout,
)
from coars_env.testing import check_agent, toy_episodes

TOY = toy_episodes()


@pytest.mark.parametrize(
    ("agent", "role"),
    [(RandomRecommender(), RECOMMENDER), (FixedUser(), USER), (FixedUser("skip", 0.3, "Nein, 否."), USER)],
)
def test_scripted_partners_keep_the_protocol(agent: Agent, role: str) -> None:
    assert role in ROLES
    check_agent(agent, role)  # type: ignore[arg-type]


def test_a_user_who_always_clicks_ends_every_episode_at_turn_one_with_all_misses_excluded() -> None:
    dialogues = [Dialogue(task, TOY.items) for task in TOY.tasks * 30]
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
