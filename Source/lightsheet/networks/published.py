"""The 3D U-Net whose weights team RWTH-GE has published for Fuse My Cells, layer by layer as in its files.

Method: Çiçek et al., MICCAI 2016. Unlike `UNet3D` it halves the maps of each level's first convolution, has
two convolutions in the lowest level, activates behind its transposed convolutions, and norms its output's
convolutions. Its parts have the names of the published state dictionaries.
"""

import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.networks.blocks import LEAK, VolumeNetwork, normalisation, unit

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
}


class PublishedUNet3D(VolumeNetwork):
    """U-Net of four levels with ``features``, 2, 4 and 8 times ``features`` maps.

    Parameters
    ----------
    in_channels : channels of the input
    features : maps of the first level
    norm : "none", "instance" or "batch"
    out_channels : channels of the output
    activation : at the end, one of `ACTIVATIONS`
    """

    stride_zyx: ZYX = (8, 8, 8)
    one_graph = True

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "instance",
        out_channels: int = 1,
        *,
        activation: str = "none",
    ) -> None:
        super().__init__()
        f = features
        self.c1 = _pair(in_channels, max(1, f // 2), f, norm)
        self.d1 = unit(f, f, norm, kernel=4, stride=2)
        self.c2 = _pair(f, f, 2 * f, norm)
        self.d2 = unit(2 * f, 2 * f, norm, kernel=4, stride=2)
        self.c3 = _pair(2 * f, 2 * f, 4 * f, norm)
        self.d3 = unit(4 * f, 4 * f, norm, kernel=4, stride=2)
        self.c4 = _pair(4 * f, 4 * f, 8 * f, norm)
        self.u1 = _up(8 * f, norm)
        self.c5 = _pair(12 * f, 4 * f, 4 * f, norm)
        self.u2 = _up(4 * f, norm)
        self.c6 = _pair(6 * f, 2 * f, 2 * f, norm)
        self.u3 = _up(2 * f, norm)
        self.c7 = _pair(3 * f, f, f, norm)
        end = ACTIVATIONS[activation](0, 1) if activation == "hardtanh" else ACTIVATIONS[activation]()
        if isinstance(end, nn.LeakyReLU):
            end.negative_slope = LEAK
        self.out = nn.Sequential(*_pair(f, f, f, norm), nn.Conv3d(f, out_channels, 1), end)

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the output."""
        last = self.out[-2]
        if not isinstance(last, nn.Conv3d):
            raise TypeError("the last layer but one of this U-Net is a convolution")
        return last

    def forward(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, out_channels, Z, Y, X)."""
        first = self.c1(volume)
        second = self.c2(self.d1(first))
        third = self.c3(self.d2(second))
        maps = self.u1(self.c4(self.d3(third)))
        maps = self.u2(self.c5(torch.cat((maps, third), 1)))
        maps = self.u3(self.c6(torch.cat((maps, second), 1)))
        result: Tensor = self.out(self.c7(torch.cat((maps, first), 1)))
        return result


def _pair(in_channels: int, between: int, channels: int, norm: str) -> nn.Sequential:
    """Two convolutions in one flat sequence."""
    return nn.Sequential(*unit(in_channels, between, norm), *unit(between, channels, norm))


def _up(channels: int, norm: str) -> nn.Sequential:
    """Double the sides, then mix the maps; both activated."""
    twice = nn.ConvTranspose3d(channels, channels, 3, stride=2, padding=1, output_padding=1)
    mixed = unit(channels, channels, norm, kernel=1)
    return nn.Sequential(twice, normalisation(norm, channels), nn.LeakyReLU(LEAK, inplace=True), *mixed)
