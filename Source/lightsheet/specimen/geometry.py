"""What can be known of a specimen from one view: its hull, the distance to it, and the path of the light.

Everything is worked out once on a coarse grid and then read region by region, so that prediction stores
nothing of the volume's size and conversion and training see the same numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, Region, Side, SpacingUm, toward
from lightsheet.core.errors import MetadataError
from lightsheet.core.grid import NodeGrid
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.specimen.foreground import find_specimen, surface_points
from lightsheet.specimen.hull import Hull, hull_of_points
from lightsheet.specimen.light import LightRays, light_direction, trace_light
from lightsheet.specimen.survey import Survey, block_for, check_shape, survey_volume


@dataclass(frozen=True)
class GeometrySettings:
    """How fine the coarse picture and grid are; the defaults hold the accuracy stated in the docs."""

    survey_cells: int = 2_000_000
    """Cells of the coarse picture in which the specimen is found."""

    grid_nodes: int = 4_000_000
    """Nodes of the grid that keeps the distance and the light path."""

    index_size: int = 16_384
    """Foreground positions kept for drawing patches."""


@dataclass(frozen=True)
class SpecimenGeometry:
    """A specimen's hull and the two fields made from it.

    Attributes
    ----------
    normalization : percentiles 2 and 99.8 of the volume
    hull : convex hull in micrometres
    distance : signed distance to the hull in micrometres, > 0 inside
    light : path length inside the hull from the lit side in micrometres
    light_direction_zyx : unit vector in micrometres that points to the light
    light_thickness_um : longest path of the light inside the hull
    foreground_fraction : share of the volume above the threshold
    foreground : positions in voxels (N, 3), int32, drawn evenly from the foreground
    threshold : counts above which a cell is foreground
    """

    normalization: Normalization
    hull: Hull
    distance: NodeGrid
    light: NodeGrid
    light_direction_zyx: tuple[float, float, float]
    light_thickness_um: float
    foreground_fraction: float
    foreground: NDArray[np.int32]
    threshold: float

    @property
    def hull_volume_um3(self) -> float:
        """Volume of the convex hull in cubic micrometres."""
        return self.hull.volume_um3

    def surface_distance(self, region: Region) -> NDArray[np.float32]:
        """Signed distance to the hull in micrometres (Z, Y, X): > 0 inside, 0 on it, < 0 outside."""
        return self.distance.at(region)

    def light_map(self, region: Region) -> NDArray[np.float32]:
        """Path of the light inside the hull, in micrometres (Z, Y, X).

        The light comes in parallel from ``light_direction_zyx``. The path is 0 until the light enters the
        hull, grows by one per micrometre inside and keeps the hull's thickness behind it.
        """
        return self.light.at(region)


def specimen_geometry(
    data: NDArray[Any] | Slabs,
    spacing_um: SpacingUm,
    normalization: Normalization | None = None,
    *,
    settings: GeometrySettings | None = None,
    source: str = "volume",
    light: Side | None = None,
) -> SpecimenGeometry:
    """Find the specimen of a volume (Z, Y, X) and make its channels ready.

    Parameters
    ----------
    data : counts as an array (a memory map will do) or a lazy volume; read once
    spacing_um : voxel size (z, y, x)
    normalization : percentiles, if they are known already
    light : side from which the light came; None: as the specimen's brightness tells

    Raises
    ------
    VolumeError
        When the volume isn't 3D, is constant or saturated, or shows no specimen with an extent.
    MetadataError
        When a voxel size isn't positive.
    """
    chosen = settings or GeometrySettings()
    shape: ZYX = data.shape if isinstance(data, np.ndarray) else data.info.shape_zyx
    check_shape(shape, source)
    check_spacing(spacing_um, source)
    survey = survey_volume(data, block_for(shape, spacing_um, chosen.survey_cells), source)
    return geometry_of_survey(survey, spacing_um, chosen, source, normalization, light=light)


def geometry_of_survey(
    survey: Survey,
    spacing_um: SpacingUm,
    settings: GeometrySettings,
    source: str,
    normalization: Normalization | None = None,
    *,
    light: Side | None = None,
) -> SpecimenGeometry:
    """Like :func:`specimen_geometry` for a volume that has been read already."""
    specimen = find_specimen(survey, source)
    hull = hull_of_points(surface_points(specimen, survey, spacing_um), source)
    direction = light_direction(specimen, survey, spacing_um) if light is None else np.array(toward(light))
    rays: LightRays = trace_light(hull, direction)
    step = block_for(survey.shape_zyx, spacing_um, settings.grid_nodes)
    z, y, x = (float(part) for part in direction)
    return SpecimenGeometry(
        normalization=normalization or survey.normalization,
        hull=hull,
        distance=hull.distance_grid(survey.shape_zyx, step, spacing_um),
        light=rays.path_grid(survey.shape_zyx, step, spacing_um),
        light_direction_zyx=(z, y, x),
        light_thickness_um=float(rays.length.max()),
        foreground_fraction=float(specimen.mask.mean()),
        foreground=foreground_positions(specimen.mask, survey, settings.index_size),
        threshold=specimen.threshold,
    )


def foreground_positions(mask: NDArray[np.bool_], survey: Survey, count: int) -> NDArray[np.int32]:
    """Middle voxels of at most ``count`` foreground cells, evenly drawn, the same in every run."""
    cells = np.argwhere(mask)
    if len(cells) > count:
        chosen = np.random.default_rng(0).choice(len(cells), count, replace=False)
        cells = cells[np.sort(chosen)]
    block = np.array(survey.block_zyx)
    voxels = cells * block + (block - 1) // 2
    inside: NDArray[np.int32] = np.minimum(voxels, np.array(survey.shape_zyx) - 1).astype(np.int32)
    return inside


def check_spacing(spacing_um: SpacingUm, source: str) -> None:
    """Refuse a voxel size that is no size; names the flag that mends it."""
    if len(spacing_um) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_um):
        raise MetadataError(
            f"{source}: expected three positive voxel sizes, got {spacing_um}; "
            "give them as --spacing_um Z,Y,X (micrometres)"
        )
