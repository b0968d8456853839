"""UNETR and SwinUNETR of MONAI, an optional library, behind the interface of our networks."""

from typing import Any

from torch import Tensor, nn

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import MissingExtraError, ModelError
from lightsheet.networks.blocks import VolumeNetwork

_UNETR_STRIDE = 16
_SWIN_STRIDE = 32
_SWIN_FEATURES = 12


class MonaiNetwork(VolumeNetwork):
    """A network of MONAI behind the interface of ours."""

    def __init__(self, body: nn.Module, stride: int, fixed_zyx: ZYX | None = None) -> None:
        super().__init__()
        self.body = body
        self.stride_zyx = (stride, stride, stride)
        self.fixed_zyx = fixed_zyx

    def last_layer(self) -> nn.Conv3d:
        """Return the last convolution of the network's output block."""
        convolutions = [m for m in self.body.out.modules() if isinstance(m, nn.Conv3d)]  # type: ignore[union-attr]
        return convolutions[-1]

    def forward(self, volume: Tensor) -> Tensor:
        """Pass the volume on."""
        result: Tensor = self.body(volume)
        return result


def unetr(
    in_channels: int,
    features: int = 16,
    norm: str = "instance",
    out_channels: int = 1,
    patch_zyx: ZYX = (64, 256, 256),
) -> VolumeNetwork:
    """UNETR (Hatamizadeh et al., WACV 2022); its position codes fix the input size to ``patch_zyx``."""
    size = _sizes(patch_zyx, _UNETR_STRIDE, "unetr")
    norm_name = _monai_norm(norm, "unetr")
    body = _from_monai(
        "UNETR",
        in_channels=in_channels,
        out_channels=out_channels,
        img_size=size,
        feature_size=features,
        norm_name=norm_name,
    )
    return MonaiNetwork(body, _UNETR_STRIDE, fixed_zyx=size)


def swin_unetr(
    in_channels: int, features: int = 24, norm: str = "instance", out_channels: int = 1
) -> VolumeNetwork:
    """SwinUNETR (Hatamizadeh et al., BrainLes 2021); ``features`` are rounded up to a multiple of 12."""
    width = -(-features // _SWIN_FEATURES) * _SWIN_FEATURES
    norm_name = _monai_norm(norm, "swin_unetr")
    body = _from_monai(
        "SwinUNETR",
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=width,
        norm_name=norm_name,
    )
    return MonaiNetwork(body, _SWIN_STRIDE)


def _from_monai(name: str, **arguments: Any) -> nn.Module:
    try:
        from monai.networks import nets  # an extra

        network: nn.Module = getattr(nets, name)(**arguments)
    except ImportError as error:
        raise MissingExtraError(
            f"network {name}: expected the library MONAI with einops, got '{error.name or error}'; "
            'install them with: pip install "lightsheet[monai]"'
        ) from error
    return network


def _monai_norm(norm: str, name: str) -> str:
    """Instance or batch: MONAI's output blocks can't do without a norm."""
    if norm not in ("instance", "batch"):
        raise ModelError(f"network {name}: expected norm instance or batch, got '{norm}' (--layer_norm)")
    return norm


def _sizes(patch_zyx: ZYX, stride: int, name: str) -> ZYX:
    z, y, x = (int(size) for size in patch_zyx)
    if any(size % stride for size in (z, y, x)):
        raise ModelError(
            f"network {name}: expected patch sides that are multiples of {stride}, "
            f"got {patch_zyx} (--patch_size)"
        )
    return z, y, x
