"""Divisions in real movies, told by the shipped models alone: no label, no training.

Two movies in 2D of cultured cells whose histones shine (../shared/data/tracks: HeLa cells, 30 frames, and
breast cancer cells, 48 frames), which no model here has seen; NucleusState has seen simulated movies in 3D
only. Divisions were marked by eye: the last frame of the mother, and where she is; one that leaves the field
is not counted. A division is found where a nucleus is told mitotic, or where the tracker has it, at most one
frame off and within --match pixels.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.common import ROOT, say, table
from lightsheet.cli.cells.classify import main as classify
from lightsheet.cli.cells.segment import main as segment
from lightsheet.cli.cells.track import main as track
from lightsheet.volumes.tracks.lineage import Lineage
from lightsheet.volumes.tracks.states import MITOTIC, STATES
from lightsheet.volumes.tracks.tables import read_table

Events = NDArray[np.float64]


@dataclass(frozen=True)
class Movie:
    """A movie, and its divisions as marked by eye: frame, y, x (pixels)."""

    name: str
    divisions: tuple[tuple[int, int, int], ...]


MOVIES = (
    Movie("hela_h2b_movie30", ((3, 73, 109), (7, 57, 132), (7, 107, 117))),
    Movie("cancer_cells_movie48", ((6, 113, 58), (23, 53, 93), (25, 32, 84))),
)
SPACING = ("--spacing_um", "1,1,1")  # pixels: sizes are not known, and cubes are cut by the nuclei's own


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stacks", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/real_states"), help="folder of all that is made"
    )
    parser.add_argument("--match", type=float, default=15.0, help="pixels")
    arguments = parser.parse_args()
    rows = []
    for movie in MOVIES:
        path = arguments.stacks / "tracks" / f"{movie.name}.tif"
        if not path.is_file():
            say(f"{path}: expected a movie, got none; this benchmark needs the folder of real stacks")
            return 2
        found = divisions_of(movie, path, arguments.work / movie.name, arguments.match)
        true = np.array(movie.divisions, float)
        rows += [(movie.name, way, *scored(events, true, arguments.match)) for way, events in found.items()]
    table(("movie", "divisions by", "found", "missed", "made up"), rows)
    return 0


def divisions_of(movie: Movie, path: Path, work: Path, match: float) -> dict[str, Events]:
    """Segment, tell states, track with and without them; divisions (N, 3) of each way: frame, y, x."""
    images, masks, states = work / "images", work / "masks", work / "states"
    images.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(tifffile.imread(path)):
        tifffile.imwrite(images / f"t{number:03d}.tif", frame)
    done = segment(["predict", str(images), str(masks), "--dims", "2"])
    done += classify(
        ["predict", str(images), "--masks", str(masks), "--output", str(states), "--video", *SPACING]
    )
    done += track([str(masks), str(work / "RES"), *SPACING])
    table_of_states = states / "states.csv"
    done += track([str(masks), str(work / "RES_states"), "--states", str(table_of_states), *SPACING])
    if done:
        raise SystemExit(f"{movie.name}: a command failed")
    tracks = read_table(work / "RES" / "cells.csv")
    return {
        "states alone": told_mitotic(table_of_states, match),
        "tracker": of_lineage(tracks),
        "tracker with states": of_lineage(read_table(work / "RES_states" / "cells.csv")),
    }


def told_mitotic(states: Path, match: float) -> Events:
    """Where nuclei are told mitotic, the last frame of each: nobody near is told so in the next."""
    with states.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["state"] == STATES[MITOTIC]]
    told = np.array([[float(row[name]) for name in ("t", "y_um", "x_um")] for row in rows]).reshape(-1, 3)
    apart = np.linalg.norm(told[:, None, 1:] - told[None, :, 1:], axis=2)
    follows = (told[None, :, 0] == told[:, None, 0] + 1) & (apart <= match)
    return np.asarray(told[~follows.any(axis=1)])


def of_lineage(tracks: Lineage) -> Events:
    """Mothers of two."""
    mothers, children = np.unique(tracks.parents[tracks.parents >= 0], return_counts=True)
    rows = mothers[children > 1]
    return np.column_stack([tracks.times[rows], tracks.places_um[rows][:, 1:]]).astype(float)


def scored(events: Events, true: Events, match: float) -> tuple[str, str, str]:
    """Return how many were found, missed and made up; several about one division are one."""
    near = (np.abs(events[:, None, 0] - true[None, :, 0]) <= 1) & (
        np.linalg.norm(events[:, None, 1:] - true[None, :, 1:], axis=2) <= match
    )
    found = int(near.any(axis=0).sum())
    return str(found), str(len(true) - found), str(int((~near.any(axis=1)).sum()))


if __name__ == "__main__":
    raise SystemExit(main())
