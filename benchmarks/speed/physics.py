"""What the physics step costs: time and memory of ``apply_script.py --model physics`` beside a Gaussian.

A simulated view is tiled to the size that is asked for and written as a TIFF. The peer is what a user would
type instead: scikit-image's Gaussian of the whole volume in memory, read and written by tifffile. Both run in
a process of their own, with all the cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import ROOT, Bars, say, table
from lightsheet.core.axes import ZYX
from lightsheet.simulate.dataset import simulate_pair

SPACING = (1.0, 0.39, 0.39)
PEER = """
import sys, tifffile
from skimage.filters import gaussian
view = tifffile.imread(sys.argv[1])
tifffile.imwrite(sys.argv[2], gaussian(view, 0.5, preserve_range=True).astype(view.dtype))
"""


def main() -> int:
    """Print both; 0, as no bar of time is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="100,512,512", help="size of the view (Z,Y,X), voxels")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the quickest counts")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        view = Path(scratch) / "view.tif"
        write_view(view, (z, y, x))
        result = Path(scratch) / "result.tif"
        step = [sys.executable, str(ROOT / "Source" / "apply_script.py"), str(view), str(result)]
        step += ["--model", "physics", "--overwrite"]
        ways = {
            "physics step": step,
            "physics step, side told": [*step, "--light", "-x"],
            "Gaussian by scikit-image": [sys.executable, "-c", PEER, str(view), str(result)],
        }
        took = {name: min(timed(command) for _ in range(arguments.repeats)) for name, command in ways.items()}
        idle = min(timed([*step, "--help"])[0] for _ in range(arguments.repeats))
    millions = z * y * x / 1e6
    rows = [
        (name, f"{s:.1f}", f"{s / millions * 10:.2f}", f"{m / 2**30:.2f}") for name, (s, m) in took.items()
    ]
    say(f"{z} x {y} x {x} voxels, uint16; start of the program alone {idle:.1f} s")
    table(("way", "seconds", "seconds for 10 Mvoxel", "GiB at most"), rows)
    bars = Bars()
    seconds, _ = took["physics step"]
    bars.at_most("seconds for 10 Mvoxel, start left out", (seconds - idle) / millions * 10, 2.0)
    return 0


def write_view(path: Path, shape: ZYX) -> None:
    """Write a view of that size, tiled from a small one."""
    small = simulate_pair(1, "nucleus", 5, (48, 128, 128)).view
    times = [-(-n // m) for n, m in zip(shape, small.shape, strict=True)]
    view = np.tile(small, times)[tuple(slice(n) for n in shape)]
    metadata = {"axes": "ZYX", "spacing": SPACING[0], "unit": "um"}
    step = 1 / SPACING[1]
    tifffile.imwrite(path, view, imagej=True, resolution=(step, step), metadata=metadata)


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds and most bytes of main memory of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        raise RuntimeError(f"{command}: expected exit code 0, got status {status}")
    return seconds, usage.ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
