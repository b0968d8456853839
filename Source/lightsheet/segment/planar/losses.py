"""Loss of maps of any design: Dice with cross-entropy or focal loss, weighted so that thin lines count."""

import torch
from torch import Tensor
from torch.nn import functional

from lightsheet.segment.designs import Design

_SMOOTH = 1.0
_GAMMA = 2.0
_LEAST = 1e-6


def map_losses(raw: Tensor, wanted: Tensor, weight: Tensor, design: Design, *, focal: bool) -> list[Tensor]:
    """Return the loss of each map, in the design's weights.

    Parameters
    ----------
    raw : as the network says it (N, maps, Z, Y, X)
    wanted : 0 to 1, of the same shape
    weight : of the pixels (N, Z, Y, X)
    design : which maps are classes, and the weights of the maps
    focal : pixels that are right already count little (Lin et al., ICCV 2017)
    """
    raw = raw.float()
    losses = []
    classes = design.exclusive
    shares = torch.cat((raw[:, :classes].softmax(dim=1), raw[:, classes:].sigmoid()), dim=1)
    logs = raw[:, :classes].log_softmax(dim=1) if classes else raw[:, :0]
    for number, share_of_loss in enumerate(design.weights):
        said, true = shares[:, number], wanted[:, number]
        if number < classes:
            entropy = -true * logs[:, number]
        else:
            entropy = functional.binary_cross_entropy_with_logits(raw[:, number], true, reduction="none")
        if focal:
            entropy = entropy * (said - true).abs() ** _GAMMA
        mean = (entropy * weight).sum() / weight.sum().clamp(min=_LEAST)
        losses.append(share_of_loss * (mean + dice(said, true)))
    return losses


def dice(said: Tensor, true: Tensor) -> Tensor:
    """Dice loss of a map; of soft targets least where both agree (V-Net's squared form)."""
    both = 2 * (said * true).sum()
    return 1 - (both + _SMOOTH) / ((said**2).sum() + (true**2).sum() + _SMOOTH)
