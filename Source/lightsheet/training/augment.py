"""Augmentation of a pair of patches: geometry moves all of it, optics change only the view."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.threads import WORTH_THREADS, in_threads
from lightsheet.training.augment_settings import AugmentSettings

Floats = NDArray[np.float32]
_SMALLEST_GRID = 2


def augment(
    channels: Floats,
    fused: Floats,
    settings: AugmentSettings,
    rng: np.random.Generator,
    views: Sequence[int] = (0,),
) -> tuple[Floats, Floats]:
    """Change a pair of patches at random.

    Parameters
    ----------
    channels : (C, Z, Y, X); channel 0 is the first view
    fused : (Z, Y, X)
    settings : probabilities and strengths
    rng : source of all randomness; the same state gives the same patches
    views : channels whose optics are changed, each in its own way

    Returns
    -------
    Changed copies, C-contiguous and of the same shapes.
    """
    turn = _draw_turn(fused.shape, settings, rng)
    channels, fused = turn(channels), turn(fused)
    if rng.random() < settings.elastic:
        moved = _deform(np.concatenate((channels, fused[None])), settings, rng)
        channels, fused = moved[:-1], moved[-1]
    channels, fused = _contiguous(channels, fused)
    for view in views:
        if settings.clearer and rng.random() < settings.clearer:
            channels[view] += np.float32(rng.uniform(0.0, settings.clearer_share)) * (fused - channels[view])
        channels[view] = _other_optics(channels[view], settings, rng)
    return channels, fused


def _contiguous(channels: Floats, fused: Floats) -> tuple[Floats, Floats]:
    """Copy both with C-contiguous memory; a turned patch is read across its rows, which takes its time."""
    result = np.empty(channels.shape, np.float32), np.empty(fused.shape, np.float32)

    def copy(first: int, last: int) -> None:
        result[0][:, first:last] = channels[:, first:last]
        result[1][first:last] = fused[first:last]

    in_threads(copy, len(fused), None if fused.size >= WORTH_THREADS else 1)
    return result


def _draw_turn(
    shape_zyx: tuple[int, ...], settings: AugmentSettings, rng: np.random.Generator
) -> Callable[[Floats], Floats]:
    """Draw mirror images and a rotation in plane; in a patch that is not square only by 180 degrees.

    Distance and light path are scalars of a place, so they stay right when they are moved with the image.
    """
    axes = [axis for axis, probability in enumerate(settings.flip_zyx) if rng.random() < probability]
    quarters = 0
    if rng.random() < settings.rot90:
        quarters = int(rng.integers(1, 4)) if shape_zyx[1] == shape_zyx[2] else 2

    def turn(array: Floats) -> Floats:
        leading = array.ndim - 3
        mirrored = np.flip(array, tuple(axis + leading for axis in axes))
        return np.rot90(mirrored, quarters, axes=(leading + 1, leading + 2))

    return turn


def _deform(stack: Floats, settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    """Move all channels along one smooth random field of displacements."""
    shape = stack.shape[1:]
    coarse = [max(_SMALLEST_GRID, -(-size // settings.elastic_grid) + 1) for size in shape]
    places = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in shape), indexing="ij")
    zoom = [size / nodes for size, nodes in zip(shape, coarse, strict=True)]
    for place in places:
        nodes = rng.normal(0.0, settings.elastic_voxels, coarse)
        place += ndimage.zoom(nodes, zoom, order=3, mode="nearest", grid_mode=True)
    moved = [ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in stack]
    return np.stack(moved)


def _other_optics(view: Floats, settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    """Change fading, contrast, blur and noise of the view alone."""
    if settings.fading and rng.random() < settings.fading:
        view = view * _fading(view.shape, settings.fading_depth, rng)
    if settings.haze and rng.random() < settings.haze:
        share = np.float32(rng.uniform(0.0, settings.haze_share))
        view = view + share * (ndimage.gaussian_filter(view, settings.haze_sigma) - view)
    if rng.random() < settings.blur:
        sigma = rng.uniform(0.0, settings.blur_sigma)
        more = 1.0 if settings.blur_more_along_z == 1 else rng.uniform(1.0, settings.blur_more_along_z)
        view = ndimage.gaussian_filter(view, (more * sigma, sigma, sigma))
    if rng.random() < settings.gamma:
        view = np.sign(view) * np.abs(view) ** np.float32(rng.uniform(*settings.gamma_range))
    if rng.random() < settings.gain:
        view = view * np.float32(rng.uniform(*settings.gain_range))
    if rng.random() < settings.noise:
        view = view + _noise(view.shape, settings, rng)
    return view


def _noise(shape: tuple[int, ...], settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    sigma = rng.uniform(0.0, settings.noise_sigma)
    noise = rng.normal(0.0, sigma, shape).astype(np.float32)
    if not settings.noise_grain:
        return noise
    grained = ndimage.gaussian_filter(noise, rng.uniform(0.0, settings.noise_grain, 3))
    return np.asarray(grained * np.float32(sigma / max(float(grained.std()), 1e-9)))


def _fading(shape: tuple[int, ...], deepest: float, rng: np.random.Generator) -> Floats:
    """Share of light that is left along one axis, from one of its ends to the other; shaped to (Z, Y, X)."""
    axis = int(rng.integers(3))
    depth = np.linspace(0.0, rng.uniform(0.0, deepest), shape[axis])
    if rng.random() < 0.5:
        depth = depth[::-1]
    left: Floats = np.exp(-depth).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return left
