"""Nuclei in single planes: designs at the same budget, the shipped model, and the classical way.

    python -m benchmarks.segmentation.nuclei2d --epochs 5

The images are those of splits/nuclei2d/test.txt, of 329 fluorescence images of the Data Science Bowl 2018
with corrected labels (real, ../shared/data), which no training has seen. Each design is trained by the same
network on the same images for --epochs; with 0 the shipped model is scored alone. The classical way is a
Gaussian, Otsu's threshold and a watershed of the distance, told the median radius of the nuclei.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.common import ROOT, Bars, say, table
from benchmarks.segmentation.classical import classical
from lightsheet.evaluate.cells.thresholds import ImageScores, score_objects, summary_of_objects
from lightsheet.segment.designs import DESIGNS, TOUCHING
from lightsheet.segment.planar.pairs import LabelledPlane, read_all
from lightsheet.segment.planar.train import fidelity
from lightsheet.segment.predict import Segmenter
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.labels import Labels
from lightsheet.volumes.pictures import open_picture
from recipes.nuclei2d import SPLITS, ZIP, fit, unpacked

SHIPPED = ROOT / "resources" / "models" / "Segment_Nuclei2D"
_AROUND = ndimage.generate_binary_structure(2, 2)


def main() -> int:
    """Print the table and whether the bars hold; 1 if the shipped model is not above the classical way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stacks", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--epochs", type=int, default=5, help="of 1200 patches, for each design; 0: none")
    parser.add_argument("--designs", nargs="*", default=["distance", "touching", "boundary"])
    parser.add_argument("--model", type=Path, default=SHIPPED, help="the model that is judged")
    parser.add_argument("--output", type=Path, help="folder of the trainings; default: one that is removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        work = arguments.output or Path(kept)
        data = unpacked(arguments.stacks / ZIP, work / "data")
        planes = read_all((SPLITS / "test.txt",), data, "test images")
        rows = [row("classical", planes, lambda plane: classical_way(plane))]
        for name in arguments.designs if arguments.epochs else ():
            folder = work / f"{name}_{arguments.epochs}"
            fit(folder, data, ("--epochs", arguments.epochs), "--design", name)
            told = f"{name}, {arguments.epochs} epochs"
            rows.append(row(told, planes, by_model(folder, data), fidelity(DESIGNS[name], planes)))
        rows.append(row("shipped", planes, by_model(arguments.model, data)))
        rows.append(row("shipped, mirrored", planes, by_model(arguments.model, data, "xy")))
    head = ("way", "F1@.5", "AP@.5", "PQ", "mean F1", "mean F1, images", "lines", "split", "merged", "s")
    table((*head, "fidelity"), [one[0] for one in rows])
    return judged([one[1] for one in rows], planes)


def judged(summaries: list[dict[str, float]], planes: list[LabelledPlane]) -> int:
    """Tell whether the bars hold."""
    bars, ours, theirs = Bars(), summaries[-2], summaries[0]
    for name, bar in (("f1_50", 0.93), ("ap_50", 0.87), ("pq_50", 0.80), ("mean_f1", 0.82)):
        bars.at_least(f"shipped, {name}", ours[name], bar)
        bars.at_least(f"shipped, {name}, above the classical way", ours[name], theirs[name], judged=True)
    bars.at_least("fidelity of the shipped design", fidelity(DESIGNS["distance"], planes), 0.99)
    return 1 if bars.missed else 0


def row(
    name: str,
    planes: list[LabelledPlane],
    found_in: Callable[[LabelledPlane], Labels],
    faithful: float | None = None,
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Score a way on all images."""
    found_in(planes[0])  # what is compiled and loaded once does not count
    scores: list[ImageScores] = []
    both = np.zeros(2)
    started = time.perf_counter()
    found = [found_in(plane) for plane in planes]
    seconds = (time.perf_counter() - started) / len(planes)
    for plane, labels in zip(planes, found, strict=True):
        scores.append(score_objects(plane.name, plane.labels, labels))
        both += lines_shared(plane.labels, labels)
    summary = summary_of_objects(scores)
    values = [summary[one] for one in ("f1_50", "ap_50", "pq_50", "mean_f1", "mean_f1_image")]
    cells = [f"{value:.3f}" for value in (*values, both[0] / max(both[1], 1))]
    cells += [str(summary["split"]), str(summary["merged"]), f"{seconds:.2f}"]
    say(f"{name}: {', '.join(cells)}")
    return (name, *cells, "" if faithful is None else f"{faithful:.4f}"), summary


def lines_shared(true: Labels, found: Labels) -> tuple[int, int]:
    """Pixels of lines between touching nuclei that both have, and that either has."""
    one, other = (TOUCHING.targets(np.asarray(labels, np.uint32))[0] > 0 for labels in (true, found))
    return int((one & other).sum()), int((one | other).sum())


def by_model(folder: Path, data: Path, flips: str = "none") -> Callable[[LabelledPlane], Labels]:
    """Return what segments an image by a model."""
    segmenter = Segmenter(folder, SegmentSettings(flips=flips))  # type: ignore[arg-type]

    def found_in(plane: LabelledPlane) -> Labels:
        with open_picture(data / "images" / plane.name) as volume:
            return segmenter.labels(volume, 0.0)

    return found_in


def classical_way(plane: LabelledPlane) -> Labels:
    """Segment an image in the classical way."""
    return classical(plane.image, (1.0, 1.0, 1.0), plane.radius)


if __name__ == "__main__":
    raise SystemExit(main())
