"""Files from the browser: names and sizes are not believed, archives are unpacked into their folder only."""

import re
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from lightsheet.core.errors import VolumeError
from lightsheet.core.files import explained
from lightsheet.core.memory import GIB
from lightsheet.datasets.download.fetch import check_members, extract
from lightsheet.operate.web.jobs import PageError
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.pictures import PLANAR_SUFFIXES

ARCHIVES = (".zip",)
TAKEN = tuple(suffix for suffix in (*PLANAR_SUFFIXES, *ARCHIVES) if suffix != ".zarr")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80
# Of the disk, left to others.
_SPARE_BYTES = 1 << 30


def plain_name(name: str) -> str:
    """Return a file name of plain letters that can be part of a path, with the ending it had.

    Raises
    ------
    PageError
        When the ending is of no format that is read.
    """
    base = PurePosixPath(name.replace("\\", "/")).name
    suffix = PurePosixPath(base).suffix.lower()
    if suffix not in TAKEN:
        raise PageError(f"expected a file that ends in one of {', '.join(TAKEN)}, got '{base[:_LONGEST]}'")
    stem = _NOT_PLAIN.sub("_", base[: -len(suffix)]).strip("._-")[:_LONGEST]
    return f"{stem or 'image'}{suffix}"


async def receive(pieces: AsyncIterator[bytes], target: Path, most_bytes: int, told: int | None) -> int:
    """Write an upload piece by piece; how many bytes it has.

    Raises
    ------
    PageError
        When it is too large, too short for what was told, empty, or there is no room for it.
    OutputError
        When it can't be written.
    """
    room = shutil.disk_usage(target.parent).free - _SPARE_BYTES
    if told is not None:
        _refuse_too_large(told, most_bytes, room)
    size = 0
    with explained(target), target.open("wb") as file:
        async for piece in pieces:
            size += len(piece)
            _refuse_too_large(size, most_bytes, room)
            file.write(piece)
    if told is not None and size != told:
        raise PageError(f"expected {told} bytes, got {size}: the upload was cut off; try again")
    if not size:
        raise PageError("expected a file, got an empty one")
    return size


def _refuse_too_large(size: int, most_bytes: int, room: int) -> None:
    if size > most_bytes:
        raise PageError(
            f"expected at most {most_bytes / GIB:.3g} GiB, got a larger file (the server's --max_upload_gb)"
        )
    if size > room:
        raise PageError("expected room on the server's disk for this file, got too little")


def unpacked(archive: Path) -> Path:
    """Unpack an archive beside itself and return what is in it: an OME-Zarr, one file, or a folder of files.

    Raises
    ------
    VolumeError
        When it is no archive, holds links or paths that lead out of it, or far more than is stored.
    """
    folder = archive.with_suffix("")
    with foreign(archive.name, "a ZIP archive that can be read"), zipfile.ZipFile(archive) as packed:
        members = [one for one in packed.infolist() if not one.is_dir()]
        check_members(members, archive)
        for one in members:
            target = folder.joinpath(*PurePosixPath(one.filename).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with explained(target), packed.open(one) as source, target.open("wb") as file:
                extract(source, file, one)
    archive.unlink()
    return _meant(folder, archive.name)


def _meant(folder: Path, name: str) -> Path:
    """Return what an unpacked archive is: the image in it, or the folder that holds frames."""
    for path in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        if any((path / marker).is_file() for marker in (".zgroup", "zarr.json", ".zattrs")):
            return (
                path if path.suffix.lower() == ".zarr" else path.rename(path.with_name(f"{path.name}.zarr"))
            )
    wanted = tuple(suffix for suffix in PLANAR_SUFFIXES if suffix != ".zarr")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() in wanted]
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise VolumeError(f"{name}: expected an OME-Zarr or images in the archive, got neither")
    if len(files) == 1:
        return files[0]
    parents = {path.parent for path in files}
    if len(parents) > 1:
        raise VolumeError(
            f"{name}: expected the frames of one movie in one folder, got {len(parents)} folders"
        )
    return files[0].parent
