"""TIFF files whose metadata look as those of the challenge: three families that programs write."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.axes import LIGHT_KEY, Channel, SpacingUm
from lightsheet.core.files import written_beside

Family = Literal["shaped", "imagej", "ome"]
UM_PER_CM = 1e4


def describe(
    spacing_um: SpacingUm, channel: Channel | None, study: int | None, simulated: str, specimen: str
) -> dict[str, Any]:
    """Metadata of a stack under the challenge's keys; ``spacing`` is the distance of planes, as in Fiji."""
    z, y, x = spacing_um
    metadata: dict[str, Any] = {
        "axes": "ZYX",
        "spacing": z,
        "PhysicalSizeX": x,
        "PhysicalSizeY": y,
        "PhysicalSizeZ": z,
        "unit": "um",
        "simulated": simulated,
        "specimen": specimen,
    }
    if channel is not None:
        metadata["channel"] = channel
    if study is not None:
        metadata["study"] = study
    return metadata


def write_stack(path: Path, data: NDArray[Any], metadata: dict[str, Any], family: Family) -> None:
    """Write a stack (Z, Y, X) with ``metadata`` (of ``describe``) whole or not at all.

    No time, random id or machine name goes into the file: the same stack gives the same bytes.
    """
    # ImageJ knows no 32-bit integers: labels beyond 65535 take the family that does
    chosen = "shaped" if family == "imagej" and data.dtype == np.uint32 else family
    options = {"shaped": _shaped, "imagej": _imagej, "ome": _ome}[chosen](metadata)
    if chosen == "ome":
        options["metadata"]["UUID"] = f"urn:uuid:{_uuid_of(data, metadata)}"
    with written_beside(path) as partial:
        tifffile.imwrite(partial, data, photometric="minisblack", **options)


def _shaped(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": metadata,
        "resolution": _per(metadata, UM_PER_CM),
        "resolutionunit": "CENTIMETER",
    }


def _imagej(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"imagej": True, "metadata": metadata, "resolution": _per(metadata, 1.0)}


def _ome(metadata: dict[str, Any]) -> dict[str, Any]:
    noted = ("channel", "study", "simulated", "specimen", LIGHT_KEY)
    notes = {key: metadata[key] for key in noted if key in metadata}
    # OME-XML has no field for a study: as JSON in the image's description the package reads it back
    ome: dict[str, Any] = {"axes": "ZYX", "Description": json.dumps(notes)}
    for key in ("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ"):
        ome[key] = metadata[key]
        ome[f"{key}Unit"] = "µm"
    if "channel" in metadata:
        ome["Channel"] = {"Name": metadata["channel"]}
    return {
        "ome": True,
        "metadata": ome,
        "resolution": _per(metadata, UM_PER_CM),
        "resolutionunit": "CENTIMETER",
    }


def _uuid_of(data: NDArray[Any], metadata: dict[str, Any]) -> uuid.UUID:
    """Derive an identifier from the content; a random one would make each run's file another."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for plane in data:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return uuid.UUID(bytes=digest.digest()[:16])


def _per(metadata: dict[str, Any], unit_um: float) -> tuple[float, float]:
    return unit_um / metadata["PhysicalSizeX"], unit_um / metadata["PhysicalSizeY"]
