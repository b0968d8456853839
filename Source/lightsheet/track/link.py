"""Link cells over time: drift out, frame by frame, then gaps and divisions."""

from dataclasses import replace

import numpy as np

from lightsheet.core.errors import LineageError
from lightsheet.core.progress import LOG
from lightsheet.specimen.drift import distance_of_frames, drift, neighbour_distance
from lightsheet.track.events import chosen_together, event_weights
from lightsheet.track.evidence import Evidence
from lightsheet.track.frames import link_frames
from lightsheet.track.hypotheses import (
    DIVISION,
    SIZED,
    Cells,
    Hypotheses,
    divisions,
    gaps,
    step_odds,
    steps,
    without_stolen,
)
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Lineage, Places

STEP_OF_NEIGHBOURS = 0.5
"""Farthest step of a cell, in usual distances of neighbouring cells."""
# Distance of neighbours where there are none, in radii.
_RADII = 4.0
# Farthest step where cells are fast, in usual steps, and in distances of neighbours.
_STEPS, _FARTHEST_OF_NEIGHBOURS = 4.5, 0.8


def linked(cells: Lineage, settings: LinkSettings, evidence: Evidence | None = None) -> Lineage:
    """Say which cell came from which.

    Parameters
    ----------
    cells : cells of all frames; what they say of parents is left out of account
    settings : how
    evidence : what states say of each cell; None: nothing

    Returns
    -------
    the same cells with parents and the probability of each.

    Raises
    ------
    LineageError
        When there is no cell, or the frames have no two cells to tell by their distance how far one may move.
    """
    settings.check()
    found = prepared(cells, settings)
    if evidence is not None and settings.divisions:
        found = replace(found, links=without_stolen(found, evidence.looks))
    listed = explanations(found, settings, evidence)
    least = dict.fromkeys((DIVISION, SIZED), settings.min_certainty)
    parents, certainties = found.links.before.copy(), found.links.certainties.copy()
    more = None if evidence is None else [evidence.of(some) for some in listed]
    if settings.solver == "global":
        listed = [steps(found), *listed]
        told = [np.zeros(len(listed[0])), *(more or [np.zeros(len(some)) for some in listed[1:]])]
        more = [_also(found, some) + said for some, said in zip(listed, told, strict=True)]
        parents[:] = NOBODY
    numbers, certain = chosen_together(listed, event_weights(settings.events), least, more, _families(found))
    for some, taken, sure in zip(listed, numbers, certain, strict=True):
        for daughters in some.daughters[taken].T:
            parents[daughters] = some.mothers[taken]
            certainties[daughters] = sure[taken]
    certainties[parents < 0] = 1.0
    return cells.with_parents(parents, certainties)


def _families(cells: Cells) -> Integers:
    """Row of the first cell of each one's track, frame by frame (N,)."""
    first = np.arange(len(cells.times))
    for row, before in enumerate(cells.links.before):  # earlier ones are done
        if before != NOBODY:
            first[row] = first[before]
    return first


def _also(cells: Cells, some: Hypotheses) -> Places:
    """Odds (H,) that a division adds to its own: one daughter may be the mother's step to the next frame."""
    if some.kind not in (DIVISION, SIZED):
        return np.zeros(len(some))
    goes_on = cells.links.after[some.mothers] == some.daughters[:, 0]
    odds = step_odds(cells, some.mothers, some.daughters[:, 0])
    return np.where(goes_on, np.maximum(odds, 0), 0.0)


def explanations(cells: Cells, settings: LinkSettings, evidence: Evidence | None = None) -> list[Hypotheses]:
    """List the gaps and divisions that may explain tracks that begin within the movie."""
    found = gaps(cells, settings)
    if not settings.divisions:
        return [found]
    more = None if evidence is None else [evidence.of(found)]
    (likely,), _ = chosen_together([found], event_weights(settings.events), {}, more)
    looks = None if evidence is None else evidence.looks
    return [found, *divisions(cells, settings, found.some(likely), looks)]


def prepared(cells: Lineage, settings: LinkSettings) -> Cells:
    """Take drift off and link frame by frame.

    Raises
    ------
    LineageError
        As `linked`.
    """
    if not len(cells):
        raise LineageError("linking: expected at least one cell, got none")
    places = cells.places_um
    if settings.register:
        shifts = drift(cells.times, places)
        _tell(shifts)
        places = places - shifts[cells.times - cells.times[0]]
    near = neighbour_distance(cells.times, places)
    if not np.isfinite(near) and cells.radii_um.any():
        near = _RADII * float(np.median(cells.radii_um[cells.radii_um > 0]))  # single cells
    most = settings.max_distance_um or STEP_OF_NEIGHBOURS * near
    if not np.isfinite(most):
        raise LineageError(
            "linking: expected a frame of at least two cells, to tell by their distance how far one may "
            "move, got none; give it as --max_distance_um"
        )
    frames = cells.frames
    near_each = distance_of_frames(cells.times, places, near if np.isfinite(near) else 2 * most)
    links = link_frames(cells.times, places, most)
    wide = min(_FARTHEST_OF_NEIGHBOURS * near, _STEPS * links.usual_um)
    if settings.max_distance_um is None and wide > most:  # cells of this movie are fast
        most, links = wide, link_frames(cells.times, places, wide)
    return Cells(cells.times, places, cells.radii_um, links, near_each, most, frames[0], frames[-1])


def _tell(shifts: Places) -> None:
    """Say how far the specimen moved."""
    if len(shifts) > 1:
        steps = np.linalg.norm(np.diff(shifts, axis=0), axis=1)
        whole = np.linalg.norm(shifts - shifts[0], axis=1).max()
        LOG.info("the specimen moves by up to %.3g um between frames, %.3g um in all", steps.max(), whole)
