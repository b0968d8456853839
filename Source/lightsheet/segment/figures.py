"""Pictures of found objects: coloured outlines over planes and projections of the image."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from lightsheet.core.axes import Floats
from lightsheet.core.files import written_beside
from lightsheet.core.intensity import Normalization, percentiles
from lightsheet.volumes.labels import Labels, colour_numbers, colours
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.resampled import nearest, resampled

_SIDE, _GAP = 420, 6
_GAMMA = 0.7
_FILL = 0.25


def draw_objects(path: Path, volume: LazyVolume, labels: Labels) -> None:
    """Write a PNG: planes through the middle along Z, Y and X and the projection along Z, plain and coloured.

    Parameters
    ----------
    path : PNG to write
    volume : counts (Z, Y, X)
    labels : objects (Z, Y, X), in memory or mapped from a file
    """
    from PIL import Image  # heavy

    depth, height, width = volume.shape_zyx
    spacing = volume.info.spacing_um or (1.0, *(volume.info.yx_um or (1.0, 1.0)))
    scale = Normalization(*percentiles(volume))
    y, x = height // 2, width // 2
    highest = np.full((height, width), -np.inf, np.float32)
    along_y, along_x = np.empty((depth, width), np.float32), np.empty((depth, height), np.float32)
    middle = np.empty((height, width), np.float32)
    done = 0
    for slab in volume.slabs():
        planes = slice(done, done + len(slab))
        highest = np.maximum(highest, scale.apply(slab.max(axis=0)))
        along_y[planes], along_x[planes] = scale.apply(slab[:, y]), scale.apply(slab[:, :, x])
        if planes.start <= depth // 2 < planes.stop:
            middle = scale.apply(slab[depth // 2 - planes.start])
        done = planes.stop
    seen = [
        (middle, labels[depth // 2], (spacing[1], spacing[2])),
        (highest, labels.max(axis=0), (spacing[1], spacing[2])),
        (along_y, labels[:, y], (spacing[0], spacing[2])),
        (along_x, labels[:, :, x], (spacing[0], spacing[1])),
    ]
    if depth == 1:
        seen = seen[:1]
    longest = max(height * spacing[1], width * spacing[2], depth * spacing[0])
    rows = [side_by_side(*one, _SIDE / longest) for one in seen]
    wide = max(row.shape[1] for row in rows)
    page = [np.pad(row, ((0, _GAP), (0, wide - row.shape[1]), (0, 0))) for row in rows]
    with written_beside(path) as partial:
        Image.fromarray(np.concatenate(page)).save(partial, format="PNG")


def side_by_side(
    image: Floats, labels: Labels, step_um: tuple[float, float], pixels_per_um: float
) -> NDArray[np.uint8]:
    """Return a plane in grey, and the same with its objects in colours, outlined.

    Parameters
    ----------
    image : normalised intensities (rows, columns)
    labels : objects (rows, columns)
    step_um : pixel size
    pixels_per_um : of the picture
    """
    size = [
        max(1, round(count * step * pixels_per_um)) for count, step in zip(image.shape, step_um, strict=True)
    ]
    grey = np.clip(resampled(image[None], (1, size[0], size[1]))[0], 0, 1) ** _GAMMA
    placed = nearest(labels[None], (1, size[0], size[1]))[0]
    table = colours().T.astype(np.float32) / 255
    tint = table[colour_numbers(placed)]
    plain = np.repeat(grey[..., None], 3, axis=2)
    inside, rim = (placed > 0)[..., None], find_boundaries(placed, mode="inner")[..., None]
    coloured = np.where(rim, tint, np.where(inside, (1 - _FILL) * plain + _FILL * tint, plain))
    gap = np.zeros((size[0], _GAP, 3), np.float32)
    return np.asarray((np.concatenate([plain, gap, coloured], axis=1) * 255).astype(np.uint8))


def outlined(plane: Floats, labels: Labels) -> NDArray[np.uint8]:
    """Return a plane (rows, columns) of normalised intensities with its objects outlined, pixel by pixel."""
    return side_by_side(plane, labels, (1.0, 1.0), 1.0)[:, plane.shape[1] + _GAP :]
