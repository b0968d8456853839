"""Parts of the convolutional networks: normalisation, blocks of convolutions, ways up, residual output."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightsheet.core.axes import LOG_GAIN_LIMIT, ZYX

NORMS = ("none", "instance", "batch", "group")
LEAK = 0.2
_GROUPS = 8
# Slope of the log gain that is left beyond its bound.
_LEAST_SLOPE = 0.01


class VolumeNetwork(nn.Module):
    """A network of volumes, (N, C, Z, Y, X) to (N, maps, Z, Y, X); inside `Residual` the maps are two.

    Attributes
    ----------
    stride_zyx : the sides of an input must be multiples of this
    fixed_zyx : the only input size the network takes; None for any
    one_graph : a graph traced with one size of the input holds for all
    unlimited : a voxel of the result depends on all of the input
    """

    stride_zyx: ZYX = (1, 1, 1)
    fixed_zyx: ZYX | None = None
    one_graph: bool = False
    unlimited: bool = False

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the output."""
        raise NotImplementedError


class Residual(VolumeNetwork):
    """The view, input channel 0, times a gain plus an offset, both said by ``body``, above a floor.

    ``max(view * exp(g) + c, min(view, 0))``

    A view fades with the depth of the tissue by a factor, so what it lacks is mostly a smooth gain, and a
    network that may say a gain learns that in few steps. The last convolution starts at zero: an untrained
    network returns its input, whose score under the challenge's metric is 0, rather than something far
    below. ``g`` is bounded, so that no place can grow by more than a factor of twenty.

    Normalised intensity is 0 at percentile 2, so by definition almost nothing of a fused volume lies below
    0. The score sets percentile 2 of the prediction to 0 too: a dark background that is wrong by a hundredth
    below zero would shift the whole volume. The floor prevents it.
    """

    def __init__(self, body: VolumeNetwork) -> None:
        super().__init__()
        self.body = body
        self.stride_zyx = body.stride_zyx
        self.fixed_zyx = body.fixed_zyx
        last = body.last_layer()
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def last_layer(self) -> nn.Conv3d:
        """Return the convolution that makes the gain and the offset."""
        return self.body.last_layer()

    def forward(self, volume: Tensor) -> Tensor:
        """Change channel 0."""
        return self.apply_to(volume[:, :1], self.body(volume))

    @staticmethod
    def apply_to(view: Tensor, raw: Tensor) -> Tensor:
        """Change ``view`` by gain and offset; the sum keeps the view's precision.

        Neither the floor nor the bound of the gain cuts the gradient: a step that throws the network below
        or beyond them everywhere can be undone by the next ones.
        """
        raw = raw.to(view.dtype)
        log_gain = LOG_GAIN_LIMIT * torch.tanh(raw[:, :1] / LOG_GAIN_LIMIT)
        learning = torch.is_grad_enabled() and raw.requires_grad
        if not learning or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return torch.maximum(view * torch.exp(log_gain) + raw[:, 1:], view.clamp(max=0))
        # Adds nothing to the value, and a little to a slope that is nearly zero beyond the bound.
        log_gain = log_gain + _LEAST_SLOPE * (raw[:, :1] - raw[:, :1].detach())
        changed = view * torch.exp(log_gain) + raw[:, 1:]
        return cast("Tensor", _AtLeast.apply(changed, view.detach().clamp(max=0)))  # type: ignore[no-untyped-call]


class _AtLeast(torch.autograd.Function):
    """``maximum(values, floor)`` whose gradient passes below the floor where descent would raise the value.

    As the lower bound in the layers of Balle, Laparra and Simoncelli (ICLR 2016). With the plain maximum, a
    network whose output lies below the floor everywhere gets no gradient and can never come back.
    """

    @staticmethod
    def forward(context: Any, values: Tensor, floor: Tensor) -> Tensor:
        """Return the larger of both."""
        context.save_for_backward(values < floor)
        return torch.maximum(values, floor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient, but for places below the floor that it would lower further."""
        (below,) = context.saved_tensors
        (gradient,) = gradients
        return gradient.masked_fill(below & (gradient > 0), 0), None


def normalisation(norm: str, channels: int) -> nn.Module:
    """Normalisation layer, or none; the instance norm has no weights, as in the reference."""
    if norm == "instance":
        return nn.InstanceNorm3d(channels)
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)
    return nn.Identity()


def unit(in_channels: int, channels: int, norm: str, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, leaky ReLU; a stride of 2 halves the sides."""
    convolution = nn.Conv3d(in_channels, channels, kernel, stride=stride, padding=(kernel - 1) // 2)
    nn.init.kaiming_normal_(convolution.weight, a=LEAK)
    nn.init.zeros_(cast("Tensor", convolution.bias))
    return nn.Sequential(convolution, normalisation(norm, channels), nn.LeakyReLU(LEAK, inplace=True))


class ResidualBlock(nn.Module):
    """Two convolutions beside a short cut (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, channels: int, norm: str) -> None:
        super().__init__()
        self.first = unit(in_channels, channels, norm)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm = normalisation(norm, channels)
        same = in_channels == channels
        self.short_cut: nn.Module = nn.Identity() if same else nn.Conv3d(in_channels, channels, 1)
        self.activation = nn.LeakyReLU(LEAK, inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Activate the sum of both ways."""
        result: Tensor = self.activation(self.norm(self.second(self.first(maps))) + self.short_cut(maps))
        return result


class DenseBlock(nn.Module):
    """Each convolution sees all earlier maps; a 1x1 convolution gathers them (Huang et al., CVPR 2017)."""

    def __init__(self, in_channels: int, channels: int, norm: str, layers: int = 3) -> None:
        super().__init__()
        growth = max(1, channels // 2)
        self.layers = nn.ModuleList(unit(in_channels + i * growth, growth, norm) for i in range(layers))
        self.gather = unit(in_channels + layers * growth, channels, norm, kernel=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Concatenate and gather."""
        for layer in self.layers:
            maps = torch.cat((maps, layer(maps)), dim=1)
        result: Tensor = self.gather(maps)
        return result


def block(kind: str, in_channels: int, channels: int, norm: str, convolutions: int = 2) -> nn.Module:
    """Convolutions of one level: ``plain``, ``residual`` or ``dense``."""
    if kind == "residual":
        return ResidualBlock(in_channels, channels, norm)
    if kind == "dense":
        return DenseBlock(in_channels, channels, norm)
    units = [unit(in_channels if i == 0 else channels, channels, norm) for i in range(convolutions)]
    return nn.Sequential(*units)


class TransposedUp(nn.Module):
    """Double the sides by a transposed 3^3 convolution, then mix the maps by a 1x1 convolution."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        self.mix = unit(channels, channels, norm, kernel=1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, C, 2 Z, 2 Y, 2 X)."""
        result: Tensor = self.mix(self.up(maps))
        return result


class ShuffleUp(nn.Module):
    """Double the sides by moving maps into space (Shi et al., CVPR 2016), in three dimensions."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.expand = nn.Conv3d(channels, channels * 8, 1)
        self.mix = unit(channels, channels, norm, kernel=1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, C, 2 Z, 2 Y, 2 X)."""
        result: Tensor = self.mix(pixel_shuffle_3d(self.expand(maps)))
        return result


def pixel_shuffle_3d(maps: Tensor) -> Tensor:
    """(N, 8 C, Z, Y, X) to (N, C, 2 Z, 2 Y, 2 X); map ``8 c + 4 i + 2 j + k`` goes to offset (i, j, k)."""
    n, channels, z, y, x = maps.shape
    split = maps.reshape(n, channels // 8, 2, 2, 2, z, y, x)
    return split.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, channels // 8, 2 * z, 2 * y, 2 * x)


def pixel_unshuffle_3d(volume: Tensor) -> Tensor:
    """(N, C, 2 Z, 2 Y, 2 X) to (N, 8 C, Z, Y, X), the way back from `pixel_shuffle_3d`."""
    n, channels, z, y, x = volume.shape
    split = volume.reshape(n, channels, z // 2, 2, y // 2, 2, x // 2, 2)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, channels * 8, z // 2, y // 2, x // 2)
