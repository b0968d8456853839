"""How large compressed data become, found out before a decoder allocates for it."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

_DEFLATE_RATIO = 1032
_PIECE = 1 << 20
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"


def decoded_size(compressor: str, stored: bytes, most: int) -> int:
    """Bytes to which a compressed chunk is decoded; counting ends soon after ``most``.

    Where neither its header tells nor counting is possible, the stored bytes.
    """
    if compressor == "blosc":
        return int.from_bytes(stored[4:8], "little") if len(stored) >= 16 else len(stored)
    if compressor == "lz4":
        return int.from_bytes(stored[:4], "little")
    if compressor == "zstd":
        return _zstd_size(stored)
    if len(stored) * _DEFLATE_RATIO <= most and compressor in ("gzip", "zlib"):
        return len(stored)
    makers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.decompressobj(47),
        "zlib": lambda: zlib.decompressobj(47),
        "bz2": bz2.BZ2Decompressor,
        "lzma": lzma.LZMADecompressor,
    }
    try:
        return _count(makers[compressor], stored, most)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return len(stored)  # damaged: the decoder says so


def _count(make: Callable[[], Any], stored: bytes, most: int) -> int:
    """Bytes that come out of a stream decoder, which may be followed by further streams."""
    total = 0
    rest = stored
    while rest and total <= most:
        decoder = make()
        piece = decoder.decompress(rest, _PIECE)
        while total <= most:
            total += len(piece)
            if decoder.eof:
                break
            left = getattr(decoder, "unconsumed_tail", b"")
            if not piece and not left:
                return total
            piece = decoder.decompress(left, _PIECE)
        rest = decoder.unused_data
    return total


def _zstd_size(stored: bytes) -> int:
    """Content size in the header of a Zstandard frame (RFC 8878); the stored bytes where it tells none."""
    if stored[:4] != _FRAME_MAGIC or len(stored) < 6:
        return len(stored)
    descriptor = stored[4]
    single = bool(descriptor & 0x20)
    field = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not field or len(stored) < begin + field:
        return len(stored)
    size = int.from_bytes(stored[begin : begin + field], "little")
    return size + 256 if field == 2 else size
