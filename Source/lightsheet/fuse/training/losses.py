"""What training makes small: mean absolute error and one minus SSIM, under both readings of the challenge."""

from dataclasses import dataclass

from torch import Tensor

from lightsheet.evaluate.ssim import READINGS, Reading
from lightsheet.fuse.training.ssim import ssims

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
    prediction: Tensor, fused: Tensor, weights: LossWeights, headroom: Tensor | None = None
) -> Tensor:
    """Weighted sum of mean absolute error and 1 - SSIM, or 1 - N_SSIM if ``weights.relative``.

    Parameters
    ----------
    prediction, fused : (N, 1, Z, Y, X) normalised intensities
    weights : which terms, and how much
    headroom : (N, 2), 1 - SSIM of the views for each of `READINGS`; needed if ``weights.relative``
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
            if headroom is None:
                raise ValueError("headroom: expected what the views lack for a relative loss, got none")
            error = error / headroom[:, READINGS.index(reading)].clamp(min=GAIN_FLOOR[reading])
        loss = loss + weight * error.mean()
    return loss
