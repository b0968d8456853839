"""What a TIFF says about itself, in the four families that occur, and what ours say.

Families: tifffile's ``shaped`` JSON (the challenge's form), ImageJ's lines, OME-XML, and plain
resolution tags. Ours carry ImageJ's lines and the JSON at once: see
``docs/decisions/0002-tiff-that-fiji-and-the-platform-read.md``.
"""

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import tifffile

from lightsheet.core.axes import SpacingUm
from lightsheet.core.metadata import Facts, fold, unit_in_um
from lightsheet.core.progress import LOG
from lightsheet.core.volume import VolumeInfo

PROVENANCE_KEY = "lightsheet"
_LAYOUT_KEYS = {"shape", "truncated", "imagej", "images", "slices", "frames", "channels"}
_LAYOUT_KEYS |= {"hyperstack", "mode", "loop", "axes", "min", "max", "range"}
_OWN_KEYS = {"spacing", "unit", "physicalsizex", "physicalsizey", "physicalsizez", "channel", "study"}
_OWN_KEYS |= {"physicalsizexunit", "physicalsizeyunit", "physicalsizezunit", PROVENANCE_KEY}
_CENTIMETRE, _INCH = 3, 2
_UM_PER_CENTIMETRE, _UM_PER_INCH = 1e4, 25400.0
_WIDEST_PIXEL_UM = 100.0
_LONGEST_OME_XML = 100_000


def facts_of(tif: tifffile.TiffFile) -> tuple[Facts, dict[str, Any]]:
    """Facts to be understood, and everything said, of an open TIFF."""
    shaped, imagej = shaped_keys(tif), imagej_keys(tif)
    if tif.is_ome and tif.ome_metadata:
        keys = _ome_keys(tif.ome_metadata)
        said = {**keys, **_kept_xml(tif.ome_metadata)}
        return Facts(keys, strict_channel="study" in keys), said
    if shaped:
        return Facts(shaped, _absolute_xy(tif)), {**imagej, **shaped}
    if imagej:
        return _imagej_facts(tif, imagej), imagej
    return Facts({}, _absolute_xy(tif)), {}


def shaped_keys(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Content of the first page's JSON description, or nothing; also where its shape is wrong."""
    text = tif.pages[0].shaped_description
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def imagej_keys(tif: tifffile.TiffFile) -> dict[str, Any]:
    """ImageJ's lines as a dictionary, or nothing."""
    try:
        return dict(tif.imagej_metadata or {})
    except ValueError:
        return {}


def _imagej_facts(tif: tifffile.TiffFile, keys: dict[str, Any]) -> Facts:
    """ImageJ's rules: ``unit`` holds for tags and ``spacing``; a Z step of 1 is not written.

    Centimetres in the tags with micrometres in the lines are converted, as ImageJ's own reader does.
    """
    folded = {fold(key): value for key, value in keys.items()}
    factor = unit_in_um(folded.get("unit"))
    per_pixel = _pixels_per_unit(tif)
    if factor is None or per_pixel is None:
        unnamed = "unit" not in folded and "spacing" in folded
        if unnamed and per_pixel is not None and per_pixel != (1.0, 1.0):
            LOG.warning("%s: voxel size without a unit; micrometres are assumed", tif.filename)
            return Facts(keys, (1.0 / per_pixel[0], 1.0 / per_pixel[1]))
        return Facts(keys, _absolute_xy(tif))
    if factor == 1.0 and _resolution_unit(tif) == _CENTIMETRE:
        factor = _UM_PER_CENTIMETRE
    return Facts({"spacing": 1.0, **keys}, (factor / per_pixel[0], factor / per_pixel[1]))


def _absolute_xy(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    """(y, x) in micrometres from tags with a unit; print sizes (72 dpi) are no voxel sizes."""
    per_pixel = _pixels_per_unit(tif)
    factor = {_CENTIMETRE: _UM_PER_CENTIMETRE, _INCH: _UM_PER_INCH}.get(_resolution_unit(tif))
    if per_pixel is None or factor is None:
        return None
    size = (factor / per_pixel[0], factor / per_pixel[1])
    return size if max(size) <= _WIDEST_PIXEL_UM else None


def _pixels_per_unit(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    """(y, x) pixels per unit from the resolution tags, None when they are missing or nonsense."""
    values = []
    for name in ("YResolution", "XResolution"):
        tag = tif.pages[0].tags.get(name)
        if tag is None or not isinstance(tag.value, tuple) or 0 in tag.value[:2]:
            return None
        values.append(float(tag.value[0]) / float(tag.value[1]))
    return values[0], values[1]


def _resolution_unit(tif: tifffile.TiffFile) -> int:
    tag = tif.pages[0].tags.get("ResolutionUnit")
    return _INCH if tag is None else int(tag.value)


def _ome_keys(xml: str) -> dict[str, Any]:
    """Sizes, units, channel and the JSON of the image's description, of the first image of OME-XML."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    image = root.find("{*}Image")
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return {}
    keys: dict[str, Any] = {}
    for axis in "XYZ":
        if f"PhysicalSize{axis}" in pixels.attrib:
            keys[f"PhysicalSize{axis}"] = pixels.attrib[f"PhysicalSize{axis}"]
            keys[f"PhysicalSize{axis}Unit"] = pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")
    channel = pixels.find("{*}Channel")
    if channel is not None and channel.attrib.get("Name"):
        keys["channel"] = channel.attrib["Name"]
    description = image.findtext("{*}Description")
    if description:
        keys.update(_json_object(description))
    return keys


def _json_object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {"description": text}
    return content if isinstance(content, dict) else {"description": text}


def _kept_xml(xml: str) -> dict[str, Any]:
    return {"ome_xml": xml} if len(xml) <= _LONGEST_OME_XML else {}


def kept_metadata(info: VolumeInfo, provenance: dict[str, Any] | None) -> dict[str, Any]:
    """Metadata to write: the input's other keys, then ours under the challenge's names."""
    kept = {k: v for k, v in info.metadata.items() if fold(k) not in _LAYOUT_KEYS | _OWN_KEYS}
    if info.spacing_um is not None:
        z, y, x = (float(size) for size in info.spacing_um)
        kept |= {"spacing": z, "unit": "um", "PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
    if info.channel is not None:
        kept["channel"] = info.channel
    if info.study is not None:
        kept["study"] = info.study
    earlier = info.metadata.get(PROVENANCE_KEY)
    if provenance is not None or earlier is not None:
        kept[PROVENANCE_KEY] = provenance if provenance is not None else earlier
    return json.loads(json.dumps(kept, default=str))  # type: ignore[no-any-return]


def imagej_lines(planes: int, spacing_um: SpacingUm | None) -> str:
    """Lines by which Fiji (through Bio-Formats, since the file is a BigTIFF) knows Z step and unit."""
    lines = ["ImageJ=1.11a", f"images={planes}", f"slices={planes}", "hyperstack=true", "mode=grayscale"]
    lines.append("loop=false")
    if spacing_um is not None:
        lines += ["unit=um", f"spacing={float(spacing_um[0])!r}"]
    return "\n".join(lines) + "\n"
