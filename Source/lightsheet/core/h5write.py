"""Write converted volumes: slab by slab, fields encoded in threads, standard filters only.

In the full form ``data/raw_image`` is uncompressed, so that patches are read without decoding whole chunks;
its numbers hardly compress anyhow. The two fields are smooth and do compress: they are rounded to a power of
two that is an eighth of a voxel or less, and stored with HDF5's own shuffle and deflate filters.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import h5py
import imagecodecs
import numpy as np

from lightsheet.core.axes import RAW_IMAGE, ZYX
from lightsheet.core.grid import NodeGrid
from lightsheet.core.h5 import (
    STEP,
    STORED,
    STORED_COUNTS,
    STORED_NODES,
    STORED_NORMALIZED,
    STORED_VOXELS,
    load_fast_filter,
    nodes_name,
)
from lightsheet.core.intensity import Normalization, Slabs
from lightsheet.core.jit import compiled
from lightsheet.core.threads import thread_count

_CHUNK_ZYX = (16, 128, 128)
_FAST_CHUNK_ZYX = (32, 128, 128)
# Small enough that the memory of one slab is used again for the next instead of being returned.
_SLAB_VOXELS = 1 << 22
_DEFLATE_LEVEL = 1
_CHUNKS_AHEAD = 64


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
        """Write an encoded chunk."""
        self.dataset.id.write_direct_chunk(origin, encoded)


def quantum_for(spacing_um: tuple[float, float, float]) -> float:
    """Largest power of two that is at most an eighth of the smallest voxel size, in micrometres."""
    return float(2.0 ** np.floor(np.log2(min(spacing_um) / 8)))


def write_full(
    file: h5py.File, volume: Slabs, normalization: Normalization, fields: list[FieldWriter]
) -> None:
    """Write the normalised image and the fields of a volume, reading it once."""
    raw = file.create_dataset(RAW_IMAGE, volume.info.shape_zyx, np.float32, fill_time="never")
    raw.attrs[STORED] = STORED_NORMALIZED
    pending: deque[tuple[FieldWriter, ZYX, Future[bytes]]] = deque()
    with ThreadPoolExecutor(thread_count()) as pool:
        for z, stop in _slabs(volume):
            for field in fields:
                for origin in field.origins(z, stop):
                    pending.append((field, origin, pool.submit(field.encode, origin)))
            raw[z:stop] = normalization.apply(volume.read(z, stop))
            while len(pending) > _CHUNKS_AHEAD:
                _store_first(pending)
        while pending:
            _store_first(pending)


def write_counts(file: h5py.File, volume: Slabs, *, fast_filter: bool) -> None:
    """Write the counts as they are, for the compact form."""
    dtype = stored_dtype(volume.info.dtype)
    options: dict[str, Any] = {"fill_time": "never"}
    if fast_filter:
        chunk = tuple(min(c, n) for c, n in zip(_FAST_CHUNK_ZYX, volume.info.shape_zyx, strict=True))
        options |= {"chunks": chunk, **fast_filter_options()}
    raw = file.create_dataset(RAW_IMAGE, volume.info.shape_zyx, dtype, **options)
    raw.attrs[STORED] = STORED_COUNTS
    for z, stop in _slabs(volume, _FAST_CHUNK_ZYX[0] if fast_filter else 1):
        raw[z:stop] = volume.read(z, stop).astype(dtype, copy=False)


def write_nodes(file: h5py.File, name: str, grid: NodeGrid) -> None:
    """Write a field's coarse nodes; node ``i`` of an axis lies on voxel ``i * step``."""
    dataset = file.create_dataset(name, data=grid.values)
    dataset.attrs[STORED] = STORED_NODES
    dataset.attrs[STEP] = grid.step_zyx


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """Type in which counts are kept: the source's, except for integers beyond 16 bit and wide floats."""
    given = np.dtype(dtype)
    return given if given.kind in "ui" and given.itemsize <= 2 else np.dtype(np.float32)


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
