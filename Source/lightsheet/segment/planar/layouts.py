"""Images of planes with their labels, in the layouts in which sets of nuclei are published.

===============================  ====================================================================
layout                           how it is known
===============================  ====================================================================
folder of ``images`` + ``labels``  (or ``masks``, ``norm_images``): files of the same name
list                             CSV with lines ``image;labels``
names of a split                 text file with a name a line, in the folder of the set or one below it, such
                                 as BBBC039's ``metadata/training.txt``
Data Science Bowl 2018           folders ``ID/images/ID.png`` with ``ID/masks/*.png``, one a nucleus
===============================  ====================================================================

Labels are numbers in grey images. In masks of colours (BBBC039) nuclei that touch are of unlike colours and
others may share one, and in masks of two values they are apart: there an object is what hangs together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.errors import NotFoundError, SettingsError, VolumeError
from lightsheet.core.names import stem_of
from lightsheet.volumes.labels import Labels, as_labels, label_type, read_labels
from lightsheet.volumes.pictures import PICTURES, PLANAR_SUFFIXES, is_colour_tiff, read_colours

IMAGES, LABELS = ("images", "norm_images", "image"), ("labels", "masks", "label", "mask")


@dataclass(frozen=True)
class Source:
    """An image with its labels.

    Attributes
    ----------
    image : file
    labels : file of all objects, or files of one each
    """

    image: Path
    labels: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name of the image, for messages."""
        return self.image.name


def sources(where: Path, root: Path | None = None) -> list[Source]:
    """Return the images of a folder, a list or the names of a split.

    Parameters
    ----------
    where : folder, CSV or text file
    root : folder to which the paths in lists are relative; default: that of the list

    Raises
    ------
    NotFoundError
        When there are none.
    SettingsError
        When a line of a list is not as it should be.
    """
    if where.is_dir():
        found = list(_of_folder(where))
        if not found:
            raise NotFoundError(
                f"{where}: expected images/ with labels/ or masks/ beside it, or ID/images with ID/masks, "
                "got neither"
            )
        return found
    if not where.is_file():
        raise NotFoundError(f"{where}: expected a folder or a list of images with labels, got nothing")
    lines = [line.strip() for line in where.read_text(encoding="utf-8-sig").splitlines()]
    listed = [(number, line) for number, line in enumerate(lines, 1) if line]
    if any(";" in line for _, line in listed):
        return list(_of_list(where, listed, root or where.parent))
    return _of_names(where, [line for _, line in listed], root)


def _of_folder(folder: Path) -> Iterator[Source]:
    images, labels = _one_of(folder, IMAGES), _one_of(folder, LABELS)
    if images is not None and labels is not None:
        by_stem = {stem_of(path): path for path in _files(labels)}
        for image in _files(images):
            if stem_of(image) in by_stem:
                yield Source(image, (by_stem[stem_of(image)],))
        return
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        images, labels = one / "images", one / "masks"
        if images.is_dir() and labels.is_dir():
            for image in _files(images):
                yield Source(image, tuple(_files(labels)))


def _of_list(where: Path, lines: Sequence[tuple[int, str]], root: Path) -> Iterator[Source]:
    for number, line in lines:
        words = [word.strip() for word in line.split(";")]
        if len(words) != 2:
            raise SettingsError(f"{where}:{number}: expected 'image;labels', got {len(words)} fields")
        yield Source(root / words[0], (root / words[1],))


def _of_names(where: Path, names: Sequence[str], root: Path | None) -> list[Source]:
    """Return those images of a set that a split names."""
    wanted = {stem_of(Path(name)) for name in names}
    for folder in (root,) if root is not None else (where.parent, where.parent.parent):
        found = {stem_of(one.image): one for one in _of_folder(folder)}
        if not found:
            continue
        missing = sorted(wanted - set(found))
        if missing:
            raise NotFoundError(f"{where}: expected {missing[0]} with its labels in {folder}, got none")
        return [found[name] for name in sorted(wanted)]
    raise NotFoundError(f"{where}: expected images/ and labels/ of the set beside it, got none")


def _one_of(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _files(folder: Path) -> list[Path]:
    some = (path for path in folder.iterdir() if path.suffix.lower() in PLANAR_SUFFIXES)
    return sorted(path for path in some if not path.name.startswith("."))


def read_objects(source: Source) -> Labels:
    """Read the labels (1, Y, X) of an image, numbered densely from 1.

    Raises
    ------
    NotFoundError, VolumeError
        When they can't be read.
    """
    if len(source.labels) == 1:
        return _dense(_of_file(source.labels[0]))
    made: Labels | None = None
    for number, path in enumerate(source.labels, 1):
        mask = _of_file(path) > 0
        if made is None:
            made = np.zeros(mask.shape, label_type(len(source.labels)))
        if mask.shape != made.shape:
            raise VolumeError(f"{path}: expected {made.shape} pixels as the others have, got {mask.shape}")
        made[mask & (made == 0)] = number
    if made is None:
        raise NotFoundError(f"{source.image}: expected masks of its objects, got none")
    return _dense(made)


def _of_file(path: Path) -> Labels:
    if path.suffix.lower() in PICTURES or is_colour_tiff(path):
        return _of_pixels(read_colours(path), str(path))
    labels = read_labels(path)[0]
    return _apart(labels) if len(np.unique(labels)) <= 2 else labels


def _of_pixels(pixels: NDArray[Any], source: str) -> Labels:
    if pixels.ndim == 2:
        labels = as_labels(pixels[None], source)
        return _apart(labels) if len(np.unique(labels)) <= 2 else labels
    colours = pixels[..., :3].astype(np.uint32)
    codes = colours[..., 0] + (colours[..., 1:].sum(axis=-1) << 16)
    return _apart(codes[None])


def _apart(values: NDArray[np.integer]) -> Labels:
    """Return the connected parts of each value but 0; those that touch by a corner hang together."""
    labels = np.zeros(values.shape, np.uint32)
    count = 0
    for value in np.unique(values[values > 0]):
        parts, found = ndimage.label(values[0] == value, np.ones((3, 3)))
        labels[0] += np.where(parts > 0, parts + count, 0).astype(np.uint32)
        count += found
    return labels


def _dense(labels: Labels) -> Labels:
    numbers, dense = np.unique(labels, return_inverse=True)
    first = 0 if numbers[0] == 0 else 1
    return np.asarray((dense.reshape(labels.shape) + first).astype(np.uint32))
