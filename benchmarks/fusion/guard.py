"""What the guard does to scores: N_SSIM without and with it, on views of kinds the models know and do not.

All images are simulated, of seeds that neither the models nor their guards have seen:

seen             specimens of the studies there are models for; each gets its own
unseen           studies of their own: other voxels, specimens, optics and cameras (unseen.py); the generalist
seen well        the view of either, moved most of the way to the fused volume: little is missing
other channel    nuclei given to a model for membranes, and the other way round
real             with --real: real stacks, views by another microscope's optics; the generalist

Scores are of whole volumes, for the worse of the two readings of the challenge's SSIM as well as for each.
Below the table, what the guard expected of an image against what came (of images whose correction is
applied), and the map of gains against the errors: voxels with about the same predicted gain, taken together;
views that were moved towards the fused volume by themselves.
Ends with 1 when, of the unseen studies, the mean with the guard is below that without, or more than 2 % of
the images score below -0.02.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from benchmarks.fusion.cases import real_cases, real_stacks
from lightsheet.core.axes import CHANNELS, ZYX, Channel, SpacingUm
from lightsheet.evaluate.metrics import LOSS_BELOW, nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.guard.evidence import features_of, predicted_blocks
from lightsheet.fuse.guard.guard import Guard, guard_of
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.models.folder import open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.simulate.dataset import simulate_pair
from lightsheet.simulate.presets import PRESETS
from lightsheet.simulate.variety import WIDE, drawn_pair
from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

MOST_LOSSES = 0.02
GENERALIST = "Generalist"
GAIN_EDGES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
EXPECTED_EDGES = np.array([0.2, 0.4, 0.6, 0.8])
SEEN_WELL = "seen well"
GROUPS = ("seen", "unseen", SEEN_WELL, "other channel", "real")
OTHER: dict[Channel, Channel] = {"nucleus": "membrane", "membrane": "nucleus"}
Counts = NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class Case:
    """A view, its fused volume, what is stained, and the model that gets it."""

    group: str
    channel: Channel
    model: str
    view: Counts
    fused: Counts
    spacing_um: SpacingUm


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Scores of a case by reading, without and with the guard; the gate, and the mean score it expects."""

    group: str
    channel: Channel
    without: tuple[float, ...]
    guarded: tuple[float, ...]
    gate: float
    expected: float
    errors: NDArray[np.float64]


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="specimens of each group and channel")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=70_000, help="first seed of the specimens")
    parser.add_argument("--models", type=Path, default=ROOT / "resources" / "models", help="folder of models")
    parser.add_argument("--real", type=Path, help="folder of real stacks, as ../shared/data")
    parser.add_argument("--figure", type=Path, help="PNG of what was expected and what came")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    started = time.monotonic()
    jobs = [
        (channel, number, arguments.seed, (z, y, x), arguments.models)
        for number in range(arguments.images)
        for channel in CHANNELS
    ]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for found in pool.map(simulated, jobs):
            outcomes += found
        if arguments.real is not None:
            places = arguments.real, arguments.seed, arguments.models
            stacks = [(*places, *stack) for stack in real_stacks(arguments.real)]
            for found in pool.map(real, stacks):
                outcomes += found
    print_line(f"{len(outcomes)} images of {arguments.shape} voxels, {time.monotonic() - started:.0f} s")
    return report(outcomes, arguments.figure)


def simulated(job: tuple[Channel, int, int, ZYX, Path]) -> list[Outcome]:
    """All cases that are made of one specimen of a known and one of an unseen study."""
    channel, number, seed, shape, models = job
    return [outcome(case, models) for case in cases(channel, number, seed + number, shape)]


def cases(channel: Channel, number: int, seed: int, shape: ZYX) -> Iterator[Case]:
    """Yield the cases of one number."""
    studies = [study for study, preset in PRESETS.items() if channel in preset.channels]
    known = simulate_pair(studies[number % len(studies)], channel, seed, shape)
    new = drawn_pair(channel, seed, shape, WIDE)
    own = f"Study{studies[number % len(studies)]}_{channel.title()}"
    yield Case("seen", channel, own, known.view, known.fused, known.spacing_um)
    yield Case("unseen", channel, GENERALIST, new.view, new.fused, new.spacing_um)
    one, model = ((known, own), (new, GENERALIST))[number % 2]
    share = np.random.default_rng(seed).uniform(0.5, 0.95)
    clear = np.rint((1 - share) * one.view + share * one.fused).astype(np.uint16)
    yield Case(SEEN_WELL, channel, model, clear, one.fused, one.spacing_um)
    other = (new, known)[number % 2]
    wrong = f"Study1_{OTHER[channel].title()}"
    yield Case("other channel", channel, wrong, other.view, other.fused, other.spacing_um)


def outcome(case: Case, models: Path) -> Outcome:
    """Predict, judge and score one case."""
    model, guard = loaded(models / case.model)
    z, y, x = case.view.shape
    info = VolumeInfo(case.group, (z, y, x), "uint16", case.spacing_um, case.channel)
    volume = LazyVolume(info, lambda z0, z1: case.view[z0:z1])
    inputs = prepare_inputs(volume, model.settings.inputs)
    channels = inputs.channels(case.view, (slice(0, z), slice(0, y), slice(0, x)))
    view = np.ascontiguousarray(channels[0])
    prediction = predict_block(model.facts, model.runtime, channels)[0]
    blocks = list(predicted_blocks(volume, inputs, model))
    verdict = guard.judge(features_of(blocks, measure(volume)))
    result = guard.apply(view, prediction, verdict.gate)
    fused = inputs.normalization.apply(case.fused)
    without, guarded = (
        tuple(nssim(one, view, fused, reading) for reading in READINGS) for one in (prediction, result)
    )
    errors = np.zeros((3, len(GAIN_EDGES) + 1))
    if verdict.gate.share and guard.gains is not None:
        gains = guard.gains.at(view, prediction, verdict.gate.share)
        bins = np.digitize(gains, GAIN_EDGES).ravel()
        before, after = (np.abs(one - fused).ravel() for one in (view, result))
        errors = np.stack(
            [np.bincount(bins, w, errors.shape[1]) for w in (before * gains.ravel(), before, after)]
        )
    return Outcome(
        case.group,
        case.channel,
        without,
        guarded,
        verdict.gate.share,
        verdict.mean,
        errors,
    )


@lru_cache
def loaded(folder: Path) -> tuple[LoadedModel, Guard]:
    """Load a model and its guard, once in each process."""
    opened = open_model(folder)
    guard = guard_of(opened)
    if guard is None:
        raise SystemExit(f"{folder}: expected a guard.json, got none; see calibrate_guard.py")
    return load_model(opened, "cpu"), guard


def real(job: tuple[Path, int, Path, Path, Channel]) -> list[Outcome]:
    """Degrade a real stack by optics the models have not seen, and judge the model's result."""
    folder, seed, models, path, channel = job
    made = real_cases(folder, path, channel, seed)
    found = (Case("real", channel, GENERALIST, one.view, one.fused, one.spacing_um) for one in made)
    return [outcome(case, models) for case in found]


def report(outcomes: list[Outcome], figure: Path | None) -> int:
    """Print the table; 1 when a bar is missed."""
    rows: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if np.isfinite([*one.without, *one.guarded]).all():
            rows[one.group, one.channel].append(one)
            rows[one.group, "both"].append(one)
    titles = ("mean tf", "mean 3d", "5th perc.", f"below {LOSS_BELOW}")
    print_line(f"{'':<33}" + "".join(f"{title:>16}" for title in titles) + f"{'kept':>8}{'gate':>7}")
    print_line(f"{'group, channel':<26}{'images':>7}" + f"{'plain':>8}{'guard':>8}" * 4)
    missed = []
    for group in GROUPS:
        for channel in (*CHANNELS, "both"):
            if rows[group, channel]:
                figures = figures_of(rows[group, channel])
                print_line(f"{f'{group}, {channel}':<26}{len(rows[group, channel]):>7}" + shown(figures))
                if group == "unseen" and channel == "both":
                    missed = bars(figures)
    calibration(outcomes, figure)
    for line in missed:
        print_line(f"missed: {line}")
    return 1 if missed else 0


def calibration(outcomes: list[Outcome], figure: Path | None) -> None:
    """Print, and draw, what was expected against what came, of images and of places in them."""
    used = [one for one in outcomes if one.gate and np.isfinite(one.guarded).all()]
    kinds = {
        "other images": [one for one in used if one.group != SEEN_WELL],
        SEEN_WELL: [one for one in used if one.group == SEEN_WELL],
    }
    images, places = {}, {}
    for kind, some in kinds.items():
        if not some:
            continue
        expected = np.array([one.expected for one in some])
        came = np.array([np.mean(one.guarded) for one in some])
        images[kind] = expected, came
        print_line(
            f"\n{kind}: N_SSIM (mean of the readings) expected and come, of {len(some)}: "
            f"r = {correlation(expected, came):.2f}"
        )
        bins = np.digitize(expected, EXPECTED_EDGES)
        for number in np.unique(bins):
            there = bins == number
            print_line(f"{there.sum():>7} images {expected[there].mean():>+8.2f}{came[there].mean():>+8.2f}")
        sums = np.sum([one.errors for one in some], axis=0)
        filled = sums[1] > 0
        told, true = sums[0][filled] / sums[1][filled], 1 - sums[2][filled] / sums[1][filled]
        places[kind] = told, true
        print_line("share of the view's error that goes, predicted by the map and come")
        for share, one, other in zip(sums[1][filled] / sums[1].sum(), told, true, strict=True):
            print_line(f"{share:>7.0%} of the error {one:>+8.2f}{other:>+8.2f}")
    if figure is not None:
        draw(images, places, figure)


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's; 0 of fewer than three numbers."""
    return float(np.corrcoef(first, second)[0, 1]) if len(first) > 2 else 0.0


Points = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def draw(images: Points, places: Points, target: Path) -> None:
    """Draw both calibrations: what was expected and what came, by kind of image."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    for kind, (expected, came) in images.items():
        axes[0].plot(expected, np.maximum(came, -1), "o", ms=3, alpha=0.5, label=kind)
    axes[0].set(
        xlabel="N_SSIM that the guard expects", ylabel="N_SSIM (below -1 drawn at -1)", title="images"
    )
    for kind, (told, true) in places.items():
        axes[1].plot(told, np.maximum(true, -1), "o-", label=kind)
    axes[1].set(xlabel="predicted gain", ylabel="gain", title="places, by predicted gain")
    for one in axes:
        one.plot([0, 1], [0, 1], "k:", lw=1)
        one.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def figures_of(outcomes: list[Outcome]) -> dict[str, tuple[float, ...]]:
    """Figures of a row without and with the guard; percentiles and losses are of the worse reading."""
    without, guarded = (np.array([getattr(one, name) for one in outcomes]) for name in ("without", "guarded"))
    return {
        **{f"mean {r}": (without[:, k].mean(), guarded[:, k].mean()) for k, r in enumerate(READINGS)},
        "p5": tuple(float(np.percentile(a.min(axis=1), 5)) for a in (without, guarded)),
        "losses": tuple(float(np.mean(a.min(axis=1) < LOSS_BELOW)) for a in (without, guarded)),
        "gates": (
            float(np.mean([one.gate == 0 for one in outcomes])),
            float(np.mean([one.gate for one in outcomes])),
        ),
    }


def shown(figures: dict[str, tuple[float, ...]]) -> str:
    """Figures of a row as text."""
    cells = "".join(f"{value:>+8.3f}" for name in ("mean tf", "mean 3d", "p5") for value in figures[name])
    plain, guard = figures["losses"]
    kept, gate = figures["gates"]
    return f"{cells}{plain:>8.1%}{guard:>8.1%}{kept:>8.0%}{gate:>7.2f}"


def bars(figures: dict[str, tuple[float, ...]]) -> list[str]:
    """Bars that the row of unseen studies misses."""
    missed = []
    for reading in READINGS:
        plain, guard = figures[f"mean {reading}"]
        if guard < plain:
            missed.append(f"unseen, mean N_SSIM {reading}: with the guard {guard:+.3f}, without {plain:+.3f}")
    if figures["losses"][1] > MOST_LOSSES:
        missed.append(
            f"unseen, below {LOSS_BELOW}: {figures['losses'][1]:.1%} (bar: at most {MOST_LOSSES:.0%})"
        )
    return missed


def print_line(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
