"""Percentiles of wide numbers (32 and 64 bits): exact and without a sorted copy, 16 bits at a time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.core.jit import compiled

_DIGIT = 16
_LEVELS = 1 << _DIGIT
_FORMS = {"u": 0, "i": 1, "f": 2}


def percentiles_of_wide(pieces: Iterable[NDArray[Any]], q: Sequence[float]) -> tuple[float, ...]:
    """Percentiles of all voxels, equal to ``numpy.percentile`` (linear) of them in float64.

    The numbers are read twice if they have 32 bits, four times if they have 64.

    Parameters
    ----------
    pieces : arrays of one type, whole or real; can be gone through several times

    Raises
    ------
    VolumeError
        When there is no voxel, or a percentile is NaN or infinite.
    """
    top: dict[int, NDArray[np.int64]] = {0: np.zeros(_LEVELS, np.int64)}
    order = None
    for piece in pieces:
        order = order or _Order.of(piece.dtype)
        order.count(piece, order.bits - _DIGIT, top)
    voxels = int(top[0].sum())
    if order is None or voxels == 0:
        raise VolumeError("percentiles: expected at least one voxel, got an empty volume")
    ranks = sorted({rank for percent in q for rank in _neighbours(voxels, percent)})
    found = {rank: _digit(top[0], rank, 0) for rank in ranks}
    for shift in range(order.bits - 2 * _DIGIT, -1, -_DIGIT):
        tables = {prefix: np.zeros(_LEVELS, np.int64) for prefix, _ in found.values()}
        for piece in pieces:
            order.count(piece, shift, tables)
        found = {r: _digit(tables[prefix], left, prefix) for r, (prefix, left) in found.items()}
    numbers = {rank: order.number(key) for rank, (key, _) in found.items()}
    result = tuple(between(numbers.__getitem__, voxels, percent) for percent in q)
    if not np.isfinite(result).all():
        raise VolumeError("percentiles: expected finite intensities, got NaN or infinity")
    return result


def between(value_at: Callable[[int], float], voxels: int, percent: float) -> float:
    """Linear interpolation between the two neighbouring order statistics, with numpy's own rounding."""
    position = percent / 100.0 * (voxels - 1)
    rank, after = _neighbours(voxels, percent)
    lower, upper = value_at(rank), value_at(after)
    part = position - rank
    if part >= 0.5:
        return float(upper - (upper - lower) * (1.0 - part))
    return float(lower + (upper - lower) * part)


def _neighbours(voxels: int, percent: float) -> tuple[int, int]:
    rank = int(np.floor(percent / 100.0 * (voxels - 1)))
    return rank, min(rank + 1, voxels - 1)


def _digit(table: NDArray[np.int64], rank: int, prefix: int) -> tuple[int, int]:
    """Key so far, lengthened by the digit at which ``rank`` lies, and the rank among the numbers with it."""
    below = np.cumsum(table)
    digit = int(np.searchsorted(below, rank, side="right"))
    return prefix << _DIGIT | digit, rank - (int(below[digit - 1]) if digit else 0)


@dataclass(frozen=True)
class _Order:
    """Keys of a type's numbers: unsigned, and ascending as the numbers are.

    Attributes
    ----------
    dtype : of the numbers, 4 or 8 bytes
    bits : of a key
    form : 0 unsigned, 1 signed, 2 real
    """

    dtype: np.dtype[Any]
    bits: int
    form: int

    @classmethod
    def of(cls, given: np.dtype[Any]) -> "_Order":
        dtype = np.dtype(given.type) if given.itemsize >= 4 else np.dtype(np.float32)
        return cls(dtype, 8 * dtype.itemsize, _FORMS[dtype.kind])

    def count(self, piece: NDArray[Any], shift: int, tables: dict[int, NDArray[np.int64]]) -> None:
        """Count the digits at ``shift`` of the numbers whose digits above are a table's prefix."""
        flat = np.ascontiguousarray(piece, self.dtype).reshape(-1)
        bits = flat.view(f"u{self.dtype.itemsize}")
        sign = np.uint64(1 << (self.bits - 1))
        for prefix, table in tables.items():
            _count_digits(bits, sign, self.form, np.uint64(shift), np.uint64(prefix), table)

    def number(self, key: int) -> float:
        """Return the number of a key."""
        sign, every = 1 << (self.bits - 1), (1 << self.bits) - 1
        if self.form:
            key ^= sign if self.form == _FORMS["i"] or key & sign else every
        return float(np.array([key], f"u{self.dtype.itemsize}").view(self.dtype)[0])


@compiled()
def _count_digits(bits: Any, sign: Any, form: int, shift: Any, prefix: Any, table: Any) -> None:
    every = sign | (sign - np.uint64(1))
    mask = np.uint64(0xFFFF)
    for i in range(bits.size):
        key = np.uint64(bits[i])
        if form == 2 and key & sign:
            key ^= every
        elif form:
            key ^= sign
        digits = key >> shift
        if digits >> np.uint64(16) == prefix:
            table[digits & mask] += 1
