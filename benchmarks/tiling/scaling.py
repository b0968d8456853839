"""Cost against volume size, and planned work for the study shapes: parts of ``reconstruct.py``."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Bars, say, table
from benchmarks.tiling.data import ZYX, narrow_model, synthetic_on_disk
from benchmarks.tiling.methods import run_apart
from benchmarks.tiling.reference import ReferenceTiling

SHAPES: tuple[ZYX, ...] = ((128, 256, 256), (128, 362, 362), (128, 512, 512), (256, 512, 512))
QUICK_SHAPES: tuple[ZYX, ...] = ((32, 64, 64), (32, 96, 96), (32, 128, 128), (64, 128, 128))
STUDIES: dict[int, ZYX] = {
    1: (222, 731, 860),
    2: (264, 2008, 1091),
    3: (891, 817, 817),
    4: (80, 1920, 1920),
    5: (309, 1920, 1920),
}
MEMORY_GB = 1.0
MOST_REDUNDANCY = 1.9
PLANNED_MEMORY_GIB = 12
GIB = 1 << 30


def scaling_leg(work: Path, settings: dict[str, Any], *, quick: bool, figure: Path | None) -> None:
    """Time and peak memory of four volume sizes with a narrow network and fixed memory."""
    model = narrow_model(work / "narrow")
    points = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        name = "x".join(map(str, shape))
        view = synthetic_on_disk(work / f"synthetic_{name}.tif", shape)
        task = {"do": "ours", "view": str(view), "model": str(model), "output": str(work / "scaling.tif")}
        result = run_apart({**task, "settings": [{"memory_gb": MEMORY_GB, **settings}]})
        points.append((math.prod(shape) / 1e6, result["runs"][0]["seconds"], result["peak_gib"], name))
    say(
        "\nCost against volume size (ours, 4 features, random weights, synthetic volumes, "
        f"--memory_gb {MEMORY_GB:g})"
    )
    rows = [[name, f"{m:.1f}", f"{s:.1f}", f"{1e3 * s / m:.0f}", f"{g:.2f}"] for m, s, g, name in points]
    table(["volume", "megavoxels", "s", "s per gigavoxel", "peak GiB"], rows)
    size, seconds, peak = (np.array(column, float) for column in list(zip(*points, strict=True))[:3])
    exponent, _ = np.polyfit(np.log(size), np.log(seconds), 1)
    slope, start = np.polyfit(size, seconds, 1)
    say(
        f"  time: {slope * 1e3:.0f} s per gigavoxel and {start:.1f} s at the start "
        f"(straight line); exponent of a power law {exponent:.2f}"
    )
    say(
        f"  memory: {size[-1] / size[0]:.0f} times the voxels take {peak[-1] / peak[0]:.2f} times the "
        f"memory; the result alone grows from {2e6 * size[0] / GIB:.2f} to {2e6 * size[-1] / GIB:.2f} GiB"
    )
    if figure is not None:
        draw(figure, size, seconds, peak)


def draw(path: Path, size: Any, seconds: Any, peak: Any) -> None:
    """Draw two panels: time and peak memory against the size of the volume."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    slope, start = np.polyfit(size, seconds, 1)
    line = np.array([0, size[-1] * 1.05])
    left.plot(line, start + slope * line, color="0.7", label="straight line")
    left.plot(size, seconds, "o", color="tab:blue", label="measured")
    left.set(ylabel="time (s)", ylim=(0, None), title="time")
    left.legend(frameon=False)
    right.plot(size, peak, "o-", color="tab:blue", label="peak of the process")
    right.plot(size, 4e6 * size / GIB, "--", color="tab:red", label="one float32 copy of the volume")
    right.set(ylabel="resident memory (GiB)", ylim=(0, 1.3 * max(peak)), title="memory")
    right.legend(frameon=False)
    for panel in (left, right):
        panel.set(xlabel="volume (megavoxels)", xlim=(0, size[-1] * 1.05))
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    say(f"  drawn: {path}")


def planned_leg(model: Path, bars: Bars) -> None:
    """Work planned for the challenge's volumes beside the reference's; nothing is computed."""
    from lightsheet.inference.planning import Limits, plan_prediction
    from lightsheet.models.folder import open_model
    from lightsheet.runtimes.loading import load_model

    loaded = load_model(open_model(model), "cpu", "fp32", "torch")
    limits = Limits(PLANNED_MEMORY_GIB * GIB)
    rows, most = [], 0.0
    for study, shape in STUDIES.items():
        plan = plan_prediction(shape, loaded.facts, loaded.patch_zyx, loaded.runtime, limits)
        theirs = ReferenceTiling(shape)
        ours = plan.redundancy
        most = max(most, ours)
        size = " x ".join(map(str, shape))
        rows.append(
            [
                f"study {study}",
                size,
                str(theirs.count),
                f"{theirs.redundancy:.2f}",
                str(plan.tiles.count),
                f"{ours:.2f}",
            ]
        )
    say(
        f"\nPlanned work for the challenge's volumes with {PLANNED_MEMORY_GIB} GiB, in multiply-adds for "
        "each one of a single pass over the volume (nothing is computed)"
    )
    table(["study", "volume", "reference's patches", "work", "our tiles", "work"], rows)
    bars.at_most("planned work, worst study", most, MOST_REDUNDANCY, judged=True)
