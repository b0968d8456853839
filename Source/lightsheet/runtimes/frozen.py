"""Networks whose norms take statistics of the tile: take them once per volume instead, and freeze them.

Instance and group norms of a tile make its result depend on what else is in the tile, which shows as a
chessboard. Here the statistics are those of many small tiles spread over the whole volume, taken together:
the sample runs through the network as one batch, and each norm in turn is frozen at the mean and variance of
its input over the whole batch. What is left is a network of convolutions and fixed scalings, whose result
does not depend on tiles.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.core.tiles import round_up
from lightsheet.networks import VolumeNetwork
from lightsheet.runtimes.runtime import Floats

_INSTANCE = nn.modules.instancenorm._InstanceNorm
# Voxels of the sample in all: a few seconds on a CPU.
SAMPLE_VOXELS = 1 << 21
_LEAST_TILES = 8


class FrozenNorm(nn.Module):
    """Scaling and offset by channel, which a norm is once its statistics are fixed.

    Parameters
    ----------
    norm : instance or group norm; its weights are kept
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._norm = [norm]  # in a list: it is not part of the frozen network
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))
        self.taking = True

    def forward(self, maps: Tensor) -> Tensor:
        """Scale the maps; while statistics are being taken, take them first."""
        if self.taking:
            self._take(maps)
        shape = (1, -1, *([1] * (maps.ndim - 2)))
        return maps * self.scale.to(maps.dtype).view(shape) + self.offset.to(maps.dtype).view(shape)

    def freeze(self) -> None:
        """Keep the statistics from now on."""
        self.taking = False
        self._norm = []

    def _take(self, maps: Tensor) -> None:
        norm = self._norm[0]
        channels = maps.shape[1]
        groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else channels
        grouped = maps.float().transpose(0, 1).reshape(groups, -1)
        variance, mean = torch.var_mean(grouped, 1, correction=0)
        mean = mean.repeat_interleave(channels // groups)
        scale = (variance.repeat_interleave(channels // groups) + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
        offset = -mean * scale
        if isinstance(norm.weight, Tensor):
            scale, offset = scale * norm.weight, offset * norm.weight
        if isinstance(norm.bias, Tensor):
            offset = offset + norm.bias
        self.scale, self.offset = scale, offset


def freeze_norms(network: VolumeNetwork, sample: Floats) -> VolumeNetwork:
    """Return a copy of a network whose instance and group norms are frozen at the statistics of a sample.

    Parameters
    ----------
    network : in evaluation mode
    sample : tiles (N, C, Z, Y, X) spread over the volume, from `sample_starts`
    """
    frozen = copy.deepcopy(network).cpu()
    norms = _replace(frozen)
    with torch.inference_mode():
        frozen(torch.from_numpy(sample))
    for norm in norms:
        norm.freeze()
    # Statistics made in inference mode can't be used outside of it.
    for norm in norms:
        norm.scale, norm.offset = norm.scale.clone(), norm.offset.clone()
    return frozen


def sample_starts(shape_zyx: ZYX, stride_zyx: ZYX, patch_zyx: ZYX) -> tuple[ZYX, Sequence[ZYX]]:
    """Size and first voxels of the tiles whose statistics stand for the volume.

    A volume of up to two million voxels is one tile, so that the frozen network computes what the whole
    volume in one pass gives. Larger ones are sampled on an even grid of tiles: the training patch, its
    longest sides halved until it is an eighth of the sample, as near to a cube as can be, since at a tile's
    borders the network sees zeros.
    """
    padded = _by_axis(round_up, shape_zyx, stride_zyx)
    if np.prod(padded) <= SAMPLE_VOXELS:
        return padded, [(0, 0, 0)]
    size = _by_axis(min, padded, _by_axis(round_up, _share(patch_zyx), stride_zyx))
    counts = [1, 1, 1]
    most = max(1, SAMPLE_VOXELS // int(np.prod(size)))
    while True:  # one more tile along the axis with the widest gaps, while the sample stays within bounds
        gaps = [n / (c * s) for n, c, s in zip(padded, counts, size, strict=True)]
        axis = int(np.argmax(gaps))
        grown = [c + (a == axis) for a, c in enumerate(counts)]
        if gaps[axis] <= 1 or int(np.prod(grown)) > most:
            break
        counts = grown
    starts = [
        [round((n - s) * (i + 0.5) / c / t) * t if c > 1 else (n - s) // 2 // t * t for i in range(c)]
        for n, s, c, t in zip(padded, size, counts, stride_zyx, strict=True)
    ]
    return size, [(z, y, x) for z in starts[0] for y in starts[1] for x in starts[2]]


def _replace(module: nn.Module) -> list[FrozenNorm]:
    """Put a `FrozenNorm` in the place of each norm of the tile."""
    found = []
    for name, child in module.named_children():
        if isinstance(child, _INSTANCE | nn.GroupNorm):
            norm = FrozenNorm(child)
            setattr(module, name, norm)
            found.append(norm)
        else:
            found += _replace(child)
    return found


def _share(patch_zyx: ZYX) -> ZYX:
    """Halve the longest side until a patch is small enough."""
    sides = list(patch_zyx)
    while math.prod(sides) > SAMPLE_VOXELS // _LEAST_TILES:
        longest = int(np.argmax(sides))
        sides[longest] = -(-sides[longest] // 2)
    return sides[0], sides[1], sides[2]


def _by_axis(function: object, a: ZYX, b: ZYX) -> ZYX:
    z, y, x = (function(m, n) for m, n in zip(a, b, strict=True))  # type: ignore[operator]
    return z, y, x
