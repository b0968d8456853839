"""The chain of a TIFF's pages, read before any library sees the file: what it says must be possible.

A TIFF is a chain of directories that may lead anywhere: in a circle, out of the file, to a million pages.
Each directory holds tags whose counts and places are claims as well. Here they are looked at cheaply, some 20
microseconds a page, and a file is refused whose claims can't hold.
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.foreign import MOST_VOXELS_OF_A_PLANE, check_regular

# Long movies of light-sheet microscopes have some ten thousands of planes a file.
MOST_PAGES = 1 << 17
MOST_TAGS = 4096
MOST_SEGMENTS = 1 << 20
# TIFF's tiles are at least 16 x 16; far smaller ones in great number are made to be slow.
_FEW_SEGMENTS, _SMALL_SEGMENT = 1 << 16, 64
_MOST_SUBIFDS = 64
_MOST_TEXT = 32 << 20
_MOST_TAG_BYTES = 64 << 20
_LARGEST_TILE = 1 << 22
_SLACK = 1 << 20

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _TEXT, _OFFSETS, _SAMPLES = 256, 257, 258, 259, 270, 273, 277
_ROWS, _COUNTS, _PLANAR, _PREDICTOR, _FILL = 278, 279, 284, 317, 266
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SUBIFDS, _FORMAT = 322, 323, 324, 325, 330, 339
_DEPTH, _TILE_DEPTH, _SUBFILE, _LSM, _STK = 32997, 32998, 254, 34412, 33628
_LISTS = (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS)
_NUMBERS = {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR, _PREDICTOR, _FILL, _FORMAT}
_NUMBERS |= {_TILE_WIDTH, _TILE_LENGTH, _DEPTH, _TILE_DEPTH, _SUBFILE, *_LISTS, _SUBIFDS}
# Vendors' formats whose planes are not one a page: only tifffile knows their order.
_VENDOR_TAGS = (_LSM, _STK, 34361, 43314)


class Page(NamedTuple):
    """What one directory says of its image, checked to be possible."""

    width: int
    length: int
    bits: int
    number_format: int
    samples: int
    compression: int
    predictor: int
    depth: int
    reduced: bool
    segment: tuple[int, int, int]
    """Voxels of a tile along (Z, Y, X); of strips, 1, their rows and the width."""
    start: int
    """Where the voxels begin when they lie in one piece as they are; -1 where they must be decoded."""

    @property
    def kind(self) -> tuple[Any, ...]:
        """What planes of one image have in common: all but where they lie."""
        return self[:-1]


@dataclass(frozen=True)
class Chain:
    """The pages of one file and what its first says in words.

    Attributes
    ----------
    pages : one for each directory of the main chain, in its order
    texts : descriptions of the first page
    size : bytes of the file
    vendor : whether tags of a vendor decide what the pages mean
    """

    pages: list[Page]
    texts: list[bytes]
    size: int
    vendor: bool


class _Entry(NamedTuple):
    type: int
    values: int
    raw: bytes


def walk(path: Path) -> Chain:
    """Read and check all directories of a TIFF; no more than some 100 bytes a page are read.

    Raises
    ------
    NotFoundError
        When there is no such file.
    VolumeError
        When it is no regular file, no TIFF, or says what can't be.
    """
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        return _Walk(path, descriptor).chain()
    finally:
        os.close(descriptor)


class _Walk:
    """One walk through an open file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.source, self.file = str(path), descriptor
        self.size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, 16, 0)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) > 3 else 0
        if not head:
            raise VolumeError(f"{path}: expected a TIFF, got an empty file")
        if order is None or version not in (42, 43) or len(head) < (8 if version == 42 else 16):
            raise VolumeError(f"{path}: expected a TIFF, got {self.size} bytes that begin {head[:4]!r}")
        self.order, self.big = order, version == 43
        self.first = self.number(head[8:16] if self.big else head[4:8])
        self.entry = struct.Struct(f"{order}HHQ8s" if self.big else f"{order}HHI4s")
        self.seen: set[int] = set()
        self.vendor = False
        self.told = 0

    def number(self, raw: bytes) -> int:
        """Offset as the file writes it."""
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    def bad(self, wanted: str, got: str) -> VolumeError:
        """Error of this file."""
        return VolumeError(f"{self.source}: expected {wanted}, got {got}")

    def count(self, told: int) -> None:
        """Count bytes of directories and lists: where they overlap, a small file has no end of them."""
        self.told += told
        if self.told > 2 * self.size + _SLACK:
            raise self.bad(
                "directories and lists that fit the file", f"ones that overlap in {self.size} bytes"
            )

    def chain(self) -> Chain:
        """All pages of the main chain; images below them are checked as well."""
        pages: list[Page] = []
        texts: list[bytes] = []
        offset, below = self.first, 0
        while offset:
            tags, offset = self.directory(offset, len(pages))
            if not pages:
                self.vendor = any(code in tags for code in _VENDOR_TAGS)
                texts = [self.text(entry) for code, entry in tags.items() if code in (_TEXT, -_TEXT)]
            pages.append(self.page(tags, len(pages)))
            below += self.below(tags, len(pages) - 1)
            if len(pages) + below > MOST_PAGES:
                raise self.bad(f"at most {MOST_PAGES} pages", "more in one chain")
        if not pages:
            raise self.bad("a TIFF with an image", "none")
        return Chain(pages, texts, self.size, self.vendor)

    def directory(self, offset: int, page: int) -> tuple[dict[int, _Entry], int]:
        """Tags of the directory at ``offset`` and the place of the next one."""
        if offset in self.seen:
            raise self.bad("a chain of pages that ends", f"one that leads back after {page} pages")
        self.seen.add(offset)
        count_bytes, place_bytes = (8, 8) if self.big else (2, 4)
        block = os.pread(self.file, 1024, offset) if offset < self.size else b""
        count = self.number(block[:count_bytes])
        end = count_bytes + count * self.entry.size
        if not 0 < count <= MOST_TAGS or offset + end > self.size:
            raise self.bad(
                "a whole TIFF", f"one that is cut off or damaged after {page} pages ({self.size} bytes)"
            )
        self.count(end)
        if end + place_bytes > len(block):
            block = os.pread(self.file, end + place_bytes, offset)
        tags: dict[int, _Entry] = {}
        for code, kind, values, raw in self.entry.iter_unpack(block[count_bytes:end]):
            size = _SIZES.get(kind, 1) * values
            if size > place_bytes and self.number(raw) + size > self.size:
                raise self.bad(
                    "a whole TIFF", f"tag {code} of page {page} whose {size} bytes are outside the file"
                )
            if size > _MOST_TAG_BYTES and code not in _LISTS:
                raise self.bad("tags of some bytes", f"tag {code} of page {page} of {size} bytes")
            tags[-code if code in tags else code] = _Entry(kind, values, raw)
        return tags, self.number(block[end : end + place_bytes])

    def data(self, entry: _Entry) -> bytes:
        """Bytes of a tag's values."""
        size = _SIZES.get(entry.type, 1) * entry.values
        if size <= len(entry.raw):
            return entry.raw[:size]
        self.count(size)
        return os.pread(self.file, size, self.number(entry.raw))

    def text(self, entry: _Entry) -> bytes:
        """Text of a description."""
        if entry.values > _MOST_TEXT:
            raise self.bad(f"a description of at most {_MOST_TEXT} bytes", f"{entry.values} bytes")
        return self.data(entry).rstrip(b"\0")

    def whole(self, tags: dict[int, _Entry], code: int, page: int) -> NDArray[np.integer]:
        """Whole numbers of a tag."""
        entry = tags[code]
        if entry.type not in _WHOLE or entry.values < 1:
            raise self.bad(
                f"whole numbers in tag {code} of page {page}", f"{entry.values} values of type {entry.type}"
            )
        return np.frombuffer(self.data(entry), np.dtype(f"{self.order}{_WHOLE[entry.type]}"))

    def one(self, tags: dict[int, _Entry], code: int, page: int, default: int) -> int:
        """First number of a tag, which need not be there."""
        entry = tags.get(code)
        if entry is None:
            return default
        if entry.values == 1 and entry.type in _WHOLE:
            return self.number(entry.raw[: _SIZES[entry.type]])
        return int(self.whole(tags, code, page)[0])

    def below(self, tags: dict[int, _Entry], page: int) -> int:
        """Check the images below a page (smaller copies of it) and return how many there are."""
        if _SUBIFDS not in tags:
            return 0
        if tags[_SUBIFDS].values > _MOST_SUBIFDS:
            raise self.bad(f"at most {_MOST_SUBIFDS} images below page {page}", f"{tags[_SUBIFDS].values}")
        offsets = [int(offset) for offset in self.whole(tags, _SUBIFDS, page) if offset]
        for offset in offsets:
            inner, _ = self.directory(offset, page)
            if _SUBIFDS in inner:
                raise self.bad(f"images below page {page}", "images below those")
            self.page(inner, page)
        return len(offsets)

    def page(self, tags: dict[int, _Entry], page: int) -> Page:
        """Check the sizes and places of one page."""
        one = self.one
        width, length = one(tags, _WIDTH, page, 0), one(tags, _LENGTH, page, 0)
        depth, samples = one(tags, _DEPTH, page, 1), one(tags, _SAMPLES, page, 1)
        bits, compression = one(tags, _BITS, page, 1), one(tags, _COMPRESSION, page, 1)
        if min(width, length, depth, samples, bits) < 1:
            told = f"{length} x {width}, {bits} bits, {samples} samples in page {page}"
            raise self.bad("sizes above 0", told)
        if width * length * depth > MOST_VOXELS_OF_A_PLANE:
            raise self.bad(f"at most {MOST_VOXELS_OF_A_PLANE} voxels a plane", f"{length} x {width}")
        predictor = one(tags, _PREDICTOR, page, 1)
        segment = self.segment(tags, page, (depth, length, width))
        start = self.segments(tags, page, (depth, length, width), segment, bits)
        plain = (compression, predictor, one(tags, _FILL, page, 1), samples, depth) == (1, 1, 1, 1, 1)
        if not plain or self.vendor or bits not in (8, 16, 32, 64):
            start = -1
        reduced = bool(one(tags, _SUBFILE, page, 0) & 1)
        number_format = one(tags, _FORMAT, page, 1)
        return Page(
            width,
            length,
            bits,
            number_format,
            samples,
            compression,
            predictor,
            depth,
            reduced,
            segment,
            start,
        )

    def segments(
        self,
        tags: dict[int, _Entry],
        page: int,
        shape: tuple[int, int, int],
        segment: tuple[int, int, int],
        bits: int,
    ) -> int:
        """Check strips or tiles; return where they begin when they follow each other, else -1."""
        tiled = _TILE_OFFSETS in tags
        where, lengths = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
        if where not in tags:
            raise self.bad(f"image data in page {page}", "none")
        planes = self.one(tags, _SAMPLES, page, 1) if self.one(tags, _PLANAR, page, 1) == 2 else 1
        expected = planes * math.prod(-(-size // part) for size, part in zip(shape, segment, strict=True))
        voxels = math.prod(shape)
        if expected > MOST_SEGMENTS or (expected > _FEW_SEGMENTS and voxels < _SMALL_SEGMENT * expected):
            raise self.bad("tiles of 16 x 16 at least", f"{expected} strips or tiles in page {page}")
        if tags[where].values < expected:
            got = f"{tags[where].values} of the {expected} strips or tiles of page {page}"
            raise self.bad("all image data", got)
        size = voxels * bits // 8
        offsets = self.whole(tags, where, page)[:expected].astype(np.uint64)
        counts = self.whole(tags, lengths, page)[:expected].astype(np.uint64) if lengths in tags else None
        if counts is None and expected > 1:
            raise self.bad(f"byte counts of page {page}", "none")
        if counts is not None and len(counts) != expected:
            raise self.bad(f"{expected} byte counts in page {page}", f"{len(counts)}")
        first = int(offsets[0])
        last = self.last_byte(offsets, counts)
        if last > self.size and _LSM not in tags and not self.vendor:
            raise self.bad(f"{last} bytes", f"{self.size}: the TIFF is truncated or damaged in page {page}")
        if expected == 1:
            fits = not tiled or segment == shape
            return first if fits and first + size <= self.size else -1
        in_a_row = counts is not None and bool(np.all(offsets[:-1] + counts[:-1] == offsets[1:]))
        return first if in_a_row and not tiled and last - first == size else -1

    def segment(
        self, tags: dict[int, _Entry], page: int, shape: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        """Voxels of a tile or strip along (Z, Y, X)."""
        _, length, width = shape
        if _TILE_OFFSETS not in tags:
            return 1, min(self.one(tags, _ROWS, page, length) or length, length), width
        rows, columns = self.one(tags, _TILE_LENGTH, page, 0), self.one(tags, _TILE_WIDTH, page, 0)
        tile = (self.one(tags, _TILE_DEPTH, page, 1), rows, columns)
        if min(tile) < 1 or math.prod(tile) > max(_LARGEST_TILE, 4 * math.prod(shape)):
            raise self.bad(f"tiles that fit page {page}", f"{' x '.join(map(str, tile))} voxels")
        return tile

    def last_byte(self, offsets: NDArray[np.uint64], counts: NDArray[np.uint64] | None) -> int:
        """End of the data, without overflow."""
        if counts is None:
            return int(offsets.max())
        if len(offsets) == 1:
            return int(offsets[0]) + int(counts[0])
        if int(counts.max()) > self.size or int(offsets.max()) > self.size:
            return int(max(counts.max(), offsets.max()))
        return int((offsets + counts).max())
