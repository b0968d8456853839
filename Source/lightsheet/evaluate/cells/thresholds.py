"""Scores of objects over thresholds of the intersection over union, by image: table, plot, worst images.

Thresholds are those of Caicedo et al. (Cytometry A 2019) and of the Data Science Bowl 2018. Objects are
matched one to one. Of a set of images two means are told: over the images, and over all objects as if they
were in one image (as StarDist's tables have it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.files import written_beside
from lightsheet.evaluate.cells.instances import (
    InstanceScores,
    instance_scores,
    overlaps_of,
    split_and_merged,
)
from lightsheet.volumes.labels import Labels

CAICEDO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_DPI = 110


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image.

    Attributes
    ----------
    name : of the image
    by_threshold : for each of `CAICEDO`
    jaccard : mean over the found objects of the largest intersection over union with a true one
    true, found : number of objects
    split, merged : true objects in pieces, found ones that join several
    """

    name: str
    by_threshold: tuple[InstanceScores, ...]
    jaccard: float
    true: int
    found: int
    split: int
    merged: int

    @property
    def mean_f1(self) -> float:
        """Mean of F1 over the thresholds."""
        return float(np.mean([score.f1 for score in self.by_threshold]))


def score_objects(name: str, true: Labels, found: Labels) -> ImageScores:
    """Compare label images (Z, Y, X).

    Raises
    ------
    VolumeError
        When their shapes differ.
    """
    overlaps = overlaps_of(true, found, name)
    iou = overlaps.iou
    split, merged = split_and_merged(overlaps)
    best = iou.max(axis=0) if iou.size else np.zeros(iou.shape[1])
    return ImageScores(
        name,
        tuple(instance_scores(overlaps, CAICEDO)),
        float(best.mean()) if len(best) else float(not len(iou)),
        len(overlaps.true),
        len(overlaps.found),
        split,
        merged,
    )


def lines_of_objects(scores: Sequence[ImageScores]) -> list[dict[str, Any]]:
    """Return a line for each image and threshold."""
    return [
        {
            "image": one.name,
            "threshold": score.threshold,
            "f1": score.f1,
            "precision": score.precision,
            "recall": score.recall,
            "ap": score.average_precision,
            "pq": score.panoptic,
            "iou_of_matches": score.quality,
            "jaccard": one.jaccard,
            "matched": score.matched,
            "missed": score.missed,
            "extra": score.extra,
            "split": one.split,
            "merged": one.merged,
            "true": one.true,
            "found": one.found,
        }
        for one in scores
        for score in one.by_threshold
    ]


def summary_of_objects(scores: Sequence[ImageScores]) -> dict[str, float]:
    """Return the figures of a set: over all objects, and means of images (``_image``)."""
    together = [pooled([one.by_threshold[at] for one in scores]) for at in range(len(CAICEDO))]
    half = together[0]
    return {
        "images": len(scores),
        "true": sum(one.true for one in scores),
        "found": sum(one.found for one in scores),
        "f1_50": half.f1,
        "precision_50": half.precision,
        "recall_50": half.recall,
        "ap_50": half.average_precision,
        "pq_50": half.panoptic,
        "mean_f1": float(np.mean([score.f1 for score in together])),
        "mean_ap": float(np.mean([score.average_precision for score in together])),
        "f1_50_image": float(np.mean([one.by_threshold[0].f1 for one in scores])),
        "ap_50_image": float(np.mean([one.by_threshold[0].average_precision for one in scores])),
        "pq_50_image": float(np.mean([one.by_threshold[0].panoptic for one in scores])),
        "mean_f1_image": float(np.mean([one.mean_f1 for one in scores])),
        "jaccard_image": float(np.mean([one.jaccard for one in scores])),
        "missed_50": half.missed,
        "extra_50": half.extra,
        "split": sum(one.split for one in scores),
        "merged": sum(one.merged for one in scores),
    }


def pooled(scores: Sequence[InstanceScores]) -> InstanceScores:
    """Return the scores of several images at one threshold as if their objects were in one."""
    matched = sum(score.matched for score in scores)
    quality = sum(score.quality * score.matched for score in scores) / max(matched, 1)
    missed, extra = (sum(getattr(score, name) for score in scores) for name in ("missed", "extra"))
    return InstanceScores(scores[0].threshold, matched, missed, extra, quality)


def text_of_objects(summary: dict[str, float]) -> str:
    """Return the figures as text."""
    width = max(map(len, summary))
    return "\n".join(
        f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}"
        for name, value in summary.items()
    )


def plot_objects(path: Path, scores: Sequence[ImageScores]) -> None:
    """Write a plot: F1 over the thresholds, of each image and of all objects, and by how many there are."""
    import matplotlib  # heavy

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for one in scores:
        left.plot(CAICEDO, [score.f1 for score in one.by_threshold], color="0.8", linewidth=0.8)
    together = [pooled([one.by_threshold[at] for one in scores]).f1 for at in range(len(CAICEDO))]
    left.plot(CAICEDO, together, color="tab:blue", linewidth=2, label="all objects")
    left.set(xlabel="least intersection over union", ylabel="F1", ylim=(0, 1.02))
    left.legend()
    right.scatter([max(1, one.true) for one in scores], [one.mean_f1 for one in scores], s=12)
    right.set(xlabel="objects in the image", ylabel="mean F1 (0.50 to 0.95)", xscale="log", ylim=(0, 1.02))
    with written_beside(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)
    pyplot.close(figure)


def write_sheet(path: Path, pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    """Write a sheet of the worst images: for each a caption and a picture (Y, X, 3)."""
    import matplotlib  # heavy

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(pictures), 1, figsize=(9, 3.2 * len(pictures)), layout="constrained", squeeze=False
    )
    for axis, (caption, picture) in zip(axes[:, 0], pictures, strict=True):
        axis.imshow(picture)
        axis.set_title(caption, fontsize=9, loc="left")
        axis.set_axis_off()
    with written_beside(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)
    pyplot.close(figure)
