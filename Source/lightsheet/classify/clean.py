"""Which crops are not worth learning from: empty ones, cut ones, copies, and such that look mislabelled."""

from dataclasses import dataclass

import numpy as np

from lightsheet.classify.crops import CUT, FRAMES, MASK, Crops
from lightsheet.classify.predict import StateTeller
from lightsheet.classify.rules import STATES, UNKNOWN

_LEAST_RANGE, _LEAST_MASK = 0.02, 8
_FAULTS = ("empty image", "empty mask", "cut by the border", "copy", "two states", "looks like another state")


@dataclass(frozen=True)
class Faults:
    """What is wrong with each crop.

    Attributes
    ----------
    texts : for each crop, empty where nothing is (N,)
    """

    texts: list[str]

    @property
    def fine(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Whether nothing is wrong with each (N,)."""
        return np.array([not text for text in self.texts], bool)

    def counts(self) -> dict[str, int]:
        """How many crops have each fault."""
        return {name: sum(name in text for text in self.texts) for name in _FAULTS}


def find_faults(crops: Crops, teller: StateTeller | None = None, certainty: float = 0.98) -> Faults:
    """Look for faults.

    Parameters
    ----------
    teller : a model that did not learn from these crops; None: labels are not judged
    certainty : with which it has to tell another state
    """
    texts: list[list[str]] = [[] for _ in range(len(crops))]
    first: dict[bytes, int] = {}
    states: dict[tuple[str, int, int], int] = {}
    for row in range(len(crops)):
        crop = crops.data[row]
        now = crop[1].astype(np.float32)
        if float(np.ptp(now)) < _LEAST_RANGE:
            texts[row].append("empty image")
        if float(crop[MASK].sum(dtype=np.float32)) < _LEAST_MASK:
            texts[row].append("empty mask")
        if crops.flags[row] & CUT:
            texts[row].append("cut by the border")
        copy: int = first.setdefault(crop[:FRAMES].tobytes(), row)
        if copy != row:
            texts[row].append(f"copy of {crops.names[copy]}")
        key = str(crops.embryos[row]), int(crops.frames[row]), int(crops.labels[row])
        if states.setdefault(key, int(crops.states[row])) != crops.states[row]:
            texts[row].append("two states")
    if teller is not None and len(crops):
        told = teller.tell([crops])
        sure = told.probabilities.max(axis=1) >= certainty
        for other in np.flatnonzero(sure & (told.states != crops.states) & (crops.states != UNKNOWN)):
            texts[other].append(f"looks like another state, {STATES[told.states[other]]}")
    return Faults(["; ".join(some) for some in texts])
