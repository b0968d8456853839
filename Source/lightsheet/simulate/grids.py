"""Smooth maps on a coarse grid: block means down, linear interpolation up, correlated noise."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import ZYX, Floats, SpacingUm

SMALLEST_SIGMA = 0.15
"""Gaussians narrower than this (voxels) change nothing worth the time."""


def coarse_factors(spacing_um: SpacingUm, target_um: float) -> ZYX:
    """Block size (Z, Y, X) in voxels whose edges come nearest to ``target_um``, at least 1."""
    z, y, x = (max(1, round(target_um / step)) for step in spacing_um)
    return z, y, x


def coarse_spacing(spacing_um: SpacingUm, factors: ZYX) -> SpacingUm:
    """Voxel size (z, y, x) in micrometres of the grid of blocks."""
    z, y, x = (step * factor for step, factor in zip(spacing_um, factors, strict=True))
    return z, y, x


def coarse_shape(shape: ZYX, factors: ZYX) -> ZYX:
    """Count the blocks along each axis; the last block may reach over the border."""
    z, y, x = (-(-size // factor) for size, factor in zip(shape, factors, strict=True))
    return z, y, x


def downsample(volume: NDArray[np.generic], factors: ZYX) -> Floats:
    """Mean of each block of ``factors`` voxels (Z, Y, X); blocks at the far border hold fewer voxels."""
    result: NDArray[np.generic] = volume
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        starts = np.arange(0, result.shape[axis], factor)
        sums = np.add.reduceat(result, starts, axis=axis, dtype=np.float32)
        counts = np.minimum(starts + factor, result.shape[axis]) - starts
        result = sums / counts.astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    return np.ascontiguousarray(result, dtype=np.float32)


def upsample(coarse: Floats, factors: ZYX, shape: ZYX) -> Floats:
    """Linear interpolation of block values, placed at the blocks' centres, to a grid of ``shape``."""
    result = coarse
    for axis in (2, 1, 0):
        if factors[axis] > 1:
            result = _stretch(result, axis, factors[axis], shape[axis])
    return np.ascontiguousarray(result, dtype=np.float32)


def upsampled_planes(coarse: Floats, factors: ZYX, shape: ZYX) -> Iterator[Floats]:
    """Planes (Y, X) of ``upsample`` one after the other, so that the whole is never in memory."""
    last = coarse.shape[0] - 1
    for z in range(shape[0]):
        where = min(max((z + 0.5) / factors[0] - 0.5, 0.0), float(last))
        low = min(int(where), max(last - 1, 0))
        high = min(low + 1, last)
        part = np.float32(where - low)
        plane = coarse[low : low + 1] + part * (coarse[high : high + 1] - coarse[low : low + 1])
        yield upsample(plane, (1, factors[1], factors[2]), (1, shape[1], shape[2]))[0]


def _stretch(values: Floats, axis: int, factor: int, size: int) -> Floats:
    last = values.shape[axis] - 1
    where = np.clip((np.arange(size, dtype=np.float32) + 0.5) / factor - 0.5, 0, last)
    low = np.minimum(where.astype(np.intp), max(last - 1, 0))
    weight = (where - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
    result = np.take(values, low, axis=axis)
    rise = np.take(values, np.minimum(low + 1, last), axis=axis)
    rise -= result
    rise *= weight
    result += rise
    return result


def blur(volume: Floats, sigma_um: SpacingUm | list[float], spacing_um: SpacingUm) -> Floats:
    """Gaussian blur with sigma (z, y, x) in micrometres; the border value goes on outside."""
    result = volume
    for axis, (sigma, step) in enumerate(zip(sigma_um, spacing_um, strict=True)):
        if sigma / step >= SMALLEST_SIGMA:
            result = ndimage.gaussian_filter1d(result, sigma / step, axis=axis, mode="nearest", truncate=3.0)
    return result


def smooth_noise(rng: np.random.Generator, shape: ZYX, spacing_um: SpacingUm, scale_um: float) -> Floats:
    """Gaussian noise correlated over ``scale_um`` (the sigma), mean 0, deviation 1, periodic."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = [max(scale_um / step, 0.0) for step in spacing_um]
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    noise -= noise.mean()
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)
