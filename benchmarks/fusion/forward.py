"""Three forward models of a view that no training uses, with the light along one axis, from a known side.

They are simple on purpose, and unlike `lightsheet.simulate` in each law: what they share with it is physics
only. All give the view and what two opposite views give when they are fused, as counts of 16 bits.

tissue      attenuation and blur grow with the tissue that the light has met; views are weighed by depth
depth       attenuation grows with the depth below the field's edge, whatever is there; stripes along the
            light, blur with the root of the depth, more noise; the fused volume is the plain mean
contrast    as depth, weighed by local contrast
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import Floats, SpacingUm

Counts = NDArray[np.uint16]
Forward = Callable[[Floats, SpacingUm, int, bool, np.random.Generator], tuple[Counts, Counts]]

_OFFSET = 100.0
_TISSUE_PERCENTILE = 60.0
_TISSUE_UM = 3.0
_LEVELS = 4
_WINDOW_UM = 4.0


@dataclass(frozen=True)
class _Camera:
    """Photons of the brightest tissue, counts for each, read noise in counts."""

    photons: float
    gain: float
    read: float

    def record(self, light: Floats, rng: np.random.Generator) -> Floats:
        """Give counts above the offset, not rounded."""
        seen = rng.poisson(np.maximum(light, 0) * self.photons) * self.gain
        return np.asarray(seen + self.read * rng.standard_normal(light.shape), np.float32)


def tissue(
    stack: Floats, spacing_um: SpacingUm, axis: int, from_high: bool, rng: np.random.Generator
) -> tuple[Counts, Counts]:
    """Attenuate and blur by the tissue met; weigh the views by a logistic function of the depth."""
    smooth = ndimage.gaussian_filter(stack, [_TISSUE_UM / step for step in spacing_um])
    body = (smooth > np.percentile(smooth, _TISSUE_PERCENTILE)).astype(np.float32)
    near = _cumulated(body, axis, from_high)
    depths = near, body.sum(axis=axis, keepdims=True) - near
    strength, blur_um = rng.uniform(0.7, 2.0), rng.uniform(0.1, 0.5)
    camera = _Camera(rng.uniform(80, 400), rng.uniform(1, 4), rng.uniform(1, 4))
    scale = max(float(near.max()), 1e-6)
    views = []
    for depth in depths:
        part = depth / scale
        light = _blurred(stack, part, blur_um, spacing_um, axis) * np.exp(-strength * part)
        views.append(camera.record(light, rng))
    weight = 1 / (1 + np.exp(4.0 * (depths[0] - depths[1]) / scale))
    return _counts(views[0]), _counts(weight * views[0] + (1 - weight) * views[1])


def depth(
    stack: Floats, spacing_um: SpacingUm, axis: int, from_high: bool, rng: np.random.Generator
) -> tuple[Counts, Counts]:
    """Attenuate by geometric depth, with stripes; take the mean of the views."""
    first, second = _striped_views(stack, spacing_um, axis, from_high, rng)
    return _counts(first), _counts((first + second) / 2)


def contrast(
    stack: Floats, spacing_um: SpacingUm, axis: int, from_high: bool, rng: np.random.Generator
) -> tuple[Counts, Counts]:
    """As `depth`, with views weighed by their local contrast."""
    first, second = _striped_views(stack, spacing_um, axis, from_high, rng)
    window = [max(3, 2 * round(_WINDOW_UM / step) + 1) for step in spacing_um]
    energies = []
    for view in (first, second):
        mean = ndimage.uniform_filter(view, window)
        variance = np.maximum(ndimage.uniform_filter(view**2, window) - mean**2, 0)
        energies.append(ndimage.uniform_filter(variance, window) + 1.0)
    weight = energies[0] / (energies[0] + energies[1])
    return _counts(first), _counts(weight * first + (1 - weight) * second)


FORWARD: dict[str, Forward] = {"tissue": tissue, "depth": depth, "contrast": contrast}


def _striped_views(
    stack: Floats, spacing_um: SpacingUm, axis: int, from_high: bool, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    ones = np.ones_like(stack)
    near = _cumulated(ones, axis, from_high) / stack.shape[axis]
    strength, blur_um, stripes = rng.uniform(0.5, 1.8), rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.12)
    camera = _Camera(rng.uniform(40, 250), rng.uniform(1, 6), rng.uniform(2, 8))
    views = []
    for part in (near, 1 - near):
        light = _blurred(stack, np.sqrt(part), blur_um, spacing_um, axis) * np.exp(-strength * part)
        views.append(camera.record(light * _stripes(stack.shape, axis, stripes, spacing_um, rng), rng))
    return views[0], views[1]


def _stripes(
    shape: tuple[int, ...], axis: int, strength: float, spacing_um: SpacingUm, rng: np.random.Generator
) -> Floats:
    """Brightness that changes across the light only."""
    across = [1 if k == axis else n for k, n in enumerate(shape)]
    noise = rng.standard_normal(across)
    wide = [0.0 if k == axis else 0.6 / step for k, step in enumerate(spacing_um)]
    pattern = ndimage.gaussian_filter(noise, wide)
    return np.asarray(np.exp(strength * pattern / max(float(pattern.std()), 1e-6)), np.float32)


def _cumulated(body: Floats, axis: int, from_high: bool) -> Floats:
    """Sum up what lies between each voxel and the lit side, half of its own included."""
    along = np.flip(body, axis) if from_high else body
    total = np.cumsum(along, axis=axis) - along / 2
    return np.asarray(np.flip(total, axis) if from_high else total, np.float32)


def _blurred(stack: Floats, part: Floats, blur_um: float, spacing_um: SpacingUm, axis: int) -> Floats:
    """Blur across the light by a sigma that grows with ``part``, by blending a few versions."""
    level = np.clip(part, 0, 1) * (_LEVELS - 1)
    result = np.zeros_like(stack)
    for k in range(_LEVELS):
        wide = blur_um * k / (_LEVELS - 1)
        sigma = [0.0 if a == axis else wide / step for a, step in enumerate(spacing_um)]
        result += ndimage.gaussian_filter(stack, sigma) * np.maximum(1 - np.abs(level - k), 0)
    return result


def _counts(view: Floats) -> Counts:
    return np.clip(np.rint(view + _OFFSET), 0, 65535).astype(np.uint16)
