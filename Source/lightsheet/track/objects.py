"""Objects of masks as cells: centre and size of each, one frame in memory at a time."""

from dataclasses import dataclass

import numpy as np

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LineageError, MetadataError
from lightsheet.core.progress import LOG, track
from lightsheet.track.sources import MaskFrames
from lightsheet.volumes.objects import ball_radius, objects_of
from lightsheet.volumes.tracks.lineage import Integers, Lineage, Places, lineage_of


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
    return ball_radius(voxels * z * y * x)
