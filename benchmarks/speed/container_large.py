"""The challenge's largest size in the container: 309 x 1920 x 1920 voxels within 15 GiB and the time budget.

``python -m benchmarks.speed.container_large --image lightsheet:slim`` writes a view of that size, mirrored
copies of a simulated view of study 5 side by side, and has the image run on it as the platform does (no
network, 15 GiB, 512 processes). Prints the doctor's table, with the time and the peak memory, and what the
result's metadata say of the guard and of the share that the time budget left to the view. Ends with the
doctor's exit code. Needs 5 GB of disk in --folder.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from lightsheet.core.axes import ZYX, Channel
from lightsheet.simulate.dataset import simulate_pair
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import read_info, volume_writer

STUDY = 5
CHANNEL: Channel = "nucleus"


def main() -> int:
    """Write the view and run the container on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--image", default="lightsheet:slim", help="tag of the container image")
    parser.add_argument("--shape", default="309,1920,1920", help="size of the view (Z,Y,X), voxels")
    parser.add_argument("--simulated", default="103,320,320", help="size of what is mirrored (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the view goes for a while")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        view = Path(name).resolve() / "large_angle.tif"
        write_view(view, size(arguments.shape), size(arguments.simulated), arguments.seed)
        results = Path(name).resolve() / "results"
        script = ["bash", str(ROOT / "Docker" / "test_run.sh"), "--image", arguments.image]
        done = subprocess.run([*script, "--output", str(results), str(view)], check=False)
        for result in sorted(results.rglob("*.tif")):
            record = read_info(result).metadata["lightsheet"]
            told = {part: record.get(part) for part in ("model", "gate", "filled_fraction")}
            sys.stdout.write(f"{result.name}: {told}\n")
        return done.returncode


def size(text: str) -> ZYX:
    """Read a size."""
    z, y, x = map(int, text.split(","))
    return z, y, x


def write_view(path: Path, shape: ZYX, simulated: ZYX, seed: int) -> None:
    """Write mirrored copies of a simulated view, plane by plane."""
    pair = simulate_pair(STUDY, CHANNEL, seed, simulated)
    rows = [mirrored(length, n) for length, n in zip(shape, simulated, strict=True)]
    info = VolumeInfo(str(path), shape, "uint16", pair.spacing_um, CHANNEL, STUDY)
    with volume_writer(path, info, provenance={"simulated": "mirrored copies of one view"}) as writer:
        for plane in rows[0]:
            writer.write(pair.view[plane][np.ix_(rows[1], rows[2])][None])


def mirrored(length: int, n: int) -> NDArray[np.intp]:
    """Places 0 to n-1, back to 0, and so on."""
    place = np.arange(length) % (2 * n)
    return np.minimum(place, 2 * n - 1 - place)


if __name__ == "__main__":
    raise SystemExit(main())
