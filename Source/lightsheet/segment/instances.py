"""From what a network tells to instances: seeds grow over the foreground until they meet.

Seeds and parts of the foreground are numbered in the whole volume. They grow in blocks of one fixed grid,
each with a rim that is wider than objects are, so that a volume of any size is worked on in bounded memory
and the result depends on the volume alone. The watershed goes down the depth inside the foreground, which
knows the voxel size.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from lightsheet.core.axes import Region, SpacingUm
from lightsheet.core.errors import SettingsError
from lightsheet.segment.parts import CORNERS, FACES, SLAB_VOXELS, Mask, number_parts, planes_of
from lightsheet.volumes.labels import Labels, label_type

BLOCK, RIM = 192, 64
"""Sides of the blocks and width of their rims, in voxels; objects are smaller than the rim."""
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
# By how much of a voxel depths are told apart.
_FINE = 1e-3
# Share of a usual object's volume that one has at least.
_LEAST_OF_USUAL = 0.125
# Of a single plane, of the median object's area.
_LEAST_OF_AREA = 0.05


@dataclass(frozen=True)
class InstanceSettings:
    """How instances are made of what the network tells."""

    foreground: float = 0.5
    """least probability of a voxel to be of an object"""
    marker: float = 0.5
    """least probability of a voxel to be the seed of one"""
    min_um3: float | None = None
    """smaller objects are left out, cubic micrometres (of planes: square micrometres, or pixels where their
    size is not known); default: an eighth of an object of the known diameter, of planes a twentieth of the
    median object, but none of those that the border of the image cuts"""
    fill_holes: bool = True
    """fill holes within objects"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        for name in ("foreground", "marker"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(
                    f"--{name}: expected a probability above 0 and below 1, got {getattr(self, name)}"
                )
        if self.min_um3 is not None and not self.min_um3 >= 0:
            raise SettingsError(f"--min_um3: expected 0 or more, got {self.min_um3:g}")


def instances_of(
    foreground: Mask,
    markers: Mask,
    spacing_um: SpacingUm,
    settings: InstanceSettings | None = None,
    order: NDArray[np.uint8] | None = None,
) -> Labels:
    """Grow instances in memory.

    Parameters
    ----------
    foreground : voxels of objects (Z, Y, X)
    markers : voxels of their seeds (Z, Y, X); those outside of the foreground do not count
    spacing_um : voxel size (z, y, x) in micrometres
    order : which voxels an object takes first, the highest (Z, Y, X); None: by their depth in the foreground

    Returns
    -------
    labels (Z, Y, X) from 1, in the order of their first voxels; a part of the foreground without a seed is an
    object of its own.
    """
    labels = np.zeros(foreground.shape, np.uint32)
    seeds = np.zeros(foreground.shape, np.uint32)
    count = grow(foreground, markers, labels, seeds, spacing_um, settings, order=order)
    return np.asarray(labels.astype(label_type(count)))


def grow(
    foreground: Mask,
    markers: Mask,
    labels: NDArray[np.uint32],
    seeds: NDArray[np.uint32],
    spacing_um: SpacingUm,
    settings: InstanceSettings | None = None,
    usual_um3: float = 0.0,
    voxels: int = SLAB_VOXELS,
    order: NDArray[np.uint8] | None = None,
) -> int:
    """Grow instances; all arrays (Z, Y, X) may be mapped from files.

    Parameters
    ----------
    foreground, markers, spacing_um, order : as for `instances_of`
    labels : gets the instances, numbered in the order of their first voxels
    seeds : room to work in
    usual_um3 : volume of a usual object; 0 where it is not known. Of a single plane it is the area of the
        median object
    voxels : that are worked on at once where no block is needed; the result does not depend on it

    Returns
    -------
    How many instances there are.
    """
    chosen = settings or InstanceSettings()
    numbered = number_seeds(foreground, markers, labels, seeds, voxels)
    for core, block in blocks_of(foreground.shape):
        flood(foreground, seeds, labels, core, block, spacing_um, order)
    sizes = np.zeros(numbered + 1, np.int64)
    for planes in planes_of(labels.shape, voxels):
        sizes += np.bincount(labels[planes].ravel(), minlength=numbered + 1)
    voxel = float(np.prod(spacing_um))
    if chosen.min_um3 is not None:
        kept = sizes >= max(1.0, chosen.min_um3 / voxel)
    else:
        least = _LEAST_OF_USUAL * usual_um3 / voxel
        if labels.shape[0] == 1 and numbered:
            least = _LEAST_OF_AREA * float(np.median(sizes[1:][sizes[1:] > 0]))
        kept = sizes >= max(1.0, least)
        kept[_at_border(labels)] = True
    kept[0] = False
    return _numbered_anew(labels, kept, voxels, fill=chosen.fill_holes)


def number_seeds(
    foreground: Mask, markers: Mask, parts: NDArray[np.uint32], seeds: NDArray[np.uint32], voxels: int
) -> int:
    """Give each seed a number; all of a part of the foreground without any is one. How many there are."""
    count = number_parts(foreground, parts, _neighbours(parts.shape), voxels)
    has_seed = np.zeros(count + 1, bool)
    for planes in planes_of(parts.shape, voxels):
        has_seed[parts[planes][markers[planes] & foreground[planes]]] = True
    has_seed[0] = True
    # In the place of the numbers of the parts: which voxels are seeds.
    for planes in planes_of(parts.shape, voxels):
        parts[planes] = (markers[planes] & foreground[planes]) | ~has_seed[parts[planes]]
    return number_parts(parts, seeds, CORNERS, voxels)  # type: ignore[arg-type]


def blocks_of(shape: tuple[int, ...]) -> Iterator[tuple[Region, Region]]:
    """Blocks of the grid, without and with their rims; a volume that is hardly larger than one is one."""
    along = []
    for size in shape:
        starts = [0] if size <= BLOCK + RIM else range(0, size, BLOCK)
        ends = [*list(starts)[1:], size]
        along.append(
            [
                (slice(first, last), slice(max(0, first - RIM), min(size, last + RIM)))
                for first, last in zip(starts, ends, strict=True)
            ]
        )
    for z, y, x in itertools.product(*along):
        yield (z[0], y[0], x[0]), (z[1], y[1], x[1])


def flood(
    foreground: Mask,
    seeds: NDArray[np.uint32],
    labels: NDArray[np.uint32],
    core: Region,
    block: Region,
    spacing_um: SpacingUm,
    order: NDArray[np.uint8] | None = None,
) -> None:
    """Let the seeds of a block grow over its foreground; its core is written into ``labels``."""
    inside = np.asarray(foreground[block])
    if not inside.any():
        labels[core] = 0
        return
    if order is None:
        depth = edt.edt(inside, anisotropy=spacing_um, black_border=False).astype(np.float64)
        depth[~np.isfinite(depth)] = 0  # all of the block is foreground
        depth += _FINE * min(spacing_um) * _told_apart(block)
    else:
        depth = order[block] + _FINE * _told_apart(block)
    own = np.asarray(seeds[block])
    numbers = np.append(np.uint32(0), np.unique(own[own > 0]))
    dense = np.zeros(int(numbers[-1]) + 1, np.int32)
    dense[numbers] = np.arange(len(numbers))
    grown = watershed(-depth, dense[own], _neighbours(inside.shape), mask=inside)
    z, y, x = (
        slice(side.start - wide.start, side.stop - wide.start) for side, wide in zip(core, block, strict=True)
    )
    labels[core] = numbers[grown[z, y, x]]


def _neighbours(shape: tuple[int, ...]) -> Mask:
    """Voxels that hold together by their faces; pixels of a single plane by their corners too."""
    return np.asarray(CORNERS if shape[0] == 1 else FACES)


def _told_apart(block: Region) -> NDArray[np.float64]:
    """Return numbers (Z, Y, X) from 0 to 1 by place: no two neighbours are at the same depth.

    Which of them is flooded first then hangs on the volume alone, not on where a block begins.
    """
    z, y, x = (
        np.arange(side.start, side.stop, dtype=np.uint32) * np.uint32(factor)
        for side, factor in zip(block, _FACTORS, strict=True)
    )
    mixed = z[:, None, None] ^ y[None, :, None] ^ x[None, None]
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(_FACTORS[0])
    return np.asarray(mixed / np.float64(2**32))


def _at_border(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Numbers of the instances that the border of the volume cuts; an axis of one voxel has no border."""
    faces = [np.unique(np.take(labels, (0, -1), axis=axis)) for axis in range(3) if labels.shape[axis] > 1]
    return np.unique(np.concatenate([np.zeros(0, np.uint32), *faces]))


def _numbered_anew(labels: NDArray[np.uint32], kept: Mask, voxels: int, *, fill: bool) -> int:
    """Give the kept instances numbers in the order of their first voxels, and fill their holes."""
    order: list[int] = []
    seen = ~kept
    for planes in planes_of(labels.shape, voxels):
        found, first = np.unique(labels[planes], return_index=True)
        new = found[np.argsort(first)]
        new = new[~seen[new]]
        seen[new] = True
        order += new.tolist()
    table = np.zeros(len(kept), np.uint32)
    table[order] = np.arange(1, len(order) + 1)
    for planes in planes_of(labels.shape, voxels):
        labels[planes] = table[labels[planes]]
    if fill:
        fill_holes(labels, len(order))
    return len(order)


def fill_holes(labels: NDArray[np.uint32], count: int) -> None:
    """Give what is enclosed by one instance, and of no other, to it."""
    boxes: list[tuple[slice, ...] | None] = ndimage.find_objects(labels.view(np.int32), count)
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        own = labels[box] == number
        holes = ndimage.binary_fill_holes(own) & (labels[box] == 0)
        if holes.any():
            labels[box][holes] = number
