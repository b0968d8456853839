"""Objects of masks as cells: centre and size of each, one frame in memory at a time."""

from dataclasses import dataclass

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LineageError, MetadataError
from lightsheet.core.progress import LOG, track
from lightsheet.track.sources import MaskFrames
from lightsheet.volumes.labels import Labels
from lightsheet.volumes.tracks.lineage import Integers, Lineage, Places, lineage_of

# Above this labels are numbered anew first: sums are kept for each number up to the highest.
_HIGHEST_DENSE = 1 << 22


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


@dataclass(frozen=True)
class FoundCells:
    """Cells of all masks of a movie.

    Attributes
    ----------
    cells : without parents; ids are numbers from 1
    labels : label of each in the mask of its frame (N,)
    spacing_um : voxel size (z, y, x) in micrometres
    frames : number of masks
    flat : the masks have one plane
    """

    cells: Lineage
    labels: Integers
    spacing_um: SpacingUm
    frames: int
    flat: bool


def cells_of(masks: MaskFrames, spacing_um: SpacingUm | None) -> FoundCells:
    """Find the cells of all frames.

    Parameters
    ----------
    spacing_um : voxel size (z, y, x) in micrometres; default: what the files say

    Raises
    ------
    MetadataError
        When the voxel size is not known.
    LineageError
        When there is no cell at all.
    """
    step, places, times, labels, voxels = spacing_um, [], [], [], []
    flat = False
    for frame, (mask, told) in enumerate(track(masks.read(), "masks", len(masks))):
        step = step or told
        if step is None:
            raise MetadataError(
                f"{masks.source}: expected a voxel size in the metadata, got none; "
                "give it as --spacing_um Z,Y,X (micrometres)"
            )
        flat = mask.shape[0] == 1
        found = objects_of(mask)
        if not len(found.labels):
            LOG.warning("%s: frame %d has no cell", masks.source, frame)
        places.append(found.centres * np.array(step))
        times.append(np.full(len(found.labels), frame))
        labels.append(found.labels)
        voxels.append(found.voxels)
    where, when, what = np.concatenate(places), np.concatenate(times), np.concatenate(labels)
    if step is None or not len(when):
        raise LineageError(f"{masks.source}: expected masks with cells, got none in {len(masks)} frames")
    radii = _radii(np.concatenate(voxels), step, flat=flat)
    cells = lineage_of(np.arange(1, len(when) + 1), when, where, radii_um=radii, source=masks.source)
    return FoundCells(cells, what, step, len(masks), flat)


def _radii(voxels: Integers, spacing_um: SpacingUm, *, flat: bool) -> Places:
    """Radius (N,) of a ball of each volume, or of a disk of each area, micrometres."""
    z, y, x = spacing_um
    if flat:
        return np.asarray(np.sqrt(voxels * y * x / np.pi))
    return np.asarray(np.cbrt(voxels * z * y * x * 3 / (4 * np.pi)))
