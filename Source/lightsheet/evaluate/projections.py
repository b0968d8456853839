"""Maximum projections of a volume along its three axes, gathered slab by slab, and their files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from lightsheet.core.axes import ZYX, SpacingUm
from lightsheet.core.files import made_alone, written_beside
from lightsheet.core.jit import compiled
from lightsheet.core.threads import in_threads
from lightsheet.volumes.lazy import LazyVolume

PLANES = ("XY", "XZ", "YZ")
MONTAGE = "projections"
_MONTAGE_PIXELS = 1600
_GAP = 6
_PATIENCE_S = 60.0
_UM_PER_CM = 1e4


@dataclass
class Projections:
    """Maximum projections, gathered slab by slab.

    Attributes
    ----------
    xy, xz, yz : (Y, X), (Z, X) and (Z, Y) maxima
    """

    shape_zyx: ZYX
    dtype: Any
    xy: NDArray[Any] = field(init=False)
    xz: NDArray[Any] = field(init=False)
    yz: NDArray[Any] = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        depth, height, width = self.shape_zyx
        self.xy = np.empty((height, width), self.dtype)
        self.xz = np.empty((depth, width), self.dtype)
        self.yz = np.empty((depth, height), self.dtype)

    def add(self, slab: NDArray[Any]) -> None:
        """Take the next planes (Z, Y, X)."""
        xz, yz = self.xz[self._next :], self.yz[self._next :]
        if not self._next:
            self.xy[:] = slab[0]

        def by_plane(start: int, stop: int) -> None:
            _project_planes(slab, start, stop, xz, yz)

        def by_row(start: int, stop: int) -> None:
            _project_down(slab, start, stop, self.xy)

        in_threads(by_plane, len(slab))
        in_threads(by_row, slab.shape[1])
        self._next += len(slab)


def project(volume: LazyVolume) -> Projections:
    """Maximum projections of a volume on disk; holds a few planes at a time."""
    projections = Projections(volume.info.shape_zyx, np.dtype(volume.info.dtype))
    for slab in volume.slabs():
        projections.add(slab)
    return projections


def files_of(folder: Path, name: str) -> dict[str, Path]:
    """Files that `write_projections` makes; the montage comes last and says that all are there."""
    files = {plane: folder / f"{name}_{plane}.tif" for plane in PLANES}
    return {**files, MONTAGE: folder / f"{name}_{MONTAGE}.png"}


def write_projections(projections: Projections, files: dict[str, Path], spacing_um: SpacingUm | None) -> None:
    """Write the projections as TIFF, in the volume's units, and a PNG of all; each whole or not at all."""
    pictures = {"XY": projections.xy, "XZ": projections.xz, "YZ": projections.yz}
    with made_alone(
        files[MONTAGE], _PATIENCE_S
    ):  # all four are of one volume, whoever writes at the same time
        for plane, picture in pictures.items():
            with written_beside(files[plane]) as partial:
                _write_tiff(partial, picture, plane, spacing_um)
        with written_beside(files[MONTAGE]) as partial:
            partial.write_bytes(imagecodecs.png_encode(montage(projections, spacing_um)))


def montage(projections: Projections, spacing_um: SpacingUm | None) -> NDArray[np.uint8]:
    """XY with YZ to its right and XZ below, to scale; grey values span percentiles 2 to 99.8 of XY."""
    z, y, x = spacing_um or (1.0, 1.0, 1.0)
    depth, height, width = projections.shape_zyx
    extent = max(width * x, height * y) + depth * z
    pixel = max(min(z, y, x), extent / _MONTAGE_PIXELS)
    rows, columns, deep = (max(1, round(n * s / pixel)) for n, s in ((height, y), (width, x), (depth, z)))
    low, high = (float(p) for p in np.percentile(projections.xy.astype(np.float64), (2, 99.8)))
    high = high if high > low else float(projections.xy.max())
    canvas = np.zeros((rows + _GAP + deep, columns + _GAP + deep), np.uint8)
    canvas[rows : rows + _GAP] = canvas[:, columns : columns + _GAP] = 255
    canvas[rows + _GAP :, columns + _GAP :] = 255
    canvas[:rows, :columns] = _grey(projections.xy, (rows, columns), low, high)
    canvas[:rows, columns + _GAP :] = _grey(projections.yz.T, (rows, deep), low, high)
    canvas[rows + _GAP :, :columns] = _grey(projections.xz, (deep, columns), low, high)
    return canvas


def _grey(picture: NDArray[Any], shape: tuple[int, int], low: float, high: float) -> NDArray[np.uint8]:
    """Nearest neighbours, so that every value shown is one of the volume."""
    at = [((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, picture.shape, strict=True)]
    scaled = (picture[np.ix_(*at)].astype(np.float64) - low) / (high - low if high > low else 1.0)
    return np.asarray(255 * np.clip(scaled, 0, 1), dtype=np.uint8)


def _write_tiff(path: Path, picture: NDArray[Any], plane: str, spacing_um: SpacingUm | None) -> None:
    metadata: dict[str, Any] = {"axes": plane[::-1], "projection": f"maximum, {plane}"}
    options: dict[str, Any] = {}
    if spacing_um is not None:
        size = dict(zip("ZYX", spacing_um, strict=True))
        across, down = size[plane[0]], size[plane[1]]
        options = {"resolution": (_UM_PER_CM / across, _UM_PER_CM / down), "resolutionunit": "CENTIMETER"}
        metadata |= {"unit": "um", "pixel_size_um": [down, across]}
    tifffile.imwrite(path, picture, photometric="minisblack", metadata=metadata, **options)


@compiled()
def _project_planes(slab: Any, start: int, stop: int, xz: Any, yz: Any) -> None:
    """Maxima along Y and along X of each plane."""
    for z in range(start, stop):
        for x in range(slab.shape[2]):
            xz[z, x] = slab[z, 0, x]
        for y in range(slab.shape[1]):
            highest = slab[z, y, 0]
            for x in range(slab.shape[2]):
                value = slab[z, y, x]
                highest = max(highest, value)
                xz[z, x] = max(xz[z, x], value)
            yz[z, y] = highest


@compiled()
def _project_down(slab: Any, start: int, stop: int, xy: Any) -> None:
    """Maxima along Z of some rows, together with what ``xy`` already holds."""
    for z in range(slab.shape[0]):
        for y in range(start, stop):
            for x in range(slab.shape[2]):
                xy[y, x] = max(xy[y, x], slab[z, y, x])
