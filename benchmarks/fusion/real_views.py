"""Views of real stacks by four forward models, with the side of their light.

Three are those of `benchmarks.fusion.forward`. The fourth, "apart" (`benchmarks.fusion.forward_apart`), was
written by somebody who had not seen this project, from what is known of light sheets. No training, no guard
and no other choice of the project used them, except that the physics step's constants (what is usual of
light, how much of the noise is treated) and the odds of the sides were set on views of the same stacks by the
first three, with other seeds.
"""

from pathlib import Path

import h5py
import numpy as np
import tifffile

from benchmarks.fusion.cases import Case
from benchmarks.fusion.forward import FORWARD
from benchmarks.fusion.forward_apart import view_and_fused
from lightsheet.core.axes import ZYX, Channel, Floats, SpacingUm

STACKS: dict[str, tuple[Channel, SpacingUm]] = {
    "nuclei3d/lateral_root_nuclei_lightsheet.tif": ("nucleus", (0.25, 0.1625, 0.1625)),
    "nuclei3d/mouse_8cell.tif": ("nucleus", (1.75, 0.8, 0.8)),
    "nuclei3d/ovule_nuclei_1135.h5": ("nucleus", (0.284, 0.127, 0.127)),
    "nuclei3d/ovule_nuclei_1137.h5": ("nucleus", (0.284, 0.127, 0.127)),
    "nuclei3d/stardist_img3d.tif": ("nucleus", (2.0, 1.0, 1.0)),  # not published: about
    "nuclei3d/cellseg3d_c5image.tif": ("nucleus", (2.0, 1.0, 1.0)),  # not published: about
    "nuclei3d/neubias_nuclei_anisotropic.tif": ("nucleus", (4.0, 0.829, 0.829)),
    "nuclei3d/confocal_nuclei_Series006.tif": ("nucleus", (0.5, 0.379, 0.379)),
    "membranes3d/lateral_root_membranes_lightsheet.tif": ("membrane", (0.25, 0.1625, 0.1625)),
    "membranes3d/ovule_membranes.h5": ("membrane", (0.235, 0.15, 0.15)),
}
"""Stacks below the folder of real data: what is stained, and the voxel size (z, y, x) in micrometres."""

_CROP: ZYX = (80, 160, 160)


def stacks_in(folder: Path) -> list[str]:
    """Names of the stacks that are there."""
    return [name for name in STACKS if (folder / name).is_file()]


def real_views(folder: Path, name: str, seed: int) -> list[Case]:
    """One view by each forward model, the light from a side that is drawn."""
    channel, spacing = STACKS[name]
    stack = _specimen(folder / name)
    made = []
    for number, (forward, degrade) in enumerate({**FORWARD, "apart": view_and_fused}.items()):
        rng = np.random.default_rng([seed, list(STACKS).index(name), number])
        axis, from_high = int(rng.integers(3)), bool(rng.integers(2))
        view, fused = degrade(stack, spacing, axis, from_high, rng)
        light = f"{'+' if from_high else '-'}{'zyx'[axis]}"
        title = f"{name}, {forward} {seed}"
        made.append(
            Case("real", channel, None, title, view, fused, spacing, (), light=light, forward=forward)
        )
    return made


def _specimen(path: Path) -> Floats:
    """Middle of a stack, background about 0 and brightest tissue about 1."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            data = np.asarray(file["raw"], np.float32)
    else:
        data = np.asarray(tifffile.imread(path), np.float32)
    data = data.reshape(data.shape[-3:])
    sizes: tuple[int, ...] = data.shape
    starts = [max(0, (n - size) // 2) for n, size in zip(sizes, _CROP, strict=True)]
    data = data[tuple(slice(s, s + size) for s, size in zip(starts, _CROP, strict=True))]
    low, high = np.percentile(data, (10, 99.8))
    return np.asarray(np.maximum((data - low) / (high - low), 0), np.float32)
