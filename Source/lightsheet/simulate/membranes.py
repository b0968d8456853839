"""Membranes: the faces of a tessellation of jittered cells, and the specimen's surface."""

import numpy as np
from numpy.typing import NDArray

from lightsheet.simulate.envelopes import Envelope, Points, packed_points
from lightsheet.simulate.grids import (
    Floats,
    coarse_factors,
    coarse_shape,
    coarse_spacing,
    smooth_noise,
    upsample,
)

MEMBRANE_SIGMA_UM = 0.3
REACH_IN_CELLS = 1.5
FAR = np.float32(1e3)


def membranes(
    rng: np.random.Generator, envelope: Envelope, cell_um: float, shell_um: float
) -> tuple[Floats, NDArray[np.uint32]]:
    """Render the membranes of a specimen.

    The cells are a tessellation with a weight per cell (distance divided by the cell's size), whose faces
    are parts of spheres as in a foam.

    Parameters
    ----------
    rng : source of all random choices
    envelope : outline that the cells fill
    cell_um : mean diameter of a cell
    shell_um : cells lie at most this deep below the surface (infinite: everywhere)

    Returns
    -------
    density (Z, Y, X), about 1 on a membrane, and the cells' labels (Z, Y, X) from 1.
    """
    spacing = np.array(envelope.spacing_um)
    centres = packed_points(rng, envelope, 0.92 * cell_um, (0.3 * cell_um, shell_um))
    depth = envelope.depth_map()
    if len(centres) == 0:
        return np.zeros(envelope.shape_zyx, np.float32), np.zeros(envelope.shape_zyx, np.uint32)
    sizes = np.exp(rng.normal(0, 0.12, len(centres)))
    first, second, owner, rival = _two_nearest(centres, sizes, envelope, REACH_IN_CELLS * cell_um)
    cells = (depth > 0) & (owner >= 0) & (first < cell_um)
    labels = np.where(cells, owner + 1, 0).astype(np.uint32)
    density = np.zeros(envelope.shape_zyx, np.float32)
    gap = second - first
    near = cells & (rival >= 0) & (gap < 6 * (MEMBRANE_SIGMA_UM + float(spacing.max())))
    a, b = owner[near], rival[near]
    across = centres[b] - centres[a]
    length = np.linalg.norm(across, axis=1)
    width = _sampled_sigma(across / length[:, None], spacing)
    distance = gap[near] / (1 / sizes[a] + 1 / sizes[b])
    density[near] = _face(distance, width)
    _add_surface(density, depth, first < cell_um, envelope)
    density *= _patchiness(rng, envelope)
    return density, _consecutive(labels)


def _two_nearest(
    centres: Points, sizes: NDArray[np.float64], envelope: Envelope, reach_um: float
) -> tuple[Floats, Floats, NDArray[np.int32], NDArray[np.int32]]:
    """For each voxel the two smallest weighted distances (um) and the cells they belong to (-1: none)."""
    shape, spacing = envelope.shape_zyx, np.array(envelope.spacing_um)
    first, second = np.full(shape, FAR), np.full(shape, FAR)
    owner, rival = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    for index, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
        low = np.maximum(np.floor((centre - reach_um) / spacing - 0.5), 0).astype(int)
        high = np.minimum(np.ceil((centre + reach_um) / spacing + 0.5), shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = (
            ((((np.arange(a, b) + 0.5) * step - c) / size) ** 2).astype(np.float32)
            for a, b, step, c in zip(low, high, spacing, centre, strict=True)
        )
        distance = np.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :])
        best, next_best = first[box], second[box]
        won = distance < best
        placed = ~won & (distance < next_best)
        next_best[won] = best[won]
        rival[box][won] = owner[box][won]
        best[won] = distance[won]
        owner[box][won] = index
        next_best[placed] = distance[placed]
        rival[box][placed] = index
    return first, second, owner, rival


def _sampled_sigma(normals: NDArray[np.floating], spacing: Points) -> Points:
    """Width (um) of a membrane as voxels see it: its own and that of a voxel along its normal.

    A voxel counts as a triangle, not as a box: between two planes a flat membrane must not vanish.
    """
    return np.asarray(np.sqrt(MEMBRANE_SIGMA_UM**2 + (normals**2) @ (spacing**2) / 6))


def _face(distance: NDArray[np.floating], width: NDArray[np.floating] | float) -> Floats:
    """Gaussian profile that keeps its integral, 1 at the centre of a membrane at the finest sampling."""
    finest = 2 * MEMBRANE_SIGMA_UM
    return np.asarray(np.minimum(finest / width, 1.0) * np.exp(-0.5 * (distance / width) ** 2), np.float32)


def _add_surface(density: Floats, depth: Floats, cells: NDArray[np.bool_], envelope: Envelope) -> None:
    """Close the cells at the specimen's surface."""
    spacing = np.array(envelope.spacing_um)
    at = (np.abs(depth) < 3 * (MEMBRANE_SIGMA_UM + float(spacing.max()))) & cells
    slopes = np.gradient(envelope.depth_um, *coarse_spacing(envelope.spacing_um, envelope.factors))
    normals = np.stack(
        [upsample(np.asarray(s, np.float32), envelope.factors, envelope.shape_zyx)[at] for s in slopes],
        axis=1,
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    density[at] = np.maximum(density[at], _face(depth[at], _sampled_sigma(normals, spacing)))


def _patchiness(rng: np.random.Generator, envelope: Envelope) -> Floats:
    """Brightness that varies smoothly over a few micrometres, about 1."""
    factors = coarse_factors(envelope.spacing_um, 1.5)
    step = coarse_spacing(envelope.spacing_um, factors)
    grid = coarse_shape(envelope.shape_zyx, factors)
    patches = 1 + 0.16 * smooth_noise(rng, grid, step, 1.5) + 0.16 * smooth_noise(rng, grid, step, 8.0)
    return upsample(np.clip(patches, 0.3, 2).astype(np.float32), factors, envelope.shape_zyx)


def _consecutive(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Renumber the labels that occur from 1 without gaps."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    table = np.where(present, np.cumsum(present), 0).astype(np.uint32)
    return np.asarray(table[labels])
