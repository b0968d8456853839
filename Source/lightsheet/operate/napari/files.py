"""Files of napari's layers: read with scale and unit, written so that Fiji shows them right too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LightsheetError
from lightsheet.operate.web.look import is_labels
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.labels import as_labels, write_labels
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.pictures import PLANAR_SUFFIXES, open_picture
from lightsheet.volumes.reading import each_frame
from lightsheet.volumes.tiff.writer import write_plane
from lightsheet.volumes.writing import write_volume

Layer = tuple[NDArray[Any], dict[str, Any], str]
UNIT = "micrometer"


def reader_for(path: "str | Sequence[str]") -> "Callable[[str | Sequence[str]], list[Layer]] | None":
    """Return what reads a file, as napari asks for it; None for files of other programs' formats."""
    paths = [path] if isinstance(path, str) else list(path)
    if not all(Path(one).suffix.lower() in PLANAR_SUFFIXES for one in paths):
        return None
    return read_layers


def read_layers(path: "str | Sequence[str]") -> list[Layer]:
    """Read files as layers (Y, X), (Z, Y, X) or (T, Z, Y, X).

    Raises
    ------
    LightsheetError
        When one can't be used.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return [read_layer(Path(one)) for one in paths]


def read_layer(path: Path) -> Layer:
    """Read a file as a layer; images of labels become labels.

    Raises
    ------
    LightsheetError
        When it can't be used.
    """
    frames: list[NDArray[Any]] = []
    labels, scale, known = False, (1.0, 1.0, 1.0), False
    for given in each_frame(path, Overrides(lenient=True, planes=True)):
        with open_picture(path, given) as volume:
            if not frames:
                labels = is_labels(volume)
                scale, known = _scale(volume)
            frames.append(volume.read(0, volume.shape_zyx[0]))
    data = np.stack(frames) if len(frames) > 1 else frames[0]
    facts: dict[str, Any] = {"name": path.stem, "metadata": {"source": str(path)}}
    sizes = [1.0, *scale] if len(frames) > 1 else list(scale)
    if len(frames) == 1 and data.shape[0] == 1:
        data, sizes = data[0], sizes[1:]
    if known:
        facts["units"] = [UNIT] * len(sizes)
    return data, {**facts, "scale": sizes}, "labels" if labels else "image"


def _scale(volume: LazyVolume) -> tuple[SpacingUm, bool]:
    info = volume.info
    if info.spacing_um is not None:
        return info.spacing_um, True
    return ((1.0, *info.yx_um), True) if info.yx_um is not None else ((1.0, 1.0, 1.0), False)


def spacing_of(data: NDArray[Any], scale: Sequence[float]) -> SpacingUm:
    """Voxel size (z, y, x) of a layer's scale; of a plane, Z is 1."""
    sizes = [1.0, *map(float, scale)] if data.ndim == 2 else [float(value) for value in scale]
    z, y, x = sizes[-3:]
    return z, y, x


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a layer of an image, (Y, X) or (Z, Y, X), as TIFF with its voxel size.

    Raises
    ------
    LightsheetError
        When it can't be written, or is a movie.
    """
    array = np.asarray(data)
    spacing = spacing_of(array, meta.get("scale", (1.0,) * array.ndim))
    write_stack(Path(path), array, spacing)
    return [path]


def write_stack(path: Path, array: NDArray[Any], spacing: SpacingUm) -> None:
    """Write (Y, X) or (Z, Y, X) as TIFF.

    Raises
    ------
    LightsheetError
        When it can't be written, or has other axes.
    """
    if array.ndim == 2:
        write_plane(path, array, spacing[1:])
        return
    if array.ndim != 3:
        raise LightsheetError(f"{path}: expected axes Z, Y, X, got {array.ndim} axes; save one time point")
    z, y, x = array.shape
    write_volume(path, array, VolumeInfo(str(path), (z, y, x), array.dtype.name, spacing))


def write_label_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a layer of labels, (Y, X) or (Z, Y, X), as TIFF with a colour map.

    Raises
    ------
    LightsheetError
        When it can't be written, or is a movie.
    """
    array = np.asarray(data)
    if array.ndim not in (2, 3):
        raise LightsheetError(f"{path}: expected axes Z, Y, X, got {array.ndim} axes; save one time point")
    spacing = spacing_of(array, meta.get("scale", (1.0,) * array.ndim))
    labels = as_labels(array if array.ndim == 3 else array[None], path)
    write_labels(Path(path), labels, spacing)
    return [path]
