"""The 3D U-Net of team RWTH-GE for Fuse My Cells, and variants of its blocks and of its way up.

Method: Çiçek et al., MICCAI 2016; the layout follows the description of system 001: three strided 4^3
convolutions down, transposed 3^3 and 1x1 convolutions up, skips by concatenation, three output convolutions.
"""

import itertools

import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.networks.blocks import (
    LEAK,
    ShuffleUp,
    TransposedUp,
    VolumeNetwork,
    block,
    pixel_shuffle_3d,
    pixel_unshuffle_3d,
    unit,
)

DEPTH = 3
FOLDS = (1, 2)
_PLACES = 8


class UNet3D(VolumeNetwork):
    """U-Net with ``features``, 2, 4 and 8 times ``features`` maps at its four levels, linear output.

    Most of its work is done at full resolution. With ``fold`` 2 that level is left out: blocks of 2 x 2 x 2
    voxels are folded into channels before the first level, and back behind the last one, so that no voxel is
    lost, three levels remain, and all maps are of half the resolution or less (as in efficient
    super-resolution: Shi et al., CVPR 2016).

    Parameters
    ----------
    in_channels : channels of the input
    features : maps of the first level; 16 with two channels gives 1.97 million weights
    norm : "none", "instance", "batch" or "group"; "none" leaves no trace of where tiles fall
    out_channels : channels of the output
    fold : sides of the blocks that are folded into channels, 1 or 2
    block, up : "plain", "residual" or "dense" convolutions; "transposed" or "shuffle"
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "none",
        out_channels: int = 1,
        *,
        fold: int = 1,
        block: str = "plain",
        up: str = "transposed",
    ) -> None:
        super().__init__()
        if fold not in FOLDS:
            raise ValueError(f"fold 1 or 2, not {fold!r}")
        self.fold = fold
        self.depth = DEPTH + 1 - fold
        places = _PLACES if fold > 1 else 1
        maps = [features * 2**level for level in range(self.depth + 1)]
        self.levels = nn.ModuleList(
            _block_of_level(block, in_channels * places, maps, level, norm) for level in range(len(maps))
        )
        self.downs = nn.ModuleList(unit(n, n, norm, kernel=4, stride=2) for n in maps[:-1])
        way_up = ShuffleUp if up == "shuffle" else TransposedUp
        self.ups = nn.ModuleList(way_up(n, norm) for n in maps[1:])
        self.merges = nn.ModuleList(_merge(block, n, below, norm) for n, below in itertools.pairwise(maps))
        half = features if fold > 1 else max(1, features // 2)
        self.output = nn.Sequential(
            nn.Conv3d(features, half, 3, padding=1),
            nn.LeakyReLU(LEAK, inplace=True),
            *([] if fold > 1 else [nn.Conv3d(half, half, 3, padding=1), nn.LeakyReLU(LEAK, inplace=True)]),
            nn.Conv3d(half, out_channels * places, 3, padding=1),
        )
        side = fold * 2**self.depth
        self.stride_zyx: ZYX = (side, side, side)

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the output."""
        last = self.output[-1]
        if not isinstance(last, nn.Conv3d):
            raise TypeError("the last layer of a U-Net is a convolution")
        return last

    def forward(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, out_channels, Z, Y, X)."""
        return self.unfolded(self.output(self.up_from(0, self.folded(volume))))

    def folded(self, volume: Tensor) -> Tensor:
        """Return what the first level takes: the volume, or (N, 8 C, Z / 2, Y / 2, X / 2)."""
        return volume if self.fold == 1 else pixel_unshuffle_3d(volume)

    def unfolded(self, maps: Tensor) -> Tensor:
        """Undo `folded` for what the last level gives."""
        return maps if self.fold == 1 else pixel_shuffle_3d(maps)

    def up_from(self, level: int, maps: Tensor) -> Tensor:
        """From the input of a level down to the deepest and back up to the maps of that level."""
        maps = self.levels[level](maps)
        if level == self.depth:
            return maps
        below = self.up_from(level + 1, self.downs[level](maps))
        merged: Tensor = self.merges[level](torch.cat((maps, self.ups[level](below)), dim=1))
        return merged


def _block_of_level(kind: str, in_channels: int, maps: list[int], level: int, norm: str) -> nn.Module:
    """Convolutions of a level on the way down; the lowest has a single one."""
    below = in_channels if level == 0 else maps[level - 1]
    return block(kind, below, maps[level], norm, convolutions=1 if level == len(maps) - 1 else 2)


def _merge(kind: str, channels: int, from_below: int, norm: str) -> nn.Module:
    """Convolutions on the way up, over the skip and the maps from below."""
    return block(kind, channels + from_below, channels, norm)
