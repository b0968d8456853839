"""Volumes out, of any type: written slab by slab, read back, then renamed.

A written number never wraps: in whole types it is rounded to the nearest one and clipped to the type's range.
Little that was clipped is told, much of it is an error unless it was asked for. Nothing half-written stays:
the file is made beside its place and renamed when its voxels and metadata have been read back and agree.
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
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.ome_zarr.reader import open_zarr
from lightsheet.volumes.ome_zarr.writer import OmeZarrVersion, ZarrSink
from lightsheet.volumes.result_types import Cut, ResultType, stored_as
from lightsheet.volumes.seal import PENDING, SEAL, put_seal
from lightsheet.volumes.tiff.reader import open_tiff
from lightsheet.volumes.tiff.writer import TiffSink

WRITE_SUFFIXES = (".tif", ".tiff", ".zarr")


@dataclass(frozen=True)
class WriteReport:
    """What became of a written volume.

    Attributes
    ----------
    path : the file or folder
    clipped_fraction : share of voxels that were beyond the range of the type, after rounding
    voxels : number of voxels
    """

    path: Path
    clipped_fraction: float
    voxels: int


class _Sink(Protocol):
    def put(self, planes: NDArray[Any]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class VolumeWriter:
    """Takes slabs in order along Z; made by :func:`volume_writer`."""

    def __init__(self, target: Path, info: VolumeInfo, sink: _Sink, form: ResultType) -> None:
        self._target, self._info, self._sink, self._form = target, info, sink, form
        self._checksums: list[int] = []
        self._cut = Cut()
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
            stored, bad = stored_as(plane, self._form, self._cut)
            if bad:
                raise VolumeError(
                    f"{self._target}: expected finite values to write, got {bad} NaN or infinite ones "
                    f"in plane {len(self._checksums)}"
                )
            self._checksums.append(zlib.crc32(stored.data))
            self._sink.put(stored[None])

    def finish(self, written: Path) -> None:
        """Close the file and compare what it holds with what was given.

        Raises
        ------
        OutputError
            When voxels or metadata read back differ, or too many voxels would be clipped.
        VolumeError
            When planes are missing.
        """
        if len(self._checksums) != self._info.shape_zyx[0]:
            raise VolumeError(
                f"{self._target}: expected {self._info.shape_zyx[0]} planes, got {len(self._checksums)}"
            )
        self._cut.refuse_much(self._target, self._info.voxels, self._form)
        self._sink.finish()
        self._sink.close()
        _compare(written, self._target, self._info, self._checksums)

    def conclude(self) -> None:
        """Make the report, and warn when values were clipped."""
        fraction = self._cut.clipped / self._info.voxels
        self._report = WriteReport(self._target, fraction, self._info.voxels)
        self._cut.tell(self._target, self._info.voxels, self._form)


@contextlib.contextmanager
def volume_writer(
    path: Path,
    info: VolumeInfo,
    *,
    provenance: dict[str, Any] | None = None,
    ome_zarr_version: OmeZarrVersion = "0.5",
    form: ResultType | None = None,
) -> Iterator[VolumeWriter]:
    """Write a volume slab by slab; the format follows the name.

    ``.tif`` and ``.tiff`` are BigTIFF with ImageJ's lines and tifffile's JSON, ``.ome.tif`` is OME-TIFF,
    ``.zarr`` (and ``.ome.zarr``) is OME-Zarr.

    Parameters
    ----------
    path : where the volume goes; replaced only when everything went well
    info : shape, type, spacing, channel, study and other metadata to keep
    provenance : how the volume was made, as JSON; read back as ``info.metadata["lightsheet"]``; a seal that
        is pending in it is filled in
    ome_zarr_version : for ``.zarr`` only
    form : how the volume is stored; default: in the type that ``info`` has

    Raises
    ------
    OutputError
        When the name has another suffix, the disk is full, what was read back differs, or more than a per
        mille of the voxels would be clipped and ``form`` does not allow it.
    VolumeError
        When the slabs do not make up the volume or hold NaN.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITE_SUFFIXES:
        raise OutputError(
            f"{path}: expected a name that ends in .tif, .ome.tif or .zarr, got '{path.suffix}'"
        )
    form = form or ResultType("float32" if info.dtype == "float16" else info.dtype)
    info = replace(info, dtype=form.dtype)
    with written_beside(path) as partial:
        sink: _Sink
        if path.suffix.lower() == ".zarr":
            sink = ZarrSink(partial, info, provenance, ome_zarr_version)
        else:
            sink = TiffSink(partial, path, info, provenance)
        writer = VolumeWriter(path, info, sink, form)
        try:
            yield writer
            writer.finish(partial)
            if provenance is not None and provenance.get(SEAL) == PENDING:
                put_seal(partial)
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
    form: ResultType | None = None,
) -> WriteReport:
    """Write a whole volume (Z, Y, X); see :func:`volume_writer`."""
    with volume_writer(
        path, info, provenance=provenance, ome_zarr_version=ome_zarr_version, form=form
    ) as writer:
        writer.write(data)
    return writer.report


def _compare(written: Path, target: Path, info: VolumeInfo, checksums: list[int]) -> None:
    """Read back slab by slab; raise when a plane or a fact differs."""
    opener = open_zarr if written.is_dir() else open_tiff
    with opener(written, Overrides()) as volume:
        found = volume.info
        if found.dtype != info.dtype:
            raise _mismatch(target, f"the type of its numbers ({found.dtype} for {info.dtype})")
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
            for stored in slab:
                if zlib.crc32(np.ascontiguousarray(stored).data) != checksums[plane]:
                    raise _mismatch(target, f"plane {plane}")
                plane += 1


def _mismatch(target: Path, what: str) -> OutputError:
    return OutputError(f"{target}: expected to read back what was written, got a difference in {what}")
