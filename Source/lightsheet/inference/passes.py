"""The tiles of each pass: what they read, and how they are run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.errors import ModelError
from lightsheet.core.tiles import Span, Tile, TilePlan, round_up
from lightsheet.inference.stream import ChannelReader, Stream, Tiles
from lightsheet.runtimes.facts import COARSE, Staged
from lightsheet.runtimes.runtime import Floats, Part, Pending, Runtime


@dataclass(frozen=True)
class Layout:
    """Tiles of a volume for all passes.

    Attributes
    ----------
    tiles : of the only, or the finishing, pass
    deepen, encode : of the other passes, on the coarse grid; None when there is only one pass
    stride_zyx : the volume is mirrored up to multiples of this, the network's stride
    half_maps : coarse maps are kept in half precision (float16), to save memory
    """

    tiles: TilePlan
    deepen: TilePlan | None
    encode: TilePlan | None
    stride_zyx: ZYX
    half_maps: bool = False

    @property
    def padded_zyx(self) -> ZYX:
        """Size of the volume with its mirrored end."""
        z, y, x = (round_up(n, s) for n, s in zip(self.tiles.shape_zyx, self.stride_zyx, strict=True))
        return z, y, x

    def sizes(self) -> dict[str, Any]:
        """Sizes of the tiles, as JSON, from which the layout can be made again."""
        return {
            "tile_zyx": list(self.tiles.tile_zyx),
            "overlap_zyx": list(self.tiles.overlap_zyx),
            "deepen_zyx": None if self.deepen is None else list(self.deepen.tile_zyx),
            "encode_zyx": None if self.encode is None else list(self.encode.tile_zyx),
            "half_maps": self.half_maps,
        }


class WholeTiles:
    """One plain pass for each tile."""

    def __init__(self, reader: ChannelReader, runtime: Runtime) -> None:
        self._reader, self._runtime = reader, runtime

    def begin_row(self, span: Span) -> None:
        """Read the row's planes."""
        self._reader.move(span.start, span.stop)

    def prepare(self, tile: Tile) -> Floats:
        """Input channels of the tile."""
        return self._reader.channels(tile.read)

    def submit(self, tile: Tile, prepared: Floats) -> Pending:
        """Run the network."""
        return _inner(self._runtime.submit("whole", (prepared,)), tile)


class EncodeTiles:
    """From the volume to coarse maps."""

    def __init__(self, reader: ChannelReader, runtime: Runtime) -> None:
        self._reader, self._runtime = reader, runtime

    def begin_row(self, span: Span) -> None:
        """Read the row's planes."""
        self._reader.move(COARSE * span.start, COARSE * span.stop)

    def prepare(self, tile: Tile) -> Floats:
        """Input channels of the tile's coarse voxels."""
        z, y, x = (slice(COARSE * s.start, COARSE * s.stop) for s in tile.read)
        return self._reader.channels((z, y, x))

    def submit(self, tile: Tile, prepared: Floats) -> Pending:
        """Run the encoding pass."""
        return _inner(self._runtime.submit("encode", (prepared,)), tile)


class DeepenTiles:
    """From encoded to deep maps, both coarse."""

    def __init__(self, encoded: Stream, runtime: Runtime) -> None:
        self._encoded, self._runtime = encoded, runtime

    def begin_row(self, span: Span) -> None:
        """Have the row's planes encoded."""
        self._encoded.need(span.start, span.stop)

    def prepare(self, tile: Tile) -> Floats:
        """Gather the encoded maps of the tile."""
        return self._encoded.box(tile.read)

    def submit(self, tile: Tile, prepared: Floats) -> Pending:
        """Run the deepening pass."""
        return _inner(self._runtime.submit("deepen", (prepared,)), tile)


class FinishTiles:
    """From the volume and its deep maps to the result."""

    def __init__(
        self, reader: ChannelReader, deep: Stream, runtime: Runtime, staged: Staged, layout: Layout
    ) -> None:
        self._reader, self._deep, self._runtime = reader, deep, runtime
        self._context, self._padded = staged.context, layout.padded_zyx
        self._size = layout.tiles.tile_zyx

    def begin_row(self, span: Span) -> None:
        """Read the row's planes and have their deep maps made."""
        z = surrounded(span.start, self._size[0], self._context, self._padded[0])
        self._reader.move(z.start, z.stop)
        self._deep.need(z.start // COARSE, z.stop // COARSE)

    def prepare(self, tile: Tile) -> tuple[Floats, Floats]:
        """Input channels and deep maps of the tile with its context."""
        box = self._box(tile)
        z, y, x = (slice(s.start // COARSE, s.stop // COARSE) for s in box)
        return self._reader.channels(box), self._deep.box((z, y, x))

    def submit(self, tile: Tile, prepared: tuple[Floats, Floats]) -> Pending:
        """Run the finishing pass."""
        z, y, x = (r.start - s.start for r, s in zip(tile.read, self._box(tile), strict=True))
        part = Part((z, y, x), self._size)
        return _inner(self._runtime.submit("finish", prepared, part), tile)

    def _box(self, tile: Tile) -> Region:
        z, y, x = (
            surrounded(s.start, n, self._context, end)
            for s, n, end in zip(tile.read, self._size, self._padded, strict=True)
        )
        return z, y, x


def surrounded(start: int, size: int, context: int, end: int) -> slice:
    """Return a tile with its context, of the same size everywhere: moved where it would leave the volume."""
    wide = min(size + 2 * context, end)
    begin = min(max(0, start - context), end - wide)
    return slice(begin, begin + wide)


def final_tiles(
    reader_of: Callable[[], ChannelReader],
    runtime: Runtime,
    staged: Staged | None,
    layout: Layout,
    over: Callable[[], bool] = lambda: False,
) -> Tiles:
    """Chain the passes.

    Parameters
    ----------
    reader_of : makes a reader of the volume's channels
    over : whether the time is up; deep maps are not made then (`OutOfTime`)
    """
    if layout.deepen is None or layout.encode is None:
        return WholeTiles(reader_of(), runtime)
    if staged is None:
        raise ModelError("expected a network that can be split into passes for this plan")
    kept = np.float16 if layout.half_maps else np.float32
    encoded = Stream(layout.encode, staged.encoded_channels, EncodeTiles(reader_of(), runtime), kept, over)
    deep = Stream(layout.deepen, staged.deep_channels, DeepenTiles(encoded, runtime), kept, over)
    return FinishTiles(reader_of(), deep, runtime, staged, layout)


def _inner(pending: Pending, tile: Tile) -> Pending:
    """Leave out the halo."""
    return lambda: pending()[(slice(None), *tile.inner)]
