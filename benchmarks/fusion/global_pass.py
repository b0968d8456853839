"""A pass at low resolution that sees whole volumes, before the one at full resolution: for ablations.py.

A network of its own predicts volumes averaged over blocks of 2 x 4 x 4 voxels. Its result, interpolated,
takes the place of the light path among the inputs of the network at full resolution, whose patches so learn
what lies beyond them (the idea of two-step submissions to the challenge).
"""

import dataclasses
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.core.axes import LIGHT_MAP, Floats
from lightsheet.datasets.splits import read_pairs
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.models.folder import SETTINGS, open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.volumes.h5.header import nodes_name
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.reading import read_volume, write_volume
from recipes.commands import run, train_anyhow

Counts = NDArray[np.uint16]
BLOCK_ZYX = (2, 4, 4)
LIGHT_SCALE_UM = 50.0  # as in training
GROUPS = "data/raw_image,data/surface_distance"


def write_averages(data: Path, output: Path) -> None:
    """Average and convert all volumes of a folder that models.py filled; what is there is kept."""
    averaged = output / "averaged"
    for pattern in ("*_angle.tif", "*_fused.tif"):
        for path in sorted((data / "tiff").glob(f"*/{pattern}")):
            write_averaged(path, averaged / "tiff" / path.parent.name / path.name)
    run("convert_images.py", averaged / "tiff", averaged / "h5", "--workers", 2)


def train_global(lists: list[Path], output: Path, name: str, flags: list[object]) -> LoadedModel:
    """Train the network of low resolution on averaged volumes, unless that is done.

    Parameters
    ----------
    lists : of training and validation volumes
    output : folder with the averaged volumes, and for the trainings
    name : of the network
    flags : more of train_script.py
    """
    target = output / name
    if not (target / SETTINGS).is_file():
        averaged = output / "averaged"
        files = ["--data_root", averaged, "--train_list", lists[0], "--val_list", lists[1]]
        loss = ["--use_fmc_loss", "--ssim_weight", 1, "--ssim_tf_weight", 1, "--patch_size", "16,32,32"]
        train_anyhow("--image_groups", GROUPS, *files, *loss, *flags, "--output_path", target)
    return load_model(open_model(target), "cpu")


def with_global_pass(data: Path, lists: list[Path], model: LoadedModel, target: Path) -> Path:
    """Copy converted volumes with the result of the first pass in the place of the light path."""
    for pair in (pair for one in lists for pair in read_pairs(one, data)):
        view, fused = (target / path.relative_to(data) for path in (pair.view, pair.fused))
        view.parent.mkdir(parents=True, exist_ok=True)
        if not fused.exists():
            os.link(pair.fused, fused)
        partial = view.with_suffix(".partial")
        shutil.copy(pair.view, partial)
        name = pair.view.with_suffix(".tif").name
        volume = read_volume(data / "tiff" / pair.view.parent.name / name)
        result = first_pass(volume.data, volume.info, model)
        with h5py.File(partial, "r+") as file:
            for group in (LIGHT_MAP, nodes_name(LIGHT_MAP)):
                file[group][...] = LIGHT_SCALE_UM * result
        partial.rename(view)
    return target


def first_pass(counts: Counts, info: VolumeInfo, model: LoadedModel) -> Floats:
    """Predict an averaged view, and interpolate the result to the view's voxels."""
    small = averaged_counts(counts)
    z, y, x = small.shape
    known = dataclasses.replace(info, shape_zyx=(z, y, x), spacing_um=coarser(info))
    volume = LazyVolume(known, lambda z0, z1: small[z0:z1])
    inputs = prepare_inputs(volume, model.settings.inputs)
    channels = inputs.channels(small, (slice(0, z), slice(0, y), slice(0, x)))
    prediction = predict_block(model.facts, model.runtime, channels)[0]
    scale = [n / m for n, m in zip(counts.shape, small.shape, strict=True)]
    zoomed: Floats = ndimage.zoom(prediction, scale, order=1, mode="nearest", grid_mode=True)
    return zoomed


def as_channel(result: Floats) -> Floats:
    """Return the first pass as training saw it in the place of the light path."""
    return np.tanh(result)


def write_averaged(path: Path, target: Path) -> None:
    """Write a TIFF averaged over blocks, unless it is there."""
    if target.is_file():
        return
    volume = read_volume(path)
    small = averaged_counts(volume.data)
    z, y, x = small.shape
    info = dataclasses.replace(volume.info, shape_zyx=(z, y, x), spacing_um=coarser(volume.info), metadata={})
    target.parent.mkdir(parents=True, exist_ok=True)
    write_volume(target, small, info)


def averaged_counts(counts: Counts) -> Counts:
    """Means of blocks; edges are repeated up to whole blocks."""
    missing = [(0, -n % block) for n, block in zip(counts.shape, BLOCK_ZYX, strict=True)]
    whole = np.pad(counts, missing, mode="edge")
    (z, y, x), (dz, dy, dx) = whole.shape, BLOCK_ZYX
    means = whole.reshape(z // dz, dz, y // dy, dy, x // dx, dx).mean(axis=(1, 3, 5))
    return np.rint(means).astype(np.uint16)


def coarser(info: VolumeInfo) -> tuple[float, float, float]:
    """Voxel size of the means."""
    z, y, x = (step * block for step, block in zip(info.require_spacing(), BLOCK_ZYX, strict=True))
    return z, y, x
