"""Small volumes whose truth is known, and TIFFs of every metadata family. Shared by the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

SPACING_UM = (1.0, 0.195, 0.39)
FAMILIES = ("shaped", "imagej", "ome", "plain")


def ramp(shape: tuple[int, int, int] = (5, 12, 16), dtype: str = "uint16") -> NDArray[Any]:
    """Every voxel another value (as far as the type goes): shows any change of order."""
    return np.arange(np.prod(shape)).astype(dtype).reshape(shape)


def ball(
    shape: tuple[int, int, int],
    radius: float,
    centre: tuple[float, float, float],
    spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> NDArray[np.bool_]:
    """Voxels within ``radius`` of ``centre``; both in micrometres, voxel 0 at 0."""
    return ellipsoid(shape, (radius, radius, radius), centre, spacing_um)


def ellipsoid(
    shape: tuple[int, int, int],
    semi_axes: tuple[float, float, float],
    centre: tuple[float, float, float],
    spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> NDArray[np.bool_]:
    """Voxels within an ellipsoid with the given half axes; all in micrometres, voxel 0 at 0."""
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    squares = [
        ((grid * step - c) / a) ** 2
        for grid, step, c, a in zip(grids, spacing_um, centre, semi_axes, strict=True)
    ]
    return squares[0] + squares[1] + squares[2] <= 1


def embryo(
    shape: tuple[int, int, int] = (24, 40, 48),
    spacing_um: tuple[float, float, float] = SPACING_UM,
    *,
    inside: int = 1000,
    outside: int = 100,
    seed: int = 0,
) -> NDArray[np.uint16]:
    """An ellipsoid of two thirds of the field with Poisson noise around ``inside``, on ``outside``."""
    extent = [(n - 1) * s for n, s in zip(shape, spacing_um, strict=True)]
    z, y, x = (e / 2 for e in extent)
    mask = ellipsoid(shape, (z * 2 / 3, y * 2 / 3, x * 2 / 3), (z, y, x), spacing_um)
    mean = np.where(mask, inside, outside)
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16)


def write_tiff(
    path: Path,
    data: NDArray[Any],
    family: str = "shaped",
    spacing_um: tuple[float, float, float] = SPACING_UM,
    *,
    channel: str | None = "nucleus",
    study: Any = 3,
    changes: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write ``data`` with sizes, channel and study as one family of programs does.

    ``changes`` replaces metadata keys (None removes one); ``options`` go to tifffile.
    """
    z, y, x = spacing_um
    said: dict[str, Any] = {"axes": "ZYX", "spacing": z, "unit": "um"}
    if family == "ome":
        said = {"axes": "ZYX", "PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
        said |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"}
        said |= {"Channel": {"Name": [channel]}} if channel else {}
    elif family == "shaped":
        said |= {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
    if family in ("shaped", "imagej"):
        said |= {"channel": channel, "study": study}
    said = {key: value for key, value in (said | (changes or {})).items() if value is not None}
    common: dict[str, Any] = {"photometric": "minisblack", "metadata": said, **options}
    if family == "imagej":
        common = {"imagej": True, "resolution": (1 / x, 1 / y), **common}
    elif family == "ome":
        common = {"ome": True, **common}
    elif family == "plain":
        common["metadata"] = None
    tifffile.imwrite(path, data, **common)
    return path
