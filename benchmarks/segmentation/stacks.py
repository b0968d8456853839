"""Objects in real labelled stacks (../shared/data), by a model and by the classical way.

Each stack is named by its specimen: a model that has not seen it is given by --model SPECIMEN=FOLDER
(recipes/segmenter.py --folds trains one without each). All are told the median radius of the objects, or
with --unknown find it out. Where only some objects are labelled, matched ones alone are counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, Bars, say, table
from benchmarks.segmentation.classical import classical
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of
from lightsheet.segment.instances import InstanceSettings
from lightsheet.segment.pairs import read_pair
from lightsheet.segment.predict import Segmenter
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels
from recipes.segmenter import PARTLY, SPECIMENS, write_real

SHIPPED = ROOT / "resources" / "models" / "Segment_Nuclei3D"
_LEVELS = (0.5, 0.7)


def main() -> int:
    """Print the table; 1 if a stack is not above the classical way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stacks", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", nargs="*", default=[], help="SPECIMEN=FOLDER, or FOLDER for all others")
    parser.add_argument("--unknown", action="store_true", help="the models find out the size of the objects")
    arguments = parser.parse_args()
    models = {"": str(SHIPPED)} | {
        one.rpartition("=")[0]: one.rpartition("=")[2] for one in map(str, arguments.model)
    }
    rows, bars = [], Bars()
    with tempfile.TemporaryDirectory() as work:
        for specimen, names in (*SPECIMENS.items(), *PARTLY.items()):
            model = Path(models.get(specimen, models[""]))
            for name in names:
                written = write_real(arguments.stacks, name, Path(work))
                if written is None:
                    say(f"  {name}: not there, left out")
                    continue
                pair = read_pair(*written)
                ours, seconds = by_model(model, written[0], pair.radius_um, arguments.unknown)
                theirs = classical(pair.image, pair.spacing_um, pair.radius_um)
                partly = specimen in PARTLY
                for way, found in ((f"ours ({model.name}, {seconds:.1f} s)", ours), ("classical", theirs)):
                    rows.append((f"{name}: {way}", *figures(pair.labels, found, partly=partly)))
                low = [average_precision(pair.labels, found, partly=partly) for found in (ours, theirs)]
                bars.at_least(f"{name}: AP50", low[0], low[1], judged=True)
    table(("stack", "true", "found", "AP50", "AP70", "recall50", "IoU of true"), rows)
    return 1 if bars.missed else 0


def by_model(model: Path, image: Path, radius_um: float, unknown: bool) -> tuple[Labels, float]:
    """Segment an image; labels, and seconds without loading the model."""
    settings = SegmentSettings(
        instances=InstanceSettings(), diameter_um=None if unknown else 2 * radius_um, device="cpu"
    )
    segmenter = Segmenter(model, settings)
    output = image.with_name(f"{image.stem}_found.tif")
    begun = time.monotonic()
    segmenter.segment(image, output, Overrides())
    return read_labels(output)[0], time.monotonic() - begun


def average_precision(true: Labels, found: Labels, *, partly: bool) -> float:
    """AP at an IoU of 0.5; of a stack whose objects are only partly labelled, recall."""
    score = instance_scores(overlaps_of(true, found), (_LEVELS[0],))[0]
    return score.recall if partly else score.average_precision


def figures(true: Labels, found: Labels, *, partly: bool) -> tuple[str, ...]:
    """Return the cells of a row."""
    overlaps = overlaps_of(true, found)
    low, high = instance_scores(overlaps, _LEVELS)
    best = overlaps.iou.max(axis=1, initial=0)
    precise = ("-", "-") if partly else (f"{low.average_precision:.3f}", f"{high.average_precision:.3f}")
    return (
        str(len(overlaps.true)),
        str(len(overlaps.found)),
        *precise,
        f"{low.recall:.3f}",
        f"{float(np.mean(best)):.3f}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
