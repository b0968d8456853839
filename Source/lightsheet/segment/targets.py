"""What a network is to tell of each voxel, made of labels: class and seed, with lengths in micrometres.

Classes are background, edge and interior; the edge is the rim inside each object, as thick as a share of its
own radius, so that objects that touch are told apart and none loses a voxel. Seeds (markers) are the middles
of the objects. Both follow from the distance to the object's surface, which knows the voxel size.
"""

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.volumes.labels import Labels

BACKGROUND, EDGE, INTERIOR = 0, 1, 2
CLASSES = ("background", "edge", "interior")
OUTPUTS = (*CLASSES, "marker")
CLASS_WEIGHTS = (0.2, 0.5, 0.3)
"""Of the classes in the loss."""
EDGE_SHARE = 0.3
"""Thickness of the edge, in radii of the largest ball inside an object."""
MARKER_SHARE = 0.55
"""How deep the seed begins, in the same."""


@dataclass(frozen=True)
class Targets:
    """What the network is to tell.

    Attributes
    ----------
    classes : 0 background, 1 edge, 2 interior (Z, Y, X)
    markers : 1 in the middle of an object (Z, Y, X)
    """

    classes: NDArray[np.uint8]
    markers: NDArray[np.uint8]


def depth_in_objects(labels: Labels, spacing_um: SpacingUm) -> tuple[Floats, Floats]:
    """Distance of each voxel to its object's surface, and the largest one of each object.

    The border of the volume is no surface: an object that is cut by it goes on beyond.

    Returns
    -------
    depth (Z, Y, X) in micrometres, 0 outside of objects, and by label (L,) the largest depth.
    """
    depth = np.asarray(edt.edt(labels, anisotropy=spacing_um, black_border=False), np.float32)
    depth[labels == 0] = 0
    depth[~np.isfinite(depth)] = np.max(spacing_um)  # of a volume that is all one object
    deepest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    return depth, deepest


def targets_of(labels: Labels, spacing_um: SpacingUm) -> Targets:
    """Make the targets of a label image (Z, Y, X); labels are dense numbers."""
    depth, deepest = depth_in_objects(labels, spacing_um)
    share = depth / np.maximum(deepest[labels], np.float32(1e-6))
    classes = np.where(labels > 0, np.where(share > EDGE_SHARE, INTERIOR, EDGE), BACKGROUND)
    markers = (labels > 0) & (share >= MARKER_SHARE)
    return Targets(classes.astype(np.uint8), markers.astype(np.uint8))
