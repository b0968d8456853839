"""Gaussian process regression (Rasmussen and Williams 2006), for some hundred samples.

It tells a mean and a spread. Away from all samples the spread grows, as nothing is known there. Each feature
has a length scale of its own, long where it tells little (automatic relevance determination: Neal 1996).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize
from scipy.spatial import distance

from lightsheet.core.fields import AboveZero, strict

Numbers = NDArray[np.float64]

_LEAST_SPREAD = 1e-3
_JITTER = 1e-6
_LEAST_SQUARE = 1e-3
_PRIOR_SPREAD = 0.5


@strict
@dataclass(frozen=True)
class Process:
    """The numbers of a Gaussian process.

    Attributes
    ----------
    mean : far from all samples
    signal, noise : standard deviations of the function, and of single samples around it
    lengths : distance along each feature over which the function changes
    """

    mean: float
    signal: AboveZero
    noise: AboveZero
    lengths: tuple[AboveZero, ...]

    def at(self, places: Numbers, samples: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of new samples.

        Parameters
        ----------
        places : where to tell (m, features)
        samples, values : what is known: places (n, features) and their values (n)
        """
        factor = self._factor(samples)
        towards = self._covariances(places, samples)
        mean: Numbers = self.mean + towards @ linalg.cho_solve(factor, values - self.mean)
        known = (towards * linalg.cho_solve(factor, towards.T).T).sum(axis=1)
        return mean, np.sqrt(np.maximum(self.signal**2 - known, 0.0) + self.noise**2)

    def without_each(self, samples: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of each sample, told by the others (Sundararajan and Keerthi 2001)."""
        inverse = linalg.cho_solve(self._factor(samples), np.eye(len(values)))
        own = np.diag(inverse)
        mean: Numbers = values - inverse @ (values - self.mean) / own
        return mean, np.sqrt(1 / own)

    def surprise(self, samples: Numbers, values: Numbers) -> float:
        """Negative logarithm of the samples' probability, but for a constant."""
        factor = self._factor(samples)
        off = values - self.mean
        return float(0.5 * off @ linalg.cho_solve(factor, off) + np.log(np.diag(factor[0])).sum())

    def _covariances(self, first: Numbers, second: Numbers) -> Numbers:
        scaled, others = first / self.lengths, second / self.lengths
        covariances: Numbers = self.signal**2 * np.exp(-0.5 * distance.cdist(scaled, others, "sqeuclidean"))
        return covariances

    def _factor(self, samples: Numbers) -> tuple[Numbers, bool]:
        covariances = self._covariances(samples, samples)
        covariances[np.diag_indices_from(covariances)] += self.noise**2 + _JITTER * self.signal**2
        factor: tuple[Numbers, bool] = linalg.cho_factor(covariances, lower=True)
        return factor


def fit_process(samples: Numbers, values: Numbers) -> Process:
    """Return the process with the most probable numbers, given samples (n, features) and values (n)."""
    mean, spread = float(values.mean()), max(float(values.std()), _LEAST_SPREAD)
    features = samples.shape[1]
    usual = np.log([spread, spread / 2, *[2 * math.sqrt(features)] * features])

    def process(logs: Numbers) -> Process:
        signal, noise, *lengths = (float(value) for value in np.exp(logs))
        return Process(mean, signal, noise, tuple(lengths))

    def surprise(logs: Numbers) -> float:
        # log-normal priors keep in reason what few samples do not tell
        unusual = float((((logs - usual) / _PRIOR_SPREAD) ** 2).sum() / 2)
        return process(logs).surprise(samples, values) + unusual

    return process(optimize.minimize(surprise, usual, method="L-BFGS-B").x)


def fit_scatter(
    samples: Numbers, means: Numbers, spreads: Numbers, values: Numbers
) -> tuple[Process, Numbers]:
    """Fit how much larger than told the variance of values is at a place, as a logarithm.

    Parameters
    ----------
    samples : (n, features)
    means, spreads : what was told of each sample by the others (kinds, n)
    values : what came (kinds, n); all kinds share one scatter

    Returns
    -------
    The process, and its values at the samples (n); scaled so that the variance is right on average.
    """
    squares = ((values - means) / spreads) ** 2
    logs = np.log(np.maximum(squares, _LEAST_SQUARE)).mean(axis=0)
    process = fit_process(samples, logs)
    told, _ = process.without_each(samples, logs)
    level = float(np.log((squares / np.exp(told)).mean()))
    return replace(process, mean=process.mean + level), logs + level
