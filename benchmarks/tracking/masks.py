"""Linking of perfect masks: scores of the Cell Tracking Challenge on simulated sequences like Fluo-N3DH-SIM+.

Whole sequences, each for itself; the masks are those of the truth, their labels drawn anew in each frame.
Only the places are linked: what is measured is the linker. Beside it the nearest object of the frame before.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from benchmarks.common import Bars, say, table
from benchmarks.tracking.lineages import nearest
from lightsheet.evaluate.cells.ctc import SequenceScores, score_sequence
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.track.objects import cells_of
from lightsheet.track.predict import track_movie
from lightsheet.track.settings import LinkSettings
from lightsheet.track.sources import masks_in
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import read_labels, renumbered, write_labels
from lightsheet.volumes.tracks.ctc import MASKS, TABLES, frame_name, write_tracks
from lightsheet.volumes.tracks.lineage import tracks_of

SHOWN = ("LNK", "BIO", "TRA", "CT", "TF", "BC(1)", "CHOTA", "division_F1", "false_divisions_per_1000_links")


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/masks"), help="folder of the sequences")
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--shape", default="48,160,160", help="size Z,Y,X in voxels")
    parser.add_argument("--seed", type=int, default=700)
    arguments = parser.parse_args()
    z, y, x = (int(word) for word in arguments.shape.split(","))
    rows, found = [], []
    for sequence in range(1, arguments.sequences + 1):
        make_movie(arguments.work, movie_job(None, arguments.seed, sequence, arguments.frames, (z, y, x)))
        truth = arguments.work / f"{sequence:02d}_GT"
        masks = shuffled(truth / "SEG", arguments.work / f"{sequence:02d}_masks")
        result = arguments.work / f"{sequence:02d}_RES"
        done = track_movie(masks, result, LinkSettings(), Overrides())
        found.append(score_sequence(truth, result))
        rows.append(row(f"{sequence:02d}, {done.cells} cells, {done.divisions} divisions", found[-1]))
        rows.append(row(f"{sequence:02d}, nearest", score_sequence(truth, by_nearest(masks, arguments.work))))
        say(f"  sequence {sequence}: done")
    table(("sequence", *(name.removesuffix("_per_1000_links") for name in SHOWN)), rows)
    bars = Bars()
    for name, bar in (("LNK", 0.9998), ("BIO", 0.994)):
        bars.at_least(name, float(np.mean([one.values[name] or 0 for one in found])), bar, judged=True)
    return 1 if bars.missed else 0


def row(name: str, scores: SequenceScores) -> tuple[str, ...]:
    """Return a row of the table."""
    values = (scores.values[column] for column in SHOWN)
    return name, *("-" if value is None else f"{value:.4f}" for value in values)


def shuffled(truth: Path, folder: Path) -> Path:
    """Write true masks with labels that tell nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    for path in sorted(truth.glob("*.tif")):
        mask, spacing_um = read_labels(path)
        labels = np.unique(mask[mask > 0])
        write_labels(
            folder / path.name, renumbered(mask, labels, 1 + rng.permutation(len(labels))), spacing_um
        )
    return folder


def by_nearest(masks: Path, work: Path) -> Path:
    """Write the result of linking each object to the nearest one of the frame before."""
    folder = work / "nearest_RES"
    shutil.rmtree(folder, ignore_errors=True)
    frames = masks_in(masks, Overrides())
    found = cells_of(frames, None)
    lineage = nearest(found.cells)
    number, tracks = tracks_of(lineage)
    for frame, (mask, spacing_um) in enumerate(frames.read()):
        rows = np.flatnonzero(lineage.times == frame)
        new = renumbered(mask, found.labels[lineage.ids[rows] - 1], number[rows])
        write_labels(folder / frame_name(MASKS, frame, 3), new, spacing_um)
    write_tracks(folder / TABLES[MASKS], tracks)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
