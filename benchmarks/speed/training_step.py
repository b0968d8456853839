"""Time of a training step on the CPU: the reference's way against ours, each in its own process.

The reference's way is ours to write: the same U-Net with instance norm and direct output, fp32, RAdam,
100 (1 - SSIM of torchmetrics) + L1, and the allocator as it comes. Our way is what ``train_script.py`` does
by default. Both see the same random patches. Also measured: the share of the loss, and of waiting for data
from converted files. Prints a table; exits with 1 if a bar is missed (ratio 8, loss 5 %, sample 25 ms).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALLEST_RATIO = 8.0
LARGEST_LOSS_SHARE = 0.05
LONGEST_SAMPLE_MS = 25.0
SAMPLE_PATCH = (64, 256, 256)


def main() -> int:
    """Measure in turns, print the table."""
    arguments = parse()
    if arguments.measure:
        measure = {"reference": reference, "ours": ours, "sample": sample}[arguments.measure]
        sys.stdout.write(json.dumps(measure(arguments)) + "\n")
        return 0
    results: dict[str, list[dict[str, float]]] = {"ours": [], "reference": [], "sample": []}
    for turn in range(arguments.turns):
        for name in ("ours", "reference") if turn % 2 == 0 else ("reference", "ours"):
            results[name].append(in_own_process(name))
    results["sample"].append(in_own_process("sample"))
    return report(arguments, results)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patch", default="64,128,128", help="patch Z,Y,X in voxels")
    parser.add_argument("--turns", type=int, default=2, help="processes of each kind, in turns")
    parser.add_argument("--measure", choices=("reference", "ours", "sample"), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(name: str) -> dict[str, float]:
    """Measure one way in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.speed.training_step", "--measure", name, *sys.argv[1:]]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers: dict[str, float] = json.loads(output.splitlines()[-1])
    return numbers


def median_time(action: Callable[[], Any], repeats: int) -> float:
    """Median time of an action in seconds; a first, untimed call warms up."""
    action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def random_patches(patch: tuple[int, ...], channels: int) -> tuple[Any, Any]:
    """Smooth random view channels and a fused patch like it."""
    import torch

    torch.manual_seed(0)
    coarse = torch.rand(1, channels, *(size // 8 for size in patch))
    view = torch.nn.functional.interpolate(coarse, size=patch, mode="trilinear")
    return view, view[:, :1] * 0.9 + 0.02 * torch.rand(1, 1, *patch)


def reference(arguments: argparse.Namespace) -> dict[str, float]:
    """Time a step the reference's way."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    from lightsheet.networks import build

    patch = tuple(map(int, arguments.patch.split(",")))
    torch.manual_seed(0)
    network = build({"name": "unet3d", "in_channels": 2, "features": 16, "norm": "instance"})
    optimizer = torch.optim.RAdam(network.parameters(), lr=1e-3)
    channels, fused = random_patches(patch, 2)

    def step() -> None:
        optimizer.zero_grad()
        prediction = network(channels)
        similarity = structural_similarity_index_measure(prediction, fused, data_range=1.0)
        loss = 100 * (1 - similarity) + (prediction - fused).abs().mean()
        loss.backward()
        optimizer.step()

    return {"step_s": median_time(step, 2)}


def ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Time a step as ``train_script.py`` makes it by default, with two channels as the reference."""
    from lightsheet.core.malloc import keep_freed_memory, sleep_while_waiting

    sleep_while_waiting()
    import torch

    from lightsheet.fuse.training.losses import LossWeights, fusion_loss
    from lightsheet.fuse.training.settings import TrainSettings
    from lightsheet.networks import build
    from lightsheet.training.course import WeightAverage
    from lightsheet.training.precision import arithmetic_for
    from lightsheet.training.settings import FitSettings

    keep_freed_memory()
    z, y, x = map(int, arguments.patch.split(","))
    patch = (z, y, x)
    groups = ("data/raw_image", "data/surface_distance")
    settings = TrainSettings(Path(), Path(), FitSettings(Path()), image_groups=groups)
    torch.manual_seed(0)
    network = build(settings.network(patch))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.fit.learning_rate)
    average = WeightAverage(network, settings.fit.ema)
    weights = LossWeights(settings.ssim_weight, settings.ssim_tf_weight)
    bf16 = arithmetic_for(settings.fit, "cpu", patch, network.stride_zyx) == "bf16"
    channels, fused = random_patches(patch, 2)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            prediction = network(channels)
        fusion_loss(prediction, fused, weights).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.fit.gradient_clip)
        optimizer.step()
        average.update(0)

    prediction = channels[:, :1].clone().requires_grad_(True)
    step_s = median_time(step, 5)
    loss_s = median_time(lambda: fusion_loss(prediction, fused, weights).backward(), 5)
    return {"step_s": step_s, "loss_s": loss_s, "bf16": float(bf16)}


def sample(arguments: argparse.Namespace) -> dict[str, float]:
    """Time of a training sample read from converted files, both forms, two channels, median of 20."""
    import numpy as np
    import tifffile

    from lightsheet.cli.convert import main as convert
    from lightsheet.core.malloc import keep_freed_memory
    from lightsheet.fuse.training.data import PatchDataset
    from lightsheet.fuse.training.pairs import open_volumes
    from lightsheet.fuse.training.settings import TrainSettings
    from lightsheet.training.augment_settings import read_augmentations
    from lightsheet.training.settings import FitSettings

    keep_freed_memory()
    times = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        metadata = {"axes": "ZYX", "PhysicalSizeZ": 1.0, "PhysicalSizeY": 0.4, "PhysicalSizeX": 0.4}
        for kind in ("train_angle", "train_fused", "val_angle", "val_fused"):
            shape = (128, 512, 512) if kind.startswith("train") else (64, 256, 256)
            z, y, x = np.ogrid[tuple(slice(-1, 1, complex(size)) for size in shape)]
            inside = z**2 + y**2 + x**2 < 0.7
            data = rng.poisson(np.where(inside, 800.0, 100.0)).astype(np.uint16)
            extra = {"unit": "um", "channel": "nucleus", "study": 1}
            tifffile.imwrite(folder / f"{kind}.tif", data, metadata=metadata | extra)
        for form, flags in (("full", []), ("compact", ["--compact"])):
            convert([str(folder), str(folder / form), *flags])
            for part in ("train", "val"):
                (folder / f"{part}.csv").write_text(f"{form}/{part}_angle.h5;{form}/{part}_fused.h5\n")
            groups = ("data/raw_image", "data/surface_distance")
            lists = (folder / "train.csv", folder / "val.csv")
            settings = TrainSettings(*lists, FitSettings(folder), data_root=folder, image_groups=groups)
            pairs = open_volumes(settings).train
            dataset = PatchDataset(pairs, SAMPLE_PATCH, 0.75, read_augmentations(None), seed=0)
            numbers = iter(range(100))
            times[f"{form}_ms"] = 1000 * median_time(lambda d=dataset, n=numbers: d[next(n)], 20)
    return times


def report(arguments: argparse.Namespace, results: dict[str, list[dict[str, float]]]) -> int:
    """Print the table and say whether the bars are kept."""
    ours_s = statistics.median(result["step_s"] for result in results["ours"])
    reference_s = statistics.median(result["step_s"] for result in results["reference"])
    loss_s = statistics.median(result["loss_s"] for result in results["ours"])
    ratio, share = reference_s / ours_s, loss_s / ours_s
    compact_ms, full_ms = (results["sample"][0][f"{form}_ms"] for form in ("compact", "full"))
    arithmetic = "bf16" if results["ours"][0]["bf16"] else "fp32 (no bf16 on this CPU)"
    waiting = compact_ms / (compact_ms + 1000 * ours_s)
    size = "x".join(map(str, SAMPLE_PATCH))
    rows = [
        ("reference's way: fp32, instance norm, torchmetrics SSIM", f"{reference_s:.2f} s", ""),
        (f"ours: {arithmetic}, separable fp32 SSIM, allocator", f"{ours_s:.2f} s", ""),
        ("ratio", f"{ratio:.1f}", f"at least {SMALLEST_RATIO:g}"),
        ("share of the loss in our step", f"{share:.1%}", f"at most {LARGEST_LOSS_SHARE:.0%}"),
        (f"sample {size}, compact files", f"{compact_ms:.1f} ms", f"at most {LONGEST_SAMPLE_MS:g}"),
        (f"sample {size}, full files", f"{full_ms:.1f} ms", ""),
        ("share of waiting for data, if nothing is read ahead", f"{waiting:.1%}", ""),
    ]
    sys.stdout.write(f"training step, patch {arguments.patch}, batch 1, 2 channels, random smooth patches\n")
    for name, value, bar in rows:
        sys.stdout.write(f"  {name:<60}{value:>10}  {bar}\n")
    fast = ratio >= SMALLEST_RATIO and share <= LARGEST_LOSS_SHARE
    return 0 if fast and compact_ms <= LONGEST_SAMPLE_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
