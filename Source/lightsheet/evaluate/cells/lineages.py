"""Scores of lineages of places: links and divisions, also where only some cells are annotated."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from lightsheet.volumes.tracks.lineage import NOBODY, Integers, Lineage

MATCH_UM = 7.0
"""Farthest place of a found cell from the true one, as benchmarks of embryos have it, micrometres."""


@dataclass(frozen=True)
class LineageScores:
    """How well a lineage was found.

    Attributes
    ----------
    cells : matched, missed and extra cells
    links : right, missed and wrong links
    divisions : right, missed and wrong ones
    """

    cells: tuple[int, int, int]
    links: tuple[int, int, int]
    divisions: tuple[int, int, int]

    @property
    def values(self) -> dict[str, float]:
        """Scores by name."""
        links, divisions = self.links, self.divisions
        true_links = max(links[0] + links[1], 1)
        return {
            "cell_F1": _f1(self.cells),
            "link_precision": _precision(links),
            "link_recall": _recall(links),
            "link_F1": _f1(links),
            "link_jaccard": links[0] / max(sum(links), 1),
            "division_precision": _precision(divisions),
            "division_recall": _recall(divisions),
            "division_F1": _f1(divisions),
            "division_jaccard": divisions[0] / sum(divisions) if sum(divisions) else 1.0,
            "false_divisions_per_1000_links": 1000 * divisions[2] / true_links,
        }


def _precision(counts: tuple[int, int, int]) -> float:
    right, _, wrong = counts
    return right / (right + wrong) if right + wrong else 1.0


def _recall(counts: tuple[int, int, int]) -> float:
    right, missed, _ = counts
    return right / (right + missed) if right + missed else 1.0


def _f1(counts: tuple[int, int, int]) -> float:
    right, missed, wrong = counts
    return 2 * right / (2 * right + missed + wrong) if sum(counts) else 1.0


def score_lineage(
    true: Lineage, found: Lineage, *, match_um: float = MATCH_UM, frames: int = 0, sparse: bool = False
) -> LineageScores:
    """Score a lineage against the true one.

    Parameters
    ----------
    match_um : farthest place of a found cell from the true one, micrometres
    frames : by how many frames a division may be early or late
    sparse : only some cells are annotated: found cells near none of them are not counted as wrong, nor are
        links and divisions of such
    """
    partner = matched(true, found, match_um)
    back = np.full(len(true), NOBODY, np.int64)
    rows = np.flatnonzero(partner >= 0)
    back[partner[rows]] = rows
    extra = 0 if sparse else int((partner < 0).sum())
    cells = len(rows), len(true) - len(rows), extra
    right = _right_links(true, found, back)
    counted = _counted_links(found, partner) if sparse else len(found.edges)
    links = right, len(true.edges) - right, counted - right
    return LineageScores(cells, links, _divisions(true, found, partner, frames, sparse=sparse))


def matched(true: Lineage, found: Lineage, match_um: float) -> Integers:
    """Row of the true cell that each found one is (M,), one to one in each frame; -1 for none."""
    partner = np.full(len(found), NOBODY, np.int64)
    for time in np.unique(true.times):
        ones, others = np.flatnonzero(true.times == time), np.flatnonzero(found.times == time)
        if not len(others):
            continue
        distance = cdist(true.places_um[ones], found.places_um[others])
        near = distance <= match_um
        one, other = linear_sum_assignment(np.where(near, distance - 1e3 * match_um, 0.0))
        good = near[one, other]
        partner[others[other[good]]] = ones[one[good]]
    return partner


def _right_links(true: Lineage, found: Lineage, back: Integers) -> int:
    """Count the true links of which both cells were found, and linked."""
    before, after = true.edges.T
    one, other = back[before], back[after]
    both = (one >= 0) & (other >= 0)
    return int((found.parents[other[both]] == one[both]).sum())


def _counted_links(found: Lineage, partner: Integers) -> int:
    """Count the found links that can be judged: of a cell that is annotated, to or from it."""
    before, after = found.edges.T
    return int(((partner[before] >= 0) & (partner[after] >= 0)).sum())


def _divisions(
    true: Lineage, found: Lineage, partner: Integers, frames: int, *, sparse: bool
) -> tuple[int, int, int]:
    """Count the divisions that are right, missed and wrong.

    One is right if all of its daughters are those of a true one, whose mother is at most ``frames`` earlier
    or later.
    """
    wanted = {int(mother): _daughters(true, int(mother)) for mother in true.divisions}
    of_daughters = {daughter: mother for mother, pair in wanted.items() for daughter in pair}
    right: set[int] = set()
    judged = 0
    for mother in found.divisions.tolist():
        mothers = [
            _mother_of(true, int(partner[row]), of_daughters, frames) for row in _daughters(found, mother)
        ]
        known = partner[mother] >= 0 or any(one is not None for one in mothers)
        judged += known or not sparse
        same = mothers[0] if len(set(mothers)) == 1 else None
        if (
            same is not None
            and abs(int(true.times[same]) - int(found.times[mother])) <= frames
            and (frames or partner[mother] == same)
        ):
            right.add(same)
    return len(right), len(wanted) - len(right), judged - len(right)


def _daughters(lineage: Lineage, mother: int) -> list[int]:
    return np.flatnonzero(lineage.parents == mother).tolist()


def _mother_of(true: Lineage, row: int, of_daughters: dict[int, int], frames: int) -> int | None:
    """Mother of the division that a cell comes from within a few frames."""
    for _ in range(frames + 1):
        if row < 0:
            return None
        if row in of_daughters:
            return of_daughters[row]
        row = int(true.parents[row])
    return None
