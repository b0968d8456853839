"""States of nuclei: all networks on the same held-out embryos, and what states do for the tracker.

Simulated movies like Fluo-N3DH-SIM+, with short cycles and many deaths, in which cells of one state look
unlike (--variety); embryos of other seeds are held out. Each network is trained for the same time with each
seed; intervals are over seeds (mean and standard deviation). A division is found where a nucleus is told
mitotic at most one frame from its last one; times in a row are one division.

Beside them what geometry alone tells (volume, brightness and spread within the mask at three time points; a
random forest of scikit-learn), and the network that sees one time point (cnn). Then the tracker: on masks
of which some are left out, some are split and some are made up, divisions are found with and without the
states that the best network tells of those masks.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common import Bars, say, table
from lightsheet.classify.benchmark import HEAD, benchmark, over_seeds, row
from lightsheet.classify.crops import Crops, read_crops, write_crops
from lightsheet.classify.extract import CropSettings, usual_side_um
from lightsheet.classify.extract import crops_of as crops_of_movie
from lightsheet.classify.movie import extract, tell_movie
from lightsheet.classify.movies import cells_in, movie_files
from lightsheet.classify.predict import StateTeller
from lightsheet.classify.settings import MODELS, BenchmarkSettings
from lightsheet.evaluate.cells.lineages import score_lineage
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.track.predict import track_movie
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import Labels, read_labels, write_labels
from lightsheet.volumes.objects import objects_of
from lightsheet.volumes.tracks.ctc import MASKS, TRUE_TRACKS, frame_name, frames_in, read_tracks
from lightsheet.volumes.tracks.lineage import Lineage, lineage_of
from lightsheet.volumes.tracks.states import MITOTIC
from lightsheet.volumes.tracks.tables import read_table

DIVISIONS = "divisions"
SHAPE, VOXELS, CYCLE, DEATH, CELLS = (40, 144, 144), 24, 14.0, 0.03, 60
LEFT_OUT, SPLIT, MADE_UP = 0.04, 0.03, 0.03
_MATCH_UM = 2.0
_WATCHED = 2


def main() -> int:
    """Print the tables; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench_states"), help="folder of all that is made"
    )
    parser.add_argument("--embryos", type=int, default=8, help="to learn from; half as many are held out")
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variety", type=float, default=1.0, help="how unlike cells of a state look, 0 to 1")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="beside ours")
    parser.add_argument("--seed", type=int, default=500, help="of the movies")
    arguments = parser.parse_args()
    work: Path = arguments.work
    embryos = max(2, arguments.embryos // 2)
    simulated = arguments.frames, arguments.variety
    seen = crops_of(work, "train", arguments.embryos, *simulated, arguments.seed)
    held = crops_of(work, "test", embryos, *simulated, arguments.seed + 1)
    watched = [Watched(work / "test", sequence) for sequence in range(1, min(embryos, _WATCHED) + 1)]

    def divisions_of(teller: StateTeller) -> dict[str, float]:
        right, missed, wrong = np.sum([one.scored(teller) for one in watched], axis=0)
        return {DIVISIONS: float(2 * right / max(1, 2 * right + missed + wrong))}

    settings = BenchmarkSettings(
        work,
        (work / "train.h5",),
        (work / "test.h5",),
        models=tuple(dict.fromkeys(("ours", *arguments.models))),
        seeds=arguments.seeds,
        max_minutes=arguments.minutes,
    )
    runs = benchmark(settings, divisions_of)
    say(f"{len(seen)} crops to learn from, {len(held)} held out")
    rows = [
        (*row(name, some), over_seeds([run.more[DIVISIONS] for run in some if run.more]))
        for name, some in runs.items()
    ]
    table((*HEAD, DIVISIONS), rows)
    f1 = {name: float(np.mean([run.macro_f1 for run in some])) for name, some in runs.items()}
    before, after = feedback(work, embryos)
    bars = Bars()
    ours = runs["ours"]
    bars.at_least("macro F1 of ours", f1["ours"], 0.95, judged=True)
    error = float(np.mean([run.error for run in ours]))
    bars.at_most("calibration error of ours", error, 0.03, judged=True)
    divisions = float(np.mean([run.more[DIVISIONS] for run in ours]))
    bars.at_least("F1 of divisions within one frame, ours", divisions, 0.93, judged=True)
    for name in f1:
        if name != "ours":
            bars.at_least(f"ours against {name}", f1["ours"], f1[name])
    bars.at_most("division errors with states, of those without", after / max(before, 1), 1 / 3, judged=True)
    return 1 if bars.missed else 0


def crops_of(work: Path, name: str, embryos: int, frames: int, variety: float, seed: int) -> Crops:
    """Simulate movies and cut their crops."""
    kept = work / f"{name}.h5"
    folder = work / name
    for sequence in range(1, embryos + 1):
        job = movie_job(
            None, seed, sequence, frames, SHAPE, cells=CELLS, cycle_frames=CYCLE, death=DEATH, variety=variety
        )
        make_movie(folder, job)
    if not kept.is_file():
        movies = [movie_files(folder / f"{sequence:02d}") for sequence in range(1, embryos + 1)]
        write_crops(kept, extract(movies, CropSettings(voxels=VOXELS), Overrides()))
    return read_crops(kept)


class Watched:
    """All nuclei of a movie that was held out, and when they divide.

    Parameters
    ----------
    folder, sequence : of the movie, with its truth
    """

    def __init__(self, folder: Path, sequence: int) -> None:
        truth = folder / f"{sequence:02d}_GT" / "TRA"
        files = movie_files(folder / f"{sequence:02d}", truth)
        cells = cells_in(files, Overrides())
        side = usual_side_um(cells)
        settings = CropSettings(side, VOXELS)
        self.crops = list(crops_of_movie(files, cells, settings, Overrides(), side, sorted(files.masks)))
        tracks = read_tracks(truth / "man_track.txt")
        parents = [one.parent for one in tracks]
        self._divisions = {one.label: one.end for one in tracks if parents.count(one.label) > 1}

    def scored(self, teller: StateTeller) -> tuple[int, int, int]:
        """Return the divisions that were found right, missed, and made up."""
        told = teller.tell(self.crops, all_of_them=True)
        mitotic = told.states == MITOTIC
        found = 0
        right: set[int] = set()
        for label in np.unique(told.labels[mitotic]).tolist():
            frames = np.sort(told.frames[mitotic & (told.labels == label)])
            ends = frames[np.append(np.diff(frames) > 1, True)]
            found += len(ends)
            if label in self._divisions and (np.abs(ends - self._divisions[label]) <= 1).any():
                right.add(label)
        return len(right), len(self._divisions) - len(right), found - len(right)


def feedback(work: Path, embryos: int) -> tuple[int, int]:
    """Track imperfect masks with and without states; division errors of both."""
    rows, errors = [], [0, 0]
    teller = StateTeller(work / "ours_1", "cpu")
    for sequence in range(1, embryos + 1):
        images = work / "test" / f"{sequence:02d}"
        truth = work / "test" / f"{sequence:02d}_GT" / "TRA"
        masks = imperfect(truth, work / f"masks_{sequence:02d}", sequence)
        told = work / f"told_{sequence:02d}"
        tell_movie(movie_files(images, masks), told, teller, Overrides())
        true = true_lineage(truth)
        for place, states in enumerate((None, told / "states.csv")):
            result = work / f"tracked_{sequence:02d}_{place}"
            track_movie(masks, result, LinkSettings(states=states), Overrides())
            found = read_table(result / "cells.csv")
            right, missed, wrong = score_lineage(true, found, match_um=_MATCH_UM, frames=1).divisions
            errors[place] += missed + wrong
            way = "with states" if states else "without"
            rows.append((f"{sequence:02d}, {way}", str(right), str(missed), str(wrong)))
    table(("divisions in imperfect masks", "right", "missed", "wrong"), rows)
    return errors[0], errors[1]


def imperfect(truth: Path, folder: Path, seed: int) -> Path:
    """Write true masks of which some objects are left out, some are split and some are made up."""
    rng = np.random.default_rng(seed)
    for frame, path in frames_in(truth, TRUE_TRACKS).paths.items():
        mask, spacing = read_labels(path)
        write_labels(folder / frame_name(MASKS, frame, 3), spoilt(mask, rng), spacing)
    return folder


def spoilt(mask: Labels, rng: np.random.Generator) -> Labels:
    """Spoil a mask; labels are drawn anew and tell nothing."""
    found = objects_of(mask)
    new = np.zeros(mask.shape, np.uint32)
    numbers = 1 + rng.permutation(3 * len(found.labels))
    grid = np.stack(np.indices(mask.shape))
    for place, label in enumerate(found.labels):
        if rng.random() < LEFT_OUT:
            continue
        own = mask == label
        new[own] = numbers[3 * place]
        if rng.random() < SPLIT:
            way = rng.normal(size=3)
            side = np.tensordot(way, grid - found.centres[place][:, None, None, None], axes=1) > 0
            new[own & side] = numbers[3 * place + 1]
        if rng.random() < MADE_UP:
            centre = rng.uniform(0, mask.shape)
            ball = ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 36
            new[ball & (new == 0)] = numbers[3 * place + 2]
    return new


def true_lineage(truth: Path) -> Lineage:
    """Read places and parents of true tracks."""
    ids: list[int] = []
    times: list[int] = []
    parents: list[int] = []
    places = []
    last: dict[int, int] = {}
    mother = {one.label: one.parent for one in read_tracks(truth / "man_track.txt")}
    for frame, path in frames_in(truth, TRUE_TRACKS).paths.items():
        mask, spacing = read_labels(path)
        found = objects_of(mask)
        now = {}
        for label, centre in zip(found.labels.tolist(), found.centres, strict=True):
            ids.append(len(ids))
            times.append(frame)
            places.append(centre * np.array(spacing))
            parents.append(last.get(label, last.get(mother[label], -1)))
            now[label] = ids[-1]
        last |= now
    return lineage_of(ids, times, np.array(places), parents)


if __name__ == "__main__":
    raise SystemExit(main())
