"""Loss of the classes and the seeds: Dice and cross-entropy, weighted so that thin edges count."""

import torch
from torch import Tensor
from torch.nn import functional

from lightsheet.segment.targets import CLASS_WEIGHTS, CLASSES

MARKER_WEIGHT = 2.0
_SMOOTH = 1.0


def class_loss(raw: Tensor, classes: Tensor) -> Tensor:
    """Weighted Dice loss and cross-entropy.

    Parameters
    ----------
    raw : (N, 3, Z, Y, X) before the softmax
    classes : (N, Z, Y, X) class of each voxel
    """
    weights = torch.tensor(CLASS_WEIGHTS, dtype=raw.dtype, device=raw.device)
    entropy = functional.cross_entropy(raw, classes, weights)
    shares = raw.softmax(dim=1)
    wanted = functional.one_hot(classes, len(CLASSES)).movedim(-1, 1).to(raw.dtype)
    axes = (0, 2, 3, 4)
    both = (shares * wanted).sum(axes)
    dice = 1 - (2 * both + _SMOOTH) / (shares.sum(axes) + wanted.sum(axes) + _SMOOTH)
    return entropy + (weights * dice).sum() / weights.sum()


def marker_loss(raw: Tensor, markers: Tensor) -> Tensor:
    """Binary cross-entropy and Dice loss of the seeds.

    Parameters
    ----------
    raw : (N, Z, Y, X) before the sigmoid
    markers : (N, Z, Y, X), 0 or 1
    """
    wanted = markers.to(raw.dtype)
    heavy = torch.tensor(MARKER_WEIGHT, dtype=raw.dtype, device=raw.device)
    entropy = functional.binary_cross_entropy_with_logits(raw, wanted, pos_weight=heavy)
    share = raw.sigmoid()
    dice = 1 - (2 * (share * wanted).sum() + _SMOOTH) / (share.sum() + wanted.sum() + _SMOOTH)
    return entropy + dice
