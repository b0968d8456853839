"""Which compressions of a TIFF are read, and that none may grow beyond what its page says.

Decoders of byte streams (deflate, LZW, Zstandard and alike) are told how many bytes may come out. Those of
images have sizes of their own in each strip or tile and believe them: they are compared before.
"""

import struct
from typing import Any

import tifffile

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.tiff.walk import Page

# None, LZW, deflate (two numbers), PackBits, LZMA, Zstandard (two numbers): bounded by tifffile.
_STREAMS = {1, 5, 8, 32946, 32773, 34925, 50000, 34926}
_JPEG = {7}
_JPEG2000 = {33003, 33004, 33005, 34712}
_READ = "none, LZW, deflate, PackBits, LZMA, Zstandard, JPEG or JPEG 2000"
_HEAD = 1 << 16
_LARGEST_SEGMENT = 1 << 16


def check_codec(compression: int, source: str) -> None:
    """Refuse a compression that is not read.

    Raises
    ------
    VolumeError
    """
    if compression not in _STREAMS | _JPEG | _JPEG2000:
        raise VolumeError(
            f"{source}: expected a compression that is read ({_READ}), got number {compression}; "
            "save it with one of those"
        )


def check_segments(tif: tifffile.TiffFile, page: Any, kind: Page, source: str) -> None:
    """Refuse a strip or tile that holds a larger image than the page.

    Raises
    ------
    VolumeError
    """
    if kind.compression in _STREAMS:
        return
    most = max(kind.width * kind.length, _LARGEST_SEGMENT) * kind.samples
    key = page.keyframe
    if key.is_tiled:
        most = max(most, key.tilewidth * key.tilelength * kind.samples)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        tif.filehandle.seek(offset)
        head = tif.filehandle.read(min(count, _HEAD))
        voxels = jpeg_voxels(head) if kind.compression in _JPEG else jpeg2000_voxels(head)
        if voxels is None or voxels > most:
            told = "no size" if voxels is None else f"{voxels}"
            raise VolumeError(
                f"{source}: expected pixel data that can be decoded, "
                f"got a strip or tile that tells {told} where at most {most} voxels can be"
            )


def jpeg_voxels(head: bytes) -> int | None:
    """Voxels that the header of a JPEG promises; None where it has none."""
    at = 2
    while head[:2] == b"\xff\xd8" and at + 10 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, parts = struct.unpack(">HHB", head[at + 5 : at + 10])
            return int(height * width * parts)
        at += 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]
    return None


def jpeg2000_voxels(head: bytes) -> int | None:
    """Voxels that the header of a JPEG 2000 codestream, bare or in its container, promises."""
    at = head.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(head) < at + 42:
        return None
    right, bottom, left, top = struct.unpack(">4I", head[at + 8 : at + 24])
    parts = struct.unpack(">H", head[at + 40 : at + 42])[0]
    return int((right - left) * (bottom - top) * parts) if right > left and bottom > top else None
