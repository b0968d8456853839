"""From one view to the fused volume: tile by tile, finished planes out in order, in bounded memory.

Only the planes of the tiles in flight are held: their counts, and float32 sums of weighted predictions.
Rows of tiles go along Z; what lies before the next row is finished and handed on at once.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Region
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.intensity import Slabs
from lightsheet.core.memory import is_out_of_memory
from lightsheet.core.progress import LOG, track
from lightsheet.core.tiles import Span, Tile, TilePlan
from lightsheet.fuse.inputs import NetworkInputs
from lightsheet.fuse.loaded_model import TileRunner
from lightsheet.fuse.planning import PredictionPlan, smaller_plan

_PLANES_OUT = 16
_TILES_FOR_ESTIMATE = 3
_SHORT_SECONDS = 20.0


def predict_slabs(
    volume: Slabs, inputs: NetworkInputs, runner: TileRunner, plan: PredictionPlan
) -> Iterator[NDArray[np.float32]]:
    """Yield the predicted volume (Z, Y, X) as normalised intensity, some planes at a time, in order.

    When memory runs out the tiles are halved and the work goes on after the planes already yielded.

    Parameters
    ----------
    volume : counts, read slab by slab
    inputs : makes the network's channels, from :func:`prepare_inputs`
    runner : the model
    plan : tiles, from :func:`plan_prediction`

    Raises
    ------
    ModelError
        When the network returns numbers that are not finite.
    SettingsError
        When even the smallest tiles need too much memory.
    """
    depth = volume.info.shape_zyx[0]
    done = 0
    while done < depth:
        try:
            for planes in _predict_from(done, volume, inputs, runner, plan.tiles):
                done += len(planes)
                yield planes
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            plan = _smaller(plan, runner, error)


def _smaller(plan: PredictionPlan, runner: TileRunner, error: BaseException) -> PredictionPlan:
    smaller = smaller_plan(plan, runner)
    sizes = " x ".join(map(str, plan.tiles.tile_zyx))
    if smaller is None:
        raise SettingsError(
            f"--patch_size: expected tiles that fit the memory, got none left: {sizes} is too large "
            "and can't be made smaller"
        ) from error
    LOG.warning(
        "out of memory with tiles of %s; going on with %s (--patch_size)",
        sizes,
        " x ".join(map(str, smaller.tiles.tile_zyx)),
    )
    runner.free_memory()
    return smaller


def _predict_from(
    first: int, volume: Slabs, inputs: NetworkInputs, runner: TileRunner, plan: TilePlan
) -> Iterator[NDArray[np.float32]]:
    """Planes from ``first`` on; rows of tiles that end before it are left out."""
    rows = [(span, tiles) for span, tiles in plan.rows() if span.last > first]
    total = sum(len(tiles) for _, tiles in rows)
    sums = _Sums(plan, first)
    slab = _SlabWindow(volume)
    clock = _Clock(total)
    jobs = ((number, tile) for number, (_, tiles) in enumerate(rows) for tile in tiles)
    waiting = 0
    for number, tile in track(jobs, "tiles", total):
        if number != waiting:
            waiting = number
            yield from sums.take(rows[number][0].first)
        sums.add(tile, _predict_tile(tile, slab, inputs, runner))
        clock.tick()
    yield from sums.take(plan.shape_zyx[0])


def _predict_tile(
    tile: Tile, slab: "_SlabWindow", inputs: NetworkInputs, runner: TileRunner
) -> NDArray[np.float32]:
    """Prediction of the part of a tile that is kept, weighted by its windows."""
    shape = slab.shape
    inside = tuple(slice(s.start, min(s.stop, n)) for s, n in zip(tile.read, shape, strict=True))
    region: Region = (inside[0], inside[1], inside[2])
    channels = inputs.channels(slab.read(region), region)
    beyond = [(0, s.stop - i.stop) for s, i in zip(tile.read, region, strict=True)]
    if any(after for _, after in beyond):
        channels = np.pad(channels, [(0, 0), *beyond], mode="reflect")
    kept = runner.run(np.ascontiguousarray(channels))[tile.inner]
    weighted = tile.weighted(np.array(kept, dtype=np.float32))
    if not np.isfinite(weighted).all():
        raise ModelError(
            "expected finite numbers from the model, got NaN or infinity; run it with --precision fp32"
        )
    return weighted


class _Sums:
    """Weighted predictions of the planes in flight."""

    def __init__(self, plan: TilePlan, first: int) -> None:
        _, height, width = plan.shape_zyx
        spans: tuple[Span, ...] = plan.axes[0]
        most = max(span.last - span.first for span in spans)
        self._planes = np.zeros((most, height, width), np.float32)
        self._first = first

    def add(self, tile: Tile, weighted: NDArray[np.float32]) -> None:
        """Add a tile; planes that were handed on already are left out."""
        z, y, x = tile.write
        begin = max(z.start, self._first)
        self._planes[begin - self._first : z.stop - self._first, y, x] += weighted[begin - z.start :]

    def take(self, until: int) -> Iterator[NDArray[np.float32]]:
        """Hand on the planes before ``until``, and make room."""
        count = until - self._first
        if count <= 0:
            return
        for start in range(0, count, _PLANES_OUT):
            yield self._planes[start : min(start + _PLANES_OUT, count)].copy()
        kept = len(self._planes) - count
        for plane in range(kept):
            self._planes[plane] = self._planes[plane + count]
        self._planes[max(0, kept) :] = 0.0
        self._first = until


class _SlabWindow:
    """Counts of the planes that the current row of tiles sees; planes shared with the last row are kept."""

    def __init__(self, volume: Slabs) -> None:
        self._volume = volume
        self.shape = volume.info.shape_zyx
        self._start = self._stop = 0
        self._planes: NDArray[Any] | None = None

    def read(self, region: Region) -> NDArray[Any]:
        """Return the counts of a region inside the volume."""
        z, y, x = region
        if self._planes is None or (self._start, self._stop) != (z.start, z.stop):
            self._planes = self._move(z.start, z.stop)
            self._start, self._stop = z.start, z.stop
        return self._planes[:, y, x]

    def _move(self, start: int, stop: int) -> NDArray[Any]:
        if self._planes is None or not self._start <= start < self._stop <= stop:
            self._planes = None
            return self._volume.read(start, stop)
        if stop == self._stop:
            return self._planes[start - self._start :]
        return np.concatenate([self._planes[start - self._start :], self._volume.read(self._stop, stop)])


@dataclass
class _Clock:
    """Tells once how long it will take, when a few tiles have shown it and it is worth telling."""

    total: int
    count: int = 0
    started: float = 0.0

    def tick(self) -> None:
        """Count a finished tile; the first one, which pays for the start, is not timed."""
        self.count += 1
        now = time.monotonic()
        if self.count == 1:
            self.started = now
        elif self.count == 1 + _TILES_FOR_ESTIMATE:
            left = (now - self.started) / _TILES_FOR_ESTIMATE * (self.total - self.count)
            if left > _SHORT_SECONDS:
                LOG.info("%d of %d tiles done, about %s left", self.count, self.total, _duration(left))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
