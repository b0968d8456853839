"""One OME-Zarr written by several processes: each its planes, then each its part of the smaller levels.

Chunks are written by one process each: a layer of chunks that two regions share is put aside by both, plane
by plane, and put together at the end. What each region wrote is read back and compared by the process that
wrote it. The group's own metadata come last, so that until then there is no image.
"""

import itertools
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ContainsGroupError
from zarr.storage import FsspecStore, StorePath

from lightsheet.core.errors import OutputError, VolumeError
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.ome_zarr.writer import (
    OmeZarrVersion,
    attributes_of,
    create_array,
    create_group,
    create_levels,
    plan_levels,
    shrink,
)
from lightsheet.volumes.remote.addresses import address_of, filesystem
from lightsheet.volumes.result_types import Cut, ResultType, stored_as

ASIDE = ".shared_layers"


@dataclass(frozen=True)
class NewImage:
    """An image that is being written.

    Attributes
    ----------
    place : folder or address
    info : shape, type, spacing and metadata of the result
    version : of OME-Zarr
    """

    place: Path
    info: VolumeInfo
    version: OmeZarrVersion = "0.5"

    def root(self) -> Any:
        """Return the place as zarr takes it."""
        address = address_of(self.place)
        if address is None:
            return self.place
        found, place = filesystem(address, asynchronous=True)
        return StorePath(FsspecStore(fs=found, path=place))

    def level(self, number: int) -> zarr.Array[Any]:
        """Open the array of a level, to write to."""
        return zarr.open_array(self.root() / str(number), mode="r+")


@dataclass(frozen=True)
class Written:
    """What became of a region.

    Attributes
    ----------
    first, stop : its planes
    aside : pieces of layers that it shares with neighbours, (first, stop)
    cut : voxels beyond the range of the type
    """

    first: int
    stop: int
    aside: tuple[tuple[int, int], ...]
    cut: Cut = field(default_factory=Cut)


def begin(image: NewImage) -> None:
    """Make the arrays, without voxels and without what makes them an image."""
    create_levels(image.root(), image.info, image.version)


def write_region(
    image: NewImage, first: int, stop: int, planes: Iterable[NDArray[Any]], form: ResultType
) -> Written:
    """Write the planes of a region, read them back, and compare.

    Parameters
    ----------
    planes : (Z, Y, X), some at a time, in order
    form : how they are stored

    Raises
    ------
    VolumeError
        When there are fewer or more planes, or they hold NaN.
    OutputError
        When what was read back differs.
    """
    array = image.level(0)
    thick, depth = int(array.chunks[0]), image.info.shape_zyx[0]
    layer: list[NDArray[Any]] = []
    aside: list[tuple[int, int]] = []
    cut, done = Cut(), first
    for some in planes:
        for plane in some:
            stored, bad = stored_as(plane, form, cut)
            if bad or done >= stop:
                what = (
                    f"{bad} NaN or infinite ones in plane {done}"
                    if bad
                    else f"more than {stop - first} planes"
                )
                raise VolumeError(f"{image.place}: expected finite values of a region's planes, got {what}")
            layer.append(stored)
            done += 1
            if done % thick == 0 or done == stop:
                _put(image, array, (done - len(layer), done), np.stack(layer), aside, (thick, depth))
                layer = []
    if done != stop:
        raise VolumeError(f"{image.place}: expected planes up to {stop}, got those up to {done}")
    return Written(first, stop, tuple(aside), cut)


def _put(
    image: NewImage,
    array: zarr.Array[Any],
    planes: tuple[int, int],
    voxels: NDArray[Any],
    aside: list[tuple[int, int]],
    sizes: tuple[int, int],
) -> None:
    """Write planes where they belong if they are a whole layer of chunks, else aside."""
    (first, stop), (thick, depth) = planes, sizes
    if first % thick == 0 and (stop % thick == 0 or stop == depth):
        array[first:stop] = voxels
        back = np.asarray(array[first:stop])
    else:
        aside.append(planes)
        piece = create_array(
            _aside(image, planes), voxels.shape, image.info.dtype, image.version, overwrite=True
        )
        piece[:] = voxels
        back = np.asarray(piece[:])
    _compare(image, voxels, back, first)


def _compare(image: NewImage, written: NDArray[Any], back: NDArray[Any], first: int) -> None:
    for number, (one, other) in enumerate(zip(written, back, strict=True), start=first):
        if zlib.crc32(np.ascontiguousarray(one).data) != zlib.crc32(np.ascontiguousarray(other).data):
            raise OutputError(
                f"{image.place}: expected to read back what was written, got a difference in plane {number}"
            )


def _aside(image: NewImage, planes: tuple[int, int]) -> Any:
    return image.root() / ASIDE / f"{planes[0]}_{planes[1]}"


def join_layers(image: NewImage, regions: Sequence[Written]) -> None:
    """Put the layers together that regions share, one at a time."""
    array = image.level(0)
    thick = int(array.chunks[0])
    layers: dict[int, list[tuple[int, int]]] = {}
    for piece in sorted(piece for region in regions for piece in region.aside):
        layers.setdefault(piece[0] // thick, []).append(piece)
    for pieces in layers.values():
        parts = [np.asarray(zarr.open_array(_aside(image, piece), mode="r")[:]) for piece in pieces]
        voxels = np.concatenate(parts)
        first, stop = pieces[0][0], pieces[-1][1]
        array[first:stop] = voxels
        _compare(image, voxels, np.asarray(array[first:stop]), first)


def layers_of_level(image: NewImage, level: int, parts: int) -> list[tuple[int, int]]:
    """Planes of a smaller level in so many parts, or fewer, that share no layer of chunks."""
    array = image.level(level)
    thick, depth = int(array.chunks[0]), int(array.shape[0])
    layers = -(-depth // thick)
    edges = sorted({round(part * layers / parts) * thick for part in range(parts + 1)})
    return [(a, min(b, depth)) for a, b in itertools.pairwise(edges)]


def write_level(image: NewImage, level: int, planes: tuple[int, int]) -> None:
    """Write planes of a smaller level, whose next finer one is there."""
    _, factor = plan_levels(image.info.shape_zyx, image.info.spacing_um)[level]
    shrink(image.level(level - 1), image.level(level), factor, planes)


def levels_of(image: NewImage) -> int:
    """How many levels there are."""
    return len(plan_levels(image.info.shape_zyx, image.info.spacing_um))


def finish(image: NewImage, regions: Sequence[Written], provenance: dict[str, Any], form: ResultType) -> int:
    """Make it an image, when all is there; how many voxels were cut off at the ends of the type.

    Raises
    ------
    VolumeError
        When regions are missing.
    OutputError
        When too many voxels would be cut off.
    """
    found = sorted((region.first, region.stop) for region in regions)
    edges = [0, *(stop for _, stop in found)]
    if [first for first, _ in found] != edges[:-1] or edges[-1] != image.info.shape_zyx[0]:
        raise VolumeError(f"{image.place}: expected all planes, got those of {found}")
    total = Cut()
    for cut in (region.cut for region in regions):
        total.add(cut.clipped, cut.lost, cut.lowest, cut.highest)
    total.refuse_much(image.place, image.info.voxels, form)
    _remove_aside(image)
    root = image.root()
    try:
        create_group(root, image.info, provenance, image.version)
    except ContainsGroupError:  # stores other than folders have made one, of no image, with the arrays
        attributes = attributes_of(image.info, provenance, image.version)
        zarr.open_group(root, mode="r+").update_attributes(attributes)
    total.tell(image.place, image.info.voxels, form)
    return total.clipped


def _remove_aside(image: NewImage) -> None:
    address = address_of(image.place)
    if address is None:
        shutil.rmtree(image.place / ASIDE, ignore_errors=True)
        return
    found, place = filesystem(address)
    found.invalidate_cache()
    if found.exists(f"{place}/{ASIDE}"):
        found.rm(f"{place}/{ASIDE}", recursive=True)
