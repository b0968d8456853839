"""A Zarr folder at an address as data: what `volumes.ome_zarr.store.FolderStore` is to a folder on disk.

No chunk larger than the memory is fetched, and none is decoded to more than it says to be.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import FsspecStore

from lightsheet.core.errors import VolumeError
from lightsheet.core.memory import available_memory
from lightsheet.volumes.foreign import MOST_COMPRESSION
from lightsheet.volumes.ome_zarr.store import METADATA, check_document_size, look_at
from lightsheet.volumes.remote.addresses import address_of, filesystem, reached

# Stores that tell what is in a folder; a web server does not, as a rule.
_WEB = ("http://", "https://")
_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", "0/zarr.json", "0/.zarray")


class RemoteStore(FsspecStore):
    """What lies below one address, read only.

    Parameters
    ----------
    address : of the OME-Zarr

    Raises
    ------
    MissingExtraError
        When the library for this kind of store is not installed.
    """

    def __init__(self, address: str) -> None:
        found, place = filesystem(address, asynchronous=True)
        super().__init__(fs=found, path=place, read_only=True)
        self.address = address
        self.root = address
        self._sync, self._place = filesystem(address)
        self.checks: dict[str, Callable[[str, bytes, bool], None]] = {}

    def with_read_only(self, read_only: bool = False) -> "RemoteStore":
        """Return this store, which is read only whatever is asked for."""
        return self

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        with reached(self.where(key)):
            return bool(self._sync.isfile(f"{self._place}/{key}"))

    def where(self, key: str) -> str:
        """Address of a key, for messages."""
        return f"{self.address}/{key}"

    def document(self, key: str) -> bytes | None:
        """Bytes of a file of metadata; None when there is none.

        Raises
        ------
        VolumeError
            When it is larger than metadata are, or can't be had.
        """
        place = f"{self._place}/{key}"
        with reached(self.where(key)):
            try:
                size = self._sync.info(place).get("size")
                check_document_size(self.where(key), size or 0)
                return bytes(self._sync.cat_file(place))
            except FileNotFoundError:
                return None

    def stored_bytes(self, name: str, size: int) -> int:
        """Bytes of an array's files; of a store that lists nothing, as many as are wanted."""
        if self.address.startswith(_WEB):
            return size // MOST_COMPRESSION + 1
        with reached(self.where(name)):
            found = self._sync.find(f"{self._place}/{name}", detail=True)
        return sum(
            int(one.get("size") or 0)
            for path, one in found.items()
            if path.rpartition("/")[2] not in METADATA
        )

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, checked; None when there is no such file."""
        with reached(self.where(key), "a chunk that can be read"):
            if key.rpartition("/")[2] not in METADATA and byte_range is None:
                try:
                    found = await self.fs._info(f"{self.path}/{key}")
                except FileNotFoundError:
                    return None
                size = found.get("size") or 0
                if size > available_memory():
                    raise VolumeError(
                        f"{self.where(key)}: expected a chunk that fits the memory, got {size} bytes"
                    )
            value = await super().get(key, prototype or default_buffer_prototype(), byte_range)
        look_at(self.checks, key, self.where(key), value, byte_range is None)
        return value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several ranges, checked."""
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]


def is_remote_group(address: str) -> bool:
    """Whether there is the metadata of a Zarr group at an address."""
    store = RemoteStore(address)
    return any(store.has(name) for name in ("zarr.json", ".zgroup", ".zattrs"))


def remote_volumes(address: str) -> list[Path]:
    """OME-Zarr images at an address, or in the folder there, in their order.

    Raises
    ------
    NotFoundError, VolumeError
        When there are none, or nothing can be had there.
    """
    if address.lower().endswith(".zarr") or is_remote_group(address):
        return [Path(address)]
    found, place = filesystem(address)
    with reached(address, "a folder of OME-Zarr images"):
        names = [str(name).rstrip("/").rpartition("/")[2] for name in found.ls(place, detail=False)]
    return [Path(f"{address}/{name}") for name in sorted(set(names)) if name.lower().endswith(".zarr")]


def remote_stamps(path: Path) -> dict[str, tuple[int, ...]]:
    """Size and a number that changes with the content, of all files at an address, by name.

    The number is made of the store's checksum or time of each; a web server that lists nothing is asked for
    the metadata alone.
    """
    address = address_of(path) or str(path)
    found, place = filesystem(address)
    with reached(address):
        if address.startswith(_WEB):
            store = RemoteStore(address)
            texts = {name: store.document(name) for name in _DOCUMENTS}
            return {name: (len(text), _number(text)) for name, text in texts.items() if text is not None}
        listed: dict[str, Any] = found.find(place, detail=True)
    return {
        name.removeprefix(f"{place}/"): (int(one.get("size") or 0), _number(_mark(one).encode()))
        for name, one in sorted(listed.items())
    }


def _mark(one: dict[str, Any]) -> str:
    """Return what tells a file from an earlier one of its name."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created"):
        if one.get(name):
            return str(one[name])
    return ""


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
