"""What answers tell, by hand: four candidates, two of them comedies, a prior that prefers none."""

import numpy as np
import pytest

from coars_env import ConfigError, TaskError, turn_information
from coars_env.evaluation.information import beliefs
from turns import COMEDY, FILMS, NINETIES, WAR, WISH, asking, told, turn_of


def flat(history: np.ndarray, items: np.ndarray) -> np.ndarray:
    return np.zeros(len(items))


def test_a_true_facet_narrows_the_belief_and_speaks_for_the_target() -> None:
    transcript = told([asking("genre", reveal=COMEDY), asking("genre", reveal=COMEDY), turn_of(1, "", 3, 0.9, "")])
    believed = beliefs(transcript, FILMS, flat)
    # .9 for the two comedies, .1 for the others, then a click on the first: .9 of .45 against .1 of .45, .05 and .05
    np.testing.assert_allclose(believed[0], 0.25)
    np.testing.assert_allclose(believed[1], [0.45, 0.45, 0.05, 0.05])
    np.testing.assert_array_equal(believed[2], believed[1])  # said twice
    np.testing.assert_allclose(believed[3], np.array([0.405, 0.045, 0.005, 0.005]) / 0.46)
    bits, truth = turn_information(transcript, FILMS, flat)
    entropy = 2 * 0.45 * np.log2(1 / 0.45) + 2 * 0.05 * np.log2(20)
    np.testing.assert_allclose(bits[:2], [2 - entropy, 0], atol=1e-12)
    np.testing.assert_allclose(truth[:2], [np.log2(0.45 / 0.25), 0], atol=1e-12)


def test_a_lie_narrows_the_belief_and_speaks_against_the_target() -> None:
    bits, truth = turn_information(told([asking("genre", reveal=WAR)]), FILMS, flat)
    assert bits[0] > 0
    assert truth[0] == pytest.approx(np.log2((0.1 / 1.2) / 0.25))  # .9 for one of four, .1 for three


def test_a_rejection_with_a_facet_tells_both_and_what_cannot_be_read_nothing() -> None:
    transcript = told(
        [turn_of(3, "", 0, 0.1, "no", reveal=NINETIES), turn_of(1, "", None, None, "", None, "no action")]
    )
    believed = beliefs(transcript, FILMS, flat)
    # items 1 and 3 are of the nineties; item 3 was rejected: .9 x .9, .1 x .9, .9 x .1, .1 x .9
    np.testing.assert_allclose(believed[1], np.array([0.81, 0.09, 0.09, 0.09]) / 1.08)
    np.testing.assert_array_equal(believed[2], believed[1])


def test_the_prior_is_the_softmax_of_the_standardised_scores() -> None:
    believed = beliefs(told([]), FILMS, lambda history, items: np.array([3.0, 1.0, 1.0, 1.0]))
    z = np.array([3, 1, 1, 1] - np.float64(1.5)) / np.sqrt(0.75)
    np.testing.assert_allclose(believed, [np.exp(z) / np.exp(z).sum()])


def test_a_target_that_is_no_candidate_has_no_truth() -> None:
    task = type(WISH)("wish", 0, (0,), (2, 3, 4), 1, retrieved=True, instruction=WISH.instruction)
    bits, truth = turn_information(told([asking("genre", reveal=COMEDY)], task=task), FILMS, flat)
    assert bits[0] > 0
    assert np.isnan(truth).all()


def test_what_cannot_be_is_refused() -> None:
    for noise in (0.0, 0.6, np.nan):
        with pytest.raises(ConfigError, match=r"noise must be above 0 and at most \.5, got"):
            turn_information(told([]), FILMS, flat, noise=noise)
    with pytest.raises(TaskError, match="A scorer must score what it is asked for"):
        turn_information(told([]), FILMS, lambda history, items: np.zeros(1))
