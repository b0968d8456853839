"""The ways to predict a volume that ``reconstruct.py`` compares, each run in a fresh process.

``python reconstruct_methods.py JSON`` runs one task and prints its result as the last line, in JSON. Time
runs from the opening of the view to the written result, so it holds the loading of the network (and its
compilation), the input channels, prediction and writing, but not the imports. The input channels of all ways
are made by this project's code, and all results are written by it: what differs is tiling and runtime.
Threads of all ways sleep while they wait, as ours do by default: otherwise the rivals would be many times
slower where other processes keep a core busy.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from benchmarks.tiling.data import ZYX
from benchmarks.tiling.reference import ReferenceTiling
from benchmarks.tiling.reference import predict as predict_reference

GIB = 1 << 30
MONAI_OVERLAP = 0.25


def run_apart(task: dict[str, Any], timeout_s: float = 1500.0) -> dict[str, Any]:
    """Run a task in a fresh process; ends the benchmark with the task's own message when it fails."""
    words = [sys.executable, "-m", "benchmarks.tiling.methods", json.dumps(task)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        raise SystemExit(f"{task['do']} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_gib() -> float:
    """Peak resident memory of this process: VmHWM, or the system's other figure for it."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def ours(task: dict[str, Any]) -> dict[str, Any]:
    """Fuse a view once for each of ``task["settings"]``, as ``apply_script.py`` does."""
    from lightsheet.fuse.fusion_settings import FusionSettings
    from lightsheet.fuse.predict import Fuser
    from lightsheet.volumes.reading import read_info

    runs = []
    for number, settings in enumerate(task["settings"]):
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        output = Path(task["output"]).with_suffix(f".{number}.tif")
        with _gpu_watch(task) as watch:
            started, worked = time.perf_counter(), time.process_time()
            fuser = Fuser([Path(task["model"])], FusionSettings(guard=False, **values))
            fuser.fuse(Path(task["view"]), output, overwrite=True)
            spent = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - worked}
        provenance = read_info(output).metadata["lightsheet"]
        kept = ("tile_zyx", "overlap_zyx", "cuts_zyx", "run_by", "redundancy")
        told = {key: provenance[key] for key in kept if key in provenance}
        runs.append({**spent, "output": str(output), "busy": watch.busy, **told})
    return {"runs": runs, "peak_gib": peak_gib(), "gpu_gib": _gpu_peak(task)}


def rival(task: dict[str, Any]) -> dict[str, Any]:
    """Predict a view by the reference's scheme or MONAI's inferer and write the result."""
    import torch

    from lightsheet.volumes.info import VolumeInfo
    from lightsheet.volumes.reading import open_volume, write_volume

    patch: ZYX = tuple(task["patch"])
    with _gpu_watch(task) as watch:
        started, worked = time.perf_counter(), time.process_time()
        with open_volume(Path(task["view"])) as volume:
            channels, normalization = input_channels(volume, task["model"])
            info: VolumeInfo = volume.info
        network = load_network(task["model"], task.get("device", "cpu"))
        if task["method"] == "reference":
            result = predict_reference(
                network, channels, ReferenceTiling(info.shape_zyx, patch, task["margin"])
            )
        else:
            with torch.autocast(task.get("device", "cpu"), torch.bfloat16, enabled=task.get("bf16", False)):
                result = predict_monai(network, channels, patch, MONAI_OVERLAP)
        write_volume(Path(task["output"]), normalization.undo(result), info)
        spent = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - worked}
    return {**spent, "peak_gib": peak_gib(), "busy": watch.busy, "gpu_gib": _gpu_peak(task)}


def numbers(task: dict[str, Any]) -> dict[str, Any]:
    """Predictions whose values are compared: whole volume in one pass, both rivals, on two grids each.

    Speed does not matter here, so gradients are off; the numbers are the same. Results go to .npy files.
    """
    import torch

    from lightsheet.core.malloc import keep_freed_memory
    from lightsheet.volumes.reading import open_volume

    keep_freed_memory()
    with open_volume(Path(task["view"])) as volume:
        channels, normalization = input_channels(volume, task["model"])
    network = load_network(task["model"], "cpu")
    z, y, x = channels.shape[1:]
    tile: ZYX = tuple(task["tile"])
    margin: ZYX = tuple(task["margin"])
    half: ZYX = (tile[0] // 2, tile[1] // 2, tile[2] // 2)
    folder, results = Path(task["output"]), {}
    with torch.inference_mode():
        results["whole"] = network(torch.from_numpy(channels)[None])[0, 0].numpy()
        for name, shift in (("reference", (0, 0, 0)), ("reference_shifted", half)):
            results[name] = predict_reference(
                network, channels, ReferenceTiling((z, y, x), tile, margin, shift)
            )
        results["monai"] = predict_monai(network, channels, tile, task["overlap"])
        padded = np.pad(channels, [(0, 0), *((n, 0) for n in half)], mode="reflect")
        moved = predict_monai(network, padded, tile, task["overlap"])
        results["monai_shifted"] = moved[half[0] :, half[1] :, half[2] :]
    for name, result in results.items():
        # As written: in counts, clipped to what a file holds.
        counts = np.clip(normalization.undo(result), 0, 65535)
        np.save(folder / f"{name}.npy", counts.astype(np.float32))
    return {"low": normalization.low, "high": normalization.high}


def input_channels(volume: Any, model: str) -> tuple[NDArray[np.float32], Any]:
    """All input channels (C, Z, Y, X) of a whole volume, float32, and the normalisation of its counts."""
    from lightsheet.fuse.inputs import prepare_inputs
    from lightsheet.models.folder import open_model

    inputs = prepare_inputs(volume, open_model(Path(model)).settings.inputs)
    counts = volume.read(0, volume.info.shape_zyx[0])
    z, y, x = (slice(0, n) for n in volume.info.shape_zyx)
    return inputs.channels(counts, (z, y, x)), inputs.normalization


def load_network(model: str, device: str) -> Any:
    """Build the plain PyTorch network of a model folder, as a user of PyTorch would; gradients are on."""
    from lightsheet.models.folder import load_state, open_model
    from lightsheet.networks import build

    folder = open_model(Path(model))
    network = build(folder.settings.network)
    network.load_state_dict(load_state(folder))
    return network.eval().to(device)


def predict_monai(
    network: Any, channels: NDArray[np.float32], roi: tuple[int, ...], overlap: Any
) -> NDArray[np.float32]:
    """Run MONAI's SlidingWindowInferer with Gaussian weights, one window at a time."""
    import torch
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(roi, sw_batch_size=1, overlap=overlap, mode="gaussian")
    device = next(network.parameters()).device
    with torch.inference_mode():
        result = inferer(torch.from_numpy(channels)[None].to(device), network)
    values: NDArray[np.float32] = result[0, 0].float().cpu().numpy()
    return values


def monai_spans(shape: ZYX, roi: ZYX, overlap: tuple[float, ...]) -> list[list[tuple[int, int]]]:
    """First and last voxel (excluded) of MONAI's windows along each axis."""
    from monai.data.utils import dense_patch_slices
    from monai.inferers.utils import _get_scan_interval

    interval = _get_scan_interval(shape, roi, 3, list(overlap))
    slices = dense_patch_slices(shape, roi, interval)
    return [sorted({(place[axis].start, place[axis].stop) for place in slices}) for axis in range(3)]


class _NotWatched:
    """Stands for a GPU that is not there."""

    busy: float | None = None

    def __enter__(self) -> "_NotWatched":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _gpu_watch(task: dict[str, Any]) -> Any:
    if not task.get("watch_gpu"):
        return _NotWatched()
    from benchmarks.tiling.gpu import GpuWatch

    return GpuWatch()


def _gpu_peak(task: dict[str, Any]) -> float | None:
    if not task.get("watch_gpu"):
        return None
    import torch

    return torch.cuda.max_memory_reserved() / GIB


def main() -> int:
    """Run the task given as JSON."""
    from lightsheet.core.malloc import sleep_while_waiting

    sleep_while_waiting()
    task = json.loads(sys.argv[1])
    result = {"ours": ours, "rival": rival, "numbers": numbers}[task["do"]](task)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
