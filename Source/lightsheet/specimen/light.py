"""Where the light comes from, and how far it has gone inside the specimen before it reaches a voxel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.grid import NodeGrid, fill_grid
from lightsheet.core.jit import compiled
from lightsheet.specimen.foreground import Specimen
from lightsheet.specimen.hull import Hull
from lightsheet.specimen.survey import Survey

# Taken when a specimen is equally bright on all sides, so that the field is always defined.
_NO_DIRECTION = (-1.0, 0.0, 0.0)
_RAYS_ACROSS = 192


@dataclass(frozen=True)
class LightRays:
    """Parallel rays through the hull: for each where it enters and how long it stays.

    Attributes
    ----------
    frame : rows are two directions across the rays and the direction in which the light travels, (z, y, x)
    origin : position across of the first ray, micrometres
    pitch : distance between rays, micrometres
    entry : position along the travel at which a ray enters, micrometres (rays, rays)
    length : micrometres inside the hull, 0 for rays that miss it
    """

    frame: NDArray[np.float64]
    origin: NDArray[np.float64]
    pitch: float
    entry: NDArray[np.float64]
    length: NDArray[np.float64]

    def path_grid(self, shape_zyx: ZYX, step_zyx: ZYX, spacing_um: SpacingUm) -> NodeGrid:
        """Path length in micrometres at the nodes of a coarse grid."""
        node_um = np.array(step_zyx) * np.array(spacing_um)

        def fill(part: NDArray[np.float32], first_node: int) -> None:
            _fill_path(
                self.frame, self.origin, self.pitch, self.entry, self.length, node_um, first_node, part
            )

        return fill_grid(shape_zyx, step_zyx, fill)


def light_direction(specimen: Specimen, survey: Survey, spacing_um: SpacingUm) -> NDArray[np.float64]:
    """Give the unit vector (z, y, x), in micrometres, from the specimen's middle to its bright side.

    It points from the centroid of the foreground to its centroid weighted with intensity above background.
    """
    cells = np.argwhere(specimen.mask).astype(np.float64)
    cells *= np.array(survey.block_zyx) * np.array(spacing_um)
    weights = survey.means[specimen.mask].astype(np.float64)
    weights = np.maximum(weights - float(specimen.smooth.min()), 0.0)
    shift: NDArray[np.float64] = np.average(cells, axis=0, weights=weights) - cells.mean(axis=0)
    length = float(np.linalg.norm(shift))
    if length <= 1e-6 * float(np.ptp(cells, axis=0).max()):
        return np.array(_NO_DIRECTION)
    return shift / length


def trace_light(hull: Hull, direction_zyx: NDArray[np.float64]) -> LightRays:
    """Rays that come from ``direction_zyx``, cut with the hull's faces."""
    travel = -direction_zyx
    helper = np.eye(3)[np.argmin(np.abs(travel))]
    across = np.cross(travel, helper)
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(travel, across), travel])
    seen = hull.vertices @ frame[:2].T
    low, high = seen.min(axis=0), seen.max(axis=0)
    pitch = float((high - low).max()) / (_RAYS_ACROSS - 3)
    origin = low - pitch
    counts = np.ceil((high - origin) / pitch).astype(int) + 2
    normals = hull.normals[: hull.faces] @ frame.T
    entry, length = _cut_rays(normals, hull.offsets[: hull.faces], origin, pitch, counts[0], counts[1])
    return LightRays(frame, origin, pitch, entry, length)


@compiled()
def _cut_rays(normals: Any, offsets: Any, origin: Any, pitch: float, rays_p: int, rays_q: int) -> Any:
    """Largest entry and smallest exit over the planes of a convex body (Cyrus and Beck, 1978)."""
    entry = np.empty((rays_p, rays_q), np.float64)
    length = np.empty((rays_p, rays_q), np.float64)
    for i in range(rays_p):
        for j in range(rays_q):
            p, q = origin[0] + i * pitch, origin[1] + j * pitch
            enter, leave = -np.inf, np.inf
            missed = False
            for k in range(offsets.size):
                value = normals[k, 0] * p + normals[k, 1] * q + offsets[k]
                along = normals[k, 2]
                if along < -1e-9:
                    enter = max(enter, -value / along)
                elif along > 1e-9:
                    leave = min(leave, -value / along)
                elif value > 1e-9:
                    missed = True
            entry[i, j] = enter
            length[i, j] = 0.0 if missed else max(0.0, leave - enter)
    return entry, length


@compiled()
def _fill_path(
    frame: Any, origin: Any, pitch: float, entry: Any, length: Any, node_um: Any, first_node: int, out: Any
) -> None:
    last_p, last_q = entry.shape[0] - 1, entry.shape[1] - 1
    for z in range(out.shape[0]):
        pz = (z + first_node) * node_um[0]
        for y in range(out.shape[1]):
            py = y * node_um[1]
            for x in range(out.shape[2]):
                px = x * node_um[2]
                p = (frame[0, 0] * pz + frame[0, 1] * py + frame[0, 2] * px - origin[0]) / pitch
                q = (frame[1, 0] * pz + frame[1, 1] * py + frame[1, 2] * px - origin[1]) / pitch
                if p < 0 or q < 0 or p >= last_p or q >= last_q:
                    out[z, y, x] = 0.0
                    continue
                i, j = int(p), int(q)
                fp, fq = p - i, q - j
                begin = _blend(entry, i, j, fp, fq)
                longest = _blend(length, i, j, fp, fq)
                gone = frame[2, 0] * pz + frame[2, 1] * py + frame[2, 2] * px - begin
                out[z, y, x] = min(max(gone, 0.0), longest)


@compiled()
def _blend(table: Any, i: int, j: int, fp: float, fq: float) -> Any:
    return (1 - fp) * ((1 - fq) * table[i, j] + fq * table[i, j + 1]) + fp * (
        (1 - fq) * table[i + 1, j] + fq * table[i + 1, j + 1]
    )
