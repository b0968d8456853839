"""Training of the model that finds nuclei in single planes, resources/models/Segment_Nuclei2D.

``make segmenter-planes`` runs this on 329 fluorescence images of the Data Science Bowl 2018 with corrected
labels, which are not part of the repository (dsb2018_fluorescence.zip: images/ and labels/). Images are split
by splits/nuclei2d; those of test.txt are never seen. It goes on where it was stopped.
"""

import argparse
import zipfile
from pathlib import Path

from recipes import ROOT
from recipes.commands import run
from recipes.models import ship

NAME = "Segment_Nuclei2D"
ZIP = "nuclei2d/dsb2018_fluorescence.zip"
SPLITS = ROOT / "splits" / "nuclei2d"
AUGMENTATIONS = ROOT / "resources" / "settings" / "segment2d.json"
FIT = ("--patch_size", "1,192,192", "--batch_size", 4, "--samples_per_epoch", 1200)
FIT += ("--learning_rate", 2e-3, "--ema", 0.995, "--uneven", 0.3, "--augmentations", AUGMENTATIONS)

CARD = """
It has seen fluorescence images of the Data Science Bowl 2018 (BBBC038), with the labels corrected by
K. Lopuhin and others, CC0: nuclei of 4 to 29 pixels in radius, of cells in culture and of tissue.
"""


def main() -> int:
    """Unpack, train, and write the model folder with its export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/nuclei2d"), help="folder of all that is made"
    )
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the model")
    parser.add_argument("--stacks", type=Path, required=True, help="folder of real images")
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    data = unpacked(arguments.stacks / ZIP, arguments.output / "data")
    fit(arguments.output / NAME, data, ("--epochs", 1000, "--max_minutes", arguments.minutes))
    ship(arguments.output / NAME, arguments.models / NAME, CARD)
    run("export_models.py", arguments.models / NAME)
    return 0


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the images, unless they are there."""
    if not folder.is_dir():
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    return folder


def fit(folder: Path, data: Path, until: tuple[object, ...], *more: object) -> None:
    """Train a model, unless it is there; ``until`` are flags that say how long."""
    if (folder / "weights.safetensors").exists():
        return
    lists = ["--train", SPLITS / "train.txt", "--val", SPLITS / "val.txt", "--data_root", data]
    run("segment_script.py", "train", "--dims", 2, *lists, "--output_path", folder, *FIT, *until, *more)


if __name__ == "__main__":
    raise SystemExit(main())
