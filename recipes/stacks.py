"""Real stacks that models are trained on: parts of them, seen and fused by microscopes drawn anew.

The stacks are not part of the repository. Each is named here with what is stained and its voxel size; those
that a folder lacks are left out.
"""

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import tifffile

from lightsheet.core.axes import Channel, SpacingUm

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

TESTED = (
    "nuclei3d/mouse_8cell.tif",
    "nuclei3d/ovule_nuclei_1135.h5",
    "nuclei3d/ovule_nuclei_1137.h5",
    "nuclei3d/stardist_img3d.tif",
    "membranes3d/ovule_membranes.h5",
)
"""Those that no shipped model was trained on: `benchmarks.fusion.quality` scores by them."""


def stacks_in(folder: Path, without: Collection[str] = ()) -> list[str]:
    """Names of the stacks that are there."""
    return [name for name in STACKS if name not in without and (folder / name).is_file()]


def as_tiff(source: Path, folder: Path) -> Path:
    """Return the stack itself, or a TIFF of the ``raw`` data set of an HDF5 file, as counts from 0."""
    if source.suffix != ".h5":
        return source
    with h5py.File(source) as file:
        raw = np.asarray(file["raw"], dtype=np.float32)
    target = folder / f"{source.stem}.tif"
    folder.mkdir(parents=True, exist_ok=True)
    scale = 1.0 if raw.max() > 1 else 65535.0  # some publishers store counts, some a share of full range
    tifffile.imwrite(target, np.rint(raw * scale).astype(np.uint16), photometric="minisblack")
    return target
