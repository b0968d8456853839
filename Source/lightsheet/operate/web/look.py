"""What an uploaded file is; run as a process of its own, so that no file can harm or stop the server.

``python -m lightsheet.operate.web.look PATH`` prints one JSON object: what `look` returns, or an error.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightsheet.core.errors import LightsheetError, one_line
from lightsheet.core.memory import limit_memory
from lightsheet.core.processes import end_with_parent
from lightsheet.volumes.info import Overrides, Selection
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.numbered import numbered_files
from lightsheet.volumes.pictures import open_picture

_FEW_VALUES = 4000
_SOME_PLANES = 5
_FIRST = (Selection(), Selection(time=0), Selection(channel_index=0), Selection(time=0, channel_index=0))


def look(path: Path) -> dict[str, Any]:
    """Return what a file is: axes, sizes, voxel size, type, whether it is an image of labels.

    Raises
    ------
    LightsheetError
        When it can't be used.
    """
    frames = 0
    if path.is_dir() and path.suffix.lower() != ".zarr":
        files = numbered_files(path, "frames")
        frames, path = len(files), next(iter(files.values()))
    with _opened(path) as volume:
        info = volume.info
        depth, height, width = info.shape_zyx
        spacing = info.spacing_um or (None, *(info.yx_um or (None, None)))
        return {
            "frames": frames or info.frames,
            "channels": info.channels,
            "shape": [depth, height, width],
            "spacing_um": list(spacing),
            "type": info.dtype,
            "stained": info.channel,
            "study": info.study,
            "labels": is_labels(volume),
        }


def _opened(path: Path) -> LazyVolume:
    """Open the first volume of a file that may hold several."""
    given = Overrides(lenient=True)
    first: LightsheetError | None = None
    for select in _FIRST:
        try:
            return open_picture(path, replace(given, select=select))
        except LightsheetError as error:
            first = first or error
    raise first or LightsheetError(f"{path.name}: expected an image, got none")


def is_labels(volume: LazyVolume) -> bool:
    """Whether numbers look like those of objects: whole, many voxels 0, neighbours mostly equal."""
    if np.dtype(volume.info.dtype).kind not in "ui":
        return False
    depth = volume.shape_zyx[0]
    at = max(0, depth // 2 - _SOME_PLANES // 2)
    some = volume.read(at, min(depth, at + _SOME_PLANES))
    if not some.any() or len(np.unique(some)) > _FEW_VALUES:
        return False
    equal = float((some[:, :, 1:] == some[:, :, :-1]).mean())
    inside = some[:, :, 1:] > 0
    of_objects = float((some[:, :, 1:] == some[:, :, :-1])[inside].mean()) if inside.any() else 0.0
    return equal > 0.85 and of_objects > 0.7 and bool((some == 0).mean() > 0.02)


def main() -> int:
    """Print what the file of the command line is."""
    end_with_parent()
    limit_memory()
    path = Path(sys.argv[1])
    try:
        found = look(path)
    except LightsheetError as error:
        text = one_line(error).replace(str(path.parent) + "/", "")
        sys.stdout.write(json.dumps({"error": text}) + "\n")
        return 1
    except MemoryError:
        sys.stdout.write(json.dumps({"error": f"{path.name}: too large for this machine's memory"}) + "\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
