"""What tissue looks like at full resolution: contrast, noise, sharpness, and whether it is blobs or walls.

Some planes of a volume are looked at, in a window around the specimen. Each is first made even: square root
(which evens out photon noise; Anscombe, Biometrika 1948), then less the local mean and over the local
deviation, so that neither decay nor bright spots decide.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import Floats
from lightsheet.core.intensity import Slabs
from lightsheet.specimen.foreground import Specimen
from lightsheet.specimen.survey import Survey

Mask = NDArray[np.bool_]
Features = dict[str, float]

_PLACES = 16
_WINDOW = 768
"""Voxels along Y and X of what is looked at of a plane."""
_REACH_UM = 6.0
_LAGS = 8
_PIXEL_UM = 0.7
"""Finer pixels are averaged before objects are looked for."""
_LOCAL_UM, _LOCAL_VOXELS = 10.0, 12.0
"""Neighbourhood by whose mean and deviation a plane is made even; in voxels where their size is not known."""
_LIMIT = 3.0
_BANDS = 8
_FINEST_UM = 1.0
_SEARCHED = slice(1, 7)
_DISC_OF_BLUR = 2 * math.sqrt(2)
_FEWEST_PIXELS = 500
_SLIGHTEST_BLUR = 0.7
_COUNTS = 1000.0
"""Range that real numbers are brought to at least, as the smallest deviations that count are fixed."""
_MOST_DOUBLINGS = 1000


@dataclass(frozen=True)
class _Plane:
    """A window of one plane, and the same window of planes above it by their distance in planes.

    Attributes
    ----------
    counts : (Y, X) above the background
    tissue, beside : (Y, X), where the specimen is, and where it is surely not
    """

    counts: Floats
    tissue: Mask
    beside: Mask
    above: dict[int, Floats]


@dataclass
class _Sum:
    """A mean that is fed piece by piece."""

    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[np.floating]) -> None:
        self.total += float(values.sum(dtype=np.float64))
        self.count += int(values.size)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass
class _Found:
    """What the planes have told so far."""

    noise: _Sum = field(default_factory=_Sum)
    unlike: tuple[dict[int, _Sum], ...] = field(default_factory=lambda: ({}, {}, {}))
    ratios: list[Floats] = field(default_factory=list)
    bands: list[_Sum] = field(default_factory=lambda: [_Sum() for _ in range(_BANDS)])
    even: list[tuple[Floats, Mask]] = field(default_factory=list)


def texture(volume: Slabs, survey: Survey, specimen: Specimen) -> Features:
    """Features of the tissue, as `specimen.measure.measure` lists them, as far as they can be measured.

    Parameters
    ----------
    volume : planes on demand
    survey, specimen : its coarse picture, and where the specimen is in it
    """
    factor = _to_counts(survey.normalization.range, np.dtype(volume.info.dtype))
    specimen = replace(specimen, smooth=specimen.smooth * factor, background=specimen.background * factor)
    spacing = volume.info.spacing_um
    step_z, step_y, step_x = spacing or (1.0, 1.0, 1.0)
    pixel = math.sqrt(step_y * step_x)
    binned = max(1, round(_PIXEL_UM / pixel)) if spacing else 1
    local = _LOCAL_UM / pixel if spacing else _LOCAL_VOXELS
    reaches = [_lags(step) for step in (step_z, step_y, step_x)]
    finest = max(_FINEST_UM / (pixel * binned), _SLIGHTEST_BLUR)
    blurs = [finest * 2 ** (k / 2) for k in range(_BANDS + 1)]
    found = _Found()
    for plane in _planes(volume, survey, specimen, reaches[0], factor):
        found.noise.add(_steps_beside(plane))
        mean, deviation = _surroundings(plane, local)
        shape = mean.shape
        root = np.sqrt(np.maximum(plane.counts, 0))[: shape[0], : shape[1]]
        tissue = plane.tissue[: shape[0], : shape[1]]
        found.ratios.append(np.asarray((root / mean)[tissue][::5] ** 2, np.float32))
        even = _even(root, mean, deviation)
        _add_across(found, even, tissue, reaches)
        for lag, counts in plane.above.items():
            other = _even(np.sqrt(np.maximum(counts, 0))[: shape[0], : shape[1]], mean, deviation)
            found.unlike[0].setdefault(lag, _Sum()).add(((other - even) ** 2)[tissue])
        _add_bands(found, *_averaged(np.where(tissue, even, 0), tissue, binned), blurs)
    return _features(found, specimen, (step_z, step_y, step_x) if spacing else None, blurs, pixel * binned)


def _features(
    found: _Found,
    specimen: Specimen,
    spacing: tuple[float, float, float] | None,
    blurs: list[float],
    pixel_um: float,
) -> Features:
    features: Features = {}
    typical = float(np.median(specimen.smooth[specimen.mask])) - specimen.background
    if found.noise.count >= _FEWEST_PIXELS and typical > 0:
        # the mean step between two voxels of Gaussian noise is 2 / root(pi) of its deviation
        features["noise"] = found.noise.mean * math.sqrt(math.pi) / 2 / typical
    ratios = np.concatenate(found.ratios) if found.ratios else np.zeros(0, np.float32)
    if ratios.size < _FEWEST_PIXELS:
        return features
    shade, contrast = np.percentile(ratios, (25, 95))
    features |= {"shade": float(shade), "contrast": float(contrast)}
    if spacing is not None:
        noise = _noise_step(found.unlike)
        for axis, step, unlike in zip("zyx", spacing, found.unlike, strict=True):
            features[f"sharpness_{axis}_um"] = _half_way(unlike, noise) * step
    energies = np.array([band.mean for band in found.bands])
    if not np.all(energies > 0):
        return features
    if spacing is not None:
        centre = float(energies @ np.log(np.array(blurs[:-1]) * 2**0.25) / energies.sum())
        features["object_um"] = _DISC_OF_BLUR * math.exp(centre) * pixel_um
    strongest = _SEARCHED.start + int(np.argmax(energies[_SEARCHED]))
    size = blurs[strongest] * 2**0.25
    for name, blur in (("blobs_fine", size / 2), ("blobs", size)):
        features[name] = _balance(found.even, max(blur, _SLIGHTEST_BLUR))
    return features


def _lags(step_um: float) -> list[int]:
    """Distances in voxels, ever wider, up to 6 micrometres or two voxels."""
    reach = max(2, math.ceil(_REACH_UM / step_um))
    return sorted({1, 2} | {round(lag) for lag in np.geomspace(1, reach, _LAGS)})


def _to_counts(size: float, dtype: np.dtype[Any]) -> float:
    """Power of two that brings small real numbers, of the range ``size``, to where camera counts are."""
    if dtype.kind != "f" or not 0 < size < _COUNTS:
        return 1.0
    return 2.0 ** min(_MOST_DOUBLINGS, math.ceil(math.log2(_COUNTS) - math.log2(size)))


def _planes(
    volume: Slabs, survey: Survey, specimen: Specimen, lags: list[int], factor: float
) -> Iterator[_Plane]:
    """Read planes evenly from the specimen's first to its last, in a window around the specimen."""
    block, (depth, *size) = survey.block_zyx, survey.shape_zyx
    near = specimen.mask.copy()
    for axis, step in enumerate(block):
        cells = 1 + 2 * max(1, round(max(block) / step))
        near = ndimage.maximum_filter1d(near.view(np.uint8), cells, axis).view(np.bool_)
    occupied = np.flatnonzero(specimen.mask.any(axis=(1, 2)))
    first, last = int(occupied[0]) * block[0], min(int(occupied[-1] + 1) * block[0], depth) - 1
    for z in np.unique(np.linspace(first, last, _PLACES + 2)[1:-1].astype(int)):
        cells = specimen.mask[z // block[0]]
        if not cells.any():
            continue
        window = []
        for axis, n in enumerate(size):
            middle = float(np.nonzero(cells)[axis].mean() + 0.5) * block[axis + 1]
            start = int(np.clip(middle - _WINDOW / 2, 0, max(0, n - _WINDOW)))
            window.append(np.arange(start, min(start + _WINDOW, n)))
        at = np.ix_(window[0] // block[1], window[1] // block[2])
        cut = slice(window[0][0], window[0][-1] + 1), slice(window[1][0], window[1][-1] + 1)

        counts: dict[int, Floats] = {}
        for begin, end in _together([0, *(lag for lag in lags if z + lag < depth)]):
            slab = volume.read(int(z) + begin, int(z) + end + 1)
            counts |= {
                lag: _above(slab[lag - begin][cut], specimen.background, factor)
                for lag in (0, *lags)
                if begin <= lag <= end
            }
        yield _Plane(counts.pop(0), cells[at], ~near[z // block[0]][at], counts)


def _together(planes: list[int]) -> list[tuple[int, int]]:
    """First and last of planes read at once: one too many costs less than a chunk that is read twice."""
    runs = [[planes[0], planes[0]]]
    for plane in planes[1:]:
        if plane - runs[-1][1] <= 2:
            runs[-1][1] = plane
        else:
            runs.append([plane, plane])
    return [(begin, end) for begin, end in runs]


def _above(counts: NDArray[Any], background: float, factor: float) -> Floats:
    """Take the background off; of large numbers before float32 would merge them."""
    wide = np.result_type(counts.dtype, np.float32)
    return np.asarray(counts.astype(wide) * wide.type(factor) - wide.type(background), np.float32)


def _steps_beside(plane: _Plane) -> Floats:
    """Give steps between neighbours beside the specimen, the largest hundredth cut (dirt, hot pixels)."""
    pairs = plane.beside[:, 1:] & plane.beside[:, :-1]
    steps = np.abs(np.diff(plane.counts, axis=1))[pairs]
    return np.minimum(steps, np.percentile(steps, 99)) if steps.size else steps


def _surroundings(plane: _Plane, local: float) -> tuple[Floats, Floats]:
    """Local mean and deviation of the tissue's root intensity, on a window of whole blocks."""
    step = max(1, min(round(local / 4), *plane.counts.shape))
    weights = _blocks(plane.tissue.astype(np.float32), step)
    root = np.sqrt(np.maximum(plane.counts, 0))
    smooth = [
        ndimage.gaussian_filter(_blocks(part, step), local / step, mode="constant")
        for part in (root * plane.tissue, root**2 * plane.tissue)
    ]
    share = np.maximum(ndimage.gaussian_filter(weights, local / step, mode="constant"), 1e-6)
    mean, square = smooth[0] / share, smooth[1] / share
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-6 * np.maximum(square, 1e-6)))
    height, width = weights.shape[0] * step, weights.shape[1] * step
    grown = [
        ndimage.zoom(part, step, order=1, grid_mode=True, mode="nearest") if step > 1 else part
        for part in (np.maximum(mean, 1e-3), np.maximum(deviation, 1e-3))
    ]
    return grown[0][:height, :width], grown[1][:height, :width]


def _blocks(values: Floats, step: int) -> Floats:
    """Mean of whole blocks of ``step`` by ``step`` pixels; what is left over at the ends is dropped."""
    height, width = (n // step for n in values.shape)
    whole = values[: height * step, : width * step].reshape(height, step, width, step)
    return np.asarray(whole.mean(axis=(1, 3)), np.float32)


def _even(root: Floats, mean: Floats, deviation: Floats) -> Floats:
    return np.asarray(np.clip((root - mean) / deviation, -_LIMIT, _LIMIT), np.float32)


def _averaged(even: Floats, tissue: Mask, step: int) -> tuple[Floats, Mask]:
    step = min(step, *even.shape)
    return _blocks(even, step), _blocks(tissue.astype(np.float32), step) > 0.5


def _add_across(found: _Found, even: Floats, tissue: Mask, reaches: list[list[int]]) -> None:
    """Squared differences between voxels of a plane, along Y and X."""
    for axis in (1, 2):
        values, inside = (even, tissue) if axis == 2 else (even.T, tissue.T)
        thin = max(1, values.shape[0] // 256)
        values, inside = values[::thin], inside[::thin]
        for lag in reaches[axis]:
            if lag < values.shape[1]:
                both = inside[:, lag:] & inside[:, :-lag]
                squares = (values[:, lag:] - values[:, :-lag])[both] ** 2
                found.unlike[axis].setdefault(lag, _Sum()).add(squares)


def _noise_step(unlike: tuple[dict[int, _Sum], ...]) -> float:
    """Part of the squared differences that noise makes.

    It is what is left at distance 0 of a line through the differences at 1 and 2 voxels: at sharp edges
    they grow with the distance, in smooth tissue with its square, for which the line leaves too little.
    """
    left = [2 * means[1].mean - means[2].mean for means in unlike[1:] if 1 in means and 2 in means]
    return max(0.0, min(left, default=0.0))


def _half_way(unlike: dict[int, _Sum], noise: float) -> float:
    """Distance in voxels at which the squared difference, less that of noise, is half of its end value."""
    lags = sorted(lag for lag, part in unlike.items() if part.count)
    if len(lags) < 2:
        return math.nan
    heights = np.array([0.0, *(max(0.0, unlike[lag].mean - noise) for lag in lags)])
    places = np.array([0.0, *lags])
    half = heights[-2:].max() / 2
    above = int(np.argmax(heights >= half))
    if half <= 0 or above == 0:
        return math.nan
    part = (half - heights[above - 1]) / (heights[above] - heights[above - 1])
    return float(places[above - 1] + part * (places[above] - places[above - 1]))


def _add_bands(found: _Found, even: Floats, tissue: Mask, blurs: list[float]) -> None:
    """Energy in bands of size: differences between neighbouring Gaussians."""
    found.even.append((even, tissue))
    wider, reached = even, 0.0
    for k, blur in enumerate(blurs):
        finer = wider
        wider = ndimage.gaussian_filter(finer, math.sqrt(blur**2 - reached**2), mode="nearest", truncate=3.0)
        reached = float(blur)
        if k:
            found.bands[k - 1].add((finer - wider)[tissue] ** 2)


def _balance(planes: list[tuple[Floats, Mask]], blur: float) -> float:
    """Logarithm of bright over dark blobs: pixels curved to both sides alike, weighed by their curvature.

    Nuclei are bright blobs in a dark net; membranes are a bright net around dark blobs. The weight is the
    root of the Hessian's determinant, which is positive in blobs only.
    """
    bright = dark = 0.0
    for even, tissue in planes:
        smooth = ndimage.gaussian_filter(even, blur, mode="nearest")
        slope_y, slope_x = np.gradient(smooth)
        yy, yx = np.gradient(slope_y)
        xx = np.gradient(slope_x, axis=1)
        round_ = np.sqrt(np.maximum(yy * xx - yx**2, 0))
        hill = (yy + xx < 0) & tissue
        bright += float(round_[hill].sum(dtype=np.float64))
        dark += float(round_[tissue & ~hill].sum(dtype=np.float64))
    return math.log(bright / dark) if bright > 0 and dark > 0 else math.nan
