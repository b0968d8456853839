"""A smooth field kept on a coarse grid of nodes and read at full resolution by trilinear interpolation.

Node ``i`` of an axis lies on voxel ``i * step``; the last node lies on or behind the last voxel, so that
nothing is extrapolated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.errors import VolumeError
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads

# Below this many voxels (a training patch has 4 million) starting a thread is not worth it.
_VOXELS_PER_THREAD = 8_000_000


@dataclass(frozen=True)
class NodeGrid:
    """Values at the nodes, and how many voxels apart the nodes are.

    Attributes
    ----------
    values : float32 (nodes along Z, Y, X)
    step_zyx : voxels between neighbouring nodes
    shape_zyx : voxels of the volume which the grid stands for
    """

    values: NDArray[np.float32]
    step_zyx: ZYX
    shape_zyx: ZYX

    def at(self, region: Region, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Interpolate the voxels of ``region``; float32 (Z, Y, X).

        Raises
        ------
        VolumeError
            When the region has a step or lies outside of the volume.
        """
        bounds = bounds_of(region, self.shape_zyx)
        shape = tuple(stop - start for start, stop in bounds)
        result = np.empty(shape, np.float32) if out is None else out
        at_z, at_y, at_x = (
            _places(start, stop, step) for (start, stop), step in zip(bounds, self.step_zyx, strict=True)
        )

        def loop(start: int, stop: int) -> None:
            _interpolate(self.values, at_z[start:stop], at_y, at_x, result[start:stop])

        in_threads(loop, shape[0], 1 if result.size < _VOXELS_PER_THREAD else None)
        return result


def bounds_of(region: Region, shape_zyx: ZYX) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First voxel and the one after the last of a region, along each axis.

    Raises
    ------
    VolumeError
        When the region has a step or lies outside of the volume.
    """
    bounds = []
    for part, length in zip(region, shape_zyx, strict=True):
        start = 0 if part.start is None else int(part.start)
        stop = length if part.stop is None else int(part.stop)
        if part.step not in (None, 1) or not 0 <= start < stop <= length:
            raise VolumeError(
                f"region: expected start:stop within 0:{length}, got {start}:{stop}:{part.step}"
            )
        bounds.append((start, stop))
    return bounds[0], bounds[1], bounds[2]


def node_counts(shape_zyx: ZYX, step_zyx: ZYX) -> ZYX:
    """Nodes along each axis, so that the last one lies on or behind the last voxel (at least two)."""
    z, y, x = (max(2, -(-(n - 1) // s) + 1) for n, s in zip(shape_zyx, step_zyx, strict=True))
    return z, y, x


def fill_grid(
    shape_zyx: ZYX, step_zyx: ZYX, fill: Callable[[NDArray[np.float32], int], None], group: int = 1
) -> NodeGrid:
    """Make a grid whose values ``fill(part, first_node)`` writes, plane range by plane range, in threads.

    Parameters
    ----------
    group : node planes that have to stay together
    """
    values = np.empty(node_counts(shape_zyx, step_zyx), np.float32)

    def loop(start: int, stop: int) -> None:
        fill(values[start * group : stop * group], start * group)

    in_threads(loop, -(-values.shape[0] // group))
    return NodeGrid(values, step_zyx, shape_zyx)


def _places(start: int, stop: int, step: int) -> NDArray[np.float64]:
    """Positions of voxels in units of nodes."""
    return np.arange(start, stop, dtype=np.float64) / step


@compiled()
def _interpolate(values: Any, at_z: Any, at_y: Any, at_x: Any, out: Any) -> None:
    last_z, last_y, last_x = values.shape[0] - 2, values.shape[1] - 2, values.shape[2] - 2
    nodes_x = values.shape[2]
    first = np.empty(at_x.size, np.int32)
    part = np.empty(at_x.size, np.float32)
    for x in range(at_x.size):
        i = min(int(at_x[x]), last_x)
        first[x] = i
        part[x] = at_x[x] - i
    line = np.empty(nodes_x, np.float32)
    lo = min(int(at_x[0]), last_x)
    hi = min(int(at_x[-1]), last_x) + 2
    for z in range(at_z.size):
        iz = min(int(at_z[z]), last_z)
        wz = np.float32(at_z[z] - iz)
        for y in range(at_y.size):
            iy = min(int(at_y[y]), last_y)
            wy = np.float32(at_y[y] - iy)
            w00 = (np.float32(1) - wz) * (np.float32(1) - wy)
            w01 = (np.float32(1) - wz) * wy
            w10 = wz * (np.float32(1) - wy)
            w11 = wz * wy
            for i in range(lo, hi):
                line[i] = (
                    w00 * values[iz, iy, i]
                    + w01 * values[iz, iy + 1, i]
                    + w10 * values[iz + 1, iy, i]
                    + w11 * values[iz + 1, iy + 1, i]
                )
            for x in range(at_x.size):
                i = first[x]
                out[z, y, x] = line[i] + part[x] * (line[i + 1] - line[i])
