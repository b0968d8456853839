"""A lineage as a detector finds it: cells left out, cells that are not there, a stage that jumps."""

import numpy as np

from lightsheet.volumes.tracks.lineage import NOBODY, Lineage


def detected(
    lineage: Lineage,
    seed: int,
    *,
    missed: float = 0.1,
    spurious: float = 0.02,
    jumps: float = 0.1,
    jump_um: float = 50.0,
    error_um: float = 0.0,
    size_error: float | None = 0.0,
) -> Lineage:
    """Return what is found of a lineage, with the truth about it.

    A cell whose parent was missed came from the nearest forebear that was found. Spurious cells, which are
    nobody's parents or children, lie anywhere in the box that holds the others of their frame.

    Parameters
    ----------
    seed : the same seed gives the same cells
    missed, spurious : share of the cells that are not found, and of those that are not there
    jumps : share of the frames before which the stage jumps; all later cells are moved
    jump_um : standard deviation of a jump along each axis, micrometres
    error_um : standard deviation of the places along each axis, micrometres
    size_error : standard deviation of the radii as a share of them; None: no radii are found
    """
    rng = np.random.default_rng([seed, len(lineage)])
    kept = lineage.taken(rng.random(len(lineage)) >= missed)
    places = kept.places_um + rng.normal(0, error_um, kept.places_um.shape)
    number = rng.binomial(len(kept), spurious)
    error = 0.0 if size_error is None else rng.normal(1, size_error, len(kept)).clip(0.5)
    radii = kept.radii_um * error
    alike = rng.integers(0, len(kept), number)
    extra = np.empty((number, 3))
    for row, time in enumerate(kept.times[alike]):
        inside = places[kept.times == time]
        extra[row] = rng.uniform(inside.min(axis=0), inside.max(axis=0))
    times = np.concatenate((kept.times, kept.times[alike]))
    frames = int(times.max()) + 1
    moved = rng.normal(0, jump_um, (frames, 3)) * (rng.random((frames, 1)) < jumps)
    moved[0] = 0
    order = np.argsort(times, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    parents = np.concatenate((kept.parents, np.full(number, NOBODY)))
    return Lineage(
        np.concatenate((kept.ids, lineage.ids.max() + 1 + np.arange(number)))[order],
        times[order],
        (np.concatenate((places, extra)) + np.cumsum(moved, axis=0)[times])[order],
        np.where(parents >= 0, place[parents], NOBODY)[order],
        np.concatenate((radii, radii[alike]))[order],
        np.ones(len(order)),
    )
