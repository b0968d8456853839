"""Who is who in the next frame: an assignment frame by frame, by LapTrack (Fukai and Kawaguchi 2022)."""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Places

WIDE = 3.0
"""Usual steps that one is not surprised at: cells now and then move much more than they mostly do."""
_OTHERS = 4


@dataclass(frozen=True)
class Links:
    """Each cell and itself in the next frame.

    Attributes
    ----------
    after, before : row of the same cell in the next and in the last frame (N,); -1 for none
    certainties : probability (N,) of the link to the last frame
    usual_um : standard deviation of a step along an axis
    """

    after: Integers
    before: Integers
    certainties: Places
    usual_um: float


def link_frames(times: Integers, places_um: Places, most_um: float) -> Links:
    """Link cells of neighbouring frames by the least sum of squared steps.

    Parameters
    ----------
    times : frame of each cell (N,), sorted
    places_um : (N, 3), drift taken off
    most_um : farthest step
    """
    from laptrack import LapTrack  # heavy

    first = int(times[0])
    starts = np.searchsorted(times, np.arange(first, int(times[-1]) + 2))
    frames = [places_um[a:b] for a, b in itertools.pairwise(starts)]
    linker = LapTrack.model_validate(
        {"cutoff": most_um**2, "gap_closing_cutoff": False, "splitting_cutoff": False}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frames without a cell
        graph = linker.predict(frames)
    after = np.full(len(times), NOBODY, np.int64)
    before = after.copy()
    for (time, row), (later, other) in graph.edges:
        one, two = starts[time] + row, starts[later] + other
        one, two = (one, two) if time < later else (two, one)
        after[one], before[two] = two, one
    steps = places_um[after[after >= 0]] - places_um[after >= 0]
    usual = _usual(steps, most_um)
    return Links(after, before, _certainties(starts, places_um, before, most_um, usual), usual)


def _usual(steps: Places, most_um: float) -> float:
    """Tell the standard deviation of a step along an axis from its median length; not next to nothing."""
    if not len(steps):
        return most_um / 3
    median = float(np.median(np.linalg.norm(steps, axis=1)))
    return max(median / 1.538, 0.03 * most_um)  # median of a length in 3D, in standard deviations


def _certainties(
    starts: Integers, places_um: Places, before: Integers, most_um: float, usual_um: float
) -> Places:
    """Probability of each link against the cells that it might have been instead."""
    certainties = np.ones(len(places_um))
    spread = WIDE * usual_um
    nothing = np.exp(-0.5 * (most_um / spread) ** 2)
    for a, b, c in zip(starts[:-2], starts[1:-1], starts[2:], strict=True):
        rows = np.flatnonzero(before[b:c] >= 0) + b
        if not len(rows):
            continue
        distance, _ = cKDTree(places_um[a:b]).query(places_um[rows], k=_OTHERS, distance_upper_bound=most_um)
        own = np.linalg.norm(places_um[rows] - places_um[before[rows]], axis=1)
        weights = np.exp(-0.5 * (distance / spread) ** 2)  # 0 of those that are not there
        certainties[rows] = np.exp(-0.5 * (own / spread) ** 2) / (weights.sum(axis=1) + nothing)
    return np.clip(certainties, 0, 1)
