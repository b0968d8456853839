"""How good the fused volume is that is predicted from one view: ours, the published ways, and doing nothing.

``make bench-quality`` runs this. Test images are simulated: of the seven sets of the challenge that the
models know ("seen"), and of studies drawn from wider ranges than anything the models were trained on
("unseen"). With --real also views made of real stacks, by three forward models that no training has used
(see real_views.py, forward.py). On the images of the default seed nothing was trained, and nothing was chosen
by their scores; the real stacks are few, and were looked at. Networks are read, not trained: recipes/models
and recipes/rivals made them, with the same volumes and as many steps.

Scores are N_SSIM, 0 for a copy of the view and 1 for the fused volume, of whole images under both readings of
the challenge's SSIM (tf, 3d). The fifth percentile and the share of losses (below -0.02) are of the worse
reading. Ends with 1 when a bar is missed: ours the best in both means, of seen and of unseen images of each
channel, and its fifth percentile at least 0; of all seen images at most 1 % losses, of all unseen ones 2 %,
of real stacks none, and there means above 0.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores

import numpy as np

from benchmarks.common import say
from benchmarks.fusion.cases import SETS, Case, seen_case, unseen_case
from benchmarks.fusion.real_views import real_views
from lightsheet.core.axes import CHANNELS, ZYX, Channel
from lightsheet.evaluate.metrics import LOSS_BELOW, nssim
from lightsheet.evaluate.ssim import READINGS
from recipes.stacks import STACKS, stacks_in

MOST_LOSSES = {"seen": 0.01, "unseen": 0.02, "real": 0.0}
OURS = "ours"
# Of views of real stacks: method, least means tf and 3d, what none may be below.
REAL_BARS = (("physics, light told", (0.30, 0.25), 0.0), ("physics", (0.05, 0.05), -0.02))


@dataclass(frozen=True)
class Job:
    """What one process does: the image, or images, and the methods to try on them."""

    group: str
    channel: Channel
    study: int | None
    number: int
    shape: ZYX
    methods: tuple[str, ...]
    seed: int
    folder: Path | None = None
    stack: str | None = None


@dataclass(frozen=True)
class Score:
    """N_SSIM of a method on an image by reading, and the seconds it took."""

    group: str
    channel: str
    study: int | None
    name: str
    method: str
    n_ssim: tuple[float, float]
    seconds: float
    forward: str = ""


def main() -> int:
    """Print the tables; 1 when a bar is missed."""
    from benchmarks.fusion.methods import CHOICES, METHODS, RIVALS, of_rivals

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seen", type=int, default=6, help="images of each of the seven sets")
    parser.add_argument("--unseen", type=int, default=50, help="images of drawn studies for each channel")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=980_000, help="of the images")
    parser.add_argument("--real", type=Path, help="folder of real stacks, as ../shared/data")
    parser.add_argument("--times", type=int, default=1, help="views of each real stack by each forward model")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *CHOICES], help="which of the rows"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--output", type=Path, help="JSON file of all scores")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    shape, seed = (z, y, x), arguments.seed
    missing = [method for method in arguments.methods if not all(p.is_dir() for p in of_rivals(method))]
    if missing:
        names = ", ".join(method.strip() for method in missing)
        say(f"left out: {names}; no networks for them in {RIVALS}, quality_rivals.py trains them")
    real_methods = tuple(method for method in arguments.methods if method not in missing)
    real_methods = tuple(method for method in real_methods if method != "Richardson-Lucy")  # no known optics
    methods = tuple(m for m in arguments.methods if m not in missing and not m.endswith("light told"))
    jobs = [
        Job("seen", channel, study, number, shape, methods, seed)
        for number in range(arguments.seen)
        for channel, study in SETS
    ]
    jobs += [
        Job("unseen", channel, None, number, shape, methods, seed)
        for number in range(arguments.unseen)
        for channel in CHANNELS
    ]
    if arguments.real is not None:
        jobs = [
            Job("real", STACKS[name][0], None, number, shape, real_methods, seed, arguments.real, name)
            for number in range(arguments.times)
            for name in stacks_in(arguments.real)
        ] + jobs
    started = time.monotonic()
    with ProcessPoolExecutor(arguments.workers) as pool:
        scores = [score for found in pool.map(run, jobs) for score in found]
    images = len({(s.group, s.name) for s in scores})
    seconds = time.monotonic() - started
    say(f"{images} images of seed {seed}, {seconds:.0f} s; simulated, but for those called real")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps([vars(score) for score in scores], indent=1) + "\n")
    return report(scores, tuple(dict.fromkeys((*methods, *real_methods))))


def run(job: Job) -> list[Score]:
    """Score all methods on the images of a job."""
    if job.stack is not None and job.folder is not None:
        cases = real_views(job.folder, job.stack, job.seed + job.number)
    elif job.study is not None:
        cases = [seen_case(job.channel, job.study, job.number, job.shape, seed=job.seed)]
    else:
        cases = [unseen_case(job.channel, job.number, job.shape, seed=job.seed)]
    return [score for case in cases for score in scores_of(case, job.methods)]


def scores_of(case: Case, methods: Iterable[str]) -> list[Score]:
    """Score methods on an image."""
    from benchmarks.fusion.methods import CHOICES, METHODS, View

    view = View(case)
    fused = view.normalization.apply(case.fused)
    found = []
    for method in methods:
        started = time.perf_counter()
        result = (METHODS | CHOICES)[method](view)
        seconds = time.perf_counter() - started
        tf, three_d = (nssim(result, view.values, fused, reading) for reading in READINGS)
        score = Score(
            case.group, case.channel, case.study, case.name, method, (tf, three_d), seconds, case.forward
        )
        found.append(score)
    return found


def report(scores: list[Score], methods: Iterable[str]) -> int:
    """Print a table for each group and channel, then our figures by set; 1 when a bar is missed."""
    missed: list[str] = []
    for group in ("real", "seen", "unseen"):
        for channel in CHANNELS:
            rows = [s for s in scores if (s.group, s.channel) == (group, channel)]
            if rows:
                missed += table(group, channel, rows, methods)
        if group == "real":
            by_forward_model([s for s in scores if s.group == "real"], methods)
    say("")
    for name, bar, floor in REAL_BARS:
        missed += real_bars(name, bar, floor, [s for s in scores if s.group == "real"])
    for group in MOST_LOSSES:
        missed += all_bars(group, [s.n_ssim for s in scores if (s.group, s.method) == (group, OURS)])
    by_set(scores, methods)
    for line in missed:
        say(f"missed: {line}")
    return 1 if missed else 0


def by_set(scores: list[Score], methods: Iterable[str]) -> None:
    """Print the means of each of the challenge's sets."""
    sets = [(c, s) for c, s in SETS if any(o.study == s and o.channel == c for o in scores)]
    if sets:
        say("\nmean N_SSIM tf / 3d by set" + " " * 8 + "".join(f"{c[:3]} {s:<13}" for c, s in sets))
        for method in (m for m in methods if any(s.method == m and s.study is not None for s in scores)):
            cells = []
            for channel, study in sets:
                some = [
                    s.n_ssim for s in scores if (s.channel, s.study, s.method) == (channel, study, method)
                ]
                tf, three_d = np.nanmean(np.array(some), axis=0)
                cells.append(f"{tf:+.2f} / {three_d:+.2f}    ")
            say(f"{method:<34}" + "".join(cells))


def by_forward_model(scores: list[Score], methods: Iterable[str]) -> None:
    """Print the means of each forward model, both channels."""
    models = list(dict.fromkeys(score.forward for score in scores))
    if not models:
        return
    say("\nreal, by forward model: mean N_SSIM tf / 3d, lowest of both")
    say(f"{'':<22}" + "".join(f"{model:>24}" for model in models))
    for method in methods:
        cells = []
        for model in models:
            some = np.array([s.n_ssim for s in scores if (s.method, s.forward) == (method, model)])
            if len(some):
                tf, three_d = some.mean(axis=0)
                cells.append(f"{tf:+.3f} / {three_d:+.3f} {some.min():+.2f}")
        if cells:
            say(f"{method:<22}" + "".join(f"{cell:>24}" for cell in cells))


def real_bars(method: str, least: tuple[float, float], floor: float, scores: list[Score]) -> list[str]:
    """Bars that a method misses on views of real stacks: its means, or what they exceed the Gaussian's by."""
    mine = np.array([s.n_ssim for s in scores if s.method == method]).reshape(-1, 2)
    blurred = np.array([s.n_ssim for s in scores if s.method == "Gaussian"]).reshape(-1, 2)
    if not len(mine) or not len(blurred):
        return []
    over = method == "physics"
    reached = mine.mean(axis=0) - (blurred.mean(axis=0) if over else 0)
    beside = " above the Gaussian" if over else ""
    missed = [
        f"real, {method}: mean {reading} {value:+.3f}{beside} (bar: {bar:+.2f})"
        for reading, value, bar in zip(READINGS, reached, least, strict=True)
        if value < bar
    ]
    below = int(np.sum(mine.min(axis=1) < floor))
    say(f"real, {method}: mean tf {reached[0]:+.3f}, 3d {reached[1]:+.3f}{beside}; {below} below {floor}")
    if below:
        missed.append(f"real, {method}: {below} of {len(mine)} below {floor} (bar: none)")
    return missed


def all_bars(group: str, ours: list[tuple[float, float]]) -> list[str]:
    """Print our means and losses over all images of a group, both channels; the bars that they miss."""
    values = np.array(ours).reshape(-1, len(READINGS))
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return []
    means, losses = values.mean(axis=0), int(np.sum(values.min(axis=1) < LOSS_BELOW))
    share = losses / len(values)
    told = f"{losses} of {len(values)} ({share:.1%}) below {LOSS_BELOW}"
    say(f"{group}, all: ours, mean tf {means[0]:+.3f}, 3d {means[1]:+.3f}, {told}")
    missed = [
        f"{group}, all: mean {reading} {mean:+.3f} (bar: above 0)"
        for reading, mean in zip(READINGS, means, strict=True)
        if group == "real" and mean <= 0
    ]
    if share > MOST_LOSSES[group]:
        missed.append(f"{group}, all: {told} (bar: at most {MOST_LOSSES[group]:.0%})")
    return missed


def table(group: str, channel: str, rows: list[Score], methods: Iterable[str]) -> list[str]:
    """Print the table of a group and channel; the bars that it misses."""
    count = len({row.name for row in rows})
    say(f"\n{group}, {channel}: {count} images")
    titles = ("mean tf", "mean 3d", "median", "5th perc.", "< 0", f"< {LOSS_BELOW}", "s")
    say(f"{'':<20}" + "".join(f"{title:>10}" for title in titles))
    means, ours = {}, 0.0
    for method in methods:
        mine = [row for row in rows if row.method == method]
        if not mine:
            continue
        values = np.array([row.n_ssim for row in mine])
        values = values[np.isfinite(values).all(axis=1)]
        worse = values.min(axis=1)
        means[method] = values.mean(axis=0)
        losses = float(np.mean(worse < LOSS_BELOW))
        lowest = float(np.percentile(worse, 5))
        if method == OURS:
            ours = lowest
        cells = [f"{v:+.3f}" for v in (*means[method], float(np.median(worse)), lowest)]
        cells += [f"{np.mean(worse < 0):.1%}", f"{losses:.1%}"]
        cells.append(f"{np.median([row.seconds for row in mine]):.2f}")
        say(f"{method:<20}" + "".join(f"{cell:>10}" for cell in cells))
    return bars(f"{group}, {channel}", means, ours) if group != "real" and OURS in means else []


def bars(name: str, means: dict[str, "np.typing.NDArray[np.float64]"], lowest: float) -> list[str]:
    """Bars that our row misses."""
    missed = []
    for number, reading in enumerate(READINGS):
        others = {m: float(v[number]) for m, v in means.items() if not m.startswith(OURS)}
        best = max(others, key=lambda m: others[m], default=None)
        mine = float(means[OURS][number])
        if best is not None and mine <= others[best]:
            missed.append(f"{name}: mean {reading} {mine:+.3f}, {best.strip()} has {others[best]:+.3f}")
    if lowest < 0:
        missed.append(f"{name}: 5th percentile {lowest:+.3f} (bar: at least 0)")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
