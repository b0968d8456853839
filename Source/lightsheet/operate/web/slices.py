"""Planes and projections of a job's layers as pictures."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from lightsheet.core.errors import NotFoundError
from lightsheet.operate.web.jobs import PageError
from lightsheet.volumes.labels import colour_numbers, colours

AXES = ("z", "y", "x")
_FILL = 0.3
_CENTRE = 0.5


@dataclass(frozen=True)
class Wanted:
    """One picture.

    Attributes
    ----------
    layer : what is shown
    axis : across which the plane lies
    index : of the plane
    time : frame
    low, high : intensities that are black and white
    over : labels drawn over it; empty for none
    minus : layer that is taken off, its difference shown around grey; empty for none
    project : the highest of all planes
    turned : rows become columns
    """

    layer: str
    axis: str = "z"
    index: int = 0
    time: int = 0
    low: float | None = None
    high: float | None = None
    over: str = ""
    minus: str = ""
    project: bool = False
    turned: bool = False


def layers_of(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of a job's layers; none before it is done."""
    try:
        content = json.loads((folder / "layers" / "layers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(content["layers"])


def picture(folder: Path, wanted: Wanted) -> bytes:
    """Draw a picture as PNG.

    Raises
    ------
    NotFoundError
        When there is no such layer.
    PageError
        When there is no such plane.
    """
    from PIL import Image  # heavy

    facts = {one["name"]: one for one in layers_of(folder)}
    plane = _plane(folder, facts, wanted.layer, wanted)
    if facts[wanted.layer]["labels"]:
        drawn = colours().T[colour_numbers(plane)]
    else:
        drawn = _grey(folder, facts, plane, wanted)
    if wanted.over:
        labels = _plane(folder, facts, wanted.over, wanted)
        if labels.shape != plane.shape:
            raise PageError("expected labels of the shape of the image, got others")
        tint = colours().T[colour_numbers(labels)]
        rim = find_boundaries(labels, mode="inner")[..., None]
        inside = (labels > 0)[..., None]
        drawn = np.where(rim, tint, np.where(inside, (1 - _FILL) * drawn + _FILL * tint, drawn))
    if wanted.turned:
        drawn = drawn.transpose(1, 0, 2)
    stream = io.BytesIO()
    Image.fromarray(drawn.astype(np.uint8)).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _grey(folder: Path, facts: dict[str, Any], plane: NDArray[Any], wanted: Wanted) -> NDArray[Any]:
    low = facts[wanted.layer]["low"] if wanted.low is None else wanted.low
    high = facts[wanted.layer]["high"] if wanted.high is None else wanted.high
    scale = max(high - low, 1e-9)
    share = (plane.astype(np.float32) - low) / scale
    if wanted.minus:
        other = facts.get(wanted.minus)
        if other is None:
            raise NotFoundError("expected a layer of this job to take off, got another name")
        there = _plane(folder, facts, wanted.minus, wanted).astype(np.float32)
        if there.shape != plane.shape:
            raise PageError("expected layers of one shape for a difference, got others")
        share = _CENTRE + (share - (there - other["low"]) / max(other["high"] - other["low"], 1e-9)) / 2
    return np.repeat((np.clip(share, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _plane(folder: Path, facts: dict[str, Any], name: str, wanted: Wanted) -> NDArray[Any]:
    """Read a plane, or the highest of all, of a layer at a time."""
    if name not in facts:
        raise NotFoundError("expected a layer of this job, got another name")
    stack = np.load(folder / "layers" / f"{name}.npy", mmap_mode="r")
    axis = AXES.index(wanted.axis)
    if not (0 <= wanted.time < stack.shape[0] and 0 <= wanted.index < stack.shape[1 + axis]):
        raise PageError(f"expected a plane of the {stack.shape[1 + axis]} there are, got {wanted.index}")
    volume = stack[wanted.time]
    if wanted.project:
        return np.asarray(volume.max(axis=axis))
    return np.asarray(volume.take(wanted.index, axis=axis))
