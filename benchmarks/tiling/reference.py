"""Tiled prediction as team RWTH-GE did it in the challenge Fuse My Cells, written from its description.

Patches of 64 x 256 x 256 voxels. A ``crop`` of (5, 15, 15) is cut from each side of a predicted patch, and
what is left overlaps its neighbours by ``overlap``, again (5, 15, 15). It is weighted by the Euclidean
distance to its own border, added up, and divided by the sum of the weights. The first patch begins outside
of the volume, at -(overlap + crop), and the last one begins anywhere before the volume's end, so that along
each axis one patch more is computed than is needed. The network runs in fp32 and as it comes: gradients are
kept, the allocator is the default one, input, sum and weights are float32 volumes of full size.

Not known from the description: what fills a patch outside of the volume. It is mirrored here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ZYX = tuple[int, int, int]
PATCH: ZYX = (64, 256, 256)
MARGIN: ZYX = (5, 15, 15)


@dataclass(frozen=True)
class ReferenceTiling:
    """Patches of the reference's scheme over a volume.

    Attributes
    ----------
    shape_zyx : the volume
    patch_zyx : what the network sees at a time
    margin_zyx : crop and overlap, which are the same
    shift_zyx : voxels by which the grid begins earlier
    """

    shape_zyx: ZYX
    patch_zyx: ZYX = PATCH
    margin_zyx: ZYX = MARGIN
    shift_zyx: ZYX = (0, 0, 0)

    def starts(self, axis: int) -> range:
        """First voxels of the patches along an axis; negative ones lie outside of the volume."""
        margin = self.margin_zyx[axis]
        step = self.patch_zyx[axis] - 3 * margin
        return range(-2 * margin - self.shift_zyx[axis], self.shape_zyx[axis], step)

    @property
    def count(self) -> int:
        """Number of patches."""
        return math.prod(len(self.starts(axis)) for axis in range(3))

    @property
    def redundancy(self) -> float:
        """Voxels computed per voxel of the volume."""
        return self.count * math.prod(self.patch_zyx) / math.prod(self.shape_zyx)

    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Planes where what a patch contributes begins or ends, by axis."""
        edges = (
            {s + edge for s in self.starts(a) for edge in (self.margin_zyx[a], p - self.margin_zyx[a])}
            for a, p in enumerate(self.patch_zyx)
        )
        return tuple(
            tuple(sorted(e for e in axis if 0 < e < n)) for axis, n in zip(edges, self.shape_zyx, strict=True)
        )

    def patches(self) -> Iterator[ZYX]:
        """First voxels (z, y, x) of all patches."""
        yield from product(*(self.starts(axis) for axis in range(3)))

    def weights(self) -> NDArray[np.float32]:
        """Weights of the part of a patch that is kept: distance to its border in voxels."""
        kept = tuple(p - 2 * m for p, m in zip(self.patch_zyx, self.margin_zyx, strict=True))
        inside = np.pad(np.ones(kept, np.uint8), 1)
        distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1, 1:-1]
        return np.asarray(distance, np.float32)


def predict(network: Any, channels: NDArray[np.float32], tiling: ReferenceTiling) -> NDArray[np.float32]:
    """Run a PyTorch network over input channels (C, Z, Y, X) in memory; gradients are kept as they come."""
    import torch

    shape = channels.shape[1:]
    total = np.zeros(shape, np.float32)
    share = np.zeros(shape, np.float32)
    weights = tiling.weights()
    crop = tuple(slice(m, p - m) for m, p in zip(tiling.margin_zyx, tiling.patch_zyx, strict=True))
    device = next(network.parameters()).device
    for start in tiling.patches():
        seen = [_mirrored(s, p, n) for s, p, n in zip(start, tiling.patch_zyx, shape, strict=True)]
        patch = torch.from_numpy(channels[:, seen[0][:, None, None], seen[1][:, None], seen[2]])
        result = network(patch[None].to(device)).detach().cpu().numpy()[0, 0][crop]
        target, source = [], []
        for s, m, length, n in zip(start, tiling.margin_zyx, weights.shape, shape, strict=True):
            first, last = max(0, s + m), min(n, s + m + length)
            target.append(slice(first, max(first, last)))
            source.append(slice(first - s - m, max(first, last) - s - m))
        total[tuple(target)] += result[tuple(source)] * weights[tuple(source)]
        share[tuple(target)] += weights[tuple(source)]
    return total / share


def _mirrored(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Voxels of an axis that a patch sees, with the volume mirrored at both ends."""
    period = max(1, 2 * (size - 1))
    index = np.abs(np.arange(start, start + length)) % period
    return np.where(index < size, index, period - index)
