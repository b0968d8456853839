"""From previews to small JPEG strips: view | prediction | fused | error, side by side."""

import base64
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.evaluate.preview import Preview, reduced

QUALITY = 80
# Faint structure next to bright nuclei stays visible.
GAMMA = 0.7
ERROR_RANGE = 0.5
_GAP = 4
_LEAST_ROWS, _MOST_ROWS = 16, 420

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Strip:
    """One JPEG with four panels.

    Attributes
    ----------
    title : what is shown
    data : the JPEG as a data address
    size : width and height in pixels
    """

    title: str
    data: str
    size: tuple[int, int]


@dataclass(frozen=True)
class ImagePictures:
    """All pictures of one image.

    Attributes
    ----------
    slices : planes along Z, from top to bottom
    sections : through the middle, across Y and across X
    projections : maximum projections along Z, Y and X
    """

    slices: tuple[Strip, ...]
    sections: tuple[Strip, ...]
    projections: tuple[Strip, ...]


def pictures_of(previews: dict[str, Preview], spacing_um: SpacingUm | None) -> ImagePictures:
    """Make the strips from the previews of view, prediction and fused."""
    view, prediction, fused = (previews[name] for name in ("view", "prediction", "fused"))
    three = (view, prediction, fused)
    kept = view.planes.kept
    slices = [_strip(_plane_title(z, spacing_um), [p.slices[i] for p in three]) for i, z in enumerate(kept)]
    factor = view.planes.factor
    spacing = spacing_um or (1.0, 1.0, 1.0)
    in_y, in_x = view.shape_zyx[1] // 2, view.shape_zyx[2] // 2
    sections = [
        _side_strip(
            f"section XZ at Y = {in_y}", [p.section_xz for p in three], factor, spacing[0] / spacing[2]
        ),
        _side_strip(
            f"section YZ at X = {in_x}", [p.section_yz for p in three], factor, spacing[0] / spacing[1]
        ),
    ]
    down = [reduced(p.projections.xy, (factor, factor)) for p in three]
    # Maxima are brighter than planes: the brightest half per cent of the fused projection may saturate.
    dim = np.float32(1 / max(1.0, float(np.percentile(down[2], 99.5))))
    projections = [
        _strip("maximum along Z (XY)", [dim * picture for picture in down]),
        _side_strip(
            "maximum along Y (XZ)", [dim * p.projections.xz for p in three], factor, spacing[0] / spacing[2]
        ),
        _side_strip(
            "maximum along X (YZ)", [dim * p.projections.yz for p in three], factor, spacing[0] / spacing[1]
        ),
    ]
    return ImagePictures(tuple(slices), tuple(sections), tuple(projections))


def panels(three: list[Picture]) -> NDArray[np.uint8]:
    """RGB picture of view | prediction | fused | error from three normalised pictures of one size."""
    grey = [np.repeat(_grey(picture)[..., None], 3, axis=2) for picture in three]
    every = [*grey, _signed(three[1] - three[2])]
    gap = np.full((every[0].shape[0], _GAP, 3), 127, np.uint8)
    parts = [part for panel in every for part in (panel, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _plane_title(z: int, spacing_um: SpacingUm | None) -> str:
    return f"plane Z = {z}" + (f" ({z * spacing_um[0]:.1f} µm)" if spacing_um else "")


def _side_strip(title: str, three: list[Picture], factor: int, step: float) -> Strip:
    """Bring pictures (Z, across) to square pixels: ``step`` is the Z step in voxels across."""
    rows = int(np.clip(round(len(three[0]) * step / factor), _LEAST_ROWS, _MOST_ROWS))
    return _strip(title, [_resampled(reduced(picture, (1, factor)), rows) for picture in three])


def _resampled(picture: Picture, rows: int) -> Picture:
    """Bring a picture to another number of rows: block means if fewer, linear interpolation if more."""
    if rows < len(picture):
        picture = reduced(picture, (-(-len(picture) // rows), 1))
    at = (np.arange(rows) + 0.5) * len(picture) / rows - 0.5
    at = np.clip(at, 0, len(picture) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(picture) - 1)
    part = (at - low)[:, None]
    return np.asarray(picture[low] * (1 - part) + picture[high] * part, dtype=np.float32)


def _strip(title: str, three: list[Picture]) -> Strip:
    rgb = panels(three)
    data = imagecodecs.jpeg8_encode(rgb, level=QUALITY)
    address = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return Strip(title, address, (rgb.shape[1], rgb.shape[0]))


def _grey(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(255 * np.clip(picture, 0, 1) ** GAMMA, dtype=np.uint8)


def _signed(difference: Picture) -> NDArray[np.uint8]:
    """Too bright is orange, too dark is blue, right is black."""
    share = np.clip(difference / ERROR_RANGE, -1, 1)[..., None]
    colour = np.where(share > 0, np.array([255, 150, 40]), np.array([70, 150, 255]))
    return np.asarray(np.abs(share) ** GAMMA * colour, dtype=np.uint8)
