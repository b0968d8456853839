"""SSIM that a network can learn from, under both readings of the challenge.

Computed in fp32 by products with banded matrices: a Gaussian along one axis is one matrix product, which
needs no padding and is far faster on every device than a dense 11 x 11 x 11 convolution. The readings ``tf``
and ``3d`` (see `lightsheet.evaluate.ssim`) share the moments along Z and Y: both cost little more than one.
"""

from functools import lru_cache

import torch
from torch import Tensor

from lightsheet.evaluate.ssim import DATA_RANGE, K1, K2, WINDOW, Reading, gaussian_weights


def ssims(first: Tensor, second: Tensor, readings: list[Reading]) -> dict[Reading, Tensor]:
    """Mean SSIM of each pair of volumes, (N,), over all places where the window fits.

    Parameters
    ----------
    first, second : (N, 1, Z, Y, X)
    readings : "tf" (range 10, window over Z-Y), "3d" (range 1, window over Z-Y-X), or both
    """
    with torch.autocast(first.device.type, enabled=False):
        a, b = first.float()[:, 0], second.float()[:, 0]
        moments = torch.stack((a, b, a * a + b * b, a * b))
        moments = _along_y(_along_z(moments))
        result: dict[Reading, Tensor] = {}
        if "tf" in readings:
            result["tf"] = _similarity(moments, DATA_RANGE["tf"])
        if "3d" in readings:
            result["3d"] = _similarity(_along_x(moments), DATA_RANGE["3d"])
    return result


def _similarity(moments: Tensor, data_range: float) -> Tensor:
    """SSIM from the windowed means of a, b, a² + b² and ab; mean over Z, Y and X."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b, squares, product = moments.unbind(0)
    means_product = 2 * mean_a * mean_b
    means_squares = mean_a * mean_a + mean_b * mean_b
    similarity = (means_product + c1) * (2 * product - means_product + c2)
    similarity = similarity / ((means_squares + c1) * (squares - means_squares + c2))
    return similarity.mean(dim=(1, 2, 3))


def _along_x(maps: Tensor) -> Tensor:
    return maps @ _band(maps.shape[-1], maps.device).T


def _along_y(maps: Tensor) -> Tensor:
    return _band(maps.shape[-2], maps.device) @ maps


def _along_z(maps: Tensor) -> Tensor:
    *leading, z, y, x = maps.shape
    band = _band(z, maps.device)
    return (band @ maps.reshape(*leading, z, y * x)).reshape(*leading, band.shape[0], y, x)


@lru_cache(maxsize=32)
def _band(length: int, device: torch.device) -> Tensor:
    """Matrix (length - window + 1, length) that takes the Gaussian mean at every place where it fits."""
    window = min(WINDOW, length if length % 2 else length - 1)
    weights = torch.as_tensor(gaussian_weights(window), dtype=torch.float32)
    matrix = torch.zeros(length - window + 1, length)
    for row in range(len(matrix)):
        matrix[row, row : row + window] = weights
    return matrix.to(device)
