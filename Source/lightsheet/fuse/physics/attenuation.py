"""How brightness falls off along each axis of a specimen, and from which side the light therefore comes.

All is told from the coarse picture of one view. Light that comes from one side is weaker the more tissue it
has met. So for each of the six sides a specimen's brightness is followed over the tissue between it and that
side; where it falls off most surely, the light comes from. A specimen may be unevenly bright by itself, by as
much as light falls off. What is measured is therefore weighed against what is usual.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import SIDES, Floats, Side, SpacingUm, axis_of
from lightsheet.core.errors import NoSpecimenError
from lightsheet.specimen.survey import Survey

Mask = NDArray[np.bool_]

# Tissue is what is brighter than this share of the bright parts, and what lies between such places.
_TISSUE, _BRIGHT = 0.15, 95.0
_DARKEST = 1.0
_SMOOTH_UM, _GAP_UM = 2.0, 10.0
_THICKEST = 98.0
_BINS = 16
_PERCENTILES = (50, 75, 90)
_DIM = 0.03
_FEWEST_CELLS, _FEWEST_BINS, _FEWEST_PLANES = 50, 4, 8
# Brightness of neighbouring bins is alike: so many of them are worth as many as are independent.
_INDEPENDENT = 6.0
_SPREAD = 0.05
# A specimen's own unevenness, and what is usual of light, in optical depths across a specimen.
_OWN = 0.5
_USUAL, _USUAL_SPREAD = 0.3, 0.35
_MOST = 2.0
# Odds of the sides, fitted to views of real stacks (benchmarks/fusion/light.py).
_OWN_OF_ODDS = 0.4
_BY_SIDE, _BY_AXIS, _SUREST = 1.26, 1.26, 3.0


@dataclass(frozen=True)
class FallOff:
    """How brightness falls off away from one side.

    Attributes
    ----------
    side : from where the light would come
    near : tissue between a cell and that side (cells along Z, Y, X), 1 for the thickest way through
    far : tissue between it and the side opposite
    slope, error : optical depth across the thickest tissue, and its standard error; may be negative
    r2 : share of the brightness's variance along the way that the slope tells
    curve : tissue met, logarithm of brightness (bins, 2)
    """

    side: Side
    near: Floats
    far: Floats
    slope: float
    error: float
    r2: float
    curve: NDArray[np.float64]

    @property
    def optical_depth(self) -> float:
        """What is most likely, given what is usual: from 0 to 2."""
        variance = self.error**2 + _OWN**2
        usual = _USUAL_SPREAD**2
        depth = (_USUAL * variance + self.slope * usual) / (variance + usual)
        return min(max(depth, 0.0), _MOST)

    @property
    def interval(self) -> tuple[float, float]:
        """Optical depths between which it lies with 95 percent, given what is usual."""
        spread = 1.96 / math.sqrt(1 / (self.error**2 + _OWN**2) + 1 / _USUAL_SPREAD**2)
        middle = self.optical_depth
        return max(0.0, middle - spread), middle + spread


def fall_offs(survey: Survey, spacing_um: SpacingUm, source: str) -> dict[Side, FallOff]:
    """Follow the brightness away from each side along which there are planes enough.

    Parameters
    ----------
    survey : coarse picture of the view
    spacing_um : voxel size (z, y, x)

    Raises
    ------
    NoSpecimenError
        When nothing stands out, or the volume is thin along all axes.
    """
    smooth = _smoothed(survey.means, [1 / block for block in survey.block_zyx])
    smooth -= np.percentile(smooth, _DARKEST)
    cell_um = [block * step for block, step in zip(survey.block_zyx, spacing_um, strict=True)]
    body = tissue(survey.means, cell_um)
    found: dict[Side, FallOff] = {}
    for side in SIDES:
        axis = axis_of(side)
        if body.shape[axis] < _FEWEST_PLANES:
            continue
        measured = _fall_off(smooth, body, side)
        if measured is not None:
            found[side] = measured
    if not found:
        raise NoSpecimenError(f"{source}: expected a specimen to follow the light through, got none")
    return found


def odds_of(found: Mapping[Side, FallOff]) -> dict[Side, float]:
    """Probability that the light comes from each of the sides."""
    scores = {}
    for side, one in found.items():
        surety = one.slope / math.hypot(one.error, _OWN_OF_ODDS)
        scores[side] = 2 * _BY_SIDE * math.tanh(surety / 2) + _BY_AXIS * min(abs(surety), _SUREST)
    top = max(scores.values())
    weights = {side: math.exp(score - top) for side, score in scores.items()}
    total = sum(weights.values())
    return {side: weight / total for side, weight in weights.items()}


def tissue(means: NDArray[Any], cell_um: list[float]) -> Mask:
    """Where tissue is: bright cells and what lies between them, up to gaps of 10 micrometres."""
    smooth = _smoothed(means, [_SMOOTH_UM / size for size in cell_um])
    smooth -= np.percentile(smooth, _DARKEST)
    bright = smooth > _TISSUE * np.percentile(smooth, _BRIGHT)
    reaches = [max(1, round(_GAP_UM / size / 2)) for size in cell_um]
    padded = np.pad(bright, [(reach, reach) for reach in reaches]).view(np.uint8)
    for axis, reach in enumerate(reaches):
        padded = ndimage.maximum_filter1d(padded, 2 * reach + 1, axis)
    for axis, reach in enumerate(reaches):
        padded = ndimage.minimum_filter1d(padded, 2 * reach + 1, axis)
    body: Mask = padded[tuple(slice(reach, -reach) for reach in reaches)].view(np.bool_)
    return body


def _smoothed(means: NDArray[Any], sigmas: list[float]) -> Floats:
    wide = means.astype(np.float64) - float(means.min())
    return np.asarray(ndimage.gaussian_filter(wide, [max(sigma, 0.0) for sigma in sigmas]), np.float32)


def _fall_off(smooth: Floats, body: Mask, side: Side) -> FallOff | None:
    axis = axis_of(side)
    met = body.astype(np.float32)
    along = met if side[0] == "-" else np.flip(met, axis)
    before = np.cumsum(along, axis=axis) - along / 2
    before = before if side[0] == "-" else np.flip(before, axis)
    whole = met.sum(axis=axis, keepdims=True)
    thickest = max(float(np.percentile(whole, _THICKEST)), 1.0)
    near, far = _scaled(before, thickest), _scaled(whole - before, thickest)
    places, weights, levels = _bins(smooth[body], near[body])
    if len(places) < _FEWEST_BINS:
        return None
    slope, error, r2 = _slope(places, weights, levels)
    curve = np.stack((places, np.log(np.maximum(levels[:, 1], 1e-30))), axis=1)
    return FallOff(side, near, far, slope, error, r2, curve)


def _scaled(path: NDArray[np.floating], thickest: float) -> Floats:
    return np.asarray(path / thickest, np.float32)


def _bins(
    values: Floats, near: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where the bins are, what they weigh, and percentiles of the brightness in each (bins, 3)."""
    numbers = np.minimum((near * _BINS).astype(np.int32), _BINS)
    places, weights, levels = [], [], []
    for number in range(_BINS):
        some = values[numbers == number]
        if some.size > _FEWEST_CELLS:
            places.append((number + 0.5) / _BINS)
            weights.append(math.sqrt(some.size))
            levels.append(np.percentile(some, _PERCENTILES))
    return np.array(places), np.array(weights), np.array(levels).reshape(-1, len(_PERCENTILES))


def _slope(
    places: NDArray[np.float64], weights: NDArray[np.float64], levels: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Mean slope of the logarithms of the percentiles, its standard error, and the share that it tells."""
    slopes, errors, shares = [], [], []
    for level in levels.T:
        lit = level > _DIM * level.max()
        if np.count_nonzero(lit) < _FEWEST_BINS:
            continue
        x, y, w = places[lit], np.log(level[lit]), weights[lit]
        line = np.polyfit(x, y, 1, w=w)
        left = np.average(np.square(y - np.polyval(line, x)), weights=w**2)
        reach = np.average(np.square(x - np.average(x, weights=w**2)), weights=w**2)
        all_of_it = np.average(np.square(y - np.average(y, weights=w**2)), weights=w**2)
        slopes.append(-float(line[0]))
        errors.append(float(left / max(reach, 1e-4) / _INDEPENDENT))
        shares.append(1 - float(left / max(all_of_it, 1e-12)))
    if not slopes:
        return 0.0, _MOST, 0.0
    trust = 1 / (np.array(errors) + _SPREAD)
    slope = float(np.average(slopes, weights=trust))
    error = math.sqrt(float(np.average(errors, weights=trust)) + float(np.var(slopes)))
    return slope, error, float(np.average(shares, weights=trust))
