"""Drift and jumps of a whole specimen between frames, from the places of its cells alone.

A stage that moves shifts all cells alike. Every pair of a cell and one of the next frame votes for its shift;
the true one gets a vote of nearly each cell, false ones scatter. Where others took such jumps out before
linking, it helped more than any learned motion on embryos that had not been seen.
"""

import itertools

import numpy as np
from scipy.spatial import cKDTree

from lightsheet.volumes.tracks.lineage import Integers, Places

# Cells of a frame that vote, and by how much a shift must win against none.
_VOTERS = 600
_CLEARLY = 1.15
# Share of the distance of neighbours within which two votes are for the same shift.
_ALIKE = 0.25
_ROUNDS = 10
_FEWEST = 4


def neighbour_distance(times: Integers, places_um: Places) -> float:
    """Median distance of cells to their nearest neighbour in the frame; infinity where there is none."""
    nearest = [
        cKDTree(cells).query(cells, k=2)[0][:, 1]
        for cells in (places_um[times == time] for time in np.unique(times))
        if len(cells) > 1
    ]
    return float(np.median(np.concatenate(nearest))) if nearest else float("inf")


def distance_of_frames(times: Integers, places_um: Places, usual_um: float) -> Places:
    """Median distance of neighbours about the time of each cell (N,): cells become smaller as they divide.

    Parameters
    ----------
    usual_um : for frames with hardly a cell
    """
    found = np.full(len(times), usual_um)
    ends = np.searchsorted(times, np.arange(int(times[0]), int(times[-1]) + 2))
    for frame, (a, b) in enumerate(itertools.pairwise(ends)):
        low, high = ends[max(0, frame - 2)], ends[min(len(ends) - 1, frame + 3)]
        if b - a >= _FEWEST:
            found[a:b] = neighbour_distance(times[low:high], places_um[low:high])
    return found


def drift(times: Integers, places_um: Places) -> Places:
    """Shift of each frame against the first, micrometres.

    Parameters
    ----------
    times : frame of each cell (N,), sorted
    places_um : (N, 3) centre z, y, x

    Returns
    -------
    (F, 3) for the frames from the first to the last; what is to be taken off their cells.
    """
    if not len(times):
        return np.zeros((0, 3))
    first, last = int(times[0]), int(times[-1])
    starts = np.searchsorted(times, np.arange(first, last + 2))
    reach = neighbour_distance(times, places_um)
    total = np.zeros((last - first + 1, 3))
    before = 0
    for frame in range(1, len(total)):
        total[frame] = total[before]
        cells = places_um[starts[frame] : starts[frame + 1]]
        if len(cells):
            if starts[before + 1] > starts[before]:
                total[frame] += shift_between(places_um[starts[before] : starts[before + 1]], cells, reach)
            before = frame
    return total


def shift_between(before: Places, after: Places, reach: float) -> Places:
    """Shift (3,) from one frame to another; 0 unless a shift explains clearly more cells.

    Parameters
    ----------
    before, after : (N, 3), (M, 3) centres, micrometres
    reach : distance of neighbours, `neighbour_distance`
    """
    if min(len(before), len(after)) < _FEWEST or not np.isfinite(reach):
        return np.zeros(3)
    alike = _ALIKE * reach
    rng = np.random.default_rng(len(before))
    one, other = (cells[rng.permutation(len(cells))[:_VOTERS]] for cells in (before, after))
    votes = (other[None] - one[:, None]).reshape(-1, 3)
    tree = cKDTree(after)
    still = _refined(np.zeros(3), before, tree, alike)
    found = _refined(_mode(votes, alike), before, tree, alike)
    support = [_explained(before + shift, tree, alike) for shift in (still, found)]
    return found if support[1] > _CLEARLY * support[0] + 1 else still


def _mode(votes: Places, width: float) -> Places:
    """Where most votes lie together: the fullest box of a grid, and its neighbours."""
    boxes = np.floor(votes / width).astype(np.int64)
    low = boxes.min(axis=0)
    size = boxes.max(axis=0) - low + 3
    key = np.ravel_multi_index(tuple((boxes - low + 1).T), tuple(size))
    full, counts = np.unique(key, return_counts=True)
    best = full[np.argmax(counts)]
    middle = np.array(np.unravel_index(best, tuple(size))) + low - 1
    near = votes[(np.abs(boxes - middle) <= 1).all(axis=1)]
    for _ in range(_ROUNDS):
        centre = np.median(near, axis=0)
        near = votes[np.linalg.norm(votes - centre, axis=1) < width]
        if not len(near):
            return np.asarray(centre)
    return np.asarray(near.mean(axis=0))


def _refined(shift: Places, before: Places, tree: cKDTree, width: float) -> Places:
    """Follow the mean of the cells that a shift explains."""
    for _ in range(_ROUNDS):
        distance, nearest = tree.query(before + shift)
        fits = distance < width
        if not fits.any():
            return shift
        better = np.median(tree.data[nearest[fits]] - before[fits], axis=0)
        if np.allclose(better, shift, atol=1e-3 * width):
            break
        shift = better
    return np.asarray(shift)


def _explained(moved: Places, tree: cKDTree, width: float) -> float:
    """How many cells a shift explains, near ones counting more."""
    distance, _ = tree.query(moved)
    return float(np.clip(1 - distance / width, 0, 1).sum())
