"""What state a nucleus is in, told from its lineage alone: the truth that networks learn.

=============  =======================================================================================
mitotic        it has two or more children: the last time point before a division
new_daughter   its parent has two or more children: the first one after a division
death          it has no child, and the movie goes on
stable         it has one child, and neither it nor its track does any of the above for ``window`` time
               points before and after; at least one and a half times ``window`` of these are there
unknown        all others, such as the time points around a division; nothing is learnt from them
=============  =======================================================================================

The first that fits counts. After system 003, whose rules these are.
"""

import numpy as np
from numpy.typing import NDArray

from lightsheet.volumes.tracks.lineage import NOBODY, Integers
from lightsheet.volumes.tracks.states import DEATH, MITOTIC, NEW_DAUGHTER, STABLE, STATES

__all__ = ["STATES", "UNKNOWN", "families_of", "states_of"]

UNKNOWN = -1
WINDOW = 4


def states_of(times: Integers, parents: Integers, window: int = WINDOW) -> Integers:
    """Return the state of each cell (N,), an index into `STATES` or `UNKNOWN`.

    Parameters
    ----------
    times : time point of each cell, ascending
    parents : row of the cell it came from, -1 for none
    window : time points on either side for which a stable cell has to be one
    """
    children = np.bincount(parents[parents >= 0], minlength=len(parents))
    from_division = np.zeros(len(parents), bool)
    from_division[parents >= 0] = children[parents[parents >= 0]] >= 2
    last = int(times.max(initial=0))
    states = np.full(len(times), UNKNOWN, np.int64)
    quiet = (children == 1) & ~from_division
    around = _quiet_around(parents, children, quiet, window)
    states[quiet & (around >= int(1.5 * window))] = STABLE
    states[(children == 0) & (times < last)] = DEATH
    states[from_division] = NEW_DAUGHTER
    states[children >= 2] = MITOTIC
    return states


def _quiet_around(parents: Integers, children: Integers, quiet: NDArray[np.bool_], window: int) -> Integers:
    """Count the quiet time points within the window on the track of each cell; 0 if one is not quiet."""
    after = np.full(len(parents), NOBODY, np.int64)
    single = np.flatnonzero((parents >= 0) & (children[parents] == 1))
    after[parents[single]] = single
    before = np.full(len(parents), NOBODY, np.int64)
    before[single] = parents[single]
    count = quiet.astype(np.int64)
    broken = ~quiet
    for way in (before, after):
        place = np.arange(len(parents))
        for _ in range(window):
            place = np.where(place >= 0, way[place], NOBODY)
            there = place >= 0
            count[there] += quiet[place[there]]
            broken[there] |= ~quiet[place[there]]
    return np.where(broken, 0, count)


def families_of(parents: Integers) -> Integers:
    """Row of the first forebear of each cell (N,): cells of one family are never on both sides of a split."""
    family = np.arange(len(parents))
    for row in np.flatnonzero(parents >= 0):  # parents are earlier, and done
        family[row] = family[parents[row]]
    return family
