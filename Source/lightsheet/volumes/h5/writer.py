"""Write converted volumes: slab by slab, fields encoded in threads, standard filters only.

In the full form ``data/raw_image`` is uncompressed, so that patches are read without decoding whole chunks;
its numbers hardly compress anyhow. The two fields are smooth and do compress: they are rounded to a power of
two that is an eighth of a voxel or less, and stored with HDF5's own shuffle and deflate filters.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import RAW_IMAGE, ZYX
from lightsheet.core.grid import NodeGrid
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.core.jit import compiled
from lightsheet.core.threads import thread_count
from lightsheet.volumes.h5.checks import load_fast_filter
from lightsheet.volumes.h5.header import (
    STEP,
    STORED,
    STORED_COUNTS,
    STORED_NODES,
    STORED_NORMALIZED,
    STORED_VOXELS,
    nodes_name,
)
from lightsheet.volumes.h5.seal import note_checksum
from lightsheet.volumes.seal import checksum

_CHUNK_ZYX = (16, 128, 128)
_FAST_CHUNK_ZYX = (32, 128, 128)
# Small enough that the memory of one slab is used again for the next instead of being returned.
_SLAB_VOXELS = 1 << 22
_DEFLATE_LEVEL = 1
_CHUNKS_AHEAD = 64


def _files_are_limited() -> bool:
    import resource  # not on every system

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


class FieldWriter:
    """Interpolates a field at full resolution and stores it chunk by chunk, encoded in threads.

    Parameters
    ----------
    file : H5 file open for writing
    name : dataset, for instance ``data/surface_distance``
    grid : the field's nodes, which are stored too
    quantum : numbers are rounded to multiples of this
    """

    def __init__(self, file: h5py.File, name: str, grid: NodeGrid, quantum: float) -> None:
        self.grid = grid
        self.quantum = quantum
        self.chunk = _even_chunks(grid.shape_zyx)
        self.dataset = file.create_dataset(
            name,
            grid.shape_zyx,
            np.float32,
            chunks=self.chunk,
            shuffle=True,
            compression="gzip",
            compression_opts=_DEFLATE_LEVEL,
            fill_time="never",
        )
        self.dataset.attrs[STORED] = STORED_VOXELS
        self.dataset.attrs[STEP] = grid.step_zyx
        self.dataset.attrs["rounded_to"] = quantum
        self._checksum = 0
        write_nodes(file, nodes_name(name), grid)

    def origins(self, z0: int, z1: int) -> Iterator[ZYX]:
        """First voxels of the chunks whose first plane is one of ``z0`` to ``z1``."""
        _, size_y, size_x = self.grid.shape_zyx
        depth, height, width = self.chunk
        for z in range(-(-z0 // depth) * depth, z1, depth):
            for y in range(0, size_y, height):
                for x in range(0, size_x, width):
                    yield z, y, x

    def encode(self, origin: ZYX) -> bytes:
        """Give the chunk at ``origin`` as HDF5 stores it; voxels beyond the volume are 0."""
        chunk = np.zeros(self.chunk, np.float32)
        ends = [min(o + c, n) for o, c, n in zip(origin, self.chunk, self.grid.shape_zyx, strict=True)]
        inside = tuple(slice(0, end - start) for start, end in zip(origin, ends, strict=True))
        z, y, x = (slice(start, end) for start, end in zip(origin, ends, strict=True))
        self.grid.at((z, y, x), out=chunk[inside])
        planes = np.empty((4, chunk.size), np.uint8)
        _round_and_shuffle(chunk.reshape(-1), 1.0 / self.quantum, self.quantum, planes)
        return bytes(imagecodecs.zlibng_encode(planes.tobytes(), level=_DEFLATE_LEVEL))

    def store(self, origin: ZYX, encoded: bytes) -> None:
        """Write an encoded chunk; the chunks are to come in their order."""
        self.dataset.id.write_direct_chunk(origin, encoded)
        self._checksum = checksum(encoded, self._checksum)

    def finish(self) -> None:
        """Keep the checksum of all encoded chunks with the dataset."""
        note_checksum(self.dataset, self._checksum, encoded=True)


@contextlib.contextmanager
def writing_h5(path: Path) -> Iterator[h5py.File]:
    """Open a new H5 file for writing; closed when the block is left, after an error too.

    When HDF5 can't write what it still holds, on a full disk, a file can't be closed, and the process crashes
    at its end, when HDF5 tries again. What it holds is then let go to a file in memory instead.
    """
    file = h5py.File(path, "w")
    try:
        yield file
        file.flush()
        file.close()
    except BaseException:
        _let_go(file)
        raise


def _let_go(file: h5py.File) -> None:
    """Close a file that could not be written; tried once, since HDF5 crashes at the second time."""
    if not file:
        return
    if hasattr(os, "memfd_create"):
        # A limit to the size of files (ulimit -f) holds in memory too, but not for what is thrown away.
        memory = os.open(os.devnull, os.O_RDWR) if _files_are_limited() else os.memfd_create("unwritten")
        os.dup2(memory, file.id.get_vfd_handle())
        os.close(memory)
    with contextlib.suppress(OSError, RuntimeError):  # the error that led here is told
        file.close()


def quantum_for(spacing_um: tuple[float, float, float]) -> float:
    """Largest power of two that is at most an eighth of the smallest voxel size, in micrometres."""
    return float(2.0 ** np.floor(np.log2(min(spacing_um) / 8)))


def write_full(
    file: h5py.File, volume: Slabs, normalization: Normalization, fields: list[FieldWriter]
) -> None:
    """Write the normalised image and the fields of a volume, reading it once."""
    raw = file.create_dataset(RAW_IMAGE, volume.info.shape_zyx, np.float32, fill_time="never")
    raw.attrs[STORED] = STORED_NORMALIZED
    total = 0
    pending: deque[tuple[FieldWriter, ZYX, Future[bytes]]] = deque()
    with ThreadPoolExecutor(thread_count()) as pool:
        for z, stop in _slabs(volume):
            for field in fields:
                for origin in field.origins(z, stop):
                    pending.append((field, origin, pool.submit(field.encode, origin)))
            numbers = normalization.apply(volume.read(z, stop))
            raw[z:stop] = numbers
            total = checksum(np.ascontiguousarray(numbers), total)
            while len(pending) > _CHUNKS_AHEAD:
                _store_first(pending)
        while pending:
            _store_first(pending)
    note_checksum(raw, total)
    for field in fields:
        field.finish()


def write_counts(file: h5py.File, volume: Slabs, *, fast_filter: bool) -> None:
    """Write the counts as they are, for the compact form."""
    dtype = stored_dtype(volume.info.dtype)
    options: dict[str, Any] = {"fill_time": "never"}
    if fast_filter:
        chunk = tuple(min(c, n) for c, n in zip(_FAST_CHUNK_ZYX, volume.info.shape_zyx, strict=True))
        options |= {"chunks": chunk, **fast_filter_options()}
    raw = file.create_dataset(RAW_IMAGE, volume.info.shape_zyx, dtype, **options)
    raw.attrs[STORED] = STORED_COUNTS
    total = 0
    for z, stop in _slabs(volume, _FAST_CHUNK_ZYX[0] if fast_filter else 1):
        counts = np.ascontiguousarray(volume.read(z, stop).astype(dtype, copy=False))
        raw[z:stop] = counts
        # Otherwise HDF5 writes the last chunks when the dataset is let go, where no error can be told.
        raw.flush()
        total = checksum(counts, total)
    note_checksum(raw, total)


def write_nodes(file: h5py.File, name: str, grid: NodeGrid) -> None:
    """Write a field's coarse nodes; node ``i`` of an axis lies on voxel ``i * step``."""
    dataset = write_array(file, name, grid.values)
    dataset.attrs[STORED] = STORED_NODES
    dataset.attrs[STEP] = grid.step_zyx


def write_array(file: h5py.File, name: str, values: NDArray[Any]) -> h5py.Dataset:
    """Write a small dataset as it is, with its checksum."""
    dataset = file.create_dataset(name, data=values)
    note_checksum(dataset, checksum(np.ascontiguousarray(values)))
    return dataset


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """Type in which counts are kept: the source's; half floats, which are read as float32, as such."""
    given = np.dtype(dtype)
    return np.dtype(np.float32) if given == np.float16 else given


def fast_filter_options() -> dict[str, Any]:
    """Dataset options of bitshuffle with LZ4.

    Raises
    ------
    MissingExtraError
        When hdf5plugin isn't installed.
    """
    return dict(load_fast_filter("--fast_filter").Bitshuffle(cname="lz4"))


def _slabs(volume: Slabs, group: int = 1) -> Iterator[tuple[int, int]]:
    """First plane and the one after the last of pieces to be read, whole groups of planes each."""
    depth, height, width = volume.info.shape_zyx
    planes = group * max(1, _SLAB_VOXELS // (height * width * group))
    for z in range(0, depth, planes):
        yield z, min(z + planes, depth)


def _store_first(pending: deque[tuple[FieldWriter, ZYX, Future[bytes]]]) -> None:
    field, origin, encoded = pending.popleft()
    field.store(origin, encoded.result())


def _even_chunks(shape_zyx: ZYX) -> ZYX:
    """Chunks that divide the volume with little overhang."""
    z, y, x = (
        -(-n // max(1, round(n / c))) if n > c else n for n, c in zip(shape_zyx, _CHUNK_ZYX, strict=True)
    )
    return z, y, x


@compiled()
def _round_and_shuffle(numbers: Any, factor: float, quantum: float, planes: Any) -> None:
    """Round to multiples of ``quantum`` and lay first bytes, second bytes and so on next to each other."""
    for i in range(numbers.size):
        numbers[i] = np.float32(np.rint(numbers[i] * factor) * quantum)
    bits = numbers.view(np.uint32)
    for i in range(bits.size):
        value = bits[i]
        planes[0, i] = value & np.uint32(0xFF)
        planes[1, i] = (value >> np.uint32(8)) & np.uint32(0xFF)
        planes[2, i] = (value >> np.uint32(16)) & np.uint32(0xFF)
        planes[3, i] = value >> np.uint32(24)
