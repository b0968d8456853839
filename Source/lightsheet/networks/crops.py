"""Networks that tell what a crop of a few channels is: (N, C, S, S, S) to (N, classes).

The first two are those of system 003: three steps of convolution and pooling (16, 32, 64 maps) on one to
four channels, and a convolutional LSTM over the time points (Shi et al., NeurIPS 2015). The third is ours: it
is shown how the image changes, and pools within the object of the mask as well as over the whole cube.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightsheet.networks.blocks import ResidualBlock, VolumeNetwork, unit

_DROPOUT = 0.3
_TINY = 1e-3


class CropNetwork(VolumeNetwork):
    """A network of crops.

    Parameters
    ----------
    channels : which channels of the input it looks at; None: all
    in_channels : of the input
    """

    def __init__(self, channels: Sequence[int] | None, in_channels: int) -> None:
        super().__init__()
        taken = list(range(in_channels)) if channels is None else [int(one) for one in channels]
        if not taken or min(taken) < 0 or max(taken) >= in_channels:
            raise ValueError(f"channels out of 0 to {in_channels - 1}, not {channels!r}")
        self.channels = taken
        self.stride_zyx = (8, 8, 8)

    def taken(self, crops: Tensor) -> Tensor:
        """Return the channels that it looks at."""
        return crops[:, self.channels]


class CropCNN(CropNetwork):
    """Three steps of convolution and pooling, then two linear layers."""

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "group",
        out_channels: int = 4,
        *,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, in_channels)
        maps = [len(self.channels), features, 2 * features, 4 * features]
        steps = [nn.Sequential(unit(a, b, norm), nn.MaxPool3d(2)) for a, b in itertools.pairwise(maps)]
        self.steps = nn.Sequential(*steps)
        self.told = _told(maps[-1], out_channels)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S, S) to (N, classes)."""
        result: Tensor = self.told(self.steps(self.taken(crops)).mean(dim=(2, 3, 4)))
        return result


class CropConvLSTM(CropNetwork):
    """A convolutional LSTM over the channels, one after the other, behind two steps of convolution."""

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "group",
        out_channels: int = 4,
        *,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, in_channels)
        self.hidden = 2 * features
        self.seen = nn.Sequential(
            unit(1, features, norm), nn.MaxPool3d(2), unit(features, self.hidden, norm), nn.MaxPool3d(2)
        )
        self.gates = nn.Conv3d(2 * self.hidden, 4 * self.hidden, 3, padding=1)
        self.told = _told(self.hidden, out_channels)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S, S) to (N, classes)."""
        hidden = cell = None
        for channel in self.channels:
            seen = self.seen(crops[:, channel : channel + 1])
            if hidden is None or cell is None:
                hidden, cell = torch.zeros_like(seen), torch.zeros_like(seen)
            into, forget, out, new = self.gates(torch.cat((seen, hidden), dim=1)).chunk(4, dim=1)
            cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
            hidden = out.sigmoid() * cell.tanh()
        if hidden is None:
            raise ValueError("expected at least one channel")
        result: Tensor = self.told(hidden.mean(dim=(2, 3, 4)))
        return result


class CropTemporal(CropNetwork):
    """Residual steps on images, mask and changes of the image; pooled over the cube and within the mask.

    The last of its channels is the mask, the others are time points. Means and spreads of each time point
    within the mask go beside what was pooled.
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 16,
        norm: str = "group",
        out_channels: int = 4,
        *,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, in_channels)
        count = len(self.channels)
        self.times = max(1, count - 1)
        first = count + self.times - 1
        maps = [features, 2 * features, 4 * features]
        self.entry = unit(first, maps[0], norm)
        self.steps = nn.ModuleList(
            nn.Sequential(ResidualBlock(a, b, norm), nn.MaxPool3d(2))
            for a, b in zip([maps[0], *maps[:-1]], maps, strict=True)
        )
        self.told = _told(3 * maps[-1] + 2 * self.times + 1, out_channels)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, C, S, S, S) to (N, classes)."""
        seen = self.taken(crops)
        images, mask = seen[:, : self.times], seen[:, -1:]
        changes = images[:, 1:] - images[:, :-1]
        maps = self.entry(torch.cat((seen, changes), dim=1))
        for step in self.steps:
            maps = step(maps)
        small = nn.functional.adaptive_avg_pool3d(mask, maps.shape[2:])
        all_of_it = maps.flatten(2)
        own = small.flatten(2)
        pooled = [
            all_of_it.mean(dim=2),
            all_of_it.amax(dim=2),
            (all_of_it * own).sum(dim=2) / (own.sum(dim=2) + _TINY),
        ]
        weights = mask / (mask.sum(dim=(2, 3, 4), keepdim=True) + _TINY)
        means = (images * weights).sum(dim=(2, 3, 4))
        spreads = (
            ((images - means[..., None, None, None]) ** 2 * weights).sum(dim=(2, 3, 4)).add(_TINY).sqrt()
        )
        share = mask.mean(dim=(2, 3, 4)).add(_TINY).log()
        result: Tensor = self.told(torch.cat((*pooled, means, spreads, share), dim=1))
        return result


def _told(numbers: int, classes: int) -> nn.Sequential:
    wide = max(32, numbers)
    return nn.Sequential(
        nn.Linear(numbers, wide), nn.ReLU(inplace=True), nn.Dropout(_DROPOUT), nn.Linear(wide, classes)
    )
