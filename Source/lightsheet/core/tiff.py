"""TIFF in, lazily: which pages are the volume's planes, and refusal of files that hold none.

Contiguous data are read by their offset, so that a slab costs only its own bytes and a whole volume
is held once. Compressed and tiled files are decoded page by page.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX
from lightsheet.core.errors import VolumeError
from lightsheet.core.lazy import LazyVolume
from lightsheet.core.metadata import understand
from lightsheet.core.progress import LOG
from lightsheet.core.tiff_metadata import facts_of, imagej_keys, shaped_keys
from lightsheet.core.volume import Overrides, VolumeInfo

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_STACKING_AXES = "ZIQ"  # Z, and the two letters tifffile gives to axes without a name
_SIGNS_OF_A_CUT = (  # in what tifffile logs
    "invalid page offset",
    "invalid offset to page",
    "corrupted tag list",
    "TiffTag 270",
)
_AXIS_WORDS = {"C": "channels", "T": "time points", "S": "samples (RGB)"}


def open_tiff(path: Path, overrides: Overrides) -> LazyVolume:
    """Open a TIFF as a lazy volume.

    Raises
    ------
    VolumeError
        When the file is no TIFF, is truncated, or is not one volume of at least 2 planes of numbers.
    MetadataError
        When spacing, channel or study are nonsense and not overridden.
    """
    source = str(path)
    with _tifffile_complaints() as complaints:
        tif = _open(path)
        try:
            series, shape = _volume_series(tif, source, complaints)
            facts, said = facts_of(tif)
            info = VolumeInfo(source, shape, series.dtype.name, metadata=said)
            info = understand(info, facts, overrides)
            offset = _contiguous_offset(tif, series, source)
        except BaseException:
            tif.close()
            raise
    if offset is None:
        return LazyVolume(info, lambda z0, z1: _decode(tif, series, info, z0, z1), tif.close)
    tif.close()
    stored = series.dtype.newbyteorder(tif.byteorder)
    return LazyVolume(info, lambda z0, z1: _read_at(path, offset, stored, info, z0, z1))


def _open(path: Path) -> tifffile.TiffFile:
    try:
        tif = tifffile.TiffFile(path)
        if not _pages_contradict(tif):
            return tif
        tif.close()
        return tifffile.TiffFile(path, is_shaped=False)
    except OSError:
        raise
    except Exception as error:
        size = path.stat().st_size
        what = "an empty file" if size == 0 else f"'{error}' in {size} bytes"
        raise VolumeError(f"{path}: expected a TIFF, got {what}") from error


def _pages_contradict(tif: tifffile.TiffFile) -> bool:
    """Whether the JSON's shape ends otherwise than the pages, so that they are read without it."""
    promised, pages = shaped_keys(tif).get("shape"), len(tif.pages)
    if not isinstance(promised, list) or pages == 1:
        return False
    return tuple(promised[-2:]) != tuple(n for n in tif.pages[0].shape if n > 1)[:2]


@contextlib.contextmanager
def _tifffile_complaints() -> Iterator[list[str]]:
    """Collect what tifffile would log, so that a bad file gives one line of ours."""
    complaints: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _volume_series(
    tif: tifffile.TiffFile, source: str, complaints: list[str]
) -> tuple[tifffile.TiffPageSeries, ZYX]:
    """Series of planes and its shape (Z, Y, X), or the reason why there is none."""
    try:
        pages, all_series = len(tif.pages), tif.series
    except Exception as error:
        raise VolumeError(
            f"{source}: expected readable pages, got '{error}'; damaged or truncated"
        ) from error
    if any(sign in text for sign in _SIGNS_OF_A_CUT for text in complaints):
        raise VolumeError(f"{source}: expected a whole TIFF, got one that is cut off after {pages} pages")
    if not all_series:
        raise VolumeError(f"{source}: expected a TIFF with an image, got none")
    series = all_series[0]
    shape = tuple(series.shape)
    _refuse_rgb(series, source)
    _check_promised_shape(tif, source, shape)
    if len(all_series) > 1:
        raise VolumeError(f"{source}: expected one volume, got {len(all_series)} images in one file")
    zyx = _zyx_shape(series, shape, source)
    if series.dtype is None or series.dtype.name not in DTYPES:
        raise VolumeError(f"{source}: expected whole or real numbers, got values of type {series.dtype}")
    return series, zyx


def _check_promised_shape(tif: tifffile.TiffFile, source: str, shape: tuple[int, ...]) -> None:
    """Refuse metadata that promise other voxels than there are: they, or the file's end, are missing."""
    got = sorted(n for n in shape if n > 1)
    promised = shaped_keys(tif).get("shape")
    if isinstance(promised, (list, tuple)) and all(isinstance(n, int) for n in promised):
        if sorted(n for n in promised if n > 1) != got:
            raise _broken_promise(source, f"the shape {_times(promised)}", shape)
        if [n for n in promised if n > 1] != [n for n in shape if n > 1]:
            LOG.warning("%s: metadata tell the shape in another order; pages are taken as planes", source)
        return
    lines = imagej_keys(tif)
    planes = math.prod(int(lines.get(key, 1)) for key in ("channels", "slices", "frames"))
    if lines and planes > 1 and planes * tif.pages[0].size != math.prod(shape):
        raise _broken_promise(source, f"{planes} planes", shape)


def _broken_promise(source: str, promised: str, shape: tuple[int, ...]) -> VolumeError:
    return VolumeError(
        f"{source}: expected {promised} as its metadata tell, got {_times(shape)}; "
        "truncated, or metadata of another volume"
    )


def _times(shape: Any) -> str:
    return " x ".join(str(n) for n in shape)


def _refuse_rgb(series: tifffile.TiffPageSeries, source: str) -> None:
    samples = series.keyframe.samplesperpixel
    if samples > 1:
        raise VolumeError(f"{source}: expected one grey value per voxel, got RGB ({samples} samples)")


def _zyx_shape(series: tifffile.TiffPageSeries, shape: tuple[int, ...], source: str) -> ZYX:
    """Shape without singleton axes other than Z, Y, X."""
    axes = series.axes.upper()
    if len(axes) != len(shape):
        axes = "Q" * (len(shape) - len(series.keyframe.axes)) + series.keyframe.axes
    named = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis != "S"]
    if "".join(axis for axis, _ in named[-2:]) != "YX":
        raise VolumeError(f"{source}: expected axes Z, Y, X, got {', '.join(axis for axis, _ in named)}")
    height, width = (n for _, n in named[-2:])
    stacked = [(axis, n) for axis, n in named[:-2] if n > 1]
    if not stacked:
        raise VolumeError(
            f"{source}: expected a volume of at least 2 planes, got 1 plane of {height} x {width} (2D)"
        )
    if len(stacked) > 1 or stacked[0][0] not in _STACKING_AXES:
        told = ", ".join(f"{n} {_AXIS_WORDS.get(axis, axis)}" for axis, n in stacked)
        raise VolumeError(
            f"{source}: expected 3 axes Z, Y, X, got {told} of {height} x {width}; "
            "save one channel and one time point, with its planes as Z"
        )
    return stacked[0][1], height, width


def _contiguous_offset(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, source: str) -> int | None:
    """Where the voxels begin when they lie in one piece; refuses a file that ends before its data."""
    size = tif.filehandle.size
    offset = series.dataoffset
    if offset is not None:
        needed = offset + series.nbytes
        if needed > size:
            raise VolumeError(f"{source}: expected {needed} bytes, got {size}: the TIFF is truncated")
        return int(offset)
    for number, page in enumerate(series.pages):
        if page is None:
            raise VolumeError(f"{source}: expected plane {number}, got none: the TIFF is incomplete")
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
        needed = max(ends, default=0)
        if needed > size:
            raise VolumeError(
                f"{source}: expected {needed} bytes, got {size}: the TIFF is truncated in plane {number}"
            )
    return None


def _read_at(
    path: Path, offset: int, stored: np.dtype[Any], info: VolumeInfo, z0: int, z1: int
) -> NDArray[Any]:
    _, height, width = info.shape_zyx
    plane = height * width
    count = (z1 - z0) * plane
    data = np.fromfile(path, stored, count, offset=offset + z0 * plane * stored.itemsize)
    if data.size != count:
        raise VolumeError(f"{path}: expected {count} voxels, got {data.size}: the file became shorter")
    if not stored.isnative:
        data = data.byteswap(inplace=True).view(stored.newbyteorder("="))
    return data.reshape(z1 - z0, height, width)


def _decode(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, info: VolumeInfo, z0: int, z1: int
) -> NDArray[Any]:
    depth, height, width = info.shape_zyx
    out = np.empty((z1 - z0, height, width), series.dtype.newbyteorder("="))
    try:
        with _tifffile_complaints():
            if len(series.pages) != depth:  # planes are not pages, as in tiles that span Z
                out[...] = series.asarray().reshape(info.shape_zyx)[z0:z1]
            else:
                for z in range(z0, z1):
                    out[z - z0] = series.pages[z].asarray().reshape(height, width)
    except (ValueError, RuntimeError, OSError, KeyError, IndexError) as error:
        raise VolumeError(
            f"{info.source}: expected pixel data that can be decoded, "
            f"got '{error}' in planes {z0} to {z1 - 1}"
        ) from error
    return out
