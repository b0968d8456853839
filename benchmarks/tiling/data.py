"""Volumes and networks for the reconstruction benchmarks: simulated, with fixed seeds, nothing downloaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from recipes.commands import NOT_BEATEN

ZYX = tuple[int, int, int]
STUDY = 1
SPACING_OF_SYNTHETIC = (1.0, 0.4, 0.4)
# Counts that the brightest 0.2 % of a rescaled view reach: rounding to counts is then no visible error.
BRIGHT_COUNTS = 30_000.0
_SHELL = 2


def specimen_in_background(shape: ZYX, seed: int) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Simulate a specimen in the middle of a field that is mostly dark.

    A field of two thirds of each side is simulated; the specimen fills some three quarters of that, so half
    of each side of the whole. The rest is drawn from the outermost voxels of the simulated field, which show
    the camera's dark counts and noise only.

    Returns
    -------
    view and fused (Z, Y, X), uint16, and the voxel size (z, y, x) in micrometres
    """
    from lightsheet.simulate.dataset import simulate_pair

    z, y, x = (max(8 if axis == 0 else 32, 2 * n // 3 // 8 * 8) for axis, n in enumerate(shape))
    pair = simulate_pair(STUDY, "nucleus", seed, (z, y, x))
    rng = np.random.default_rng([seed, 1])
    view, fused = (_surrounded(field, shape, rng) for field in (pair.view, pair.fused))
    return view, fused, pair.spacing_um


def _surrounded(field: NDArray[Any], shape: ZYX, rng: np.random.Generator) -> NDArray[Any]:
    shell = np.ones(field.shape, bool)
    shell[tuple(slice(_SHELL, -_SHELL) for _ in range(3))] = False
    whole = rng.choice(field[shell], shape)
    begin = [(n - m) // 2 for n, m in zip(shape, field.shape, strict=True)]
    whole[tuple(slice(b, b + m) for b, m in zip(begin, field.shape, strict=True))] = field
    return whole


def write(path: Path, counts: NDArray[Any], spacing_um: Any) -> Path:
    """Write counts as a TIFF that all commands read."""
    from lightsheet.volumes.info import VolumeInfo
    from lightsheet.volumes.reading import write_volume

    shape = (counts.shape[0], counts.shape[1], counts.shape[2])
    info = VolumeInfo(str(path), shape, "uint16", spacing_um, "nucleus", STUDY, {"simulated": "benchmark"})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, counts.astype(np.uint16), info)
    return path


def view_on_disk(path: Path, shape: ZYX, seed: int, *, bright: bool = False) -> Path:
    """Write a simulated view with a large dark background, and its fused volume; kept if they are there.

    Parameters
    ----------
    bright : multiply the counts such that 99.8 % of them lie below 30 000
    """
    fused_path = fused_beside(path)
    if not (path.exists() and fused_path.exists()):
        view, fused, spacing = specimen_in_background(shape, seed)
        if bright:
            factor = BRIGHT_COUNTS / float(np.percentile(view, 99.8))
            view = np.minimum(np.rint(view * factor), 65535)
        write(fused_path, fused, spacing)
        write(path, view, spacing)
    return path


def fused_beside(view: Path) -> Path:
    """Where the fused volume of a simulated view lies."""
    return view.with_name(f"{view.stem}_fused.tif")


def old_style_model(work: Path, seconds: float, count: int, shape: ZYX, patch: ZYX, features: int) -> Path:
    """Train a network with instance norm on image and distance, as the reference has; kept if it is there.

    The recipe is this project's: with the reference's the network is still far below the view after so few
    steps, and what tiles do to a network that has learned nothing says little.

    Returns
    -------
    The model folder, in ``work``
    """
    model = work / f"old_style_{features}_{seconds:.0f}s"
    if model.is_dir():
        return model
    views = work / "old_style_data"
    for number in range(count):
        pair = [views / f"image_{number}_nucleus_{role}.tif" for role in ("angle", "fused")]
        if not all(path.exists() for path in pair):
            view, fused, spacing = specimen_in_background(shape, 500 + number)
            for path, counts in zip(pair, (view, fused), strict=True):
                write(path, counts, spacing)
    converted = work / "old_style_h5"
    command("convert_images.py", views, converted)
    lists = {"train": range(1, count), "val": range(1)}
    for part, numbers in lists.items():
        names = [f"image_{n}_nucleus_angle.h5;image_{n}_nucleus_fused.h5\n" for n in numbers]
        (work / f"{part}.csv").write_text("".join(names))
    files = ["--train_list", work / "train.csv", "--val_list", work / "val.csv", "--data_root", converted]
    size = ["--patch_size", ",".join(map(str, patch)), "--feat_channels", features]
    kind = [
        "--layer_norm",
        "instance",
        "--image_groups",
        "data/raw_image,data/surface_distance",
        "--no_resume",
    ]
    command("train_script.py", *files, *kind, *size, "--max_minutes", seconds / 60, "--output_path", model)
    scores = json.loads((model / "scores.json").read_text())
    told = f"{scores['step']} steps in {seconds:.0f} s, validation N_SSIM {scores['n_ssim_3d']:+.3f} (3d)"
    sys.stdout.write(f"network with instance norm: {told}\n")
    return model


def narrow_model(folder: Path, features: int = 4) -> Path:
    """Write a model folder of a narrow U-Net that says almost nothing: for time and memory only."""
    import torch

    from lightsheet.core.axes import IMAGE_GROUPS
    from lightsheet.models.folder import ModelSettings, save_model
    from lightsheet.models.inputs import ModelInputs
    from lightsheet.networks import build

    if folder.is_dir():
        return folder
    network = {"name": "unet3d", "in_channels": 3, "features": features, "norm": "none", "residual": True}
    torch.manual_seed(0)
    built = build(network)
    torch.nn.init.normal_(built.last_layer().weight, std=0.02)
    settings = ModelSettings(network, ModelInputs(IMAGE_GROUPS, 20.0, 50.0), (32, 64, 64), "nucleus")
    card = "# Narrow network\n\nRandom weights; only for measuring time and memory."
    save_model(folder, settings, built.state_dict(), {"simulated": True}, {}, card)
    return folder


def synthetic_on_disk(path: Path, shape: ZYX, seed: int = 0) -> Path:
    """Write a large view plane by plane: an ellipsoid of repeated cells in dark noise. Not a simulation.

    Only for measuring time and memory and for comparing two runs; kept if it is there already.
    """
    from lightsheet.volumes.info import VolumeInfo
    from lightsheet.volumes.reading import volume_writer

    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    depth, height, width = shape
    rng = np.random.default_rng(seed)
    cells = _cells(rng)
    noise = rng.integers(0, 40, (height + 64, width + 64), np.uint16)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width))
    around = (y[:, None] / 0.7) ** 2 + (x[None, :] / 0.7) ** 2
    repeats = (-(-height // 64), -(-width // 64))
    info = VolumeInfo(str(path), shape, "uint16", SPACING_OF_SYNTHETIC, "nucleus", STUDY)
    with volume_writer(path, info, provenance={"synthetic": "repeated cells and noise"}) as writer:
        for number in range(depth):
            level = ((2 * number + 1) / depth - 1) / 0.7
            tile = np.tile(cells[number % 64], repeats)[:height, :width]
            down, right = rng.integers(0, 64, 2)
            plane = 100 + noise[down : down + height, right : right + width]
            writer.write((plane + tile * (around + level**2 < 1)).astype(np.uint16))
    return path


def _cells(rng: np.random.Generator) -> NDArray[np.uint16]:
    """Draw a block of 64 cubed voxels with bright balls, which can be repeated."""
    index = np.arange(64, dtype=np.float32)
    block = np.zeros((64, 64, 64), np.float32)
    for centre in rng.uniform(0, 64, (24, 3)):
        away = [np.minimum(np.abs(index - c), 64 - np.abs(index - c)) for c in centre]
        squares = (
            (2 * away[0][:, None, None]) ** 2 + away[1][None, :, None] ** 2 + away[2][None, None, :] ** 2
        )
        block = np.maximum(block, 1500 * np.exp(-squares / 60.0))
    return block.astype(np.uint16)


def command(script: str, *arguments: object) -> None:
    """Run one of the project's commands; its messages are shown only when it fails.

    A network that is trained to be timed need not beat the view.
    """
    words = [sys.executable, str(ROOT / "Source" / script), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    allowed = (0, NOT_BEATEN) if script == "train_script.py" else (0,)
    if done.returncode not in allowed:
        raise SystemExit(f"{script} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
