"""Whether a folder keeps the rules of the Cell Tracking Challenge; a line for each breach."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from lightsheet.core.errors import LightsheetError, NotFoundError
from lightsheet.volumes.labels import HIGHEST_16_BIT, Labels, read_labels
from lightsheet.volumes.reading import read_info
from lightsheet.volumes.tiff.reader import is_single_plane, read_plane
from lightsheet.volumes.tracks.ctc import (
    IMAGES,
    MASKS,
    TABLES,
    TRUE_SEGMENTS,
    TRUE_TRACKS,
    frames_in,
    read_tracks,
    slices_in,
    track_faults,
)
from lightsheet.volumes.tracks.lineage import Track

_WHERE = {"RES": (".", MASKS), "GT": ("TRA", TRUE_TRACKS), "ST": ("TRA", TRUE_TRACKS)}


def breaches(folder: Path) -> Iterator[str]:
    """Tell what breaks the rules in a folder: ``01_RES``, ``01_GT``, ``01_ST``, or one that holds such.

    Raises
    ------
    NotFoundError
        When there is no such folder, or nothing of the challenge in it.
    """
    sequences = [folder] if _kind_of(folder) else sorted(p for p in _below(folder) if _kind_of(p))
    if not sequences:
        raise NotFoundError(
            f"{folder}: expected 01_RES, 01_GT or 01_ST, or a folder that holds one, got none"
        )
    for sequence in sequences:
        yield from _breaches_of(sequence)


def _below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'}")
    return [path for path in folder.iterdir() if path.is_dir()]


def _kind_of(folder: Path) -> str | None:
    """RES, GT or ST by the name, or by what is in it; None for another folder."""
    ending = folder.name.rpartition("_")[2]
    if ending in _WHERE and folder.is_dir():
        return ending
    if (folder / TABLES[MASKS]).is_file():
        return "RES"
    return "GT" if (folder / "TRA").is_dir() or (folder / "SEG").is_dir() else None


def _breaches_of(folder: Path) -> Iterator[str]:
    """Tell the breaches of one sequence."""
    inner, prefix = _WHERE[_kind_of(folder) or "GT"]
    images = _shapes_of_images(folder)
    place = folder / inner
    if inner == "." or place.is_dir():
        yield from _tracked(place, prefix, images)
    if inner != ".":
        yield from _segmented(folder / "SEG", images)
        if not place.is_dir() and not (folder / "SEG").is_dir():
            yield f"{folder}: expected TRA or SEG, got neither"


def _shapes_of_images(folder: Path) -> dict[int, tuple[int, ...]]:
    """Shapes (Z, Y, X) of the images that belong to a folder, where they are there."""
    images = folder.with_name(folder.name.rpartition("_")[0] or "-")
    if not images.is_dir():
        return {}
    shapes = {}
    for number, path in frames_in(images, IMAGES).paths.items():
        shapes[number] = read_plane(path).shape if is_single_plane(path) else read_info(path).shape_zyx
    return shapes


def _tracked(folder: Path, prefix: str, images: dict[int, tuple[int, ...]]) -> Iterator[str]:
    """Tell the breaches of masks with their table."""
    try:
        frames = frames_in(folder, prefix)
        tracks = read_tracks(folder / TABLES[prefix])
    except LightsheetError as error:
        yield str(error)
        return
    for number in frames.missing:
        yield f"{folder}: expected a mask of frame {number}, got none"
    if images and set(frames.paths) != set(images):
        yield f"{folder}: expected masks of {len(images)} frames as there are images, got {len(frames.paths)}"
    table = folder / TABLES[prefix]
    yield from (f"{table}: {fault}" for fault in track_faults(tracks, max(frames.paths) + 1))
    first: tuple[int, ...] | None = None
    for number, path in frames.paths.items():
        labels, faults = _mask(path)
        yield from faults
        if labels is None:
            continue
        first = images.get(number) or first or labels.shape
        if labels.shape != first:
            yield f"{path}: expected {_text(first)} voxels, got {_text(labels.shape)}"
        yield from _labels_against(tracks, labels, number, path, table)


def _mask(path: Path, *, whole: bool = True) -> tuple[Labels | None, list[str]]:
    """Read a mask; what is wrong with it. In a single plane of a volume a cell may have several pieces."""
    try:
        labels, _ = read_labels(path)
    except LightsheetError as error:
        return None, [str(error)]
    faults = []
    if labels.max(initial=0) > HIGHEST_16_BIT:
        faults.append(f"{path}: expected labels of 16 bits, up to {HIGHEST_16_BIT}, got {labels.max()}")
    faults += [
        f"{path}: expected one piece of label {label}, got {count}"
        for label, count in (pieces_of(labels) if whole else {}).items()
        if count > 1
    ]
    return labels, faults


def pieces_of(labels: Labels) -> dict[int, int]:
    """Count the pieces, voxels that touch by a face, edge or corner, of each label."""
    found = {}
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            found[label] = int(ndimage.label(labels[box] == label, np.ones((3, 3, 3)))[1])
    return found


def _labels_against(
    tracks: list[Track], labels: Labels, number: int, path: Path, table: Path
) -> Iterator[str]:
    there = set(np.unique(labels).tolist()) - {0}
    wanted = {one.label for one in tracks if one.begin <= number <= one.end}
    for label in sorted(there - wanted):
        yield f"{path}: expected label {label} in {table.name} for frame {number}, got none"
    for label in sorted(wanted - there):
        yield f"{path}: expected label {label}, which {table.name} has in frame {number}, got none"


def _segmented(folder: Path, images: dict[int, tuple[int, ...]]) -> Iterator[str]:
    """Tell the breaches of true segmentations, of whole frames or of planes."""
    if not folder.is_dir():
        return
    planes = slices_in(folder)
    for (number, z), path in planes.items():
        _, faults = _mask(path, whole=False)
        yield from faults
        if images and (number not in images or z >= images[number][0]):
            yield f"{path}: expected a plane of the images, got frame {number}, plane {z}"
    try:
        frames = frames_in(folder, TRUE_SEGMENTS).paths
    except NotFoundError as error:
        if not planes:
            yield str(error)
        return
    except LightsheetError as error:
        yield str(error)
        return
    for number, path in frames.items():
        labels, faults = _mask(path)
        yield from faults
        if labels is not None and images and images.get(number) != labels.shape:
            yield f"{path}: expected {_text(images.get(number, ()))} voxels, got {_text(labels.shape)}"


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no"
