"""Choose tiles before the work starts: the least work that the memory allows.

Networks that can be split into passes (`networks.staged`) give the same result whatever the tiles are.
Others are run in one pass a tile, with overlaps that are blended. So are the first, if the memory is so
small for the planes of deep maps that passes keep that tiles would be tiny.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import SettingsError
from lightsheet.core.memory import GIB
from lightsheet.core.tiles import TilePlan, fitted_tile, plan_tiles, round_up, tiles_along
from lightsheet.inference.pass_planning import PassMemory, best_layout, layout_for, pass_memory, work
from lightsheet.inference.passes import Layout
from lightsheet.runtimes.facts import NetworkFacts
from lightsheet.runtimes.runtime import Runtime

# Least overlap where it is blended. 24 holds a halo of nine voxels: with trained networks without norms,
# tiled and whole volume then differ by about 1e-4 to 1e-3 of the normalised range, although a U-Net's
# receptive field is 60. The smaller ones are for little memory, where small tiles would be computed several
# times over.
_LEAST_OVERLAPS = (24, 16, 8)
_ENOUGH_REDUNDANCY = 1.9
# Work for each one of a single pass that is too much to pay for a result that does not depend on the tiles.
_TOO_MUCH_WORK = 4.0
# Larger tiles were not faster per voxel on a CPU; they only take memory.
_MOST_VOXELS = 1 << 23
_FLOAT_BYTES = 4
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
    layout : tiles of all passes
    memory : bytes of main memory
    device_memory : bytes on the GPU; 0 without one
    redundancy : multiply-adds for each one of a single pass over the whole volume
    """

    layout: Layout
    memory: int
    device_memory: int
    redundancy: float

    @property
    def tiles(self) -> TilePlan:
        """Tiles of the only, or the finishing, pass."""
        return self.layout.tiles

    @property
    def exact(self) -> bool:
        """Whether the result is that of one pass over the whole volume."""
        return self.layout.deepen is not None or self.tiles.count == 1

    def lines(self, runtime: Runtime) -> list[str]:
        """Text for the user, before the work starts."""
        plan = self.tiles
        memory = f"{self.memory / GIB:.1f} GiB of memory"
        if self.device_memory:
            memory += f", {self.device_memory / GIB:.1f} GiB on the GPU"
        how = "does not depend on the tiles"
        if not self.exact:
            how = f"is blended over {_by(plan.overlap_zyx)} voxels (more memory may make it exact)"
        others = [p for p in (self.layout.deepen, self.layout.encode) if p is not None]
        passes = plan.count + sum(other.count for other in others)
        return [
            f"volume {_by(plan.shape_zyx)}, tiles {_by(plan.tile_zyx)}; the result {how}",
            f"{passes} forward pass{'es' if passes > 1 else ''}, {self.redundancy:.2f} times the work of "
            f"one over the volume, about {memory}; {runtime.description}",
        ]


def plan_prediction(
    shape_zyx: ZYX, facts: NetworkFacts, patch_zyx: ZYX, runtime: Runtime, limits: Limits
) -> PredictionPlan:
    """Choose the tiles of a volume.

    A patch asked for is taken as it is: it is what a pass finishes, and the network reads as much more as
    its reach needs. Otherwise tiles are fitted to the volume such that the least work is done, within the
    memory and 8.4 million voxels. Volumes that fit one such tile take one pass.

    Parameters
    ----------
    facts : of the network
    patch_zyx : its training patch

    Raises
    ------
    SettingsError
        When patch or overlap don't suit the network or even small tiles need more than the memory.
    """
    planner = _Planner(shape_zyx, facts, patch_zyx, runtime, limits)
    tile = planner.asked_for()
    if tile is None and planner.fits_whole():
        return planner.one_pass(shape_zyx, (0, 0, 0))
    in_passes = facts.staged is not None and facts.fixed_zyx is None and not _covers(tile, shape_zyx)
    passes = planner.in_passes() if in_passes else None
    if passes is not None and (tile is not None or passes.redundancy <= _TOO_MUCH_WORK):
        return passes
    blended = planner.blended(tile)
    return passes if passes is not None and passes.redundancy <= blended.redundancy else blended


def plan_of_sizes(
    shape_zyx: ZYX, facts: NetworkFacts, runtime: Runtime, sizes: Mapping[str, Any]
) -> PredictionPlan:
    """Make the plan again whose `Layout.sizes` were kept.

    Raises
    ------
    KeyError, TypeError, ValueError
        When they are not sizes.
    """

    def zyx(name: str) -> ZYX:
        z, y, x = (int(n) for n in sizes[name])
        return z, y, x

    if sizes["deepen_zyx"] is None:
        return _one_pass(shape_zyx, zyx("tile_zyx"), zyx("overlap_zyx"), facts, runtime)
    tiles = zyx("tile_zyx"), zyx("deepen_zyx"), zyx("encode_zyx")
    layout = layout_for(shape_zyx, facts, *tiles, zyx("overlap_zyx"), half_maps=bool(sizes["half_maps"]))
    return _of_passes(layout, facts, runtime)


def smaller_plan(plan: PredictionPlan, facts: NetworkFacts, runtime: Runtime) -> PredictionPlan | None:
    """About half of a plan's tile, or None when tiles can't be made smaller."""
    if facts.fixed_zyx is not None:
        return None
    layout = plan.layout
    if layout.deepen is not None and facts.staged is not None:
        half = _half(plan.tiles.tile_zyx, (4, 4, 4), 2 * facts.staged.rim + 4)
        if half is None:
            return None
        deepen = _half(layout.deepen.tile_zyx, (2, 2, 2), 2 * facts.staged.deepen_reach + 2)
        encode = None if layout.encode is None else _half(layout.encode.tile_zyx, (1, 1, 1), 8)
        tiles = (half, deepen or layout.deepen.tile_zyx, encode or layout.encode.tile_zyx)  # type: ignore[union-attr]
        shape = plan.tiles.shape_zyx
        return _of_passes(layout_for(shape, facts, *tiles, half_maps=layout.half_maps), facts, runtime)
    half = _half(plan.tiles.tile_zyx, facts.stride_zyx, 0)
    if half is None:
        return None
    overlap = _capped(plan.tiles.overlap_zyx, half, facts.stride_zyx)
    return _one_pass(plan.tiles.shape_zyx, half, overlap, facts, runtime)


def default_overlap(patch_zyx: ZYX, facts: NetworkFacts, least: int = _LEAST_OVERLAPS[0]) -> ZYX:
    """Overlap that is blended: an eighth of the patch, at least ``least`` voxels, at most twice the reach.

    Networks that see everything (attention) get a quarter, since only blending hides the tiles' differences,
    and at most half.
    """
    sides = []
    for axis in range(3):
        side = max(least, patch_zyx[axis] // (4 if facts.reach_zyx is None else 8))
        if facts.reach_zyx is not None:
            side = min(side, 2 * facts.reach_zyx[axis])
        sides.append(round_up(side, facts.stride_zyx[axis]))
    z, y, x = sides
    return _capped((z, y, x), patch_zyx, facts.stride_zyx) if facts.reach_zyx is None else (z, y, x)


class _Planner:
    """Plans of one pass a tile."""

    def __init__(self, shape: ZYX, facts: NetworkFacts, patch: ZYX, runtime: Runtime, limits: Limits) -> None:
        self.shape, self.facts, self.runtime, self.limits = shape, facts, runtime, limits
        self.patch = _multiple(patch, facts.stride_zyx)
        self.unbounded = facts.reach_zyx is None

    def asked_for(self) -> ZYX | None:
        """Return the tile that is given by the user or the network."""
        fixed, wanted = self.facts.fixed_zyx, self.limits.patch_zyx
        if fixed is None:
            return wanted
        if wanted not in (None, fixed):
            raise SettingsError(
                f"--patch_size: expected {_by(fixed)}, the only size this network takes, "
                f"got {_by(wanted or ())}"
            )
        return fixed

    def fits_whole(self) -> bool:
        """Whether one plain pass over the volume is within the limits."""
        padded = _multiple(self.shape, self.facts.stride_zyx)
        memory = _memory(padded, self.shape, self.facts, self.runtime)
        return math.prod(padded) <= _MOST_VOXELS and _need(memory, self.limits) <= 1.0

    def in_passes(self) -> PredictionPlan | None:
        """Plan of a network that can be split; None if even its smallest tiles need too much memory.

        Coarse maps are kept in half precision only where that saves a good part of the work.
        """
        plans = []
        limits = self.limits
        for half in (self.runtime.low_precision, True):
            layout = best_layout(
                self.shape,
                self.facts,
                self.runtime,
                limits.memory,
                limits.device_memory,
                (limits.patch_zyx, limits.overlap_zyx),
                half_maps=half,
            )
            if layout is not None:
                plans.append(_of_passes(layout, self.facts, self.runtime))
                if plans[-1].redundancy <= _ENOUGH_REDUNDANCY:
                    return plans[-1]
        return min(plans, key=lambda plan: plan.redundancy, default=None)

    def one_pass(self, tile: ZYX, overlap: ZYX) -> PredictionPlan:
        """Make a plan of a given tile."""
        return _one_pass(self.shape, tile, overlap, self.facts, self.runtime)

    def blended(self, tile: ZYX | None) -> PredictionPlan:
        """Choose the tile, unless it is given, and the overlap."""
        overlap = self.limits.overlap_zyx
        if tile is not None:
            usual = _capped(default_overlap(tile, self.facts), tile, self.facts.stride_zyx)
            return self.one_pass(tile, overlap or usual)
        plans = []
        for least in _LEAST_OVERLAPS:
            wide = overlap or default_overlap(self.patch, self.facts, least)
            plans.append(self.one_pass(self._best_tile(wide), wide))
            if plans[-1].redundancy <= _ENOUGH_REDUNDANCY or overlap or self.unbounded:
                return plans[-1]
        return min(plans, key=lambda plan: plan.redundancy)

    def _best_tile(self, overlap: ZYX) -> ZYX:
        """Fewest voxels computed among the tiles that fit the memory; of equal ones the smallest tile."""
        most = max(_MOST_VOXELS, math.prod(self.patch))
        axes = [
            _candidates(n, p, o, s, self.unbounded)
            for n, p, o, s in zip(self.shape, self.patch, overlap, self.facts.stride_zyx, strict=True)
        ]
        best: tuple[tuple[int, int], ZYX] | None = None
        least = math.inf
        for z, y, x in itertools.product(*axes):
            need = _need(_memory((z, y, x), self.shape, self.facts, self.runtime), self.limits)
            least = min(least, need)
            voxels = z * y * x
            computed = axes[0][z] * axes[1][y] * axes[2][x] * voxels
            cost = (-voxels, 0) if self.unbounded else (computed, voxels)
            if need <= 1.0 and voxels <= most and (best is None or cost < best[0]):
                best = cost, (z, y, x)
        if best is None:
            have = self.limits.memory / GIB
            raise SettingsError(
                f"--memory_gb: expected at least {least * have:.2g} GiB for the smallest tiles, "
                f"got {have:.2g}"
            )
        return best[1]


def _of_passes(layout: Layout, facts: NetworkFacts, runtime: Runtime) -> PredictionPlan:
    memory = pass_memory(layout, facts, runtime)
    return PredictionPlan(layout, memory.main, memory.device, work(layout, facts))


def _one_pass(shape: ZYX, tile: ZYX, overlap: ZYX, facts: NetworkFacts, runtime: Runtime) -> PredictionPlan:
    cut = facts.fixed_zyx is None
    if cut and _covers(tile, shape):
        tile = _multiple(shape, facts.stride_zyx)
    tiles = plan_tiles(shape, tile, overlap, facts.stride_zyx, facts.reach_zyx, cut=cut)
    memory = _memory(tiles.tile_zyx, shape, facts, runtime)
    layout = Layout(tiles, None, None, facts.stride_zyx)
    return PredictionPlan(layout, memory.main, memory.device, work(layout, facts))


def _memory(tile: ZYX, shape: ZYX, facts: NetworkFacts, runtime: Runtime) -> PassMemory:
    """Bytes of main memory and of the GPU: planes in flight, the tile's channels, the network's pass."""
    voxels = math.prod(tile)
    numbers = _FLOAT_BYTES * facts.outputs + facts.views * facts.view_bytes
    planes = min(tile[0], shape[0]) * shape[1] * shape[2] * numbers
    planes += voxels * _FLOAT_BYTES * 2 * (facts.channels + facts.outputs)
    network = int(voxels * facts.whole.numbers * runtime.bytes_per_number)
    return PassMemory(planes, network) if runtime.on_gpu else PassMemory(planes + network, 0)


def _need(memory: PassMemory, limits: Limits) -> float:
    """Share of the limits that is taken; above 1 it is too much."""
    on_gpu = memory.device / limits.device_memory if limits.device_memory else 0.0
    return max(memory.main / limits.memory, on_gpu)


def _covers(tile: ZYX | None, shape: ZYX) -> bool:
    return tile is not None and all(t >= n for t, n in zip(tile, shape, strict=True))


def _capped(overlap_zyx: ZYX, tile_zyx: ZYX, stride_zyx: ZYX) -> ZYX:
    """Overlap of at most half a tile."""
    z, y, x = (
        min(o, max(0, t // 2 // s * s)) for o, t, s in zip(overlap_zyx, tile_zyx, stride_zyx, strict=True)
    )
    return z, y, x


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


def _half(tile: ZYX, stride: ZYX, least: int) -> ZYX | None:
    """Halve the longest side that can be halved."""
    for axis in sorted(range(3), key=lambda a: -tile[a]):
        half = round_up(tile[axis] // 2, stride[axis])
        if half < tile[axis] and half >= max(least, _LEAST_STRIDES * stride[axis]):
            z, y, x = (half if a == axis else n for a, n in enumerate(tile))
            return z, y, x
    return None


def _multiple(sizes: ZYX, stride: ZYX) -> ZYX:
    z, y, x = (round_up(n, s) for n, s in zip(sizes, stride, strict=True))
    return z, y, x


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
