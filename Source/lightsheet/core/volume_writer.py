"""Volumes out: counts by rounding and clipping, written slab by slab, read back, then renamed.

A written number never wraps: it is rounded to the nearest count, clipped to 0 to 65535, and the clipped
fraction is told. Nothing half-written stays: the file is made beside its place and renamed when its
voxels and metadata have been read back and agree.
"""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import OutputError, VolumeError
from lightsheet.core.files import written_beside
from lightsheet.core.jit import compiled
from lightsheet.core.ome_zarr import OmeZarrVersion, ZarrSink, open_zarr
from lightsheet.core.progress import LOG
from lightsheet.core.tiff import open_tiff
from lightsheet.core.tiff_writer import TiffSink
from lightsheet.core.volume import Overrides, VolumeInfo

HIGHEST_COUNT = 65535
WRITE_SUFFIXES = (".tif", ".tiff", ".zarr")


@dataclass(frozen=True)
class WriteReport:
    """What became of a written volume.

    Attributes
    ----------
    path : the file or folder
    clipped_fraction : share of voxels that were below 0 or above 65535 after rounding
    voxels : number of voxels
    """

    path: Path
    clipped_fraction: float
    voxels: int


class _Sink(Protocol):
    def put(self, planes: NDArray[np.uint16]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class VolumeWriter:
    """Takes slabs in order along Z; made by :func:`volume_writer`."""

    def __init__(self, target: Path, info: VolumeInfo, sink: _Sink) -> None:
        self._target, self._info, self._sink = target, info, sink
        self._checksums: list[int] = []
        self._clipped = 0
        self._report: WriteReport | None = None

    @property
    def report(self) -> WriteReport:
        """What became of the volume; known when the writer has closed without an error."""
        if self._report is None:
            raise OutputError(f"{self._target}: expected a finished volume, got one still being written")
        return self._report

    def write(self, slab: NDArray[Any]) -> None:
        """Append planes (Z, Y, X), or one plane (Y, X), of any real type.

        Raises
        ------
        VolumeError
            When the planes have another size than the volume, are too many, or hold NaN or infinity.
        """
        planes = slab[None] if slab.ndim == len("yx") else slab
        depth, height, width = self._info.shape_zyx
        left = depth - len(self._checksums)
        if planes.shape[1:] != (height, width) or len(planes) > left:
            raise VolumeError(
                f"{self._target}: expected at most {left} planes of {height} x {width}, "
                f"got an array of shape {slab.shape}"
            )
        for plane in planes:
            counts = self._counts(plane)
            self._checksums.append(zlib.crc32(counts.data))
            self._sink.put(counts[None])

    def finish(self, written: Path) -> None:
        """Close the file and compare what it holds with what was given.

        Raises
        ------
        OutputError
            When voxels or metadata read back differ.
        VolumeError
            When planes are missing.
        """
        if len(self._checksums) != self._info.shape_zyx[0]:
            raise VolumeError(
                f"{self._target}: expected {self._info.shape_zyx[0]} planes, got {len(self._checksums)}"
            )
        self._sink.finish()
        self._sink.close()
        _compare(written, self._target, self._info, self._checksums)

    def conclude(self) -> None:
        """Make the report, and warn when values were clipped."""
        fraction = self._clipped / self._info.voxels
        self._report = WriteReport(self._target, fraction, self._info.voxels)
        if self._clipped:
            LOG.warning(
                "%s: %.3g %% of the voxels (%d) were clipped to 0 to %d",
                self._target,
                100 * fraction,
                self._clipped,
                HIGHEST_COUNT,
            )

    def _counts(self, plane: NDArray[Any]) -> NDArray[np.uint16]:
        if plane.dtype == np.uint16:
            return np.ascontiguousarray(plane)
        counts, clipped, bad = round_to_counts(plane)
        if bad:
            raise VolumeError(
                f"{self._target}: expected finite values to write, got {bad} NaN or infinite ones "
                f"in plane {len(self._checksums)}"
            )
        self._clipped += clipped
        return counts


def round_to_counts(values: NDArray[Any]) -> tuple[NDArray[np.uint16], int, int]:
    """Return counts of ``values``, how many were clipped, and how many were not finite (these become 0)."""
    flat = np.ascontiguousarray(values).reshape(-1)
    counts = np.empty(flat.size, np.uint16)
    clipped, bad = _round_and_clip(flat, counts)
    return counts.reshape(values.shape), int(clipped), int(bad)


@compiled()
def _round_and_clip(values: NDArray[Any], counts: NDArray[np.uint16]) -> tuple[int, int]:
    clipped = bad = 0
    for i in range(values.size):
        value = np.rint(np.float64(values[i]))
        if not np.isfinite(value):
            bad += 1
            counts[i] = 0
        elif value < 0:
            clipped += 1
            counts[i] = 0
        elif value > HIGHEST_COUNT:
            clipped += 1
            counts[i] = HIGHEST_COUNT
        else:
            counts[i] = np.uint16(value)
    return clipped, bad


@contextlib.contextmanager
def volume_writer(
    path: Path,
    info: VolumeInfo,
    *,
    provenance: dict[str, Any] | None = None,
    ome_zarr_version: OmeZarrVersion = "0.5",
) -> Iterator[VolumeWriter]:
    """Write a volume slab by slab; the format follows the name.

    ``.tif`` and ``.tiff`` are BigTIFF with ImageJ's lines and tifffile's JSON, ``.ome.tif`` is OME-TIFF,
    ``.zarr`` (and ``.ome.zarr``) is OME-Zarr.

    Parameters
    ----------
    path : where the volume goes; replaced only when everything went well
    info : shape, spacing, channel, study and other metadata to keep
    provenance : how the volume was made, as JSON; read back as ``info.metadata["lightsheet"]``
    ome_zarr_version : for ``.zarr`` only

    Raises
    ------
    OutputError
        When the name has another suffix, the disk is full, or what was read back differs.
    VolumeError
        When the slabs do not make up the volume or hold NaN.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITE_SUFFIXES:
        raise OutputError(
            f"{path}: expected a name that ends in .tif, .ome.tif or .zarr, got '{path.suffix}'"
        )
    with written_beside(path) as partial:
        sink: _Sink
        if path.suffix.lower() == ".zarr":
            sink = ZarrSink(partial, info, provenance, ome_zarr_version)
        else:
            sink = TiffSink(partial, path, info, provenance)
        writer = VolumeWriter(path, info, sink)
        try:
            yield writer
            writer.finish(partial)
        finally:
            sink.close()
    writer.conclude()


def write_volume(
    path: Path,
    data: NDArray[Any],
    info: VolumeInfo,
    provenance: dict[str, Any] | None = None,
    *,
    ome_zarr_version: OmeZarrVersion = "0.5",
) -> WriteReport:
    """Write a whole volume (Z, Y, X); see :func:`volume_writer`."""
    with volume_writer(path, info, provenance=provenance, ome_zarr_version=ome_zarr_version) as writer:
        writer.write(data)
    return writer.report


def _compare(written: Path, target: Path, info: VolumeInfo, checksums: list[int]) -> None:
    """Read back slab by slab; raise when a plane or a fact differs."""
    opener = open_zarr if written.is_dir() else open_tiff
    with opener(written, Overrides()) as volume:
        found = replace(volume.info, dtype=info.dtype)
        if found.shape_zyx != info.shape_zyx or (found.channel, found.study) != (info.channel, info.study):
            raise _mismatch(target, "shape, channel or study")
        if (found.spacing_um is None) != (info.spacing_um is None) or (
            found.spacing_um
            and info.spacing_um
            and not np.allclose(found.spacing_um, info.spacing_um, rtol=1e-6)
        ):
            raise _mismatch(target, "the voxel size")
        plane = 0
        for slab in volume.slabs():
            for counts in slab:
                if zlib.crc32(np.ascontiguousarray(counts).data) != checksums[plane]:
                    raise _mismatch(target, f"plane {plane}")
                plane += 1


def _mismatch(target: Path, what: str) -> OutputError:
    return OutputError(f"{target}: expected to read back what was written, got a difference in {what}")
