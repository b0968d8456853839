"""Membranes: the faces of a tessellation of jittered cells, and the specimen's surface."""

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import Floats, SpacingUm
from lightsheet.simulate.envelopes import Envelope, Points, packed_points
from lightsheet.simulate.grids import (
    coarse_factors,
    coarse_shape,
    coarse_spacing,
    smooth_noise,
    upsample,
)
from lightsheet.volumes.labels import Labels, label_type

MEMBRANE_SIGMA_UM = 0.3
REACH_IN_CELLS = 1.5
FARTHEST_IN_CELLS = 0.85
"""A cell ends at this distance from its centre, in diameters, where no other cell ends it."""
FAR = np.float32(1e3)


def membranes(
    rng: np.random.Generator, envelope: Envelope, cell_um: float, shell_um: float
) -> tuple[Floats, Labels]:
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
    centres = packed_points(rng, envelope, 0.92 * cell_um, (0.3 * cell_um, shell_um))
    sizes = np.exp(rng.normal(0, 0.12, len(centres)))
    first, second, owner, rival = _two_nearest(centres, sizes, envelope, REACH_IN_CELLS * cell_um)
    depth = envelope.depth_map()
    edge = FARTHEST_IN_CELLS * cell_um
    density = np.zeros(envelope.shape_zyx, np.float32)
    for z, plane in enumerate(density):
        cells = (depth[z] > 0) & (first[z] < edge)
        owner[z][~cells] = -1
        faces = cells & (rival[z] >= 0)
        gap = second[z][faces] - first[z][faces]
        plane[faces] = _faces(gap, owner[z][faces], rival[z][faces], centres, sizes, envelope.spacing_um)
    del second, rival
    at = (np.abs(depth) < 3 * (MEMBRANE_SIGMA_UM + max(envelope.spacing_um))) & (first < edge)
    _add_surface(density, depth, at, envelope)
    del depth
    _add_free_ends(density, first, edge, owner, envelope.spacing_um)
    density *= _patchiness(rng, envelope)
    return density, _consecutive(owner)


def _faces(
    gap: Floats,
    owner: NDArray[np.int32],
    rival: NDArray[np.int32],
    centres: Points,
    sizes: NDArray[np.float64],
    spacing_um: SpacingUm,
) -> Floats:
    """Density of voxels by their cell, the next one and the difference of the weighted distances (um)."""
    across = centres[rival] - centres[owner]
    normals = across / np.linalg.norm(across, axis=1, keepdims=True)
    distance = gap / (1 / sizes[owner] + 1 / sizes[rival])
    return _face(distance, _sampled_sigma(normals, np.array(spacing_um)))


def _add_free_ends(
    density: Floats, first: Floats, edge_um: float, owner: NDArray[np.int32], spacing_um: SpacingUm
) -> None:
    """Close the cells where no other cell is: around a cavity."""
    width = float(np.sqrt(MEMBRANE_SIGMA_UM**2 + np.mean(np.square(spacing_um)) / 6))
    for plane, distance, cell in zip(density, first, owner, strict=True):
        at = (cell >= 0) & (edge_um - distance < 3 * width)
        plane[at] = np.maximum(plane[at], _face(edge_um - distance[at], width))


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


def _add_surface(density: Floats, depth: Floats, at: NDArray[np.bool_], envelope: Envelope) -> None:
    """Close the cells at the specimen's surface."""
    spacing = np.array(envelope.spacing_um)
    if min(envelope.depth_um.shape) < 2:  # a field of one block has no slope to tell
        return
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


def _consecutive(owner: NDArray[np.int32]) -> Labels:
    """Renumber the cells that occur (-1: none) as labels from 1 without gaps."""
    owner += 1
    present = np.zeros(int(owner.max()) + 1, bool)
    for plane in owner:
        present[np.unique(plane)] = True
    present[0] = False
    table = np.where(present, np.cumsum(present), 0).astype(label_type(int(present.sum())))
    return np.asarray(table[owner])
