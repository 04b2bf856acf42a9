from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coars_env import (
    RECOMMENDER,
    ROLES,
    USER,
    ConfigError,
    Dialogue,
    Encoder,
    Facet,
    Instruction,
    Role,
    Rules,
    ShapeError,
    Split,
    SvdPeers,
    UserSequence,
    facet_vocabulary,
    item_features,
    leave_last,
)
from coars_env.testing import toy_dataset, toy_episodes, toy_instructed_episodes
from coars_env.views.acts import question_open

# Two features an item. Task toy-0: history 0 4, candidates 5 1 3, so the mean of the history is (1, 0) and the cosines
# of the candidates with it are .6, 0 and, for an item without features, 0.
BY_HAND = np.array([[1, 0], [0, 1], [-1, 0], [0, 0], [1, 0], [0.6, 0.8]], np.float32)
SUMMARY = [1, 0]
CANDIDATES = [0.6, 0.8, 0.6, 0, 1, 0, 0, 0, 0]
NONE = [0, 0, 0]


def encoder(max_turns: int = 2) -> Encoder:
    return Encoder(BY_HAND, num_candidates=3, max_turns=max_turns)


def dialogue(row: int = 0, max_turns: int = 2) -> Dialogue:
    episodes = toy_episodes()
    return Dialogue(episodes.tasks[row], episodes.items, max_turns=max_turns)


def seen(played: Dialogue, role: Role) -> list[float]:
    vector: list[float] = encoder(played.max_turns).encode([played.observe(role)], role)[0].round(4).tolist()
    return vector


# Items ----------------------------------------------------------------------------------------------------------------


def test_features_are_directions_of_length_one_and_popularity() -> None:
    features = item_features(leave_last(toy_dataset()))
    assert (features.shape, features.dtype) == ((6, 9), np.float32)
    # training interactions 1 3 1 0 3 1: log 2 / log 4 = .5
    assert features[:, -1].tolist() == [0.5, 1, 0.5, 0, 1, 0.5]
    assert np.linalg.norm(features[:, :-1], axis=1) == pytest.approx([1, 1, 1, 0, 1, 1], abs=1e-3)
    assert features[3].tolist() == [0] * 9
    assert np.array_equal(features, features.round(4))


def test_features_do_not_depend_on_the_signs_of_the_directions() -> None:
    split = leave_last(toy_dataset())
    directions = SvdPeers(split).directions
    turned = directions * np.array([-1, 1, -1])
    assert np.array_equal(item_features(split, directions=turned), item_features(split))


def test_features_know_the_training_part_only() -> None:
    split = leave_last(toy_dataset())
    others = tuple(UserSequence(s.user, (*s.items[:-1], 3)) for s in split.test)
    assert np.array_equal(item_features(replace(split, test=others, owned={})), item_features(split))


def test_features_of_a_split_without_training_part_are_zero() -> None:
    split = replace(leave_last(toy_dataset()), train=())
    assert not item_features(split, directions=np.zeros((6, 3))).any()


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (np.zeros(6), ShapeError, r"Items need features\. Expected an array \[items, features\], found shape \(6,\)"),
        (np.zeros((0, 4)), ShapeError, r"found shape \(0, 4\)"),
        (np.full((6, 2), 1.5), ConfigError, r"Expected entries in \[-1, 1\], found 1\.5\.\.1\.5\. Scale them"),
        (np.full((6, 2), np.nan), ConfigError, r"found nan\.\.nan"),
    ],
)
def test_features_that_cannot_be_are_refused(features: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Encoder(features, num_candidates=3, max_turns=4)


# Observations ---------------------------------------------------------------------------------------------------------


def test_the_first_observations_by_hand() -> None:
    nothing = [*NONE, *NONE, *[0] * 16]  # proposed before, current proposal, two turns of 3 + 4 + 1 entries
    assert seen(dialogue(), RECOMMENDER) == pytest.approx([*SUMMARY, *CANDIDATES, 0, 0, 0, *nothing])
    assert seen(dialogue(), USER) == pytest.approx([*SUMMARY, *[0] * 9, 1, 0, 0, *nothing])


def test_a_proposal_and_its_answer_by_hand() -> None:
    played, heat = dialogue(), [0, 1, 0]
    played.recommend(1, "")
    turns = [*heat, 0, 0, 0, 0, 0, *[0] * 8]
    assert seen(played, USER) == pytest.approx([*SUMMARY, *[0] * 9, 1, 1, 0, *NONE, *heat, *turns])
    assert seen(played, RECOMMENDER) == pytest.approx([*SUMMARY, *CANDIDATES, 0, 1, 0, *[0, 1, 0], *heat, *turns])
    played.reply(2, 0.65, "")
    turns = [*heat, 0, 0, 1, 0, 0.65, *[0] * 8]
    assert seen(played, RECOMMENDER) == pytest.approx([*SUMMARY, *CANDIDATES, 0, 0, 0.5, *[0, 1, 0], *NONE, *turns])
    played.recommend(0, "")
    fargo = [0.6, 0.8, 0.6]
    turns = [*heat, 0, 0, 1, 0, 0.65, *fargo, 0, 0, 0, 0, 0]
    assert seen(played, USER) == pytest.approx([*SUMMARY, *[0] * 9, 1, 1, 0.5, *NONE, *fargo, *turns])


def test_what_cannot_be_read_is_zero() -> None:
    played = dialogue()
    played.recommend(3, "")
    played.reply(4, None, "")
    assert seen(played, RECOMMENDER) == pytest.approx([*SUMMARY, *CANDIDATES, 0, 0, 0.5, *[0] * 22])


def test_nobody_sees_the_target_nor_the_user_the_list() -> None:
    for task in toy_episodes():
        for target in task.candidates:
            other = replace(task, target=target, candidates=task.candidates[::-1], peer_similarity=())
            first, second = (Dialogue(t, toy_episodes().items, max_turns=2) for t in (task, other))
            assert seen(first, USER) == seen(second, USER)
            assert seen(Dialogue(replace(task, target=target), toy_episodes().items, max_turns=2), RECOMMENDER) == seen(
                first, RECOMMENDER
            )


@given(st.data())
def test_many_dialogues_are_encoded_as_each_alone(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    wide = Encoder(rng.uniform(-1, 1, (6, data.draw(st.integers(1, 12)))), num_candidates=3, max_turns=4)
    played = [dialogue(row % 4, max_turns=4) for row in range(7)]
    for one in played:
        for _ in range(rng.integers(9)):
            if one.ending is None and one.speaker == RECOMMENDER:
                one.recommend(int(rng.integers(4)), "")
            elif one.ending is None:
                one.reply(int(rng.integers(5)), float(rng.random()), "")
    for role in ROLES:
        together = wide.encode([one.observe(role) for one in played], role)
        alone = [wide.encode([one.observe(role)], role)[0] for one in played]
        assert together.tobytes() == np.stack(alone).tobytes()
        assert all(wide.observation_space().contains(vector) for vector in together)


def test_the_static_part_can_be_made_beforehand_and_the_dynamic_part_written_in_place() -> None:
    code, episodes = encoder(), toy_episodes()
    history = np.array([[-1] * (10 - len(task.history)) + list(task.history) for task in episodes])
    candidates = np.array([task.candidates for task in episodes])
    table = code.static(history, candidates)  # [4, S]
    described = table[:, 2:].reshape(4, 3, 3)
    played = dialogue(2)
    played.recommend(1, "")
    played.reply(0, 0.1, "")
    played.recommend(2, "")
    buffer = np.full((1, code.size), 9, np.float32)
    buffer[:, : code.static_size] = table[2]
    returned = code.dynamic(
        0,
        speaker=np.array([1]),
        turn=np.array([1]),
        proposed=np.array([[False, True, True]]),
        turns=code.turns(described[2, [1, 2]][None], np.array([[0, -1]]), np.array([[0.1, -1]])),
        out=buffer[:, code.static_size :],
    )
    assert buffer.tobytes() == code.encode([played.observe(RECOMMENDER)], RECOMMENDER).tobytes()
    assert np.shares_memory(returned, buffer)


def test_an_encoder_refuses_another_game() -> None:
    with pytest.raises(ShapeError, match=r"Expected 3 candidates and 2 turns, found 3 and 4\. Make an Encoder"):
        encoder(max_turns=2).encode([dialogue(max_turns=4).observe(USER)], USER)


# Facets ---------------------------------------------------------------------------------------------------------------

# 13 facets: genres Action Comedy Crime Drama Horror Romance Sci-Fi Thriller, decades 1950s 1970s 1980s 1990s 2000s
ASKING = toy_instructed_episodes()
KINDS = ("genre", "decade")


def facet_encoder(max_turns: int = 4, num_candidates: int = 3) -> Encoder:
    return Encoder(BY_HAND, num_candidates=num_candidates, max_turns=max_turns, items=ASKING.items, kinds=ASKING.kinds)


def one_hot(*facets: str) -> list[float]:
    vocabulary = [facet.value for facet in facet_vocabulary(ASKING.items, KINDS)]
    assert set(facets) <= set(vocabulary)
    return [float(value in facets) for value in vocabulary]


def said_of_facets(played: Dialogue, role: Role) -> list[list[float]]:
    """Asked so far, asked now, shares of the three candidates, fits, wanted, revealed."""
    code = facet_encoder(played.max_turns)
    plain = encoder(played.max_turns)
    vector = code.encode([played.observe(role)], role)[0]
    assert code.observation_space().contains(vector)
    assert (code.static_size, code.dynamic_size) == (plain.static_size, plain.dynamic_size)
    assert len(vector) == code.size == plain.size + 2 + 2 + 6 + 2 + 13 + 13
    without = {key: value for key, value in played.observe(role).items() if key != "kinds"}
    assert np.array_equal(vector[: plain.size], plain.encode([without], role)[0])
    parts = np.split(vector[plain.size :].astype(float), np.cumsum([2, 2, 6, 2, 13]))
    return [part.round(4).tolist() for part in parts]


NOTHING: list[float] = [0, 0]
ALL_ZERO: list[float] = [0] * 6


def test_what_was_said_of_facets_by_hand() -> None:
    # toy-1: Alien (Horror, Sci-Fi, 1979), Amélie (Comedy, Romance, 2001), Brazil (Comedy, Sci-Fi, 1985); the user wants
    # a comedy of the 2000s
    played = Dialogue(ASKING.tasks[1], ASKING.items, max_turns=5)
    wanted = one_hot("Comedy", "2000s")
    assert said_of_facets(played, RECOMMENDER) == [NOTHING, NOTHING, ALL_ZERO, NOTHING, one_hot(), one_hot()]
    assert said_of_facets(played, USER) == [NOTHING, NOTHING, ALL_ZERO, NOTHING, wanted, one_hot()]
    played.ask("genre", "")
    for role, wants in ((RECOMMENDER, one_hot()), (USER, wanted)):
        assert said_of_facets(played, role) == [[1, 0], [1, 0], ALL_ZERO, NOTHING, wants, one_hot()]
    played.reply(0, None, "", reveal=Facet("genre", "Comedy"))
    known = [0, 0, 1, 0, 1, 0]  # genre and decade of each candidate
    assert said_of_facets(played, RECOMMENDER) == [[1, 0], NOTHING, known, NOTHING, one_hot(), one_hot("Comedy")]
    assert said_of_facets(played, USER) == [[1, 0], NOTHING, ALL_ZERO, NOTHING, wanted, one_hot("Comedy")]
    played.recommend(2, "")
    assert said_of_facets(played, USER)[3] == [1, 0]  # Brazil is a comedy, of the 1980s
    assert said_of_facets(played, RECOMMENDER)[3] == NOTHING
    played.reply(0, 0.1, "", reveal=Facet("genre", "Sci-Fi"))  # which is not true
    assert said_of_facets(played, RECOMMENDER)[2] == [0.5, 0, 0.5, 0, 1, 0]
    assert said_of_facets(played, USER)[3] == NOTHING
    played.ask("decade", "")
    assert said_of_facets(played, USER)[:2] == [[1, 1], [0, 1]]
    played.reply(0, None, "", reveal=Facet("decade", "2000s"))
    played.recommend(1, "")
    assert said_of_facets(played, USER)[3] == [1, 1]
    played.reply(0, 0.1, "", reveal=Facet("genre", "Comedy"))  # said before: it counts once
    revealed = one_hot("Comedy", "Sci-Fi", "2000s")
    shares = [0.5, 0, 0.5, 1, 1, 0]
    assert said_of_facets(played, RECOMMENDER) == [[1, 1], NOTHING, shares, NOTHING, one_hot(), revealed]


def test_a_user_that_wants_nothing_finds_nothing_fitting() -> None:
    played = Dialogue(ASKING.tasks[3], ASKING.items)
    played.recommend(0, "")
    assert said_of_facets(played, USER)[3:] == [NOTHING, one_hot(), one_hot()]


def test_a_share_of_several_wishes_of_a_kind() -> None:
    wish = Instruction((Facet("genre", "Comedy"), Facet("genre", "Romance")), KINDS)
    played = Dialogue(replace(ASKING.tasks[1], instruction=wish), ASKING.items)
    played.recommend(2, "")
    assert said_of_facets(played, USER)[3] == [0.5, 0]


def test_a_facet_that_no_item_has_is_not_encoded() -> None:
    western = Facet("genre", "Western")
    played = Dialogue(replace(ASKING.tasks[0], instruction=Instruction((western,), KINDS, 0.5)), ASKING.items)
    played.ask("genre", "")
    played.reply(0, None, "", reveal=western)
    assert said_of_facets(played, RECOMMENDER) == [[1, 0], NOTHING, ALL_ZERO, NOTHING, one_hot(), one_hot()]
    assert said_of_facets(played, USER)[4] == one_hot()


def test_the_recommender_sees_nothing_of_what_the_user_wants_in_numbers() -> None:
    wishes = [Instruction(facets, KINDS) for facets in ((), (Facet("genre", "Comedy"),))]
    played = [Dialogue(replace(ASKING.tasks[1], instruction=wish), ASKING.items) for wish in wishes]
    for one in played:
        one.recommend(1, "")
    seen = [facet_encoder().encode([one.observe(role)], role)[0].tobytes() for role in ROLES for one in played]
    assert seen[0] == seen[1]
    assert seen[2] != seen[3]


@given(st.integers(0, 2**32))
def test_many_dialogues_with_facets_are_encoded_as_each_alone(seed: int) -> None:
    rng, code = np.random.default_rng(seed), facet_encoder()
    played = [Dialogue(ASKING.tasks[row % 4], ASKING.items, rules=Rules(repeats="forbidden")) for row in range(6)]
    for one in played:
        for _ in range(rng.integers(9)):
            if one.ending is None:
                role, seen = one.speaker, one.observe(one.speaker)
                legal = np.flatnonzero(code.acts.mask_of(seen, role))
                one.act(code.acts.to_action(rng.choice(legal), role, question_open(seen, role)))
    for role in ROLES:
        together = code.encode([one.observe(role) for one in played], role)
        alone = [code.encode([one.observe(role)], role)[0] for one in played]
        assert together.tobytes() == np.stack(alone).tobytes()
        assert all(code.observation_space().contains(vector) for vector in together)


def test_an_encoder_of_facets_refuses_another_game() -> None:
    plain, asking = toy_episodes(), ASKING
    with pytest.raises(
        ShapeError, match=r"Expected kinds of facets \('genre', 'decade'\), found \(\)\. Make an Encoder"
    ):
        facet_encoder().encode([Dialogue(plain.tasks[0], plain.items).observe(USER)], USER)
    with pytest.raises(ShapeError, match=r"Expected kinds of facets \(\), found \('genre', 'decade'\)"):
        encoder(max_turns=4).encode([Dialogue(asking.tasks[0], asking.items).observe(USER)], USER)
    for items in ((), ASKING.items[:5]):
        with pytest.raises(ShapeError, match=rf"Every item needs features\. Expected {len(items)} rows, found 6"):
            Encoder(BY_HAND, num_candidates=3, max_turns=4, items=items, kinds=KINDS)


# On real data ---------------------------------------------------------------------------------------------------------


def test_real_features_are_bounded_and_tell_something(ml100k: Split) -> None:
    features = item_features(ml100k)
    assert features.shape == (1682, 9)
    assert np.abs(features).max() == 1
    trained = {item for sequence in ml100k.train for item in sequence.items}
    assert sorted(trained) == np.flatnonzero(features.any(1)).tolist()
