"""Pairs that a model is adapted by: of parts of the stack itself, or given; and those that are held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import LIGHT_KEY, ZYX, Channel, Side, side_in
from lightsheet.core.errors import VolumeError
from lightsheet.core.names import FUSED, VIEW
from lightsheet.core.progress import track
from lightsheet.datasets.convert import convert_file
from lightsheet.datasets.splits import Pair, read_pairs
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.fuser import light_of
from lightsheet.fuse.physics.settings import told_side
from lightsheet.operate.adapting.settings import AdaptSettings
from lightsheet.simulate.stacks import pair_of_stack
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import open_volume
from lightsheet.volumes.writing import write_volume

_PART: ZYX = (32, 96, 96)
_HELD_OUT = 0.25
_FEWEST_HELD_OUT = 16
_FEWEST_PAIRS_HELD_OUT = 6
_MOST_VOXELS = 1 << 25
# A view, its fused volume, and the side from which it is lit, if that is to be known.
_Images = tuple[NDArray[Any], NDArray[Any], Side | None]


def own_pairs(
    volume: LazyVolume, channel: Channel, chosen: AdaptSettings, work: Path, key: str
) -> tuple[list[Pair], list[Pair]]:
    """Make pairs of parts of the stack: to train on, and of a slab that training does not see."""
    spacing = volume.info.require_spacing()
    known = estimate(volume, light_of(volume.info, chosen.light))
    lit = _well_lit(volume, known.side)
    taught, held_out = _divided(lit, known.side, volume.info.source)
    few = max(_FEWEST_PAIRS_HELD_OUT, chosen.parts // 4)
    jobs = [(taught, number, "train") for number in range(chosen.parts)]
    jobs += [(held_out, chosen.parts + number, "val") for number in range(few)]
    found: dict[str, list[Pair]] = {"train": [], "val": []}
    for content, number, part in track(iter(jobs), "parts of the stack seen and fused", len(jobs)):
        folder = work / f"{key[:12]}_{number}"

        def images(content: NDArray[Any] = content, number: int = number) -> _Images:
            pair = pair_of_stack(content, spacing, channel, (chosen.seed, number), _PART, volume.info.source)
            return pair.view, pair.fused, side_in(pair.parameters) if told_side(known.said) else None

        found[part].append(_converted(folder, volume.info, channel, images))
    return found["train"], found["val"]


def _well_lit(volume: LazyVolume, side: Side | None) -> NDArray[Any]:
    """Read the half of a stack towards its light, or all where the side is not known; of much, the middle."""
    shape = volume.shape_zyx
    region = [slice(0, n) for n in shape]
    if side is not None:
        axis, half = "zyx".index(side[1]), shape["zyx".index(side[1])] // 2
        region[axis] = slice(0, half) if side[0] == "-" else slice(half, shape[axis])
    while np.prod([float(s.stop - s.start) for s in region]) > _MOST_VOXELS:
        longest = max(range(3), key=lambda k: region[k].stop - region[k].start)
        quarter = (region[longest].stop - region[longest].start) // 4
        region[longest] = slice(region[longest].start + quarter, region[longest].stop - quarter)
    return volume.read(region[0].start, region[0].stop)[:, region[1], region[2]]


def _divided(stack: NDArray[Any], side: Side | None, source: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Divide a stack across the light, at three quarters of its longest such axis."""
    across = [axis for axis in range(3) if side is None or axis != "zyx".index(side[1])]
    axis = max(across, key=lambda one: stack.shape[one])
    size = stack.shape[axis]
    held_out = max(_FEWEST_HELD_OUT, round(_HELD_OUT * size))
    if size < 3 * _FEWEST_HELD_OUT:
        raise VolumeError(
            f"{source}: expected at least {3 * _FEWEST_HELD_OUT} voxels along an axis across the light, to "
            f"hold out a slab by which an adaptation is judged, got {stack.shape}"
        )
    parts = np.split(stack, [size - held_out], axis=axis)
    return parts[0], parts[1]


def given_pairs(listed: Path, channel: Channel, work: Path, key: str) -> tuple[list[Pair], list[Pair]]:
    """Divide each pair of a list: most of it to train on, its end to judge by."""
    found: dict[str, list[Pair]] = {"train": [], "val": []}
    for number, pair in enumerate(read_pairs(listed, listed.parent)):
        with open_volume(pair.view) as view, open_volume(pair.fused) as fused:
            if view.shape_zyx != fused.shape_zyx:
                raise VolumeError(
                    f"{pair.fused}: expected the shape of its view {pair.view.name}, {view.shape_zyx}, "
                    f"got {fused.shape_zyx}"
                )
            for place, part in enumerate(("train", "val")):

                def images(view: LazyVolume = view, fused: LazyVolume = fused, place: int = place) -> _Images:
                    wholes = [(one.read(0, one.shape_zyx[0]), one.info) for one in (view, fused)]
                    seen, target = (_divided(whole, None, info.source)[place] for whole, info in wholes)
                    return seen, target, side_in(view.info.metadata)

                folder = work / f"{key[:12]}_pair{number}_{part}"
                found[part].append(_converted(folder, view.info, channel, images))
    return found["train"], found["val"]


def _converted(folder: Path, info: VolumeInfo, channel: Channel, images: Callable[[], _Images]) -> Pair:
    """Write a view and its fused volume and convert them, unless an earlier run did."""
    names = [f"part{role}" for role in (VIEW, FUSED)]
    targets = [folder / f"{name}.h5" for name in names]
    if not all(target.is_file() for target in targets):
        *pair, light = images()
        metadata = {} if light is None else {LIGHT_KEY: light}
        for name, target, data in zip(names, targets, pair, strict=True):
            source = folder / f"{name}.tif"
            z, y, x = data.shape
            written = VolumeInfo(
                str(source), (z, y, x), data.dtype.name, info.spacing_um, channel, info.study or 0, metadata
            )
            folder.mkdir(parents=True, exist_ok=True)
            write_volume(source, data, written)
            convert_file(source, target)
            source.unlink()
    return Pair(*targets)
