"""What a network's maps say, and instances on a grid of other voxels than the network's."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Floats
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.parts import planes_of
from lightsheet.segment.targets import CLASS_WEIGHTS, CLASSES
from lightsheet.volumes.labels import Labels, label_type
from lightsheet.volumes.resampled import nearest_along, resampled_planes

SURE = 255
"""Probabilities are kept as bytes up to this."""
_SLAB = 1 << 24


def probability(maps: Floats) -> NDArray[np.uint8]:
    """Probability of each voxel to be of an object, up to `SURE`.

    The loss weighs the classes (`targets.CLASS_WEIGHTS`), and a network learns to say rare ones too often by
    as much; that is taken off, so that surfaces lie where they are.

    Parameters
    ----------
    maps : (4, Z, Y, X) background, edge, interior before the softmax, marker before the sigmoid
    """
    raw = maps[: len(CLASSES)] - np.log(np.array(CLASS_WEIGHTS, np.float32))[:, None, None, None]
    shares = np.exp(raw - raw.max(axis=0))
    return np.asarray(np.rint((1 - shares[0] / shares.sum(axis=0)) * SURE).astype(np.uint8))


def seeded(maps: Floats, settings: InstanceSettings) -> NDArray[np.bool_]:
    """Which voxels are of the seed of an object."""
    bar = np.log(settings.marker / (1 - settings.marker))
    return np.asarray(maps[len(CLASSES)] > bar)


def foreground_and_markers(
    maps: Floats, settings: InstanceSettings | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which voxels are of an object, and of the seed of one."""
    chosen = settings or InstanceSettings()
    return probability(maps) > chosen.foreground * SURE, seeded(maps, chosen)


def labels_on(
    labels: Labels,
    sure: NDArray[np.uint8],
    shape_zyx: ZYX,
    count: int,
    settings: InstanceSettings,
) -> Iterator[tuple[slice, Labels]]:
    """Yield instances on a finer or coarser grid, some planes at a time.

    A voxel is of an object where the interpolated probability says so: the surface falls between the voxels
    of the network's grid. Which object follows from the nearest voxel of that grid that is of one.

    Parameters
    ----------
    labels : instances (Z, Y, X) on the network's grid
    sure : probability of foreground on it, see `probability`
    shape_zyx : of the other grid, which has the same outer border
    count : number of instances
    """
    along = [places_along(old, new) for old, new in zip(labels.shape, shape_zyx, strict=True)]
    for planes in planes_of(shape_zyx, _SLAB):
        inside = resampled_planes(sure, shape_zyx, planes) > settings.foreground * SURE
        made = np.zeros(inside.shape, label_type(count))
        for corner in range(8):
            missing = inside & (made == 0)
            if not missing.any():
                break
            z, y, x = (along[axis][corner >> (2 - axis) & 1] for axis in range(3))
            told = labels[np.ix_(z[planes], y, x)]
            made[missing] = told[missing]
        yield planes, made


def places_along(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of ``new`` voxels along an axis the nearest old one, and the next nearest."""
    near = nearest_along(old, new)
    middles = (np.arange(new) + 0.5) * (old / new) - 0.5
    return near, np.clip(np.where(middles < near, near - 1, near + 1), 0, old - 1)
