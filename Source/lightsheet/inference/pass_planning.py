"""Tiles of a network that runs in passes: work, memory, and the best tiles for a volume."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.core.tiles import fitted_tile, plan_tiles, round_up, tiles_along
from lightsheet.inference.passes import Layout, surrounded
from lightsheet.runtimes.facts import COARSE, NetworkFacts, Staged
from lightsheet.runtimes.runtime import Runtime

_DEEPEN_STRIDE = 2
_FLOAT_BYTES = 4
_HALF_BYTES = 2
# Larger tiles were not faster per voxel on a CPU; they only take memory.
_MOST_FINISHED = 1 << 24
# Sizes of coarse tiles to try, as voxels at full resolution. Smaller ones compute too much twice.
_COARSE_SIZES = (1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24)
_HEIGHTS = 5


@dataclass(frozen=True)
class PassMemory:
    """Bytes of main memory and on the GPU."""

    main: int
    device: int


def layout_for(
    shape: ZYX,
    facts: NetworkFacts,
    finish: ZYX,
    deepen: ZYX,
    encode: ZYX,
    overlap: ZYX | None = None,
    *,
    half_maps: bool = False,
) -> Layout:
    """Tiles of the three passes from their sizes; an overlap is made large enough for the reach."""
    staged = _staged(facts)
    padded = _padded(shape, facts)
    coarse: ZYX = (padded[0] // COARSE, padded[1] // COARSE, padded[2] // COARSE)
    wide = _enough(overlap, staged)
    tiles = plan_tiles(
        shape, _holding(finish, staged), wide, (COARSE,) * 3, (staged.rim,) * 3, padded_zyx=padded
    )
    deep_halo, code_halo = (staged.deepen_reach,) * 3, (staged.encode_reach,) * 3
    twice: ZYX = (2 * staged.deepen_reach,) * 3
    code_twice: ZYX = (2 * staged.encode_reach,) * 3
    deepened = plan_tiles(coarse, deepen, twice, (_DEEPEN_STRIDE,) * 3, deep_halo)
    encoded = plan_tiles(coarse, encode, code_twice, (1, 1, 1), code_halo)
    return Layout(tiles, deepened, encoded, facts.stride_zyx, half_maps)


def work(layout: Layout, facts: NetworkFacts) -> float:
    """Multiply-adds for each one of a single pass over the volume."""
    whole = math.prod(layout.tiles.shape_zyx) * facts.whole.macs
    tiles = layout.tiles
    if layout.deepen is None or layout.encode is None:
        return tiles.count * math.prod(tiles.tile_zyx) * facts.whole.macs / whole
    staged = _staged(facts)
    return (
        tiles.count * _finish_macs(tiles.tile_zyx, layout.padded_zyx, staged)
        + layout.deepen.count * math.prod(layout.deepen.tile_zyx) * staged.deepen.macs
        + layout.encode.count * math.prod(layout.encode.tile_zyx) * COARSE**3 * staged.encode.macs
    ) / whole


def pass_memory(layout: Layout, facts: NetworkFacts, runtime: Runtime) -> PassMemory:
    """Memory of passes, planes that are kept and tiles on the way."""
    if layout.deepen is None or layout.encode is None:
        raise ValueError("expected a plan of three passes")
    plans = (layout.tiles, layout.deepen, layout.encode)
    ranges = tuple(tuple((s.start, s.stop, s.first, s.last) for s in plan.axes[0]) for plan in plans)
    finish, deepen, encode = (plan.tile_zyx for plan in plans)
    return _memory(layout.padded_zyx, (finish, deepen, encode), ranges, facts, runtime, half=layout.half_maps)


def best_layout(
    shape: ZYX,
    facts: NetworkFacts,
    runtime: Runtime,
    memory: int,
    device_memory: int | None,
    asked: tuple[ZYX | None, ZYX | None],
    *,
    half_maps: bool,
) -> Layout | None:
    """Least work within the memory; None when nothing fits.

    Parameters
    ----------
    asked : tile of the finishing pass and overlap that the user wants
    half_maps : keep coarse maps in half precision
    """
    staged = _staged(facts)
    padded = _padded(shape, facts)
    coarse = (padded[0] // COARSE, padded[1] // COARSE, padded[2] // COARSE)
    patch, overlap = asked
    wide = _enough(overlap, staged)
    deepens = list(_coarse_tiles(coarse, 2 * staged.deepen_reach, _DEEPEN_STRIDE, staged.deepen.macs))
    encodes = list(_coarse_tiles(coarse, 2 * staged.encode_reach, 1, staged.encode.macs * COARSE**3))
    fitted = _finish_tiles(padded, staged, wide) if patch is None else []
    for axis, side in zip("ZYX", patch or (), strict=False):
        if side < 1 or side % COARSE:
            raise SettingsError(
                f"--patch_size: expected a multiple of the network's stride {COARSE} along {axis}, got {side}"
            )
    finishes = fitted if patch is None else [(0.0, _holding(patch, staged))]
    pairs = sorted(itertools.product(deepens, encodes), key=lambda pair: pair[0][0] + pair[1][0])
    best: tuple[float, tuple[ZYX, ZYX, ZYX]] | None = None
    for finish_macs, finish in finishes:
        for (deepen_macs, deepen), (encode_macs, encode) in pairs:
            macs = finish_macs + deepen_macs + encode_macs
            if best is not None and macs >= best[0]:
                break
            need = _memory_of(padded, (finish, deepen, encode), wide[0], facts, runtime, half=half_maps)
            if need.main <= memory and (device_memory is None or need.device <= device_memory):
                best = macs, (finish, deepen, encode)
                break
    return None if best is None else layout_for(shape, facts, *best[1], overlap, half_maps=half_maps)


def _memory_of(
    padded: ZYX,
    sizes: tuple[ZYX, ZYX, ZYX],
    overlap: int,
    facts: NetworkFacts,
    runtime: Runtime,
    *,
    half: bool,
) -> PassMemory:
    staged = _staged(facts)
    finish, deepen, encode = sizes
    coarse = padded[0] // COARSE
    ranges = (
        _z_ranges(padded[0], finish[0], overlap, COARSE, staged.rim),
        _z_ranges(coarse, deepen[0], 2 * staged.deepen_reach, _DEEPEN_STRIDE, staged.deepen_reach),
        _z_ranges(coarse, encode[0], 2 * staged.encode_reach, 1, staged.encode_reach),
    )
    return _memory(padded, sizes, ranges, facts, runtime, half=half)


@lru_cache(maxsize=4096)
def _z_ranges(
    size: int, tile: int, overlap: int, stride: int, reach: int
) -> tuple[tuple[int, int, int, int], ...]:
    plan = plan_tiles((size, 1, 1), (tile, 1, 1), (overlap, 0, 0), (stride, 1, 1), (reach, 0, 0))
    return tuple((s.start, s.stop, s.first, s.last) for s in plan.axes[0])


def _finish_tiles(padded: ZYX, staged: Staged, overlap: ZYX) -> list[tuple[float, ZYX]]:
    """Tiles of the finishing pass with their multiply-adds for the volume, of each height the best ones."""
    axes = [_fitted(n, o, COARSE) for n, o in zip(padded, overlap, strict=True)]
    found: list[tuple[float, ZYX]] = []
    for z in axes[0]:
        by_voxels: dict[int, tuple[float, ZYX]] = {}
        for y, x in itertools.product(axes[1], axes[2]):
            tile, voxels = (z, y, x), z * y * x
            if voxels > _MOST_FINISHED:
                continue
            count = axes[0][z] * axes[1][y] * axes[2][x]
            macs = count * _finish_macs(tile, padded, staged)
            size = voxels.bit_length()
            if size not in by_voxels or macs < by_voxels[size][0]:
                by_voxels[size] = macs, tile
        found += by_voxels.values()
    return sorted(found)


def _coarse_tiles(coarse: ZYX, overlap: int, stride: int, macs: float) -> Iterator[tuple[float, ZYX]]:
    """Tiles on the coarse grid: for each size and some heights the one with the least work."""
    axes = [_fitted(n, overlap, stride) for n in coarse]
    for most in _COARSE_SIZES:
        best: dict[int, tuple[float, ZYX]] = {}
        for z, y, x in itertools.product(*axes):
            if z * y * x > most // COARSE**3:
                continue
            work = axes[0][z] * axes[1][y] * axes[2][x] * z * y * x * macs
            if axes[0][z] not in best or work < best[axes[0][z]][0]:
                best[axes[0][z]] = work, (z, y, x)
        yield from sorted(best.values())[:_HEIGHTS]


def _fitted(size: int, overlap: int, stride: int) -> dict[int, int]:
    """Tile sizes along an axis, fitted to the volume, with their numbers."""
    smallest = min(round_up(size, stride), overlap + 2 * stride)
    counts = range(1, tiles_along(size, smallest, overlap, stride) + 1)
    sizes = {fitted_tile(size, count, overlap, stride) for count in counts}
    return {tile: tiles_along(size, tile, overlap, stride) for tile in sorted(sizes)}


def _finish_macs(tile: ZYX, padded: ZYX, staged: Staged) -> float:
    return (
        math.prod(_wide(tile, padded, staged)) * staged.surround.macs + math.prod(tile) * staged.finish.macs
    )


def _wide(tile: ZYX, padded: ZYX, staged: Staged) -> ZYX:
    """Size of a finishing tile with its context."""
    z, y, x = (min(t + 2 * staged.context, n) for t, n in zip(tile, padded, strict=True))
    return z, y, x


_Ranges = tuple[tuple[tuple[int, int, int, int], ...], ...]


def _memory(
    padded: ZYX,
    sizes: tuple[ZYX, ZYX, ZYX],
    ranges: _Ranges,
    facts: NetworkFacts,
    runtime: Runtime,
    *,
    half: bool,
) -> PassMemory:
    staged = _staged(facts)
    finish, deepen, encode = sizes
    wide = _wide(finish, padded, staged)
    plane = padded[1] * padded[2]
    coarse_plane = plane // COARSE**2
    deep_planes, code_planes = _windows(ranges, finish[0], staged.context, padded[0])
    numbers = max(  # of one pass at a time
        math.prod(wide) * staged.surround.numbers,
        math.prod(finish) * staged.finish.numbers,
        math.prod(deepen) * staged.deepen.numbers,
        math.prod(encode) * COARSE**3 * staged.encode.numbers,
    )
    network = int(numbers * runtime.bytes_per_number)
    views = facts.views * facts.view_bytes * (wide[0] + COARSE * encode[0])
    kept = plane * (finish[0] * facts.outputs * _FLOAT_BYTES + views)
    maps = deep_planes * staged.deep_channels + code_planes * staged.encoded_channels
    kept += (_HALF_BYTES if half else _FLOAT_BYTES) * coarse_plane * maps
    # Two tiles of channels and deep maps are on the way, each with a copy.
    deep_numbers = staged.deep_channels / COARSE**3
    kept += int(_FLOAT_BYTES * math.prod(wide) * 3 * (facts.channels + deep_numbers))
    return PassMemory(kept, network) if runtime.on_gpu else PassMemory(kept + network, 0)


@lru_cache(maxsize=4096)
def _windows(ranges: _Ranges, height: int, context: int, depth: int) -> tuple[int, int]:
    """Most planes of deep and of encoded maps that are kept at a time; follows `Stream.need`."""
    finish, deepen, encode = ranges
    deep, code = _Window(deepen), _Window(encode)
    for start, _, _, _ in finish:
        z = surrounded(start, height, context, depth)
        for row_start, row_stop in deep.need(z.start // COARSE, z.stop // COARSE):
            for _ in code.need(row_start, row_stop):
                pass
    return deep.most, code.most


class _Window:
    """Planes that a stream keeps."""

    def __init__(self, rows: tuple[tuple[int, int, int, int], ...]) -> None:
        self._rows = list(rows)
        self._stop = 0
        self.most = 0

    def need(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        while self._rows and self._rows[0][2] < stop:
            row = self._rows.pop(0)
            self._stop = max(self._stop, row[3])
            self.most = max(self.most, self._stop - start)
            yield row[0], row[1]


def _padded(shape: ZYX, facts: NetworkFacts) -> ZYX:
    z, y, x = (round_up(n, s) for n, s in zip(shape, facts.stride_zyx, strict=True))
    return z, y, x


def _enough(overlap: ZYX | None, staged: Staged) -> ZYX:
    """Overlap that holds the rim twice, and some voxels to blend."""
    z, y, x = (round_up(max(2 * staged.rim + 1, o), COARSE) for o in overlap or (0, 0, 0))
    return z, y, x


def _holding(tile: ZYX, staged: Staged) -> ZYX:
    """Tile that is larger than its rim."""
    z, y, x = (max(t, round_up(2 * staged.rim + 1, COARSE) + COARSE) for t in tile)
    return z, y, x


def _staged(facts: NetworkFacts) -> Staged:
    if facts.staged is None:
        raise ValueError("expected a network that can be split into passes")
    return facts.staged
