"""The ledger: at every stage, which axes an array has and what a number in it means.

===========================  =======  ========  =====================================================
stage                        axes     type      meaning of a number
===========================  =======  ========  =====================================================
view, fused on disk          Z Y X    stated    camera counts (uint16), or intensity in any unit, whole or
                                      in file   real, also negative
H5 ``data/raw_image``        Z Y X    stated    intensity; percentile 2 is 0, percentile 99.8 is 1, not
                                      in file   clipped; both percentiles are attributes: can be undone
H5 ``data/surface_distance`` Z Y X    float     signed distance in micrometres to the specimen's convex
                                                hull: > 0 inside, 0 on the surface, < 0 outside
H5 ``data/light_map``        Z Y X    stated    path length from the lit side, in micrometres
network input                C Z Y X  float32   channels in the order of ``--image_groups``
network output               C Z Y X  float32   maps, as the model folder names them; fusion has one: the
                                                normalised fused intensity. A vector's component changes
                                                its sign where the volume is mirrored along its axis
written result               Z Y X    uint16 or intensity in the view's units, same shape and voxel size:
                                      real      counts of 16 bits stay such, all else is float32, or float64
                                                where that would merge it (`volumes.result_types`)
targets of a segmentation    Z Y X    uint8     class of a voxel (0 background, 1 edge, 2 interior), and if
                                                it is of a seed; a network has 4 maps for them
label image                  Z Y X    uint16 or number of the object that a voxel belongs to, 0 for none; of
                                      uint32    tracks the same in all frames. One plane (Y X) is Z = 1
lineage                      N        tables    cells at time points: id, frame from 0, place (z, y, x) in
                                                micrometres, radius, row of the parent (`volumes.tracks`)
tracks                       N        text      label, first and last frame, both counted, parent's label or 0
state of a cell              N        word      stable, mitotic, new daughter or dying (`simulate.movies`)
===========================  =======  ========  =====================================================

Beyond its last voxels, up to what a network's stride asks for, a volume is mirrored without repeating the
last voxel, wherever a network is run: tiles, blocks of the guard, validation (`core.tiles.mirrored`).

Spacing is always ``(z, y, x)`` in micrometres and is called ``spacing_um``.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

RAW_IMAGE = "data/raw_image"
SURFACE_DISTANCE = "data/surface_distance"
LIGHT_MAP = "data/light_map"
IMAGE_GROUPS = (RAW_IMAGE, SURFACE_DISTANCE, LIGHT_MAP)

LOW_PERCENTILE = 2.0
HIGH_PERCENTILE = 99.8

HIGHEST_COUNT = 65535
"""Of a camera's counts, which are uint16."""

Channel = Literal["nucleus", "membrane"]
CHANNELS: tuple[Channel, ...] = ("nucleus", "membrane")

ZYX = tuple[int, int, int]
SpacingUm = tuple[float, float, float]
Region = tuple[slice, slice, slice]
Floats = NDArray[np.float32]
"""Volumes of normalised intensities and what networks take and give."""

# A residual network may change a voxel by a factor of exp(3) = 20 at most, whatever runs it.
LOG_GAIN_LIMIT = 3.0

Side = Literal["-z", "+z", "-y", "+y", "-x", "+x"]
SIDES: tuple[Side, ...] = get_args(Side)

LIGHT_KEY = "light"
"""Where a file's metadata say from which side the light came."""


def axis_of(side: Side) -> int:
    """Axis of a side: 0, 1 or 2."""
    return "zyx".index(side[1])


def toward(side: Side) -> tuple[float, float, float]:
    """Give the unit vector (z, y, x) that points to a side: -x is the side where x is 0."""
    z, y, x = ((-1.0 if side[0] == "-" else 1.0) if axis == axis_of(side) else 0.0 for axis in range(3))
    return z, y, x


def side_in(metadata: Mapping[str, Any]) -> Side | None:
    """Side of the light that a file's metadata tell, if they do."""
    return next((side for side in SIDES if metadata.get(LIGHT_KEY) == side), None)
