"""The 3D U-Net of team RWTH-GE for Fuse My Cells, and variants of its blocks and of its way up.

Method: Çiçek et al., MICCAI 2016; the layout follows the description of system 001: three strided 4^3
convolutions down, transposed 3^3 and 1x1 convolutions up, skips by concatenation, three output convolutions.
"""

import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.networks.blocks import LEAK, ShuffleUp, TransposedUp, VolumeNetwork, block, unit

DEPTH = 3


class UNet3D(VolumeNetwork):
    """U-Net with ``features``, 2, 4 and 8 times ``features`` maps at its four levels, linear output.

    Parameters
    ----------
    in_channels : channels of the input
    features : maps of the first level; 16 with two channels gives 1.97 million weights
    norm : "none", "instance", "batch" or "group"; "none" leaves no trace of where tiles fall
    out_channels : channels of the output
    block, up : "plain", "residual" or "dense" convolutions; "transposed" or "shuffle"
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "none",
        out_channels: int = 1,
        *,
        block: str = "plain",
        up: str = "transposed",
    ) -> None:
        super().__init__()
        maps = [features * 2**level for level in range(DEPTH + 1)]
        levels = (_level(block, in_channels, maps, level, norm) for level in range(DEPTH + 1))
        self.levels = nn.ModuleList(levels)
        self.downs = nn.ModuleList(unit(maps[i], maps[i], norm, kernel=4, stride=2) for i in range(DEPTH))
        way_up = ShuffleUp if up == "shuffle" else TransposedUp
        self.ups = nn.ModuleList(way_up(maps[i + 1], norm) for i in range(DEPTH))
        self.merges = nn.ModuleList(_merge(block, maps[i], maps[i + 1], norm) for i in range(DEPTH))
        half = max(1, features // 2)
        self.output = nn.Sequential(
            nn.Conv3d(features, half, 3, padding=1),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Conv3d(half, half, 3, padding=1),
            nn.LeakyReLU(LEAK, inplace=True),
            nn.Conv3d(half, out_channels, 3, padding=1),
        )
        self.stride_zyx: ZYX = (2**DEPTH, 2**DEPTH, 2**DEPTH)

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the output."""
        last = self.output[-1]
        if not isinstance(last, nn.Conv3d):
            raise TypeError("the last layer of a U-Net is a convolution")
        return last

    def forward(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, out_channels, Z, Y, X)."""
        result: Tensor = self.output(self.up_from(0, volume))
        return result

    def up_from(self, level: int, maps: Tensor) -> Tensor:
        """From the input of a level down to the deepest and back up to the maps of that level."""
        maps = self.levels[level](maps)
        if level == DEPTH:
            return maps
        below = self.up_from(level + 1, self.downs[level](maps))
        merged: Tensor = self.merges[level](torch.cat((maps, self.ups[level](below)), dim=1))
        return merged


def _level(kind: str, in_channels: int, maps: list[int], level: int, norm: str) -> nn.Module:
    """Convolutions of a level on the way down; the lowest has a single one."""
    below = in_channels if level == 0 else maps[level - 1]
    return block(kind, below, maps[level], norm, convolutions=1 if level == DEPTH else 2)


def _merge(kind: str, channels: int, from_below: int, norm: str) -> nn.Module:
    """Convolutions on the way up, over the skip and the maps from below."""
    return block(kind, channels + from_below, channels, norm)
