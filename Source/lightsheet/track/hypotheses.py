"""What may explain a track that begins within a movie: a gap or a division, and what tells which."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lightsheet.track.frames import WIDE, Links
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Places

# Reach of the hypotheses, in distances of neighbouring cells.
_REACH_OF_DIVISION, _REACH_OF_GAP = 1.5, 1.0
_MOST_DAUGHTERS = 6
_LONG = 6
# Difference of the daughters' volume from the mother's (logarithm), at most.
_UNLIKE = 1.0
# Two whose centres stay nearer than this, of the sum of the radii of spheres of their volumes, are parts of
# one object that was split: halves of a sphere are .47 apart, touching ones 1, an anaphase between.
_PARTS, _SEEN_FOR = 0.65, 3
# No division is so uneven, in volume.
_UNEVEN = 10.0
_TINY = 1e-9
# Usual steps beyond which more make no difference.
_MANY = 15.0
STEP, GAP, DIVISION, SIZED = "step", "gap", "division", "sized division"
FEATURES = {
    STEP: ("odds",),
    GAP: ("constant", "distance", "distance in usual steps", "frames", "lives"),
    DIVISION: (
        "constant",
        "offset of the middle",
        "square of the offset",
        "apart",
        "square of apart",
        "bend",
        "farthest",
        "square of the farthest",
        "evenness",
        "lives",
        "frames",
        "both new",
        "age",
        "middle to the nearest other cell",
        "offset against that",
        "new one nearer to another cell",
        "usual step",
    ),
}
FEATURES[SIZED] = (*FEATURES[DIVISION], "sizes")


@dataclass(frozen=True)
class Cells:
    """What the hypotheses are made from.

    Attributes
    ----------
    times, places_um, radii_um : of each cell (N,), (N, 3), (N,); sorted by time, drift taken off
    links : frame by frame
    near_um : usual distance of neighbouring cells at the time of each cell (N,)
    most_um : farthest step from frame to frame
    first, last : frames of the movie
    """

    times: Integers
    places_um: Places
    radii_um: Places
    links: Links
    near_um: Places
    most_um: float
    first: int
    last: int

    def rows(self, frame: int) -> Integers:
        """Rows of the cells of a frame."""
        low, high = np.searchsorted(self.times, (frame, frame + 1))
        return np.arange(low, high)

    @property
    def begins(self) -> Integers:
        """Rows of the cells that nothing leads to."""
        return np.flatnonzero((self.links.before < 0) & (self.times > self.first))


@dataclass(frozen=True)
class Looks:
    """What cells look like by themselves, whoever is near them.

    Attributes
    ----------
    dividing, born : about to divide, just born (N,)
    """

    dividing: NDArray[np.bool_]
    born: NDArray[np.bool_]


@dataclass(frozen=True)
class Hypotheses:
    """Some of one kind.

    Attributes
    ----------
    kind : one of `FEATURES`
    mothers : row of the cell that goes on (H,)
    daughters : rows (H, 1) of the same cell after a gap, or (H, 2) of two
    features : (H, F), as `FEATURES` names them
    """

    kind: str
    mothers: Integers
    daughters: Integers
    features: NDArray[np.float64]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.mothers)

    def some(self, which: NDArray[np.bool_] | Integers) -> "Hypotheses":
        """Return some of them."""
        return Hypotheses(self.kind, self.mothers[which], self.daughters[which], self.features[which])


def steps(cells: Cells) -> Hypotheses:
    """List who may be who in the next frame; the odds follow from the length of the step alone."""
    pairs = [np.empty((0, 2), np.int64)]
    for frame in range(cells.first, cells.last):
        pairs.append(_near(cells, cells.rows(frame), cells.rows(frame + 1), _REACH_OF_GAP))
    mothers, daughters = np.concatenate(pairs).T
    odds = step_odds(cells, mothers, daughters)
    near = odds > 0
    return Hypotheses(STEP, mothers[near], daughters[near][:, None], odds[near][:, None])


def step_odds(cells: Cells, mothers: Integers, daughters: Integers) -> Places:
    """Logarithm of the odds (H,) of steps against none: 0 for the farthest, most for none at all."""
    distance = np.linalg.norm(cells.places_um[daughters] - cells.places_um[mothers], axis=1)
    return np.asarray(0.5 * (cells.most_um**2 - distance**2) / (WIDE * cells.links.usual_um) ** 2)


def gaps(cells: Cells, settings: LinkSettings) -> Hypotheses:
    """List the ends that may be the same cell as a track that begins up to ``max_gap`` frames later."""
    begins, life = cells.begins, _life(cells, cells.links.after)
    pairs = [np.empty((0, 2), np.int64)]
    for frame in range(cells.first, cells.last):
        rows = cells.rows(frame)
        ends = rows[cells.links.after[rows] < 0]
        steps = cells.times[begins] - frame
        later = begins[(steps >= 1) & (steps <= settings.max_gap + 1)]
        pairs.append(_near(cells, ends, later, _REACH_OF_GAP))
    mothers, daughters = np.concatenate(pairs).T
    distance = np.linalg.norm(cells.places_um[daughters] - cells.places_um[mothers], axis=1)
    frames = cells.times[daughters] - cells.times[mothers] - 1
    steps = distance / (cells.links.usual_um * np.sqrt(frames + 1.0))
    near = distance / cells.near_um[mothers]
    columns = (np.ones(len(mothers)), near, np.minimum(steps, _MANY), frames, life[daughters] / _LONG)
    return Hypotheses(GAP, mothers, daughters[:, None], np.stack(columns, axis=1))


def divisions(
    cells: Cells, settings: LinkSettings, likely: Hypotheses, looks: Looks | None = None
) -> list[Hypotheses]:
    """List the cells that may have become two, with and without known volumes.

    Parameters
    ----------
    likely : gaps that are; how long a daughter lives is counted across them
    looks : one that looks just born, of a mother that looked about to divide, need not live for long
    """
    after, before = cells.links.after.copy(), cells.links.before.copy()
    after[likely.mothers], before[likely.daughters[:, 0]] = likely.daughters[:, 0], likely.mothers
    life, age = _life(cells, after), _age(cells, before)
    lives = life >= min(settings.min_life, _LONG)
    asked = lives if looks is None else lives | looks.born
    begins = cells.begins[asked[cells.begins]]
    found = [np.empty((0, 3), np.int64)]
    for frame in range(cells.first, cells.last):
        steps = cells.times[begins] - frame
        soon = begins[(steps >= 1) & (steps <= settings.max_gap + 1)]
        near = _near(cells, cells.rows(frame), soon, _REACH_OF_DIVISION)
        found.append(_with_second(near, cells.links.after, asked))
    triples = np.concatenate(found)
    if looks is not None:
        triples = triples[lives[triples[:, 1:]].all(axis=1) | looks.dividing[triples[:, 0]]]
    mothers, ones, twos = triples.T
    features = _features(cells, mothers, ones, twos, life, age)
    both = Hypotheses(DIVISION, mothers, np.stack((ones, twos), axis=1), features)
    known = (cells.radii_um[np.concatenate((mothers[:, None], both.daughters), axis=1)] > 0).all(axis=1)
    sized = both.some(known)
    sized = sized.some(~_are_parts(cells, sized))
    sizes = _sizes(cells.radii_um, sized)
    with_sizes = Hypotheses(
        SIZED, sized.mothers, sized.daughters, np.concatenate((sized.features, sizes[:, None]), axis=1)
    )
    return [both.some(~known), with_sizes]


def without_stolen(cells: Cells, looks: Looks) -> Links:
    """Take back steps into cells that look just born, from others than the one beside that looks dividing."""
    after, before = cells.links.after.copy(), cells.links.before.copy()
    for frame in range(cells.first, cells.last):
        rows, later = cells.rows(frame), cells.rows(frame + 1)
        mothers = rows[looks.dividing[rows]]
        daughters = later[looks.born[later] & (before[later] != NOBODY)]
        daughters = daughters[~looks.dividing[before[daughters]]]
        if not len(mothers) or not len(daughters):
            continue
        distance, _ = cKDTree(cells.places_um[mothers]).query(cells.places_um[daughters])
        stolen = daughters[distance <= _REACH_OF_DIVISION * cells.near_um[daughters]]
        after[before[stolen]] = NOBODY
        before[stolen] = NOBODY
    certainties = np.where(before == NOBODY, 1.0, cells.links.certainties)
    return replace(cells.links, after=after, before=before, certainties=certainties)


def _near(cells: Cells, rows: Integers, later: Integers, reach: float) -> Integers:
    """Pairs (P, 2) of a cell and the nearest of ``later`` within reach of it."""
    if not len(rows) or not len(later):
        return np.empty((0, 2), np.int64)
    most = min(_MOST_DAUGHTERS, len(later))
    limit = reach * cells.near_um[rows]
    tree = cKDTree(cells.places_um[later])
    distance, place = tree.query(cells.places_um[rows], k=range(1, most + 1))
    one, other = np.nonzero(distance <= limit[:, None])
    return np.stack((rows[one], later[place[one, other]]), axis=1)


def _with_second(near: Integers, after: Integers, lives: NDArray[np.bool_]) -> Integers:
    """Triples (T, 3): a cell, its own next and a new one; or, if it has no next, two new ones."""
    own = after[near[:, 0]]
    goes_on = (own >= 0) & lives[own]
    triples = [np.stack((near[goes_on, 0], own[goes_on], near[goes_on, 1]), axis=1)]
    ends = near[own < 0]
    first = np.searchsorted(ends[:, 0], ends[:, 0])
    for shift in range(1, _MOST_DAUGHTERS):
        a, b = ends[:-shift], ends[shift:]
        same = first[:-shift] == first[shift:] if len(ends) > shift else np.zeros(0, bool)
        triples.append(np.stack((a[same, 0], a[same, 1], b[same, 1]), axis=1))
    return np.concatenate(triples)


def _features(
    cells: Cells, mothers: Integers, ones: Integers, twos: Integers, life: Integers, age: Integers
) -> NDArray[np.float64]:
    """Numbers by which divisions are judged, lengths in distances of neighbouring cells."""
    near = cells.near_um[mothers][:, None]
    way_one, way_two = ((cells.places_um[rows] - cells.places_um[mothers]) / near for rows in (ones, twos))
    lengths = np.stack([np.linalg.norm(way, axis=1) for way in (way_one, way_two)])
    offset = np.linalg.norm(way_one + way_two, axis=1) / 2
    apart = np.linalg.norm(way_one - way_two, axis=1)
    far = lengths.max(axis=0)
    frames = cells.times[ones] + cells.times[twos] - 2 * cells.times[mothers] - 2
    middle = (cells.places_um[ones] + cells.places_um[twos]) / 2
    other = _to_another(cells, mothers, middle) / near[:, 0]
    new = _to_another(cells, mothers, cells.places_um[twos]) / near[:, 0]
    columns = (
        np.ones(len(mothers)),
        offset,
        offset**2,
        apart,
        apart**2,
        (way_one * way_two).sum(axis=1) / np.maximum(lengths.prod(axis=0), _TINY),
        far,
        far**2,
        lengths.min(axis=0) / np.maximum(far, _TINY),
        np.minimum(life[ones], life[twos]) / _LONG,
        frames,
        cells.links.after[mothers] < 0,
        age[mothers] / _LONG,
        other,
        np.log(offset / np.maximum(other, _TINY) + 0.05).clip(-3, 3),
        new - lengths[1],
        np.log(cells.links.usual_um / near[:, 0]),
    )
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def _to_another(cells: Cells, mothers: Integers, places: Places) -> Places:
    """Distance (H,) of places to the nearest cell of the mother's frame but herself; 3 neighbours at most."""
    found = 3 * cells.near_um[mothers]
    for frame in np.unique(cells.times[mothers]):
        rows = cells.rows(int(frame))
        asked = np.flatnonzero(cells.times[mothers] == frame)
        if len(rows) < 2:
            continue
        distance, place = cKDTree(cells.places_um[rows]).query(places[asked], k=2)
        she_is_nearest = rows[place[:, 0]] == mothers[asked]
        nearest = np.where(she_is_nearest, distance[:, 1], distance[:, 0])
        found[asked] = np.minimum(found[asked], nearest)
    return found


def _are_parts(cells: Cells, some: Hypotheses) -> NDArray[np.bool_]:
    """Whether daughters (H,) are parts of one object, or one is a crumb, as far as can be seen."""
    ones, twos = some.daughters.T
    radii = cells.radii_um
    uneven = np.abs(3 * np.log(radii[ones] / radii[twos])) > np.log(_UNEVEN)
    apart = np.where(cells.times[ones] == cells.times[twos], 0.0, np.inf)
    there = np.ones(len(some), bool)
    for _ in range(_SEEN_FOR):
        distance = np.linalg.norm(cells.places_um[ones] - cells.places_um[twos], axis=1)
        share = distance / np.maximum(radii[ones] + radii[twos], _TINY)
        apart = np.where(there, np.maximum(apart, share), apart)
        ones, twos = cells.links.after[ones], cells.links.after[twos]
        there &= (ones != NOBODY) & (twos != NOBODY)
    return np.asarray(uneven | (apart < _PARTS))


def _sizes(radii_um: Places, some: Hypotheses) -> Places:
    """How far the volumes (H,) of two daughters together are from that of their mother."""
    volumes = (radii_um[some.daughters] ** 3).sum(axis=1) / radii_um[some.mothers] ** 3
    return np.asarray(np.minimum(np.abs(np.log(volumes)), _UNLIKE))


def _life(cells: Cells, after: Integers) -> Integers:
    """Frames that each cell goes on for, itself counted (N,), up to `_LONG`; `_LONG` where the movie ends."""
    length = np.where(cells.times >= cells.last - 1, _LONG, 1)
    for row in range(len(after) - 1, -1, -1):
        if after[row] != NOBODY:
            length[row] = min(length[after[row]] + 1, _LONG)
    return length


def _age(cells: Cells, before: Integers) -> Integers:
    """Frames that each cell has been there for, itself counted (N,), up to `_LONG`; that where it begins."""
    length = np.where(cells.times <= cells.first + 1, _LONG, 1)
    for row in range(len(before)):
        if before[row] != NOBODY:
            length[row] = min(length[before[row]] + 1, _LONG)
    return length
