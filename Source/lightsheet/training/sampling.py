"""Which parts of volumes are read: patches of training in their order, and the block that is validated.

Patches are decided by the seed and the number of the sample alone: sample 1000 is the same patch whether it
was reached in one go or after five interruptions, with no or with eight reading processes, on one device or
on four.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Region
from lightsheet.core.errors import VolumeError
from lightsheet.core.progress import LOG

# Larger validation volumes are judged by a block of about this many voxels around the specimen's middle.
VALIDATION_VOXELS = 1 << 22
_FEWEST_SAMPLES = 50
_ORDER, _PATCH = 0, 1


def sample_numbers(start: int, stop: int, rank: int = 0, ranks: int = 1) -> range:
    """Numbers of the samples from ``start`` to before ``stop`` that one of several devices takes.

    Parameters
    ----------
    start, stop : first sample, and the one after the last, over all devices
    rank, ranks : number of this device, and of all; they take turns
    """
    return range(start + rank, stop, ranks)


def volume_of_sample(seed: int, number: int, volumes: int) -> int:
    """Index of the volume a sample comes from: each volume once, in a new order, then again."""
    turn, place = divmod(number, volumes)
    order = np.random.default_rng([seed, _ORDER, turn]).permutation(volumes)
    return int(order[place])


def generator_of_sample(seed: int, number: int) -> np.random.Generator:
    """Source of randomness for the place and the augmentation of a sample."""
    return np.random.default_rng([seed, _PATCH, number])


def draw_region(
    shape_zyx: ZYX,
    patch_zyx: ZYX,
    foreground: NDArray[np.integer],
    foreground_share: float,
    rng: np.random.Generator,
) -> Region:
    """Place a patch in a volume at random.

    Its middle may be anywhere, and it is moved inside where it would stick out: with starts drawn evenly the
    rim of a volume, which holds most of its background, would hardly be seen.

    Parameters
    ----------
    shape_zyx, patch_zyx : sizes in voxels; the patch fits into the volume
    foreground : (N, 3) positions in the specimen
    foreground_share : probability that the patch has to contain one of them, chosen at random; where in the
        patch it lies is random too
    rng : source of randomness
    """
    last = [size - patch for size, patch in zip(shape_zyx, patch_zyx, strict=True)]
    if rng.random() < foreground_share and len(foreground):
        voxel: Sequence[int] = foreground[rng.integers(len(foreground))].tolist()
        lowest = [max(0, place - patch + 1) for place, patch in zip(voxel, patch_zyx, strict=True)]
        highest = [min(top, place) for top, place in zip(last, voxel, strict=True)]
    else:
        lowest = [-(patch // 2) for patch in patch_zyx]
        highest = [top + patch // 2 for top, patch in zip(last, patch_zyx, strict=True)]
    drawn = (int(rng.integers(a, b + 1)) for a, b in zip(lowest, highest, strict=True))
    starts = [min(max(start, 0), top) for start, top in zip(drawn, last, strict=True)]
    z, y, x = (slice(start, start + patch) for start, patch in zip(starts, patch_zyx, strict=True))
    return z, y, x


def fit_patch(wanted: ZYX, shapes: Mapping[str, ZYX], stride_zyx: ZYX) -> ZYX:
    """Patch that fits into every volume and is a multiple of the network's stride; says what it changed.

    Parameters
    ----------
    wanted : patch (Z, Y, X) in voxels
    shapes : shape of each volume, by the name that errors give it
    stride_zyx : of the network

    Raises
    ------
    VolumeError
        When a volume is smaller than the stride.
    """
    sizes = []
    for axis, stride in enumerate(stride_zyx):
        smallest = min(shapes, key=lambda name: shapes[name][axis])
        room = shapes[smallest][axis]
        if room < stride:
            raise VolumeError(
                f"{smallest}: expected at least {stride} voxels along {'ZYX'[axis]} "
                f"for this network, got {room} (--backbone)"
            )
        sizes.append(max(stride, min(wanted[axis], room) // stride * stride))
    patch = sizes[0], sizes[1], sizes[2]
    if patch != wanted:
        LOG.info(
            "patch_size: %s instead of %s, so that it fits into every volume and into steps of %s voxels",
            *(",".join(map(str, size)) for size in (patch, wanted, stride_zyx)),
        )
    return patch


def samples_per_epoch(wanted: int, step: int, shapes: Iterable[ZYX], patch_zyx: ZYX) -> int:
    """Patches in an epoch, in whole steps.

    Parameters
    ----------
    wanted : as many; -1: as many voxels as the volumes have
    step : patches in a step, on all devices
    shapes : of the volumes that are trained on, (Z, Y, X)
    patch_zyx : patch in voxels
    """
    if wanted == -1:
        voxels = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
        wanted = max(_FEWEST_SAMPLES, voxels // int(np.prod(patch_zyx)))
    return -(-wanted // step) * step


def validation_region(
    shape_zyx: ZYX,
    foreground: NDArray[np.integer],
    most_voxels: int = VALIDATION_VOXELS,
    fixed_zyx: ZYX | None = None,
) -> Region:
    """Region of a volume that is scored in validation: all of it, or a block around the specimen's middle.

    Parameters
    ----------
    shape_zyx : of the volume, voxels
    foreground : (N, 3) positions in the specimen
    most_voxels : larger volumes are scored by a block, which keeps their proportions
    fixed_zyx : the one size that the network takes
    """
    shrink = min(1.0, (most_voxels / np.prod(shape_zyx, dtype=np.float64)) ** (1 / 3))
    sizes = fixed_zyx or [max(1, int(size * shrink)) for size in shape_zyx]
    middle = np.median(foreground, axis=0) if len(foreground) else np.array(shape_zyx) / 2
    starts = [
        int(np.clip(round(float(at) - size / 2), 0, full - size))
        for at, size, full in zip(middle, sizes, shape_zyx, strict=True)
    ]
    z, y, x = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return z, y, x
