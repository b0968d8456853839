"""Which label image is the truth of which, and pictures of the images that are found worst."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import NotFoundError
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.core.names import stem_of
from lightsheet.evaluate.cells.thresholds import ImageScores
from lightsheet.segment.figures import outlined
from lightsheet.segment.planar.layouts import Source, read_objects
from lightsheet.volumes.labels import Labels, read_labels
from lightsheet.volumes.pictures import PICTURES, PLANAR_SUFFIXES, open_picture
from lightsheet.volumes.reading import find_volumes

_ENDINGS = ("", "_labels", "_masks", "_label", "_mask")
_MOST_IN_SHEET = 8
_GAP = 6


def pairs_of_labels(truth: Path, found: Path) -> list[tuple[Path, Path]]:
    """Return pairs of the true and the found label image of the same name.

    Raises
    ------
    NotFoundError
        When there is none, or no truth for one that was found.
    """
    true = {stem_of(path): path for path in find_volumes(truth, PLANAR_SUFFIXES)}
    pairs = []
    for path in find_volumes(found):
        pairs.append((_beside(true, stem_of(path), truth), path))
    return pairs


def _beside(true: dict[str, Path], name: str, truth: Path) -> Path:
    for ending in _ENDINGS:
        if name + ending in true:
            return true[name + ending]
    raise NotFoundError(f"{truth}: expected a true label image {name}, got none")


def read_true(path: Path) -> Labels:
    """Read true labels (Z, Y, X), of colours too."""
    return read_objects(Source(path, (path,))) if path.suffix.lower() in PICTURES else read_labels(path)[0]


def worst_pictures(
    scores: Sequence[ImageScores], truth: Path, found: Path, images: Path
) -> list[tuple[str, NDArray[Any]]]:
    """Return captions and pictures of the images of the lowest mean F1: what was found, and what there is.

    Raises
    ------
    NotFoundError, VolumeError
        When an image can't be read.
    """
    seen = {stem_of(path): path for path in find_volumes(images, PLANAR_SUFFIXES)}
    pairs = {stem_of(path): (true, path) for true, path in pairs_of_labels(truth, found)}
    pictures = []
    for one in sorted(scores, key=lambda score: score.mean_f1)[:_MOST_IN_SHEET]:
        if one.name not in seen:
            raise NotFoundError(f"--view {images}: expected an image {one.name}, got none")
        with open_picture(seen[one.name]) as volume:
            at = volume.shape_zyx[0] // 2
            image = volume.read(at, at + 1)
        plane = Normalization(*percentiles(image)).apply(image)[0]
        true, path = pairs[one.name]
        sides = [outlined(plane, labels[at]) for labels in (read_labels(path)[0], read_true(true))]
        gap = np.full((sides[0].shape[0], _GAP, 3), 255, np.uint8)
        half = one.by_threshold[0]
        caption = (
            f"{one.name}: mean F1 {one.mean_f1:.3f}; {half.matched} of {one.true} found, {half.extra} extra, "
            f"{one.split} split, {one.merged} merged (left: found, right: true)"
        )
        pictures.append((caption, np.concatenate([sides[0], gap, sides[1]], axis=1)))
    return pictures
