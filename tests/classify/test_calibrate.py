"""Probabilities hold where states are rarer than among the crops that calibrated them."""

import numpy as np
import pytest
from scipy.special import softmax

from lightsheet.classify.calibrate import as_frequent_as_here, known_shares, shares_of
from lightsheet.core.errors import ModelError
from lightsheet.evaluate.cells.states import reliability

LEARNT = np.array([0.25, 0.25, 0.4, 0.1])
THERE = np.array([0.02, 0.05, 0.92, 0.01])


def told(shares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """States as frequent as given, and what is right to say of them where they are as in `LEARNT`."""
    rng = np.random.default_rng(0)
    states = rng.choice(4, count, p=shares)
    seen = 1.3 * np.eye(4)[states] + rng.normal(size=(count, 4))
    return states, softmax(1.3 * seen + np.log(LEARNT), axis=1)


def test_states_that_are_rare_are_said_rarely() -> None:
    states, before = told(THERE, 4000)
    after = as_frequent_as_here(before, LEARNT)
    np.testing.assert_allclose(after.mean(axis=0), THERE, atol=0.015)
    assert reliability(before, states).error > 0.06
    assert reliability(after, states).error < 0.015
    wrong = [(some.argmax(axis=1) != states).mean() for some in (before, after)]
    assert wrong[1] < 0.4 * wrong[0]


def test_where_they_are_as_frequent_as_learnt_nothing_changes() -> None:
    states, before = told(LEARNT, 4000)
    after = as_frequent_as_here(before, LEARNT)
    assert np.abs(after - before).max() < 0.1
    np.testing.assert_allclose(after.mean(axis=0), np.bincount(states) / 4000, atol=0.025)


def test_few_nuclei_are_not_trusted_to_tell() -> None:
    _, before = told(LEARNT, 2)
    assert np.abs(as_frequent_as_here(before, LEARNT) - before).max() < 0.05


@pytest.mark.parametrize("kept", [[0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], "much", [1, 1, "a", 0]])
def test_shares_that_are_none_are_told(kept: object) -> None:
    with pytest.raises(ModelError, match="model: expected the shares of 4 states"):
        known_shares({"calibrated_on": kept}, 4, "model")
    assert known_shares({}, 4, "model") is None


def test_no_state_is_said_never() -> None:
    np.testing.assert_allclose(shares_of(np.array([0, 0, 2]), 4), [3 / 7, 1 / 7, 2 / 7, 1 / 7])
