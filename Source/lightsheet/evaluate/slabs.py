"""Volumes as slabs along Z: arrays, Gaussian-filtered volumes, and several volumes read side by side."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Channel
from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.core.volume import VolumeInfo

SLAB_BYTES = 192 << 20
MAX_PLANES = 64
GAUSSIAN_SIGMA: dict[Channel, float] = {"nucleus": 0.442, "membrane": 0.5}
# scipy.ndimage.gaussian_filter cuts its window at four sigma.
_TRUNCATE = 4.0


class ArrayVolume:
    """A volume in memory, read like one on disk.

    Parameters
    ----------
    data : (Z, Y, X)
    source : name for messages
    """

    def __init__(self, data: NDArray[Any], source: str = "array") -> None:
        if data.ndim != 3:
            raise VolumeError(f"{source}: expected a volume (Z, Y, X), got the shape {data.shape}")
        shape = data.shape[0], data.shape[1], data.shape[2]
        self.info = VolumeInfo(source, shape, data.dtype.name)
        self._data = data

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes from ``z0`` to before ``z1``."""
        return self._data[z0:z1]


class GaussianVolume:
    """A volume under an isotropic Gaussian, as ``scipy.ndimage.gaussian_filter`` has it: edges mirrored.

    Whole numbers stay whole, by rounding, as in a file that would be submitted.

    Parameters
    ----------
    volume : what is filtered
    sigma : standard deviation in voxels, along all axes
    """

    def __init__(self, volume: Slabs, sigma: float) -> None:
        self._volume = volume
        self.info: VolumeInfo = replace(
            volume.info, source=f"{volume.info.source} under a Gaussian of sigma {sigma}"
        )
        radius = int(_TRUNCATE * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        self._weights = weights / weights.sum()
        self._mirrored = [np.pad(np.arange(n), radius, mode="symmetric") for n in self.info.shape_zyx]

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes from ``z0`` to before ``z1``, filtered; reads a few planes more."""
        in_z = self._mirrored[0][z0 : z1 + len(self._weights) - 1]
        first = int(in_z.min())
        planes = self._volume.read(first, int(in_z.max()) + 1)
        whole = planes.dtype.kind in "ui"
        out = np.empty((z1 - z0, *planes.shape[1:]), planes.dtype if whole else np.float32)
        in_slab, in_y, in_x = in_z - first, self._mirrored[1], self._mirrored[2]

        def loop(start: int, stop: int) -> None:
            _filter_planes(planes, in_slab, in_y, in_x, self._weights, whole, start, stop, out)

        in_threads(loop, len(out))
        return out


@dataclass(frozen=True)
class Step:
    """Slabs of several volumes at the same planes.

    Attributes
    ----------
    slabs : (Z, Y, X) of each volume, normalised; begins with planes that were seen before
    first : plane of the volume at which the slabs begin
    fresh : how many planes, at the end, are new
    """

    slabs: dict[str, NDArray[np.float32]]
    first: int
    fresh: int

    def new(self, name: str) -> NDArray[np.float32]:
        """Return only the planes not seen before."""
        return self.slabs[name][len(self.slabs[name]) - self.fresh :]


def side_by_side(
    volumes: Mapping[str, Slabs], scales: Mapping[str, Normalization], overlap: int
) -> Iterator[Step]:
    """Read volumes of one shape together, normalised, each step with ``overlap`` planes of the one before."""
    shape: ZYX = next(iter(volumes.values())).info.shape_zyx
    planes = max(1, min(MAX_PLANES, SLAB_BYTES // (4 * shape[1] * shape[2])))
    kept: dict[str, NDArray[np.float32]] = {}
    for z0 in range(0, shape[0], planes):
        z1 = min(z0 + planes, shape[0])
        slabs = {}
        for name, volume in volumes.items():
            new = scales[name].apply(volume.read(z0, z1))
            slabs[name] = np.concatenate((kept[name], new)) if name in kept else new
        held = len(slabs[next(iter(volumes))])
        yield Step(slabs, z1 - held, z1 - z0)
        kept = {name: slab[max(0, held - overlap) :].copy() for name, slab in slabs.items()}


@compiled(fastmath=True)
def _filter_planes(
    planes: Any, in_z: Any, in_y: Any, in_x: Any, weights: Any, whole: bool, start: int, stop: int, out: Any
) -> None:
    height, width = planes.shape[1], planes.shape[2]
    size = len(weights)
    along_z = np.empty((height, width))
    row = np.empty(width)
    for z in range(start, stop):
        along_z[:] = 0.0
        for k in range(size):
            for y in range(height):
                for x in range(width):
                    along_z[y, x] += weights[k] * planes[in_z[z + k], y, x]
        for y in range(height):
            row[:] = 0.0
            for k in range(size):
                source = in_y[y + k]
                for x in range(width):
                    row[x] += weights[k] * along_z[source, x]
            for x in range(width):
                total = 0.0
                for k in range(size):
                    total += weights[k] * row[in_x[x + k]]
                out[z, y, x] = np.rint(total) if whole else total
