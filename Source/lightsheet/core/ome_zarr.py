"""OME-Zarr 0.4 and 0.5 in and out: metadata by yaozarrs' models, arrays by zarr, level 0 read lazily.

Channel, study and provenance are kept in the group's attributes under ``lightsheet``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from yaozarrs import v04, v05
from zarr.codecs import BloscCodec

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.errors import VolumeError
from lightsheet.core.lazy import LazyVolume
from lightsheet.core.metadata import Facts, understand
from lightsheet.core.tiff import DTYPES
from lightsheet.core.tiff_metadata import PROVENANCE_KEY, kept_metadata
from lightsheet.core.volume import Overrides, VolumeInfo

OmeZarrVersion = Literal["0.4", "0.5"]
CHUNK_ZYX: ZYX = (16, 256, 256)
_LARGEST_THUMBNAIL = 512
_SIZE_KEYS = ("spacing", "unit", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ")
_PIXEL_AXES = 3


def open_zarr(path: Path, overrides: Overrides) -> LazyVolume:
    """Open level 0 of an OME-Zarr image as a lazy volume.

    Axes T and C are accepted when they hold one element.

    Raises
    ------
    VolumeError
        When the folder is no OME-Zarr image or not one volume of at least 2 planes.
    """
    source = str(path)
    attributes = _group_attributes(path)
    multiscale = _multiscale(attributes, source)
    array = _level_zero(path, multiscale.datasets[0].path)
    axes = [axis.name.lower() for axis in multiscale.axes]
    leading = _leading_axes(axes, array.shape, source)
    depth, height, width = array.shape[leading:]
    if np.dtype(array.dtype).name not in DTYPES:
        raise VolumeError(f"{source}: expected whole or real numbers, got values of type {array.dtype}")
    ours = attributes.get(PROVENANCE_KEY)
    said = dict(ours) if isinstance(ours, Mapping) else {}
    info = VolumeInfo(
        source, (depth, height, width), np.dtype(array.dtype).name, metadata=_with_provenance(said)
    )
    facts = Facts({**_sizes(multiscale), **{k: said.get(k) for k in ("channel", "study")}})
    info = understand(info, facts, overrides)

    def read(z0: int, z1: int) -> NDArray[Any]:
        try:
            return np.ascontiguousarray(array[(0,) * leading + (slice(z0, z1),)])
        except (RuntimeError, ValueError, OSError) as error:
            raise VolumeError(
                f"{source}: expected chunks that can be decoded, got '{error}' in planes {z0} to {z1 - 1}"
            ) from error

    return LazyVolume(info, read)


def _group_attributes(path: Path) -> dict[str, Any]:
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VolumeError(
            f"{path}: expected an OME-Zarr group, got a folder without a readable one"
        ) from error


def _multiscale(attributes: Mapping[str, Any], source: str) -> v04.Multiscale | v05.Multiscale:
    try:
        if "ome" in attributes:
            return v05.Image.model_validate(attributes["ome"]).multiscales[0]
        if "multiscales" in attributes:
            return v04.Image.model_validate({"multiscales": attributes["multiscales"]}).multiscales[0]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VolumeError(
            f"{source}: expected OME-Zarr 0.4 or 0.5 image metadata, got '{first['msg']}' at {where}"
        ) from error
    raise VolumeError(f"{source}: expected OME-Zarr 0.4 or 0.5 image metadata, got a group without them")


def _level_zero(path: Path, name: str) -> zarr.Array[Any]:
    try:
        return zarr.open_array(path / name, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VolumeError(
            f"{path}: expected the array '{name}' of level 0, got none that is readable"
        ) from error


def _leading_axes(axes: list[str], shape: tuple[int, ...], source: str) -> int:
    """Count the axes before Z, Y, X, which must have one element."""
    told = ", ".join(f"{axis}={n}" for axis, n in zip(axes, shape, strict=False))
    if axes[-_PIXEL_AXES:] != ["z", "y", "x"] or len(axes) != len(shape):
        raise VolumeError(f"{source}: expected axes z, y, x, got {told}")
    if any(n > 1 for n in shape[:-_PIXEL_AXES]):
        raise VolumeError(f"{source}: expected one channel and one time point, got {told}")
    if shape[-_PIXEL_AXES] < 2:
        raise VolumeError(f"{source}: expected a volume of at least 2 planes, got {told}")
    return len(axes) - _PIXEL_AXES


def _sizes(multiscale: v04.Multiscale | v05.Multiscale) -> dict[str, Any]:
    """Scale of level 0 under the keys of other formats; nothing when no unit and no scale is given."""
    scale = np.ones(len(multiscale.axes))
    for steps in (multiscale.datasets[0].coordinateTransformations, multiscale.coordinateTransformations):
        for step in steps or ():
            scale *= getattr(step, "scale", 1.0)
    spatial = list(zip(multiscale.axes, scale, strict=True))[-_PIXEL_AXES:]
    if all(getattr(axis, "unit", None) is None and size == 1 for axis, size in spatial):
        return {}
    sizes: dict[str, Any] = {}
    for axis, size in spatial:
        sizes[f"PhysicalSize{axis.name}"] = float(size)
        sizes[f"PhysicalSize{axis.name}Unit"] = getattr(axis, "unit", None) or "micrometer"
    return sizes


def _with_provenance(said: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in said.items() if key != "provenance"}
    return rest if said.get("provenance") is None else {**rest, PROVENANCE_KEY: said["provenance"]}


class ZarrSink:
    """Writes planes in order into a new OME-Zarr folder, with smaller levels for viewers.

    Parameters
    ----------
    folder : where to write; must not exist
    info : shape, spacing and metadata
    provenance : how the volume was made; kept in the attributes
    version : version of OME-Zarr
    """

    def __init__(
        self, folder: Path, info: VolumeInfo, provenance: dict[str, Any] | None, version: OmeZarrVersion
    ) -> None:
        self._folder, self._version = folder, version
        self._levels = _plan_levels(info.shape_zyx, info.spacing_um)
        kept = kept_metadata(info, provenance)
        ours = {key: value for key, value in kept.items() if key not in _SIZE_KEYS}
        if PROVENANCE_KEY in ours:
            ours["provenance"] = ours.pop(PROVENANCE_KEY)
        attributes = {**_image_metadata(info, self._levels, version), PROVENANCE_KEY: ours}
        zarr_format: Literal[2, 3] = 2 if version == "0.4" else 3
        zarr.create_group(folder, zarr_format=zarr_format, attributes=attributes)
        self._arrays = [
            _create_array(folder / str(level), shape, version)
            for level, (shape, _) in enumerate(self._levels)
        ]
        thickness = self._arrays[0].chunks[0]
        self._buffer = np.empty((thickness, *info.shape_zyx[1:]), np.uint16)
        self._first = 0
        self._filled = 0

    def put(self, planes: NDArray[np.uint16]) -> None:
        """Append planes (Z, Y, X); they are written when a layer of chunks is full."""
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
            _shrink(self._arrays[level - 1], self._arrays[level], self._levels[level][1])

    def close(self) -> None:
        """Nothing is held open."""

    def _flush(self) -> None:
        if self._filled:
            self._arrays[0][self._first : self._first + self._filled] = self._buffer[: self._filled]
            self._first += self._filled
            self._filled = 0


def _create_array(path: Path, shape: ZYX, version: OmeZarrVersion) -> zarr.Array[Any]:
    chunks = tuple(min(n, c) for n, c in zip(shape, CHUNK_ZYX, strict=True))
    if version == "0.4":
        return zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype="uint16",
            zarr_format=2,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype="uint16",
        fill_value=0,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2),
        dimension_names=("z", "y", "x"),
    )


def _plan_levels(shape: ZYX, spacing_um: SpacingUm | None) -> list[tuple[ZYX, ZYX]]:
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
    total = np.ones(_PIXEL_AXES)
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


def _shrink(source: zarr.Array[Any], target: zarr.Array[Any], factor: ZYX) -> None:
    """Write block means of ``source`` into ``target``, one layer of chunks at a time."""
    step = target.chunks[0]
    for z0 in range(0, target.shape[0], step):
        z1 = min(z0 + step, target.shape[0])
        slab = np.asarray(source[z0 * factor[0] : z1 * factor[0]])
        wanted = ((z1 - z0) * factor[0], target.shape[1] * factor[1], target.shape[2] * factor[2])
        missing = [(0, w - n) for w, n in zip(wanted, slab.shape, strict=True)]
        slab = np.pad(slab, missing, mode="edge")
        fz, fy, fx = factor
        total = np.zeros((z1 - z0, *target.shape[1:]), np.uint32)
        for dz, dy, dx in np.ndindex(fz, fy, fx):
            total += slab[dz::fz, dy::fy, dx::fx]
        count = fz * fy * fx
        target[z0:z1] = ((total + count // 2) // count).astype(np.uint16)
