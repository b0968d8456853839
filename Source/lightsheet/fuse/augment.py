"""Augmentation of a pair of patches: geometry moves all of it, optics change only the view."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.fuse.settings import AugmentSettings

Floats = NDArray[np.float32]
_SMALLEST_GRID = 2


def augment(
    channels: Floats, fused: Floats, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Change a pair of patches at random.

    Parameters
    ----------
    channels : (C, Z, Y, X); channel 0 is the view
    fused : (Z, Y, X)
    settings : probabilities and strengths
    rng : source of all randomness; the same state gives the same patches

    Returns
    -------
    Changed copies, C-contiguous and of the same shapes.
    """
    stack = np.concatenate((channels, fused[None]))
    stack = _turn(stack, settings, rng)
    if rng.random() < settings.elastic:
        stack = _deform(stack, settings, rng)
    stack = np.array(stack, dtype=np.float32, order="C")
    stack[0] = _other_optics(stack[0], settings, rng)
    return stack[:-1], stack[-1]


def _turn(stack: Floats, settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    """Mirror along each axis, rotate in plane; in a patch that is not square only by 180 degrees.

    Distance and light path are scalars of a place, so they stay right when they are moved with the image.
    """
    for axis, probability in enumerate(settings.flip_zyx, start=1):
        if rng.random() < probability:
            stack = np.flip(stack, axis)
    if rng.random() < settings.rot90:
        quarters = int(rng.integers(1, 4)) if stack.shape[2] == stack.shape[3] else 2
        stack = np.rot90(stack, quarters, axes=(2, 3))
    return stack


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
    """Change contrast, blur and noise of the view alone."""
    if rng.random() < settings.blur:
        view = ndimage.gaussian_filter(view, rng.uniform(0.0, settings.blur_sigma))
    if rng.random() < settings.gamma:
        view = np.sign(view) * np.abs(view) ** np.float32(rng.uniform(*settings.gamma_range))
    if rng.random() < settings.gain:
        view = view * np.float32(rng.uniform(*settings.gain_range))
    if rng.random() < settings.noise:
        sigma = rng.uniform(0.0, settings.noise_sigma)
        view = view + rng.normal(0.0, sigma, view.shape).astype(np.float32)
    return view
