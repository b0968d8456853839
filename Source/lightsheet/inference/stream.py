"""Maps of a volume, computed by rows of tiles in order along Z and kept only while they are needed.

A row's tiles are pipelined: while one is computed, a thread prepares the next, and the one before is added
to the sums.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.intensity import Slabs
from lightsheet.core.tiles import Span, Tile, TilePlan, mirrored
from lightsheet.inference.inputs import Inputs
from lightsheet.runtimes.runtime import Floats, Pending

T = TypeVar("T")
_PLANES_AT_ONCE = 16


class OutOfTime(Exception):
    """The time for a prediction is up."""


class Sums:
    """Sums of weighted tiles for a window of planes; (C, Z, Y, X)."""

    def __init__(
        self, channels: int, plane_yx: tuple[int, int], first: int = 0, dtype: Any = np.float32
    ) -> None:
        self._planes = np.zeros((channels, 0, *plane_yx), dtype)
        self.first = first

    @property
    def stop(self) -> int:
        """Plane behind the window."""
        return self.first + int(self._planes.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, Y and X."""
        channels, _, height, width = self._planes.shape
        return channels, height, width

    def move(self, first: int, stop: int) -> None:
        """Drop the planes before ``first``, make room up to ``stop``; new planes are zero."""
        kept = max(0, self.stop - first)
        size = stop - first
        if size > self._planes.shape[1]:
            larger = np.zeros((len(self._planes), size, *self._planes.shape[2:]), self._planes.dtype)
            larger[:, :kept] = self._planes[:, first - self.first :]
            self._planes = larger
        elif first > self.first:
            shift = first - self.first
            for plane in range(kept):  # plane by plane, as the ranges overlap
                self._planes[:, plane] = self._planes[:, plane + shift]
            self._planes[:, kept:] = 0.0
        self.first = first

    def add(self, region: Region, weighted: Floats) -> None:
        """Add a tile (C, Z, Y, X); planes before the window are left out."""
        z, y, x = region
        begin = max(z.start, self.first)
        window = slice(begin - self.first, z.stop - self.first)
        self._planes[:, window, y, x] += weighted[:, begin - z.start :]

    def box(self, region: Region) -> NDArray[Any]:
        """Return a view of a region whose planes are in the window."""
        z, y, x = region
        return self._planes[:, z.start - self.first : z.stop - self.first, y, x]


class Tiles(Protocol):
    """What computes the tiles of a stream."""

    def begin_row(self, span: Span) -> None:
        """Make ready what tiles of these planes need; called before the first of them."""

    def prepare(self, tile: Tile) -> Any:
        """Gather a tile's input; called from another thread."""

    def submit(self, tile: Tile, prepared: Any) -> Pending:
        """Start computing what the tile contributes to, unweighted; (C, Z, Y, X)."""


class Stream:
    """Maps of a grid, computed when they are needed; planes that are needed no more are dropped.

    Parameters
    ----------
    plan : tiles of the grid
    channels : of the maps
    tiles : computes them
    dtype : of what is kept, float32 or float16
    over : whether the time is up
    """

    def __init__(
        self,
        plan: TilePlan,
        channels: int,
        tiles: Tiles,
        dtype: Any = np.float32,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows = list(plan.rows())
        self._shape = plan.shape_zyx
        self._channels, self._tiles, self._dtype = channels, tiles, dtype
        self._over = over
        self._next = 0
        self._sums: Sums | None = None

    def need(self, start: int, stop: int) -> None:
        """Compute the planes up to ``stop``; those before ``start`` are needed no more.

        Rows that end before the first plane that is ever asked for are left out.

        Raises
        ------
        OutOfTime
            When the time is up; nothing more can be had of this stream.
        """
        if self._sums is None:
            self._sums = Sums(self._channels, (self._shape[1], self._shape[2]), start, self._dtype)
            while self._rows[self._next][0].last <= start:
                self._next += 1
        while self._next < len(self._rows) and self._rows[self._next][0].first < stop:
            span, tiles = self._rows[self._next]
            self._sums.move(max(start, self._sums.first), max(span.last, self._sums.stop))
            for tile, weighted in computed(tiles, self._tiles, span):
                self._sums.add(tile.write, weighted)
                if self._over():
                    raise OutOfTime
            self._next += 1
        if start > self._sums.first:
            self._sums.move(start, max(start, self._sums.stop))

    def box(self, region: Region) -> Floats:
        """Return the maps (C, Z, Y, X) of a region whose planes were computed, as a float32 copy."""
        if self._sums is None:
            raise ValueError("planes were not asked for")
        return np.array(self._sums.box(region), dtype=np.float32)


def computed(tiles: Iterable[Tile], work: Tiles, span: Span) -> Iterator[tuple[Tile, Floats]]:
    """Yield the tiles of a row with what they contribute, weighted by their windows (C, Z, Y, X)."""
    iterator = iter(tiles)
    first = next(iterator, None)
    if first is None:
        return
    work.begin_row(span)
    waiting: tuple[Tile, Pending] | None = None
    for tile, prepared in ahead(itertools.chain([first], iterator), work.prepare):
        pending = work.submit(tile, prepared)
        if waiting is not None:
            yield waiting[0], weighted(*waiting)
        waiting = tile, pending
    if waiting is not None:
        yield waiting[0], weighted(*waiting)


def ahead(items: Iterable[T], prepare: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
    """Yield each item with what is prepared for it, the next one's being made meanwhile by a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
        waiting = None
        for item in items:
            following = item, pool.submit(prepare, item)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def weighted(tile: Tile, pending: Pending) -> Floats:
    """Wait for a tile and weigh it."""
    maps = np.array(pending(), dtype=np.float32)
    for channel in maps:
        tile.weighted(channel)
    return maps


class PlaneWindow:
    """Counts of the planes of a volume that a row of tiles sees."""

    def __init__(self, volume: Slabs) -> None:
        self._volume = volume
        self._shape: ZYX = volume.info.shape_zyx
        self._start = self._stop = 0
        self._planes: NDArray[Any] | None = None

    def move(self, start: int, stop: int) -> None:
        """Read the planes from ``start`` to before ``stop``; those that are there already are kept."""
        kept = range(max(start, self._start), min(stop, self._stop)) if start >= self._start else range(0)
        planes = self._planes
        if planes is None or len(planes) < stop - start:
            larger = np.empty((stop - start, *self._shape[1:]), self._volume.info.dtype)
            if planes is not None and kept:
                larger[: len(kept)] = planes[kept.start - self._start : kept.stop - self._start]
            planes = self._planes = larger
        elif start != self._start:
            for plane in kept:  # plane by plane, as the ranges overlap
                planes[plane - start] = planes[plane - self._start]
        for first in range(start + len(kept), stop, _PLANES_AT_ONCE):
            last = min(first + _PLANES_AT_ONCE, stop)
            planes[first - start : last - start] = self._volume.read(first, last)
        self._start, self._stop = start, stop

    def counts(self, region: Region) -> NDArray[Any]:
        """Return the counts (Z, Y, X) of a region whose planes were read."""
        if self._planes is None:
            raise ValueError("planes were not read")
        z, y, x = region
        return self._planes[z.start - self._start : z.stop - self._start, y, x]


class ChannelReader:
    """A network's input for boxes of the volume.

    Boxes may reach beyond the volume's end, where it is mirrored.
    """

    def __init__(self, volume: Slabs, inputs: Inputs) -> None:
        self._inputs = inputs
        self._shape: ZYX = volume.info.shape_zyx
        self._view = PlaneWindow(volume)
        self._further = [PlaneWindow(view.volume) for view in inputs.further]

    def move(self, start: int, stop: int) -> None:
        """Read the planes from ``start`` to before ``stop``; those that are there already are kept."""
        for window in (self._view, *self._further):
            window.move(start, min(stop, self._shape[0]))

    def channels(self, box: Region) -> Floats:
        """Input (C, Z, Y, X) of a box whose planes were read."""
        z, y, x = (slice(s.start, min(s.stop, n)) for s, n in zip(box, self._shape, strict=True))
        region = z, y, x
        further = [window.counts(region) for window in self._further]
        channels = self._inputs.channels(self._view.counts(region), region, further)
        depth, height, width = (s.stop - s.start for s in box)
        return np.ascontiguousarray(mirrored(channels, (depth, height, width)))
