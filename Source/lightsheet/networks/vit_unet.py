"""A vision transformer with the way up of a U-Net: blocks of 16^3 voxels as words, skips from its layers.

Method: UNETR (Hatamizadeh et al., WACV 2022) as system 002 uses it, with a small transformer (512 numbers a
word, 4 layers, 8 heads). What leaves the last layer is the coarsest level; what leaves the layers before it
is brought up once, twice and three times and joins the way up, and so does the volume itself. All of it are
modules of the network: trained, counted and saved with it.
"""

import itertools

import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import ModelError
from lightsheet.networks.blocks import TransposedUp, VolumeNetwork, block

SIDE = 16
_LEVELS = 4
_WIDER = 4
_SPREAD = 0.02


class VitUNet(VolumeNetwork):
    """Vision transformer and way up; ``features``, 2, 4 and 8 times ``features`` maps at its levels.

    The last convolution has one kernel for each map, so that maps of different kinds, such as classes and
    seeds, have heads of their own. The position codes fix the input size.

    Parameters
    ----------
    in_channels : channels of the input
    features : maps at full resolution
    norm : of the convolutions; "none", "instance", "batch" or "group"
    out_channels : maps of the output
    patch_zyx : input size, multiples of 16
    hidden, layers, heads : of the transformer; the layers are as many as the levels below full resolution

    Raises
    ------
    ModelError
        When the size is no multiple of 16.
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "instance",
        out_channels: int = 1,
        patch_zyx: ZYX = (32, 128, 128),
        *,
        hidden: int = 512,
        heads: int = 8,
    ) -> None:
        super().__init__()
        z, y, x = (int(size) for size in patch_zyx)
        if any(size < SIDE or size % SIDE for size in (z, y, x)):
            raise ModelError(
                f"network vit_unet: expected patch sides that are multiples of {SIDE}, got {patch_zyx} "
                "(--patch_size)"
            )
        self.stride_zyx = (SIDE, SIDE, SIDE)
        self.fixed_zyx = (z, y, x)
        self._grid = (z // SIDE, y // SIDE, x // SIDE)
        words = self._grid[0] * self._grid[1] * self._grid[2]
        self.words = nn.Conv3d(in_channels, hidden, SIDE, stride=SIDE)
        self.places = nn.Parameter(_SPREAD * torch.randn(1, words, hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden,
                heads,
                _WIDER * hidden,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(_LEVELS)
        )
        self.norm = nn.LayerNorm(hidden)
        maps = [features * 2**level for level in range(_LEVELS)]
        self.entry = block("residual", in_channels, maps[0], norm)
        # Layer 1 comes up three times to half resolution, layer 2 twice, layer 3 once.
        self.skips = nn.ModuleList(
            _brought_up(hidden, maps[level], _LEVELS - level, norm) for level in range(1, _LEVELS)
        )
        self.bottom = block("plain", hidden, 2 * maps[-1], norm, convolutions=1)
        below = [2 * maps[-1], *reversed(maps)]
        self.ups = nn.ModuleList(TransposedUp(n, norm) for n in below[:-1])
        self.merges = nn.ModuleList(
            block("residual", under + own, own, norm) for under, own in itertools.pairwise(below)
        )
        self.output = nn.Conv3d(maps[0], out_channels, 1)

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the maps."""
        return self.output

    def forward(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) of the one size to (N, maps, Z, Y, X)."""
        told = self.words(volume).flatten(2).transpose(1, 2) + self.places
        states = []
        for layer in self.layers:
            told = layer(told)
            states.append(told)
        maps = self.bottom(self._as_volume(self.norm(states[-1])))
        beside = [skip(self._as_volume(state)) for skip, state in zip(self.skips, states[:-1], strict=True)]
        for up, merge, skip in zip(
            self.ups, self.merges, [*reversed(beside), self.entry(volume)], strict=True
        ):
            maps = merge(torch.cat((up(maps), skip), dim=1))
        result: Tensor = self.output(maps)
        return result

    def _as_volume(self, words: Tensor) -> Tensor:
        """(N, words, numbers) to (N, numbers, Z / 16, Y / 16, X / 16)."""
        return words.transpose(1, 2).reshape(words.shape[0], -1, *self._grid)


def _brought_up(channels: int, maps: int, times: int, norm: str) -> nn.Module:
    """Words to ``maps`` maps, doubled in size ``times`` times."""
    steps: list[nn.Module] = [block("plain", channels, maps, norm, convolutions=1)]
    for _ in range(times):
        steps += [TransposedUp(maps, norm), block("residual", maps, maps, norm)]
    return nn.Sequential(*steps)
