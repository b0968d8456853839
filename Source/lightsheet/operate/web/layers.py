"""What the viewer shows of a job: its images and labels as plain arrays that any plane is read of at once.

``python -m lightsheet.operate.web.layers`` in a job's folder makes them, after the commands. Volumes beyond a
size are shown on a coarser grid, which is told; files to download are as they are.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.files import write_json
from lightsheet.core.intensity import percentiles
from lightsheet.core.processes import end_with_parent
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.numbered import numbered_files
from lightsheet.volumes.pictures import open_picture
from lightsheet.volumes.reading import each_frame, find_volumes
from lightsheet.volumes.resampled import nearest, resampled

_MOST_VOXELS, _COARSE = 1 << 27, 48
_LOW, _HIGH = 1.0, 99.8


def make_layers(folder: Path) -> list[dict[str, Any]]:
    """Make the layers of a job's folder and write ``layers/layers.json``.

    Raises
    ------
    LightsheetError
        When a result can't be read.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    options = job["options"]
    spacing = tuple(options["spacing_um"]) if options["spacing_um"] else None
    select = Selection(time=options["time"], channel_index=options["channel_index"])
    given = Overrides(spacing, select=select, planes=True)
    (folder / "layers").mkdir(exist_ok=True)
    made = [
        layer(folder, name, sources, labels=labels) for name, sources, labels in _wanted(folder, job, given)
    ]
    write_json(folder / "layers" / "layers.json", {"layers": made})
    return made


def _wanted(
    folder: Path, job: dict[str, Any], given: Overrides
) -> Sequence[tuple[str, Sequence[tuple[Path, Overrides]], bool]]:
    """Name, files and kind of each layer."""
    plain = Overrides(given.spacing_um, planes=True)
    output, stored = folder / "output", folder / job["stored"]
    if job["options"].get("stack"):
        stored = folder / "stack" / f"{stored.stem}.tif"
        given = plain
    if job["task"] in ("track", "states"):
        tracks = [(path, plain) for path in numbered_files(output / "tracks", "masks").values()]
        if job["look"]["labels"]:
            return [("tracks", tracks, True)]
        frames = [(path, plain) for path in numbered_files(folder / "frames", "frames").values()]
        layers = [("image", frames, False), ("tracks", tracks, True)]
        states = output / "states"
        if states.is_dir():
            told = [(path, plain) for path in numbered_files(states, "masks").values()]
            layers.append(("states", told, True))
        return layers
    image = [(stored, one) for one in (each_frame(stored, given) if stored.is_file() else [given])]
    results = [(path, plain) for path in find_volumes(output)]
    name = "fused" if job["task"] == "fuse" else "objects"
    return [("image", image[:1], False), (name, results[:1], job["task"] != "fuse")]


def layer(
    folder: Path, name: str, sources: Sequence[tuple[Path, Overrides]], *, labels: bool
) -> dict[str, Any]:
    """Write a layer as an array (T, Z, Y, X); what the viewer has to know of it."""
    shape, shown, spacing = None, None, None
    target = folder / "layers" / f"{name}.npy"
    out: np.memmap[Any, Any] | None = None
    for at, (path, given) in enumerate(sources):
        with open_picture(path, replace(given, lenient=True)) as volume:
            if out is None:
                shape = volume.shape_zyx
                shown = _grid(shape, len(sources))
                spacing = volume.info.spacing_um or (1.0, *(volume.info.yx_um or (1.0, 1.0)))
                kind = np.dtype(np.uint32 if labels else _type(volume.info.dtype))
                out = np.lib.format.open_memmap(target, "w+", kind, (len(sources), *shown))
            data = volume.read(0, volume.shape_zyx[0])
            if data.shape != shape or shown is None:
                raise LightsheetError(f"{path.name}: expected frames of one shape, got another")
            if shown != shape:
                data = nearest(data, shown) if labels else resampled(data, shown)
            out[at] = data
    if out is None or shape is None or shown is None or spacing is None:
        raise LightsheetError(f"{name}: expected a result to show, got none")
    out.flush()
    step = [um * there / on for um, there, on in zip(spacing, shape, shown, strict=True)]
    facts: dict[str, Any] = {
        "name": name,
        "labels": labels,
        "shape": list(out.shape),
        "spacing_um": step,
        "full": list(shape),
        "in_pixels": volume.info.spacing_um is None and volume.info.yx_um is None,
    }
    if labels:
        return {
            **facts,
            "low": 0,
            "high": int(out.max()),
            "objects": len(np.unique(out)) - bool((out == 0).any()),
        }
    low, high = percentiles(np.ascontiguousarray(out[len(out) // 2]), (_LOW, _HIGH))
    return {**facts, "low": low, "high": max(high, low + 1e-6), "bright": _brightest(out[0])}


def _grid(shape: tuple[int, int, int], frames: int) -> tuple[int, int, int]:
    """Return the grid on which a volume is shown: its own, or a coarser one."""
    factor = min(1.0, (_MOST_VOXELS / (frames * float(np.prod(shape)))) ** (1 / 3))
    z, y, x = (max(1, int(size * factor)) for size in shape) if factor < 1 else shape
    return z, y, x


def _type(stored: str) -> str:
    return stored if stored in ("uint8", "uint16") else "float32"


def _brightest(volume: NDArray[Any]) -> list[int]:
    """Place (z, y, x) of the brightest surroundings."""
    z, y, x = (min(size, _COARSE) for size in volume.shape)
    small = ndimage.gaussian_filter(resampled(volume, (z, y, x)), 2.0)
    at = np.unravel_index(int(small.argmax()), small.shape)
    return [
        min(size - 1, int((place + 0.5) * size / few))
        for place, size, few in zip(at, volume.shape, small.shape, strict=True)
    ]


def main() -> int:
    """Make the layers of the folder that this is run in."""
    end_with_parent()
    try:
        make_layers(Path())
    except LightsheetError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
