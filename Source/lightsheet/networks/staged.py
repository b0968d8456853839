"""A U-Net in three passes, so that tiles of a large volume need little context and leave no trace.

A voxel of a U-Net's result depends on voxels far away (60 to each side with three levels of pooling), but
only through its deep, coarse maps. Computing these maps once for the whole volume, tile by tile on their
own coarse grid, leaves a pass at full resolution that sees only a few voxels beyond its tile:

encode
    volume to maps at a quarter of the resolution: the upper levels on the way down (two, or one where the
    network folds voxels into channels)
deepen
    these maps to maps of the same grid: everything below
finish
    volume and deep maps to the result: the upper levels again, and the way up. The uppermost level,
    where most of the work is, is computed for the tile and a narrow rim only.

With enough context for each pass (:class:`Reach`) the result is that of one pass over the whole volume,
whatever the tiles, because a convolution computes the same number for a voxel wherever its tile begins. That
holds for networks whose layers take no statistics of their input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.networks.blocks import Residual, VolumeNetwork
from lightsheet.networks.unet3d import UNet3D

COARSE = 4
_SIDES = (2, 3, 4)


@dataclass(frozen=True)
class Reach:
    """How far each pass sees to one side.

    Attributes
    ----------
    encode, deepen : coarse voxels, each of four voxels
    rim : voxels of the uppermost level beyond the tile; even
    context : further voxels of the volume and its deep maps; a multiple of four
    """

    encode: int
    deepen: int
    rim: int
    context: int


def split(network: VolumeNetwork) -> "StagedUNet | None":
    """Return the passes of a U-Net, or None for a network that can't be split."""
    body = network.body if isinstance(network, Residual) else network
    if not isinstance(body, UNet3D):
        return None
    return StagedUNet(body, network if isinstance(network, Residual) else None)


class StagedUNet(nn.Module):
    """The passes of a U-Net; shares its weights.

    Parameters
    ----------
    body : the U-Net
    residual : what turns the U-Net's output into a change of the view; None if nothing does
    """

    def __init__(self, body: UNet3D, residual: Residual | None) -> None:
        super().__init__()
        self.body = body
        self._residual = [residual]  # in a list: the body's weights are not to be registered twice

    @property
    def split(self) -> int:
        """Level whose maps have a quarter of the resolution."""
        return 2 if self.body.fold == 1 else 1

    @property
    def encoded_channels(self) -> int:
        """Channels of what `encode` returns."""
        return _outputs(self.body.downs[self.split - 1])

    @property
    def deep_channels(self) -> int:
        """Channels of what `deepen` returns."""
        return _outputs(self.body.levels[self.split])

    def reach(self) -> Reach:
        """Add up the convolutions of each pass; a step down or up sees one voxel to each side."""
        body, top = self.body, self.split
        levels = [_spread(level) for level in body.levels]
        merges = [_spread(merge) for merge in body.merges]
        encode = 0
        for level in reversed(range(top)):
            encode = 2 * encode + 1 + levels[level]
        deep = len(levels) - 1
        deepen = merges[top]
        for level in range(top, deep):  # down to the deepest level and back
            deepen = _halved(deepen) + 1 + (levels[deep] if level == deep - 1 else 0)
        for level in reversed(range(top, deep)):
            deepen = 2 * deepen + 1 + levels[level]
        # Of the level that the places are of, in its voxels: what it needs of itself, and of what lies below.
        behind = merges[0] + _spread(body.output)
        if body.fold == 1:
            rim = _even(behind + 1)
            merged = rim // 2 + merges[1]
            context = max(2 * (merged + levels[1]) + 1 + levels[0], COARSE * (_halved(merged) + 1)) - rim
        else:
            rim = 2 * behind
            context = max(2 * (behind + levels[0]), COARSE * (_halved(behind) + 1)) - rim
        sides = COARSE // 2**top
        return Reach(-(-encode * sides // COARSE), _even(deepen), rim, -(-context // COARSE) * COARSE)

    def encode(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, encoded, Z / 4, Y / 4, X / 4)."""
        maps = self.body.folded(volume)
        for level in range(self.split):
            maps = self.body.downs[level](self.body.levels[level](maps))
        return maps

    def deepen(self, encoded: Tensor) -> Tensor:
        """(N, encoded, Z / 4, Y / 4, X / 4) to (N, deep, Z / 4, Y / 4, X / 4)."""
        return self.body.up_from(self.split, encoded)

    def finish(self, volume: Tensor, deep: Tensor, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the result of a part of the tile, as the U-Net says it (before `head`).

        Parameters
        ----------
        volume : (N, C, Z, Y, X), the tile with rim and context
        deep : (N, deep, Z / 4, Y / 4, X / 4), the deep maps of the same box
        places : indices along Z, Y and X at half the resolution of what is wanted, without gaps

        Returns
        -------
        (N, out, z, y, x), where z is twice the number of indices along Z
        """
        body = self.body
        upper, maps = self.surround(volume, deep)
        for side, place in zip(_SIDES, places, strict=True):
            maps = torch.index_select(maps, side, place)
            both = torch.stack((2 * place, 2 * place + 1), dim=1).flatten() if body.fold == 1 else place
            upper = torch.index_select(upper, side, both)
        if body.fold == 1:
            maps = body.ups[0](maps)
        return body.unfolded(body.output(body.merges[0](torch.cat((upper, maps), dim=1))))

    def surround(self, volume: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `finish` needs of the whole tile: maps of the top and of half size."""
        body = self.body
        upper = body.levels[0](body.folded(volume))
        if body.fold > 1:
            return upper, body.ups[0](deep)
        middle = body.levels[1](body.downs[0](upper))
        return upper, body.merges[1](torch.cat((middle, body.ups[1](deep)), dim=1))

    def head(self, raw: Tensor, view: Tensor) -> Tensor:
        """Turn what the U-Net says about a part into the result; ``view`` (N, 1, z, y, x) is that part."""
        residual = self._residual[0]
        return raw if residual is None else residual.apply_to(view, raw)


def places(begin_zyx: ZYX, size_zyx: ZYX) -> tuple[Tensor, Tensor, Tensor]:
    """Return indices for `finish` of a part of the tile that begins at ``begin_zyx``; all numbers even."""
    z, y, x = (torch.arange(b // 2, (b + n) // 2) for b, n in zip(begin_zyx, size_zyx, strict=True))
    return z, y, x


def _outputs(part: nn.Module) -> int:
    convolutions = [module for module in part.modules() if isinstance(module, nn.Conv3d)]
    return convolutions[-1].out_channels


def _spread(part: nn.Module) -> int:
    """Voxels to one side that a chain of convolutions sees; those of short cuts have one tap and add none."""
    return sum((m.kernel_size[0] - 1) // 2 for m in part.modules() if isinstance(m, nn.Conv3d))


def _halved(size: int) -> int:
    return -(-size // 2)


def _even(size: int) -> int:
    return 2 * _halved(size)
