"""How far to trust a model on a view: the result is view + gate x (prediction - view), or the view itself.

The score of the challenge is relative to the view, so that keeping the view scores 0, and a single bad result
costs more than many good ones gain. With L = log(1 - N_SSIM), a copy of the view has L = 0, and a result is
the better the lower L is. For each of some gates and each reading of the challenge's SSIM, a Gaussian process
fitted to held-out volumes (`fuse.guard.calibrate`) tells mean and spread of L from the evidence
(`fuse.guard.evidence`). Some kinds of views scatter more than others; a further process tells by how much
(most likely heteroscedastic Gaussian process: Kersting et al., ICML 2007). With L normally distributed, the
expected N_SSIM is 1 - exp(mean + spread^2 / 2): an unsure guess counts less than a sure one. The gate with
the largest expectation, over the readings, is taken of those with which a loss is not too likely in any of
them. If there is none, the result is the physics step (`fuse.physics`), which needs no training and does
little where it can tell little. So it is of a view that is unlike all held-out ones, in any feature or in all
together, of which nothing is known. Where the step was judged on the held-out volumes as well, a model has to
promise more than the step does.

With some of the gates corrections are weighted by their size as well: sizes that were less right in held-out
volumes than others are applied in part (difference weighting: Wodzinski and Mueller, 2025). Where a part of
the view remains, most gates smooth it slightly, since its noise is none of the fused volume's; a view with
next to no noise is better left sharp.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy import ndimage, special
from scipy.spatial import distance

from lightsheet.core.axes import Floats
from lightsheet.core.errors import one_line
from lightsheet.core.fields import Share, array_field, object_of, strict
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.core.jit import compiled
from lightsheet.core.progress import LOG
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.guard.gain_map import GainTable
from lightsheet.fuse.guard.gaussian_process import Numbers, Process
from lightsheet.models.folder import ModelFolder, once_per_folder

GUARD = "guard.json"
FORMAT_VERSION = 4
RISK = 0.3
"""Largest probability of a loss, as the guard reckons it, with which a prediction is used."""
RISK_BESIDE_STEP, LEAST_MORE = 0.15, 0.1
"""The same where the physics step was judged as well, and how much more N_SSIM the model has to promise."""
BEYOND = 0.4
"""How far a feature may lie beyond those of all held-out views, in standard deviations of theirs."""
_TRUNCATE = 4.0
# Of guard.json, what says whose it is; the rest is the guard.
_HEAD = ("format_version", "weights_sha256")
# A guard compares all samples with each other.
_MOST_SAMPLES, _MOST_GATES = 5000, 200


@strict
@dataclass(frozen=True)
class Gate:
    """How much of a correction is applied.

    Attributes
    ----------
    share : of every correction; with 0 the result is the view, voxel by voxel
    by_size : how far corrections are weighted by their size as well, 0 (not) to 1
    sigma : of the Gaussian that smooths what remains of the view, voxels
    physics : the physics step in place of the model; the share is 0
    """

    share: Share
    by_size: Share = 0.0
    sigma: Annotated[float, Field(ge=0, le=10)] = 0.0
    physics: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the guard says of a model on a view.

    Attributes
    ----------
    gate : the best one
    expected : N_SSIM expected with this gate, in the order of `READINGS`; of a view that is kept, with the
        best gate there was
    risk : probability of a loss with it, in the reading in which that is more likely
    unlike : features by which the view is unlike all that the guard was fitted to
    """

    gate: Gate
    expected: tuple[float, ...]
    risk: float
    unlike: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """N_SSIM that is expected in the mean of the readings."""
        return sum(self.expected) / len(self.expected)

    def record(self) -> dict[str, Any]:
        """Write the verdict for a result's provenance."""
        return {
            "gate": self.gate.share,
            "by_size": self.gate.by_size,
            "sigma": self.gate.sigma,
            "physics": self.gate.physics,
            "expected": by_reading(self.expected),
            "risk": round(self.risk, 4),
            "unlike": list(self.unlike),
        }

    def __str__(self) -> str:
        """In words."""
        numbers = ", ".join(f"{n:+.2f} ({r})" for n, r in zip(self.expected, READINGS, strict=True))
        told = f"N_SSIM {numbers} expected, a loss with a probability of {self.risk:.0%}"
        if self.unlike:
            by = ", ".join(self.unlike)
            return f"no gain expected: the view is unlike all that the guard was fitted to, by {by}"
        if self.gate.physics:
            return f"the physics step is taken, of which the model does not promise enough more: {told}"
        if self.gate.share == 0:
            return f"no gain expected, the best to be had is: {told}"
        weighted = ", weighted by size" if self.gate.by_size else ""
        return f"{self.gate.share:.0%} of the correction is applied{weighted}: {told}"


@strict
@dataclass(frozen=True)
class Guard:
    """The guard of a model.

    Attributes
    ----------
    features : names, in the order of the columns of ``samples``
    centre, spread : of the features over the samples
    samples : held-out volumes (n, features), standardised
    gates : what was tried
    values : L of each sample for each gate (readings, gates, n)
    processes : one for each of these, reading by reading
    scatters : for each reading the process of the logarithm of how much larger than usual the variance is
    scattered : its values (readings, n)
    corrections, shares : sizes of a correction (normalised intensity), ascending, and the share to apply of
        them where they are weighted by size
    gains : where in a volume a gain is to be expected; None in files of earlier versions
    """

    features: tuple[str, ...]
    centre: Annotated[Numbers, array_field(1, np.float64)]
    spread: Annotated[Numbers, array_field(1, np.float64)]
    samples: Annotated[Numbers, array_field(2, np.float64)]
    gates: tuple[Gate, ...]
    values: Annotated[Numbers, array_field(3, np.float64)]
    processes: tuple[tuple[Process, ...], ...]
    scatters: tuple[Process, ...]
    scattered: Annotated[Numbers, array_field(2, np.float64)]
    corrections: Annotated[Floats, array_field(1, np.float32)]
    shares: Annotated[Floats, array_field(1, np.float32)]
    gains: GainTable | None = None

    def judge(self, features: Mapping[str, float]) -> Verdict:
        """Choose the gate for a view by what was measured of it."""
        place = (np.array([features[name] for name in self.features]) - self.centre) / self.spread
        means, spreads = self.told(lambda process, values: process.at(place[None], self.samples, values))
        return choose_gate(self.gates, means[..., 0], spreads[..., 0], self.unlike(place, self.samples))

    def unlike(self, place: Numbers, samples: Numbers) -> tuple[str, ...]:
        """Features by which a view (standardised) is unlike all samples (n, features).

        Each feature for itself, then all together: a view is unlike that is farther from the nearest sample
        than any sample is from its nearest (distance-based outliers: Ramaswamy et al., SIGMOD 2000). Of such
        a view the feature is told that takes it farthest.
        """
        off = np.maximum(samples.min(axis=0) - place, place - samples.max(axis=0))
        found = tuple(name for name, one in zip(self.features, off, strict=True) if one > BEYOND)
        if found or not self.features:
            return found
        (apart,), between = distance.cdist(place[None], samples), distance.cdist(samples, samples)
        np.fill_diagonal(between, np.inf)
        if apart.min() <= between.min(axis=0).max():
            return ()
        return (self.features[int(np.argmax(np.abs(place - samples[np.argmin(apart)])))],)

    def told(self, ask: Callable[[Process, Numbers], tuple[Numbers, Numbers]]) -> Numbers:
        """Ask all processes, given their values, for means and spreads of L: (2, readings, gates, n)."""
        rows = zip(self.processes, self.values, strict=True)
        told = np.array([[ask(*one) for one in zip(*row, strict=True)] for row in rows])
        means, spreads = np.moveaxis(told, 2, 0)
        more = np.array([ask(*one)[0] for one in zip(self.scatters, self.scattered, strict=True)])
        return np.stack([means, spreads * np.exp(more / 2)[:, None]])

    def apply(self, view: Floats, prediction: Floats, gate: Gate) -> Floats:
        """Return the result of view and prediction, contiguous and of one shape, normalised intensities."""
        return mix(smoothed(view, gate.sigma), prediction, gate, self.corrections, self.shares)

    def as_json(self, folder: ModelFolder) -> dict[str, Any]:
        """Content of guard.json."""
        return {
            "format_version": FORMAT_VERSION,
            "weights_sha256": folder.settings.weights_sha256,
            "features": list(self.features),
            "centre": _listed(self.centre),
            "spread": _listed(self.spread),
            "samples": _listed(self.samples),
            "gates": [vars(gate) for gate in self.gates],
            "values": _listed(self.values),
            "processes": [[vars(process) for process in row] for row in self.processes],
            "scatters": [vars(process) for process in self.scatters],
            "scattered": _listed(self.scattered),
            "corrections": _listed(self.corrections),
            "shares": _listed(self.shares),
            "gains": None if self.gains is None else self.gains.as_json(),
        }


def choose_gate(
    gates: Sequence[Gate], means: Numbers, spreads: Numbers, unlike: tuple[str, ...] = ()
) -> Verdict:
    """Choose the gate by mean and spread of L for each (readings, gates); no share for an unlike view."""
    expected = 1 - np.exp(means + spreads**2 / 2)
    risks = special.ndtr(means / spreads).max(axis=0)
    found = [
        Verdict(gate, tuple(map(float, gains)), float(risk), unlike)
        for gate, gains, risk in zip(gates, expected.T, risks, strict=True)
    ]
    step = next((one for one in found if one.gate.physics), None)
    most_risk, least = (RISK, -np.inf) if step is None else (RISK_BESIDE_STEP, max(step.mean, 0) + LEAST_MORE)
    allowed = [
        one
        for one in found
        if one.gate.share and one.risk <= most_risk and min(one.expected) > 0 and one.mean >= least
    ]
    if allowed and not unlike:
        return max(allowed, key=lambda one: (one.mean, one.gate.share))
    if step is not None:
        return step
    best = max(found, key=lambda one: one.mean)
    return Verdict(Gate(0.0), best.expected, best.risk, unlike)


def mean_gate(gates: Sequence[Gate]) -> Gate:
    """Gate for the mean of several models."""
    share, sigma = (sum(values) for values in zip(*((g.share, g.sigma) for g in gates), strict=True))
    by_size = sum(gate.share * gate.by_size for gate in gates) / share if share else 0.0
    physics = not share and all(gate.physics for gate in gates)
    return Gate(share / len(gates), by_size, sigma / len(gates), physics)


@once_per_folder
def guard_of(folder: ModelFolder) -> Guard | None:
    """Guard of a model folder; None where it has none, or one that was made for other weights or is damaged.

    The latter is told: a prediction must not fail by it.
    """
    content = folder.sides.get(GUARD)
    if content is None:
        return None
    try:
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version {content.get('format_version')}")
        if content.get("weights_sha256") != folder.settings.weights_sha256:
            raise ValueError("it was made for other weights")
        guard = object_of(Guard, {name: value for name, value in content.items() if name not in _HEAD})
        _check(guard)
    except ValueError as error:
        LOG.warning(
            "%s: guard.json can't be used (%s); predictions are taken as they are",
            folder.path,
            one_line(str(error)),
        )
        return None
    return guard


@dataclass(frozen=True)
class Trust:
    """How far a prediction of a view is to be trusted.

    Attributes
    ----------
    guard : whose shares by size are applied
    gate : how much of the correction
    expected : N_SSIM that is expected of the result, in the order of `READINGS`; 0 of a view that is kept
    confidence : whether the map of predicted gains is wanted
    """

    guard: Guard
    gate: Gate
    expected: tuple[float, ...] = (0.0,) * len(READINGS)
    confidence: bool = False


def guarded(
    planes: Iterator[Floats], volume: Slabs, normalization: Normalization, trust: Trust, first: int = 0
) -> Iterator[tuple[Floats, Floats | None]]:
    """Yield planes of the result and its predicted gain for those of the prediction, from ``first`` on."""
    for some in planes:
        prediction = np.ascontiguousarray(some)
        last = first + len(prediction)
        gain = None
        if trust.confidence and trust.guard.gains is not None:
            view = normalization.apply(volume.read(first, last))
            gain = trust.guard.gains.at(view, prediction, trust.gate.share)
        base = _smoothed_planes(volume, normalization, trust.gate.sigma, first, last)
        yield mix(base, prediction, trust.gate, trust.guard.corrections, trust.guard.shares), gain
        first = last


def smoothed(view: Floats, sigma: float) -> Floats:
    """View (Z, Y, X) blurred by a Gaussian, sigma in voxels."""
    if sigma == 0:
        return view
    blurred: Floats = ndimage.gaussian_filter(view, sigma, mode="nearest", truncate=_TRUNCATE)
    return blurred


def _smoothed_planes(
    volume: Slabs, normalization: Normalization, sigma: float, first: int, last: int
) -> Floats:
    """Planes ``first`` to before ``last`` of the whole view smoothed, as normalised intensity."""
    reach = int(_TRUNCATE * sigma + 0.5)
    start, stop = max(0, first - reach), min(volume.info.shape_zyx[0], last + reach)
    planes = smoothed(normalization.apply(volume.read(start, stop)), sigma)
    return np.ascontiguousarray(planes[first - start : last - start])


def _check(guard: Guard) -> None:
    """Refuse parts that do not fit together."""
    columns, (readings, rows, number) = len(guard.features), guard.values.shape
    if not 0 < number <= _MOST_SAMPLES or rows > _MOST_GATES:
        raise ValueError(f"{number} samples of {rows} gates")
    if guard.samples.shape != (number, columns) or not guard.centre.shape == guard.spread.shape == (columns,):
        raise ValueError(f"samples of {columns} features expected, got {guard.samples.shape}")
    if not rows == len(guard.gates) > 0:
        raise ValueError(f"{len(guard.gates)} gates, but {rows} rows of values")
    lengths = {len(process.lengths) for row in (*guard.processes, guard.scatters) for process in row}
    if lengths - {columns}:
        raise ValueError(f"lengths of {columns} features expected, got {lengths}")
    if readings != len(READINGS) or [len(row) for row in guard.processes] != [rows] * readings:
        raise ValueError(f"values of {readings} readings, and processes of {len(guard.processes)}")
    if guard.scattered.shape != (readings, number) or len(guard.scatters) != readings:
        raise ValueError(f"scatter of {readings} readings and {number} samples expected")
    if guard.corrections.shape != guard.shares.shape or not len(guard.shares):
        raise ValueError("corrections and shares differ in number")
    if (guard.spread <= 0).any():
        raise ValueError("spreads above 0 expected")


def by_reading(scores: Sequence[float]) -> dict[str, float]:
    """Name scores by their reading, for files."""
    return {name: round(score, 4) for name, score in zip(READINGS, scores, strict=True)}


def _listed(values: Numbers | Floats) -> Any:
    return np.round(values.astype(np.float64), 6).tolist()


def mix(base: Floats, prediction: Floats, gate: Gate, corrections: Floats, shares: Floats) -> Floats:
    """Return base + gate x share(size of the correction) x correction.

    The base is the view, smoothed where the gate says so; shares are interpolated between sizes.
    """
    result = np.empty_like(prediction)
    applied = 1 + np.float32(gate.by_size) * (shares - 1)
    _mix(base.ravel(), prediction.ravel(), gate.share, corrections, applied, result.ravel())
    return result


@compiled()
def _mix(view: Any, prediction: Any, gate: float, corrections: Any, shares: Any, result: Any) -> None:
    last = len(corrections) - 1
    for i in range(view.size):
        correction = prediction[i] - view[i]
        size = abs(correction)
        k = 0
        while k <= last and corrections[k] < size:
            k += 1
        if k == 0:
            share = shares[0]
        elif k > last:
            share = shares[last]
        else:
            part = (size - corrections[k - 1]) / (corrections[k] - corrections[k - 1])
            share = shares[k - 1] + part * (shares[k] - shares[k - 1])
        result[i] = view[i] + np.float32(gate) * share * correction
