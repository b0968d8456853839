"""Designs that draw lines: where nuclei touch, along each nucleus, or where they come near each other."""

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from lightsheet.core.axes import Floats
from lightsheet.segment.designs.design import Design, Told, as_bytes, classes, sigmoid
from lightsheet.segment.instances import InstanceSettings
from lightsheet.volumes.labels import Labels

# Each pixel and its neighbour below, to the right, and on both diagonals.
_NEIGHBOURS = (
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[1:, 1:], np.s_[:-1, :-1]),
    (np.s_[1:, :-1], np.s_[:-1, 1:]),
)
_AROUND = ndimage.generate_binary_structure(2, 2)
# Pixels of the boundary inside a nucleus, and gaps between nuclei that count as touching.
_BOUNDARY, _GAP = 2.0, 2.0
# Beyond it from any seed, in pixels, all come at once.
_FARTHEST = 16
_BOUNDARY_WEIGHTS, _LINE_WEIGHTS = (0.2, 0.2, 0.6), (0.2, 0.2, 0.6)


def meeting(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels (Y, X) beside which there is another object than their own; background does not count."""
    found = np.zeros(labels.shape, bool)
    for one, other in _NEIGHBOURS:
        unlike = (labels[one] != labels[other]) & (labels[one] > 0) & (labels[other] > 0)
        found[one] |= unlike
        found[other] |= unlike
    return found


def near_lines(labels: NDArray[np.integer], gap: float = _GAP) -> NDArray[np.bool_]:
    """Lines (Y, X) along which objects meet when they grow by ``gap`` pixels."""
    return meeting(expand_labels(labels, gap))


def _told(inside: Floats, seeds: NDArray[np.bool_]) -> Told:
    """Let objects grow to the same distance from their seeds, as lines are as wide on both sides."""
    far = np.minimum(edt.edt(~seeds, black_border=False), _FARTHEST)
    return Told(as_bytes(inside), seeds, as_bytes(1 - far / np.float32(_FARTHEST)))


def _touching(labels: Labels) -> Floats:
    plane = labels[0]
    lines = ndimage.binary_dilation(meeting(plane), _AROUND) & (plane > 0)
    return np.stack([lines, plane > 0]).astype(np.float32)[:, None]


def _read_touching(maps: Floats, settings: InstanceSettings) -> Told:
    lines, inside = sigmoid(maps)
    return _told(inside, (inside > settings.foreground) & (lines < 1 - settings.marker))


def _boundary(labels: Labels) -> Floats:
    depth = edt.edt(labels, black_border=False)
    rim = (labels > 0) & (depth <= _BOUNDARY)
    return np.stack([labels == 0, (labels > 0) & ~rim, rim]).astype(np.float32)


def _read_boundary(maps: Floats, settings: InstanceSettings) -> Told:
    outside, interior, _ = classes(maps, _BOUNDARY_WEIGHTS)
    return _told(1 - outside, interior > settings.marker)


def _lines(labels: Labels) -> Floats:
    border = ndimage.binary_dilation(near_lines(labels[0]), _AROUND)[None]
    inside = labels > 0
    return np.stack([~inside & ~border, inside & ~border, border]).astype(np.float32)


def _read_lines(maps: Floats, settings: InstanceSettings) -> Told:
    outside, inside, _ = classes(maps, _LINE_WEIGHTS)
    return _told(1 - outside, inside > settings.marker)


TOUCHING = Design("touching", ("touching", "foreground"), 0, (1.0, 1.0), _touching, _read_touching)
"""Lines where nuclei touch, and where nuclei are, as system 004 has it."""
BOUNDARY = Design(
    "boundary", ("background", "interior", "boundary"), 3, _BOUNDARY_WEIGHTS, _boundary, _read_boundary
)
"""Background, interior and boundary of nuclei (Caicedo et al., Cytometry A 2019)."""
LINES = Design("lines", ("background", "inside", "line"), 3, _LINE_WEIGHTS, _lines, _read_lines)
"""Background, nuclei, and lines where nuclei come near each other, as of a watershed (first place of the Data
Science Bowl 2018)."""
