"""Cellpose 3 as the challenge uses it, run by the Python of an environment of its own.

Its ``nuclei`` and ``cyto3`` models are of Cellpose up to version 3, which needs an older numpy than this
project; so it is not imported but run as a program. It gets volumes of cubic voxels, as the challenge makes
them, and the diameter of the objects in the fused volume.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightsheet.core.axes import Channel, Floats, SpacingUm
from lightsheet.core.processes import run_elsewhere
from lightsheet.volumes.labels import Labels
from lightsheet.volumes.resampled import nearest, resampled, shape_for

MODELS = {"nucleus": "nuclei", "membrane": "cyto3"}
# Run by the other Python: the diameter of the objects in the last volume, and all segmented with it.
_PROGRAM = """
import json
import sys
from pathlib import Path

import numpy as np
from cellpose import models


def main() -> None:
    where = Path(sys.argv[1])
    job = json.loads((where / "job.json").read_text())
    images = [np.load(where / f"image{number}.npy") for number in range(job["images"])]
    whole = models.Cellpose(gpu=False, model_type=job["model"])
    middle = images[-1][len(images[-1]) // 2]
    diameter = float(whole.eval(middle, channels=[0, 0], diameter=None)[3])
    for number, image in enumerate(images):
        found = whole.eval(image, channels=[0, 0], diameter=diameter, do_3D=True, z_axis=0, anisotropy=1.0)[0]
        np.save(where / f"labels{number}.npy", np.asarray(found))


if __name__ == "__main__":
    main()
"""


def by_cellpose(
    python: Path, images: Sequence[Floats], spacing_um: SpacingUm, channel: Channel
) -> list[Labels]:
    """Segment volumes (Z, Y, X), the last of which is the fused one, by whose objects the diameter is set.

    Parameters
    ----------
    python : interpreter of an environment that has Cellpose 3
    images : volumes of one shape
    spacing_um : voxel size (z, y, x) in micrometres
    channel : decides on the model

    Raises
    ------
    MissingExtraError
        When the interpreter is missing or has no Cellpose.
    ElsewhereError
        When it ends with an error.
    """
    cubic = (min(spacing_um),) * 3
    shape = images[0].shape
    wanted = shape_for((shape[0], shape[1], shape[2]), spacing_um, cubic)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        for number, image in enumerate(images):
            np.save(where / f"image{number}.npy", resampled(image, wanted))
        (where / "job.json").write_text(json.dumps({"model": MODELS[channel], "images": len(images)}))
        run_elsewhere(
            python, _PROGRAM, where, flag="--cellpose", package="Cellpose 3", wanted="masks",
            install="cellpose<4",
        )  # fmt: skip
        found = [np.load(where / f"labels{number}.npy") for number in range(len(images))]
    return [nearest(labels.astype(np.uint32), (shape[0], shape[1], shape[2])) for labels in found]
