"""The Gaussian of the view, the rival that needs no training: a volume filtered slab by slab."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Channel
from lightsheet.core.intensity import Slabs
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.volumes.info import VolumeInfo

GAUSSIAN_SIGMA: dict[Channel, float] = {"nucleus": 0.442, "membrane": 0.5}
# scipy.ndimage.gaussian_filter cuts its window at four sigma.
_TRUNCATE = 4.0


class GaussianVolume:
    """A volume under an isotropic Gaussian, as ``scipy.ndimage.gaussian_filter`` has it: edges mirrored.

    Counts of 16 bits stay whole, by rounding, as in a file that would be submitted; others become real.

    Parameters
    ----------
    volume : what is filtered
    sigma : standard deviation in voxels, along all axes
    """

    def __init__(self, volume: Slabs, sigma: float) -> None:
        self._volume = volume
        given = np.dtype(volume.info.dtype)
        real = given if given == np.uint16 else np.result_type(given, np.float32)
        self.info: VolumeInfo = replace(
            volume.info, source=f"{volume.info.source} under a Gaussian of sigma {sigma}", dtype=real.name
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
        whole = planes.dtype == np.uint16
        out = np.empty((z1 - z0, *planes.shape[1:]), self.info.dtype)
        in_slab, in_y, in_x = in_z - first, self._mirrored[1], self._mirrored[2]

        def loop(start: int, stop: int) -> None:
            _filter_planes(planes, in_slab, in_y, in_x, self._weights, whole, start, stop, out)

        in_threads(loop, len(out))
        return out


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
