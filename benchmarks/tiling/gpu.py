"""The GPU part of ``reconstruct.py``: MONAI's inferer against ours, and how busy the GPU is meanwhile."""

import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.common import say, table
from benchmarks.tiling.data import synthetic_on_disk
from benchmarks.tiling.methods import run_apart
from benchmarks.tiling.reference import PATCH

SHAPE = (256, 768, 768)
QUICK_SHAPE = (64, 256, 256)
LEAST_RATIO = 2.0
LEAST_BUSY = 0.85
_SAMPLE_MS = 100


class GpuWatch:
    """Samples the driver's utilisation (share of time in which a kernel runs) while something is measured.

    Attributes
    ----------
    busy : mean over the samples from the first to the last kernel, 0 to 1; None when it can't be measured
    """

    busy: float | None = None

    def __enter__(self) -> "GpuWatch":
        words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        words += ["-lms", str(_SAMPLE_MS)]
        try:
            self._process: Any = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        except OSError:
            self._process = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        text = self._process.communicate()[0]
        values = [int(line) for line in text.split() if line.isdigit()]
        at_work = [number for number, value in enumerate(values) if value > 0]
        if at_work:
            self.busy = statistics.mean(values[at_work[0] : at_work[-1] + 1]) / 100


def gpu_leg(work: Path, model: Path, *, quick: bool) -> None:
    """Print MONAI and ours on a GPU, or one line that there is none."""
    import torch

    if not torch.cuda.is_available():
        say("GPU: none that PyTorch can use on this machine; this part was not run")
        return
    shape = QUICK_SHAPE if quick else SHAPE
    view = synthetic_on_disk(work / f"gpu_{'x'.join(map(str, shape))}.tif", shape)
    task = {"view": str(view), "model": str(model), "device": "cuda", "watch_gpu": True}
    rivals = {"MONAI sliding window, fp32 (TF32)": False, "MONAI sliding window, bf16 autocast": True}
    rows: dict[str, dict[str, Any]] = {}
    for number, (name, bf16) in enumerate(rivals.items()):
        extra = {"do": "rival", "method": "monai", "patch": PATCH, "bf16": bf16}
        rows[name] = run_apart({**task, **extra, "output": str(work / f"gpu_monai_{number}.tif")})
    for name, precision in (("ours, fp32", "fp32"), ("ours, as chosen automatically", "auto")):
        settings = {"device": "cuda", "precision": precision}
        # The first volume pays for start-up; the second is what a folder of views costs.
        result = run_apart(
            {**task, "do": "ours", "settings": [settings, settings], "output": str(work / "gpu_ours.tif")}
        )
        rows[name] = {**result, **result["runs"][-1]}
    base = rows["MONAI sliding window, fp32 (TF32)"]["seconds"]
    lines = [
        [
            name,
            f"{row['seconds']:.2f}",
            f"{base / row['seconds']:.1f}",
            f"{row['gpu_gib']:.1f}",
            f"{row['peak_gib']:.1f}",
            "-" if row["busy"] is None else f"{row['busy']:.0%}",
        ]
        for name, row in rows.items()
    ]
    say(f"\nGPU: {torch.cuda.get_device_name()}, volume {' x '.join(map(str, shape))} (synthetic)")
    table(["method", "s", "x MONAI", "GPU GiB", "main GiB", "GPU busy"], lines)
    ours = rows["ours, as chosen automatically"]
    say(f"  bar: at least {LEAST_RATIO:g} times MONAI: {_verdict(base / ours['seconds'] >= LEAST_RATIO)}")
    if ours["busy"] is not None:
        say(f"  bar: GPU busy at least {LEAST_BUSY:.0%}: {_verdict(ours['busy'] >= LEAST_BUSY)}")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "missed"
