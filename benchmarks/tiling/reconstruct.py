"""Tiled prediction side by side, on the same volume and network: the reference's scheme, MONAI's, ours.

``make bench-reconstruct`` runs this, in about 25 minutes on two CPU cores. Every timed way runs in a
fresh process, whose peak resident memory and time are measured. Parts:

1. time and memory on a simulated volume with a dark background, with the shipped network (time) and with one
   with instance norm as the reference's (time_old), which is trained first and kept in --work;
2. do tiles show: seam index, difference to one pass over the whole volume, difference of two tile grids; with
   both networks (values);
3. cost against volume size, four sizes, with a figure;
4. work planned for volumes of the challenge's sizes;
5. MONAI and ours on a GPU, where there is one.

The reference's scheme is ours to write, from its description (``reconstruct_reference.py``). Bars are
printed beside the figures. Exit code 1 when a bar on values or planned work is missed; bars on speed and
memory depend on the machine and are only printed.
"""

import argparse
import dataclasses
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Bars, say
from benchmarks.tiling.data import old_style_model
from benchmarks.tiling.gpu import gpu_leg
from benchmarks.tiling.scaling import planned_leg, scaling_leg
from benchmarks.tiling.times import AUTOMATIC, Timed, time_leg
from benchmarks.tiling.times import QUICK as QUICK_TIMED
from benchmarks.tiling.values import QUICK as QUICK_SIZES
from benchmarks.tiling.values import Sizes, judge_values, values_leg

PARTS = ("time", "time_old", "values", "scaling", "planned", "gpu")
OURS = {
    "ours, PyTorch fp32": {"runtime": "torch", "precision": "fp32"},
    "ours, PyTorch bf16": {"runtime": "torch", "precision": "bf16"},
    "ours, OpenVINO fp32": {"runtime": "openvino", "precision": "fp32"},
    "ours, OpenVINO bf16": {"runtime": "openvino", "precision": "bf16"},
    AUTOMATIC: {},
}
OLD_STYLE = "network with instance norm as the reference's, trained here on simulated volumes"
EXACT = [name for name in OURS if "fp32" in name]


def main() -> int:
    """Run the parts asked for; 1 if a bar on values or planned work is missed."""
    arguments = parse()
    say(f"reconstruction benchmark; {_machine()}")
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
        return run(arguments, arguments.work)
    with tempfile.TemporaryDirectory() as folder:
        return run(arguments, Path(folder))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs, not how fast")
    parser.add_argument("--work", type=Path, help="folder of volumes and models; kept and used again")
    parser.add_argument("--figure", type=Path, help="where the plot of cost against size goes")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to run, separated by commas")
    parser.add_argument("--shape", help="size Z,Y,X of the timed volume")
    parser.add_argument("--memory_gb", type=float, default=1.25, help="memory for our tiles in the timed run")
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT / "resources" / "models" / "Study1_Nucleus",
        help="network of the timed run and of the first table of values",
    )
    parser.add_argument("--train_seconds", type=float, help="training of the network with instance norm")
    return parser.parse_args()


def run(arguments: argparse.Namespace, work: Path) -> int:
    """Run the parts in ``work``."""
    parts = arguments.parts.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise SystemExit(f"--parts: expected some of {','.join(PARTS)}, got {unknown[0]!r}")
    ways, bars, quick = available_ways(), Bars(), arguments.quick
    legs: dict[str, Callable[[], None]] = {
        "time": lambda: times(arguments, work, ways, arguments.model),
        "time_old": lambda: times(arguments, work, ways, trained(arguments, work)),
        "values": lambda: both_values(arguments, work, ways, bars),
        "scaling": lambda: scaling_leg(work, {}, quick=quick, figure=arguments.figure),
        "planned": lambda: planned_leg(arguments.model, bars),
        "gpu": lambda: gpu_leg(work, arguments.model, quick=quick),
    }
    for part in parts:
        started = time.perf_counter()
        legs[part]()
        say(f"  ({part}: {time.perf_counter() - started:.0f} s)")
    for name in bars.missed:
        say(f"missed: {name}")
    return 1 if bars.missed else 0


def available_ways() -> dict[str, dict[str, Any]]:
    """Our ways that this installation can run."""
    try:
        import openvino
    except ImportError:
        say("OpenVINO is not installed; its rows are left out (pip install openvino)")
        return {name: settings for name, settings in OURS.items() if settings.get("runtime") != "openvino"}
    say(f"OpenVINO {openvino.__version__.split('-')[0]}")
    return dict(OURS)


def times(arguments: argparse.Namespace, work: Path, ways: dict[str, dict[str, Any]], model: Path) -> None:
    """Time all ways with one network."""
    timed = QUICK_TIMED if arguments.quick else Timed()
    if arguments.shape:
        z, y, x = map(int, arguments.shape.split(","))
        timed = dataclasses.replace(timed, shape=(z, y, x))
    title = f"network {model.name} (no norm)" if model == arguments.model else OLD_STYLE
    time_leg(work, model, title, ways, arguments.memory_gb, timed)


def trained(arguments: argparse.Namespace, work: Path) -> Path:
    """Train the network with instance norm, or take it from an earlier run."""
    seconds = arguments.train_seconds or (5 if arguments.quick else 200)
    shape, patch = ((24, 64, 64), (16, 32, 32)) if arguments.quick else ((48, 144, 144), (32, 64, 64))
    features = 8 if arguments.quick else 16
    return old_style_model(work, seconds, 6, shape, patch, features)


def both_values(
    arguments: argparse.Namespace, work: Path, ways: dict[str, dict[str, Any]], bars: Bars
) -> None:
    """Values with the network without norms and with one with instance norm."""
    sizes = QUICK_SIZES if arguments.quick else Sizes()
    ours = {name: settings for name, settings in ways.items() if settings}
    rows = values_leg(work, arguments.model, f"network {arguments.model.name} (no norm)", ours, sizes)
    judge_values(bars, rows, EXACT, "no norm")
    rows = values_leg(work, trained(arguments, work), OLD_STYLE, ours, sizes)
    judge_values(bars, rows, [], "instance norm")


def _machine() -> str:
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2] for line in info.read_text().splitlines() if "model name" in line]
        model = names[0].strip() if names else model
    return f"{os.cpu_count()} cores, {model}; Python {platform.python_version()}, PyTorch {torch.__version__}"


if __name__ == "__main__":
    raise SystemExit(main())
