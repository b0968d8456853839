"""Small pictures of a large volume, gathered slab by slab: planes, middle sections and projections."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.evaluate.projections import Projections


@dataclass(frozen=True)
class Planes:
    """Which planes are kept, and how far they are reduced.

    Attributes
    ----------
    kept : planes along Z that become pictures
    factor : voxels of Y and X that become one pixel
    """

    kept: tuple[int, ...]
    factor: int

    @classmethod
    def spread(cls, shape_zyx: ZYX, count: int, pixels: int) -> "Planes":
        """Return ``count`` planes spread evenly, at most ``pixels`` wide and high."""
        depth, height, width = shape_zyx
        kept = np.unique(np.linspace(0, depth - 1, min(count, depth)).round().astype(int))
        return cls(tuple(int(z) for z in kept), max(1, -(-max(height, width) // pixels)))


@dataclass
class Preview:
    """Pictures of one volume, gathered slab by slab.

    Attributes
    ----------
    planes : which planes are kept
    slices : kept planes, reduced by block means
    section_xz, section_yz : sections through the middle, at full resolution
    projections : maximum projections, at full resolution
    """

    shape_zyx: ZYX
    planes: Planes
    slices: list[NDArray[np.float32]] = field(default_factory=list)
    section_xz: NDArray[np.float32] = field(init=False)
    section_yz: NDArray[np.float32] = field(init=False)
    projections: Projections = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        depth, height, width = self.shape_zyx
        self.section_xz = np.empty((depth, width), np.float32)
        self.section_yz = np.empty((depth, height), np.float32)
        self.projections = Projections(self.shape_zyx, np.float32)

    def add(self, slab: NDArray[np.float32]) -> None:
        """Take the next planes (Z, Y, X)."""
        end = self._next + len(slab)
        self.section_xz[self._next : end] = slab[:, self.shape_zyx[1] // 2]
        self.section_yz[self._next : end] = slab[:, :, self.shape_zyx[2] // 2]
        self.slices += [
            reduced(slab[z - self._next], (self.planes.factor, self.planes.factor))
            for z in self.planes.kept
            if self._next <= z < end
        ]
        self.projections.add(slab)
        self._next = end


def reduced(plane: NDArray[Any], factors: tuple[int, int]) -> NDArray[np.float32]:
    """Block means of a picture; blocks at the lower and right edge may be smaller."""
    down, right = factors
    rows, columns = (np.arange(0, n, f) for n, f in zip(plane.shape, factors, strict=True))
    if down == right == 1:
        return np.array(plane, np.float32)
    sums = np.add.reduceat(plane.astype(np.float64), rows, axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    heights = np.diff(np.append(rows, plane.shape[0]))
    widths = np.diff(np.append(columns, plane.shape[1]))
    return np.asarray(sums / heights[:, None] / widths[None, :], dtype=np.float32)
