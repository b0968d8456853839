"""Training of the model that finds nuclei in 3D, resources/models/Segment_Nuclei3D.

``make segmenter`` runs this. It learns from simulated movies, like Fluo-N3DH-SIM+ and of the studies of the
challenge, each as fused volume and as one view, in many densities; and from real labelled stacks (--stacks),
which are not part of the repository. Objects are brought to one size, so that one network serves nuclei and
voxels of any size. With --folds it trains, from the same simulated start, a model without each real specimen:
by these the stacks are judged (benchmarks/segmentation/stacks.py). It goes on where it was stopped.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.volumes.labels import Labels, read_labels, write_labels
from lightsheet.volumes.reading import read_volume
from recipes import ROOT
from recipes.commands import run
from recipes.models import ship
from recipes.stacks import STACKS

SPECIMENS = {
    "ovule": ("nuclei3d/ovule_nuclei_1135.h5", "nuclei3d/ovule_nuclei_1137.h5"),
    "mouse": ("nuclei3d/mouse_8cell.tif",),
    "stardist": ("nuclei3d/stardist_img3d.tif",),
}
"""Real stacks whose objects are all labelled, by specimen."""
PARTLY = {"cultured": ("nuclei3d/confocal_nuclei_Series006.tif",)}
"""Those of which only some are: none is trained on."""
NAME = "Segment_Nuclei3D"
AUGMENTATIONS = ROOT / "resources" / "settings" / "segment.json"
# Study, size and voxels of the simulated movies; None is like Fluo-N3DH-SIM+.
MOVIES: dict[str, tuple[int | None, tuple[int, int, int], tuple[float, float, float] | None]] = {
    "simplus": (None, (56, 176, 176), None),
    "study1": (1, (40, 112, 112), (1.2, 0.6, 0.6)),
    "study2": (2, (32, 112, 112), (1.6, 0.5, 0.5)),
    "study3": (3, (48, 112, 112), (0.9, 0.6, 0.6)),
    "study4": (4, (28, 96, 96), (2.4, 0.9, 0.9)),
    "study5": (5, (64, 112, 112), (0.6, 0.5, 0.5)),
}
SEQUENCES, FRAMES = {"simplus": 8}, {"simplus": (0, 8, 16, 24, 31)}
FEWER, FEW_FRAMES = 4, (0, 6, 12)
CROWDED = 1000
VALIDATED = 90
"""Sequences from this number on are for validation."""
BLURRED, NOISE = (0.7, 1.0, 1.0), 0.3
"""Of the worse copies of validation images: sigma in voxels, and noise in the range of the image."""
FINE, TIMES = 14, 2
"""Voxels in a radius in the second stage, for more exact surfaces; how often it sees each real stack."""
NETWORK = ("--feat_channels", 24, "--fold", 2, "--patch_size", "48,64,64")

CARD = """
It has seen simulated movies, like Fluo-N3DH-SIM+ and of the studies of Fuse My Cells (fused volumes and
single views), and real specimens: {}.
"""


def main() -> int:
    """Simulate, train, and write the model folder with its export."""
    arguments = parse()
    work = arguments.output
    base = work / "Base"
    train, val = simulated(work / "movies", arguments.seed)
    fit(base, [write_list(work / "train.csv", train)], write_list(work / "val.csv", val), arguments.minutes)
    real = {} if arguments.stacks is None else real_pairs(arguments.stacks, work / "real")
    for name, specimens in wanted(real, folds=arguments.folds):
        pairs = [pair for one in specimens for pair in real[one]]
        # A third of the simulated studies, since finer voxels take more memory; real stacks twice.
        some = [pair for kind, pair in sorted_by_kind(train) if kind == "simplus"]
        some += [pair for kind, pair in sorted_by_kind(train) if kind != "simplus"][::3]
        lists = [write_list(work / f"{name}.csv", [*some, *pairs * TIMES])]
        fit(work / name, lists, work / "val.csv", arguments.tune_minutes, start=base)
    if not arguments.folds:
        ship(work / NAME, arguments.models / NAME, CARD.format(", ".join(real) or "none"))
        run("export_models.py", arguments.models / NAME)
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/segmenter"), help="folder of all that is made"
    )
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the model")
    parser.add_argument("--stacks", type=Path, help="folder of real labelled stacks")
    parser.add_argument("--folds", action="store_true", help="a model without each specimen, none is shipped")
    parser.add_argument("--minutes", type=float, default=45.0, help="training on simulated movies")
    parser.add_argument("--tune_minutes", type=float, default=15.0, help="training on, with real stacks")
    parser.add_argument("--seed", type=int, default=9100)
    return parser.parse_args()


def wanted(real: dict[str, list[tuple[Path, Path]]], *, folds: bool) -> list[tuple[str, list[str]]]:
    """Names of the models, and the real specimens that each sees."""
    if not folds:
        return [(NAME, list(real))]
    return [(f"Without_{left}", [one for one in real if one != left]) for left in real]


def fit(folder: Path, lists: list[Path], val: Path, minutes: float, start: Path | None = None) -> None:
    """Train a model, unless it is there."""
    if (folder / "weights.safetensors").exists():
        return
    how = ["--augmentations", AUGMENTATIONS, "--foreground_share", 0.85, "--samples_per_epoch", 600]
    how += ["--epochs", 1000, "--max_minutes", minutes, "--learning_rate", 1e-3 if start is None else 7e-4]
    how += [] if start is None else ["--pretrained", start, "--radius_voxels", FINE]
    run(
        "segment_script.py", "train", "--train", *lists, "--val", val, "--output_path", folder, *NETWORK,
        *how, "--no_export",
    )  # fmt: skip


def simulated(folder: Path, seed: int) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """Simulate the movies; pairs of image and labels to train on, and to validate by."""
    train: list[tuple[Path, Path]] = []
    val: list[tuple[Path, Path]] = []
    for kind, (study, shape, spacing) in MOVIES.items():
        frames = FRAMES.get(kind, FEW_FRAMES)
        for sequence in (*range(1, 1 + SEQUENCES.get(kind, FEWER)), VALIDATED):
            last = (frames[-1] if sequence < VALIDATED else frames[1]) + 1
            # Every third specimen is as full as can be from the first frame on.
            cells = CROWDED if sequence % 3 == 0 else None
            job = movie_job(
                study, seed, sequence, last, shape, spacing_um=spacing, cells=cells, views=study is not None
            )
            make_movie(folder / kind, job)
            chosen = [frame for frame in frames if frame < last]
            (train if sequence < VALIDATED else val).extend(pairs_of(folder / kind, sequence, chosen))
    return train, val + [(worse(image), labels) for image, labels in val]


def worse(image: Path) -> Path:
    """Write a blurred and noisy copy of an image: what is validated must hold there too."""
    target = image.with_name(f"{image.stem}_worse.tif")
    if not target.is_file():
        volume = read_volume(image)
        low, high = np.percentile(volume.data, (2, 99.8))
        rng = np.random.default_rng(len(image.name))
        seen = ndimage.gaussian_filter(volume.data.astype(np.float32), BLURRED)
        seen += rng.normal(0, NOISE * (high - low), seen.shape)
        z, y, x = volume.info.require_spacing()
        facts = {"axes": "ZYX", "spacing": z, "unit": "um"}
        counts = np.clip(seen - seen.min(), 0, 65535).astype(np.uint16)
        tifffile.imwrite(target, counts, imagej=True, resolution=(1 / x, 1 / y), metadata=facts)
    return target


def sorted_by_kind(pairs: list[tuple[Path, Path]]) -> list[tuple[str, tuple[Path, Path]]]:
    """Return the kind of movie of each pair, and the pair."""
    return [(pair[0].parent.parent.name, pair) for pair in pairs]


def pairs_of(folder: Path, sequence: int, frames: list[int]) -> Iterator[tuple[Path, Path]]:
    """Image and labels of some frames, of the fused volume and of the view."""
    for images in (folder / f"{sequence:02d}", folder / f"{sequence:02d}_VIEW"):
        for frame in frames:
            image = images / f"t{frame:03d}.tif"
            if image.is_file():
                yield image, folder / f"{sequence:02d}_GT" / "SEG" / f"man_seg{frame:03d}.tif"


def real_pairs(stacks: Path, folder: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Write the real stacks that are there, by specimen."""
    found = {
        specimen: [pair for name in names if (pair := write_real(stacks, name, folder))]
        for specimen, names in SPECIMENS.items()
    }
    return {specimen: pairs for specimen, pairs in found.items() if pairs}


def write_real(stacks: Path, name: str, folder: Path) -> tuple[Path, Path] | None:
    """Write image and labels of a real stack as TIFF with the voxel size; None if it is not there."""
    source = stacks / name
    if not source.is_file():
        return None
    image, labels = folder / f"{source.stem}.tif", folder / f"{source.stem}_labels.tif"
    if not labels.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        raw, mask = _read(source)
        z, y, x = STACKS[name][1]
        facts = {"axes": "ZYX", "spacing": z, "unit": "um"}
        tifffile.imwrite(image, raw, imagej=True, resolution=(1 / x, 1 / y), metadata=facts)
        write_labels(labels, mask, (z, y, x))
    return image, labels


def _read(source: Path) -> tuple[NDArray[np.uint8 | np.uint16], Labels]:
    if source.suffix == ".h5":
        with h5py.File(source) as file:
            raw = np.asarray(file["raw"], np.float32)
            mask = np.asarray(file["label"]).astype(np.uint32)
        scale = 1.0 if raw.max() > 1 else 65535.0
        return np.rint(raw * scale).astype(np.uint16), mask
    beside = (source.with_name(f"{source.stem}{end}.tif") for end in ("_labels", "_labels_partial"))
    return tifffile.imread(source), read_labels(next(path for path in beside if path.is_file()))[0]


def write_list(path: Path, pairs: list[tuple[Path, Path]]) -> Path:
    """Write a list of images and labels, the paths relative to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{image.resolve()};{labels.resolve()}" for image, labels in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
