"""Connected parts of masks that need not fit into memory: numbered slab by slab, joined where slabs meet."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from lightsheet.volumes.labels import Labels

FACES = ndimage.generate_binary_structure(3, 1)
CORNERS = ndimage.generate_binary_structure(3, 3)
SLAB_VOXELS = 1 << 25
Mask = NDArray[np.bool_]


def planes_of(shape: tuple[int, ...], voxels: int = SLAB_VOXELS) -> list[slice]:
    """Cut a volume into slabs of about as many voxels, along Z."""
    depth = max(1, voxels // max(1, shape[1] * shape[2]))
    return [slice(first, min(first + depth, shape[0])) for first in range(0, shape[0], depth)]


def number_parts(
    mask: Mask, out: NDArray[np.uint32], neighbours: Mask = FACES, voxels: int = SLAB_VOXELS
) -> int:
    """Give the connected parts of a mask numbers from 1, in the order of their first voxels.

    Parameters
    ----------
    mask : (Z, Y, X), in memory or mapped from a file
    out : (Z, Y, X), gets the numbers
    neighbours : (3, 3, 3) which voxels are connected
    voxels : of a slab; the result does not depend on it

    Returns
    -------
    How many there are.
    """
    count, seams = 0, []
    for planes in planes_of(mask.shape, voxels):
        numbered, found = ndimage.label(mask[planes], neighbours, output=np.int32)
        out[planes] = np.where(numbered > 0, numbered + count, 0)
        count += found
        if planes.start:
            seams.append(_touching(out[planes.start - 1], out[planes.start], neighbours[2]))
    touching = np.concatenate([np.zeros((0, 2), np.int64), *seams])
    if not len(touching):
        return count
    graph = sparse.coo_array((np.ones(len(touching)), tuple(touching.T)), (count + 1, count + 1))
    _, groups = sparse.csgraph.connected_components(graph, directed=False)
    # Numbers grow with the first voxel, so that each group is known by its lowest one.
    _, first, group = np.unique(groups[1:], return_index=True, return_inverse=True)
    table = np.concatenate(([0], 1 + np.argsort(np.argsort(first))[group])).astype(np.uint32)
    for planes in planes_of(mask.shape, voxels):
        out[planes] = table[out[planes]]
    return len(first)


def _touching(above: Labels, below: Labels, neighbours: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs (N, 2) of numbers in two planes, one after the other, that are neighbours."""
    pairs = []
    height, width = above.shape
    for dy, dx in np.argwhere(neighbours) - 1:
        one = above[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        other = below[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        both = (one > 0) & (other > 0)
        pairs.append(np.unique(np.stack((one[both], other[both]), axis=1), axis=0))
    return np.concatenate(pairs).astype(np.int64)
