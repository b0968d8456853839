"""The challenge's score of a prediction, and the common errors beside it.

Every volume is first normalised by its own percentiles 2 and 99.8, over the whole volume and unclipped, as
the challenge does; a volume whose two percentiles are equal is taken as it is. Then

    N_SSIM = (SSIM(prediction, fused) - SSIM(view, fused)) / (1 - SSIM(view, fused))

so that copying the view scores 0 and a perfect prediction 1; there is no lower bound.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.evaluate.ssim import Reading, SsimByDepth, ssim, ssim_by_depth

# Below this, 1 - SSIM is rounding: the two volumes are equal.
EQUAL = 1e-9
LOSS_BELOW = -0.02
"""N_SSIM below which a result counts as a loss, wherever losses are counted."""


@dataclass(frozen=True)
class Score:
    """How close a volume is to the fused volume; both normalised.

    Attributes
    ----------
    ssim : SSIM plane by plane, both readings
    mae : mean absolute difference
    psnr : peak signal to noise ratio in decibels for a range of 1; infinite for equal volumes
    pearson : correlation of all voxels; NaN when one of the volumes is constant
    """

    ssim: SsimByDepth
    mae: float
    psnr: float
    pearson: float


def relative_score(ssim_prediction: float, ssim_view: float) -> float:
    """N_SSIM from the two SSIM values: 0 is no better than the view, 1 is perfect.

    Where the view already equals the fused volume the quotient is undefined: 0 for a prediction that is
    equal too (it changed nothing), NaN for any other.
    """
    room = 1.0 - ssim_view
    if abs(room) < EQUAL:
        return 0.0 if abs(1.0 - ssim_prediction) < EQUAL else math.nan
    return (ssim_prediction - ssim_view) / room


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of those values that are not NaN, which stands for undefined; NaN where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def nssim(
    prediction: NDArray[Any], view: NDArray[Any], fused: NDArray[Any], reading: Reading = "tf"
) -> float:
    """N_SSIM of a prediction in memory; the same code as for volumes on disk.

    Parameters
    ----------
    prediction, view, fused : (Z, Y, X) of one shape, in counts or any positive affine scale of them
    reading : which of the two readings of the challenge's SSIM, see `lightsheet.evaluate.ssim`

    Returns
    -------
    N_SSIM; NaN when the view already equals the fused volume and the prediction does not.

    Raises
    ------
    VolumeError
        When the shapes differ.
    """
    truth = normalized(fused)
    return relative_score(
        ssim(normalized(prediction), truth, reading), ssim(normalized(view), truth, reading)
    )


def score(volume: NDArray[Any], fused: NDArray[Any]) -> Score:
    """All comparisons of one volume in memory with the fused one.

    Parameters
    ----------
    volume, fused : (Z, Y, X) of one shape, not yet normalised

    Raises
    ------
    VolumeError
        When the shapes differ.
    """
    if volume.shape != fused.shape:
        raise VolumeError(f"score: expected volumes of one shape, got {volume.shape} and {fused.shape}")
    ours, truth = normalized(volume), normalized(fused)
    sums = ErrorSums()
    sums.add(ours, truth)
    return sums.score(ssim_by_depth(ours, truth))


def normalized(data: NDArray[Any]) -> NDArray[np.float32]:
    """Normalise a volume by its own percentiles 2 and 99.8, not clipped, to float32."""
    return Normalization(*percentiles(data)).apply(data)


@dataclass
class ErrorSums:
    """Sums over voxel pairs that arrive in slabs, from which the voxel-wise errors follow."""

    voxels: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(7))

    def add(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> None:
        """Take the next slabs (Z, Y, X) of both volumes."""
        planes = np.zeros((len(first), 7))

        def loop(start: int, stop: int) -> None:
            _add_pairs(first, second, start, stop, planes)

        in_threads(loop, len(first))
        self.sums += planes.sum(axis=0)
        self.voxels += first.size

    def score(self, ssim_of_pair: SsimByDepth) -> Score:
        """Errors of everything that was added, with its SSIM."""
        absolute, squared, a, b, aa, bb, ab = (float(s) / self.voxels for s in self.sums)
        psnr = -10.0 * math.log10(squared) if squared > 0 else math.inf
        spread = (aa - a * a) * (bb - b * b)
        # A constant volume has a spread of rounding size only.
        constant = min(aa - a * a, bb - b * b) <= 1e-14 * max(aa, bb)
        pearson = math.nan if constant else (ab - a * b) / math.sqrt(spread)
        return Score(ssim_of_pair, absolute, psnr, pearson)


@compiled(fastmath=True)
def _add_pairs(first: Any, second: Any, start: int, stop: int, planes: Any) -> None:
    """Seven sums of each plane: |a-b|, (a-b)², a, b, a², b², ab."""
    for z in range(start, stop):
        for y in range(first.shape[1]):
            absolute = squared = sum_a = sum_b = sum_aa = sum_bb = sum_ab = 0.0
            for x in range(first.shape[2]):
                a = np.float64(first[z, y, x])
                b = np.float64(second[z, y, x])
                absolute += abs(a - b)
                squared += (a - b) * (a - b)
                sum_a += a
                sum_b += b
                sum_aa += a * a
                sum_bb += b * b
                sum_ab += a * b
            planes[z, 0] += absolute
            planes[z, 1] += squared
            planes[z, 2] += sum_a
            planes[z, 3] += sum_b
            planes[z, 4] += sum_aa
            planes[z, 5] += sum_bb
            planes[z, 6] += sum_ab
