"""Structural similarity of two volumes, plane after plane in bounded memory, under two readings.

The challenge's SSIM code is not public, so both likely readings are computed, in one pass:

``tf``
    ``tf.image.ssim(x, y, max_val=10)`` on the raw (Z, Y, X) array. TensorFlow takes the last three axes as
    height, width and colours, so its 11 x 11 window lies in the Z-Y plane and X counts as colours.
``3d``
    An 11 x 11 x 11 window, values of range 1, as in MONAI, torchmetrics and scikit-image.

Both use a Gaussian window of sigma 1.5 voxels, k1 = 0.01, k2 = 0.03, no sample correction, and only places
where the window fits into the volume. Method: Wang et al., IEEE Trans. Image Process. 13 (2004) 600.

The two windows share their weights along Z and Y. One loop therefore sums along Z, then Y, has the ``tf``
moments, sums along X and has those of ``3d``. All moments are float64: variances of raw counts stay exact.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import VolumeError
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads

Reading = Literal["tf", "3d"]
READINGS: tuple[Reading, ...] = ("tf", "3d")
DATA_RANGE: dict[Reading, float] = {"tf": 10.0, "3d": 1.0}

WINDOW = 11
SIGMA = 1.5
K1 = 0.01
K2 = 0.03

# Mean of a, of b, of a² + b², and of ab: all that SSIM needs.
_MOMENTS = 4


def window_zyx(shape_zyx: ZYX) -> ZYX:
    """Window of each axis: 11, or the largest odd size that fits into a shorter axis."""
    z, y, x = (min(WINDOW, n if n % 2 else n - 1) for n in shape_zyx)
    return z, y, x


def gaussian_weights(size: int, sigma: float = SIGMA) -> NDArray[np.float64]:
    """Weights of a Gaussian of ``sigma`` voxels cut to ``size`` voxels; their sum is 1."""
    offset = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (offset / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class SsimByDepth:
    """Mean SSIM of each plane for which the window fits.

    Attributes
    ----------
    tf, three_d : (planes,) mean SSIM under the readings ``tf`` and ``3d``
    first_plane : Z of the first value: half a window below the top
    """

    tf: NDArray[np.float64]
    three_d: NDArray[np.float64]
    first_plane: int

    def by_plane(self, reading: Reading) -> NDArray[np.float64]:
        """Values of one reading."""
        return self.tf if reading == "tf" else self.three_d

    def mean(self, reading: Reading) -> float:
        """SSIM of the whole volume: all planes have the same number of places."""
        return float(self.by_plane(reading).mean())


class SsimStream:
    """SSIM of two volumes that arrive as slabs along Z; nothing of them is kept.

    Parameters
    ----------
    shape_zyx : shape of both volumes

    Attributes
    ----------
    overlap : planes of the earlier slabs that each slab must begin with (fewer while there are fewer)
    """

    def __init__(self, shape_zyx: ZYX) -> None:
        window = window_zyx(shape_zyx)
        self.overlap = window[0] - 1
        self._weights = tuple(gaussian_weights(n) for n in window)
        self._tf: list[NDArray[np.float64]] = []
        self._three_d: list[NDArray[np.float64]] = []

    def add(self, first: NDArray[np.float32], second: NDArray[np.float32], fresh: int) -> None:
        """Take slabs (Z, Y, X) of both volumes, whose last ``fresh`` planes are new."""
        start = max(0, len(first) - fresh - self.overlap)
        if len(first) - start > self.overlap:
            tf, three_d = ssim_of_slab(first[start:], second[start:], self._weights)
            self._tf.append(tf)
            self._three_d.append(three_d)

    def result(self) -> SsimByDepth:
        """SSIM of everything that was added."""
        return SsimByDepth(np.concatenate(self._tf), np.concatenate(self._three_d), self.overlap // 2)


def ssim_of_slab(
    first: NDArray[np.float32], second: NDArray[np.float32], weights_zyx: tuple[NDArray[np.float64], ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean SSIM per plane of two slabs, for all planes whose window lies inside the slab."""
    weights_z, weights_y, weights_x = weights_zyx
    constants = np.array([[(k * DATA_RANGE[r]) ** 2 for k in (K1, K2)] for r in READINGS], dtype=np.float64)
    sums = np.zeros((2, len(first) - len(weights_z) + 1))

    def loop(start: int, stop: int) -> None:
        _ssim_planes(first, second, weights_z, weights_y, weights_x, constants, start, stop, sums)

    in_threads(loop, sums.shape[1])
    _, height, width = first.shape
    rows = height - len(weights_y) + 1
    columns = width - len(weights_x) + 1
    return sums[0] / (rows * width), sums[1] / (rows * columns)


def ssim(first: NDArray[Any], second: NDArray[Any], reading: Reading) -> float:
    """SSIM of two volumes in memory, without normalising them.

    Parameters
    ----------
    first, second : (Z, Y, X) volumes of the same shape
    reading : "tf" (range 10, window over Z-Y) or "3d" (range 1, window over Z-Y-X)

    Raises
    ------
    VolumeError
        When the shapes differ or are not three-dimensional.
    """
    return ssim_by_depth(first, second).mean(reading)


def ssim_by_depth(first: NDArray[Any], second: NDArray[Any]) -> SsimByDepth:
    """SSIM of two volumes in memory, plane by plane; see `ssim`."""
    if first.ndim != 3 or first.shape != second.shape or 0 in first.shape:
        raise VolumeError(
            f"SSIM: expected two volumes (Z, Y, X) of one shape, got {first.shape} and {second.shape}"
        )
    shape = first.shape[0], first.shape[1], first.shape[2]
    weights = tuple(gaussian_weights(n) for n in window_zyx(shape))
    tf, three_d = ssim_of_slab(_plain(first), _plain(second), weights)
    return SsimByDepth(tf, three_d, window_zyx(shape)[0] // 2)


def _plain(data: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(data, dtype=np.float32)


@compiled(fastmath=True)
def _sum_along_z(first: Any, second: Any, plane: int, row: int, weights: Any, out: Any) -> None:
    """Weighted moments along Z of one row: mean of a, of b, of a² + b², of ab."""
    width = first.shape[2]
    out[:] = 0.0
    for k in range(len(weights)):
        weight = weights[k]
        for x in range(width):
            a = np.float64(first[plane + k, row, x])
            b = np.float64(second[plane + k, row, x])
            out[0, x] += weight * a
            out[1, x] += weight * b
            out[2, x] += weight * (a * a + b * b)
            out[3, x] += weight * (a * b)


@compiled(fastmath=True)
def _sum_along_y(ring: Any, row: int, weights: Any, out: Any) -> None:
    """Weighted sum of the rows of a ring buffer; ``row`` is the first row of the window."""
    size = len(weights)
    out[:] = 0.0
    for k in range(size):
        weight = weights[k]
        place = (row + k) % size
        for m in range(out.shape[0]):
            for x in range(out.shape[1]):
                out[m, x] += weight * ring[place, m, x]


@compiled(fastmath=True)
def _sum_along_x(moments: Any, weights: Any, out: Any) -> None:
    columns = moments.shape[1] - len(weights) + 1
    for m in range(moments.shape[0]):
        for x in range(columns):
            out[m, x] = 0.0
        for k in range(len(weights)):
            weight = weights[k]
            for x in range(columns):
                out[m, x] += weight * moments[m, x + k]


@compiled(fastmath=True)
def _similarity(moments: Any, columns: int, c1: float, c2: float) -> float:
    """Sum of SSIM over a row of places, from their four moments."""
    total = 0.0
    for x in range(columns):
        mean_a = moments[0, x]
        mean_b = moments[1, x]
        product = 2.0 * mean_a * mean_b
        squares = mean_a * mean_a + mean_b * mean_b
        covariance = 2.0 * moments[3, x] - product
        variances = moments[2, x] - squares
        total += (product + c1) * (covariance + c2) / ((squares + c1) * (variances + c2))
    return total


@compiled(fastmath=True)
def _ssim_planes(
    first: Any,
    second: Any,
    weights_z: Any,
    weights_y: Any,
    weights_x: Any,
    constants: Any,
    start: int,
    stop: int,
    sums: Any,
) -> None:
    """Sum SSIM over each plane from ``start`` to ``stop``, both readings, into ``sums`` (2, planes)."""
    height, width = first.shape[1], first.shape[2]
    size = len(weights_y)
    columns = width - len(weights_x) + 1
    ring = np.empty((size, _MOMENTS, width))
    moments = np.empty((_MOMENTS, width))
    windowed = np.empty((_MOMENTS, columns))
    for z in range(start, stop):
        for y in range(height):
            _sum_along_z(first, second, z, y, weights_z, ring[y % size])
            top = y - size + 1
            if top >= 0:
                _sum_along_y(ring, top, weights_y, moments)
                sums[0, z] += _similarity(moments, width, constants[0, 0], constants[0, 1])
                _sum_along_x(moments, weights_x, windowed)
                sums[1, z] += _similarity(windowed, columns, constants[1, 0], constants[1, 1])
