"""Tiled prediction side by side, on the same volume and network: the reference's scheme, MONAI's, ours.

``make bench-reconstruct`` runs this, in about twelve minutes on two CPU cores. Every timed way runs in a
fresh process, whose peak resident memory and time are measured. Parts:

1. time and memory on a simulated volume with a dark background, with the shipped network;
2. do tiles show: seam index, difference to one pass over the whole volume, difference of two tile grids; with
   the shipped network and with one with instance norm, which is trained first (and kept in --work);
3. cost against volume size, four sizes, with a figure;
4. work planned for volumes of the challenge's sizes;
5. MONAI and ours on a GPU, where there is one.

The reference's scheme is ours to write, from its description (``reconstruct_reference.py``). Bars are
printed beside the figures. Exit code 1 when a bar on values or planned work is missed; bars on speed and
memory depend on the machine and are only printed.
"""

import argparse
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconstruct_data import ROOT, ZYX, old_style_model, view_on_disk
from reconstruct_gpu import gpu_leg
from reconstruct_methods import MONAI_OVERLAP, monai_spans, run_apart
from reconstruct_reference import MARGIN, PATCH, ReferenceTiling
from reconstruct_report import Bars, say, table
from reconstruct_scaling import planned_leg, scaling_leg
from reconstruct_values import QUICK as QUICK_SIZES
from reconstruct_values import Sizes, judge_values, values_leg

PARTS = ("time", "values", "scaling", "planned", "gpu")
SHAPE: ZYX = (80, 384, 560)
QUICK_SHAPE: ZYX = (24, 80, 80)
QUICK_PATCH: ZYX = (32, 64, 64)
QUICK_MARGIN: ZYX = (2, 4, 4)
SEED = 7
OURS = {
    "ours, PyTorch fp32": {"runtime": "torch", "precision": "fp32"},
    "ours, OpenVINO fp32": {"runtime": "openvino", "precision": "fp32"},
    "ours, OpenVINO bf16": {"runtime": "openvino", "precision": "bf16"},
    "ours, as chosen automatically": {},
}
EXACT = [name for name in OURS if "fp32" in name]
# Times the reference's scheme; and times MONAI's inferer.
LEAST_RATIOS = {"ours, PyTorch fp32": 4.0, "ours, OpenVINO fp32": 15.0, "ours, OpenVINO bf16": 25.0}
LEAST_OVER_MONAI = 5.0
MOST_MEMORY_SHARE = 1 / 3


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
    parser.add_argument("--memory_gb", type=float, default=2.0, help="memory for our tiles in the timed run")
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT / "resources" / "models" / "Generalist_Nucleus",
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
        "time": lambda: time_leg(arguments, work, ways),
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


def time_leg(arguments: argparse.Namespace, work: Path, ways: dict[str, dict[str, Any]]) -> None:
    """Time and peak memory of all ways on one volume, each in a fresh process."""
    shape, patch, margin = SHAPE, PATCH, MARGIN
    if arguments.quick:
        shape, patch, margin = QUICK_SHAPE, QUICK_PATCH, QUICK_MARGIN
    if arguments.shape:
        z, y, x = map(int, arguments.shape.split(","))
        shape = (z, y, x)
    view = view_on_disk(work / f"view_{'x'.join(map(str, shape))}.tif", shape, SEED)
    task = {"view": str(view), "model": str(arguments.model)}
    windows = math.prod(map(len, monai_spans(shape, patch, (MONAI_OVERLAP,) * 3)))
    tiling = ReferenceTiling(shape, patch, margin)
    work_done = {
        "reference's scheme, PyTorch eager": tiling.redundancy,
        "MONAI sliding window, PyTorch eager": windows * math.prod(patch) / math.prod(shape),
    }
    say(
        f"\nTime and memory: simulated volume {' x '.join(map(str, shape))} ({math.prod(shape) / 1e6:.1f} "
        f"megavoxels), network {arguments.model.name}"
    )
    say(
        f"  patches of the reference {tiling.count}, windows of MONAI {windows}, both of "
        f"{' x '.join(map(str, patch))}; ours: --memory_gb {arguments.memory_gb:g}"
    )
    rows: dict[str, dict[str, Any]] = {}
    for name, method in zip(work_done, ("reference", "monai"), strict=True):
        extra = {
            "do": "rival",
            "method": method,
            "patch": patch,
            "margin": margin,
            "output": str(work / f"{method}.tif"),
        }
        rows[name] = {**run_apart({**task, **extra}), "redundancy": work_done[name]}
    for name, settings in ways.items():
        asked = {"memory_gb": arguments.memory_gb, **settings}
        result = run_apart({**task, "do": "ours", "settings": [asked], "output": str(work / "ours.tif")})
        rows[name] = {**result, **result["runs"][0]}
    print_times(rows)
    if arguments.quick:
        say("  start-up is all that is timed at this size: bars on speed and memory are left out")
    else:
        judge_times(rows)


def print_times(rows: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    reference, monai = list(rows.values())[:2]
    lines = [
        [
            name,
            f"{row['seconds']:.1f}",
            f"{row['cpu_s']:.1f}",
            f"{reference['seconds'] / row['seconds']:.1f}",
            f"{monai['seconds'] / row['seconds']:.1f}",
            f"{row['peak_gib']:.2f}",
            f"{row['redundancy']:.2f}",
        ]
        for name, row in rows.items()
    ]
    chosen = rows["ours, as chosen automatically"]["run_by"]
    table(["method", "s", "CPU s", "x reference", "x MONAI", "peak GiB", "work per needed"], lines)
    say("  CPU s: of all threads; on a machine that others use, trust its ratios more than those of s")
    say(f"  work: multiply-adds for each one of a single pass; automatic choice: {chosen}")


def judge_times(rows: dict[str, dict[str, Any]]) -> None:
    """Print the bars on speed and memory, which depend on the machine."""
    reference, monai = list(rows.values())[:2]
    bars = Bars()
    for name, row in rows.items():
        if name in LEAST_RATIOS:
            for unit, kind in (("seconds", "speed"), ("cpu_s", "speed by CPU time")):
                ratio = reference[unit] / row[unit]
                bars.at_least(f"{name}: times the reference's {kind}", ratio, LEAST_RATIOS[name])
            share = row["peak_gib"] / reference["peak_gib"]
            bars.at_most(f"{name}: share of the reference's memory", share, MOST_MEMORY_SHARE)
    best = rows.get("ours, OpenVINO fp32", rows["ours, as chosen automatically"])
    bars.at_least("ours, fp32: times MONAI's speed", monai["seconds"] / best["seconds"], LEAST_OVER_MONAI)


def both_values(
    arguments: argparse.Namespace, work: Path, ways: dict[str, dict[str, Any]], bars: Bars
) -> None:
    """Values with the network without norms and with one with instance norm."""
    sizes = QUICK_SIZES if arguments.quick else Sizes()
    ours = {name: settings for name, settings in ways.items() if settings}
    rows = values_leg(work, arguments.model, f"network {arguments.model.name} (no norm)", ours, sizes)
    judge_values(bars, rows, EXACT, "no norm")
    seconds = arguments.train_seconds or (5 if arguments.quick else 80)
    shape, patch = ((24, 64, 64), (16, 32, 32)) if arguments.quick else ((48, 144, 144), (32, 64, 64))
    old = old_style_model(work, seconds, 6, shape, patch, 8 if arguments.quick else 16)
    title = f"network with instance norm, trained here for {seconds:.0f} s on simulated volumes"
    rows = values_leg(work, old, title, ours, sizes)
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
