"""From the words of a file's metadata to spacing, channel and study; nonsense is refused with the flag.

The same rules hold for every format. Keys are compared without case and underscores, so that
``PhysicalSizeX``, ``physicalsizex`` and ``physical_size_x`` are one key. Numbers may be text.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lightsheet.core.axes import CHANNELS, Channel
from lightsheet.core.errors import MetadataError, one_line
from lightsheet.core.progress import LOG
from lightsheet.volumes.info import Overrides, VolumeInfo

_UNITS_UM = {
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("micrometres", "µm", "μm", "\\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("angstrom", "å"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("inch", "inches", "in"), 25400.0),
}
_NO_UNIT = ("", "pixel", "pixels", "px", "none", "null", "reference frame")
_CHANNEL_WORDS: tuple[tuple[str, Channel], ...] = (("nucle", "nucleus"), ("membran", "membrane"))
_SHORT_CHANNELS: dict[str, Channel] = {"nuc": "nucleus", "mem": "membrane"}
_NOTHING = ("", "none", "null", "unknown", "n/a", "na")
_RELATIVE_DISAGREEMENT = 0.01
_LEAST_UM, _MOST_UM = 1e-5, 1e6
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Facts:
    """What one file says, before it is understood.

    Attributes
    ----------
    keys : metadata as found; spelling does not matter
    xy_um : voxel size (y, x) in micrometres from elsewhere, as resolution tags
    strict_channel : False where the channel's name is free text (OME), so that an unknown one is no error
    assumed : what was guessed for the voxel size, told where that guess is used
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    xy_um: tuple[float, float] | None = None
    strict_channel: bool = True
    assumed: str = ""


def understand(info: VolumeInfo, facts: Facts, overrides: Overrides) -> VolumeInfo:
    """Return ``info`` with spacing, channel and study; a value given by the user is never looked up.

    Raises
    ------
    MetadataError
        When a value the user did not give is nonsense, naming the flag that mends it.
    """
    keys = {fold(key): value for key, value in facts.keys.items()}
    source = info.source
    if overrides.spacing_um is None:
        z, y, x = sizes_from(keys, facts.xy_um, source)
        spacing = None if z is None or y is None or x is None else (z, y, x)
        if spacing is None and y is not None and x is not None:
            info = replace(info, yx_um=(y, x))
        if spacing is not None and facts.assumed:
            LOG.warning("%s: %s", source, facts.assumed)
    else:
        z, y, x = (_length(value, "--spacing_um", source) for value in overrides.spacing_um)
        spacing = (z, y, x)
    strict = not overrides.lenient
    channel = overrides.channel or channel_from(
        keys.get("channel"), source, strict=facts.strict_channel and strict
    )
    study = overrides.study
    if study is None:
        study = study_from(keys.get("study"), source, strict=strict)
    return replace(info, spacing_um=spacing, channel=channel, study=study)


def fold(key: str) -> str:
    """Spelling by which keys are compared."""
    return str(key).lower().replace("_", "").replace(" ", "")


def sizes_from(
    keys: Mapping[str, Any], xy_um: tuple[float, float] | None, source: str
) -> tuple[float | None, float | None, float | None]:
    """Voxel size along Z, Y and X in micrometres from folded keys, None for each that is missing.

    ``PhysicalSizeX/Y/Z`` win over ``spacing``, which is the Z step or the triple (z, y, x), and over
    resolution tags. Without a unit, micrometres are meant, as in the challenge's files.
    """
    step = _triple(keys.get("spacing"), source)
    scale = _unit(keys, "", source)
    sizes: list[float | None] = []
    for place, axis in enumerate("zyx"):
        key = f"physicalsize{axis}"
        if not _missing(keys.get(key)):
            factor = _unit(keys, key, source) or 1.0
            size = _length(keys[key], f"PhysicalSize{axis.upper()}", source) * factor
            sizes.append(size)
            if axis == "z" and step and step[0] is not None and scale is not None:
                _tell_disagreement(size, step[0] * scale, source)
        elif step is not None and step[place] is not None and scale is not None:
            sizes.append(step[place] * scale)  # type: ignore[operator]
        else:
            sizes.append(xy_um[place - 1] if xy_um is not None and axis != "z" else None)
    z, y, x = (_possible(size, source) for size in sizes)
    return z, y, x


def _possible(size: float | None, source: str) -> float | None:
    """Size in micrometres as it is, refused where no microscope has such voxels."""
    if size is not None and not _LEAST_UM <= size <= _MOST_UM:
        raise MetadataError(
            f"{source}: expected a voxel size from {_LEAST_UM:g} to {_MOST_UM:g} micrometres, got {size:g}; "
            "give it as --spacing_um Z,Y,X (micrometres)"
        )
    return size


def channel_from(value: Any, source: str, *, strict: bool = True) -> Channel | None:
    """Name of the channel as the ledger has it, whatever its spelling; None when nothing is said.

    Raises
    ------
    MetadataError
        When a name is neither nucleus nor membrane and ``strict`` is set.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    text = str(value if value is not None else "").strip().lower()
    if text in _NOTHING:
        return None
    for word, channel in _CHANNEL_WORDS:
        if word in text:
            return channel
    if text in _SHORT_CHANNELS:
        return _SHORT_CHANNELS[text]
    if not strict:
        return None
    raise MetadataError(
        f"{source}: expected channel {' or '.join(CHANNELS)} in the metadata, got '{_shown(value)}'; "
        f"give it as --channel {'|'.join(CHANNELS)}"
    )


def study_from(value: Any, source: str, *, strict: bool = True) -> int | None:
    """Study's number from ``3``, ``'3'``, ``3.0`` or ``'Study 3'``; None when nothing is said.

    Raises
    ------
    MetadataError
        When it is something else and ``strict`` is set.
    """
    text = str(value if value is not None else "").strip().lower()
    if text in _NOTHING:
        return None
    found = re.fullmatch(r"(?:study[\s_#-]*)?(\d{1,9})(?:\.0+)?", text)
    if found is None and not strict:
        return None
    if found is None:
        raise MetadataError(
            f"{source}: expected the number of a study in the metadata, got '{_shown(value)}'; "
            "give it as --study NUMBER"
        )
    return int(found.group(1))


def unit_in_um(unit: Any) -> float | None:
    """Micrometres per unit; None for pixels and unknown words."""
    return _UNITS_UM.get(str(unit).strip().lower())


def _unit(keys: Mapping[str, Any], key: str, source: str) -> float | None:
    """Factor of the unit that belongs to ``key``: its own, or the general one, or micrometres."""
    unit = keys.get(f"{key}unit", keys.get("unit"))
    if unit is None:
        return 1.0
    if str(unit).strip().lower() in _NO_UNIT:
        return None
    factor = unit_in_um(unit)
    if factor is None:
        raise MetadataError(
            f"{source}: expected a unit of length in the metadata, got '{_shown(unit)}'; "
            "give the voxel size as --spacing_um Z,Y,X (micrometres)"
        )
    return factor


def _triple(value: Any, source: str) -> tuple[float, float | None, float | None] | None:
    """``spacing`` as (z, y, x); a single number is the Z step."""
    if _missing(value):
        return None
    if isinstance(value, str):
        parts: list[Any] = [part for part in re.split(r"[;,\s]+", value.strip(" []()")) if part]
        value = parts if len(parts) == len("zyx") else value.strip(" []()")
    if not isinstance(value, (list, tuple)):
        return _length(value, "spacing", source), None, None
    numbers = [_length(item, "spacing", source) for item in value]
    if len(numbers) == 1:
        return numbers[0], None, None
    if len(numbers) != len("zyx"):
        raise _nonsense("spacing", value, source)
    return numbers[0], numbers[1], numbers[2]


def _length(value: Any, name: str, source: str) -> float:
    """Read a length as a number; a lone decimal comma ('0,195') is understood."""
    text = str(value).strip()
    if re.fullmatch(r"\d+,\d+", text):
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        raise _nonsense(name, value, source) from None
    if isinstance(value, bool) or not math.isfinite(number) or number <= 0:
        raise _nonsense(name, value, source)
    return number


def _nonsense(name: str, value: Any, source: str) -> MetadataError:
    return MetadataError(
        f"{source}: expected a voxel size above 0, got {name} '{_shown(value)}'; "
        "give it as --spacing_um Z,Y,X (micrometres)"
    )


def _shown(value: Any) -> str:
    """Value from a file for a message: one line of bounded length."""
    text = one_line(str(value)[: 4 * _LONGEST_SHOWN])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null"))


def _tell_disagreement(size: float, step: float, source: str) -> None:
    if abs(size - step) > _RELATIVE_DISAGREEMENT * size:
        LOG.warning(
            "%s: PhysicalSizeZ is %g and spacing %g micrometres; PhysicalSizeZ is taken "
            "(--spacing_um Z,Y,X overrides both)",
            source,
            size,
            step,
        )
