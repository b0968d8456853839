"""Where the specimen is: foreground of a coarse picture, and the points its hull is put around."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import NoSpecimenError
from lightsheet.core.jit import compiled
from lightsheet.specimen.survey import Survey

_SMOOTHING_CELLS = 1.0
_HISTOGRAM_BINS = 256
# Fewer cells than this are noise rather than a specimen.
_FEWEST_CELLS = 8
_SHARE_OF_LARGEST = 0.1
# How far inside its border a specimen's brightness is looked up.
_EDGE_CELLS = 3


@dataclass(frozen=True)
class Specimen:
    """Foreground cells of a survey's coarse picture.

    Attributes
    ----------
    mask : bool (cells along Z, Y, X)
    smooth : real, the smoothed picture that was thresholded
    threshold : counts
    background : counts beside the specimen
    """

    mask: NDArray[np.bool_]
    smooth: NDArray[Any]
    threshold: float
    background: float


def find_specimen(survey: Survey, source: str) -> Specimen:
    """Threshold the smoothed picture and keep the largest connected part, without debris.

    The threshold is Otsu's on the square root of the intensity above the darkest cell: on plain intensities
    bright nuclei decide and the dim side of a specimen is lost; the root evens out photon noise (Anscombe,
    Biometrika 1948). Parts count as connected across gaps of a tenth of the volume, and parts of at
    least a tenth of the largest are kept beside it, so that a specimen of which only scattered nuclei are
    seen is not cut down to some of them.

    Raises
    ------
    NoSpecimenError
        When no specimen stands out.
    """
    smooth = ndimage.gaussian_filter(survey.means, _SMOOTHING_CELLS, mode="nearest")
    darkest = float(smooth.min())
    threshold = darkest + _otsu(np.sqrt(smooth - darkest)) ** 2
    bright = smooth > threshold
    opened = ndimage.binary_opening(bright)
    if 2 * np.count_nonzero(opened) >= np.count_nonzero(bright):
        bright = opened
    joined = bright
    for axis, cells in enumerate(bright.shape):
        joined = ndimage.maximum_filter1d(joined.view(np.uint8), 1 + 2 * (cells // 20), axis).view(np.bool_)
    labels, _ = ndimage.label(joined)
    labels[~bright] = 0
    sizes = np.bincount(labels.reshape(-1), minlength=2)
    sizes[0] = 0
    if sizes.max() < min(_FEWEST_CELLS, bright.size // 2):
        raise NoSpecimenError(
            f"{source}: expected a specimen brighter than its background, got none above noise"
        )
    kept = sizes >= max(1.0, _SHARE_OF_LARGEST * sizes.max())
    mask = kept[labels]
    background = float(np.median(smooth[~mask])) if not mask.all() else darkest
    return Specimen(mask, smooth, threshold, min(background, threshold))


def _otsu(values: NDArray[Any]) -> float:
    """Threshold that separates two classes best (N. Otsu, IEEE Trans. SMC 1979)."""
    top = float(values.max())
    table, edges = np.histogram(values, _HISTOGRAM_BINS, (0.0, top if top > 0 else 1.0))
    weights = table.astype(np.float64)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(weights)[:-1], np.cumsum(weights[::-1])[::-1][1:]
    moment = weights * centres
    mean_below = np.cumsum(moment)[:-1] / np.maximum(below, 1)
    mean_above = np.cumsum(moment[::-1])[::-1][1:] / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (mean_below - mean_above) ** 2)])


def surface_points(specimen: Specimen, survey: Survey, spacing_um: SpacingUm) -> NDArray[np.float64]:
    """Points (N, 3) in micrometres on the specimen's outside, for the hull.

    The surface is where the intensity is half way between the background and the brightest cell nearby,
    so that blur moves it neither in nor out. On every line of cells along Z, Y and X it is crossed for the
    first and the last time between two cells; linear interpolation tells where. Where the specimen touches
    the volume's border, the border itself is taken.
    """
    nearby = specimen.smooth
    for axis in range(3):
        nearby = ndimage.maximum_filter1d(nearby, 2 * _EDGE_CELLS + 1, axis)
    excess = specimen.smooth - np.maximum(specimen.threshold, (specimen.background + nearby) / 2)
    inside = specimen.mask & (excess >= 0)
    last = np.array(survey.shape_zyx) - 0.5
    found = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        lines = _crossings(
            np.ascontiguousarray(np.moveaxis(inside, axis, 2)),
            np.ascontiguousarray(np.moveaxis(excess, axis, 2)),
        )
        block = np.array(survey.block_zyx)[[*others, axis]]
        voxels = np.empty_like(lines)
        voxels[:, [*others, axis]] = lines * block + (block - 1) / 2
        found.append(voxels)
    points: NDArray[np.float64] = np.clip(np.concatenate(found), -0.5, last) * np.array(spacing_um)
    return points


@compiled()
def _crossings(inside: Any, excess: Any) -> Any:
    size = inside.shape[2]
    points = np.empty((2 * inside.shape[0] * inside.shape[1], 3), np.float64)
    n = 0
    for a in range(inside.shape[0]):
        for b in range(inside.shape[1]):
            first = 0
            while first < size and not inside[a, b, first]:
                first += 1
            if first == size:
                continue
            last = size - 1
            while not inside[a, b, last]:
                last -= 1
            points[n : n + 2, 0] = a
            points[n : n + 2, 1] = b
            points[n, 2] = first - _part(excess[a, b], first, -1)
            points[n + 1, 2] = last + _part(excess[a, b], last, 1)
            n += 2
    return points[:n]


@compiled()
def _part(excess: Any, inside: int, direction: int) -> Any:
    """How far beyond an inside cell the surface lies, in cells; half a cell where that can't be seen."""
    outside = inside + direction
    if outside < 0 or outside >= excess.size or excess[outside] >= 0:
        return 0.5
    return excess[inside] / (excess[inside] - excess[outside])
