"""Tiles that cover a volume, and the windows that blend them without a seam.

A tile reads a box, its outer margin (the halo) is thrown away, and what is left is blended with its
neighbours. The weights are products of three one-dimensional windows. Each of these is made to sum to one
over the tiles of its axis, so that the products sum to one at every voxel: a partition of unity. Weighting
in three dimensions and dividing afterwards needs a second volume of weights, and clamped weights (as of
some libraries' Gaussians) leave hard edges where two axes overlap.

Tiles begin at multiples of the network's stride, counted from the volume's first voxel. A network then
computes the same numbers for a voxel in whatever tile it lies, as far as its receptive field reaches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.errors import SettingsError

_AXES = "ZYX"


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in voxels.

    Attributes
    ----------
    start, stop : what the network sees; may reach beyond the volume's end, where the volume is mirrored
    first, last : what the tile contributes to, without ``last``; inside the volume
    window : float32 weights of these voxels, in (0, 1]; over the spans of an axis they sum to one
    """

    start: int
    stop: int
    first: int
    last: int
    window: NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A box to read, the part of it to keep, and the weights of that part.

    Attributes
    ----------
    spans : its spans along Z, Y and X
    """

    spans: tuple[Span, Span, Span]

    @property
    def read(self) -> Region:
        """What the network sees, in voxels of the volume; may reach beyond its end."""
        z, y, x = (slice(s.start, s.stop) for s in self.spans)
        return z, y, x

    @property
    def write(self) -> Region:
        """What the tile contributes to, in voxels of the volume."""
        z, y, x = (slice(s.first, s.last) for s in self.spans)
        return z, y, x

    @property
    def inner(self) -> Region:
        """The same voxels as ``write``, counted from the first voxel of ``read``."""
        z, y, x = (slice(s.first - s.start, s.last - s.start) for s in self.spans)
        return z, y, x

    @property
    def voxels(self) -> int:
        """Voxels the network sees."""
        return math.prod(s.stop - s.start for s in self.spans)

    def weighted(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weigh ``values`` (of the size of ``write``) by the windows of the three axes, in place."""
        z, y, x = (s.window for s in self.spans)
        values *= z[:, None, None]
        values *= y[None, :, None]
        values *= x[None, None, :]
        return values


@dataclass(frozen=True)
class TilePlan:
    """All tiles of a volume: the product of the spans of the three axes.

    Attributes
    ----------
    shape_zyx : the volume
    tile_zyx : what the network sees at a time
    overlap_zyx : smallest overlap of neighbouring tiles
    halo_zyx : voxels thrown away at each inner side of a tile
    axes : spans along Z, Y and X
    """

    shape_zyx: ZYX
    tile_zyx: ZYX
    overlap_zyx: ZYX
    halo_zyx: ZYX
    axes: tuple[tuple[Span, ...], tuple[Span, ...], tuple[Span, ...]]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(spans) for spans in self.axes)

    @property
    def cuts_zyx(self) -> tuple[list[int], list[int], list[int]]:
        """Planes along Z, Y and X where a tile begins or ends to contribute: where seams could show."""
        z, y, x = (
            sorted({edge for span in spans for edge in (span.first, span.last)} - {0, size})
            for spans, size in zip(self.axes, self.shape_zyx, strict=True)
        )
        return z, y, x

    def rows(self) -> Iterator[tuple[Span, list[Tile]]]:
        """Tiles of equal Z, in order along Z: what is before the next row's ``first`` is then finished."""
        zs, ys, xs = self.axes
        for z in zs:
            yield z, [Tile((z, y, x)) for y in ys for x in xs]

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row."""
        for _, row in self.rows():
            yield from row


def plan_tiles(
    shape_zyx: ZYX,
    tile_zyx: ZYX,
    overlap_zyx: ZYX,
    stride_zyx: ZYX = (1, 1, 1),
    halo_zyx: ZYX | None = None,
    *,
    cut: bool = True,
    padded_zyx: ZYX | None = None,
) -> TilePlan:
    """Cover a volume with tiles of one size.

    Parameters
    ----------
    shape_zyx : the volume
    tile_zyx : size of a tile, multiples of the stride; an axis of the volume that is shorter is covered by
        one tile, cut down to the volume's end rounded up to the stride
    overlap_zyx : least overlap of neighbours, which are spread evenly and may overlap more
    stride_zyx : tiles begin at multiples of this
    halo_zyx : receptive field of the network to one side. Where the overlap holds it twice, this much is
        thrown away and the result does not depend on the tiles. Otherwise three eighths of the overlap are
        thrown away at each side, where a network's border effects are largest, and a quarter is blended.
        None: unlimited; a quarter is thrown away at each side and half of the overlap is blended.
    cut : cut tiles down to an axis that is shorter; False for networks that take one size only
    padded_zyx : size of the volume with its mirrored end, up to which tiles read; by default rounded up to
        the stride

    Raises
    ------
    SettingsError
        When a tile is no multiple of the stride or the overlap leaves no step of at least one stride.
    """
    axes = []
    for axis in range(3):
        _check(axis, tile_zyx[axis], overlap_zyx[axis], stride_zyx[axis])
        size = tile_zyx[axis]
        end = shape_zyx[axis] if padded_zyx is None else padded_zyx[axis]
        if cut:
            size = min(size, round_up(end, stride_zyx[axis]))
        starts = _starts(end, size, overlap_zyx[axis], stride_zyx[axis], axis)
        halo = _halo(starts, size, None if halo_zyx is None else halo_zyx[axis])
        axes.append((size, halo, _spans(shape_zyx[axis], size, starts, halo)))
    (tz, hz, z), (ty, hy, y), (tx, hx, x) = axes
    return TilePlan(shape_zyx, (tz, ty, tx), overlap_zyx, (hz, hy, hx), (z, y, x))


def round_up(size: int, stride: int) -> int:
    """Smallest multiple of ``stride`` that is at least ``size``."""
    return -(-size // stride) * stride


def mirrored(channels: NDArray[np.float32], size_zyx: ZYX) -> NDArray[np.float32]:
    """Continue (C, Z, Y, X) beyond its end up to a size, by its mirror image without the last voxel."""
    beyond = [(0, size - n) for size, n in zip(size_zyx, channels.shape[1:], strict=True)]
    if not any(after for _, after in beyond):
        return channels
    return np.pad(channels, [(0, 0), *beyond], mode="reflect")


def tiles_along(size: int, tile: int, overlap: int, stride: int) -> int:
    """Return the number of tiles that cover ``size`` voxels with at least ``overlap``."""
    padded = round_up(size, stride)
    return 1 if tile >= padded else 1 + -(-(padded - tile) // _step(tile, overlap, stride))


def fitted_tile(size: int, count: int, overlap: int, stride: int) -> int:
    """Return the smallest tile, a multiple of ``stride``, of which ``count`` cover ``size`` voxels."""
    padded = round_up(size, stride)
    tile = round_up(-(-(padded + (count - 1) * overlap) // count), stride)
    while count > 1 and (tile - overlap < stride or tiles_along(size, tile, overlap, stride) > count):
        tile += stride
    return min(tile, padded)


def _check(axis: int, tile: int, overlap: int, stride: int) -> None:
    if tile < 1 or tile % stride:
        raise SettingsError(
            f"--patch_size: expected a multiple of the network's stride {stride} along {_AXES[axis]}, "
            f"got {tile}"
        )
    if overlap < 0:
        raise SettingsError(f"--overlap: expected at least 0 along {_AXES[axis]}, got {overlap}")


def _step(tile: int, overlap: int, stride: int) -> int:
    return (tile - overlap) // stride * stride


def _starts(size: int, tile: int, overlap: int, stride: int, axis: int) -> list[int]:
    """First voxels of the tiles, spread evenly, at multiples of the stride."""
    padded = round_up(size, stride)
    if tile >= padded:
        return [0]
    if _step(tile, overlap, stride) < stride:
        raise SettingsError(
            f"--overlap: expected at most {tile - stride} along {_AXES[axis]} for tiles of {tile} "
            f"and a network of stride {stride}, got {overlap}"
        )
    last = tiles_along(size, tile, overlap, stride) - 1
    steps = (padded - tile) // stride
    return [i * steps // last * stride for i in range(last + 1)]


def _halo(starts: list[int], tile: int, reach: int | None) -> int:
    """Voxels to throw away at each side, from the least overlap that the tiles really have."""
    if len(starts) == 1:
        return 0
    overlap = tile - max(b - a for a, b in pairwise(starts))
    if reach is None:
        return overlap // 4
    return reach if 2 * reach <= overlap else overlap * 3 // 8


def _spans(size: int, tile: int, starts: list[int], halo: int) -> tuple[Span, ...]:
    """Windows of raised cosines over what neighbours share, divided by their sum along the axis."""
    windows = np.zeros((len(starts), size), np.float64)
    for i, start in enumerate(starts):
        stop = min(start + tile, size)
        centres = np.arange(start, stop, dtype=np.float64) + 0.5
        windows[i, start:stop] = 1.0
        if i:
            windows[i, start:stop] *= _ramp(centres, *_shared(start, starts[i - 1] + tile, halo))
        if i + 1 < len(starts):
            windows[i, start:stop] *= 1.0 - _ramp(centres, *_shared(starts[i + 1], start + tile, halo))
    windows /= windows.sum(axis=0)
    spans = []
    for start, window in zip(starts, windows, strict=True):
        inside = np.flatnonzero(window)
        first, last = int(inside[0]), int(inside[-1]) + 1
        spans.append(Span(start, start + tile, first, last, window[first:last].astype(np.float32)))
    return tuple(spans)


def _shared(start: int, stop: int, halo: int) -> tuple[int, int]:
    """Return the range that two tiles blend; an odd number of voxels if there is more than one.

    Where a network's own fine pattern repeats every two voxels, half of the cuts then lie on either of its
    places, and an index of gradients on the cuts does not take the pattern for seams.
    """
    begin, end = start + halo, stop - halo
    length = end - begin
    return begin, end - (1 if length > 1 and length % 2 == 0 else 0)


def _ramp(centres: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
    """0 before ``begin``, 1 after ``end``, a raised cosine between; a step where both are the same."""
    if end <= begin:
        return np.where(centres < (begin + end) / 2, 0.0, 1.0)
    share = np.clip((centres - begin) / (end - begin), 0.0, 1.0)
    return np.asarray(np.sin(0.5 * np.pi * share) ** 2)
