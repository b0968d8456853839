"""Scores of objects in masks: which were found, how well, which were split, merged or made up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.labels import Labels

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class Overlaps:
    """Objects of two masks of one volume, and how they overlap.

    Attributes
    ----------
    true, found : voxels of each object (N,), (M,)
    shared : voxels that two share (N, M)
    """

    true: NDArray[np.int64]
    found: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each two (N, M)."""
        union = self.true[:, None] + self.found[None] - self.shared
        return np.asarray(self.shared / np.maximum(union, 1), np.float64)


@dataclass(frozen=True)
class InstanceScores:
    """How well objects were found, at one least intersection over union.

    Attributes
    ----------
    threshold : least intersection over union of a match
    matched, missed, extra : number of objects
    quality : mean intersection over union of the matches; 0 without any
    """

    threshold: float
    matched: int
    missed: int
    extra: int
    quality: float

    @property
    def precision(self) -> float:
        """Share of the found ones that are there; 1 where none was found and none is there."""
        return _share(self.matched, self.matched + self.extra)

    @property
    def recall(self) -> float:
        """Share of the true ones that were found."""
        return _share(self.matched, self.matched + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return _share(2 * self.matched, 2 * self.matched + self.missed + self.extra)

    @property
    def average_precision(self) -> float:
        """AP as in the Data Science Bowl 2018 and StarDist: matched of all, missed and extra ones counted."""
        return _share(self.matched, self.matched + self.missed + self.extra)

    @property
    def panoptic(self) -> float:
        """Panoptic quality: F1 times the mean intersection over union of the matches."""
        return self.f1 * self.quality if self.matched else float(self.missed + self.extra == 0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def overlaps_of(true: Labels, found: Labels, source: str = "masks") -> Overlaps:
    """Count the voxels that the objects of two masks (Z, Y, X) share.

    Raises
    ------
    VolumeError
        When the masks are of different shapes.
    """
    if true.shape != found.shape:
        raise VolumeError(f"{source}: expected masks of one shape, got {true.shape} and {found.shape}")
    ones, one = np.unique(true, return_inverse=True)
    others, other = np.unique(found, return_inverse=True)
    pairs = np.bincount(
        one.ravel().astype(np.int64) * len(others) + other.ravel(), minlength=len(ones) * len(others)
    ).reshape(len(ones), len(others))
    rows, columns = np.flatnonzero(ones), np.flatnonzero(others)
    return Overlaps(pairs[rows].sum(axis=1), pairs[:, columns].sum(axis=0), pairs[rows][:, columns])


def instance_scores(overlaps: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> list[InstanceScores]:
    """Match objects one to one and count, for each threshold of the intersection over union.

    The matching is the one with the most matches at the threshold, and of those of the highest overlap.
    """
    iou = overlaps.iou
    scores = []
    for threshold in thresholds:
        fits = iou >= threshold
        one, other = linear_sum_assignment(fits + iou / (2 * max(iou.shape, default=1)), maximize=True)
        good = fits[one, other]
        matched = int(good.sum())
        quality = float(iou[one, other][good].mean()) if matched else 0.0
        scores.append(InstanceScores(threshold, matched, len(iou) - matched, iou.shape[1] - matched, quality))
    return scores


def split_and_merged(overlaps: Overlaps, share: float = 0.2) -> tuple[int, int]:
    """Count true objects that were found in pieces, and found ones that join several.

    Parameters
    ----------
    share : of an object that another must hold to count
    """
    of_true = overlaps.shared / np.maximum(overlaps.true[:, None], 1)
    of_found = overlaps.shared / np.maximum(overlaps.found[None], 1)
    pieces = ((of_found >= 0.5) & (of_true >= share)).sum(axis=1)
    joined = ((of_true >= 0.5) & (of_found >= share)).sum(axis=0)
    return int((pieces >= 2).sum()), int((joined >= 2).sum())
