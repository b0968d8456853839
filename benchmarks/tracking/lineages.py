"""Linking of real lineages (../shared/data/tracks, ascidian embryos) and simulated ones, against other ways.

Of the true places a tenth is left out, 2 % are made up and the stage jumps before a tenth of the frames, by
50 um along each axis. Ours are linked with weights that were fitted without the embryo (recipes/linking.py).
Beside it: the nearest cell of the frame before, and LapTrack alone, with gaps and divisions by distance and
drift taken off as for ours. Links and divisions count if they join the very same cells; a link over cells
that were left out is one.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.common import ROOT, Bars, say, table
from lightsheet.evaluate.cells.lineages import LineageScores, score_lineage
from lightsheet.simulate.movies.detections import detected
from lightsheet.specimen.drift import drift, neighbour_distance
from lightsheet.track.link import linked
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.tracks.lineage import NOBODY, Lineage
from lightsheet.volumes.tracks.tables import read_table
from recipes.linking import EMBRYOS, simulated
from recipes.linking import main as fit

Way = Callable[[Lineage], Lineage]
_NEAR = 1e-6
_SHORT = 30


def main() -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tracks", type=Path, default=ROOT.parent / "shared" / "data" / "tracks")
    parser.add_argument("--seeds", type=int, default=3, help="of what is missed, made up and where it jumps")
    parser.add_argument("--first_seed", type=int, default=500)
    parser.add_argument("--simulated", type=int, default=4, help="simulated lineages, beside")
    parser.add_argument("--fitted_on", type=int, default=12, help="simulated lineages of the fit")
    arguments = parser.parse_args()
    rows = []
    totals: dict[str, list[LineageScores]] = {}
    for name, true, events in cases(arguments):
        for way, run in ways(events).items():
            scores, cells_a_minute = scored(run, true, arguments, sizes="no sizes" not in way)
            rows.append((f"{name}, {way}", *figures(scores), f"{cells_a_minute:,.0f}"))
            totals.setdefault(way if name.startswith("astec") else f"simulated, {way}", []).extend(scores)
        say(f"  {name}: done")
    head = (
        "lineage, way",
        "link F1",
        "division precision",
        "recall",
        "false per 1000 links",
        "cells a minute",
    )
    table(head, [*rows, *((f"all: {way}", *figures(scores), "") for way, scores in totals.items())])
    return judge(totals, arguments)


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, Lineage, Path]]:
    """Yield lineages with the weights that were fitted without them."""
    with tempfile.TemporaryDirectory() as folder:
        for name in EMBRYOS:
            path = arguments.tracks / f"{name}_spots.csv"
            if path.is_file():
                events = Path(folder) / f"{name}.json"
                words = ["--without", name.removeprefix("astec_"), "--tracks", str(arguments.tracks)]
                sys.argv = [
                    "linking",
                    *words,
                    "--simulated",
                    str(arguments.fitted_on),
                    "--output",
                    str(events),
                ]
                fit()
                yield name, read_table(path), events
        for seed in range(arguments.simulated):
            yield f"simulated {seed}", simulated(9000 + seed), Path()


def ways(events: Path) -> dict[str, Way]:
    """Return the ways to link, by name."""
    settings = LinkSettings(events=events if events.name else None)

    def ours(found: Lineage) -> Lineage:
        return linked(found, settings)

    return {"ours": ours, "ours, no sizes": ours, "LapTrack alone": laptrack_alone, "nearest cell": nearest}


def scored(
    run: Way, true: Lineage, arguments: argparse.Namespace, *, sizes: bool
) -> tuple[list[LineageScores], float]:
    """Scores for each seed, and cells that are linked in a minute."""
    scores, cells, spent = [], 0, 0.0
    jump = 50.0 if np.ptp(true.places_um) > 200 else 10.0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        found = detected(true, seed, jump_um=jump, size_error=0.0 if sizes else None)
        started = time.monotonic()
        result = run(found)
        spent += time.monotonic() - started
        cells += len(found)
        scores.append(score_lineage(found, result, match_um=_NEAR))
    return scores, 60 * cells / spent


def figures(scores: list[LineageScores]) -> tuple[str, ...]:
    """Scores of all together."""
    whole = together(scores).values
    names = ("link_F1", "division_precision", "division_recall", "false_divisions_per_1000_links")
    return tuple(f"{whole[name]:.4f}" for name in names)


def together(scores: list[LineageScores]) -> LineageScores:
    """Add up what was counted."""
    cells, links, divisions = (
        tuple(int(n) for n in np.sum([getattr(one, part) for one in scores], axis=0))
        for part in ("cells", "links", "divisions")
    )
    return LineageScores(cells, links, divisions)  # type: ignore[arg-type]


def nearest(found: Lineage) -> Lineage:
    """Link each cell to the nearest one of the frame before."""
    parents = np.full(len(found), NOBODY, np.int64)
    for frame in list(found.frames)[1:]:
        now, before = (np.flatnonzero(found.times == time) for time in (frame, frame - 1))
        if len(now) and len(before):
            parents[now] = before[cKDTree(found.places_um[before]).query(found.places_um[now])[1]]
    return found.with_parents(parents)


def laptrack_alone(found: Lineage) -> Lineage:
    """Link by LapTrack with gaps and divisions, all by distance."""
    from laptrack import LapTrack

    places = found.places_um - drift(found.times, found.places_um)[found.times - found.times[0]]
    near = neighbour_distance(found.times, places)
    linker = LapTrack.model_validate(
        {"cutoff": (0.5 * near) ** 2, "gap_closing_cutoff": (0.5 * near) ** 2, "splitting_cutoff": near**2}
    )
    frames = [places[found.times == frame] for frame in found.frames]
    starts = np.searchsorted(found.times, np.array(found.frames))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = linker.predict(frames)
    parents = np.full(len(found), NOBODY, np.int64)
    for one, other in graph.edges:
        first, second = sorted((one, other))
        parents[starts[second[0]] + second[1]] = starts[first[0]] + first[1]
    return found.with_parents(parents)


def judge(totals: dict[str, list[LineageScores]], arguments: argparse.Namespace) -> int:
    """Tell the bars, of the embryos; 1 if one is missed."""
    bars = Bars()
    if "ours" in totals:
        whole = together(totals["ours"]).values
        bars.at_least("link F1", whole["link_F1"], 0.99, judged=True)
        bars.at_least("division precision", whole["division_precision"], 0.85, judged=True)
        bars.at_least("division recall", whole["division_recall"], 0.85, judged=True)
        false = whole["false_divisions_per_1000_links"]
        bars.at_most("false divisions per 1000 links", false, 0.05, judged=True)
        short = [
            score_lineage(found, linked(found, LinkSettings()), match_um=_NEAR)
            for name in EMBRYOS
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            for found in (first_frames(arguments.tracks / f"{name}_spots.csv", seed),)
        ]
        rate = together(short).values["false_divisions_per_1000_links"]
        say(f"  false divisions per 1000 links in the first {_SHORT} frames: {rate:.4f}")
    return 1 if bars.missed else 0


def first_frames(path: Path, seed: int) -> Lineage:
    """Return what is found of the first frames of a lineage."""
    true = read_table(path)
    return detected(true.taken(true.times < true.times[0] + _SHORT), seed, size_error=0.0)


if __name__ == "__main__":
    raise SystemExit(main())
