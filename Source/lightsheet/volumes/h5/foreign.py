"""HDF5 of other programs: ilastik, pytorch-3dunet, BigDataViewer, or any dataset of an image, read lazily."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.core.progress import LOG
from lightsheet.volumes.foreign import check_json, foreign
from lightsheet.volumes.h5.checks import Chunks, dataset_of, datasets_of, open_file, plain
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.metadata import Facts, understand
from lightsheet.volumes.selecting import place_of
from lightsheet.volumes.tiff.reader import DTYPES

_MOST_LISTED = 8
# BigDataViewer's HDF5: time point, setup (channel, angle, ...), level.
_BDV = re.compile(r"t(\d{5,})/s(\d{2,})/0/cells")
# Fiji's plug-in and ilastik keep the voxel size here, (z, y, x).
_SIZE = "element_size_um"
_USUAL_AXES = {3: "zyx", 4: "czyx", 5: "tczyx"}


@dataclass(frozen=True)
class _Image:
    """An image in a file.

    Attributes
    ----------
    paths : datasets by (time point, channel); a single one where they are axes of it
    axes : letters of the dataset's axes
    times, channels : how many there are
    """

    paths: Mapping[tuple[int, int], str]
    axes: str
    times: int
    channels: int


def open_foreign_h5(path: Path, overrides: Overrides) -> LazyVolume:
    """Open the image of an HDF5 file that another program has written.

    The only 3D dataset of numbers is taken, or the one that ``overrides.select.dataset`` names.

    Raises
    ------
    VolumeError
        When there is none, or several, which are listed with the flag, or it is no volume.
    """
    source = str(path)
    file = open_file(path)
    try:
        with foreign(source, "an image in the HDF5 file"):
            image = _image_of(source, file, overrides.select.dataset)
            place = place_of(source, image.times, image.channels, overrides)
            name = image.paths.get((place.time, place.channel), image.paths.get((0, 0), ""))
            dataset = dataset_of(source, file, name)
            index, order = _index(image.axes, {"t": place.time, "c": place.channel})
            depth, height, width = (dataset.shape[image.axes.index(axis)] for axis in "zyx")
            if depth < 2:
                raise VolumeError(f"{source}: expected a volume of at least 2 planes, got {dataset.shape}")
            info = VolumeInfo(
                source,
                (depth, height, width),
                dataset.dtype.newbyteorder("=").name,
                metadata={"dataset": name},
                frames=image.times,
                channels=image.channels,
            )
            info = understand(info, Facts(_size_of(dataset)), overrides)
            chunks = Chunks(source, dataset)
        if info.dtype not in DTYPES:
            raise VolumeError(f"{source}: expected whole or real numbers, got values of type {dataset.dtype}")
    except BaseException:
        file.close()
        raise

    def read(z0: int, z1: int) -> NDArray[Any]:
        part = tuple(slice(z0, z1) if axis == "z" else place for axis, place in index)
        bounds = [
            (p, p + 1) if isinstance(p, int) else (p.start or 0, p.stop if p.stop is not None else n)
            for p, n in zip(part, dataset.shape, strict=True)
        ]
        chunks.check(dataset, cast("Any", tuple(bounds)))
        found = np.asarray(dataset[part]).transpose(order)
        return np.ascontiguousarray(found, dataset.dtype.newbyteorder("="))

    return LazyVolume(info, read, file.close)


def _image_of(source: str, file: h5py.File, wanted: str | None) -> _Image:
    """Return the image that is meant."""
    if wanted is not None:
        return _single(source, dataset_of(source, file, wanted), wanted.strip("/"))
    found: list[tuple[str, h5py.Dataset]] = []
    views: dict[tuple[int, int], str] = {}
    for name, dataset in datasets_of(source, file):
        match = _BDV.fullmatch(name)
        if match is not None:
            views[int(match[1]), int(match[2])] = name
        elif not _BDV.fullmatch(re.sub(r"/\d+/cells$", "/0/cells", name)) and _is_image(dataset):
            found.append((name, dataset))
    if views:
        return _bdv(views)
    if not found:
        raise VolumeError(f"{source}: expected a dataset of a 3D image, got none in the HDF5 file")
    if len(found) > 1:
        raise VolumeError(
            f"{source}: expected one image, got {len(found)} datasets; say which by --dataset: "
            f"{_listed(found)}"
        )
    LOG.info("%s: the dataset '%s' is read", source, found[0][0])
    return _single(source, found[0][1], found[0][0])


def _is_image(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind in "uif" and sum(n > 1 for n in dataset.shape or ()) >= len("zyx")


def _listed(found: Sequence[tuple[str, h5py.Dataset]]) -> str:
    told = [f"{name} ({' x '.join(map(str, d.shape))} {d.dtype})" for name, d in found[:_MOST_LISTED]]
    more = [f"and {len(found) - _MOST_LISTED} more"] if len(found) > _MOST_LISTED else []
    return ", ".join(told + more)


def _bdv(views: Mapping[tuple[int, int], str]) -> _Image:
    """Time points and setups of BigDataViewer's file, numbered from 0 in their order."""
    times = sorted({time for time, _ in views})
    setups = sorted({setup for _, setup in views})
    paths = {(times.index(t), setups.index(s)): name for (t, s), name in views.items()}
    return _Image(paths, "zyx", len(times), len(setups))


def _single(source: str, dataset: h5py.Dataset, name: str) -> _Image:
    """Return an image whose time points and channels are axes of one dataset."""
    axes = _axes_of(source, dataset)
    if axes is None:
        kept = len(dataset.shape)
        axes = _USUAL_AXES.get(kept)
        if axes is not None and kept > len("zyx") and any(n > 1 for n in dataset.shape[:-3]):
            LOG.warning(
                "%s: '%s' does not say what its axes are; %s is assumed", source, name, ", ".join(axes)
            )
    if axes is None or not set("zyx") <= set(axes) or len(axes) != dataset.ndim:
        raise VolumeError(
            f"{source}: expected axes z, y, x, maybe t and c, of '{name}', got the shape {dataset.shape}"
            + (f" with axes {axes}" if axes else "")
        )
    sizes = dict(zip(axes, dataset.shape, strict=True))
    return _Image({(0, 0): name}, axes, sizes.get("t", 1), sizes.get("c", 1))


def _axes_of(source: str, dataset: h5py.Dataset) -> str | None:
    """Axes as ilastik's ``axistags`` tell; None without."""
    text = plain(dataset.attrs.get("axistags"))
    if not isinstance(text, str):
        return None
    check_json(source, text.encode())
    keys = [str(axis.get("key", "?")).lower() for axis in json.loads(text).get("axes", [])]
    return "".join(keys) if all(len(key) == 1 for key in keys) else None


def _index(axes: str, places: Mapping[str, int]) -> tuple[list[tuple[str, int | slice]], tuple[int, ...]]:
    """How to cut out the volume, and how to turn its axes into (Z, Y, X)."""
    index = [(axis, places.get(axis, slice(None))) for axis in axes]
    left = [axis for axis in axes if axis in "zyx"]
    return index, tuple(left.index(axis) for axis in "zyx")


def _size_of(dataset: h5py.Dataset) -> dict[str, Any]:
    size = plain(dataset.attrs.get(_SIZE))
    return {"spacing": size, "unit": "um"} if isinstance(size, list) and len(size) == len("zyx") else {}
