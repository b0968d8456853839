"""Time and memory of all ways on one volume: part of ``reconstruct.py``.

The volume is chosen such that the reference computes 2.9 times what is needed there, as it does on average
for the five sizes of the challenge (2.6 to 3.4 times), though it is small.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Bars, say, table
from benchmarks.tiling.data import ZYX, view_on_disk
from benchmarks.tiling.methods import MONAI_OVERLAP, monai_spans, run_apart
from benchmarks.tiling.reference import MARGIN, PATCH, ReferenceTiling

SEED = 7
AUTOMATIC = "ours, as chosen automatically"
# Times the reference's scheme; and times MONAI's inferer.
LEAST_RATIOS = {"ours, PyTorch fp32": 4.0, "ours, OpenVINO fp32": 15.0, "ours, OpenVINO bf16": 25.0}
LEAST_OVER_MONAI = 5.0
MOST_MEMORY_SHARE = 1 / 3


@dataclass(frozen=True)
class Timed:
    """What is timed; ``judged``: bars hold at this size."""

    shape: ZYX = (80, 384, 560)
    patch: ZYX = PATCH
    margin: ZYX = MARGIN
    judged: bool = True


QUICK = Timed((24, 80, 80), (32, 64, 64), (2, 4, 4), judged=False)


def time_leg(
    work: Path, model: Path, title: str, ways: dict[str, dict[str, Any]], memory_gb: float, timed: Timed
) -> None:
    """Time and peak memory of all ways on one volume, each in a fresh process."""
    shape, patch, margin = timed.shape, timed.patch, timed.margin
    view = view_on_disk(work / f"view_{'x'.join(map(str, shape))}.tif", shape, SEED)
    task = {"view": str(view), "model": str(model)}
    windows = math.prod(map(len, monai_spans(shape, patch, (MONAI_OVERLAP,) * 3)))
    tiling = ReferenceTiling(shape, patch, margin)
    work_done = {
        "reference's scheme, PyTorch eager": tiling.redundancy,
        "MONAI sliding window, PyTorch eager": windows * math.prod(patch) / math.prod(shape),
    }
    say(
        f"\nTime and memory: simulated volume {' x '.join(map(str, shape))} ({math.prod(shape) / 1e6:.1f} "
        f"megavoxels), {title}"
    )
    say(
        f"  patches of the reference {tiling.count}, windows of MONAI {windows}, both of "
        f"{' x '.join(map(str, patch))}; ours: --memory_gb {memory_gb:g}"
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
        asked = {"memory_gb": memory_gb, **settings}
        result = run_apart({**task, "do": "ours", "settings": [asked], "output": str(work / "ours.tif")})
        rows[name] = {**result, **result["runs"][0]}
    print_times(rows)
    if timed.judged:
        judge_times(rows)
    else:
        say("  start-up is all that is timed at this size: bars on speed and memory are left out")


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
    chosen = rows[AUTOMATIC]["run_by"]
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
    best = rows.get("ours, OpenVINO fp32", rows[AUTOMATIC])
    bars.at_least("ours, fp32: times MONAI's speed", monai["seconds"] / best["seconds"], LEAST_OVER_MONAI)
