"""What states say for and against divisions: how much likelier than usual each cell is in one.

Bayes' rule with what a classifier of states (classify_script.py) says of each nucleus: its odds for a state
against how often the movie has it are added to those that geometry gives. Probabilities have to be
calibrated for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import LineageError
from lightsheet.core.progress import LOG
from lightsheet.track.hypotheses import DIVISION, GAP, SIZED, Hypotheses, Looks
from lightsheet.volumes.tracks.lineage import Integers, Places
from lightsheet.volumes.tracks.states import DEATH, MITOTIC, NEW_DAUGHTER, STATES

# No single cell's state decides alone.
_MOST = 5.0
_LEAST = 1e-4
# Odds from which on a cell looks like one of a state.
_LOOKS = 2.0


@dataclass(frozen=True)
class Evidence:
    """Of each cell (N,) how much likelier than usual it is in a state, natural logarithm.

    Attributes
    ----------
    times : frame of each cell
    mitotic, new_daughter, death : 0 where nothing is known
    """

    times: Integers
    mitotic: Places
    new_daughter: Places
    death: Places

    def of(self, some: Hypotheses) -> Places:
        """Odds (H,) that states add to those of hypotheses."""
        if some.kind in (DIVISION, SIZED):
            # A cell is in these states in one frame. If it was not seen then, only what speaks for it counts.
            late = self.times[some.daughters] > self.times[some.mothers][:, None] + 1
            daughters, mothers = self.new_daughter[some.daughters], self.mitotic[some.mothers]
            daughters = np.where(late, np.maximum(daughters, 0), daughters)
            mothers = np.where(late.all(axis=1), np.maximum(mothers, 0), mothers)
            return np.asarray(mothers + daughters.sum(axis=1))
        if some.kind == GAP:
            return np.asarray(-np.maximum(self.death[some.mothers], 0))
        return np.zeros(len(some))

    @property
    def looks(self) -> Looks:
        """Which cells look about to divide, and just born."""
        return Looks(self.mitotic > _LOOKS, self.new_daughter > _LOOKS)


def evidence_of(
    times: Integers, labels: Integers, states: Mapping[tuple[int, int], NDArray[np.float64]], source: str
) -> Evidence:
    """Make evidence of the probabilities of states.

    Parameters
    ----------
    times, labels : frame and label of each cell (N,)
    states : probabilities by frame and label
    source : where they are from, for messages

    Raises
    ------
    LineageError
        When they are of none of the cells.
    """
    told = np.full((len(times), len(STATES)), np.nan)
    for row, key in enumerate(zip(times.tolist(), labels.tolist(), strict=True)):
        if key in states:
            told[row] = states[key]
    known = np.isfinite(told).all(axis=1)
    if not known.any():
        raise LineageError(f"{source}: expected states of the cells of the masks, got those of others")
    if not known.all():
        LOG.info("%s: tells the states of %d of %d cells", source, int(known.sum()), len(known))
    odds = np.zeros_like(told)
    usual = np.clip(told[known].mean(axis=0), _LEAST, 1 - _LEAST)
    sure = np.clip(told[known], _LEAST, 1 - _LEAST)
    odds[known] = np.clip(np.log(sure / (1 - sure)) - np.log(usual / (1 - usual)), -_MOST, _MOST)
    return Evidence(times, odds[:, MITOTIC], odds[:, NEW_DAUGHTER], odds[:, DEATH])
