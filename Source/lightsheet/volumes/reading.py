"""The one door to volumes on disk, whatever the format: TIFF, our H5 files, OME-Zarr."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import LightsheetError, NotFoundError, VolumeError
from lightsheet.volumes.foreign import check_regular, foreign
from lightsheet.volumes.info import Overrides, Volume, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.metadata import Facts, understand
from lightsheet.volumes.ome_zarr.reader import is_zarr_group, open_zarr
from lightsheet.volumes.remote.addresses import address_of
from lightsheet.volumes.tiff.reader import open_tiff
from lightsheet.volumes.writing import (
    VolumeWriter,
    WriteReport,
    volume_writer,
    write_volume,
)

__all__ = [
    "SUFFIXES",
    "LazyVolume",
    "VolumeWriter",
    "WriteReport",
    "each_frame",
    "find_volumes",
    "frames_in",
    "is_one_volume",
    "open_volume",
    "read_info",
    "read_volume",
    "usable",
    "volume_writer",
    "write_volume",
]

TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
H5_SUFFIXES = (".h5", ".hdf5")
ZARR_SUFFIXES = (".zarr",)
SUFFIXES = (*TIFF_SUFFIXES, *H5_SUFFIXES, *ZARR_SUFFIXES)
SATURATED_FRACTION = 0.5
_NO_OVERRIDES = Overrides()


def read_info(path: Path, overrides: Overrides = _NO_OVERRIDES) -> VolumeInfo:
    """Shape, type, spacing, channel, study and metadata of a volume, without its voxels."""
    with open_volume(path, overrides) as volume:
        return volume.info


def read_volume(path: Path, overrides: Overrides = _NO_OVERRIDES) -> Volume:
    """Read a whole volume (Z, Y, X) in its native type, C-contiguous; peak memory is its own size.

    Raises
    ------
    NotFoundError, VolumeError, MetadataError
        As :func:`open_volume`; VolumeError also for NaN or infinite values.
    """
    with open_volume(path, overrides) as volume:
        return Volume(volume.read(0, volume.shape_zyx[0]), volume.info)


def open_volume(path: Path, overrides: Overrides = _NO_OVERRIDES) -> LazyVolume:
    """Open a volume to be read slab by slab; a context manager. Every format gives counts.

    Raises
    ------
    NotFoundError
        When there is no such file or folder.
    VolumeError
        When the file is damaged, of another format, or not one volume (Z, Y, X).
    MetadataError
        When spacing, channel or study are nonsense and not given as overrides.
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind == "zarr":
        return open_zarr(path, overrides)
    if kind == "h5":
        return _open_h5(path, overrides)
    return open_tiff(path, overrides)


def frames_in(path: Path, overrides: Overrides = _NO_OVERRIDES) -> int:
    """Time points in a file; 1 for a volume.

    Raises
    ------
    NotFoundError, VolumeError, MetadataError
        As :func:`open_volume`.
    """
    select = replace(overrides.select, time=0)
    with open_volume(path, replace(overrides, select=select)) as volume:
        return volume.info.frames


def each_frame(path: Path, overrides: Overrides) -> list[Overrides]:
    """Tell what to open for each time point of a movie; of a single volume, the overrides as they are.

    So too of a file that can't be used, and where the user has chosen a time point: what is wrong is told
    where it is opened.
    """
    if overrides.select.time is not None:
        return [overrides]
    try:
        frames = frames_in(path, overrides)
    except LightsheetError:
        frames = 0
    if frames == 1:
        return [overrides]
    times = range(max(1, frames))  # of a file that can't be used, the first stands for all
    return [replace(overrides, select=replace(overrides.select, time=time)) for time in times]


def _kind_of(path: Path) -> Literal["tiff", "h5", "zarr"]:
    """Format of a file or folder, which must be there and be one of these."""
    if address_of(path) is not None:
        return "zarr"
    if _is_folder(path):
        if not os.access(path, os.R_OK | os.X_OK):
            raise VolumeError(f"{path}: expected a folder that can be read, got 'Permission denied'")
        if path.suffix.lower() not in ZARR_SUFFIXES and not is_zarr_group(path):
            raise VolumeError(f"{path}: expected a file or a folder that ends in .zarr, got another folder")
        return "zarr"
    check_regular(path)
    if path.suffix.lower() in ZARR_SUFFIXES:
        raise VolumeError(f"{path}: expected the folder of an OME-Zarr, got a file")
    return "h5" if path.suffix.lower() in H5_SUFFIXES else "tiff"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link that leads to itself; what is wrong with it is told where it is opened
        return False


def _open_h5(path: Path, overrides: Overrides) -> LazyVolume:
    from lightsheet.volumes.h5.checks import open_file  # HDF5 only where it is read
    from lightsheet.volumes.h5.foreign import open_foreign_h5
    from lightsheet.volumes.h5.header import is_converted
    from lightsheet.volumes.h5.reader import ConvertedVolume

    with foreign(str(path), "an HDF5 file that can be read"), open_file(path) as file:
        ours = is_converted(file)
    if not ours:
        return open_foreign_h5(path, overrides)

    converted = ConvertedVolume(path)
    _, height, width = converted.shape_zyx

    def read(z0: int, z1: int) -> NDArray[Any]:
        return converted.counts((slice(z0, z1), slice(0, height), slice(0, width)))

    info = overrides.apply(converted.info)
    known = replace(overrides, spacing_um=info.spacing_um, channel=info.channel, study=info.study)
    info = understand(info, Facts(), known)
    return LazyVolume(info, read, converted.close)


def find_volumes(where: Path | str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Volumes named by a file, a folder (searched recursively) or a glob pattern, sorted.

    An OME-Zarr folder counts as one volume. Hidden files, half-written ones among them, are left out.

    Of an address the OME-Zarr there, or those in the folder there.

    Raises
    ------
    NotFoundError
        When nothing usable is there, naming what was looked for.
    """
    path = Path(where)
    wanted = tuple(suffix.lower() for suffix in suffixes)
    address = address_of(where)
    if address is not None:
        return _found(where, _remote_volumes(address), wanted, folder=True)
    folder = path.is_dir()
    if folder and (path.suffix.lower() in ZARR_SUFFIXES or is_zarr_group(path)):
        return [path]
    if not folder and (path.exists() or path.is_symlink()):
        return [path]
    seen: set[tuple[int, int]] = set()
    if folder:
        found = _volumes_below(path, wanted, seen)
    else:
        matches = sorted(Path(match) for match in glob.glob(str(where), recursive=True))  # noqa: PTH207
        found = [match for match in matches if _is_volume(match, wanted)]
        for match in matches:
            if _is_plain_folder(match):
                found += _volumes_below(match, wanted, seen)
    return _found(where, found, wanted, folder=folder)


def _found(where: Path | str, found: list[Path], wanted: tuple[str, ...], *, folder: bool) -> list[Path]:
    if not found:
        what = "a folder without any" if folder else "nothing"
        raise NotFoundError(f"{where}: expected volumes ({', '.join(wanted)}), got {what}")
    return sorted(set(found))


def _remote_volumes(address: str) -> list[Path]:
    from lightsheet.volumes.remote.store import remote_volumes  # fsspec only where something is remote

    return remote_volumes(address)


def is_one_volume(where: Path) -> bool:
    """Whether a path, or an address, names one volume and not a folder of them."""
    if where.is_file():
        return True
    return (where.is_dir() or address_of(where) is not None) and find_volumes(where) == [where]


def _volumes_below(folder: Path, wanted: tuple[str, ...], seen: set[tuple[int, int]]) -> list[Path]:
    """Volumes in a folder and those below it; each folder is gone through once, however it is linked."""
    found: list[Path] = []
    try:
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            return []
        seen.add((place.st_dev, place.st_ino))
        entries = sorted(folder.iterdir())
    except OSError:
        return [folder]  # why it can't be read is told where it is opened
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_volume(entry, wanted):
            found.append(entry)
        elif _is_plain_folder(entry):
            found += _volumes_below(entry, wanted, seen)
    return found


def _is_volume(path: Path, wanted: tuple[str, ...]) -> bool:
    """Whether the name says so; what is no file or no folder is told where it is opened."""
    suffix = path.suffix.lower()
    return suffix in wanted and (suffix in ZARR_SUFFIXES or not path.is_dir())


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() not in ZARR_SUFFIXES


def usable(data: NDArray[Any] | LazyVolume) -> str | None:
    """Why a volume carries no information (all zero, constant, saturated), or None when it does.

    Saturated means that at least half of the voxels have the highest value that occurs.
    """
    slabs: Iterable[NDArray[Any]] = data.slabs() if isinstance(data, LazyVolume) else data
    low, high, at_high, voxels = np.inf, -np.inf, 0, 0
    for slab in slabs:
        voxels += slab.size
        low = min(low, float(slab.min()))
        top = float(slab.max())
        if top > high:
            high, at_high = top, 0
        if top == high:
            at_high += int(np.count_nonzero(slab == slab.dtype.type(high)))
    if low == high:
        return "all voxels are 0" if high == 0 else f"all voxels have the value {high:g}"
    if at_high >= SATURATED_FRACTION * voxels:
        return f"saturated: {100 * at_high / voxels:.0f} % of the voxels have the highest value {high:g}"
    return None
