"""A seal in a result's own metadata, by which a later run knows whether it is still what was written.

It is the CRC-32 of all bytes of the file, or of all files of an OME-Zarr with their names, with the place of
the seal itself left blank. The provenance holds `PENDING` while the result is written; `put_seal` fills it
in.
"""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs

SEAL = "seal"
"""Key in the provenance."""
PENDING = "crc32:--------"
"""Stands in the seal's place until the result is whole."""
_BLANK = PENDING.encode()
_BLOCK = 1 << 22
_ENDS = 1 << 20
# Files in a folder that begin with a dot and belong to it; others are left by file managers.
_HIDDEN = (".zattrs", ".zarray", ".zgroup", ".zmetadata")


def put_seal(path: Path, known: Mapping[str, int] | None = None) -> None:
    """Compute the seal of a written result and put it in its place.

    Parameters
    ----------
    known : checksums of files of an OME-Zarr, by `checksums_of`, which are then not read again

    Raises
    ------
    ValueError
        When the result has no place for it.
    """
    where = _file_with(path, _BLANK)
    if where is None:
        raise ValueError(f"{path}: expected a place for the seal, got none")
    file, position = where
    seal = _seal_of(path, file, position, known)
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(seal.encode())


def is_intact(path: Path, seal: object) -> bool:
    """Whether a result is as it was when it was sealed; it is read once.

    Parameters
    ----------
    path : the file or folder
    seal : what its provenance says
    """
    if not isinstance(seal, str) or len(seal) != len(PENDING) or seal == PENDING:
        return False
    try:
        where = _file_with(path, seal.encode())
        return where is not None and _seal_of(path, *where) == seal
    except OSError:
        return False


def _file_with(path: Path, token: bytes) -> tuple[Path, int] | None:
    """Find the file that holds the seal, and where in it."""
    files = [path / "zarr.json", path / ".zattrs"] if path.is_dir() else [path]
    for file in files:
        position = _find(file, token) if file.is_file() else None
        if position is not None:
            return file, position
    return None


def _find(file: Path, token: bytes) -> int | None:
    """Position of a token: where metadata usually are, at the ends, or else anywhere."""
    size = file.stat().st_size
    places = [(0, _ENDS), (max(0, size - _ENDS), _ENDS)]
    places += [(first, _BLOCK + len(token)) for first in range(0, size, _BLOCK)]
    with file.open("rb") as stream:
        for first, length in places:
            stream.seek(first)
            found = stream.read(length).find(token)
            if found >= 0:
                return first + found
    return None


def checksums_of(path: Path, names: Iterable[str]) -> dict[str, int]:
    """CRC-32 of files of an OME-Zarr, given and told by their names in it."""
    return {name: _checksum(path / name, None) for name in names}


def _seal_of(path: Path, holder: Path, position: int, known: Mapping[str, int] | None = None) -> str:
    if not path.is_dir():
        return f"crc32:{_checksum(path, position):08x}"
    total = 0
    for file in sorted(path.rglob("*")):
        if not file.is_file() or (file.name.startswith(".") and file.name not in _HIDDEN):
            continue
        name = file.relative_to(path).as_posix()
        one = (known or {}).get(name) if file != holder else None
        if one is None:
            one = _checksum(file, position if file == holder else None)
        total = zlib.crc32(f"{name} {file.stat().st_size} {one:08x}\n".encode(), total)
    return f"crc32:{total:08x}"


def _checksum(file: Path, blank: int | None) -> int:
    """CRC-32 of a file, as if the seal at position ``blank`` were pending."""
    total, done = 0, 0
    with file.open("rb") as stream:
        if blank is not None:
            while done < blank:
                block = stream.read(min(_BLOCK, blank - done))
                total, done = checksum(block, total), done + len(block)
            stream.seek(len(_BLANK), 1)
            total = checksum(_BLANK, total)
        while block := stream.read(_BLOCK):
            total = checksum(block, total)
    return total


def checksum(block: Any, before: int = 0) -> int:
    """CRC-32 of bytes or an array, going on from ``before``; several times as fast as that of `zlib`."""
    return int(imagecodecs.deflate_crc32(block, before))
