"""Fit what the linker takes for a gap or a division: writes Source/lightsheet/track/events.json.

Lineages of real embryos (../shared/data/tracks, but those of --without) and simulated ones, of which cells
are missed and made up and the stage jumps, are linked frame by frame; a logistic regression tells the gaps
and divisions that are there from those that are not. Fitted to lineages of your own, the file is for
track_script.py --events.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightsheet.simulate.envelopes import whole_field
from lightsheet.simulate.movies.detections import detected
from lightsheet.simulate.movies.specimen import Life, Movie
from lightsheet.track.hypotheses import DIVISION, FEATURES, SIZED, STEP, Hypotheses
from lightsheet.track.link import explanations, prepared
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.tracks.lineage import Lineage
from lightsheet.volumes.tracks.tables import read_table
from recipes import ROOT

EVENTS = ROOT / "Source" / "lightsheet" / "track" / "events.json"
EMBRYOS = ("astec_Pm03", "astec_Pm04", "astec_Pm07")
# Missed and made up cells, and error of the radii, that each lineage is seen with.
SEEN = ((0.1, 0.02, 0.0), (0.05, 0.05, 0.03), (0.0, 0.0, 0.06), (0.15, 0.01, 0.03))


def main() -> int:
    """Fit and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tracks", type=Path, default=ROOT.parent / "shared" / "data" / "tracks")
    parser.add_argument("--without", nargs="*", default=[], help="embryos that are left out, for tests")
    parser.add_argument("--simulated", type=int, default=16, help="simulated lineages")
    parser.add_argument("--output", type=Path, default=EVENTS)
    arguments = parser.parse_args()
    samples: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {name: [] for name in FEATURES}
    for number, true in enumerate(lineages(arguments)):
        for seed, (missed, spurious, error) in enumerate(SEEN):
            found = detected(
                true,
                100 * number + seed,
                missed=missed,
                spurious=spurious,
                size_error=error,
                jump_um=spread(true) / 10,
            )
            for some, right in judged(found):
                samples[some.kind].append((some.features, right))
                if some.kind == SIZED:
                    samples[DIVISION].append((some.features[:, :-1], right))
        sys.stdout.write(f"lineage {number}: {len(true)} cells, {len(true.divisions)} divisions\n")
        sys.stdout.flush()
    weights = {kind: fitted(kind, found) for kind, found in samples.items() if kind != STEP}
    arguments.output.write_text(json.dumps({"weights": weights, "features": FEATURES}, indent=1) + "\n")
    return 0


def lineages(arguments: argparse.Namespace) -> Iterator[Lineage]:
    """Yield the lineages."""
    for name in EMBRYOS:
        path = arguments.tracks / f"{name}_spots.csv"
        if path.is_file() and name.removeprefix("astec_") not in arguments.without:
            yield read_table(path)
    for seed in range(arguments.simulated):
        yield simulated(seed)


def simulated(seed: int, frames: int = 40) -> Lineage:
    """Return a lineage of cells of another pace, crowd and cycle for each seed."""
    rng = np.random.default_rng([seed, 77])
    life = Life(
        10.0,
        cycle_frames=rng.uniform(12, 40),
        death=0.002,
        step_um=float(np.exp(rng.uniform(*np.log((0.15, 1.2))))),
        jumps=0.0,
        apart=rng.uniform(0.9, 1.1),
    )
    side = rng.uniform(60, 90)
    field = whole_field((int(side), int(side), int(side)), (1.0, 1.0, 1.0))
    return Movie(rng, field, life, int(rng.integers(60, 200))).lineage(frames)


def spread(lineage: Lineage) -> float:
    """Size of the specimen, micrometres."""
    return float(np.ptp(lineage.places_um, axis=0).mean())


def judged(found: Lineage) -> Iterator[tuple[Hypotheses, NDArray[np.bool_]]]:
    """Yield the hypotheses and which of them are right."""
    settings = LinkSettings()
    children = found.children
    for some in explanations(prepared(found, settings), settings):
        own = (found.parents[some.daughters] == some.mothers[:, None]).all(axis=1)
        yield some, own & (children[some.mothers] == some.daughters.shape[1])


def fitted(kind: str, found: list[tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> list[float]:
    """Weights of the features of a kind."""
    from sklearn.linear_model import LogisticRegression

    features, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    mean[0], scale[0] = 0, 1
    model = LogisticRegression(C=3, max_iter=5000, fit_intercept=False)
    weights = model.fit((features - mean) / scale, right).coef_[0] / scale
    weights[0] -= float((weights * mean).sum())
    sys.stdout.write(f"{kind}: {len(right)} hypotheses, {int(right.sum())} right\n")
    return [round(float(weight), 4) for weight in weights]


if __name__ == "__main__":
    raise SystemExit(main())
