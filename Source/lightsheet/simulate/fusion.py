"""Fusion of registered views by content: where a view is sharp and bright it counts more.

The method follows the idea of content-based weights of multi-view reconstruction (Preibisch et al., Nature
Methods 2010): the weight is the local variance of the image, smoothed. The camera's known share of that
variance is taken off, so that noise does not pass for content.
"""

import numpy as np

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.simulate.grids import blur, coarse_factors, coarse_spacing, downsample, upsample
from lightsheet.simulate.optics import Optics

BLOCK_UM = 4.0
SMOOTH_UM = 8.0


class ContentFusion:
    """Running weighted mean of views (Z, Y, X) on one grid."""

    def __init__(self, spacing_um: SpacingUm) -> None:
        self._spacing = spacing_um
        self._sum: Floats | None = None
        self._weights: Floats | None = None

    def add(self, view: Floats, optics: Optics) -> None:
        """Add a view's counts (Z, Y, X), recorded with ``optics``."""
        weight = content_weight(view, self._spacing, optics)
        if self._sum is None or self._weights is None:
            self._sum, self._weights = view * weight, weight
            return
        for total, plane, share in zip(self._sum, view, weight, strict=True):
            total += plane * share
        self._weights += weight

    def result(self) -> Floats:
        """Fused counts (Z, Y, X)."""
        if self._sum is None or self._weights is None:
            raise ValueError("fusion: expected at least one view, got none")
        return np.divide(self._sum, self._weights)


def content_weight(view: Floats, spacing_um: SpacingUm, optics: Optics) -> Floats:
    """Weight (Z, Y, X) of a view: smoothed local variance above the camera's noise, never 0."""
    factors = coarse_factors(spacing_um, BLOCK_UM)
    centred = view - np.float32(optics.offset_counts)
    mean = downsample(centred, factors)
    np.square(centred, out=centred)
    variance = downsample(centred, factors) - mean**2
    noise = optics.counts_per_photon * np.maximum(mean, 0) + optics.read_noise_counts**2
    content = np.maximum(variance - noise, 0)
    content = blur(content, [SMOOTH_UM] * 3, coarse_spacing(spacing_um, factors))
    # where no view has content all count alike: a floor at the level of the noise
    content += 0.05 * float(noise.mean()) + 1e-6
    return upsample(content, factors, (view.shape[0], view.shape[1], view.shape[2]))
