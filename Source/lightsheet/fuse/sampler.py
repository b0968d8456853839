"""Which patches are drawn, in which order: decided by the seed and the number of the sample alone.

Sample 1000 is the same patch whether it was reached in one go or after five interruptions, with no or with
eight reading processes, on one device or on four.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from lightsheet.core.axes import ZYX, Region

_ORDER, _PATCH = 0, 1


class SampleNumbers(Sampler[int]):
    """Numbers of the samples from ``start`` to ``stop`` that one of several devices takes.

    Parameters
    ----------
    start, stop : first sample, and the one after the last, over all devices
    rank, ranks : number of this device, and of all; they take turns
    """

    def __init__(self, start: int, stop: int, rank: int = 0, ranks: int = 1) -> None:
        self._numbers = range(start + rank, stop, ranks)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)


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
