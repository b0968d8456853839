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
        """Turn counts into normalised float32, not clipped."""
        out = np.empty(counts.shape, np.float32)
        _affine(np.ascontiguousarray(counts).reshape(-1), out.reshape(-1), 1.0 / self.range, self.offset)
        return out

    def undo(self, normalized: NDArray[Any]) -> NDArray[np.float32]:
        """Turn normalised numbers back into counts, float32 and not rounded."""
        flat = np.ascontiguousarray(normalized).reshape(-1)
        out = np.empty(normalized.shape, np.float32)
        _affine(flat, out.reshape(-1), self.range, -self.offset / self.range)
        return out

    def undo_to(self, normalized: NDArray[Any], dtype: Any) -> NDArray[Any]:
        """Turn normalised numbers back into counts of a type, rounded and clipped if that is an integer type.

        Exact for uint16: float32 keeps 24 bits, so the error before rounding is below 65535 / 2**24.
        """
        counts = self.undo(normalized)
        kind = np.dtype(dtype)
        if kind.kind not in "ui":
            return counts.astype(kind, copy=False)
        limits = np.iinfo(kind)
        np.rint(counts, out=counts)
        np.clip(counts, limits.min, limits.max, out=counts)
        return counts.astype(kind)


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

    Counts (8 and 16 bit) need one pass. Floats need up to five over the pieces, so that a one-shot
    iterator of floats is first collected in memory.
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
    return _percentiles_of_floats(pieces, q)


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

    low, high = (_between(value_at, voxels, percent) for percent in q)
    return low, high


def _between(value_at: Any, voxels: int, percent: float) -> float:
    """Linear interpolation between the two neighbouring order statistics, with numpy's own rounding."""
    position = percent / 100.0 * (voxels - 1)
    rank = int(np.floor(position))
    lower, upper = value_at(rank), value_at(min(rank + 1, voxels - 1))
    part = position - rank
    if part >= 0.5:
        return float(upper - (upper - lower) * (1.0 - part))
    return float(lower + (upper - lower) * part)


def _percentiles_of_floats(pieces: Iterable[NDArray[Any]], q: tuple[float, float]) -> tuple[float, float]:
    """Order statistics by the upper, then the lower 16 bits of the numbers: exact, without a sorted copy."""
    high_table = np.zeros(_LEVELS, np.int64)
    for piece in pieces:
        _count_upper(_flat_float32(piece), high_table)
    below = np.cumsum(high_table)
    voxels = int(below[-1])
    if voxels == 0:
        raise VolumeError("percentiles: expected at least one voxel, got an empty volume")
    lower_tables: dict[int, NDArray[np.int64]] = {}

    def value_at(rank: int) -> float:
        upper = int(np.searchsorted(below, rank, side="right"))
        if upper not in lower_tables:
            table = np.zeros(_LEVELS, np.int64)
            for piece in pieces:
                _count_lower(_flat_float32(piece), upper, table)
            lower_tables[upper] = np.cumsum(table)
        before = int(below[upper - 1]) if upper else 0
        lower = int(np.searchsorted(lower_tables[upper], rank - before, side="right"))
        return _number_of_key(upper << 16 | lower)

    low, high = (_between(value_at, voxels, percent) for percent in q)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VolumeError("percentiles: expected finite intensities, got NaN or infinity")
    return low, high


def _flat_float32(piece: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(piece, np.float32).reshape(-1)


def _number_of_key(key: int) -> float:
    bits = key ^ 0x80000000 if key & 0x80000000 else key ^ 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])


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
def _key(bits: Any) -> Any:
    """Order-preserving unsigned number of a float's bits."""
    if bits & np.uint32(0x80000000):
        return bits ^ np.uint32(0xFFFFFFFF)
    return bits ^ np.uint32(0x80000000)


@compiled()
def _count_upper(numbers: Any, table: Any) -> None:
    bits = numbers.view(np.uint32)
    for i in range(bits.size):
        table[_key(bits[i]) >> np.uint32(16)] += 1


@compiled()
def _count_lower(numbers: Any, upper: int, table: Any) -> None:
    bits = numbers.view(np.uint32)
    for i in range(bits.size):
        key = _key(bits[i])
        if key >> np.uint32(16) == upper:
            table[key & np.uint32(0xFFFF)] += 1


@compiled()
def _affine(flat: Any, out: Any, factor: float, offset: float) -> None:
    """Write ``(flat - offset) * factor``; in float64, so that the result is rounded once."""
    for i in range(flat.size):
        out[i] = np.float32((np.float64(flat[i]) - offset) * factor)
