"""Model folders of tiny networks and a view for them, for tests of commands that fuse."""

from pathlib import Path

import numpy as np
import torch

from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import VolumeNetwork, build


def ball_in_noise(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Counts (Z, Y, X) of a bright ball in camera noise."""
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    ball = (((np.indices(shape) - middle) / (0.35 * np.array(shape).reshape(3, 1, 1, 1))) ** 2).sum(0) < 1
    return (100 + 3000 * ball + np.random.default_rng(seed).integers(0, 300, shape)).astype(np.uint16)


def make_network(network: dict[str, object], *, trained: bool, seed: int = 0) -> VolumeNetwork:
    torch.manual_seed(seed)
    module = build(network)
    if trained:
        torch.nn.init.normal_(module.last_layer().weight, std=0.3)
    return module


def make_model(
    path: Path,
    channel: str | None = "nucleus",
    studies: tuple[int, ...] = (1,),
    groups: tuple[str, ...] = (RAW_IMAGE, SURFACE_DISTANCE),
    *,
    trained: bool = False,
    seed: int = 0,
) -> Path:
    """An untrained residual network returns its first channel; a trained one something else."""
    network = {"name": "unet3d", "in_channels": len(groups), "features": 2, "norm": "none", "residual": True}
    settings = ModelSettings(network, ModelInputs(groups, 50.0, 100.0), (16, 16, 16), channel, studies)  # type: ignore[arg-type]
    state = make_network(network, trained=trained, seed=seed).state_dict()
    save_model(path, settings, state, {}, {}, "# test")
    return path
