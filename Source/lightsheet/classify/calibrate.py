"""Probabilities that come true: a temperature and an offset for each state, fitted to crops held out.

Networks trained on balanced draws say rare states too often, and all states too surely. Temperature scaling
(Guo et al., ICML 2017) mends the second, the offsets mend the first. Then they hold where states are as
frequent as in the crops held out; of all nuclei of a movie fewer divide, and how many they tell themselves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lightsheet.core.axes import Floats
from lightsheet.core.errors import ModelError

_TIE = 0.01
# Nuclei whose states are taken to be as frequent as in the crops held out, beside those that are there.
_BEFORE = 20.0
_ROUNDS = 100


@dataclass(frozen=True)
class Calibration:
    """Turns what a network says into probabilities.

    Attributes
    ----------
    temperature : what it says is divided by this
    offsets : added for each state
    """

    temperature: float
    offsets: tuple[float, ...]

    def probabilities(self, raw: Floats) -> NDArray[np.float64]:
        """(N, states) before the softmax to probabilities."""
        return np.asarray(softmax(raw / self.temperature + np.array(self.offsets), axis=1), np.float64)


def calibrated(raw: Floats, true: NDArray[np.integer]) -> Calibration:
    """Fit to crops that were not learnt from; offsets are held near 0 where there are few."""
    count = raw.shape[1]

    def loss(parameters: NDArray[np.float64]) -> float:
        told = log_softmax(raw / np.exp(parameters[0]) + parameters[1:], axis=1)
        return float(-told[np.arange(len(true)), true].mean() + _TIE * (parameters[1:] ** 2).mean())

    found = minimize(loss, np.zeros(count + 1), method="L-BFGS-B", bounds=[(-3, 3)] * (count + 1)).x
    return Calibration(float(np.exp(found[0])), tuple(float(value) for value in found[1:]))


def as_frequent_as_here(
    probabilities: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correct probabilities (N, states) for how frequent states are among these, all nuclei of time points.

    That is found by expectation and maximisation (Saerens et al., Neural Computation 2002).

    Parameters
    ----------
    shares : of the states among the crops by which the probabilities were calibrated
    """
    here, told = shares, probabilities
    for _ in range(_ROUNDS):
        told = probabilities * (here / shares)
        told = told / told.sum(axis=1, keepdims=True)
        here = (told.sum(axis=0) + _BEFORE * shares) / (len(told) + _BEFORE)
    return told


def shares_of(states: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """Return how frequent each of ``count`` states is; none is never."""
    counts = np.bincount(states, minlength=count) + 1.0
    return np.asarray(counts / counts.sum())


def known_shares(training: dict[str, object], count: int, source: str) -> NDArray[np.float64] | None:
    """Read how frequent states were among the crops that calibrated a model; None of one that does not say.

    Raises
    ------
    ModelError
        When they are no shares.
    """
    kept = training.get("calibrated_on")
    if kept is None:
        return None
    try:
        shares = np.array([float(value) for value in kept])  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if len(shares) != count or not (shares > 0).all() or not np.isclose(shares.sum(), 1):
        raise ModelError(f"{source}: expected the shares of {count} states, got {kept!r:.80}")
    return shares


def calibration_of(training: dict[str, object], count: int, source: str) -> Calibration:
    """Read the calibration of a model.

    Raises
    ------
    ModelError
        When it has none that can be.
    """
    kept = training.get("calibration")
    try:
        temperature, *offsets = (float(value) for value in kept)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        offsets, temperature = [], 0.0
    if len(offsets) != count or not temperature > 0 or not np.isfinite(offsets).all():
        raise ModelError(f"{source}: expected a temperature and {count} offsets, got {kept!r:.80}")
    return Calibration(temperature, tuple(offsets))
