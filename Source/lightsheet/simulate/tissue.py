"""Where the specimen is, on a coarse grid: what light is lost in on its way."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lightsheet.core.axes import ZYX, Floats, SpacingUm
from lightsheet.simulate.envelopes import Envelope
from lightsheet.simulate.grids import coarse_factors, coarse_spacing, downsample

COARSE_UM = 2.5
CLOSING_UM = 8.0


@dataclass(frozen=True)
class Tissue:
    """The specimen's body.

    Attributes
    ----------
    fraction : share of tissue (Z, Y, X) in each coarse block, 0 to 1
    factors : voxels per block along (Z, Y, X)
    spacing_um : size (z, y, x) of a block in micrometres
    """

    fraction: Floats
    factors: ZYX
    spacing_um: SpacingUm

    def extents_um(self) -> SpacingUm:
        """Length (z, y, x) of the specimen in micrometres."""
        lengths = []
        for axis, step in enumerate(self.spacing_um):
            others = tuple(k for k in range(3) if k != axis)
            at = np.flatnonzero((self.fraction > 0.5).any(axis=others))
            lengths.append(float(at[-1] - at[0] + 1) * step if at.size else step)
        return lengths[0], lengths[1], lengths[2]

    def optical_depth(self, axis: int, from_high: bool, loss_per_um: float) -> Floats:
        """Optical depth from the end of an axis to the middle of each block (Beer-Lambert exponent)."""
        local = self.fraction * np.float32(loss_per_um * self.spacing_um[axis])
        along = np.flip(local, axis) if from_high else local
        depth = np.cumsum(along, axis=axis, dtype=np.float32) - along / 2
        return np.asarray(np.flip(depth, axis) if from_high else depth, dtype=np.float32)


def tissue_of_envelope(envelope: Envelope) -> Tissue:
    """Tissue that fills a simulated specimen's outline."""
    fraction = np.clip(envelope.depth_um / COARSE_UM + 0.5, 0, 1).astype(np.float32)
    return Tissue(fraction, envelope.factors, coarse_spacing(envelope.spacing_um, envelope.factors))


def tissue_of_volume(volume: Floats, spacing_um: SpacingUm) -> Tissue:
    """Tissue guessed from an image: what is brighter than the background, closed over gaps and filled."""
    factors = coarse_factors(spacing_um, COARSE_UM)
    step = coarse_spacing(spacing_um, factors)
    coarse = downsample(volume, factors)
    sigma = [CLOSING_UM / 2 / length for length in step]
    smooth = ndimage.gaussian_filter(coarse, sigma, mode="nearest")
    low, high = np.percentile(smooth, (2, 98))
    inside = ndimage.binary_fill_holes(smooth > low + 0.2 * (high - low))
    fraction = ndimage.gaussian_filter(np.asarray(inside, np.float32), 0.7, mode="nearest")
    return Tissue(fraction.astype(np.float32), factors, step)
