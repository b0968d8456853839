"""Scores of states: F1 of each and their mean, confusion, and whether probabilities are what comes true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class StateScores:
    """Scores of the states of some cells.

    Attributes
    ----------
    f1 : of each state by its name; NaN where none is true or told
    macro_f1 : mean over the states that are there
    accuracy : share that is right
    confusion : (states, states) cells by true and told state
    """

    f1: Mapping[str, float]
    macro_f1: float
    accuracy: float
    confusion: NDArray[np.int64]


def state_scores(true: NDArray[np.integer], told: NDArray[np.integer], names: Sequence[str]) -> StateScores:
    """Compare told states with true ones.

    Parameters
    ----------
    true, told : indices into ``names`` (N,)
    """
    count = len(names)
    confusion = np.bincount(true * count + told, minlength=count * count).reshape(count, count)
    right = np.diag(confusion)
    all_of = confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        f1 = np.where(all_of > 0, 2 * right / np.maximum(all_of, 1), np.nan)
    there = confusion.sum(axis=1) > 0
    macro = float(np.mean(f1[there])) if there.any() else float("nan")
    return StateScores(
        dict(zip(names, f1.tolist(), strict=True)), macro, float(right.sum() / max(len(true), 1)), confusion
    )


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from what comes true.

    Attributes
    ----------
    error : expected calibration error (Guo et al., ICML 2017), by the probability of the told state
    certainty, right, count : of each bin: mean probability, share that was right, and cells
    """

    error: float
    certainty: NDArray[np.float64]
    right: NDArray[np.float64]
    count: NDArray[np.int64]


def reliability(
    probabilities: NDArray[np.floating], true: NDArray[np.integer], bins: int = BINS
) -> Reliability:
    """Compare probabilities (N, states) with true states (N,)."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == true
    place = np.minimum((sure * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    certainty = np.bincount(place, weights=sure, minlength=bins) / some
    share = np.bincount(place, weights=right, minlength=bins) / some
    error = float((count * np.abs(certainty - share)).sum() / max(len(true), 1))
    return Reliability(error, certainty, share, count)
