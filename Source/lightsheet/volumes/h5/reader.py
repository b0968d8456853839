"""Converted volumes (H5): how they are laid out, and a lazy reader for training and prediction.

Two forms, which the reader hides. In the full form every dataset has the volume's shape and any HDF5 reader
gives the ledger's numbers; the coarse nodes of the fields lie beside under ``nodes/`` and are what the reader
here interpolates. In the compact form ``data/raw_image`` holds the counts and the fields hold their nodes.
"""

import math
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
from lightsheet.core.errors import VolumeError
from lightsheet.core.grid import NodeGrid, bounds_of, node_counts
from lightsheet.core.intensity import Normalization
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.h5.checks import Chunks, dataset_of, open_file
from lightsheet.volumes.h5.header import STORED_COUNTS, STORED_NODES, Header, nodes_name, read_header
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import check_finite

FOREGROUND_INDEX = "index/foreground"
_MOST_OPEN_FILES = 64


class ConvertedVolume:
    """One converted file, opened when first read; may be pickled to other processes.

    Attributes
    ----------
    path : the H5 file
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._header: Header | None = None
        self._chunks: dict[str, Chunks] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_header": self._header, "_chunks": {}}

    def __repr__(self) -> str:
        return f"ConvertedVolume({str(self.path)!r})"

    @property
    def header(self) -> Header:
        """What the file says about itself, read and checked once."""
        if self._header is None:
            wanted = "a file made by convert_images.py"
            with _OPEN_FILES.file(self.path) as file, foreign(str(self.path), wanted):
                self._header = read_header(file, self.path)
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

    @property
    def light_thickness_um(self) -> float:
        """Longest path of the light inside the specimen's hull, in micrometres.

        Raises
        ------
        VolumeError
            When the file does not say it, as those of earlier versions.
        """
        said = self.header.attributes.get("light_thickness_um")
        if not isinstance(said, float) or not 0 < said < math.inf:
            raise VolumeError(
                f"{self.path}: expected the specimen's thickness along the light, got {said}; convert again"
            )
        return said

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
        """Voxels as camera counts, in the source's type (Z, Y, X).

        Exact for 8 and 16 bits, and for all types in the compact form; in the full form wider types have the
        24 bits of float32 over their normalised range.
        """
        stored, _ = self._stored(RAW_IMAGE)
        voxels = self._voxels(RAW_IMAGE, bounds_of(region, self.shape_zyx))
        if stored == STORED_COUNTS:
            return voxels
        check_finite(voxels, str(self.path))
        return self.normalization.undo_to(voxels, self.info.dtype)

    def foreground_index(self) -> NDArray[np.int64]:
        """Positions (N, 3) in voxels, evenly drawn from the foreground, for drawing patches."""
        source, shape = str(self.path), self.shape_zyx
        with _OPEN_FILES.file(self.path) as file, foreign(source, f"the dataset '{FOREGROUND_INDEX}'"):
            found = dataset_of(source, file, FOREGROUND_INDEX, 2)
            if found.shape[1] != len(shape) or found.dtype.kind not in "ui":
                raise VolumeError(f"{source}: expected positions Z, Y, X, got {found.shape} {found.dtype}")
            index = np.asarray(found[...], np.int64)
        if len(index) and not ((index >= 0) & (index < np.array(shape))).all():
            raise VolumeError(f"{source}: expected positions inside the volume, got others; convert again")
        return index

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
        with _OPEN_FILES.file(self.path) as file, foreign(str(self.path), "readable voxels"):
            (z0, z1), (y0, y1), (x0, x1) = bounds
            dataset = self._dataset(file, name)
            self._chunks[name].check(dataset, bounds)
            voxels: NDArray[Any] = dataset[z0:z1, y0:y1, x0:x1]
        return voxels

    def _dataset(self, file: h5py.File, name: str) -> h5py.Dataset:
        """Return a dataset, which is checked when it is first read."""
        if name not in self._chunks:
            dataset = dataset_of(str(self.path), file, name, len("zyx"))
            self._chunks[name] = Chunks(str(self.path), dataset)
        return file[name]

    def _interpolated(self, name: str, step: ZYX, bounds: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
        """Read the nodes around a region only, and interpolate."""
        first = [start // s for (start, _), s in zip(bounds, step, strict=True)]
        last = [(stop - 1) // s + 2 for (_, stop), s in zip(bounds, step, strict=True)]
        with _OPEN_FILES.file(self.path) as file, foreign(str(self.path), "readable nodes"):
            nodes = self._dataset(file, name)
            if nodes.shape != node_counts(self.shape_zyx, step):
                raise VolumeError(f"{self.path}: expected nodes each {step} voxels, got {nodes.shape}")
            ends = [min(b, n) for b, n in zip(last, nodes.shape, strict=True)]
            starts = [min(a, b - 2) for a, b in zip(first, ends, strict=True)]
            part = nodes[starts[0] : ends[0], starts[1] : ends[1], starts[2] : ends[2]]
        check_finite(part, f"{self.path}: {name}")
        begins = [a * s for a, s in zip(starts, step, strict=True)]
        regions = [slice(start - b, stop - b) for (start, stop), b in zip(bounds, begins, strict=True)]
        reach = tuple(int(r.stop) for r in regions)
        grid = NodeGrid(part.astype(np.float32, copy=False), step, (reach[0], reach[1], reach[2]))
        return grid.at((regions[0], regions[1], regions[2]))


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
                self._files[path] = open_file(path)
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
