"""Convex hull of the specimen and the exact signed distance to it, without a voxel mask.

The distance of a point to a convex body is the largest of its distances to the body's supporting
planes, negated (R. T. Rockafellar, Convex Analysis, 1970, section 13: support functions). Inside, the planes
of the hull's faces decide, exactly. Outside, where the nearest point is an edge or a corner, planes through
it do: along each edge some between its two faces, and for corners some in directions spread over the sphere.
With the directions used here the distance outside is at most 0.1 percent too small.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.core.grid import NodeGrid, fill_grid
from lightsheet.core.jit import compiled

# Directions spread over the sphere: neighbours are about 3 degrees apart.
_DIRECTIONS = 4096
# Edges whose faces differ by less than this need no planes between, in radians.
_EDGE_ANGLE = np.deg2rad(3.0)
_MOST_VERTICES = 1024
_BLOCK = 4
_SUPERBLOCK = 16


@dataclass(frozen=True)
class Hull:
    """A convex hull in micrometres, origin at the centre of voxel (0, 0, 0), axes (z, y, x).

    Attributes
    ----------
    normals, offsets : planes of the faces, then further supporting planes; a point ``p`` is
        inside where ``normals @ p + offsets <= 0`` for all
    faces : number of planes that are faces
    vertices : corners (N, 3)
    volume_um3 : volume
    """

    normals: NDArray[np.float64]
    offsets: NDArray[np.float64]
    faces: int
    vertices: NDArray[np.float64]
    volume_um3: float

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distance (N,) of points (N, 3), all in micrometres: > 0 inside."""
        result = np.empty(len(points))
        for start in range(0, len(points), 1024):
            part = points[start : start + 1024]
            result[start : start + 1024] = -(part @ self.normals.T + self.offsets).max(axis=1)
        return result

    def distance_grid(self, shape_zyx: ZYX, step_zyx: ZYX, spacing_um: SpacingUm) -> NodeGrid:
        """Signed distance in micrometres at the nodes of a coarse grid."""
        node_um = np.array(step_zyx) * np.array(spacing_um)
        planes = np.hstack([self.normals, self.offsets[:, None]])

        def fill(part: NDArray[np.float32], first_node: int) -> None:
            _fill_distance(planes, node_um, first_node, part)

        return fill_grid(shape_zyx, step_zyx, fill, _SUPERBLOCK)


def hull_of_points(points_um: NDArray[np.float64], source: str) -> Hull:
    """Convex hull of points (N, 3) in micrometres.

    Raises
    ------
    VolumeError
        When the points lie in one plane, so that there is no body.
    """
    try:
        hull = ConvexHull(points_um)
    except (QhullError, ValueError) as error:
        raise VolumeError(
            f"{source}: expected a specimen with an extent along Z, Y and X, got a flat or empty foreground"
        ) from error
    directions = _sphere(_DIRECTIONS)
    vertices = points_um[hull.vertices]
    if len(vertices) > _MOST_VERTICES:
        # Corners that are outermost in no direction lie within 0.03 percent of the radius below the surface.
        vertices = vertices[np.unique(_outermost(directions, vertices))]
        hull = ConvexHull(vertices)
        vertices = vertices[hull.vertices]
    # Faces of one plane come as several triangles; once is enough.
    planes = np.unique(np.round(hull.equations, 9), axis=0)
    edges = _edge_planes(hull)
    support = (directions * vertices[_outermost(directions, vertices)]).sum(axis=1)
    return Hull(
        normals=np.vstack([planes[:, :3], edges[:, :3], directions]),
        offsets=np.concatenate([planes[:, 3], edges[:, 3], -support]),
        faces=len(planes),
        vertices=vertices,
        volume_um3=float(hull.volume),
    )


def _edge_planes(hull: ConvexHull) -> NDArray[np.float64]:
    """Planes (N, 4) through the sharper edges, with normals between those of the edge's two faces."""
    face, corner = np.divmod(np.arange(hull.neighbors.size), 3)
    other = hull.neighbors[face, corner]
    # Each edge is seen from both of its faces; one of them does.
    face, corner, other = (part[face < other] for part in (face, corner, other))
    first, second = hull.equations[face, :3], hull.equations[other, :3]
    angle = np.arccos(np.clip((first * second).sum(axis=1), -1.0, 1.0))
    parts = np.ceil(angle / _EDGE_ANGLE).astype(int)
    on_edge = hull.points[hull.simplices[face, (corner + 1) % 3]]
    found = [np.empty((0, 4))]
    for step in range(1, int(parts.max(initial=1))):
        chosen = parts > step
        turn = (angle * step)[chosen] / parts[chosen]
        weights = np.stack([np.sin(angle[chosen] - turn), np.sin(turn)]) / np.sin(angle[chosen])
        normals = weights[0][:, None] * first[chosen] + weights[1][:, None] * second[chosen]
        offsets = -(normals * on_edge[chosen]).sum(axis=1)
        found.append(np.hstack([normals, offsets[:, None]]))
    return np.vstack(found)


def _sphere(count: int) -> NDArray[np.float64]:
    """Directions (count, 3) spread evenly over the sphere (Fibonacci lattice)."""
    i = np.arange(count) + 0.5
    polar = np.arccos(1.0 - 2.0 * i / count)
    around = np.pi * (1.0 + 5.0**0.5) * i
    return np.stack([np.cos(polar), np.sin(polar) * np.sin(around), np.sin(polar) * np.cos(around)], axis=1)


@compiled()
def _outermost(directions: Any, vertices: Any) -> Any:
    """Find the vertex that lies farthest in each direction.

    A plain loop: a matrix product starts threads, which on busy cores cost more than the work.
    """
    found = np.empty(directions.shape[0], np.int64)
    for i in range(directions.shape[0]):
        farthest = -np.inf
        for k in range(vertices.shape[0]):
            value = (
                directions[i, 0] * vertices[k, 0]
                + directions[i, 1] * vertices[k, 1]
                + directions[i, 2] * vertices[k, 2]
            )
            if value > farthest:
                farthest = value
                found[i] = k
    return found


@compiled()
def _fill_distance(planes: Any, node_um: Any, first_node: int, out: Any) -> None:
    """Minus the largest plane value at every node.

    Only few planes can be the largest within a block, so the list is shortened for blocks of 16^3 nodes and
    again for 4^3: plane ``i`` may win somewhere in a box of half size ``h`` around ``c`` only if it is within
    ``sum |n_i - n_best| h`` of the plane that is best at ``c``.
    """
    count = planes.shape[0]
    everything = np.arange(count)
    wide = np.empty(count, np.int64)
    near = np.empty(count, np.int64)
    values = np.empty(count, np.float64)
    size_z, size_y, size_x = out.shape
    for z in range(0, size_z, _SUPERBLOCK):
        for y in range(0, size_y, _SUPERBLOCK):
            for x in range(0, size_x, _SUPERBLOCK):
                stop_z, stop_y, stop_x = (
                    min(z + _SUPERBLOCK, size_z),
                    min(y + _SUPERBLOCK, size_y),
                    min(x + _SUPERBLOCK, size_x),
                )
                n_wide = _candidates(
                    planes, everything, count, node_um, z + first_node, y, x, _SUPERBLOCK, values, wide
                )
                for bz in range(z, stop_z, _BLOCK):
                    for by in range(y, stop_y, _BLOCK):
                        for bx in range(x, stop_x, _BLOCK):
                            n_near = _candidates(
                                planes, wide, n_wide, node_um, bz + first_node, by, bx, _BLOCK, values, near
                            )
                            _fill_block(
                                planes,
                                near[:n_near],
                                node_um,
                                first_node,
                                bz,
                                by,
                                bx,
                                out[
                                    bz : min(bz + _BLOCK, stop_z),
                                    by : min(by + _BLOCK, stop_y),
                                    bx : min(bx + _BLOCK, stop_x),
                                ],
                            )


@compiled()
def _candidates(
    planes: Any,
    among: Any,
    count: int,
    node_um: Any,
    z: int,
    y: int,
    x: int,
    size: int,
    values: Any,
    found: Any,
) -> int:
    """Write the planes that may be the largest within a block of nodes to ``found``; return how many."""
    half = (size - 1) / 2.0
    cz, cy, cx = (z + half) * node_um[0], (y + half) * node_um[1], (x + half) * node_um[2]
    hz, hy, hx = half * node_um[0], half * node_um[1], half * node_um[2]
    best = among[0]
    best_value = -np.inf
    for k in range(count):
        i = among[k]
        value = planes[i, 0] * cz + planes[i, 1] * cy + planes[i, 2] * cx + planes[i, 3]
        values[k] = value
        if value > best_value:
            best_value = value
            best = i
    bz, by, bx = planes[best, 0], planes[best, 1], planes[best, 2]
    n = 0
    for k in range(count):
        i = among[k]
        reach = abs(planes[i, 0] - bz) * hz + abs(planes[i, 1] - by) * hy + abs(planes[i, 2] - bx) * hx
        if values[k] + reach + 1e-9 >= best_value:
            found[n] = i
            n += 1
    return n


@compiled()
def _fill_block(
    planes: Any, near: Any, node_um: Any, first_node: int, z0: int, y0: int, x0: int, out: Any
) -> None:
    for z in range(out.shape[0]):
        pz = (z0 + z + first_node) * node_um[0]
        for y in range(out.shape[1]):
            py = (y0 + y) * node_um[1]
            for x in range(out.shape[2]):
                px = (x0 + x) * node_um[2]
                largest = -np.inf
                for i in near:
                    value = planes[i, 0] * pz + planes[i, 1] * py + planes[i, 2] * px + planes[i, 3]
                    largest = max(largest, value)
                out[z, y, x] = -largest
