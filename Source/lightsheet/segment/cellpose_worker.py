"""Run by the Python of an environment that has Cellpose 3: volumes in, masks out; see `segment.cellpose`."""

import json
import sys
from pathlib import Path

import numpy as np
from cellpose import models


def main() -> None:
    """Find the diameter of the objects in the last volume, and segment all with it."""
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
