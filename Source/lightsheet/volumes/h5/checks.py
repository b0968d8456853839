"""An HDF5 file as data: no reference out of it is followed, sizes are those of what is stored.

HDF5 itself follows links to other files, reads "external" voxels from any path and decodes a chunk to
whatever it holds. Datasets are opened here and nowhere else.
"""

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightsheet.core.errors import MissingExtraError, VolumeError
from lightsheet.core.memory import available_memory
from lightsheet.volumes.decoded import decoded_size
from lightsheet.volumes.foreign import check_regular, check_sizes, foreign
from lightsheet.volumes.h5.probe import check_ends

FAST_FILTER_HINT = "pip install 'lightsheet[fast-h5]' (or: pip install hdf5plugin)"
_SMALL = 64 << 20
_DEFLATE, _SHUFFLE, _FLETCHER, _SZIP, _NBIT, _SCALEOFFSET = 1, 2, 3, 4, 5, 6
_LZF, _BLOSC, _LZ4, _BITSHUFFLE, _ZFP, _ZSTD, _BLOSC2 = 32000, 32001, 32004, 32008, 32013, 32015, 32026
_KNOWN = (_DEFLATE, _SHUFFLE, _FLETCHER, _SZIP, _NBIT, _SCALEOFFSET, _LZF, _ZFP)
_HARMLESS = (_SHUFFLE, _FLETCHER, _NBIT, _SCALEOFFSET)
# Those of the library hdf5plugin.
_PLUGINS = (_BLOSC, _LZ4, _BITSHUFFLE, _ZFP, _ZSTD, _BLOSC2)
# A run of LZF is three bytes for 264.
_LZF_RATIO = 88
_MOST_OBJECTS = 100_000


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file to be read.

    Raises
    ------
    NotFoundError
        When nothing is there.
    VolumeError
        When it is no regular file, or no HDF5 file, or one over which HDF5 itself does not end.
    """
    check_ends(path, check_regular(path))
    with foreign(str(path), "an HDF5 file that can be opened"):
        return h5py.File(path, "r")


def child(source: str, group: h5py.Group, name: str) -> Any:
    """Return what ``name``, a path below ``group``, leads to within the file.

    Raises
    ------
    VolumeError
        When nothing is there, or a link leads into another file.
    """
    found: Any = group
    for part in (part for part in name.split("/") if part):
        if not isinstance(found, h5py.Group):
            raise VolumeError(f"{source}: expected the dataset '{name}', got none")
        link = found.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise VolumeError(f"{source}: expected '{name}' in the file itself, got a link to another file")
        if isinstance(link, h5py.SoftLink):
            raise VolumeError(f"{source}: expected '{name}' itself, got a link to '{link.path}'; name that")
        found = None if link is None else found[part]
    if found is None:
        raise VolumeError(f"{source}: expected the dataset '{name}', got none")
    return found


def dataset_of(source: str, group: h5py.Group, name: str, dimensions: int | None = None) -> h5py.Dataset:
    """Return a dataset of numbers whose voxels are in the file.

    Raises
    ------
    VolumeError
        When it is missing, something else, stored elsewhere, or larger than what is stored can be.
    """
    found = child(source, group, name)
    if not isinstance(found, h5py.Dataset):
        raise VolumeError(f"{source}: expected the dataset '{name}', got a group")
    if found.external is not None or found.is_virtual:
        raise VolumeError(f"{source}: expected the voxels of '{name}' in the file itself, got them elsewhere")
    if found.dtype.kind not in "uif":
        raise VolumeError(f"{source}: expected numbers in '{name}', got values of type {found.dtype}")
    if dimensions is not None and found.ndim != dimensions:
        raise VolumeError(f"{source}: expected {dimensions} axes of '{name}', got the shape {found.shape}")
    check_sizes(f"{source}: {name}", found.shape, found.dtype, found.id.get_storage_size())
    return found


def datasets_of(source: str, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """All datasets of a file with their paths; links are left aside."""
    seen: set[Any] = set()
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    count = 0
    while waiting:
        where, group = waiting.pop(0)
        for name in group:
            count += 1
            if count > _MOST_OBJECTS:
                raise VolumeError(f"{source}: expected a file of images, got more than {count - 1} objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            if isinstance(found, h5py.Dataset):
                yield f"{where}{name}", found
            elif isinstance(found, h5py.Group) and found.id not in seen:
                seen.add(found.id)
                waiting.append((f"{where}{name}/", found))


class Chunks:
    """Looks at the chunks of a dataset before they are decoded, once each.

    Raises
    ------
    VolumeError
        When chunks are coded in an unknown way or don't fit the memory.
    """

    def __init__(self, source: str, dataset: h5py.Dataset) -> None:
        self._source = f"{source}: {dataset.name}"
        self._shape = dataset.chunks
        self._checked: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()
        filters = _filters(dataset)
        unknown = [number for number in filters if number not in (*_KNOWN, *_PLUGINS)]
        coders = [number for number in filters if number not in _HARMLESS]
        if unknown or len(coders) > 1:
            raise VolumeError(
                f"{self._source}: expected chunks coded in a known way, got the filters {filters}; "
                "save it with gzip or without compression"
            )
        self._coder = coders[0] if coders else None
        self._bytes = math.prod(self._shape or (0,)) * dataset.dtype.itemsize
        if self._bytes > _SMALL and self._bytes > available_memory() // 2:
            raise VolumeError(f"{self._source}: expected chunks that fit the memory, got {self._shape}")

    def check(self, dataset: h5py.Dataset, bounds: tuple[tuple[int, int], ...]) -> None:
        """Refuse chunks of a region that are decoded to far more than their voxels.

        Parameters
        ----------
        dataset : the same as at the start, maybe of a file opened anew
        bounds : begin and end along each axis
        """
        if self._coder is None or self._shape is None:
            return
        steps = [range(b // c * c, e, c) for (b, e), c in zip(bounds, self._shape, strict=True)]
        with self._lock:
            for offset in itertools.product(*steps):
                if offset not in self._checked:
                    self._check_one(dataset, offset)
                    self._checked.add(offset)

    def _check_one(self, dataset: h5py.Dataset, offset: tuple[int, ...]) -> None:
        stored = dataset.id.get_chunk_info_by_coord(offset)
        if stored.byte_offset is None or stored.filter_mask:
            return  # not written, or not coded
        if stored.size > available_memory() // 2:
            raise VolumeError(f"{self._source}: expected chunks that fit the memory, got {stored.size} bytes")
        most = max(2 * self._bytes, _SMALL)
        size = stored.size * _LZF_RATIO if self._coder == _LZF else stored.size
        if self._coder not in (_LZF, _ZFP):
            _, content = dataset.id.read_direct_chunk(offset)
            size = _size(self._coder, content, most)
        if size > most:
            raise VolumeError(
                f"{self._source}: expected a chunk of {self._bytes} bytes, "
                f"got one that is decoded to more than {most}"
            )


def _size(coder: int | None, content: bytes, most: int) -> int:
    """Bytes to which a chunk is decoded, as its header tells or as counted."""
    if coder in (_LZ4, _BITSHUFFLE):
        return int.from_bytes(content[:8], "big")
    if coder == _SZIP:
        return int.from_bytes(content[:4], "little")
    names = {_DEFLATE: "zlib", _ZSTD: "zstd", _BLOSC: "blosc", _BLOSC2: "blosc"}
    return decoded_size(names[coder], content, most) if coder in names else len(content)


def _filters(dataset: h5py.Dataset) -> list[int]:
    """Numbers of the filters of a dataset, those of plug-ins loaded where they can be."""
    plist = dataset.id.get_create_plist()
    numbers = [int(plist.get_filter(index)[0]) for index in range(plist.get_nfilters())]
    if any(number in _PLUGINS for number in numbers):
        load_fast_filter(dataset.file.filename)
    return numbers


def load_fast_filter(what: str) -> Any:
    """Register the filters of hdf5plugin with HDF5 and return the library.

    Raises
    ------
    MissingExtraError
        When it isn't installed, naming the command that installs it.
    """
    try:
        import hdf5plugin  # an extra
    except ImportError as error:
        raise MissingExtraError(f"{what}: needs the library hdf5plugin; {FAST_FILTER_HINT}") from error
    return hdf5plugin


def plain(value: Any) -> Any:
    """Attribute as Python numbers, text and lists."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, h5py.Empty):
        return None
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
