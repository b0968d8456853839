"""Cells at time points and which came from which, as arrays; and as tracks of the Cell Tracking Challenge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import LineageError

Places = NDArray[np.float64]
Integers = NDArray[np.int64]
NOBODY = -1


@dataclass(frozen=True)
class Track:
    """One cell from its first to its last frame, as a line of man_track.txt or res_track.txt.

    Attributes
    ----------
    label : its number, from 1
    begin, end : first and last frame, both counted, from 0
    parent : number of the track it came from, which ended before; 0 for none
    """

    label: int
    begin: int
    end: int
    parent: int = 0


@dataclass(frozen=True)
class Lineage:
    """Cells at time points, sorted by time.

    Attributes
    ----------
    ids : number of each (N,), no two alike; in one frame of masks these are the labels
    times : frame of each (N,), from 0
    places_um : (N, 3) centre z, y, x in micrometres
    parents : row of the cell it came from (N,); -1 for none
    radii_um : radius (N,) of a ball of its volume; 0 where it is not known
    certainties : probability (N,) that it came from there; 1 where nothing else is known
    """

    ids: Integers
    times: Integers
    places_um: Places
    parents: Integers
    radii_um: Places
    certainties: Places

    def __len__(self) -> int:
        """Return the number of cells of all frames."""
        return len(self.ids)

    @property
    def frames(self) -> range:
        """Frames from the first to the last."""
        return range(int(self.times.min()), int(self.times.max()) + 1) if len(self) else range(0)

    @property
    def children(self) -> Integers:
        """How many came from each (N,)."""
        return np.bincount(self.parents[self.parents >= 0], minlength=len(self))

    @property
    def edges(self) -> Integers:
        """Rows (E, 2) of parent and child."""
        rows = np.flatnonzero(self.parents >= 0)
        return np.stack((self.parents[rows], rows), axis=1)

    @property
    def divisions(self) -> Integers:
        """Rows of the cells that two or more came from."""
        return np.flatnonzero(self.children >= 2)

    def taken(self, rows: NDArray[np.bool_]) -> "Lineage":
        """Return some of the cells; a parent left out gives way to its nearest forebear that is not."""
        parents = self.parents.copy()
        for row in np.flatnonzero(rows):  # parents are earlier, and done
            while parents[row] >= 0 and not rows[parents[row]]:
                parents[row] = self.parents[parents[row]]
        place = np.cumsum(rows) - 1
        kept = parents[rows]
        kept = np.where(kept >= 0, place[kept], NOBODY)
        return Lineage(
            self.ids[rows],
            self.times[rows],
            self.places_um[rows],
            kept,
            self.radii_um[rows],
            self.certainties[rows],
        )

    def with_parents(self, parents: Integers, certainties: Places | None = None) -> "Lineage":
        """Return the same cells with other parents."""
        return replace(
            self, parents=parents, certainties=self.certainties if certainties is None else certainties
        )


def lineage_of(
    ids: Sequence[int] | Integers,
    times: Sequence[int] | Integers,
    places_um: Places,
    parent_ids: Sequence[int] | Integers | None = None,
    *,
    radii_um: Places | None = None,
    certainties: Places | None = None,
    source: str = "lineage",
) -> Lineage:
    """Sort cells by time and find the parents by their numbers.

    Parameters
    ----------
    ids : number of each cell at a time point
    times : frame of each
    places_um : (N, 3) centre z, y, x in micrometres
    parent_ids : number of the cell that each came from; below 0 for none
    source : where this is from, for messages

    Raises
    ------
    LineageError
        When numbers occur twice, a parent is not there, is not earlier than its child, a place is not finite.
    """
    number, frame = np.asarray(ids, np.int64), np.asarray(times, np.int64)
    places = np.asarray(places_um, np.float64).reshape(-1, 3)
    count = len(number)
    if len(np.unique(number)) < count:
        values, times_seen = np.unique(number, return_counts=True)
        raise LineageError(f"{source}: expected each id once, got {values[times_seen > 1][0]} twice")
    if not np.isfinite(places).all():
        raise LineageError(f"{source}: expected finite places, got NaN or infinity")
    if count and frame.min() < 0:
        raise LineageError(f"{source}: expected time points from 0 on, got {frame.min()}")
    order = np.lexsort((number, frame))
    wanted = np.full(count, NOBODY, np.int64) if parent_ids is None else np.asarray(parent_ids, np.int64)
    lineage = Lineage(
        number[order],
        frame[order],
        places[order],
        _rows_of(wanted[order], number[order], source),
        np.zeros(count) if radii_um is None else np.asarray(radii_um, np.float64)[order],
        np.ones(count) if certainties is None else np.asarray(certainties, np.float64)[order],
    )
    before, after = lineage.edges.T
    late = np.flatnonzero(lineage.times[before] >= lineage.times[after])
    if len(late):
        parent, child = before[late[0]], after[late[0]]
        raise LineageError(
            f"{source}: expected a parent before its child, got {lineage.ids[parent]} at frame "
            f"{lineage.times[parent]} for {lineage.ids[child]} at frame {lineage.times[child]}"
        )
    return lineage


def _rows_of(wanted: Integers, ids: Integers, source: str) -> Integers:
    """Rows of numbers; those below 0 are nobody's."""
    order = np.argsort(ids)
    if not len(ids):
        return wanted
    at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    missing = (wanted >= 0) & (ids[at] != wanted)
    if missing.any():
        child = int(np.flatnonzero(missing)[0])
        raise LineageError(
            f"{source}: expected the parent of {ids[child]} among the cells, got {wanted[child]}, "
            "which is not there"
        )
    return np.where(wanted >= 0, at, NOBODY)


def tracks_of(lineage: Lineage) -> tuple[Integers, list[Track]]:
    """Cut a lineage into tracks: each ends where the cell divides, is missing in the next frame, or is gone.

    Returns
    -------
    number of the track of each cell (N,), from 1, and the tracks in that order.
    """
    track = np.zeros(len(lineage), np.int64)
    tracks: list[Track] = []
    children = lineage.children
    for row in range(len(lineage)):
        parent, time = int(lineage.parents[row]), int(lineage.times[row])
        if parent >= 0 and children[parent] == 1 and lineage.times[parent] == time - 1:
            label = int(track[parent])
            tracks[label - 1] = replace(tracks[label - 1], end=time)
        else:
            label = len(tracks) + 1
            tracks.append(Track(label, time, time, int(track[parent]) if parent >= 0 else 0))
        track[row] = label
    return track, tracks
