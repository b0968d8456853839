"""How large the objects of an image are, found out by the network that is to find them.

A network that learnt objects of one size in voxels is shown a part of the image on coarser and coarser grids.
Near the right one it is sure of what it finds, and finds it as large as before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.intensity import Normalization
from lightsheet.segment.instances import instances_of
from lightsheet.segment.maps import SURE
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.objects import ball_radius
from lightsheet.volumes.resampled import resampled_volume

Predicted = Callable[[LazyVolume, float], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""Of a volume whose objects have a radius: how sure voxels are of objects, and which are seeds."""

_RATIO = 1.35
# Side of the part that is looked at, in radii; what is looked at to find it, in voxels a side.
_SIDE_RADII, _COARSE = 10.0, 64
_FEWEST_VOXELS, _MOST_OF_FIELD = 2.0, 0.35
# Objects of a size within this factor fit.
_FITS = 1.6
# Radii agree that differ by less than this, natural logarithm.
_AGREE = 0.15
# Planes by which noise is judged; a normal standard deviation, of the median of its absolutes.
_PLANES, _OF_MEDIAN = 16, 1.4826


def find_radius_um(volume: LazyVolume, spacing_um: SpacingUm, voxels: float, predicted: Predicted) -> float:
    """Return the radius of the objects, micrometres.

    Parameters
    ----------
    volume : counts
    spacing_um : voxel size (z, y, x)
    voxels : radius that the network knows, in voxels
    predicted : the network
    """
    middle = brightest(volume)
    trials = [
        trial(part_around(volume, spacing_um, middle, radius), radius, voxels, predicted)
        for radius in radii(volume.shape_zyx, spacing_um)
    ]
    return agreed(trials)


def agreed(trials: Sequence[tuple[float, float]]) -> float:
    """Return the radius that most trials find, whatever radius they were told.

    Speckles and whole specimens are found as large as they are looked for; objects are not.

    Parameters
    ----------
    trials : how well the objects of each explain the image, and their radius
    """
    well, found = np.array(trials).T
    near = np.exp(-((np.log(found[:, None] / found[None]) / _AGREE) ** 2))
    best = int((near @ well).argmax())
    weights = near[best] * well
    return (
        float(np.exp((weights * np.log(found)).sum() / weights.sum())) if weights.sum() else float(found[0])
    )


def noise_in(volume: LazyVolume, scale: Normalization) -> float:
    """Return the noise of an image, in shares of its normalised range, by what a slight blur takes off.

    Parameters
    ----------
    volume : counts on the network's grid; its middle planes are looked at
    scale : how they are normalised
    """
    depth = volume.shape_zyx[0]
    first = max(0, depth // 2 - _PLANES // 2)
    seen = scale.apply(volume.read(first, min(depth, first + _PLANES)))
    taken_off = seen - ndimage.gaussian_filter(seen, 1.0)
    return float(_OF_MEDIAN * np.median(np.abs(taken_off)))


def radii(shape_zyx: ZYX, spacing_um: SpacingUm) -> Iterator[float]:
    """Radii that are tried: from few voxels to a part of the field."""
    radius = _FEWEST_VOXELS * min(spacing_um)
    field = min(shape_zyx[1] * spacing_um[1], shape_zyx[2] * spacing_um[2])
    while True:
        yield radius
        radius *= _RATIO
        if 2 * radius > _MOST_OF_FIELD * field:
            return


def brightest(volume: LazyVolume) -> tuple[float, float, float]:
    """Return the place, in shares of the sides, of the brightest surroundings."""
    z, y, x = (min(size, _COARSE) for size in volume.shape_zyx)
    coarse = resampled_volume(volume, (z, y, x)).read(0, z)
    smooth = ndimage.gaussian_filter(coarse, _COARSE / 8, mode="constant", cval=float(coarse.min()))
    at = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return (at[0] + 0.5) / z, (at[1] + 0.5) / y, (at[2] + 0.5) / x


def part_around(
    volume: LazyVolume, spacing_um: SpacingUm, middle: tuple[float, float, float], radius_um: float
) -> LazyVolume:
    """Cut out a part that holds some objects, moved inside where it would stick out."""
    box = []
    for size, step, at in zip(volume.shape_zyx, spacing_um, middle, strict=True):
        side = min(size, max(1, round(_SIDE_RADII * radius_um / step)))
        start = int(np.clip(round(at * size - side / 2), 0, size - side))
        box.append(slice(start, start + side))
    data = np.ascontiguousarray(volume.read(box[0].start, box[0].stop)[:, box[1], box[2]])
    z, y, x = data.shape
    return LazyVolume(replace(volume.info, shape_zyx=(z, y, x)), lambda first, last: data[first:last])


def trial(part: LazyVolume, radius_um: float, voxels: float, predicted: Predicted) -> tuple[float, float]:
    """Return how well objects of a radius explain a part of the image, and the radius of those found."""
    sure, markers = predicted(part, radius_um)
    labels = instances_of(sure > SURE / 2, markers, (1.0, 1.0, 1.0))
    sizes = np.bincount(labels.ravel())[1:]
    found = ball_radius(sizes) / voxels
    fitting = (found > 1 / _FITS) & (found < _FITS)
    if not fitting.any():
        return 0.0, radius_um
    certain = 2 * float(np.abs(sure.astype(np.float32) / SURE - 0.5).mean())
    share = float(sizes[fitting].sum() / sizes.sum())
    return share * certain, radius_um * float(np.median(found[fitting]))
