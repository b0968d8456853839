"""Training of the model that tells states of nuclei, resources/models/NucleusState.

``make states`` runs this. It learns from simulated movies, like Fluo-N3DH-SIM+ and of the studies of the
challenge, of the latter the fused volume and one view. Cells divide often, some die, and those of one state
look more or less alike; frames are some hundredths to a tenth of a cell cycle apart. Two embryos of each kind
choose the weights and calibrate the probabilities. It goes on where it was stopped.
"""

import argparse
from pathlib import Path

from lightsheet.classify.crops import Crops, joined, write_crops
from lightsheet.classify.extract import CropSettings
from lightsheet.classify.movie import extract
from lightsheet.classify.movies import movie_files
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.volumes.info import Overrides
from recipes.commands import run
from recipes.models import ship

NAME = "NucleusState"
# Study, size, voxels and frames of a cell cycle of the simulated movies; None is like Fluo-N3DH-SIM+.
MOVIES: dict[str, tuple[int | None, tuple[int, int, int], tuple[float, float, float] | None, float]] = {
    "simplus": (None, (40, 144, 144), None, 14.0),
    "simplus_slow": (None, (40, 144, 144), None, 24.0),
    "study1": (1, (36, 96, 96), (1.2, 0.6, 0.6), 14.0),
    "study2": (2, (30, 96, 96), (1.4, 0.6, 0.6), 18.0),
    "study5": (5, (48, 96, 96), (0.8, 0.6, 0.6), 14.0),
}
VOXELS, DEATH, CELLS = 24, 0.03, 60
# How unlike cells of one state look, of one embryo after the other.
VARIETIES = (0.0, 1.0, 0.5)
CARD = "\nIt has seen simulated movies only, like Fluo-N3DH-SIM+ and of studies of Fuse My Cells.\n"


def main() -> int:
    """Simulate, cut crops, train, and put the model folder in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/states"), help="folder of all that is made")
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the model")
    parser.add_argument("--embryos", type=int, default=5, help="of each kind, to learn from")
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=4100)
    arguments = parser.parse_args()
    work: Path = arguments.output
    lists = {
        name: crops_of(work, name, count, arguments.frames, arguments.seed + place)
        for place, (name, count) in enumerate((("train", arguments.embryos), ("val", 2)))
    }
    if not (work / NAME / "weights.safetensors").exists():
        run(
            "classify_script.py", "train", "--train", lists["train"], "--val", lists["val"], "--output_path",
            work / NAME, "--max_minutes", arguments.minutes, "--epochs", 1000, "--samples_per_epoch", 3200,
        )  # fmt: skip
    ship(work / NAME, arguments.models / NAME, CARD)
    return 0


def crops_of(work: Path, name: str, embryos: int, frames: int, seed: int) -> Path:
    """Simulate movies and cut their crops."""
    target = work / f"{name}.h5"
    if target.is_file():
        return target
    parts: list[Crops] = []
    for kind, (study, shape, spacing, cycle) in MOVIES.items():
        folder = work / name / kind
        for sequence in range(1, embryos + 1):
            job = movie_job(
                study, seed, sequence, frames, shape, spacing_um=spacing, cells=CELLS, cycle_frames=cycle,
                death=DEATH, views=study is not None, variety=VARIETIES[sequence % len(VARIETIES)],
            )  # fmt: skip
            make_movie(folder, job)
            masks = folder / f"{sequence:02d}_GT" / "TRA"
            for ending in ("", "_VIEW") if study is not None else ("",):
                # View and fused volume are of one embryo: never on both sides of a split.
                images = folder / f"{sequence:02d}{ending}"
                embryo = f"{name}_{kind}_{sequence:02d}"
                movies = [movie_files(images, masks, masks / "man_track.txt", embryo)]
                parts.append(extract(movies, CropSettings(voxels=VOXELS), Overrides()))
    write_crops(target, joined(parts))
    return target


if __name__ == "__main__":
    raise SystemExit(main())
