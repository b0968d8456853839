"""How well the physics step finds from which side the light came, and what mistakes cost.

Views of real stacks by three forward models (with --real), and simulated ones of studies that are drawn, in
which that side counts from which most is lost: of the sheet or of the camera. Prints how often a side is
decided, how often it is right, how often its axis is; then N_SSIM (tf / 3d) with the side told, as found,
with the opposite side and with nothing known. The seeds are others than those on which the odds were fitted.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores

import numpy as np

from benchmarks.common import Bars, say, table
from benchmarks.fusion.cases import Case, unseen_case
from benchmarks.fusion.methods import View
from benchmarks.fusion.real_views import real_views
from lightsheet.core.axes import CHANNELS, SIDES, Side
from lightsheet.evaluate.metrics import nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.settings import Light
from lightsheet.fuse.physics.step import PhysicsVolume
from recipes.stacks import stacks_in

SHAPE = (40, 128, 128)
WAYS = ("told", "found", "opposite", "unknown")


@dataclass(frozen=True)
class Job:
    """A real stack, or a simulated specimen of a channel."""

    seed: int
    folder: Path | None
    name: str


@dataclass(frozen=True)
class Found:
    """What was found of one view.

    Attributes
    ----------
    group : forward model
    truth, decided : sides; None where it was left open
    likeliest : side with the best odds
    scores : N_SSIM (tf, 3d) by way
    """

    group: str
    truth: Side
    decided: Side | None
    likeliest: Side
    scores: dict[str, tuple[float, float]]


def main() -> int:
    """Print the tables; 0, as what is missed is told in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of real stacks, as ../shared/data")
    parser.add_argument("--times", type=int, default=3, help="views of each stack by each forward model")
    parser.add_argument("--simulated", type=int, default=20, help="simulated views of each channel")
    parser.add_argument("--seed", type=int, default=990_000, help="of the views")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    jobs = [Job(arguments.seed + k, None, c) for k in range(arguments.simulated) for c in CHANNELS]
    if arguments.real is not None:
        jobs += [
            Job(arguments.seed + k, arguments.real, name)
            for k in range(arguments.times)
            for name in stacks_in(arguments.real)
        ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = [one for some in pool.map(run, jobs) for one in some]
    report(found)
    return 0


def run(job: Job) -> list[Found]:
    """Look at all views of a job."""
    return [looked_at(case, truth) for case, truth in cases_of(job)]


def cases_of(job: Job) -> Iterator[tuple[Case, Side]]:
    """Make views, each with the side from which its light came."""
    if job.folder is not None:
        for case in real_views(job.folder, job.name, job.seed):
            yield case, next(side for side in SIDES if side == case.light)
        return
    channel = next(channel for channel in CHANNELS if channel == job.name)
    case = unseen_case(channel, 0, SHAPE, seed=job.seed)
    one = case.optics[0]
    sheet = (
        one.illumination_loss_per_um * SHAPE[one.illumination_axis] * case.spacing_um[one.illumination_axis]
    )
    camera = one.detection_loss_per_um * SHAPE[one.detection_axis] * case.spacing_um[one.detection_axis]
    axis, high = (
        (one.illumination_axis, one.illumination_from_high)
        if sheet >= camera
        else (one.detection_axis, one.detection_from_high)
    )
    yield case, SIDES[2 * axis + high]


def looked_at(case: Case, truth: Side) -> Found:
    """Find the side, and score the step with it and others."""
    view = View(case)
    known = estimate(view.volume)
    sides: dict[str, Light] = {
        "told": truth,
        "found": "auto",
        "opposite": opposite(truth),
        "unknown": "unknown",
    }
    scores = {}
    for way, side in sides.items():
        told = replace(known, said=side)
        result = PhysicsVolume(view.volume, told).read(0, case.view.shape[0])
        tf, three_d = (nssim(result, case.view, case.fused, reading) for reading in READINGS)
        scores[way] = (tf, three_d)
    likeliest = max(known.odds, key=known.odds.__getitem__)
    return Found(case.forward or "simulated", truth, known.side, likeliest, scores)


def opposite(side: Side) -> Side:
    """Return the other side of the same axis."""
    return SIDES[SIDES.index(side) ^ 1]


def report(found: list[Found]) -> None:
    """Print what was found and what it costs."""
    groups = list(dict.fromkeys(one.group for one in found))
    rows = []
    for group in (*groups, "all"):
        some = [one for one in found if group in (one.group, "all")]
        decided = [one for one in some if one.decided is not None]
        right = sum(one.decided == one.truth for one in decided)
        axis = sum((one.decided or " ")[1] == one.truth[1] for one in decided)
        likely = sum(one.likeliest == one.truth for one in some)
        share = f"{right} of {len(decided)}"
        left_open = f"{1 - len(decided) / len(some):.0%}"
        rows.append((group, str(len(some)), left_open, share, str(axis), f"{likely / len(some):.0%}"))
    say("from which side the light came")
    table(("views", "number", "left open", "decided rightly", "axis right", "likeliest is right"), rows)
    say("\nmean N_SSIM tf / 3d of the physics step, and the lowest, by what is known of the light")
    rows = []
    for group in (*groups, "all"):
        some = [one for one in found if group in (one.group, "all")]
        rows.append((group, *(cell([one.scores[way] for one in some]) for way in WAYS)))
    wrong = [one for one in found if one.decided not in (None, one.truth)]
    if wrong:
        rows.append(("decided wrongly", *(cell([one.scores[way] for one in wrong]) for way in WAYS)))
    table(("views", *WAYS), rows)
    bars = Bars()
    decided = [one for one in found if one.decided is not None]
    bars.at_most("share left open", 1 - len(decided) / len(found), 0.25)
    if decided:
        bars.at_least(
            "share of the decided that is right", np.mean([o.decided == o.truth for o in decided]), 0.95
        )


def cell(scores: list[tuple[float, float]]) -> str:
    """Means of both readings and the lowest of all."""
    tf, three_d = np.mean(scores, axis=0)
    return f"{tf:+.3f} / {three_d:+.3f} ({np.min(scores):+.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
