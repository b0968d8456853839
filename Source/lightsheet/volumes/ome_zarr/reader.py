"""OME-Zarr 0.4 and 0.5 in: metadata by yaozarrs' models, arrays by zarr, level 0 read lazily.

Also as bioformats2raw writes it, with one image or more (``0``, ``1``, ...) below the root. Ours
(`volumes.ome_zarr.writer`) keep channel, study and provenance in the attributes under ``lightsheet``.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from yaozarrs import v04, v05

from lightsheet.core.errors import MetadataError, VolumeError
from lightsheet.core.progress import LOG
from lightsheet.volumes.foreign import foreign
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.metadata import Facts, understand
from lightsheet.volumes.ome_zarr.store import CheckedStore, FolderStore, open_array, read_attributes
from lightsheet.volumes.remote.addresses import address_of
from lightsheet.volumes.selecting import one_of, place_of
from lightsheet.volumes.tiff.metadata import PROVENANCE_KEY
from lightsheet.volumes.tiff.reader import DTYPES

_PIXEL_AXES = 3
_MOST_SERIES = 1000
_SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6}
_SECONDS |= {"minute": 60.0, "hour": 3600.0, "day": 86400.0}
Multiscale = v04.Multiscale | v05.Multiscale


def open_zarr(path: Path, overrides: Overrides) -> LazyVolume:
    """Open level 0 of an OME-Zarr image as a lazy volume; nothing outside the folder is read.

    Of several time points, channels or images the one is opened that ``overrides.select`` says.

    Raises
    ------
    VolumeError
        When the folder is no OME-Zarr image, not a volume of at least 2 planes, or holds several and it is
        not said which.
    """
    address = address_of(path)
    source = address or str(path)
    with foreign(source, "an OME-Zarr image"):
        store: CheckedStore = FolderStore(path) if address is None else _remote(address)
        group, attributes = _image_of(store, source, overrides.select.series)
        multiscale = _multiscale(attributes, source)
        array = open_array(store, group + multiscale.datasets[0].path)
        axes = [axis.name.lower() for axis in multiscale.axes]
        _check_axes(axes, array.shape, source)
        times, channels = (_along(axes, array.shape, axis) for axis in "tc")
        place = place_of(source, times, channels, overrides, _channel_names(attributes))
        index: tuple[int | slice, ...] = tuple(
            {"t": place.time, "c": place.channel}[axis] for axis in axes[:-_PIXEL_AXES]
        )
        ours = attributes.get(PROVENANCE_KEY)
        said = dict(ours) if isinstance(ours, Mapping) else {}
        dtype = np.dtype(array.dtype)
        depth, height, width = array.shape[-_PIXEL_AXES:]
        info = VolumeInfo(
            source,
            (depth, height, width),
            dtype.name,
            metadata=_with_provenance(said),
            frames=times,
            channels=channels,
            frame_s=_frame_s(multiscale),
        )
        keys = {**_sizes(multiscale, source, overrides), **{k: said.get(k) for k in ("channel", "study")}}
        named = keys.get("channel") is None and place.channel_name
        facts = Facts({**keys, "channel": place.channel_name} if named else keys, strict_channel=not named)
        info = understand(info, facts, overrides)
    if dtype.name not in DTYPES:
        raise VolumeError(f"{source}: expected whole or real numbers, got values of type {dtype}")
    native = dtype.newbyteorder("=")

    def read(z0: int, z1: int) -> NDArray[Any]:
        return np.ascontiguousarray(array[(*index, slice(z0, z1))], native)

    return LazyVolume(info, read)


def _remote(address: str) -> CheckedStore:
    from lightsheet.volumes.remote.store import RemoteStore  # fsspec only where something is remote

    return RemoteStore(address)


def is_zarr_group(path: Path) -> bool:
    """Whether a folder holds the metadata of a Zarr group, whatever its name."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def _image_of(store: CheckedStore, source: str, series: int | None) -> tuple[str, dict[str, Any]]:
    """Place below the root, with a slash, and attributes of the image that is meant."""
    attributes = read_attributes(store)
    inner = attributes.get("ome") if isinstance(attributes.get("ome"), Mapping) else attributes
    if "plate" in attributes or (isinstance(inner, Mapping) and "plate" in inner):
        raise VolumeError(f"{source}: expected an image, got a plate of wells; give the folder of one image")
    if "multiscales" in attributes or (isinstance(inner, Mapping) and "multiscales" in inner):
        one_of(source, "image", 1, series, "--series")
        return "", attributes
    names = _series(store, attributes)
    if not names:
        return "", attributes
    number = one_of(source, "image", len(names), series, "--series")
    if len(names) > 1:
        LOG.info("%s: image %s of %d", source, names[number], len(names))
    return f"{names[number]}/", read_attributes(store, f"{names[number]}/")


def _series(store: CheckedStore, attributes: Mapping[str, Any]) -> list[str]:
    """Folders of the images, as bioformats2raw lays them out; also where its own mark is missing."""
    listed: Any = None
    if store.has("OME/.zattrs") or store.has("OME/zarr.json"):
        ome = read_attributes(store, "OME/")
        inner = ome.get("ome")
        listed = ome.get("series", inner.get("series") if isinstance(inner, Mapping) else None)
    if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
        return [name.strip("/") for name in listed[:_MOST_SERIES] if ".." not in Path(name).parts]
    found = []
    for number in range(_MOST_SERIES):
        if not any(store.has(f"{number}/{name}") for name in (".zgroup", ".zattrs", "zarr.json")):
            break
        if store.has(f"{number}/.zarray"):
            break  # levels of an image, not images
        found.append(str(number))
    return found


def _multiscale(attributes: Mapping[str, Any], source: str) -> Multiscale:
    found: Multiscale | None = None
    try:
        if "ome" in attributes:
            found = v05.Image.model_validate(attributes["ome"]).multiscales[0]
        elif "multiscales" in attributes:
            found = v04.Image.model_validate({"multiscales": attributes["multiscales"]}).multiscales[0]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VolumeError(
            f"{source}: expected OME-Zarr 0.4 or 0.5 image metadata, got '{first['msg']}' at {where}"
        ) from error
    if found is None or not found.datasets:
        raise VolumeError(
            f"{source}: expected OME-Zarr 0.4 or 0.5 image metadata, got a group without them; "
            "give the folder of the image itself"
        )
    return found


def _check_axes(axes: list[str], shape: tuple[int, ...], source: str) -> None:
    told = ", ".join(f"{axis}={n}" for axis, n in zip(axes, shape, strict=False))
    leading = axes[:-_PIXEL_AXES]
    if axes[-_PIXEL_AXES:] != ["z", "y", "x"] or len(axes) != len(shape):
        raise VolumeError(f"{source}: expected axes z, y, x, got {told}")
    if len(set(leading)) != len(leading) or not set(leading) <= {"t", "c"}:
        raise VolumeError(f"{source}: expected axes t, c, z, y, x, got {told}")
    if shape[-_PIXEL_AXES] < 2:
        raise VolumeError(f"{source}: expected a volume of at least 2 planes, got {told}")


def _along(axes: list[str], shape: tuple[int, ...], axis: str) -> int:
    return int(shape[axes.index(axis)]) if axis in axes else 1


def _channel_names(attributes: Mapping[str, Any]) -> list[str]:
    """Labels of the channels in OMERO's rendering settings."""
    inner = attributes.get("ome", attributes)
    omero = inner.get("omero") if isinstance(inner, Mapping) else None
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list):
        return []
    return [str(item.get("label", "")) if isinstance(item, Mapping) else "" for item in channels]


def _scale(multiscale: Multiscale) -> NDArray[np.float64]:
    """Size of a step along each axis of level 0."""
    scale = np.ones(len(multiscale.axes))
    for steps in (multiscale.datasets[0].coordinateTransformations, multiscale.coordinateTransformations):
        for step in steps or ():
            scale *= getattr(step, "scale", 1.0)
    return scale


def _sizes(multiscale: Multiscale, source: str, overrides: Overrides) -> dict[str, Any]:
    """Scale of level 0 under the keys of other formats; nothing when no unit and no scale is given."""
    spatial = list(zip(multiscale.axes, _scale(multiscale), strict=True))[-_PIXEL_AXES:]
    if all(getattr(axis, "unit", None) is None and size == 1 for axis, size in spatial):
        return {}
    sizes: dict[str, Any] = {}
    for axis, size in spatial:
        if overrides.spacing_um is None and not (math.isfinite(size) and size > 0):
            raise MetadataError(
                f"{source}: expected a voxel size above 0, got the scale {size:g} along {axis.name}; "
                "give it as --spacing_um Z,Y,X (micrometres)"
            )
        sizes[f"PhysicalSize{axis.name}"] = float(size)
        sizes[f"PhysicalSize{axis.name}Unit"] = getattr(axis, "unit", None) or "micrometer"
    return sizes


def _frame_s(multiscale: Multiscale) -> float | None:
    """Seconds between time points, where they have a unit."""
    for axis, step in zip(multiscale.axes, _scale(multiscale), strict=True):
        factor = _SECONDS.get(str(getattr(axis, "unit", None)))
        if axis.name.lower() == "t" and factor is not None and math.isfinite(step) and step > 0:
            return float(step) * factor
    return None


def _with_provenance(said: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in said.items() if key != "provenance"}
    return rest if said.get("provenance") is None else {**rest, PROVENANCE_KEY: said["provenance"]}
