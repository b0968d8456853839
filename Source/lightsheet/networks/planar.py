"""Networks of planes behind the interface of those of volumes: each plane of (N, C, Z, Y, X) is one image.

A U-Net of ours that a laptop can train, and U-Nets with an encoder that may have seen ImageNet: MONAI's
FlexibleUNet, and those of segmentation_models_pytorch. The last two are optional libraries.
"""

import importlib
import itertools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightsheet.core.errors import MissingExtraError, ModelError
from lightsheet.networks.blocks import LEAK, VolumeNetwork

_LEVELS = 5
# Maps of a level, in those of the first: more at the deepest one cost weights and help little.
_WIDER = (1, 2, 4, 8, 8)
_ENCODER_STRIDE = 32
_FLEXIBLE, _ANY = "efficientnet-b3", "resnet34"


class PlanarNetwork(VolumeNetwork):
    """Runs a network of images (N, C, Y, X) on each plane of a volume."""

    one_graph = True

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride_zyx = (1, stride, stride)

    def plane(self, images: Tensor) -> Tensor:
        """(N, C, Y, X) to (N, maps, Y, X)."""
        raise NotImplementedError

    def forward(self, volume: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to (N, maps, Z, Y, X)."""
        count, channels, depth, height, width = volume.shape
        maps = self.plane(volume.transpose(1, 2).reshape(count * depth, channels, height, width))
        return maps.reshape(count, depth, -1, height, width).transpose(1, 2)


class UNet2D(PlanarNetwork):
    """U-Net of residual blocks with ``features``, 2, 4, 8 and 8 times ``features`` maps.

    Method: Ronneberger et al., MICCAI 2015, with residual blocks (He et al., CVPR 2016) and ways up that
    repeat pixels. With 16 features it has 1.5 million weights.

    Parameters
    ----------
    in_channels : channels of the input
    features : maps of the first level
    norm : "none" or "batch"; the latter is trained with at least some patches a step
    out_channels : maps of the output
    """

    def __init__(
        self, in_channels: int, features: int = 16, norm: str = "batch", out_channels: int = 1
    ) -> None:
        super().__init__(2 ** (_LEVELS - 1))
        if norm not in ("none", "batch"):
            raise ModelError(f"network unet2d: expected norm none or batch, got '{norm}'")
        maps = [features * wider for wider in _WIDER]
        self.entry = _unit(in_channels, maps[0], norm)
        self.levels = nn.ModuleList(_Residual(n, norm) for n in maps)
        self.downs = nn.ModuleList(_unit(a, b, norm, stride=2) for a, b in itertools.pairwise(maps))
        self.ups = nn.ModuleList(_unit(b, a, norm, kernel=1) for a, b in itertools.pairwise(maps))
        self.merges = nn.ModuleList(
            nn.Sequential(_unit(2 * n, n, norm), _unit(n, n, norm)) for n in maps[:-1]
        )
        self.output = nn.Conv2d(maps[0], out_channels, 1)

    def plane(self, images: Tensor) -> Tensor:
        """(N, C, Y, X) to (N, maps, Y, X)."""
        maps = self.levels[0](self.entry(images.contiguous(memory_format=torch.channels_last)))
        beside = [maps]
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            maps = level(down(maps))
            beside.append(maps)
        for number in reversed(range(_LEVELS - 1)):
            above = functional.interpolate(self.ups[number](maps), scale_factor=2.0, mode="nearest")
            maps = self.merges[number](torch.cat((beside[number], above), dim=1))
        result: Tensor = self.output(maps)
        return result


class EncoderUNet2D(PlanarNetwork):
    """A U-Net of another library; squeeze-and-excitation makes its maps depend on the whole image."""

    unlimited = True

    def __init__(self, body: nn.Module) -> None:
        super().__init__(_ENCODER_STRIDE)
        self.body = body

    def plane(self, images: Tensor) -> Tensor:
        """(N, C, Y, X) to (N, maps, Y, X)."""
        result: Tensor = self.body(images)
        return result


def flexible_unet(
    in_channels: int,
    features: int = 0,
    norm: str = "batch",
    out_channels: int = 1,
    encoder: str = _FLEXIBLE,
) -> VolumeNetwork:
    """MONAI's FlexibleUNet, which needs no torchvision; the encoder says how wide it is, not ``features``."""
    try:
        from monai.networks.nets import FlexibleUNet  # an extra
    except ImportError as error:
        raise MissingExtraError(
            f"network flexible_unet2d: expected the library MONAI, got '{error.name or error}'; "
            'install it with: pip install "lightsheet[monai]"'
        ) from error
    try:
        body = FlexibleUNet(in_channels, out_channels, encoder, pretrained=False, spatial_dims=2)
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"network flexible_unet2d: expected an encoder that MONAI knows, got '{encoder}' (--encoder)"
        ) from error
    return EncoderUNet2D(cast("nn.Module", body))


def any_encoder_unet(
    in_channels: int, features: int = 0, norm: str = "batch", out_channels: int = 1, encoder: str = _ANY
) -> VolumeNetwork:
    """U-Net of segmentation_models_pytorch with any of its encoders, whose names it has."""
    try:
        smp = importlib.import_module("segmentation_models_pytorch")  # an extra
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            "network smp_unet2d: expected the library segmentation_models_pytorch, got "
            f"'{str(error).splitlines()[0]}'; install it with: "
            'pip install "lightsheet[smp]", beside builds of torch and torchvision that belong together'
        ) from error
    try:
        body = smp.Unet(encoder, encoder_weights=None, in_channels=in_channels, classes=out_channels)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"network smp_unet2d: expected an encoder that the library knows, got '{encoder}' (--encoder)"
        ) from error
    return EncoderUNet2D(cast("nn.Module", body))


class _Residual(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.first = _unit(channels, channels, norm)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none"), _norm(norm, channels)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Activate the sum of both ways."""
        return functional.leaky_relu(maps + self.second(self.first(maps)), LEAK)


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


def _unit(in_channels: int, channels: int, norm: str, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, leaky ReLU; a stride of 2 halves the sides."""
    layer = nn.Conv2d(in_channels, channels, kernel, stride, (kernel - 1) // 2, bias=norm == "none")
    nn.init.kaiming_normal_(layer.weight, a=LEAK)
    return nn.Sequential(layer, _norm(norm, channels), nn.LeakyReLU(LEAK, inplace=True))


def take_encoder_weights(network: VolumeNetwork, state: dict[str, Any]) -> tuple[int, int]:
    """Give an encoder the weights that it has in a file; of how many layers, and how many it has.

    A first convolution of three colours becomes one of grey: its kernels are added up. Names are compared
    from their ends, as libraries put other words before them.
    """
    body = cast("EncoderUNet2D", network).body
    encoder = cast("nn.Module", body.encoder)
    own = {name: value for name, value in encoder.state_dict().items() if value.ndim}
    taken: dict[str, Tensor] = {}
    for name, value in own.items():
        names = (name, f"encoder.{name}", f"_{name}")
        names = (name, f"encoder.{name}", f"_{name}")
        given = next((state[other] for other in names if other in state), None)
        if given is None or given.ndim != value.ndim:
            continue
        if given.ndim == 4 and given.shape[1] == 3 and value.shape[1] == 1:
            given = given.sum(dim=1, keepdim=True)
        if given.shape == value.shape:
            taken[name] = given
    encoder.load_state_dict(taken, strict=False)
    return len(taken), len(own)
