"""One read of a volume that gives all that conversion needs to know: the histogram and a coarse picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import NoSpecimenError, VolumeError
from lightsheet.core.intensity import (
    Normalization,
    Slabs,
    percentiles,
    percentiles_of_histogram,
)
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.volumes.result_types import real_type

_LEVELS = 1 << 16
# Small enough that the memory of one slab is used again for the next instead of being returned.
_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True)
class Survey:
    """What one read has told.

    Attributes
    ----------
    normalization : from percentiles 2 and 99.8 of all voxels, exact
    means : mean of the blocks of ``block_zyx`` voxels (edge blocks: of the voxels they have), float32, or
        float64 where that would merge them
    block_zyx : voxels of a block; block ``i`` is centred at voxel ``i * b + (b - 1) / 2``
    shape_zyx : voxels of the volume
    """

    normalization: Normalization
    means: NDArray[Any]
    block_zyx: ZYX
    shape_zyx: ZYX


def check_shape(shape: tuple[int, ...], source: str) -> None:
    """Refuse what isn't a volume (Z, Y, X)."""
    if len(shape) != 3 or min(shape) < 1:
        raise VolumeError(f"{source}: expected a volume (Z, Y, X), got the shape {shape}")


def block_for(shape_zyx: ZYX, spacing_um: SpacingUm, cells: int) -> ZYX:
    """Voxels per block, so that blocks are about as long as wide in micrometres and about ``cells`` many.

    An axis keeps at least 16 blocks, or its voxels if it has fewer.
    """
    extent = [n * s for n, s in zip(shape_zyx, spacing_um, strict=True)]
    edge = (float(np.prod(extent)) / cells) ** (1 / 3)
    z, y, x = (max(1, min(round(edge / s), n // 16)) for n, s in zip(shape_zyx, spacing_um, strict=True))
    return z, y, x


def survey_volume(data: NDArray[Any] | Slabs, block_zyx: ZYX, source: str) -> Survey:
    """Read a volume once (floats: a few times) and return histogram, percentiles and block means.

    Raises
    ------
    VolumeError
        When the volume is not 3D, or all voxels have the same number, or most are saturated.
    """
    shape: ZYX = data.shape if isinstance(data, np.ndarray) else data.info.shape_zyx
    check_shape(shape, source)
    sums = np.zeros([-(-n // b) for n, b in zip(shape, block_zyx, strict=True)], np.float64)
    table = np.zeros(_LEVELS, np.int64)
    counts = False
    top = 0
    for z0, slab in _slabs(data, shape, block_zyx[0]):
        counts = slab.dtype in (np.uint16, np.uint8)
        top = int(np.iinfo(slab.dtype).max) if counts else 0
        _add_slab(slab, z0 // block_zyx[0], block_zyx, sums, table if counts else None)
    averages = _means(sums, shape, block_zyx)
    if counts:
        low, high = percentiles_of_histogram(table, (2.0, 99.8))
        filled = np.flatnonzero(table)
        smallest, largest = float(filled[0]), float(filled[-1])
        saturated = float(table[top] / table.sum())
    else:
        low, high = percentiles(data)
        smallest, largest = float(averages.min()), float(averages.max())
        saturated = 0.0
    if not np.isfinite([smallest, largest]).all():
        raise VolumeError(f"{source}: expected finite intensities, got NaN or infinity")
    if smallest == largest:
        raise NoSpecimenError(f"{source}: expected an image, got the same number {smallest:g} in all voxels")
    if counts and saturated > 0.5:
        raise NoSpecimenError(
            f"{source}: expected an image, got {100 * saturated:.0f} percent of the voxels saturated at {top}"
        )
    means = averages.astype(np.float32 if counts else real_type(low, high))
    return Survey(Normalization(low, high), means, block_zyx, shape)


def _slabs(data: NDArray[Any] | Slabs, shape: ZYX, block_z: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Slabs of a bounded size that begin at a block's first plane."""
    blocks = max(1, _SLAB_VOXELS // (shape[1] * shape[2] * block_z))
    for z in range(0, shape[0], blocks * block_z):
        stop = min(z + blocks * block_z, shape[0])
        yield z, data[z:stop] if isinstance(data, np.ndarray) else data.read(z, stop)


def _add_slab(
    slab: NDArray[Any], first: int, block: ZYX, sums: NDArray[np.float64], table: NDArray[np.int64] | None
) -> None:
    voxels = np.ascontiguousarray(slab)
    partial: list[NDArray[np.uint32]] = []

    def loop(start: int, stop: int) -> None:
        part = voxels[start * block[0] : stop * block[0]]
        target = sums[first + start : first + stop]
        if table is None:
            _sum_blocks(part, block[0], block[1], block[2], target)
        else:
            tables = np.zeros((4, _LEVELS), np.uint32)
            _sum_and_count(part, block[0], block[1], block[2], target, tables)
            partial.append(tables)

    in_threads(loop, -(-voxels.shape[0] // block[0]))
    if table is not None:
        for tables in partial:
            table += tables.sum(axis=0, dtype=np.int64)


def _means(sums: NDArray[np.float64], shape: ZYX, block: ZYX) -> NDArray[np.float64]:
    for axis, (n, b, cells) in enumerate(zip(shape, block, sums.shape, strict=True)):
        sizes = np.minimum(b, n - b * np.arange(cells)).astype(np.float64)
        sums /= sizes.reshape([-1 if a == axis else 1 for a in range(3)])
    return sums


@compiled()
def _sum_and_count(slab: Any, bz: int, by: int, bx: int, sums: Any, tables: Any) -> None:
    size_z, size_y, size_x = slab.shape
    whole = size_x // bx
    for z in range(size_z):
        for y in range(size_y):
            for i in range(whole):
                total = 0
                for x in range(i * bx, (i + 1) * bx):
                    value = slab[z, y, x]
                    total += value
                    tables[x & 3, value] += 1
                sums[z // bz, y // by, i] += total
            for x in range(whole * bx, size_x):
                value = slab[z, y, x]
                tables[x & 3, value] += 1
                sums[z // bz, y // by, whole] += value


@compiled()
def _sum_blocks(slab: Any, bz: int, by: int, bx: int, sums: Any) -> None:
    for z in range(slab.shape[0]):
        for y in range(slab.shape[1]):
            for x in range(slab.shape[2]):
                sums[z // bz, y // by, x // bx] += slab[z, y, x]
