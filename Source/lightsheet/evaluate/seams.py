"""Seam index: do the tiles show? Gradient energy on the tile grid against beside it.

A seam between tiles is a step from one plane of voxels to the next, at the same place all over the volume.
The energy of a cut is the mean squared difference of the two planes it lies between. The index of an axis
is the energy of all cuts over the energy of the planes a few voxels beside them, so that structure which is
there anyway counts in both. About 1: no seam. The images' own edges are taken out by comparing the
prediction minus a reference (the view).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads

Cuts = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

# Planes beside a cut that it is compared with: not its neighbours, which a blended seam reaches.
_NEAREST, _FARTHEST = 3, 8


@dataclass(frozen=True)
class SeamIndex:
    """Energy on the tile grid over energy beside it, for each axis; NaN where an axis has no cut.

    Attributes
    ----------
    zyx : index along (Z, Y, X)
    """

    zyx: tuple[float, float, float]

    @property
    def worst(self) -> float:
        """Largest of the three; NaN when there is no cut at all."""
        known = [value for value in self.zyx if not math.isnan(value)]
        return max(known, default=math.nan)


def seam_index(
    prediction: NDArray[Any], cuts_zyx: Sequence[Sequence[int]], reference: NDArray[Any] | None = None
) -> SeamIndex:
    """Seam index of a volume in memory.

    Parameters
    ----------
    prediction : (Z, Y, X), any scale
    cuts_zyx : for each axis, the indices of the first plane behind each cut
    reference : volume of the same shape and scale, usually the view; its edges are taken out

    Raises
    ------
    VolumeError
        When the shapes differ.
    """
    if reference is not None and reference.shape != prediction.shape:
        raise VolumeError(
            f"seam index: expected a reference of shape {prediction.shape}, got {reference.shape}"
        )
    data = _real(prediction)
    beside = np.zeros((1, 1, 1), np.float32) if reference is None else _real(reference)
    energy = GradientEnergy((data.shape[0], data.shape[1], data.shape[2]))
    energy.add(data, beside, len(data))
    return energy.index(cuts_zyx)


@dataclass
class GradientEnergy:
    """Squared differences of neighbouring planes of (prediction - reference), summed slab by slab.

    Attributes
    ----------
    shape_zyx : the whole volume
    sums : for each axis, sum of squares between plane i - 1 and i, at index i
    """

    shape_zyx: ZYX
    sums: list[NDArray[np.float64]] = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self.sums = [np.zeros(n) for n in self.shape_zyx]

    def add(self, prediction: NDArray[Any], reference: NDArray[Any], fresh: int) -> None:
        """Take the next slabs; the plane before the ``fresh`` ones is used for the difference along Z."""
        before = min(1, len(prediction) - fresh)
        ours = prediction[len(prediction) - fresh - before :]
        theirs = reference if reference.shape != prediction.shape else reference[-len(ours) :]
        along_z = np.zeros(len(ours))
        along_y = np.zeros((len(ours), self.shape_zyx[1]))
        along_x = np.zeros((len(ours), self.shape_zyx[2]))

        def loop(start: int, stop: int) -> None:
            _add_gradients(ours, theirs, before + start, before + stop, along_z, along_y, along_x)

        in_threads(loop, fresh)
        self.sums[0][self._next : self._next + fresh] += along_z[before:]
        self.sums[1] += along_y.sum(axis=0)
        self.sums[2] += along_x.sum(axis=0)
        self._next += fresh

    def index(self, cuts_zyx: Sequence[Sequence[int]]) -> SeamIndex:
        """Seam index for cuts at the given planes."""
        z, y, x = (_index_of_axis(s, cuts) for s, cuts in zip(self.sums, cuts_zyx, strict=True))
        return SeamIndex((z, y, x))


def cuts_of_step(shape_zyx: ZYX, step_zyx: Sequence[int]) -> Cuts:
    """Cuts of a regular grid of tiles; a step of 0 means no cut along that axis.

    Raises
    ------
    SettingsError
        When a step is negative.
    """
    if any(step < 0 for step in step_zyx):
        raise SettingsError(f"--tile_step: expected three numbers of at least 0, got {tuple(step_zyx)}")
    z, y, x = (tuple(range(s, n, s)) if s else () for s, n in zip(step_zyx, shape_zyx, strict=True))
    return z, y, x


def cuts_of_provenance(metadata: Mapping[str, Any]) -> Cuts | None:
    """Cuts that a prediction's file tells in its provenance (``lightsheet`` -> ``cuts_zyx``), else None."""
    provenance = metadata.get("lightsheet")
    if not isinstance(provenance, Mapping):
        return None
    told = provenance.get("cuts_zyx")
    if not isinstance(told, Sequence) or len(told) != 3:
        return None
    z, y, x = (tuple(int(cut) for cut in cuts) for cuts in told)
    return z, y, x


def _real(volume: NDArray[Any]) -> NDArray[Any]:
    """Make numbers real: float32, or float64 for whole numbers and reals of more than 24 bits."""
    return np.ascontiguousarray(volume, np.result_type(volume.dtype, np.float32))


def _index_of_axis(energy: NDArray[np.float64], cuts: Sequence[int]) -> float:
    size = len(energy)
    on = {cut for cut in cuts if 0 < cut < size}
    near = {cut + d for cut in on for d in range(1 - _NEAREST, _NEAREST)}
    around = {cut + side * d for cut in on for side in (-1, 1) for d in range(_NEAREST, _FARTHEST + 1)}
    off = {plane for plane in around - near if 0 < plane < size}
    if not on or not off:
        return math.nan
    at, beside = (float(np.mean([energy[i] for i in sorted(planes)])) for planes in (on, off))
    if beside == 0:
        return 1.0 if at == 0 else math.inf
    return at / beside


@compiled(fastmath=True)
def _add_gradients(
    ours: Any, theirs: Any, start: int, stop: int, along_z: Any, along_y: Any, along_x: Any
) -> None:
    """Add squared differences to the left, upper and earlier neighbour of (ours - theirs)."""
    height, width = ours.shape[1], ours.shape[2]
    alone = theirs.shape != ours.shape
    row = np.empty(width)
    above = np.empty(width)
    earlier = np.empty(width)
    for z in range(start, stop):
        for y in range(height):
            for x in range(width):
                row[x] = ours[z, y, x] if alone else ours[z, y, x] - theirs[z, y, x]
            for x in range(1, width):
                step = row[x] - row[x - 1]
                along_x[z, x] += step * step
            if y:
                total = 0.0
                for x in range(width):
                    total += (row[x] - above[x]) * (row[x] - above[x])
                along_y[z, y] += total
            if z:
                for x in range(width):
                    earlier[x] = ours[z - 1, y, x] if alone else ours[z - 1, y, x] - theirs[z - 1, y, x]
                total = 0.0
                for x in range(width):
                    total += (row[x] - earlier[x]) * (row[x] - earlier[x])
                along_z[z] += total
            above[:] = row
