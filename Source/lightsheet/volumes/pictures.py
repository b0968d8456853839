"""Planes from pictures: PNG, JPEG and BMP, TIFF of one plane or of colours, as volumes of Z = 1.

A picture of colours (RGB) is one image; it becomes grey. Channels of a microscope are several, of which one
is chosen (--channel_index).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.core.progress import LOG
from lightsheet.volumes.foreign import check_regular, check_sizes, foreign
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import SUFFIXES, TIFF_SUFFIXES, open_volume
from lightsheet.volumes.tiff.walk import walk

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
PLANAR_SUFFIXES = (*PICTURES, *SUFFIXES)
_FORMATS = ("PNG", "JPEG", "BMP")
# A grey picture of colours has channels that differ by less, of their range.
_GREY = 0.01
# The middle of a picture's intensities above this share of its range: its background is bright.
_BRIGHT = 0.6


def open_picture(path: Path, overrides: Overrides | None = None) -> LazyVolume:
    """Open a plane as a volume (1, Y, X), or a volume as it is; a context manager.

    Raises
    ------
    NotFoundError, VolumeError, MetadataError
        As `volumes.reading.open_volume`.
    """
    given = replace(overrides or Overrides(), planes=True)
    if path.suffix.lower() in PICTURES or (is_colour_tiff(path) and not path.is_dir()):
        check_regular(path)
        return _in_memory(grey(read_colours(path), str(path)), path, given)
    return open_volume(path, given)


def is_colour_tiff(path: Path) -> bool:
    """Whether a TIFF is one plane of colours."""
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file():
        return False
    pages = walk(path).pages
    return len(pages) == 1 and pages[0].samples > 1 and pages[0].depth == 1


def read_colours(path: Path) -> NDArray[Any]:
    """Read a picture as (Y, X), or (Y, X, colours).

    Raises
    ------
    VolumeError
        When it can't be read, or is larger than what is stored of it can be.
    """
    size = check_regular(path).st_size
    if path.suffix.lower() in TIFF_SUFFIXES:
        page = walk(path).pages[0]
        check_sizes(str(path), (page.samples, page.length, page.width), np.dtype(np.uint16), size)
        with foreign(str(path), "a TIFF that can be read"):
            pixels = tifffile.imread(path)
        return np.moveaxis(pixels, 0, -1) if pixels.shape[0] == page.samples else pixels
    from PIL import Image  # heavy

    with foreign(str(path), "a picture that can be read"):
        Image.MAX_IMAGE_PIXELS = None  # `check_sizes` judges, before anything is decoded
        with Image.open(path, formats=_FORMATS) as opened:
            width, height = opened.size
            check_sizes(str(path), (len(opened.getbands()), height, width), np.dtype(np.uint8), size)
            picture: Image.Image = opened
            if picture.mode in ("P", "PA"):
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
            elif picture.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
                picture = picture.convert("L" if picture.mode == "1" else "RGB")
            return np.asarray(picture)


def grey(pixels: NDArray[Any], source: str) -> NDArray[Any]:
    """Turn a picture (Y, X) or (Y, X, colours) into one plane (1, Y, X); transparency is left out.

    The mean of the colours is taken, so that a nucleus in blue alone counts as one in grey.
    """
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (2, 3, 4):
        raise VolumeError(f"{source}: expected a picture of grey or colours, got {pixels.shape}")
    colours = pixels[..., : pixels.shape[-1] - (pixels.shape[-1] in (2, 4))]
    wide = colours.astype(np.float32)
    mean = wide.mean(axis=-1)
    spread = float(np.ptp(wide)) or 1.0
    if colours.shape[-1] == 1 or float(np.abs(wide - mean[..., None]).max()) <= _GREY * spread:
        return np.ascontiguousarray(colours[..., 0])[None]
    if float(np.median(mean)) > float(wide.min()) + _BRIGHT * spread:
        LOG.warning(
            "%s: a picture of colours on a bright background, such as a photograph or stained tissue; models "
            "of bright nuclei on a dark one are not made for it",
            source,
        )
    return np.asarray(mean[None])


def _in_memory(data: NDArray[Any], path: Path, given: Overrides) -> LazyVolume:
    _, height, width = data.shape
    info = VolumeInfo(str(path), (1, height, width), data.dtype.name)
    return LazyVolume(given.apply(info), lambda first, last: data[first:last])
