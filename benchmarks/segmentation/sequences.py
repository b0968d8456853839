"""Objects and tracks of simulated sequences like Fluo-N3DH-SIM+, from images to scores of the challenge.

Whole volumes and whole sequences of seeds that nothing was trained on: segment_script.py, then
track_script.py, then the challenge's measures. Beside it the classical way (Gaussian filter, Otsu's
threshold, watershed of the distance, nearest object of the frame before). All are told the size of the
objects. --model names further models, such as vit_unet and swinunetr trained at the same budget.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, Bars, say, table
from benchmarks.segmentation.classical import classical
from benchmarks.tracking.masks import by_nearest
from lightsheet.cli.cells.segment import main as segment
from lightsheet.evaluate.cells.ctc import SequenceScores, score_sequence
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.track.predict import track_movie
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import write_labels
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.tracks.ctc import IMAGES, MASKS, frame_name, frames_in

SHIPPED = ROOT / "resources" / "models" / "Segment_Nuclei3D"
SHOWN = ("SEG", "DET", "TRA", "BC(1)", "LNK", "CT", "CHOTA", "OP_CSB")
BARS = {"SEG": 0.91, "DET": 0.98, "TRA": 0.975, "BC(1)": 0.93}
_DIAMETER_UM = 4.0


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/sequences"), help="folder of the sequences")
    parser.add_argument(
        "--model", type=Path, nargs="*", default=[SHIPPED], help="models; the first is judged"
    )
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--shape", default="48,160,160", help="size Z,Y,X in voxels")
    parser.add_argument("--seed", type=int, default=820)
    arguments = parser.parse_args()
    z, y, x = (int(word) for word in arguments.shape.split(","))
    rows, judged = [], []
    for sequence in range(1, arguments.sequences + 1):
        make_movie(arguments.work, movie_job(None, arguments.seed, sequence, arguments.frames, (z, y, x)))
        for number, model in enumerate(arguments.model):
            scores, seconds = by_model(arguments.work, sequence, model)
            rows.append(row(f"{sequence:02d}, {model.name}, {seconds:.1f} s a frame", scores))
            judged += [scores] if number == 0 else []
        rows.append(row(f"{sequence:02d}, classical", by_classical(arguments.work, sequence)))
        say(f"  sequence {sequence}: done")
    table(("sequence", *SHOWN), rows)
    bars = Bars()
    for name, bar in BARS.items():
        bars.at_least(name, float(np.mean([one.values[name] or 0 for one in judged])), bar, judged=True)
    return 1 if bars.missed else 0


def row(name: str, scores: SequenceScores) -> tuple[str, ...]:
    """Return a row of the table."""
    values = (scores.values[column] for column in SHOWN)
    return name, *("-" if value is None else f"{value:.4f}" for value in values)


def by_model(work: Path, sequence: int, model: Path) -> tuple[SequenceScores, float]:
    """Segment, track and score; seconds a frame of the segmentation, with loading the model."""
    masks = work / f"{sequence:02d}_{model.name}"
    words = [str(work / f"{sequence:02d}"), str(masks), "--model", str(model), "--device", "cpu"]
    begun = time.monotonic()
    if segment(["predict", *words, "--diameter_um", str(_DIAMETER_UM)]):
        raise SystemExit(f"{model}: expected masks of all frames (above)")
    seconds = (time.monotonic() - begun) / len(list(masks.glob("*.tif")))
    result = work / f"{sequence:02d}_{model.name}_RES"
    track_movie(masks, result, LinkSettings(), Overrides())
    return score_sequence(work / f"{sequence:02d}_GT", result), seconds


def by_classical(work: Path, sequence: int) -> SequenceScores:
    """Segment and link the classical way, and score."""
    masks = work / f"{sequence:02d}_classical"
    shutil.rmtree(masks, ignore_errors=True)
    for frame, path in frames_in(work / f"{sequence:02d}", IMAGES).paths.items():
        volume = read_volume(path)
        spacing = volume.info.require_spacing()
        found = classical(volume.data, spacing, _DIAMETER_UM / 2)
        write_labels(masks / frame_name(MASKS, frame, 3), found, spacing)
    return score_sequence(work / f"{sequence:02d}_GT", by_nearest(masks, work))


if __name__ == "__main__":
    raise SystemExit(main())
