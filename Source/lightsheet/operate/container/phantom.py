"""A small made-up view, to warm up with: an ellipsoid with camera noise. It tells nothing about quality."""

from pathlib import Path

import numpy as np

from lightsheet.core.axes import ZYX, Channel, SpacingUm
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume

SHAPE: ZYX = (16, 64, 64)
SPACING_UM: SpacingUm = (1.0, 0.195, 0.195)
_DARK, _BRIGHT = 100.0, 900.0


def write_small_view(path: Path, channel: Channel) -> Path:
    """Write a view of 16 x 64 x 64 voxels (Z, Y, X) of 1 x 0.195 x 0.195 um as TIFF."""
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, size) for size in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < (2 / 3) ** 2
    mean = np.where(inside, _BRIGHT, _DARK)
    counts = np.random.default_rng(0).poisson(mean).astype(np.uint16)
    write_volume(path, counts, VolumeInfo(str(path), SHAPE, "uint16", SPACING_UM, channel))
    return path
