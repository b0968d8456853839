"""How many weights a network asks for at least, known from its dictionary, before any is allocated."""

import math
from collections.abc import Mapping
from typing import Any

# Half of the weights of a network with many features, by the square of the features.
_BY_SQUARE = {
    "unet3d": 3800,
    "resunet3d": 4700,
    "densenet3d": 5000,
    "unet3d_pixelshuffle": 3000,
    "published_unet3d": 3800,
    "unetr": 4500,
    "swin_unetr": 13_000,
    "vit_unet": 15_000,
    "unet2d": 1900,
    "crop_cnn": 280,
    "crop_convlstm": 900,
    "crop_temporal": 950,
}
_FEATURES = 1
# Folding leaves out a level: the deepest has half as many maps.
_FOLDED = 4
# Transformers learn a code for each block of 16^3 voxels of their patch, of this length in UNETR.
_CODE, _BLOCK = 768, 16
# Of ViT-UNet: length of the code if none is asked for, and weights by its square.
_HIDDEN, _BY_HIDDEN = 512, 48


def fewest_weights(network: Mapping[str, Any]) -> int:
    """Return a number that the network's weights surely exceed.

    Parameters
    ----------
    network : as for `networks.build`
    """
    name, features = network.get("name"), network.get("features", _FEATURES)
    if not isinstance(name, str) or not isinstance(features, int):
        return 0  # told by `networks.build`
    fewest = _BY_SQUARE.get(name, 0) * features**2 if features > 1 else 0
    if network.get("fold", 1) != 1:
        fewest //= _FOLDED
    patch = network.get("patch_zyx")
    if name == "unetr" and isinstance(patch, list | tuple) and all(isinstance(n, int) for n in patch):
        fewest += _CODE * math.prod(max(0, n) // _BLOCK for n in patch)
    hidden = network.get("hidden", _HIDDEN)
    if name == "vit_unet" and isinstance(hidden, int):
        fewest += _BY_HIDDEN * hidden**2 + hidden * _BLOCK**3
    return fewest
