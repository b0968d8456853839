"""Outlines of embryo-like specimens as a signed distance, and places for cells inside them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lightsheet.core.axes import ZYX, Floats, SpacingUm
from lightsheet.simulate.grids import (
    coarse_factors,
    coarse_shape,
    coarse_spacing,
    smooth_noise,
    upsample,
)
from lightsheet.simulate.presets import Shape

COARSE_UM = 2.5
FINE_UM = 0.8
ROUNDS_OF_DARTS = 16
STEPS_APART = 12
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Envelope:
    """A specimen's outline on a coarse grid.

    Attributes
    ----------
    depth_um : signed distance to the surface in micrometres (Z, Y, X), positive inside, on the coarse grid
    factors : voxels per coarse block along (Z, Y, X)
    shape_zyx : voxels of the full grid
    spacing_um : voxel size (z, y, x) of the full grid in micrometres
    """

    depth_um: Floats
    factors: ZYX
    shape_zyx: ZYX
    spacing_um: SpacingUm

    def depth_map(self) -> Floats:
        """Signed distance to the surface on the full grid, in micrometres, positive inside."""
        return upsample(self.depth_um, self.factors, self.shape_zyx)

    def depth_at(self, points_um: Points) -> NDArray[np.float64]:
        """Signed distance to the surface at points (N, 3) given as (z, y, x) in micrometres."""
        step = np.array(coarse_spacing(self.spacing_um, self.factors))
        where = (points_um / step - 0.5).T
        return np.asarray(ndimage.map_coordinates(self.depth_um, where, order=1, mode="nearest"), float)

    def field_um(self) -> Points:
        """Size (z, y, x) of the field in micrometres."""
        return np.asarray(np.array(self.shape_zyx) * np.array(self.spacing_um), np.float64)


def make_envelope(rng: np.random.Generator, form: Shape, shape: ZYX, spacing_um: SpacingUm) -> Envelope:
    """Draw a specimen's outline that leaves empty background on all sides of the field."""
    factors = coarse_factors(spacing_um, COARSE_UM)
    step = coarse_spacing(spacing_um, factors)
    grid = coarse_shape(shape, factors)
    half = np.array(shape) * np.array(spacing_um) / 2
    centre = half * (1 + rng.uniform(-0.05, 0.05, 3))
    semi = half * rng.uniform(0.68, 0.84, 3)
    z, y, x = (
        ((np.arange(size) + 0.5) * length - middle) / axis
        for size, length, middle, axis in zip(grid, step, centre, semi, strict=True)
    )
    q = (z[:, None, None], y[None, :, None], x[None, None, :])
    level = {"ellipsoid": _ellipsoid, "bent": _bent, "lobed": _lobed}[form](rng, q)
    bumps = smooth_noise(rng, grid, step, 0.25 * float(semi.min()))
    inside = level + 0.04 * bumps < 1
    inside = _largest_part(inside)
    distance = ndimage.distance_transform_edt(inside, sampling=step)
    distance -= ndimage.distance_transform_edt(~inside, sampling=step)
    distance = ndimage.gaussian_filter(distance, 0.8)
    return Envelope(distance.astype(np.float32), factors, shape, spacing_um)


def whole_field(shape: ZYX, spacing_um: SpacingUm) -> Envelope:
    """Outline that fills the field, for cells that do not make up a specimen."""
    factors = coarse_factors(spacing_um, FINE_UM)
    step = coarse_spacing(spacing_um, factors)
    grid = coarse_shape(shape, factors)
    depth = np.full(grid, np.inf)
    for axis, (size, length) in enumerate(zip(grid, step, strict=True)):
        along = (np.arange(size) + 0.5) * length
        to_border = np.minimum(along, shape[axis] * spacing_um[axis] - along)
        depth = np.minimum(depth, to_border.reshape([-1 if k == axis else 1 for k in range(3)]))
    return Envelope(depth.astype(np.float32), factors, shape, spacing_um)


def _ellipsoid(rng: np.random.Generator, q: tuple[Points, Points, Points]) -> Points:
    z, y, x = q
    taper = 1 + rng.uniform(-0.25, 0.25) * y
    return np.asarray(np.sqrt(z**2 + y**2 + (x * taper) ** 2))


def _bent(rng: np.random.Generator, q: tuple[Points, Points, Points]) -> Points:
    """Bend a sausage along Y sideways, thinner towards one end."""
    z, y, x = q
    bend = rng.choice((-1.0, 1.0)) * rng.uniform(0.35, 0.55)
    width = 0.72 * (1 + rng.uniform(-0.2, 0.2) * y)
    side = (x - bend * (1.6 * y**2 - 0.5)) / width
    return np.asarray(np.sqrt(z**2 + np.abs(y) ** 2.6 + side**2))


def _lobed(rng: np.random.Generator, q: tuple[Points, Points, Points]) -> Points:
    """Grow 3 to 5 lobes out of a core, joined without an edge."""
    z, y, x = q
    total = np.exp(-3.0 * (z**2 + y**2 + x**2) / 0.62**2)
    for angle in np.linspace(0, 2 * np.pi, rng.integers(3, 6), endpoint=False) + rng.uniform(0, 2 * np.pi):
        away = rng.uniform(0.4, 0.52)
        size = rng.uniform(0.4, 0.48)
        dz, dy, dx = z - rng.uniform(-0.15, 0.15), y - away * np.sin(angle), x - away * np.cos(angle)
        total = total + np.exp(-3.0 * ((dz * size / 0.8) ** 2 + dy**2 + dx**2) / size**2)
    return np.asarray(np.sqrt(np.maximum(-np.log(np.maximum(total, 1e-12)) / 3.0, 0)))


def _largest_part(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(inside)
    if count < 2:
        return inside
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def packed_points(
    rng: np.random.Generator, envelope: Envelope, apart_um: float, depth_range_um: tuple[float, float]
) -> Points:
    """Points (N, 3) in micrometres that fill a range of depths below the surface, as cells do.

    Darts thrown at random leave holes, so more are thrown than would fit at ``apart_um``, and points that
    are nearer than that then push each other away.
    """
    points = _throw_darts(rng, envelope, 0.86 * apart_um, depth_range_um)
    for _ in range(STEPS_APART):
        if len(points) < 2:
            break
        pairs = cKDTree(points).query_pairs(apart_um, output_type="ndarray")
        if len(pairs) == 0:
            break
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        between = points[pairs[:, 1]] - points[pairs[:, 0]]
        distance = np.linalg.norm(between, axis=1, keepdims=True)
        push = 0.35 * (apart_um - distance) / np.maximum(distance, 1e-9) * between
        moved = points.copy()
        np.add.at(moved, pairs[:, 0], -push)
        np.add.at(moved, pairs[:, 1], push)
        depth = envelope.depth_at(moved)
        stays = (depth < depth_range_um[0]) | (depth > depth_range_um[1])
        points = np.where(stays[:, None], points, moved)
    return points


def _throw_darts(
    rng: np.random.Generator,
    envelope: Envelope,
    apart_um: float,
    depth_range_um: tuple[float, float],
) -> Points:
    """Random points (N, 3) in micrometres, at least ``apart_um`` from each other.

    Each round throws as many points as could fit; of two that come too close, and against points of
    former rounds, the later one is dropped.
    """
    field = envelope.field_um()
    darts = int(np.ceil(np.prod(field) / apart_um**3)) + 8
    kept = np.empty((0, 3))
    for _ in range(ROUNDS_OF_DARTS):
        points = rng.uniform(0, 1, (darts, 3)) * field
        depth = envelope.depth_at(points)
        points = points[(depth >= depth_range_um[0]) & (depth <= depth_range_um[1])]
        if len(kept) and len(points):
            nearest, _ = cKDTree(kept).query(points, distance_upper_bound=apart_um)
            points = points[~(nearest < apart_um)]
        if len(points):
            pairs = cKDTree(points).query_pairs(apart_um, output_type="ndarray")
            late = np.zeros(len(points), bool)
            late[pairs.max(axis=1)] = True
            kept = np.concatenate([kept, points[~late]])
    return kept
