"""Physics in training: the prediction, degraded again as its view was, must give that view.

The forward model (`fuse.physics.degradation`) is differentiable: attenuation along the light's path, a blur
that grows with it, and noise, by which the difference is weighted. A network can't earn this term by looks:
what it adds must be something that the optics of this specimen would have hidden.
"""

from collections.abc import Sequence
from dataclasses import astuple
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lightsheet.core.axes import SpacingUm
from lightsheet.fuse.physics.degradation import Degradation

LEVELS = 3
"""Strengths of blur between which a voxel's own is interpolated."""
_LEAST_SIGMA = 0.15
_TRUNCATE = 3.0


def numbers_of(degradation: Degradation, spacing_um: SpacingUm) -> Tensor:
    """Pack the forward model of a pair and its voxel size into one row (11,)."""
    return torch.tensor((*astuple(degradation), *spacing_um), dtype=torch.float32)


def physics_loss(prediction: Tensor, recorded: Tensor, path_um: Tensor, numbers: Tensor) -> Tensor:
    """Mean difference of the degraded prediction and the recorded view, in units of their noise.

    Large differences count by their size and not by its square (Charbonnier), since the model knows nothing
    of stripes and haze.

    Parameters
    ----------
    prediction, recorded : (N, 1, Z, Y, X) normalised intensities
    path_um : (N, 1, Z, Y, X) path of the light in tissue, micrometres
    numbers : (N, 11), see `numbers_of`
    """
    with torch.autocast(prediction.device.type, enabled=False):
        prediction, recorded, path_um = prediction.float(), recorded.float(), path_um.float()
        losses = []
        for number, row in enumerate(numbers.tolist()):
            model, spacing = Degradation(*row[:-3]), (row[-3], row[-2], row[-1])
            signal = degraded(prediction[number, 0], path_um[number, 0], model, spacing)
            variance = model.shot * signal.detach().clamp(min=0) + model.floor
            squares = (signal + model.offset - recorded[number, 0]) ** 2 / variance
            losses.append((torch.sqrt(1 + squares) - 1).mean())
        return torch.stack(losses).mean()


def degraded(fused: Tensor, path_um: Tensor, model: Degradation, spacing_um: SpacingUm) -> Tensor:
    """Return the view (Z, Y, X) that a fused volume gives, without offset and noise.

    Parameters
    ----------
    fused : (Z, Y, X) normalised intensity
    path_um : (Z, Y, X) path of the light in tissue, micrometres
    model : the forward model
    spacing_um : voxel size (z, y, x)
    """
    depth = model.loss_per_um * path_um
    lit = model.gain * fused * torch.exp(-depth)
    first = _blurred(lit, (model.axial_um, model.lateral_um, model.lateral_um), spacing_um)
    deepest = float(depth.max())
    if model.scatter_um * deepest < _LEAST_SIGMA * max(spacing_um[1:]):
        return first
    knots = np.linspace(0, (model.scatter_um * deepest) ** 2, LEVELS)
    level = (model.scatter_um * depth) ** 2 * ((LEVELS - 1) / knots[-1])
    result, current = torch.zeros_like(lit), first
    for number, variance in enumerate(knots):
        if number:
            step = float(np.sqrt(variance - knots[number - 1]))
            current = _blurred(current, (0.0, step, step), spacing_um)
        result = result + current * (1 - (level - number).abs()).clamp(min=0)
    return result


def _blurred(volume: Tensor, sigma_um: Sequence[float], spacing_um: SpacingUm) -> Tensor:
    """Gaussian blur (Z, Y, X); the border value goes on outside."""
    for axis, (sigma, step) in enumerate(zip(sigma_um, spacing_um, strict=True)):
        width = sigma / step
        if width < _LEAST_SIGMA:
            continue
        band = _band(volume.shape[axis], round(width, 4)).to(volume.device)
        volume = (volume.movedim(axis, -1) @ band.T).movedim(-1, axis)
    return volume


@lru_cache(maxsize=64)
def _band(length: int, width: float) -> Tensor:
    """Matrix (length, length) of a Gaussian blur along an axis: one product is faster than a convolution."""
    reach = max(1, int(_TRUNCATE * width + 0.5))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    places = torch.arange(length)[:, None]
    columns = (places + offsets).clamp(0, length - 1)
    matrix = torch.zeros(length, length)
    return matrix.scatter_add_(1, columns, (kernel / kernel.sum()).expand(length, -1))
