"""Objects of label images: centre, size and box of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.volumes.labels import Labels

Integers = NDArray[np.int64]
Places = NDArray[np.float64]

# Above this labels are numbered anew first: sums are kept for each number up to the highest.
_HIGHEST_DENSE = 1 << 22


def ball_radius(volumes: Any) -> Places:
    """Radius of a ball of each volume, in the same unit of length."""
    return np.asarray(np.cbrt(np.asarray(volumes, np.float64) * 3 / (4 * np.pi)))


def disc_radius(areas: Any) -> Places:
    """Radius of a disc of each area, in the same unit of length."""
    return np.asarray(np.sqrt(np.asarray(areas, np.float64) / np.pi))


@dataclass(frozen=True)
class Objects:
    """Objects of one mask.

    Attributes
    ----------
    labels : of each (N,)
    centres : (N, 3) voxels z, y, x
    voxels : of each (N,)
    """

    labels: Integers
    centres: Places
    voxels: Integers


def objects_of(mask: Labels) -> Objects:
    """Find centre and size of each object of a mask (Z, Y, X)."""
    numbers = None
    if int(mask.max(initial=0)) > _HIGHEST_DENSE:
        numbers = np.unique(np.append(mask.ravel(), 0))
        mask = np.searchsorted(numbers, mask).astype(np.uint32)
    count = int(mask.max(initial=0)) + 1
    sums = np.zeros((3, count))
    voxels = np.zeros(count, np.int64)
    height, width = mask.shape[1:]
    rows, columns = np.repeat(np.arange(height), width), np.tile(np.arange(width), height)
    for z, plane in enumerate(mask):
        flat = plane.ravel()
        inside = np.flatnonzero(flat)
        those = flat[inside]
        here = np.bincount(those, minlength=count)
        voxels += here
        sums[0] += z * here
        sums[1] += np.bincount(those, weights=rows[inside], minlength=count)
        sums[2] += np.bincount(those, weights=columns[inside], minlength=count)
    there = np.flatnonzero(voxels)
    labels = there if numbers is None else numbers[there]
    return Objects(labels.astype(np.int64), (sums[:, there] / voxels[there]).T, voxels[there])
