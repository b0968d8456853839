"""Choose tiles before the work starts: as few voxels computed twice as the memory allows."""

import itertools
import math
from dataclasses import dataclass

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.core.memory import GIB
from lightsheet.core.tiles import TilePlan, fitted_tile, plan_tiles, round_up, tiles_along
from lightsheet.fuse.loaded_model import TileRunner

# Least overlap. 24 holds a halo of nine voxels: with trained networks without norms, tiled and whole volume
# then differ by about 1e-4 of the normalised range, although a U-Net's receptive field is 60. The smaller
# ones are for little memory, where small tiles would be computed several times over.
_LEAST_OVERLAPS = (24, 16, 8)
_ENOUGH_REDUNDANCY = 1.9
# Larger tiles were not faster per voxel on a CPU; they only take memory.
_MOST_VOXELS = 1 << 23
# Sums (float32), and counts (16 bit) twice while the planes that two rows share are moved.
_BYTES_PER_SLAB_VOXEL = 4 + 2 * 2
_LEAST_STRIDES = 2


@dataclass(frozen=True)
class Limits:
    """What prediction may take, and what the user fixed.

    Attributes
    ----------
    memory : bytes of main memory beyond what is taken already
    device_memory : bytes of the GPU; None when the network runs in main memory
    patch_zyx, overlap_zyx : tile and overlap asked for; None to choose
    """

    memory: int
    device_memory: int | None = None
    patch_zyx: ZYX | None = None
    overlap_zyx: ZYX | None = None


@dataclass(frozen=True)
class PredictionPlan:
    """Tiles of a volume and what they will cost.

    Attributes
    ----------
    tiles : the tiles
    memory : bytes of main memory
    device_memory : bytes on the GPU; 0 without one
    """

    tiles: TilePlan
    memory: int
    device_memory: int

    def lines(self, runner: TileRunner) -> list[str]:
        """Text for the user, before the work starts."""
        plan = self.tiles
        on_gpu = f", {self.device_memory / GIB:.1f} GiB on the GPU" if self.device_memory else ""
        return [
            f"volume {_by(plan.shape_zyx)}, tiles {_by(plan.tile_zyx)}, overlap {_by(plan.overlap_zyx)}, "
            f"halo {_by(plan.halo_zyx)}",
            f"{plan.count} forward passes, {plan.redundancy:.2f} voxels computed per voxel, "
            f"about {self.memory / GIB:.1f} GiB of memory{on_gpu}; {runner.description}",
        ]


def plan_prediction(shape_zyx: ZYX, runner: TileRunner, limits: Limits) -> PredictionPlan:
    """Choose tile and overlap for a volume.

    A patch asked for is taken as it is. Otherwise the tile is fitted to the volume such that the fewest
    voxels are computed, within the memory and 8.4 million voxels; smaller overlaps are tried where more than
    1.9 voxels per voxel would be computed. Networks whose result depends on the tile keep their training
    patch.

    Raises
    ------
    SettingsError
        When patch or overlap don't suit the network or even small tiles need more than the memory.
    """
    tile = _asked_for(runner, limits.patch_zyx)
    if tile is not None:
        overlap = _capped(default_overlap(tile, runner), tile, runner.stride_zyx)
        return _plan(shape_zyx, tile, limits.overlap_zyx or overlap, runner)
    plans = []
    for least in _LEAST_OVERLAPS:
        overlap = limits.overlap_zyx or default_overlap(runner.settings.patch_zyx, runner, least)
        plans.append(_plan(shape_zyx, _best_tile(shape_zyx, overlap, runner, limits), overlap, runner))
        if plans[-1].tiles.redundancy <= _ENOUGH_REDUNDANCY or limits.overlap_zyx or runner.tile_dependent:
            return plans[-1]
    return min(plans, key=lambda plan: plan.tiles.redundancy)


def smaller_plan(plan: PredictionPlan, runner: TileRunner) -> PredictionPlan | None:
    """About half of a plan's tile, or None when tiles can't be made smaller."""
    if runner.fixed_zyx is not None:
        return None
    tile = plan.tiles.tile_zyx
    for axis in sorted(range(3), key=lambda a: -tile[a]):
        stride = runner.stride_zyx[axis]
        half = round_up(tile[axis] // 2, stride)
        if half < tile[axis] and half >= _LEAST_STRIDES * stride:
            sizes = _with(tile, axis, half)
            overlap = _capped(plan.tiles.overlap_zyx, sizes, runner.stride_zyx)
            return _plan(plan.tiles.shape_zyx, sizes, overlap, runner)
    return None


def default_overlap(patch_zyx: ZYX, runner: TileRunner, least: int = _LEAST_OVERLAPS[0]) -> ZYX:
    """Take an eighth of the patch, at least ``least`` voxels; less where twice the receptive field is less.

    Twice the receptive field makes the result independent of the tiles, so more is of no use. Networks
    with statistics of the tile get a quarter, since only blending hides their differences, and at most half.
    """
    sides = []
    for axis in range(3):
        side = patch_zyx[axis] // (4 if runner.tile_dependent else 8)
        side = max(least, side)
        if runner.reach_zyx is not None and not runner.tile_dependent:
            side = min(side, 2 * runner.reach_zyx[axis])
        sides.append(round_up(side, runner.stride_zyx[axis]))
    z, y, x = sides
    return _capped((z, y, x), patch_zyx, runner.stride_zyx) if runner.tile_dependent else (z, y, x)


def _capped(overlap_zyx: ZYX, tile_zyx: ZYX, stride_zyx: ZYX) -> ZYX:
    """Overlap of at most half a tile."""
    z, y, x = (
        min(o, max(0, t // 2 // s * s)) for o, t, s in zip(overlap_zyx, tile_zyx, stride_zyx, strict=True)
    )
    return z, y, x


def _asked_for(runner: TileRunner, patch_zyx: ZYX | None) -> ZYX | None:
    if runner.fixed_zyx is not None:
        if patch_zyx not in (None, runner.fixed_zyx):
            raise SettingsError(
                f"--patch_size: expected {_by(runner.fixed_zyx)}, the only size this network takes, "
                f"got {_by(patch_zyx or ())}"
            )
        return runner.fixed_zyx
    return patch_zyx


def _plan(shape: ZYX, tile: ZYX, overlap: ZYX, runner: TileRunner) -> PredictionPlan:
    reach = None if runner.tile_dependent else runner.reach_zyx
    tiles = plan_tiles(shape, tile, overlap, runner.stride_zyx, reach, cut=runner.fixed_zyx is None)
    main, device = _memory(tiles.tile_zyx, shape, runner)
    return PredictionPlan(tiles, int(main), int(device))


def _memory(tile: ZYX, shape: ZYX, runner: TileRunner) -> tuple[float, float]:
    """Bytes of main memory and of the GPU: planes in flight, the tile's channels, the network's pass."""
    voxels = math.prod(tile)
    planes = float(min(tile[0], shape[0]) * shape[1] * shape[2] * _BYTES_PER_SLAB_VOXEL)
    planes += voxels * 4 * (2 * len(runner.settings.image_groups) + 2)
    network = voxels * runner.bytes_per_voxel
    return (planes, network) if runner.on_gpu else (planes + network, 0.0)


def _best_tile(shape: ZYX, overlap: ZYX, runner: TileRunner, limits: Limits) -> ZYX:
    """Fewest voxels computed among the tiles that fit the memory; of equal ones the smallest tile."""
    patch = _multiple(runner.settings.patch_zyx, runner.stride_zyx)
    most = max(_MOST_VOXELS, math.prod(patch))
    axes = [
        _candidates(n, p, o, s, runner.tile_dependent)
        for n, p, o, s in zip(shape, patch, overlap, runner.stride_zyx, strict=True)
    ]
    best: tuple[tuple[int, int], ZYX] | None = None
    least = math.inf
    for z, y, x in itertools.product(*axes):
        main, device = _memory((z, y, x), shape, runner)
        need = max(main / limits.memory, device / limits.device_memory if limits.device_memory else 0.0)
        least = min(least, need)
        voxels = z * y * x
        computed = axes[0][z] * axes[1][y] * axes[2][x] * voxels
        cost = (-voxels, 0) if runner.tile_dependent else (computed, voxels)
        if need <= 1.0 and voxels <= most and (best is None or cost < best[0]):
            best = cost, (z, y, x)
    if best is None:
        have = limits.memory / GIB
        raise SettingsError(
            f"--memory_gb: expected at least {least * have:.2g} GiB for the smallest tiles, got {have:.2g}"
        )
    return best[1]


def _candidates(size: int, patch: int, overlap: int, stride: int, keep: bool) -> dict[int, int]:
    """Tile sizes along an axis, fitted to the volume, with their numbers; smaller ones than the patch too."""
    padded = round_up(size, stride)
    smallest = min(padded, max(_LEAST_STRIDES * stride, overlap + stride))
    sizes = {min(patch, padded)} if keep else set()
    if keep:
        while patch // 2 >= smallest:
            patch = round_up(patch // 2, stride)
            sizes.add(min(patch, padded))
    else:
        for count in range(1, tiles_along(size, smallest, overlap, stride) + 1):
            sizes.add(fitted_tile(size, count, overlap, stride))
    return {tile: tiles_along(size, tile, overlap, stride) for tile in sorted(sizes)}


def _multiple(sizes: ZYX, stride: ZYX) -> ZYX:
    z, y, x = (round_up(n, s) for n, s in zip(sizes, stride, strict=True))
    return z, y, x


def _with(sizes: ZYX, axis: int, value: int) -> ZYX:
    z, y, x = (value if a == axis else n for a, n in enumerate(sizes))
    return z, y, x


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
