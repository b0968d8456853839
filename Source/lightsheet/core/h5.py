"""Converted volumes (H5): how they are laid out, and a lazy reader for training and prediction.

Two forms, which the reader hides. In the full form every dataset has the volume's shape and any HDF5 reader
gives the ledger's numbers; the coarse nodes of the fields lie beside under ``nodes/`` and are what the reader
here interpolates. In the compact form ``data/raw_image`` holds the counts and the fields hold their nodes.
"""

import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import RAW_IMAGE, ZYX, Region
from lightsheet.core.errors import MissingExtraError, NotFoundError, VolumeError
from lightsheet.core.grid import NodeGrid, bounds_of
from lightsheet.core.intensity import Normalization
from lightsheet.core.volume import VolumeInfo

FORMAT = "lightsheet-converted"
FORMAT_VERSION = 1
FOREGROUND_INDEX = "index/foreground"
NODES = "nodes/"
# Attributes of datasets.
STORED = "stored"
STEP = "step_zyx"
STORED_NORMALIZED = "normalized"
STORED_COUNTS = "counts"
STORED_NODES = "nodes"
STORED_VOXELS = "voxels"
FAST_FILTER_HINT = "pip install 'lightsheet[fast-h5]' (or: pip install hdf5plugin)"
_MOST_OPEN_FILES = 64


def nodes_name(group: str) -> str:
    """Dataset that holds the coarse nodes of a field in the full form."""
    return NODES + group.rsplit("/", 1)[-1]


class ConvertedVolume:
    """One converted file, opened when first read; may be pickled to other processes.

    Attributes
    ----------
    path : the H5 file
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._header: _Header | None = None

    def __repr__(self) -> str:
        return f"ConvertedVolume({str(self.path)!r})"

    @property
    def header(self) -> "_Header":
        """What the file says about itself, read once."""
        if self._header is None:
            with _OPEN_FILES.file(self.path) as file:
                self._header = _read_header(file, self.path)
        return self._header

    @property
    def info(self) -> VolumeInfo:
        """Shape, type of the counts, voxel size, channel, study, and the source's metadata."""
        return self.header.info

    @property
    def normalization(self) -> Normalization:
        """The two percentiles, which undo the normalisation."""
        return self.header.normalization

    @property
    def groups(self) -> tuple[str, ...]:
        """Image groups in the file, such as ``data/raw_image``."""
        return tuple(self.header.stored)

    @property
    def shape_zyx(self) -> ZYX:
        """Voxels along (Z, Y, X)."""
        return self.header.info.shape_zyx

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes of the file: light direction, hull volume, settings, source hash and so on."""
        return dict(self.header.attributes)

    def read(self, group: str, region: Region) -> NDArray[np.float32]:
        """Voxels of a group, float32 (Z, Y, X), in the ledger's meaning whatever the file's form.

        Raises
        ------
        VolumeError
            When the file lacks the group, or the region isn't within the volume.
        """
        stored, step = self._stored(group)
        bounds = bounds_of(region, self.shape_zyx)
        if stored == STORED_COUNTS:
            return self.normalization.apply(self._voxels(group, bounds))
        if step is None:
            voxels: NDArray[np.float32] = self._voxels(group, bounds).astype(np.float32, copy=False)
            return voxels
        return self._interpolated(group if stored == STORED_NODES else nodes_name(group), step, bounds)

    def counts(self, region: Region) -> NDArray[Any]:
        """Voxels as camera counts, in the source's type (Z, Y, X); exact for 8 and 16 bit."""
        stored, _ = self._stored(RAW_IMAGE)
        voxels = self._voxels(RAW_IMAGE, bounds_of(region, self.shape_zyx))
        if stored == STORED_COUNTS:
            return voxels
        return self.normalization.undo_to(voxels, self.info.dtype)

    def foreground_index(self) -> NDArray[np.int64]:
        """Positions (N, 3) in voxels, evenly drawn from the foreground, for drawing patches."""
        with _OPEN_FILES.file(self.path) as file:
            if FOREGROUND_INDEX not in file:
                raise VolumeError(
                    f"{self.path}: expected the dataset '{FOREGROUND_INDEX}', got none; convert again"
                )
            return np.asarray(file[FOREGROUND_INDEX][...], np.int64)

    def close(self) -> None:
        """Close the file in this process; it is opened again when needed."""
        _OPEN_FILES.close(self.path)

    def _stored(self, group: str) -> tuple[str, ZYX | None]:
        if group not in self.header.stored:
            raise VolumeError(
                f"{self.path}: expected the group '{group}', got {', '.join(self.groups) or 'no group'}"
            )
        return self.header.stored[group]

    def _voxels(self, name: str, bounds: tuple[tuple[int, int], ...]) -> NDArray[Any]:
        with _OPEN_FILES.file(self.path) as file:
            (z0, z1), (y0, y1), (x0, x1) = bounds
            try:
                voxels: NDArray[Any] = file[name][z0:z1, y0:y1, x0:x1]
            except OSError as error:
                if not _is_filter_missing(error):
                    raise VolumeError(
                        f"{self.path}: expected readable voxels, got damaged ones ({error}); convert again"
                    ) from error
                load_fast_filter(str(self.path))
                voxels = file[name][z0:z1, y0:y1, x0:x1]
        return voxels

    def _interpolated(self, name: str, step: ZYX, bounds: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
        """Read the nodes around a region only, and interpolate."""
        first = [start // s for (start, _), s in zip(bounds, step, strict=True)]
        last = [(stop - 1) // s + 2 for (_, stop), s in zip(bounds, step, strict=True)]
        with _OPEN_FILES.file(self.path) as file:
            nodes = file[name]
            ends = [min(b, n) for b, n in zip(last, nodes.shape, strict=True)]
            starts = [min(a, b - 2) for a, b in zip(first, ends, strict=True)]
            part = nodes[starts[0] : ends[0], starts[1] : ends[1], starts[2] : ends[2]]
        begins = [a * s for a, s in zip(starts, step, strict=True)]
        regions = [slice(start - b, stop - b) for (start, stop), b in zip(bounds, begins, strict=True)]
        reach = tuple(int(r.stop) for r in regions)
        grid = NodeGrid(part.astype(np.float32, copy=False), step, (reach[0], reach[1], reach[2]))
        return grid.at((regions[0], regions[1], regions[2]))


@dataclass(frozen=True)
class _Header:
    info: VolumeInfo
    normalization: Normalization
    stored: dict[str, tuple[str, ZYX | None]]
    attributes: dict[str, Any]


def _read_header(file: h5py.File, path: Path) -> _Header:
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    if attributes.get("format") != FORMAT or not attributes.get("complete"):
        raise VolumeError(
            f"{path}: expected a file made by convert_images.py, got an HDF5 file without its attributes; "
            "convert the volume again"
        )
    low, high = attributes["percentiles"]
    z, y, x = attributes["shape_zyx"]
    spacing = attributes["spacing_um"]
    info = VolumeInfo(
        source=str(path),
        shape_zyx=(z, y, x),
        dtype=attributes["dtype"],
        spacing_um=(spacing[0], spacing[1], spacing[2]),
        channel=attributes["channel"],
        study=attributes["study"],
        metadata=json.loads(attributes["metadata"]),
    )
    stored: dict[str, tuple[str, ZYX | None]] = {}
    for name, dataset in file["data"].items():
        step = dataset.attrs.get(STEP)
        steps = None if step is None else (int(step[0]), int(step[1]), int(step[2]))
        stored[f"data/{name}"] = (_plain(dataset.attrs[STORED]), steps)
    return _Header(info, Normalization(low, high), stored, attributes)


def _plain(value: Any) -> Any:
    """Attributes as Python numbers, text and lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, h5py.Empty):
        return None
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class _OpenFiles:
    """Open files of this process, the last used kept; a child process starts with none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._files: OrderedDict[Path, h5py.File] = OrderedDict()
        self._process = os.getpid()

    def file(self, path: Path) -> "_Lease":
        return _Lease(self, path)

    def take(self, path: Path) -> h5py.File:
        self._lock.acquire()
        try:
            if self._process != os.getpid():
                self._files = OrderedDict()
                self._process = os.getpid()
            if path not in self._files:
                self._files[path] = _open(path)
            self._files.move_to_end(path)
            while len(self._files) > _MOST_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            return self._files[path]
        except BaseException:
            self._lock.release()
            raise

    def give_back(self) -> None:
        self._lock.release()

    def close(self, path: Path) -> None:
        with self._lock:
            file = self._files.pop(path, None)
            if file is not None and self._process == os.getpid():
                file.close()


@dataclass(frozen=True)
class _Lease:
    """Holds the lock while a file is read, so that it isn't closed meanwhile."""

    files: _OpenFiles
    path: Path

    def __enter__(self) -> h5py.File:
        return self.files.take(self.path)

    def __exit__(self, *_: object) -> None:
        self.files.give_back()


_OPEN_FILES = _OpenFiles()


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: expected a converted file, got nothing there") from error
    except OSError as error:
        raise VolumeError(f"{path}: expected an HDF5 file, got one that can't be opened ({error})") from error


def load_fast_filter(what: str) -> Any:
    """Register the filters of hdf5plugin with HDF5 and return the library.

    Raises
    ------
    MissingExtraError
        When it isn't installed, naming the command that installs it.
    """
    try:
        import hdf5plugin
    except ImportError as error:
        raise MissingExtraError(f"{what}: needs the library hdf5plugin; {FAST_FILTER_HINT}") from error
    return hdf5plugin


def _is_filter_missing(error: OSError) -> bool:
    return "filter" in str(error) or "plugin" in str(error)
