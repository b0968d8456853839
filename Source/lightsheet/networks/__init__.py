"""Networks: tensor in, tensor out, no file access.

A network is built from a small dictionary, which is kept in the model folder::

    build({"name": "unet3d", "in_channels": 2, "features": 16, "norm": "none", "residual": True})

It takes (N, C, Z, Y, X) and returns (N, maps, Z, Y, X), or, a network of crops, (N, classes); ``stride_zyx``
says of what the sides must be multiples.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lightsheet.core.errors import LightsheetError, ModelError, one_line
from lightsheet.networks.asked import fewest_weights
from lightsheet.networks.blocks import NORMS, Residual, VolumeNetwork
from lightsheet.networks.crops import CropCNN, CropConvLSTM, CropTemporal
from lightsheet.networks.planar import UNet2D, any_encoder_unet, flexible_unet
from lightsheet.networks.published import PublishedUNet3D
from lightsheet.networks.transformers import swin_unetr, unetr
from lightsheet.networks.unet3d import UNet3D
from lightsheet.networks.vit_unet import VitUNet

__all__ = ["BACKBONES", "NORMS", "VolumeNetwork", "build", "fewest_weights"]

_BUILDERS: dict[str, Callable[..., VolumeNetwork]] = {
    "unet3d": lambda **kwargs: UNet3D(block="plain", up="transposed", **kwargs),
    "resunet3d": lambda **kwargs: UNet3D(block="residual", up="transposed", **kwargs),
    "densenet3d": lambda **kwargs: UNet3D(block="dense", up="transposed", **kwargs),
    "unet3d_pixelshuffle": lambda **kwargs: UNet3D(block="plain", up="shuffle", **kwargs),
    "published_unet3d": PublishedUNet3D,
    "unetr": unetr,
    "swin_unetr": swin_unetr,
    "vit_unet": VitUNet,
    "unet2d": UNet2D,
    "flexible_unet2d": flexible_unet,
    "smp_unet2d": any_encoder_unet,
    "crop_cnn": CropCNN,
    "crop_convlstm": CropConvLSTM,
    "crop_temporal": CropTemporal,
}
BACKBONES = tuple(_BUILDERS)
# How PyTorch and MONAI say that sizes, types or names are wrong, or too large.
_REFUSED = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError)


def build(network: Mapping[str, Any]) -> VolumeNetwork:
    """Build a network from its dictionary.

    Parameters
    ----------
    network : "name" (one of `BACKBONES`), "in_channels", and, where the network knows them, "features"
        (maps of the first level), "norm" (one of `NORMS`), "patch_zyx" (UNETR and ViT-UNet, whose input size
        is fixed) or "encoder" (those of planes).
        "residual": True makes the output the first input channel times a gain plus an offset, which start at
        1 and 0, so that an untrained network returns its input. "outputs": maps of a result that is not
        residual; one by default.

    Raises
    ------
    ModelError
        When the name or an argument is unknown.
    MissingExtraError
        When MONAI is wanted and not installed.
    """
    arguments = dict(network)
    name = arguments.pop("name", None)
    residual = arguments.pop("residual", False)
    outputs = arguments.pop("outputs", 1)
    if name not in _BUILDERS:
        raise ModelError(f"network: expected a name out of {', '.join(BACKBONES)}, got {name!r}")
    if arguments.get("norm", "none") not in NORMS:
        raise ModelError(f"network: expected norm out of {', '.join(NORMS)}, got {arguments['norm']!r}")
    if residual and outputs != 1:
        raise ModelError(f"network: expected one output of a residual network, got {outputs!r}")
    try:
        module = _BUILDERS[name](out_channels=2 if residual else outputs, **arguments)
    except LightsheetError:
        raise
    except _REFUSED as error:
        raise ModelError(
            f"network {name}: expected arguments it knows, got '{one_line(str(error))}'"
        ) from error
    return Residual(module) if residual else module
