"""What becomes of views of every type: rank correlation, range and type of the result, before and now.

A simulated specimen is written as a view of each type, as TIFF, OME-Zarr and H5, and fused by a small network
with random weights. The truth is the same network in float64. *Before* is what every result was once: the
same prediction, rounded and clipped to 16 bit counts. Takes about half a minute on a CPU.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.datasets.convert import ConvertSettings, convert_file
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.predict import Fuser
from lightsheet.models.folder import ModelSettings, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.networks import VolumeNetwork, build
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.ome_zarr.writer import ZarrSink
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.tiff.writer import TiffSink

SHAPE, SPACING = (24, 64, 64), (1.0, 0.5, 0.5)
NETWORK = {"name": "unet3d", "in_channels": 1, "features": 2, "norm": "none", "residual": True}
FORMS = ("tif", "zarr", "h5", "compact h5")
BAR = 0.999

Reals = NDArray[np.float64]
VIEWS: dict[str, tuple[str, Callable[[Reals], Reals]]] = {
    "uint16": ("uint16", lambda s: np.rint(100 + 9000 * s)),
    "uint8": ("uint8", lambda s: np.rint(255 * s)),
    "uint32, few photons": ("uint32", lambda s: np.rint(40 * s)),
    "uint32, 3e9 +- 1000": ("uint32", lambda s: np.rint(3e9 + 2000 * (s - 0.5))),
    "uint32, 0 to 4e9": ("uint32", lambda s: np.rint(4e9 * s)),
    "int8": ("int8", lambda s: np.rint(200 * s - 90)),
    "int16, offset subtracted": ("int16", lambda s: np.rint(900 * (s - 0.3))),
    "int32, -2e9": ("int32", lambda s: np.rint(-2e9 + 3000 * s)),
    "float16, 0 to 1": ("float16", lambda s: s),
    "float32, 0 to 1": ("float32", lambda s: s),
    "float32, negative": ("float32", lambda s: 5 * (s - 0.6)),
    "float32, 1e6 + 0 to 60": ("float32", lambda s: 1e6 + 60 * s),
    "float64, 1e6 + 0 to 1": ("float64", lambda s: 1e6 + s),
}


def scene(seed: int) -> Reals:
    """Return a ball with photon noise in a dim surrounding, 0 to 1."""
    place = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    ball = ((place / (0.35 * np.array(SHAPE).reshape(3, 1, 1, 1))) ** 2).sum(axis=0) < 1
    counts = np.random.default_rng(seed).poisson(np.where(ball, 400, 40))
    return counts / float(counts.max())


def network() -> VolumeNetwork:
    """Return a residual network that changes voxels by some tenths."""
    torch.manual_seed(0)
    module = build(dict(NETWORK)).eval().requires_grad_(False)
    torch.nn.init.normal_(module.last_layer().weight, std=0.1)
    return module


def in_float64(data: NDArray[Any]) -> Reals:
    """Return the prediction of a view, in float64 from end to end."""
    wide = data.astype(np.float64)
    low, high = np.percentile(wide, (2, 99.8))
    given = torch.from_numpy((wide - low) / (high - low))[None, None]
    with torch.inference_mode():
        said = network().double()(given)[0, 0].numpy()
    return np.asarray(said * (high - low) + low, np.float64)


def write_view(folder: Path, data: NDArray[Any], form: str) -> Path:
    """Write a view in its own type."""
    info = VolumeInfo("view", SHAPE, data.dtype.name, SPACING, "nucleus", 1)
    path = folder / ("view.ome.zarr" if form == "zarr" else "view.tif")
    sink = ZarrSink(path, info, None, "0.5") if form == "zarr" else TiffSink(path, path, info, None)
    sink.put(data)
    sink.finish()
    sink.close()
    if not form.endswith("h5"):
        return path
    convert_file(path, folder / "view.h5", ConvertSettings(compact=form.startswith("compact")))
    return folder / "view.h5"


def told(result: NDArray[Any], truth: Reals) -> tuple[float, str]:
    """Return rank correlation, NaN for a constant, and the range."""
    constant = result.min() == result.max()
    ranks = float("nan") if constant else float(stats.spearmanr(result, truth, axis=None).statistic)
    return ranks, f"{result.min():.9g} to {result.max():.9g}"


def main() -> int:
    """Print the table; 1 if a result of now misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the specimen's noise")
    view, missed = scene(parser.parse_args().seed), 0
    print("| view | from | range of the truth | before: ranks | range | now: ranks | range | type |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        settings = ModelSettings(
            dict(NETWORK), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
        )
        save_model(model, settings, network().state_dict(), {}, {}, "# random weights")
        fuser = Fuser([model], FusionSettings(device="cpu", runtime="torch"))
        for number, (kind, (dtype, make)) in enumerate(VIEWS.items()):
            data = make(view).astype(dtype)
            truth = in_float64(data)
            before = told(np.clip(np.rint(truth), 0, 65535).astype(np.uint16), truth)
            for form in FORMS:
                folder = Path(name) / f"{number}_{form.replace(' ', '_')}"
                folder.mkdir()
                out = folder / ("out.ome.zarr" if form == "zarr" else "out.tif")
                fuser.fuse(write_view(folder, data, form), out)
                result = read_volume(out).data
                ranks, between = told(result, truth)
                missed += not ranks >= BAR
                span = f"{truth.min():.9g} to {truth.max():.9g}"
                row = (
                    kind,
                    form,
                    span,
                    f"{before[0]:.4f}",
                    before[1],
                    f"{ranks:.4f}",
                    between,
                    result.dtype.name,
                )
                print(f"| {' | '.join(row)} |", flush=True)
    print(f"{missed} of {len(VIEWS) * len(FORMS)} results have a rank correlation below {BAR}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
