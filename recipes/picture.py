"""One picture of a scored folder: view | prediction | fused | error, the median image of each channel.

``make demo`` makes it from its own results; the README shows such a picture.
"""

import argparse
import csv
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from lightsheet.evaluate.metrics import normalized
from lightsheet.volumes.reading import read_volume

TITLES = ("one view", "prediction from it", "fused (truth)", "prediction - fused")
GAMMA = 0.7


def main() -> int:
    """Read scores.csv of a report and draw XZ sections of the median image of each channel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("demo/report"), help="folder with scores.csv")
    parser.add_argument("--prediction", type=Path, default=Path("demo/fused"), help="folder of predictions")
    parser.add_argument("--stacks", type=Path, default=Path("demo/tiff"), help="folder of views and fused")
    parser.add_argument("--output", type=Path, default=Path("demo/demo.png"), help="picture to write")
    arguments = parser.parse_args()
    draw(arguments.report, arguments.prediction, arguments.stacks, arguments.output)
    return 0


def draw(report: Path, predictions: Path, stacks: Path, output: Path) -> None:
    """Draw XZ sections of the image of median score of each channel."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [median_image(report / "scores.csv", channel) for channel in ("nucleus", "membrane")]
    figure, grid = plt.subplots(len(names), 4, figsize=(11, 4.1), facecolor="black", layout="constrained")
    for row, name in zip(grid, names, strict=True):
        view, fused = (sections(stacks / f"{name}_{kind}.tif") for kind in ("angle", "fused"))
        prediction = sections(predictions / f"{name}_angle.tif")
        for axes, picture in zip(row, (view[0], prediction[0], fused[0]), strict=False):
            axes.imshow(picture.clip(0, 1) ** GAMMA, cmap="gray", vmin=0, vmax=1, aspect=view[1])
        row[3].imshow(prediction[0] - fused[0], cmap="berlin", vmin=-0.5, vmax=0.5, aspect=view[1])
        for axes in row:
            axes.set_axis_off()
    for axes, title in zip(grid[0], TITLES, strict=True):
        axes.set_title(title, color="white", fontsize=11)
    figure.savefig(output, dpi=100, facecolor="black")
    sys.stdout.write(f"{output}: {' and '.join(names)}\n")


def median_image(scores: Path, channel: str) -> str:
    """Name of the image whose prediction has the median score (reading tf) of its channel."""
    with scores.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["channel"] == channel and r["method"] == "prediction"]
    ranked = sorted(rows, key=lambda row: float(row["n_ssim_tf"]))
    return ranked[len(ranked) // 2]["image"]


def sections(path: Path) -> tuple[NDArray[np.float32], float]:
    """Middle XZ section, normalised, and the height of its voxels in units of their width."""
    volume = read_volume(path)
    z, _, x = volume.info.require_spacing()
    return normalized(volume.data)[:, volume.data.shape[1] // 2], z / x


if __name__ == "__main__":
    raise SystemExit(main())
