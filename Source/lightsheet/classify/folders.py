"""Crops as folders by class, to be looked through and sorted: ``OUT/mitotic/EMBRYO_frame_003_nucleus_012/``.

In each: ``metadata.json``; ``t-1``, ``t`` and ``t+1`` with ``raw_cropped.tif``; in ``t`` also the mask,
``binary_label_cropped.tif``. The layout is that of system 003, whose folders, and others of images and mask
alone, are read too: they are scaled and cut as movies are. A crop's class is the folder it lies in, so that
moving it corrects it; those in ``unknown``, or in no class, have none.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.classify.crops import FRAMES, MASK, Crops, joined, read_crops, write_crops
from lightsheet.classify.extract import CropSettings, crops_of, usual_side_um
from lightsheet.classify.movies import MovieFiles, cells_in
from lightsheet.classify.rules import STATES, UNKNOWN
from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.core.files import read_json_object, written_beside
from lightsheet.core.progress import track
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.reading import read_volume, write_volume

TIMES = ("t-1", "t", "t+1")
NO_CLASS = "unknown"
RAW, BINARY, SHARES = "raw_cropped.tif", "binary_label_cropped.tif", "mask_cropped.tif"
_LABELS = (BINARY, "label_cropped.tif")
_ABOUT = "metadata.json"
_FORMAT = "lightsheet crop 1"
_FILES = (".h5", ".hdf5")
_NAME = re.compile(r"(?P<embryo>.+)_frame_(?P<frame>\d+)_nucleus_(?P<label>\d+)")


def is_crops(path: Path) -> bool:
    """Whether a path is crops: a file, a folder of one, or a folder of such folders, by class or not."""
    if path.is_file():
        return True
    return _is_crop(path) or any(_is_crop(one) for each in ("*", "*/*") for one in path.glob(each))


def save_crops(path: Path, crops: Crops) -> None:
    """Write crops as one HDF5 file, if the name ends so, else as folders by class; whole or not at all.

    Raises
    ------
    VolumeError
        When two crops would be one folder.
    """
    if path.suffix.lower() in _FILES:
        write_crops(path, crops)
        return
    twice = [name for name, count in Counter(crops.names).items() if count > 1]
    if twice:
        raise VolumeError(
            f"{path}: expected crops of unlike names, got several of {twice[0]}; name the movies (--embryo)"
        )
    classes = (*STATES, NO_CLASS)  # of the state -1 the last
    with written_beside(path) as partial:
        for row, name in track(list(enumerate(crops.names)), f"{path.name}: crops"):
            _write(partial / classes[crops.states[row]] / name, crops.some(np.array([row])))


def load_crops(path: Path, given: Overrides, voxels: int = CropSettings.voxels) -> Crops:
    """Read crops from a file or from folders.

    Parameters
    ----------
    given : voxel size of folders of images and mask, if they do not say
    voxels : along a side of the cubes that are cut out of these

    Raises
    ------
    NotFoundError
        When there are none.
    VolumeError, LineageError, MetadataError
        When a class is unknown, or the files of a crop can't be used.
    """
    if not path.is_dir():
        return read_crops(path)
    found = list(_crops_in(path))
    if not found:
        raise NotFoundError(
            f"{path}: expected crops, folders with {', '.join(TIMES)} in folders by class, got none"
        )
    return joined([_read(one, state, voxels, given) for one, state in track(found, f"{path.name}: crops")])


def _is_crop(path: Path) -> bool:
    return (path / TIMES[1]).is_dir()


def _crops_in(path: Path) -> Iterator[tuple[Path, int]]:
    """Folders of crops, with the state that each is in."""
    if _is_crop(path):
        yield path, _state_of(path.parent.name)
        return
    for one in sorted(path.iterdir()):
        if _is_crop(one):
            yield one, _state_of(path.name)
        elif one.is_dir() and not one.name.startswith("."):
            below = [each for each in sorted(one.iterdir()) if _is_crop(each)]
            if below and one.name not in (*STATES, NO_CLASS):
                raise VolumeError(
                    f"{one}: expected a class out of {', '.join((*STATES, NO_CLASS))}, got '{one.name}'"
                )
            yield from ((each, _state_of(one.name)) for each in below)


def _state_of(name: str) -> int:
    return STATES.index(name) if name in STATES else UNKNOWN


def _write(folder: Path, crop: Crops) -> None:
    """Write one crop."""
    side = float(crop.side_um[0])
    step = side / crop.voxels
    spacing: SpacingUm = (step, step, step)
    data = crop.data[0].astype(np.float32)
    images = {f"{time}/{RAW}": data[number] for number, time in enumerate(TIMES)}
    images[f"{TIMES[1]}/{SHARES}"] = data[MASK]
    images[f"{TIMES[1]}/{BINARY}"] = (data[MASK] >= 0.5).astype(np.uint8)
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_volume(folder / name, image, VolumeInfo(name, image.shape, str(image.dtype), spacing))
    about = {
        "format": _FORMAT,
        "embryo": str(crop.embryos[0]),
        "frame": int(crop.frames[0]),
        "label": int(crop.labels[0]),
        "family": int(crop.families[0]),
        "place_um": crop.places_um[0].tolist(),
        "flags": int(crop.flags[0]),
        "side_um": side,
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path, state: int, voxels: int, given: Overrides) -> Crops:
    """Read one crop: as it was written, or cut anew out of images and mask."""
    path = folder / _ABOUT
    about = read_json_object(path, str(path)) if path.is_file() else {}
    if about.get("format") == _FORMAT:
        return _as_written(folder, state, about)
    images = [folder / time / RAW for time in TIMES]
    mask = next((path for name in _LABELS if (path := folder / TIMES[1] / name).is_file()), None)
    if mask is None or not images[1].is_file():
        raise NotFoundError(f"{folder / TIMES[1]}: expected {RAW} and {_LABELS[0]} or {_LABELS[1]}, got none")
    there = {number: path for number, path in enumerate(images) if path.is_file()}
    files = MovieFiles(str(folder), there, {1: mask}, None)
    cells = cells_in(files, given)
    if len(cells) != 1:
        raise VolumeError(f"{mask}: expected the mask of one nucleus, got {len(cells)}")
    side = usual_side_um(cells)
    (crop,) = crops_of(files, cells, CropSettings(side, voxels), given, side)
    named = _NAME.match(folder.name)
    embryo, frame, label = (
        (named["embryo"], int(named["frame"]), int(named["label"])) if named else (folder.name, 0, 1)
    )
    return replace(
        crop,
        states=np.array([state]),
        embryos=np.array([embryo]),
        frames=np.array([frame]),
        labels=np.array([label]),
        families=np.zeros(1, np.int64),  # not known: of one embryo, all are on one side of a split
    )


def _as_written(folder: Path, state: int, about: dict[str, Any]) -> Crops:
    paths = [*(folder / time / RAW for time in TIMES), folder / TIMES[1] / SHARES]
    parts = [read_volume(path).data for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape != parts[0].shape or len(set(part.shape)) != 1:
            raise VolumeError(f"{path}: expected a cube of {parts[0].shape[0]} voxels, got {part.shape}")
    try:
        place = [float(one) for one in about["place_um"]]
        numbers = [int(about[name]) for name in ("frame", "label", "family", "flags")]
        side, embryo = float(about["side_um"]), str(about["embryo"])
    except (LookupError, TypeError, ValueError) as error:
        raise VolumeError(f"{folder / _ABOUT}: expected what extract wrote, got '{error}'") from error
    if len(place) != FRAMES or not math.isfinite(side) or not 0 <= numbers[3] < 16:
        raise VolumeError(f"{folder / _ABOUT}: expected what extract wrote, got other numbers")
    frame, label, family, flags = (np.array([one]) for one in numbers)
    return Crops(
        np.stack(parts).astype(np.float16)[None],
        np.array([state]),
        np.array([embryo]),
        frame,
        label,
        family,
        np.array([place]),
        flags,
        np.array([side]),
    )
