"""TIFF out: BigTIFF that tifffile, Fiji and the challenge's platform read with sizes and metadata.

Why this form: ``docs/decisions/0002-tiff-that-fiji-and-the-platform-read.md``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.files import written_beside
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.tiff.metadata import imagej_lines, kept_metadata

_UM_PER_CENTIMETRE = 1e4


class TiffSink:
    """Writes planes in order into a new uncompressed BigTIFF: tags first, then all planes in one piece.

    Parameters
    ----------
    file : where to write
    target : name that decides the form: ``.ome.tif`` carries OME-XML, others ImageJ's lines and JSON
    info : shape, type, spacing and metadata
    provenance : how the volume was made; kept in the metadata
    """

    def __init__(self, file: Path, target: Path, info: VolumeInfo, provenance: dict[str, Any] | None) -> None:
        ome = target.name.lower().endswith((".ome.tif", ".ome.tiff"))
        resolution: dict[str, Any] = {}
        if info.spacing_um is not None:
            per_cm = tuple(_UM_PER_CENTIMETRE / size for size in info.spacing_um[:0:-1])
            resolution = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
        kept = kept_metadata(info, provenance)
        text: dict[str, Any] = {"metadata": _ome_metadata(target, info, kept)}
        if not ome:
            lines = imagej_lines(info.shape_zyx[0], info.spacing_um)
            text = {"description": lines, "metadata": {"axes": "ZYX", **kept}}
        with tifffile.TiffWriter(file, bigtiff=True, byteorder="<", ome=ome, shaped=not ome) as tif:
            offset, _ = tif.write(
                shape=info.shape_zyx,
                dtype=info.dtype,
                photometric="minisblack",
                software="lightsheet",
                returnoffset=True,
                **resolution,
                **text,
            )
        self._stored = np.dtype(info.dtype).newbyteorder("<")
        self._stream = file.open("r+b")
        self._stream.seek(offset)

    def put(self, planes: NDArray[Any]) -> None:
        """Append planes (Z, Y, X), which have the type of ``info``."""
        self._stream.write(planes.astype(self._stored, copy=False).data)

    def finish(self) -> None:
        """Hand everything to the operating system."""
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _ome_metadata(target: Path, info: VolumeInfo, kept: dict[str, Any]) -> dict[str, Any]:
    """OME-XML's own fields, and everything else as JSON in the image's description."""
    said = {"axes": "ZYX", "Name": target.name}
    if info.spacing_um is not None:
        for axis, size in zip("ZYX", info.spacing_um, strict=True):
            said[f"PhysicalSize{axis}"] = float(size)  # type: ignore[assignment]
            said[f"PhysicalSize{axis}Unit"] = "µm"
    if info.channel is not None:
        said["Channel"] = {"Name": [info.channel]}  # type: ignore[assignment]
    rest = {key: value for key, value in kept.items() if key != "ome_xml"}
    return {**said, "Description": json.dumps(rest)}


def write_plane(path: Path, plane: NDArray[Any], pixel_um: tuple[float, float] | None) -> None:
    """Write one plane (Y, X) as TIFF, whole or not at all.

    Parameters
    ----------
    pixel_um : size (y, x) of a pixel in micrometres, if it is known

    Raises
    ------
    OutputError
        When it can't be written.
    """
    sizes: dict[str, Any] = {}
    if pixel_um is not None:
        y, x = pixel_um
        sizes = {"resolution": (1 / x, 1 / y), "metadata": {"axes": "YX", "unit": "um"}}
        sizes["imagej"] = plane.dtype in (np.uint8, np.uint16, np.float32)
    with written_beside(path) as partial:
        tifffile.imwrite(partial, plane, **sizes)
