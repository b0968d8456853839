"""Simulated studies that no model was trained on: other voxels, specimens, optics and cameras.

Each is drawn anew from ranges that are wider than those of the five presets; what is drawn is unlike all of
them in several ways at once, as another laboratory's data are.
"""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Source"))

from lightsheet.core.axes import CHANNELS, ZYX, Channel
from lightsheet.core.volume import VolumeInfo
from lightsheet.core.volumes import write_volume
from lightsheet.simulate.dataset import SimulatedPair, simulate_pair
from lightsheet.simulate.optics import Optics
from lightsheet.simulate.presets import Preset, Shape

UNSEEN_STUDY = 6
DEPTHS = ((0.0, 0.6), (0.6, 1.6), (1.6, 3.0))
"""Optical depths across a specimen: nearly none, usual, and more than any preset has."""


def unseen_pair(channel: Channel, seed: int, shape: ZYX) -> SimulatedPair:
    """Simulate a specimen of a study of its own."""
    rng = np.random.default_rng([seed, 6543, *channel.encode()])
    nucleus_um = rng.uniform(5.0, 16.0)
    across_xy, across_z = rng.uniform(6.0, 14.0), rng.uniform(2.5, 8.0)
    step = nucleus_um / across_xy
    forms: tuple[Shape, ...] = get_args(Shape)
    axes: list[tuple[int, ...]] = [(0,), (1,), (2,), (2, 1, 0)]
    preset = Preset(
        study=UNSEEN_STUDY,
        shape_zyx=shape,
        spacing_um=(nucleus_um / across_z, step, step),
        channels=(channel,),
        decay_axes=axes[rng.integers(len(axes))],
        specimen=forms[rng.integers(len(forms))],
        nucleus_um=nucleus_um,
        illumination_depth=DEPTHS[rng.integers(len(DEPTHS))],
        detection_depth=DEPTHS[rng.integers(len(DEPTHS))],
        views=int(rng.integers(2, 5)),
    )
    return simulate_pair(
        preset, channel, seed, shape, spacing_um=preset.spacing_um, vary=other_microscope(rng)
    )


def other_microscope(rng: np.random.Generator) -> Callable[[Optics], Optics]:
    """Draw how another microscope differs; all views of a specimen are of the same one."""

    def factor(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    scale = {
        "psf_lateral_um": factor(0.6, 2.0),
        "psf_axial_um": factor(0.6, 2.0),
        "sheet_waist_um": factor(0.6, 2.0),
        "sheet_rayleigh": factor(0.6, 2.0),
        "scatter_blur_um": factor(0.4, 2.0),
        "haze": factor(0.3, 2.5),
        "absorbers_per_1000_um2": factor(0.2, 4.0),
        "absorber_depth": factor(0.5, 2.0),
        "medium_counts": factor(0.3, 5.0),
        "offset_counts": factor(0.3, 4.0),
        "counts_per_photon": factor(0.3, 6.0),
        "read_noise_counts": factor(0.5, 5.0),
    }
    light, camera = (bool(turned) for turned in rng.integers(0, 2, 2))

    def vary(optics: Optics) -> Optics:
        return replace(
            optics,
            illumination_from_high=optics.illumination_from_high ^ light,
            detection_from_high=optics.detection_from_high ^ camera,
            **{name: getattr(optics, name) * by for name, by in scale.items()},
        )

    return vary


def main() -> int:
    """Write pairs of unseen studies as TIFF files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write into")
    parser.add_argument("--channel", choices=CHANNELS, default="nucleus")
    parser.add_argument("--count", type=int, default=10, help="specimens, each of a study of its own")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=0, help="of the first specimen")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    arguments.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        (arguments.output, arguments.channel, arguments.seed + number, (z, y, x))
        for number in range(arguments.count)
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for _ in pool.map(write_pair, jobs):
            pass
    return 0


def write_pair(job: tuple[Path, Channel, int, ZYX]) -> None:
    """Write the view and the fused volume of one specimen."""
    folder, channel, seed, shape = job
    paths = [folder / f"image_{seed}_{channel}_{role}.tif" for role in ("angle", "fused")]
    if all(path.exists() for path in paths):
        return
    pair = unseen_pair(channel, seed, shape)
    for path, counts in zip(paths, (pair.view, pair.fused), strict=True):
        metadata = {"simulated": "unseen study"}
        info = VolumeInfo(str(path), shape, "uint16", pair.spacing_um, channel, UNSEEN_STUDY, metadata)
        write_volume(path, counts, info)


if __name__ == "__main__":
    raise SystemExit(main())
