"""From a volume to the maps a network makes of it: tile by tile, planes out in order, in bounded memory.

Only the planes of the tiles in flight are held: their counts, deep maps, and float32 sums of weighted
predictions. Rows of tiles go along Z; what lies before the next row is finished and handed on at once.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.intensity import Slabs
from lightsheet.core.memory import is_out_of_memory
from lightsheet.core.progress import LOG, Progress
from lightsheet.core.tiles import Span, Tile
from lightsheet.inference.inputs import Inputs
from lightsheet.inference.passes import final_tiles
from lightsheet.inference.planning import PredictionPlan, smaller_plan
from lightsheet.inference.stream import ChannelReader, OutOfTime, Sums, Tiles, computed
from lightsheet.runtimes.loading import LoadedModel
from lightsheet.runtimes.runtime import Floats

_PLANES_OUT = 16
_TILES_FOR_ESTIMATE = 3
_SHORT_SECONDS = 20.0


class TileStore(Protocol):
    """Where finished tiles are kept, so that a run that was killed goes on at its tile."""

    @property
    def planes_done(self) -> int:
        """Planes that were handed on and kept by an earlier run."""

    def load(self, tile: int) -> Floats | None:
        """Return a tile kept by an earlier run."""

    def keep(self, tile: int, weighted: Floats) -> None:
        """Keep a tile."""

    def forget(self, tile: int) -> None:
        """Drop a tile whose planes were all handed on."""

    def change_plan(self, plan: PredictionPlan) -> None:
        """Drop all tiles: they are cut anew."""


@dataclass
class Deadline:
    """When to stop computing, and what fills the rest.

    Attributes
    ----------
    at : `time.monotonic` of the end
    fallback : makes what a tile gets that there is no time for, (maps, Z, Y, X), from its channels
        (C, Z, Y, X); of fusion it is the view
    filled : voxels that were filled so far; those that blended tiles share count by their weights
    """

    at: float
    fallback: Callable[[Floats], Floats]
    filled: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.at


def predict_slabs(
    volume: Slabs,
    inputs: Inputs,
    model: LoadedModel,
    plan: PredictionPlan,
    store: TileStore | None = None,
    deadline: Deadline | None = None,
    planes: tuple[int, int] | None = None,
) -> Iterator[Floats]:
    """Yield what the network makes of a volume, (maps, Z, Y, X), some planes at a time, in order.

    When memory runs out the tiles are halved and the work goes on after the planes already yielded.

    Parameters
    ----------
    volume : counts, read slab by slab
    inputs : makes the network's channels
    model : from `load_model`, and `for_volume`
    plan : tiles, from :func:`plan_prediction`
    store : keeps finished tiles; the planes it has already are not yielded again
    deadline : when to stop computing
    planes : the first of those wanted and the one behind the last; default: all. Each comes out as it would
        among all, to the bit, since a plane is the sum of the same tiles in the same order

    Raises
    ------
    ModelError
        When the network returns numbers that are not finite.
    SettingsError
        When even the smallest tiles need too much memory.
    """
    done, stop = planes or (0, volume.info.shape_zyx[0])
    if store:
        done = store.planes_done
    while done < stop:
        try:
            for some in _Run(volume, inputs, model, plan, store, deadline).between(done, stop):
                done += some.shape[1]
                yield some
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            plan = _smaller(plan, model, error)
            if store:
                store.change_plan(plan)


def _smaller(plan: PredictionPlan, model: LoadedModel, error: BaseException) -> PredictionPlan:
    smaller = smaller_plan(plan, model.facts, model.runtime)
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
    model.runtime.free_memory()
    return smaller


class _Run:
    """One go at a volume with one plan."""

    def __init__(
        self,
        volume: Slabs,
        inputs: Inputs,
        model: LoadedModel,
        plan: PredictionPlan,
        store: TileStore | None,
        deadline: Deadline | None,
    ) -> None:
        self._plan, self._store, self._deadline = plan, store, deadline
        self._maps = model.facts.outputs
        self._view = ChannelReader(volume, inputs)
        self._forgotten = 0
        self._tiles: Tiles = final_tiles(
            lambda: ChannelReader(volume, inputs),
            model.runtime,
            model.facts.staged,
            plan.layout,
            lambda: deadline is not None and deadline.over,
        )

    def between(self, first: int, stop: int) -> Iterator[Floats]:
        """Planes from ``first`` to before ``stop``; rows of tiles that hold none of them are left out."""
        _, height, width = self._plan.tiles.shape_zyx
        number = 0
        rows = []
        for span, tiles in self._plan.tiles.rows():
            if span.last > first and span.first < stop:
                rows.append((span, list(enumerate(tiles, start=number))))
            number += len(tiles)
        clock = _Clock(sum(len(tiles) for _, tiles in rows))
        sums = Sums(self._maps, (height, width), first)
        with Progress("tiles", clock.total) as progress:
            for row, (span, numbered) in enumerate(rows):
                sums.move(sums.first, max(span.last, sums.stop))
                for tile, weighted in self._row(span, numbered):
                    sums.add(tile.write, weighted)
                    progress.advance()
                    clock.tick()
                finished = min(stop, rows[row + 1][0].first) if row + 1 < len(rows) else stop
                yield from _finished(sums, finished)
                self._forget(rows, finished)

    def _row(self, span: Span, tiles: list[tuple[int, Tile]]) -> Iterator[tuple[Tile, Floats]]:
        """Tiles of a row in their order, those kept by an earlier run and new ones."""
        loaded = [(number, self._load(number)) for number, _ in tiles]
        kept = {number: found for number, found in loaded if found is not None}
        numbers = {id(tile): number for number, tile in tiles}
        missing = [tile for number, tile in tiles if number not in kept]
        fresh = computed(self._in_time(missing), self._tiles, span)
        for number, tile in tiles:
            if number in kept:
                yield tile, kept.pop(number)
                continue
            new = _next_in_time(fresh)
            if new is None:  # the time was over before this tile
                yield tile, self._filled(span, tile)
                continue
            made, weighted = new
            if numbers[id(made)] != number:
                raise RuntimeError(f"tiles came out of order: expected {number}, got {numbers[id(made)]}")
            _check_finite(weighted)
            if self._store is not None:
                self._store.keep(number, weighted)
            yield tile, weighted

    def _in_time(self, tiles: Sequence[Tile]) -> Iterator[Tile]:
        for tile in tiles:
            if self._deadline is not None and self._deadline.over:
                return
            yield tile

    def _filled(self, span: Span, tile: Tile) -> Floats:
        """Return the fallback in the place of a tile that there was no time for."""
        if self._deadline is None:
            raise ValueError("expected a time limit with its fallback")
        self._view.move(span.first, span.last)
        maps = np.array(self._deadline.fallback(self._view.channels(tile.write)), dtype=np.float32)
        self._deadline.filled += float(np.prod([s.window.sum(dtype=float) for s in tile.spans]))
        for one in maps:
            tile.weighted(one)
        return maps

    def _load(self, number: int) -> Floats | None:
        return None if self._store is None else self._store.load(number)

    def _forget(self, rows: list[tuple[Span, list[tuple[int, Tile]]]], finished: int) -> None:
        """Drop kept tiles whose planes are all handed on."""
        while (
            self._store is not None
            and self._forgotten < len(rows)
            and rows[self._forgotten][0].last <= finished
        ):
            for number, _ in rows[self._forgotten][1]:
                self._store.forget(number)
            self._forgotten += 1


def _next_in_time(tiles: Iterator[tuple[Tile, Floats]]) -> tuple[Tile, Floats] | None:
    try:
        return next(tiles, None)
    except OutOfTime:
        return None


def _finished(sums: Sums, until: int) -> Iterator[Floats]:
    """Hand on the planes before ``until``, and drop them."""
    first = sums.first
    _, height, width = sums.shape
    for start in range(first, until, _PLANES_OUT):
        region = slice(start, min(start + _PLANES_OUT, until)), slice(0, height), slice(0, width)
        yield np.array(sums.box(region), dtype=np.float32)
    sums.move(until, max(until, sums.stop))


def _check_finite(weighted: Floats) -> None:
    if not np.isfinite(weighted).all():
        raise ModelError(
            "expected finite numbers from the model, got NaN or infinity; run it with --precision fp32"
        )


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
                LOG.info("%d of %d tiles done, about %s left", self.count, self.total, duration(left))


def duration(seconds: float) -> str:
    """Such as '5 min' or '1 h 10 min'."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
