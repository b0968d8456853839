"""A Zarr folder as data: nothing outside it is read, no chunk is decoded to more than it says to be.

zarr's own store follows links, reads pipes and devices, and hands whatever a chunk holds to its decoder.
"""

import asyncio
import contextlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import LocalStore

from lightsheet.core.errors import VolumeError
from lightsheet.core.memory import available_memory
from lightsheet.volumes.decoded import decoded_size
from lightsheet.volumes.foreign import check_json, check_sizes, foreign

_LONGEST_METADATA = 16 << 20
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
# Chunks may be decoded to this without a look at them; also what a small volume's chunk may take.
_SMALL = 64 << 20
# More chunks than this are read only where each holds some voxels.
_MANY_CHUNKS = 20_000
_FEWEST_VOXELS = 256
_MOST_ENTRIES = 4_000_000
_NO_CHUNK = 2**64 - 1
# Codecs that hold images; others, such as pickled objects, have no business here.
_CODECS: tuple[str, ...] = (
    "bytes",
    "transpose",
    "crc32c",
    "gzip",
    "zstd",
    "blosc",
    "sharding_indexed",
    "zlib",
    "lz4",
    "bz2",
)
_CODECS += ("lzma", "shuffle", "delta", "fixedscaleoffset", "bitround")
_COMPRESSORS = ("gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma")


class FolderStore(LocalStore):
    """Files of one folder, read only: regular ones that lie in it, links within it included.

    Parameters
    ----------
    root : the folder
    read_only : always True; zarr hands it on when it copies a store
    """

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=True)
        self._real = os.path.realpath(self.root)
        # Looks at the bytes of chunks, by the folder of their array, before they are decoded.
        self.checks: dict[str, Callable[[str, bytes, bool], None]] = {}

    def path_of(self, key: str) -> Path | None:
        """Return the file of a key; None when there is none.

        Raises
        ------
        VolumeError
            When it is no regular file in the folder, or too large for what it is.
        """
        path = self.root / key
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise VolumeError(f"{path}: expected a file, got '{error.strerror}'") from error
        real = os.path.realpath(path)
        if os.path.commonpath([self._real, real]) != self._real:
            raise VolumeError(f"{path}: expected data inside the folder, got a link that leads out of it")
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise VolumeError(f"{path}: expected a regular file, got a pipe or a device")
        if path.name in METADATA and found.st_size > _LONGEST_METADATA:
            raise VolumeError(f"{path}: expected metadata, got {found.st_size} bytes")
        if found.st_size > available_memory():
            raise VolumeError(f"{path}: expected a chunk that fits the memory, got {found.st_size} bytes")
        return path

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        return self.path_of(key) is not None

    def where(self, key: str) -> str:
        """Path of a key, for messages."""
        return str(self.root / key)

    def document(self, key: str) -> bytes | None:
        """Bytes of a file of metadata; None when there is none."""
        path = self.path_of(key)
        return None if path is None else path.read_bytes()

    def stored_bytes(self, name: str, size: int) -> int:
        """Bytes of an array's files; counted until they are enough for ``size`` bytes of voxels."""
        return _stored_bytes(self.root / name, size)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, checked; None when there is no such file."""
        if self.path_of(key) is None:
            return None
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        look_at(self.checks, key, self.where(key), found, byte_range is None)
        return found

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, checked; None when there is no such file."""
        chosen = prototype or default_buffer_prototype()
        return await asyncio.to_thread(self.get_sync, key, prototype=chosen, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several ranges, checked."""
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]


class CheckedStore(Protocol):
    """Where the files of a Zarr folder are had from, none of which is believed to be small or what it says.

    Attributes
    ----------
    checks : look at the bytes of chunks, by the folder of their array, before they are decoded
    """

    checks: dict[str, Callable[[str, bytes, bool], None]]

    @property
    def root(self) -> Path | str:
        """Path or address."""

    def has(self, key: str) -> bool:
        """Whether there is such a file."""

    def where(self, key: str) -> str:
        """Name of a key, for messages."""

    def document(self, key: str) -> bytes | None:
        """Bytes of a file of metadata; None when there is none."""

    def stored_bytes(self, name: str, size: int) -> int:
        """Bytes of an array's files, or enough of them for ``size`` bytes of voxels."""


def check_document_size(source: str, size: int) -> None:
    """Refuse metadata that are longer than any are.

    Raises
    ------
    VolumeError
    """
    if size > _LONGEST_METADATA:
        raise VolumeError(f"{source}: expected metadata, got {size} bytes")


def look_at(
    checks: Mapping[str, Callable[[str, bytes, bool], None]],
    key: str,
    source: str,
    found: Buffer | None,
    whole: bool,
) -> None:
    """Have the bytes of a chunk looked at before they are decoded."""
    if found is None or key.rpartition("/")[2] in METADATA:
        return
    for folder, check in checks.items():
        if key.startswith(folder):
            check(source, found.to_bytes(), whole)


def read_attributes(store: CheckedStore, group: str = "") -> dict[str, Any]:
    """Attributes of a group, Zarr 2 or 3; consolidated copies of metadata are not believed.

    Raises
    ------
    VolumeError
        When there is no group, or its metadata are no JSON object.
    """
    new = _json(store, f"{group}zarr.json")
    if new is not None:
        attributes = new.get("attributes", {})
        return dict(attributes) if isinstance(attributes, Mapping) else {}
    attributes = _json(store, f"{group}.zattrs")
    if attributes is None and _json(store, f"{group}.zgroup") is None:
        where = store.where(group) if group else store.root
        what = "a folder without a readable one" if isinstance(store.root, Path) else "none at this address"
        raise VolumeError(f"{where}: expected an OME-Zarr group, got {what}")
    return attributes or {}


def _json(store: CheckedStore, key: str) -> dict[str, Any] | None:
    source = store.where(key)
    with foreign(source, "metadata in JSON"):
        text = store.document(key)
        if text is None:
            return None
        check_json(source, text)
        content = json.loads(text)
    if not isinstance(content, dict):
        raise VolumeError(f"{source}: expected a JSON object, got {type(content).__name__}")
    return content


def open_array(store: CheckedStore, name: str) -> zarr.Array[Any]:
    """Open an array of the folder, whose sizes and codecs are those of an image that is stored there.

    Raises
    ------
    VolumeError
        When there is none, or it says to be larger than what is stored can be, or is coded in another way.
    """
    source = str(store.root)
    steps = Path(name).parts
    if not steps or Path(name).is_absolute() or ".." in steps:
        raise VolumeError(f"{source}: expected level 0 inside the folder, got the path '{name}'")
    for document in ("zarr.json", ".zarray"):
        _json(store, f"{name}/{document}")  # bounded in size and depth before zarr reads it
    with foreign(source, f"the array '{name}' of level 0 that is readable"):
        array = zarr.open_array(cast("Any", store), path=name, mode="r")
        shape, chunks = tuple(map(int, array.shape)), tuple(map(int, array.chunks))
        names = _codec_names(array)
    if array.dtype.kind not in "uif":
        raise VolumeError(f"{source}: expected whole or real numbers, got values of type {array.dtype}")
    unknown = [codec for codec in names if codec not in _CODECS]
    if unknown or sum(codec in _COMPRESSORS for codec in names) > 1:
        raise VolumeError(f"{source}: expected chunks coded by one of {', '.join(_COMPRESSORS)}, got {names}")
    _check_chunks(source, shape, chunks, array.dtype)
    size = math.prod(shape) * array.dtype.itemsize
    check_sizes(source, shape, array.dtype, store.stored_bytes(name, size))
    store.checks[f"{name}/"] = _chunk_check(array, names)
    return array


def _codec_names(array: zarr.Array[Any]) -> list[str]:
    """Names of all codecs, those inside shards too, in lower case."""
    metadata: dict[str, Any] = array.metadata.to_dict()
    if metadata["zarr_format"] == 2:
        codecs = [*(metadata.get("filters") or ()), metadata.get("compressor")]
        return [str(_of(codec, "id")).lower() for codec in codecs if codec is not None]
    names: list[str] = []
    waiting = list(metadata["codecs"])
    while waiting:
        codec = waiting.pop(0)
        names.append(str(_of(codec, "name")).lower().removeprefix("numcodecs."))
        waiting += list(_of(codec, "configuration", {}).get("codecs", ()))
    return names


def _of(codec: Any, key: str, default: Any = None) -> Any:
    """Return an entry of a codec that is given as a dictionary or an object."""
    if not isinstance(codec, Mapping):
        codec = codec.get_config() if hasattr(codec, "get_config") else codec.to_dict()
    return codec.get(key, default)


def _check_chunks(source: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> None:
    """Refuse chunks too large for the memory, or as many as to be never read."""
    told = " x ".join(map(str, chunks))
    if len(chunks) != len(shape) or min((*chunks, *shape), default=0) < 1:
        raise VolumeError(f"{source}: expected sizes above 0, got {shape} in chunks of {told}")
    size = math.prod(chunks) * dtype.itemsize
    volume = math.prod(shape) * dtype.itemsize
    if size > _SMALL and (size > 8 * volume or size > available_memory() // 2):
        raise VolumeError(
            f"{source}: expected chunks that fit the memory, got {told} ({size / 2**30:.1f} GiB each)"
        )
    count = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if count > _MANY_CHUNKS and math.prod(chunks) < _FEWEST_VOXELS:
        raise VolumeError(f"{source}: expected chunks of some size, got {count} of {told} voxels")


def _stored_bytes(folder: Path, size: int) -> int:
    """Bytes of an array's files; counted until they are enough for ``size`` bytes of voxels."""
    total, seen = 0, 0
    waiting = [folder]
    known: set[tuple[int, int]] = set()
    while waiting and total < size and seen < _MOST_ENTRIES:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file() and entry.name not in METADATA:
                    found = entry.stat()
                    if (found.st_dev, found.st_ino) not in known:
                        known.add((found.st_dev, found.st_ino))
                        total += found.st_size
    return total


def _chunk_check(array: zarr.Array[Any], names: list[str]) -> Callable[[str, bytes, bool], None]:
    """Return what looks at a chunk before it is decoded."""
    compressor = next((name for name in names if name in _COMPRESSORS), None)
    shard = _shard_of(array)
    # Of a shard, each chunk is decoded by itself.
    inner = array.chunks if shard is None else shard.chunk_shape
    expected = math.prod(inner) * array.dtype.itemsize
    in_shard = 0
    if shard is not None:
        whole = getattr(array, "shards", None) or array.chunks
        in_shard = math.prod(n // c for n, c in zip(whole, inner, strict=True))

    def check(source: str, stored: bytes, whole: bool) -> None:
        parts = [stored]
        if in_shard and whole:
            parts = _parts_of_shard(stored, in_shard, _checksum_bytes(shard))
        elif in_shard and len(stored) in (16 * in_shard, 16 * in_shard + 4):
            return  # the index of a shard
        for part in parts:
            _check_part(source, part, compressor, expected)

    return check


def _shard_of(array: zarr.Array[Any]) -> ShardingCodec | None:
    codecs = getattr(array.metadata, "codecs", ())
    return next((codec for codec in codecs if isinstance(codec, ShardingCodec)), None)


def _checksum_bytes(shard: ShardingCodec | None) -> int:
    codecs = () if shard is None else shard.index_codecs
    return 4 * sum(type(codec).__name__ == "Crc32cCodec" for codec in codecs)


def _parts_of_shard(stored: bytes, count: int, checksum: int) -> list[bytes]:
    """Chunks of a shard, whose index lies at its end or its start; those beyond it are the decoder's."""
    size = 16 * count
    if len(stored) < size + checksum:
        return []
    parts: list[bytes] = []
    for begin in (len(stored) - size - checksum, 0):
        index = np.frombuffer(stored[begin : begin + size], "<u8").reshape(-1, 2)
        for offset, length in index.tolist():
            if offset != _NO_CHUNK and offset + length <= len(stored):
                parts.append(stored[offset : offset + length])
    return parts


def _check_part(source: str, stored: bytes, compressor: str | None, expected: int) -> None:
    """Refuse a chunk that is decoded to far more than its voxels."""
    most = max(2 * expected, _SMALL)
    size = len(stored) if compressor is None else decoded_size(compressor, stored, most)
    if size > most:
        raise VolumeError(
            f"{source}: expected a chunk of {expected} bytes, got one that is decoded to more than {most}"
        )
