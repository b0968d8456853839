"""What a TIFF says about itself, in the four families that occur, and what ours say.

Families: tifffile's ``shaped`` JSON (the challenge's form), ImageJ's lines, OME-XML, and plain
resolution tags. Ours carry ImageJ's lines and the JSON at once: see
``docs/decisions/0002-tiff-that-fiji-and-the-platform-read.md``.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tifffile

from lightsheet.core.axes import SpacingUm
from lightsheet.volumes.foreign import check_json
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.metadata import Facts, fold, unit_in_um

PROVENANCE_KEY = "lightsheet"
_LAYOUT_KEYS = {"shape", "truncated", "imagej", "images", "slices", "frames", "channels"}
_LAYOUT_KEYS |= {"hyperstack", "mode", "loop", "axes", "min", "max", "range"}
_OWN_KEYS = {"spacing", "unit", "physicalsizex", "physicalsizey", "physicalsizez", "channel", "study"}
_OWN_KEYS |= {"physicalsizexunit", "physicalsizeyunit", "physicalsizezunit", PROVENANCE_KEY}
_CENTIMETRE, _INCH = 3, 2
_UM_PER_CENTIMETRE, _UM_PER_INCH = 1e4, 25400.0
_WIDEST_PIXEL_UM = 100.0
_LONGEST_OME_XML = 100_000


def facts_of(
    tif: tifffile.TiffFile, ome: dict[str, Any] | None, texts: Sequence[bytes], channel: str
) -> tuple[Facts, dict[str, Any]]:
    """Facts to be understood, and everything said, of an open TIFF.

    Parameters
    ----------
    tif : the file
    ome : what OME-XML says of the image that is meant, from `volumes.tiff.ome_xml`; None without OME-XML
    texts : descriptions of the first page
    channel : name of the channel that is meant, where there are several
    """
    if ome is not None:
        told = _json_object(str(ome.get("description", "")), tif.filename)
        keys = {key: value for key, value in ome.items() if key != "description" or not told} | told
        if channel:
            keys["channel"] = channel
        return Facts(keys, strict_channel="study" in keys), {**keys, **_kept_xml(texts[0])}
    shaped, imagej = shaped_keys(tif), imagej_keys(tif)
    named = {"channel": channel} if channel else {}
    if shaped:
        return Facts({**shaped, **named}, _absolute_xy(tif), not channel), {**imagej, **shaped}
    if imagej:
        facts = _imagej_facts(tif, imagej)
        return replace(facts, keys={**facts.keys, **named}, strict_channel=not channel), imagej
    return Facts({}, _absolute_xy(tif)), {}


def channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    """Names of several channels from the shaped JSON or ImageJ's labels; empty where they are not told."""
    folded = {fold(key): value for key, value in shaped_keys(tif).items()}
    told = folded.get("channels", folded.get("channelnames", folded.get("channel")))
    if isinstance(told, dict):
        told = told.get("Name")
    if told is None:
        told = imagej_keys(tif).get("Labels")
    return tuple(str(name) for name in told) if isinstance(told, (list, tuple)) else ()


def frame_seconds(tif: tifffile.TiffFile) -> float | None:
    """Seconds between time points from ImageJ's ``finterval``, which the shaped JSON may have as well."""
    folded = {fold(key): value for key, value in {**imagej_keys(tif), **shaped_keys(tif)}.items()}
    try:
        step = float(folded.get("finterval", 0))
    except (TypeError, ValueError):
        return None
    return step if math.isfinite(step) and step > 0 else None


def shaped_keys(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Content of the first page's JSON description, or nothing; also where its shape is wrong."""
    text = tif.pages[0].shaped_description
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
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
            told = "voxel size without a unit; micrometres are assumed (--spacing_um Z,Y,X overrides)"
            return Facts(keys, (1.0 / per_pixel[0], 1.0 / per_pixel[1]), assumed=told)
        return Facts(keys, _absolute_xy(tif))
    told = ""
    if not {"spacing", "physicalsizez"} & folded.keys():
        step = f"1 {folded['unit']}"
        told = (
            f"no Z step is written, by which ImageJ means {step}; it is taken (--spacing_um Z,Y,X overrides)"
        )
    if factor == 1.0 and _resolution_unit(tif) == _CENTIMETRE:
        factor = _UM_PER_CENTIMETRE
    return Facts({"spacing": 1.0, **keys}, (factor / per_pixel[0], factor / per_pixel[1]), assumed=told)


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
        value = None if tag is None else tag.value
        if not isinstance(value, tuple) or len(value) < len("ab") or not all(_is_count(n) for n in value[:2]):
            return None
        values.append(float(value[0]) / float(value[1]))
    return values[0], values[1]


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and number > 0


def _resolution_unit(tif: tifffile.TiffFile) -> int:
    """Return the number of the resolution tags' unit; 0, which is none, where it is no number."""
    tag = tif.pages[0].tags.get("ResolutionUnit")
    if tag is None:
        return _INCH
    return int(tag.value) if isinstance(tag.value, int) else 0


def _json_object(text: str, source: str) -> dict[str, Any]:
    """JSON of an OME image's description; nothing where it is other text."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        check_json(source, text.encode())
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _kept_xml(xml: bytes) -> dict[str, Any]:
    return {"ome_xml": xml.decode("utf-8", "replace")} if len(xml) <= _LONGEST_OME_XML else {}


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
