"""From what a network tells to instances: seeds grow over the foreground until they meet.

The watershed goes down the depth inside the foreground, which knows the voxel size. Parts of the foreground
that do not touch are worked on one by one, so that memory goes with the largest of them.
"""

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.volumes.labels import Labels, label_type

_FACES = ndimage.generate_binary_structure(3, 1)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class InstanceSettings:
    """How instances are made of what the network tells."""

    foreground: float = 0.5
    """least probability of a voxel to be of an object"""
    marker: float = 0.5
    """least probability of a voxel to be the seed of one"""
    min_um3: float = 0.0
    """smaller objects are left out, cubic micrometres"""
    fill_holes: bool = True
    """fill holes within objects"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        for name in ("foreground", "marker"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(
                    f"--{name}: expected a probability above 0 and below 1, got {getattr(self, name)}"
                )
        if not self.min_um3 >= 0:
            raise SettingsError(f"--min_um3: expected 0 or more, got {self.min_um3:g}")


def instances_of(
    foreground: Mask, markers: Mask, spacing_um: SpacingUm, settings: InstanceSettings | None = None
) -> Labels:
    """Grow instances.

    Parameters
    ----------
    foreground : voxels of objects (Z, Y, X)
    markers : voxels of their seeds (Z, Y, X); those outside of the foreground do not count
    spacing_um : voxel size (z, y, x) in micrometres

    Returns
    -------
    labels (Z, Y, X) from 1, in the order of their first voxels; a part of the foreground without a seed is an
    object of its own.
    """
    chosen = settings or InstanceSettings()
    parts, count = ndimage.label(foreground, _FACES)
    smallest = chosen.min_um3 / float(np.prod(spacing_um))
    labels = np.zeros(foreground.shape, np.uint32)
    number = 0
    for part, box in enumerate(ndimage.find_objects(parts, count), 1):
        inside = parts[box] == part
        for one in _grown(inside, markers[box] & inside, spacing_um):
            if one.sum() < max(smallest, 1):
                continue
            number += 1
            whole = ndimage.binary_fill_holes(one) & inside if chosen.fill_holes else one
            labels[box][whole & (labels[box] == 0)] = number
    return np.asarray(labels.astype(label_type(number)))


def _grown(inside: Mask, seeds: Mask, spacing_um: SpacingUm) -> list[Mask]:
    """Divide a part of the foreground among its seeds."""
    numbered, count = ndimage.label(seeds, np.ones((3, 3, 3)))
    if count <= 1:
        return [inside]
    depth = edt.edt(np.pad(inside, 1), anisotropy=spacing_um)[1:-1, 1:-1, 1:-1]
    grown = watershed(-depth, numbered, mask=inside)
    return [grown == number for number in range(1, count + 1)]
