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
from lightsheet.core.axes import ZYX, Floats
from recipes.stacks import STACKS

_CROP: ZYX = (80, 160, 160)


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
