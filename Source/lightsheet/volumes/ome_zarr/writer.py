"""OME-Zarr 0.4 and 0.5 out: a folder written layer by layer of chunks, with smaller levels for viewers.

Channel, study and provenance are kept in the group's attributes under ``lightsheet``.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from yaozarrs import v04, v05
from zarr.codecs import BloscCodec

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.intensity import limits_of
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY, kept_metadata

OmeZarrVersion = Literal["0.4", "0.5"]
CHUNK_ZYX: ZYX = (16, 256, 256)
_LARGEST_THUMBNAIL = 512
# Sums of eight of these fit; others are summed in 64 bits.
_SUMS = {"uint8": np.dtype(np.uint32), "uint16": np.dtype(np.uint32)}
_SIZE_KEYS = ("spacing", "unit", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ")


class ZarrSink:
    """Writes planes in order into a new OME-Zarr folder, with smaller levels for viewers.

    Parameters
    ----------
    folder : where to write; must not exist
    info : shape, type, spacing and metadata
    provenance : how the volume was made; kept in the attributes
    version : version of OME-Zarr
    """

    def __init__(
        self, folder: Path, info: VolumeInfo, provenance: dict[str, Any] | None, version: OmeZarrVersion
    ) -> None:
        self._levels = plan_levels(info.shape_zyx, info.spacing_um)
        create_group(folder, info, provenance, version)
        self._arrays = create_levels(folder, info, version)
        thickness = self._arrays[0].chunks[0]
        self._buffer = np.empty((thickness, *info.shape_zyx[1:]), info.dtype)
        self._first = 0
        self._filled = 0

    def put(self, planes: NDArray[Any]) -> None:
        """Append planes (Z, Y, X) in the type of ``info``; written when a layer of chunks is full."""
        while len(planes):
            room = len(self._buffer) - self._filled
            taken, planes = planes[:room], planes[room:]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            if self._filled == len(self._buffer):
                self._flush()

    def finish(self) -> None:
        """Write what is left and the smaller levels."""
        self._flush()
        for level in range(1, len(self._arrays)):
            shrink(self._arrays[level - 1], self._arrays[level], self._levels[level][1])

    def close(self) -> None:
        """Nothing is held open."""

    def _flush(self) -> None:
        if self._filled:
            self._arrays[0][self._first : self._first + self._filled] = self._buffer[: self._filled]
            self._first += self._filled
            self._filled = 0


def create_group(
    place: Any, info: VolumeInfo, provenance: dict[str, Any] | None, version: OmeZarrVersion
) -> None:
    """Write what makes a place an image: sizes, levels, and our own attributes.

    Parameters
    ----------
    place : folder, or a place in one of zarr's stores
    """
    attributes = attributes_of(info, provenance, version)
    zarr_format: Literal[2, 3] = 2 if version == "0.4" else 3
    zarr.create_group(place, zarr_format=zarr_format, attributes=attributes)


def attributes_of(
    info: VolumeInfo, provenance: dict[str, Any] | None, version: OmeZarrVersion
) -> dict[str, Any]:
    """Return the attributes of an image's group: sizes, levels, and our own."""
    kept = kept_metadata(info, provenance)
    ours = {key: value for key, value in kept.items() if key not in _SIZE_KEYS}
    if PROVENANCE_KEY in ours:
        ours["provenance"] = ours.pop(PROVENANCE_KEY)
    levels = plan_levels(info.shape_zyx, info.spacing_um)
    return {**_image_metadata(info, levels, version), PROVENANCE_KEY: ours}


def create_levels(place: Any, info: VolumeInfo, version: OmeZarrVersion) -> list[zarr.Array[Any]]:
    """Make the arrays of all levels, without voxels."""
    levels = plan_levels(info.shape_zyx, info.spacing_um)
    return [
        create_array(place / str(level), shape, info.dtype, version)
        for level, (shape, _) in enumerate(levels)
    ]


def create_array(
    path: Any, shape: ZYX, dtype: str, version: OmeZarrVersion, *, overwrite: bool = False
) -> zarr.Array[Any]:
    """Make an array (Z, Y, X) of no voxels yet."""
    chunks = tuple(min(n, c) for n, c in zip(shape, CHUNK_ZYX, strict=True))
    if version == "0.4":
        return zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            zarr_format=2,
            fill_value=0,
            overwrite=overwrite,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=0,
        overwrite=overwrite,
        compressors=BloscCodec(
            cname="zstd", clevel=1, shuffle="bitshuffle", typesize=np.dtype(dtype).itemsize
        ),
        dimension_names=("z", "y", "x"),
    )


def plan_levels(shape: ZYX, spacing_um: SpacingUm | None) -> list[tuple[ZYX, ZYX]]:
    """Shape of each level and its factor to the level before; Z is halved while it is the finer axis."""
    levels: list[tuple[ZYX, ZYX]] = [(shape, (1, 1, 1))]
    size = list(spacing_um or (1.0, 1.0, 1.0))
    while max(shape[1:]) > _LARGEST_THUMBNAIL:
        factor: ZYX = (2 if size[0] <= size[2] and shape[0] > 1 else 1, 2, 2)
        size = [s * f for s, f in zip(size, factor, strict=True)]
        depth, height, width = (-(-n // f) for n, f in zip(shape, factor, strict=True))
        shape = (depth, height, width)
        levels.append((shape, factor))
    return levels


def _image_metadata(
    info: VolumeInfo, levels: list[tuple[ZYX, ZYX]], version: OmeZarrVersion
) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "space"}
    if info.spacing_um is not None:
        axis["unit"] = "micrometer"
    unit = np.array(info.spacing_um or (1.0, 1.0, 1.0))
    total = np.ones(len("zyx"))
    datasets = []
    for level, (_, factor) in enumerate(levels):
        total = total * factor
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": (unit * total).tolist()}]
        if level:  # the centre of a block of voxels lies between its voxels' centres
            steps.append({"type": "translation", "translation": (unit * (total - 1) / 2).tolist()})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    multiscale = {
        "name": Path(info.source).name.split(".")[0] or "volume",
        "axes": [{"name": name, **axis} for name in "zyx"],
        "datasets": datasets,
        "type": "mean",
    }
    if version == "0.4":
        old = v04.Image.model_validate({"multiscales": [multiscale]})
        return old.model_dump(mode="json", exclude_none=True)
    new = v05.Image.model_validate({"version": "0.5", "multiscales": [multiscale]})
    return {"ome": new.model_dump(mode="json", exclude_none=True)}


def shrink(
    source: zarr.Array[Any], target: zarr.Array[Any], factor: ZYX, planes: tuple[int, int] | None = None
) -> None:
    """Write block means of ``source`` into ``target``, one layer of chunks at a time; nothing wraps.

    Parameters
    ----------
    planes : of ``target`` to write, from the first of a layer of chunks to that of another or the end
    """
    dtype = np.dtype(source.dtype)
    real = dtype.kind == "f" or dtype.itemsize == np.dtype(np.int64).itemsize  # whose sums would wrap
    sums = _SUMS.get(dtype.name, np.dtype(np.float64 if real else np.int64))
    step = target.chunks[0]
    first, stop = planes or (0, target.shape[0])
    for z0 in range(first, stop, step):
        z1 = min(z0 + step, stop)
        slab = np.asarray(source[z0 * factor[0] : z1 * factor[0]])
        wanted = ((z1 - z0) * factor[0], target.shape[1] * factor[1], target.shape[2] * factor[2])
        missing = [(0, w - n) for w, n in zip(wanted, slab.shape, strict=True)]
        slab = np.pad(slab, missing, mode="edge")
        fz, fy, fx = factor
        total = np.zeros((z1 - z0, *target.shape[1:]), sums)
        for dz, dy, dx in np.ndindex(fz, fy, fx):
            total += slab[dz::fz, dy::fy, dx::fx]
        count = fz * fy * fx
        means = np.clip(total / count, *limits_of(dtype)) if real else (total + count // 2) // count
        target[z0:z1] = means.astype(dtype)
