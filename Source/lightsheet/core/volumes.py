"""The one door to volumes on disk, whatever the format: TIFF, our H5 files, OME-Zarr."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import NotFoundError, VolumeError
from lightsheet.core.lazy import LazyVolume, check_finite
from lightsheet.core.metadata import Facts, understand
from lightsheet.core.ome_zarr import open_zarr
from lightsheet.core.tiff import open_tiff
from lightsheet.core.volume import Overrides, Volume, VolumeInfo
from lightsheet.core.volume_writer import (
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
    "check_content",
    "find_volumes",
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
    if not path.exists():
        raise NotFoundError(f"{path}: expected a volume, got no such file")
    suffix = path.suffix.lower()
    if path.is_dir():
        if suffix not in ZARR_SUFFIXES:
            raise VolumeError(f"{path}: expected a file or a folder that ends in .zarr, got another folder")
        return open_zarr(path, overrides)
    if suffix in H5_SUFFIXES:
        return _open_h5(path, overrides)
    return open_tiff(path, overrides)


def _open_h5(path: Path, overrides: Overrides) -> LazyVolume:
    from lightsheet.core.h5 import ConvertedVolume

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

    Raises
    ------
    NotFoundError
        When nothing usable is there, naming what was looked for.
    """
    path = Path(where)
    wanted = tuple(suffix.lower() for suffix in suffixes)
    if path.is_file() or (path.is_dir() and path.suffix.lower() in ZARR_SUFFIXES):
        return [path]
    if path.is_dir():
        found = _volumes_below(path, wanted)
    else:
        matches = sorted(Path(match) for match in glob.glob(str(where), recursive=True))  # noqa: PTH207
        found = [match for match in matches if _is_volume(match, wanted)]
        found += [v for match in matches if _is_plain_folder(match) for v in _volumes_below(match, wanted)]
    if not found:
        what = "a folder without any" if path.is_dir() else "nothing"
        raise NotFoundError(f"{where}: expected volumes ({', '.join(wanted)}), got {what}")
    return sorted(set(found))


def _volumes_below(folder: Path, wanted: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if _is_volume(entry, wanted):
            found.append(entry)
        elif _is_plain_folder(entry):
            found += _volumes_below(entry, wanted)
    return found


def _is_volume(path: Path, wanted: tuple[str, ...]) -> bool:
    suffix = path.suffix.lower()
    return suffix in wanted and path.is_dir() == (suffix in ZARR_SUFFIXES)


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() not in ZARR_SUFFIXES


def check_content(data: NDArray[Any], source: str) -> None:
    """Refuse NaN and infinite values.

    Raises
    ------
    VolumeError
        Naming the file and the first plane concerned.
    """
    check_finite(data, source)


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
