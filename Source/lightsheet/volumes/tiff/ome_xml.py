"""OME-XML of a TIFF, read safely: sizes, units, channels, and which page is which plane.

XML is data from elsewhere: a document type (entities that grow without end, or name other files) is refused
before anything is parsed, as is nesting beyond all bounds. Planes said to lie in
other files are never looked for.
"""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.errors import VolumeError
from lightsheet.volumes.foreign import MOST_NESTED

_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PLANE_AXES = {"Z", "C", "T"}
_MOST_ELEMENTS = 1 << 20  # some eight a plane of the longest movies
_MOST_SAMPLES = 4  # RGB with transparency: channels that share a page


@dataclass(frozen=True)
class OmeImage:
    """One image of OME-XML.

    Attributes
    ----------
    axes, sizes : of the planes, the slowest first, as ("TCZ", (2, 1, 8))
    width, length : voxels along X and Y
    pages : page of each plane in the order of the axes; -1 where the file has none
    keys : sizes, units and description, as `lightsheet.volumes.metadata.Facts` has them
    channels : names, as far as they are given
    frame_s : seconds between time points
    """

    axes: str
    sizes: tuple[int, ...]
    width: int
    length: int
    pages: NDArray[np.int64]
    keys: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    frame_s: float | None = None


def is_ome(text: bytes) -> bool:
    """Whether a description is OME-XML."""
    return text.rstrip(b"\0 \r\n\t").endswith(b"OME>")


def read_ome(text: bytes, path: PurePath, pages: int) -> list[OmeImage]:
    """Images of OME-XML in the file ``path`` of so many pages; none where another file holds the metadata.

    Raises
    ------
    VolumeError
        When it can't be read, has a document type, or promises planes that are not in this file.
    """
    source = str(path)
    root = safe_xml(text, source)
    images = [(image, image.find("{*}Pixels")) for image in root.iterfind("{*}Image")]
    alone = len(images) == 1
    read = []
    for image, pixels in images:
        if pixels is not None:
            read.append(_image(image, pixels, root.get("UUID"), path, pages, alone=alone))
    return read


def safe_xml(text: bytes, source: str) -> ElementTree.Element:
    """Parse XML that has no document type and bounded nesting.

    Raises
    ------
    VolumeError
    """
    depth = elements = 0

    def refuse_type(*_: Any) -> None:
        raise VolumeError(f"{source}: expected plain OME-XML, got one with a document type (entities)")

    def start(*_: Any) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if elements > _MOST_ELEMENTS:
            raise VolumeError(f"{source}: expected OME-XML of at most {_MOST_ELEMENTS} elements, got more")
        if depth > MOST_NESTED:
            raise VolumeError(f"{source}: expected OME-XML, got more than {MOST_NESTED} levels")

    def end(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse_type
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(text, True)
        return ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError(f"{source}: expected OME-XML, got XML that can't be read: {error}") from error


def _image(
    image: ElementTree.Element,
    pixels: ElementTree.Element,
    own: str | None,
    path: PurePath,
    pages: int,
    *,
    alone: bool,
) -> OmeImage:
    source = str(path)
    order = pixels.get("DimensionOrder", "XYZCT")
    axes = order[:1:-1]
    if not order.startswith("XY") or set(axes) != _PLANE_AXES or len(axes) != len(_PLANE_AXES):
        raise VolumeError(f"{source}: expected a DimensionOrder as XYZCT in OME-XML, got '{order}'")
    sizes = tuple(_number(pixels, f"Size{axis}", source, 0) for axis in axes)
    channels = pixels.findall("{*}Channel")
    if min(sizes) < 1 or math.prod(sizes) > pages * _MOST_SAMPLES:
        told = ", ".join(f"{size} {axis}" for axis, size in zip(axes, sizes, strict=True))
        raise VolumeError(
            f"{source}: expected the planes that OME-XML tells ({told}), got {pages} pages; truncated, or "
            "planes in other files (which are not read: save the volume into one file)"
        )
    entries = pixels.findall("{*}TiffData")
    if not entries and alone:
        entries = [ElementTree.Element("TiffData")]
    here = [entry for entry in entries if _is_here(entry, entries, own, path)]
    table = np.full(math.prod(sizes), -1, np.int64)
    for entry in here:
        _place(table, entry, axes, sizes, pages, source)
    seconds = _seconds(pixels)
    names = tuple(channel.get("Name", "") for channel in channels)
    return OmeImage(
        axes,
        sizes,
        _number(pixels, "SizeX", source, 0),
        _number(pixels, "SizeY", source, 0),
        table,
        _keys(image, pixels),
        names if any(names) else (),
        seconds,
    )


def _place(
    table: NDArray[np.int64],
    entry: ElementTree.Element,
    axes: str,
    sizes: tuple[int, ...],
    pages: int,
    source: str,
) -> None:
    """Note which pages one TiffData holds, from its first plane on."""
    first = [_number(entry, f"First{axis}", source, 0) for axis in axes]
    page = _number(entry, "IFD", source, 0)
    if any(not 0 <= at < size for at, size in zip(first, sizes, strict=True)) or not 0 <= page < pages:
        told = ", ".join(f"{axis} {at}" for axis, at in zip(axes, first, strict=True))
        raise VolumeError(f"{source}: expected planes of the image in OME-XML, got {told} in page {page}")
    at = int(np.ravel_multi_index(first, sizes))
    default = 1 if "IFD" in entry.attrib else len(table)
    count = _number(entry, "PlaneCount", source, _number(entry, "NumPlanes", source, default)) or default
    count = max(0, min(count, len(table) - at, pages - page))
    table[at : at + count] = np.arange(page, page + count)


def _is_here(
    entry: ElementTree.Element, entries: list[ElementTree.Element], own: str | None, path: PurePath
) -> bool:
    """Whether TiffData lie in this file: by its identifier, its name, or as the only file that is named."""
    told = entry.find("{*}UUID")
    if told is None:
        return True
    if told.text and own and told.text.strip() == own.strip():
        return True
    name = told.get("FileName", "")
    if PurePath(name).name.lower() == path.name.lower():
        return True
    return not own and len({named.findtext("{*}UUID") for named in entries}) == 1 and not _leads_away(name)


def _leads_away(name: str) -> bool:
    """Whether a file's name has a folder, so that it can't be an earlier name of this file."""
    return "/" in name or "\\" in name


def _keys(image: ElementTree.Element, pixels: ElementTree.Element) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for axis in "XYZ":
        if f"PhysicalSize{axis}" in pixels.attrib:
            keys[f"PhysicalSize{axis}"] = pixels.attrib[f"PhysicalSize{axis}"]
            keys[f"PhysicalSize{axis}Unit"] = pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")
    channel = pixels.find("{*}Channel")
    if channel is not None and channel.attrib.get("Name"):
        keys["channel"] = channel.attrib["Name"]
    description = image.findtext("{*}Description")
    return {**keys, "description": description} if description else keys


def _seconds(pixels: ElementTree.Element) -> float | None:
    try:
        step = float(pixels.get("TimeIncrement", "nan"))
    except ValueError:
        return None
    step *= _SECONDS.get(pixels.get("TimeIncrementUnit", "s"), math.nan)
    return step if math.isfinite(step) and step > 0 else None


def _number(element: ElementTree.Element, name: str, source: str, default: int) -> int:
    text = element.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise VolumeError(
            f"{source}: expected a whole number as {name} in OME-XML, got '{text[:50]}'"
        ) from None
