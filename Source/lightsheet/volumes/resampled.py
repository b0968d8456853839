"""A volume on a grid of other voxels: linear, smoothed where voxels grow, read slab by slab.

Along each axis a voxel of the new grid is a weighted mean of old ones; the weights are a triangle that is as
wide as the larger of both voxels (as image libraries do when they shrink without aliasing). The three axes
are independent, so that planes can be made of few old ones. Grids share their outer border.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lightsheet.core.axes import ZYX, Floats, SpacingUm
from lightsheet.volumes.lazy import LazyVolume

Weights = Any
"""Weights (new, old) along an axis, sparse."""


def shape_for(shape_zyx: ZYX, spacing_um: SpacingUm, wanted_um: SpacingUm) -> ZYX:
    """Voxels (Z, Y, X) of a volume whose voxels become as nearly ``wanted_um`` as whole numbers allow."""
    z, y, x = (
        max(1, round(count * step / wanted))
        for count, step, wanted in zip(shape_zyx, spacing_um, wanted_um, strict=True)
    )
    return z, y, x


def weights_along(old: int, new: int) -> Weights | None:
    """Weights (new, old) by which voxels along an axis are made of old ones; None where nothing changes.

    Rows add up to 1.
    """
    if old == new:
        return None
    ratio = old / new
    wide = max(1.0, ratio)
    middles = (np.arange(new) + 0.5) * ratio - 0.5
    reach = np.arange(-int(np.ceil(wide)), int(np.ceil(wide)) + 2)
    places = np.floor(middles)[:, None] + reach
    share = np.maximum(0, 1 - np.abs(places - middles[:, None]) / wide)
    rows = np.repeat(np.arange(new), len(reach))
    columns = np.clip(places, 0, old - 1).astype(np.int64).ravel()
    weights = (share / share.sum(axis=1, keepdims=True)).astype(np.float32).ravel()
    kept = weights > 0
    return sparse.csr_array(sparse.coo_array((weights[kept], (rows[kept], columns[kept])), (new, old)))


def resampled(data: NDArray[Any], shape_zyx: ZYX) -> Floats:
    """Put an array (Z, Y, X) on a grid of ``shape_zyx`` voxels of the same outer border."""
    weights = [weights_along(old, new) for old, new in zip(data.shape, shape_zyx, strict=True)]
    return _applied(data, weights)


def resampled_planes(data: NDArray[Any], shape_zyx: ZYX, planes: slice) -> Floats:
    """Return some planes of what `resampled` gives."""
    weights = [weights_along(old, new) for old, new in zip(data.shape, shape_zyx, strict=True)]
    return _planes(lambda first, last: data[first:last], weights, planes)


def nearest(data: NDArray[Any], shape_zyx: ZYX) -> NDArray[Any]:
    """Put labels (Z, Y, X) on another grid: each voxel takes the one that its middle lies in."""
    z, y, x = (nearest_along(old, new) for old, new in zip(data.shape, shape_zyx, strict=True))
    return np.ascontiguousarray(data[np.ix_(z, y, x)])


def nearest_along(old: int, new: int) -> NDArray[np.int64]:
    """Old voxel in which the middle of each of ``new`` ones lies."""
    return ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)


def resampled_volume(volume: LazyVolume, shape_zyx: ZYX) -> LazyVolume:
    """Return a volume on a grid of ``shape_zyx`` voxels, float32, that reads what it needs of the first."""
    old = volume.shape_zyx
    along = [weights_along(a, b) for a, b in zip(old, shape_zyx, strict=True)]
    spacing = volume.info.spacing_um
    info = replace(
        volume.info,
        shape_zyx=shape_zyx,
        dtype="float32",
        spacing_um=None if spacing is None else spacing_on(old, spacing, shape_zyx),
    )

    def read(z0: int, z1: int) -> Floats:
        return _planes(volume.read, along, slice(z0, z1))

    return LazyVolume(info, read, volume.close)


def spacing_on(old_zyx: ZYX, spacing_um: SpacingUm, new_zyx: ZYX) -> SpacingUm:
    """Voxel size (z, y, x) of a grid of ``new_zyx`` voxels over the same room."""
    z, y, x = (step * a / b for step, a, b in zip(spacing_um, old_zyx, new_zyx, strict=True))
    return z, y, x


def _planes(
    read: Callable[[int, int], NDArray[Any]], weights: Sequence[Weights | None], planes: slice
) -> Floats:
    """Make some planes of those that they take."""
    along_z, *rest = weights
    if along_z is None:
        return _applied(read(planes.start, planes.stop), weights)
    rows = along_z[planes]
    first, last = int(rows.indices.min()), int(rows.indices.max()) + 1
    return _applied(read(first, last), [rows[:, first:last], *rest])


def _applied(data: NDArray[Any], weights: Sequence[Weights | None]) -> Floats:
    """Weigh along each axis, the one that shrinks most first; None leaves an axis as it is."""
    made: Floats = np.asarray(data, np.float32)
    some = [(axis, matrix) for axis, matrix in enumerate(weights) if matrix is not None]
    for axis, matrix in sorted(some, key=lambda one: float(one[1].shape[0] / one[1].shape[1])):
        turned = np.moveaxis(made, axis, 0)
        flat: Floats = matrix @ np.ascontiguousarray(turned).reshape(len(turned), -1)
        made = np.moveaxis(flat.reshape(-1, *turned.shape[1:]), 0, axis)
    return np.ascontiguousarray(made)
