"""What training makes small: mean absolute error and one minus SSIM, under both readings of the challenge.

SSIM is computed in fp32 by products with banded matrices: a Gaussian along one axis is one matrix product,
which needs no padding and is far faster on every device than a dense 11 x 11 x 11 convolution. The readings
``tf`` and ``3d`` (see `lightsheet.evaluate.ssim`) share the moments along Z and Y, so both cost little more
than one.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lightsheet.evaluate.ssim import DATA_RANGE, K1, K2, READINGS, WINDOW, Reading, gaussian_weights

# Below this 1 - SSIM of the view there is nothing to win, and the quotient would only magnify noise. Views of
# well lit, clear specimens lack hardly more: four times as much made networks that spoilt these.
GAIN_FLOOR: dict[Reading, float] = {"tf": 0.001, "3d": 0.005}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms beside the mean absolute error, whose weight is 1.

    Attributes
    ----------
    ssim_3d : of 1 - SSIM with an 11^3 window and range 1
    ssim_tf : of 1 - SSIM with an 11^2 window over Z-Y and range 10
    relative : divide each 1 - SSIM by that of the volume's view: the term becomes 1 - N_SSIM
    """

    ssim_3d: float
    ssim_tf: float
    relative: bool = False


def fusion_loss(
    prediction: Tensor, fused: Tensor, weights: LossWeights, lack: Tensor | None = None
) -> Tensor:
    """Weighted sum of mean absolute error and 1 - SSIM, or 1 - N_SSIM if ``weights.relative``.

    Parameters
    ----------
    prediction, fused : (N, 1, Z, Y, X) normalised intensities
    weights : which terms, and how much
    lack : (N, 2), 1 - SSIM of the views for each of `READINGS`; needed if ``weights.relative``
    """
    prediction, fused = prediction.float(), fused.float()
    loss = (prediction - fused).abs().mean()
    terms: list[tuple[Reading, float]] = [("tf", weights.ssim_tf), ("3d", weights.ssim_3d)]
    readings = [reading for reading, weight in terms if weight > 0]
    if not readings:
        return loss
    got = ssims(prediction, fused, readings)
    for reading, weight in terms:
        if weight <= 0:
            continue
        error = 1 - got[reading]
        if weights.relative:
            if lack is None:
                raise ValueError("lack: expected what the views lack for a relative loss, got none")
            error = error / lack[:, READINGS.index(reading)].clamp(min=GAIN_FLOOR[reading])
        loss = loss + weight * error.mean()
    return loss


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


def ssim_of_range(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """Mean SSIM of each pair of (N, 1, Z, Y, X) volumes, 11^3 window, for values of ``data_range``."""
    with torch.autocast(first.device.type, enabled=False):
        a, b = first.float()[:, 0], second.float()[:, 0]
        moments = torch.stack((a, b, a * a + b * b, a * b))
        return _similarity(_along_x(_along_y(_along_z(moments))), data_range)


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
