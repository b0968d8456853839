"""What fusing is worth for finding objects: masks of view, prediction and fused volume against the truth.

N_IOU is the challenge's: ``(IOU_pred - IOU_ref) / (IOU_best - IOU_ref)``, 0 is no better than the view, 1 as
good as can be. The challenge does not say which IOU; here it is that of instances: the mean over the true
objects of the intersection over union with the one found in its place, 0 for those missed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightsheet.evaluate.cells.columns import in_columns
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.volumes.labels import Labels

SEEN = ("view", "prediction", "fused")
_LEAST_ROOM = 1e-3


@dataclass(frozen=True)
class MaskScores:
    """Masks of one volume against true ones.

    Attributes
    ----------
    iou : mean over true objects of the intersection over union with their partners, 0 without one
    seg : SEG of the Cell Tracking Challenge: partners are those that hold more than half of the object
    ap50 : average precision at an IoU of 0.5
    count : objects found
    count_error : objects found too much or too little, of the true ones
    """

    iou: float
    seg: float
    ap50: float
    count: int
    count_error: float


def score_masks(true: Labels, found: Labels, source: str) -> MaskScores:
    """Compare masks (Z, Y, X) with true ones.

    Raises
    ------
    VolumeError
        When their shapes differ.
    """
    overlaps = overlaps_of(true, found, source)
    iou = overlaps.iou
    objects = len(overlaps.true)
    one, other = linear_sum_assignment(iou, maximize=True)
    over_half = overlaps.shared > 0.5 * overlaps.true[:, None]
    return MaskScores(
        iou=float(iou[one, other].sum() / max(objects, 1)),
        seg=float(np.where(over_half, iou, 0).sum() / max(objects, 1)),
        ap50=instance_scores(overlaps, (0.5,))[0].average_precision,
        count=len(overlaps.found),
        count_error=abs(len(overlaps.found) - objects) / max(objects, 1),
    )


def n_iou(predicted: float, reference: float, best: float) -> float | None:
    """N_IOU of the challenge; None where the best is not above the reference: there is nothing to gain.

    Parameters
    ----------
    predicted : IOU of the prediction's masks with the true ones of the fused volume
    reference : the challenge: of verified masks of the view with found ones of the fused volume; without
        verified masks of the view: of the view's found masks with the true ones
    best : the challenge: of verified masks of the view with the true ones of the fused volume; without: of
        the fused volume's found masks with the true ones
    """
    room = best - reference
    return (predicted - reference) / room if room > _LEAST_ROOM else None


@dataclass(frozen=True)
class Gain:
    """What the prediction of one image is worth.

    Attributes
    ----------
    name : of the image
    scores : of the masks found in view, prediction and fused volume
    n_iou : None where there is nothing to gain
    true : number of true objects
    truth : what they were taken from
    """

    name: str
    scores: Mapping[str, MaskScores]
    n_iou: float | None
    true: int
    truth: str


def gain_of(
    name: str,
    found: Mapping[str, Labels],
    true: Labels | None = None,
    view_true: Labels | None = None,
) -> Gain:
    """Score masks found in view, prediction and fused volume.

    Parameters
    ----------
    name : of the image
    found : masks (Z, Y, X) by what they were found in, see `SEEN`
    true : true masks of the specimen; None: those found in the fused volume stand for them
    view_true : verified masks of the view, for N_IOU as the challenge has it

    Raises
    ------
    VolumeError
        When shapes differ.
    """
    truth = found["fused"] if true is None else true
    scores = {seen: score_masks(truth, found[seen], f"{name}, {seen}") for seen in SEEN}
    reference, best = scores["view"].iou, scores["fused"].iou
    if view_true is not None:
        reference = score_masks(view_true, found["fused"], f"{name}, true masks of the view").iou
        best = score_masks(view_true, truth, f"{name}, true masks of the view").iou
    told = "masks found in the fused volume" if true is None else "true masks"
    objects = int(np.count_nonzero(np.unique(truth)))
    return Gain(name, scores, n_iou(scores["prediction"].iou, reference, best), objects, told)


def lines_of_gain(gains: Sequence[Gain]) -> list[dict[str, object]]:
    """Return a line for each image and what was segmented."""
    nothing = float("nan")
    return [
        {
            "image": one.name,
            "segmented": seen,
            "n_iou": (nothing if one.n_iou is None else one.n_iou) if seen == "prediction" else nothing,
            **vars(one.scores[seen]),
            "true_objects": one.true,
            "truth": one.truth,
        }
        for one in gains
        for seen in SEEN
    ]


def means_of_gain(gains: Sequence[Gain]) -> list[dict[str, float | str]]:
    """Return the means over the images: a line for each of view, prediction and fused volume."""
    rows: list[dict[str, float | str]] = []
    for seen in SEEN:
        scores = [one.scores[seen] for one in gains]
        told = [one.n_iou for one in gains if one.n_iou is not None]
        rows.append(
            {
                "segmented": seen,
                "n_iou": float(np.mean(told)) if told and seen == "prediction" else float("nan"),
                **{
                    name: float(np.mean([getattr(one, name) for one in scores]))
                    for name in ("iou", "seg", "ap50", "count_error")
                },
            }
        )
    return rows


def table_of_gain(gains: Sequence[Gain]) -> str:
    """Return the means over the images as text."""
    head = ("segmented", "N_IOU", "IOU", "SEG", "AP50", "count error")
    rows = [head]
    for mean in means_of_gain(gains):
        values = [mean[name] for name in ("n_iou", "iou", "seg", "ap50", "count_error")]
        told = ("-" if value != value else f"{value:.3f}" for value in values)  # NaN is unlike itself
        rows.append((str(mean["segmented"]), *told))  # type: ignore[arg-type]
    return in_columns(rows)
