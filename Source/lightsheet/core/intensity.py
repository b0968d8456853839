"""Intensity percentiles, exact and in one read, and the normalisation made from them.

The definition is the challenge's: percentile 2 becomes 0, percentile 99.8 becomes 1, nothing is clipped,
and a volume whose two percentiles are equal is returned as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import HIGH_PERCENTILE, LOW_PERCENTILE, ZYX
from lightsheet.core.errors import VolumeError
from lightsheet.core.jit import compiled
from lightsheet.core.order_statistics import between, percentiles_of_wide
from lightsheet.core.threads import in_threads

_LEVELS = 1 << 16
_SLAB_PLANES = 32
# Four tables side by side: equal neighbours then don't wait for each other's increment.
_TABLES = 4


@dataclass(frozen=True)
class Normalization:
    """The line that maps counts to normalised intensity, and back.

    Attributes
    ----------
    low, high : counts that become 0 and 1 (percentiles 2 and 99.8)
    """

    low: float
    high: float

    @property
    def range(self) -> float:
        """Counts per unit of normalised intensity; 1 where both percentiles are equal."""
        return self.high - self.low if self.high > self.low else 1.0

    @property
    def offset(self) -> float:
        """Counts at normalised intensity 0; 0 where both percentiles are equal."""
        return self.low if self.high > self.low else 0.0

    def apply(self, counts: NDArray[Any]) -> NDArray[np.float32]:
        """Turn counts into normalised float32, not clipped; reckoned in float64 and rounded once."""
        out = np.empty(counts.shape, np.float32)
        _affine(_flat(counts), out.reshape(-1), 1.0 / self.range, self.offset)
        return out

    def undo(self, normalized: NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
        """Turn normalised numbers back into counts, not rounded to whole ones.

        Parameters
        ----------
        dtype : float64 for counts that float32 does not resolve (see `volumes.result_types.real_type`)
        """
        out = np.empty(normalized.shape, dtype)
        _affine(_flat(normalized), out.reshape(-1), self.range, -self.offset / self.range)
        return out

    def undo_to(self, normalized: NDArray[Any], dtype: Any) -> NDArray[Any]:
        """Turn normalised numbers back into counts of a type, rounded and clipped if that is an integer type.

        Exact for 8 and 16 bits: float32 keeps 24, so the error before rounding is below 65535 / 2**24.
        """
        kind = np.dtype(dtype)
        if kind.kind not in "ui":
            return self.undo(normalized, kind)
        counts = self.undo(normalized, np.float32 if kind.itemsize <= 2 else np.float64)
        np.rint(counts, out=counts)
        np.clip(counts, *limits_of(kind), out=counts)
        return counts.astype(kind)


def limits_of(dtype: Any) -> tuple[float, float]:
    """Lowest and highest number of float64 that a type holds."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "ui" else np.finfo(kind)
    highest = float(limits.max)
    # The largest whole numbers of 64 bits are none of float64; the next one above would wrap.
    beyond = kind.kind in "ui" and int(highest) > limits.max
    return float(limits.min), float(np.nextafter(highest, 0)) if beyond else highest


class Slabs(Protocol):
    """What a lazy volume offers: its shape and type, and planes ``z0`` to ``z1`` on demand."""

    @property
    def info(self) -> Any:
        """The volume's ``VolumeInfo``."""

    def read(self, z0: int, z1: int) -> NDArray[Any]:
        """Planes from ``z0`` to before ``z1``, (Z, Y, X)."""


def percentiles(
    data: NDArray[Any] | Slabs, q: tuple[float, float] = (LOW_PERCENTILE, HIGH_PERCENTILE)
) -> tuple[float, float]:
    """Two percentiles of all voxels, equal to ``numpy.percentile`` (linear), in one read for counts.

    Parameters
    ----------
    data : array of any shape, or a lazy volume, which is then read slab by slab

    Raises
    ------
    VolumeError
        When there is no voxel, or a float volume holds NaN.
    """
    if isinstance(data, np.ndarray):
        return percentiles_of_slabs([data], q)
    return percentiles_of_slabs(_SlabList(data), q)


def percentiles_of_slabs(
    slabs: Iterable[NDArray[Any]], q: tuple[float, float] = (LOW_PERCENTILE, HIGH_PERCENTILE)
) -> tuple[float, float]:
    """Like :func:`percentiles` for a volume that comes in pieces.

    Counts (8 and 16 bit) need one pass. Other numbers need two (32 bits) or four (64 bits) over the pieces,
    so that a one-shot iterator of these is first collected in memory.
    """
    pieces: Iterable[NDArray[Any]] = slabs
    iterator = iter(slabs)
    first = next(iterator, None)
    if first is None:
        raise VolumeError("percentiles: expected at least one voxel, got an empty volume")
    if first.dtype.kind in "ui" and first.dtype.itemsize <= 2:
        lowest = int(np.iinfo(first.dtype).min)
        table = np.zeros(_LEVELS, np.int64)
        for piece in _chain(first, iterator):
            table += histogram(piece)
        return percentiles_of_histogram(table, q, lowest)
    if iter(slabs) is slabs:
        pieces = [first, *iterator]
    low, high = percentiles_of_wide(pieces, q)
    return low, high


def histogram(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Count the voxels of each of the 65,536 numbers of an 8 or 16 bit volume (signed: shifted by 32,768)."""
    flat = np.ascontiguousarray(counts).reshape(-1)
    shift = -int(np.iinfo(flat.dtype).min)
    partial: list[NDArray[np.int64]] = []

    def loop(start: int, stop: int) -> None:
        tables = np.zeros((_TABLES, _LEVELS), np.int64)
        _count(flat[start:stop], tables, shift)
        partial.append(tables)

    in_threads(loop, flat.size)
    total = np.zeros(_LEVELS, np.int64)
    for tables in partial:
        total += tables.sum(axis=0)
    return total


def percentiles_of_histogram(
    table: NDArray[np.int64], q: tuple[float, float], lowest: int = 0
) -> tuple[float, float]:
    """Percentiles (linear interpolation between order statistics, as numpy) of voxels counted by number.

    Parameters
    ----------
    lowest : number that the first entry of ``table`` counts
    """
    below = np.cumsum(table)
    voxels = int(below[-1])
    if voxels == 0:
        raise VolumeError("percentiles: expected at least one voxel, got an empty volume")

    def value_at(rank: int) -> float:
        return float(np.searchsorted(below, rank, side="right") + lowest)

    low, high = (between(value_at, voxels, percent) for percent in q)
    return low, high


def _flat(numbers: NDArray[Any]) -> NDArray[Any]:
    """Numbers in one row, of a type that compiled loops know: half floats become float32, which is exact."""
    half = numbers.dtype == np.float16
    return np.ascontiguousarray(numbers, np.float32 if half else None).reshape(-1)


def _chain(first: NDArray[Any], rest: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    yield first
    yield from rest


class _SlabList:
    """A lazy volume as something that can be gone through several times."""

    def __init__(self, volume: Slabs) -> None:
        self.volume = volume

    def __iter__(self) -> Iterator[NDArray[Any]]:
        shape: ZYX = self.volume.info.shape_zyx
        return (
            self.volume.read(z, min(z + _SLAB_PLANES, shape[0])) for z in range(0, shape[0], _SLAB_PLANES)
        )


@compiled()
def _count(flat: Any, tables: Any, shift: int) -> None:
    for i in range(flat.size):
        tables[i & 3, np.int64(flat[i]) + shift] += 1


@compiled()
def _affine(flat: Any, out: Any, factor: float, offset: float) -> None:
    """Write ``(flat - offset) * factor``; in float64, so that the result is rounded once."""
    for i in range(flat.size):
        out[i] = (np.float64(flat[i]) - offset) * factor
