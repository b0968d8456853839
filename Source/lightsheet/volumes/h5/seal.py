"""The seal of a converted file: checksums of its datasets, and of all that is said about them.

Each dataset has the CRC-32 of its numbers, taken while they were written; the file has a hash over names,
shapes, types and attributes, those checksums among them. A finished file is believed when both agree.
"""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightsheet.volumes.h5.checks import load_fast_filter, open_file
from lightsheet.volumes.seal import SEAL, checksum

_NUMBERS, _CHUNKS = "crc32", "crc32_encoded"
# Not in the seal: itself, and what is written after it.
_AFTER = (SEAL, "complete")
_AT_ONCE = 1 << 24
# How HDF5 says that a file is damaged depends on where it is; a chunk that is lost is a MemoryError.
_DAMAGED = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)


def note_checksum(dataset: h5py.Dataset, value: int, *, encoded: bool = False) -> None:
    """Keep the CRC-32 of a dataset's numbers in C order, or of its encoded chunks in order."""
    dataset.attrs[_CHUNKS if encoded else _NUMBERS] = np.uint32(value)


def put_seal(file: h5py.File) -> None:
    """Seal a file that is written but for its attribute ``complete``."""
    file.attrs[SEAL] = _seal_of(file)


def is_altered(file: h5py.File) -> bool:
    """Whether a file says other things about itself than when it was sealed; voxels are not read."""
    seal = file.attrs.get(SEAL)
    return seal is not None and seal != _seal_of(file)


def is_intact(path: Path) -> bool:
    """Whether a converted file is as it was when it was sealed; it is read once."""
    try:
        with open_file(path) as file:
            if file.attrs.get(SEAL) != _seal_of(file):
                return False
            return all(_agrees(dataset) for dataset in _datasets(file))
    except _DAMAGED:
        return False


def attribute_of(path: Path, name: str) -> object:
    """Return an attribute of a finished file; None where there is none or the file can't be read."""
    try:
        with open_file(path) as file:
            return file.attrs.get(name) if file.attrs.get("complete") else None
    except _DAMAGED:
        return None


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _seal_of(file: h5py.File) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(file.attrs.items()):
        if name not in _AFTER:
            digest.update(_said(name, value))
    for dataset in _datasets(file):
        digest.update(f"{dataset.name} {dataset.shape} {dataset.dtype}".encode())
        for name, value in sorted(dataset.attrs.items()):
            digest.update(_said(name, value))
    return digest.hexdigest()


def _said(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return f"{name}={value}".encode(errors="surrogateescape")
    array = np.asarray(value)
    return f"{name}={array.dtype}{array.shape}".encode() + array.tobytes()


def _agrees(dataset: h5py.Dataset) -> bool:
    encoded = _CHUNKS in dataset.attrs
    wanted = dataset.attrs.get(_CHUNKS if encoded else _NUMBERS)
    total = 0
    for part in _chunks(dataset) if encoded else _numbers(dataset):
        total = checksum(part, total)
    return wanted is not None and int(wanted) == total


def _chunks(dataset: h5py.Dataset) -> Iterator[bytes]:
    """Yield encoded chunks in order; decoding them would take several times as long."""
    steps = [range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True)]
    for origin in itertools.product(*steps):
        yield dataset.id.read_direct_chunk(origin)[1]


def _numbers(dataset: h5py.Dataset) -> Iterator[Any]:
    if dataset.chunks is not None:
        load_fast_filter(str(dataset.file.filename))
    row = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    step = max(1, _AT_ONCE // max(1, row))
    step += -step % (dataset.chunks or (1,))[0]
    for first in range(0, dataset.shape[0], step):
        yield np.ascontiguousarray(dataset[first : first + step])
