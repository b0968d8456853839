"""Design of ours for planes: where nuclei are, where they come near each other, and how deep a pixel lies.

Depth is told twice. In that of a nucleus' deepest pixel it says where nuclei begin: those of any size have a
top of 1, however bright they are, and between two that touch it falls to nothing. In pixels it says where one
that grows ends: it rises alike on both sides of the line between a small and a large one.
"""

import numpy as np
from scipy import ndimage

from lightsheet.core.axes import Floats
from lightsheet.segment.designs.borders import near_lines
from lightsheet.segment.designs.design import Design, Told, as_bytes, sigmoid
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.targets import depth_in_objects
from lightsheet.volumes.labels import Labels

_AROUND = ndimage.generate_binary_structure(2, 2)
_WEIGHTS = (1.0, 1.0, 1.0, 0.5)
# Depth in pixels that is told apart.
_DEEPEST = 8.0
# Depth at which an object begins, in the --marker that is given, and what is added to what is said of nuclei
# before the sigmoid: rims are told too seldom, as labels of some images go further out than those of others.
# Both were chosen by the validation images of splits/nuclei2d.
_BEGINS, _RIMS = 0.6, 0.405


def _targets(labels: Labels) -> Floats:
    depth, deepest = depth_in_objects(labels, (1.0, 1.0, 1.0))
    share = depth / np.maximum(deepest[labels], np.float32(1e-6))
    lines = ndimage.binary_dilation(near_lines(labels[0]), _AROUND)[None]
    pixels = np.minimum(depth, _DEEPEST) / np.float32(_DEEPEST)
    return np.stack([labels > 0, lines, share, pixels]).astype(np.float32)


def _read(maps: Floats, settings: InstanceSettings) -> Told:
    inside, lines, share, pixels = sigmoid(maps + np.array([_RIMS, 0, 0, 0], np.float32)[:, None, None, None])
    seeds = (share * (1 - lines) > _BEGINS * settings.marker) & (inside > settings.foreground)
    return Told(as_bytes(inside), seeds, as_bytes(pixels))


DISTANCE = Design("distance", ("foreground", "near", "depth", "pixels"), 0, _WEIGHTS, _targets, _read)
