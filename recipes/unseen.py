"""Simulated studies that no model was trained on: other voxels, specimens, optics and cameras.

Each is drawn anew from ranges that are wider than those of the five presets, and than those of the drawn
studies that models are trained on (`lightsheet.simulate.variety`).
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores


from lightsheet.core.axes import CHANNELS, ZYX, Channel
from lightsheet.simulate.variety import DRAWN_STUDY, WIDE, drawn_pair
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume


def main() -> int:
    """Write pairs of unseen studies as TIFF files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write into")
    parser.add_argument("--channel", choices=CHANNELS, default="nucleus")
    parser.add_argument("--count", type=int, default=10, help="specimens, each of a study of its own")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=0, help="of the first specimen")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    arguments.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        (arguments.output, arguments.channel, arguments.seed + number, (z, y, x))
        for number in range(arguments.count)
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for _ in pool.map(write_pair, jobs):
            pass
    return 0


def write_pair(job: tuple[Path, Channel, int, ZYX]) -> None:
    """Write the view and the fused volume of one specimen."""
    folder, channel, seed, shape = job
    paths = [folder / f"image_{seed}_{channel}_{role}.tif" for role in ("angle", "fused")]
    if all(path.exists() for path in paths):
        return
    pair = drawn_pair(channel, seed, shape, WIDE)
    for path, counts in zip(paths, (pair.view, pair.fused), strict=True):
        metadata = {"simulated": "unseen study"}
        info = VolumeInfo(str(path), shape, "uint16", pair.spacing_um, channel, DRAWN_STUDY, metadata)
        write_volume(path, counts, info)


if __name__ == "__main__":
    raise SystemExit(main())
