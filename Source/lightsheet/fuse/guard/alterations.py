"""Held-out views, as they are or altered as other data might be; made plane by plane, nothing is stored."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import HIGHEST_COUNT, LIGHT_KEY, RAW_IMAGE, Floats, side_in
from lightsheet.fuse.training.pairs import OpenPair
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

# Counts of normalised intensity 0 and 1: enough steps between them, and room for what is brighter.
_DARK, _BRIGHT = 1000.0, 9000.0
_REACH = 3.0


@dataclass(frozen=True)
class Alteration:
    """How a view is altered, in this order.

    Attributes
    ----------
    clearer : share of the way to the fused volume, for specimens that are seen well already
    fading : further loss of light along (Z, Y, X), natural logarithm; negative: from the other end
    blur : sigma along (Z, Y, X), voxels
    exponent : of the normalised intensity
    noise : standard deviation of Gaussian noise, normalised intensity
    larger : factor of the voxel size that is told, for objects of another size
    """

    clearer: float = 0.0
    fading: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur: tuple[float, float, float] = (0.0, 0.0, 0.0)
    exponent: float = 1.0
    noise: float = 0.0
    larger: float = 1.0


def draw_alteration(rng: np.random.Generator) -> Alteration:
    """Draw one, of which some parts may do nothing."""

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    fading, blur = [0.0] * 3, [0.0] * 3
    if chance(0.5):
        fading[rng.integers(3)] = rng.uniform(-2, 2)
    if chance(0.4):
        in_plane = rng.uniform(0, 1.5)
        blur = [rng.uniform(0, 1.5), in_plane, in_plane]
    return Alteration(
        clearer=rng.uniform(0.2, 1.0) if chance(0.4) else 0.0,
        fading=(fading[0], fading[1], fading[2]),
        blur=(blur[0], blur[1], blur[2]),
        exponent=math.exp(rng.uniform(-0.4, 0.4)) if chance(0.3) else 1.0,
        noise=rng.uniform(0, 0.1) if chance(0.4) else 0.0,
        larger=math.exp(rng.uniform(-0.5, 0.5)) if chance(0.3) else 1.0,
    )


def altered_view(pair: OpenPair, alteration: Alteration, seed: int) -> LazyVolume:
    """Return the view of a pair, altered, as counts; ``seed`` is that of the noise."""
    info = pair.view.info
    if info.spacing_um is not None:
        z, y, x = (step * alteration.larger for step in info.spacing_um)
        info = replace(info, spacing_um=(z, y, x))
    light = side_in(info.metadata)
    known = {} if light is None else {LIGHT_KEY: light}
    info = VolumeInfo(info.source, info.shape_zyx, "uint16", info.spacing_um, info.channel, metadata=known)
    depth, height, width = info.shape_zyx

    def read(z0: int, z1: int) -> NDArray[Any]:
        reach = math.ceil(_REACH * alteration.blur[0])
        first, last = max(0, z0 - reach), min(depth, z1 + reach)
        region = slice(first, last), slice(0, height), slice(0, width)
        view = pair.view.read(RAW_IMAGE, region)
        if alteration.clearer:
            view += np.float32(alteration.clearer) * (pair.fused.read(RAW_IMAGE, region) - view)
        view = _faded(view, alteration.fading, first, info.shape_zyx)
        if any(alteration.blur):
            view = ndimage.gaussian_filter(view, alteration.blur, truncate=_REACH)
        view = view[z0 - first : z1 - first]
        if alteration.exponent != 1:
            view = np.sign(view) * np.abs(view) ** np.float32(alteration.exponent)
        if alteration.noise:
            planes = [np.random.default_rng([seed, z]) for z in range(z0, z1)]
            noise = [rng.standard_normal((height, width), np.float32) for rng in planes]
            view = view + np.float32(alteration.noise) * np.stack(noise)
        counts = np.clip(np.rint(_DARK + (_BRIGHT - _DARK) * view), 0, HIGHEST_COUNT)
        return np.asarray(counts, np.uint16)

    return LazyVolume(info, read)


def _faded(
    view: Floats, fading: tuple[float, float, float], first: int, shape_zyx: tuple[int, int, int]
) -> Floats:
    """Take light away along the axes of planes that begin at ``first``."""
    for axis, depth in enumerate(fading):
        if depth:
            start = first if axis == 0 else 0
            place = (start + np.arange(view.shape[axis])) / max(1, shape_zyx[axis] - 1)
            lost = abs(depth) * (place if depth > 0 else 1 - place)
            left = np.exp(-lost).astype(np.float32)
            view = view * left.reshape([-1 if a == axis else 1 for a in range(3)])
    return view
