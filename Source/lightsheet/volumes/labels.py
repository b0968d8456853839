"""Label images, which voxel belongs to which object: read, numbered anew, written for programs and eyes."""

import colorsys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.core.files import written_beside
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.reading import TIFF_SUFFIXES, open_volume
from lightsheet.volumes.tiff.reader import is_single_plane, read_plane

Labels = NDArray[np.uint16 | np.uint32]
HIGHEST_16_BIT = 2**16 - 1
_HIGHEST = 2**32 - 1
# Up to this label new numbers are looked up in a table.
_DENSE = 1 << 22
# Steps round the circle of colours that bring no two neighbours near each other.
_GOLDEN = 0.618034


def label_type(highest: int) -> type[np.uint16] | type[np.uint32]:
    """Smallest type of label images that holds labels up to ``highest``."""
    return np.uint16 if highest <= HIGHEST_16_BIT else np.uint32


def read_labels(path: Path, overrides: Overrides | None = None) -> tuple[Labels, SpacingUm | None]:
    """Read a label image of any format; one plane counts as a volume of one.

    Returns
    -------
    labels (Z, Y, X), uint16 or uint32, and the voxel size (z, y, x) in micrometres where it is known.

    Raises
    ------
    NotFoundError, VolumeError
        When the file can't be read, or has numbers that are no labels: negative, broken, or beyond 32 bits.
    """
    given = overrides or Overrides()
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file() and is_single_plane(path):
        return as_labels(read_plane(path), str(path)), given.spacing_um
    with open_volume(path, given) as volume:
        return as_labels(volume.read(0, volume.shape_zyx[0]), str(path)), volume.info.spacing_um


def as_labels(data: NDArray[Any], source: str) -> Labels:
    """Return numbers as labels of the type that they need, the same array where it has it.

    Raises
    ------
    VolumeError
        When there are negative, broken, not finite numbers or such beyond 32 bits.
    """
    if data.dtype in (np.uint16, np.uint32):
        return data
    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
    if low < 0 or not high <= _HIGHEST:
        raise VolumeError(f"{source}: expected labels from 0 to {_HIGHEST}, got {low:g} to {high:g}")
    labels: Labels = np.asarray(data.astype(label_type(int(high))))
    if data.dtype.kind == "f" and not np.array_equal(labels, data):
        raise VolumeError(f"{source}: expected whole numbers as labels, got broken ones; is it an image?")
    return labels


def renumbered(labels: Labels, old: NDArray[np.integer], new: NDArray[np.integer]) -> Labels:
    """Give labels new numbers: voxels of ``old[i]`` become ``new[i]``; the type by need.

    Parameters
    ----------
    labels : (Z, Y, X); 0 stays 0
    old : all labels that are there, but 0
    new : number of each
    """
    order = np.argsort(old)
    known = np.concatenate(([0], old[order]))
    numbers = np.concatenate(([0], new[order])).astype(label_type(int(new.max(initial=0))))
    if known[-1] <= _DENSE:
        table = np.zeros(int(known[-1]) + 1, numbers.dtype)
        table[known] = numbers
        return np.asarray(table[labels])
    return np.asarray(numbers[np.searchsorted(known, labels)])


def write_labels(
    path: Path, labels: Labels, spacing_um: SpacingUm | None, said: dict[str, Any] | None = None
) -> None:
    """Write a label image as a compressed TIFF, whole or not at all.

    Up to 65535 labels it is uint16 with a colour map and a display range that ImageJ and Fiji use, so that it
    is not black in a viewer; above that uint32.

    Parameters
    ----------
    path : name that ends in .tif
    labels : (Z, Y, X)
    spacing_um : voxel size (z, y, x) in micrometres, if it is known
    said : lines for the metadata, plain values
    """
    highest = int(labels.max(initial=0))
    stored = labels.astype(label_type(highest), copy=False)
    flat = stored.shape[0] == 1
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    facts: dict[str, Any] = {"axes": "YX" if flat else "ZYX", **(said or {})}
    if spacing_um is not None:
        z, y, x = spacing_um
        options["resolution"] = 1 / x, 1 / y
        facts |= {"unit": "um"} if flat else {"spacing": z, "unit": "um"}
    if stored.dtype == np.uint16:  # ImageJ knows no 32-bit whole numbers
        options["imagej"] = True
        facts |= {"LUTs": [colours()], "Ranges": (0, max(1, highest)), "min": 0, "max": max(1, highest)}
    with written_beside(path) as partial:
        tifffile.imwrite(partial, stored[0] if flat else stored, metadata=facts, **options)


def colour_numbers(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Column of `colours` of each label: 0 for none, the others over and over."""
    wide = labels.astype(np.int64)
    return np.where(wide > 0, 1 + (wide - 1) % 255, 0)


@cache
def colours() -> NDArray[np.uint8]:
    """Colour map (3, 256) for labels: 0 black, the others bright and unlike their neighbours."""
    table = np.zeros((3, 256), np.uint8)
    for number in range(1, 256):
        hue, level = (number * _GOLDEN) % 1, 0.75 + 0.25 * ((number * 7) % 3) / 2
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * ((number * 5) % 4) / 3, level)
        table[:, number] = (np.array((red, green, blue)) * 255).round()
    return table
