"""Do short trainings always work: the demo's task for both channels, several seeds, in bf16 and fp32.

Trains by steps, not minutes, so that the result does not depend on how fast the machine is. A training is
stuck if its last weights do not beat the view on the validation volumes, or if their scores no longer change.
Prints the spread of the scores by channel and precision and how often trainings were taken back to earlier
weights; draws the courses. Exit code 1 if a training is stuck. All images are simulated. What is done is
kept, so the command can be stopped.
"""

import argparse
import csv
import itertools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl

from lightsheet.core.errors import SettingsError
from lightsheet.core.files import write_json
from lightsheet.core.progress import log_to_stderr
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.fuse.training.train import train
from lightsheet.training.records import METRICS
from lightsheet.training.settings import FitSettings
from recipes.commands import CHANNELS, GROUPS, run

PRECISIONS: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
_STEPS_OF_AN_EPOCH = 20


@dataclass(frozen=True)
class Trained:
    """What came of one training.

    Attributes
    ----------
    channel, precision, seed : which
    course : mean N_SSIM of both readings at the end of each epoch, soft floor at -1
    fallbacks : how often it was taken back
    error : the line with which it ended, if it did not reach its end
    """

    channel: str
    precision: str
    seed: int
    course: list[float]
    fallbacks: int
    error: str = ""

    @property
    def stuck(self) -> bool:
        """Whether the end does not beat the view, or nothing changes any more."""
        still = len(self.course) > 2 and len(set(self.course[-3:])) == 1
        return bool(self.error) or not self.course or not self.course[-1] > 0 or still


def main() -> int:
    """Train all; 1 if one is stuck."""
    arguments = parse()
    log_to_stderr()
    data = prepare(arguments)
    done = [
        trained(arguments, data, channel, precision, seed)
        for seed, precision, channel in itertools.islice(
            itertools.product(range(1, arguments.seeds + 1), PRECISIONS, CHANNELS), arguments.trainings
        )
    ]
    draw(done, arguments.figure)
    sys.stdout.write("\n".join(table(done)) + "\n")
    stuck = [one for one in done if one.stuck]
    for one in stuck:
        sys.stdout.write(f"stuck: {one.channel} {one.precision} seed {one.seed}: {one.error or one.course}\n")
    sys.stdout.write(f"{len(stuck)} of {len(done)} trainings stuck\n")
    return 1 if stuck else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("stability"), help="folder of everything it makes"
    )
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each channel and precision")
    parser.add_argument("--trainings", type=int, default=None, help="do only the first so many of all")
    parser.add_argument("--steps", type=int, default=100, help="steps of each training")
    parser.add_argument("--patch_size", default="32,64,64", help="patch (Z,Y,X), voxels")
    parser.add_argument("--count", type=int, default=14, help="simulated images for each channel")
    parser.add_argument("--shape", default="48,160,160", help="size of the images (Z,Y,X), voxels")
    parser.add_argument(
        "--figure", type=Path, default=Path("stability/training_stability.png"), help="picture to write"
    )
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Path:
    """Make the demo's images and lists, once."""
    data: Path = arguments.output / "data"
    if not (data / "splits" / "splits.json").exists():
        size = ["--count", arguments.count, "--shape", arguments.shape, "--seed", 1]
        run("simulate_dataset.py", data / "tiff", "--study", 1, "--channel", "both", *size)
        run("convert_images.py", data / "tiff", data / "h5", "--workers", 2)
        shares = ["--val_share", 0.15, "--seed", 1]
        run("create_splits.py", data / "h5", "--output_path", data / "splits", *shares)
    return data


def trained(
    arguments: argparse.Namespace, data: Path, channel: str, precision: Literal["bf16", "fp32"], seed: int
) -> Trained:
    """Do one training, or take what was kept of it."""
    name = f"{channel}_{precision}_{seed}"
    kept = arguments.output / f"{name}_{arguments.steps}.json"
    if kept.exists():
        return Trained(**json.loads(kept.read_text()))
    z, y, x = (int(size) for size in arguments.patch_size.split(","))
    settings = TrainSettings(
        data / "splits" / f"Study1_{channel}_train.csv",
        data / "splits" / f"Study1_{channel}_val.csv",
        FitSettings(
            arguments.output / "models" / name,
            patch_size=(z, y, x),
            epochs=-(-arguments.steps // _STEPS_OF_AN_EPOCH),
            samples_per_epoch=min(_STEPS_OF_AN_EPOCH, arguments.steps),
            precision=precision,
            seed=seed,
            resume=False,
        ),
        data_root=data / "h5",
        image_groups=tuple(GROUPS.split(",")),
        export=False,
    )
    error = ""
    try:
        train(settings)
    except SettingsError as stopped:
        error = str(stopped)
    rows = read_rows(settings.fit.logs / METRICS)
    course = [float(row["n_ssim"]) for row in rows]
    fallbacks = int(rows[-1]["fallbacks"]) if rows else 0
    one = Trained(channel, precision, seed, course, fallbacks, error)
    write_json(kept, one.__dict__)
    return one


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a training's metrics."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def table(done: list[Trained]) -> list[str]:
    """One line for each channel and precision."""
    lines = [
        f"{'trainings':<16}{'number':>8}{'stuck':>7}{'returns':>9}  N_SSIM at the end: median (range), sd"
    ]
    for channel, precision in itertools.product(CHANNELS, PRECISIONS):
        group = [one for one in done if (one.channel, one.precision) == (channel, precision)]
        ends = [one.course[-1] for one in group if one.course]
        if not ends:
            continue
        spread = statistics.stdev(ends) if len(ends) > 1 else 0.0
        counts = (
            f"{len(group):>8}{sum(one.stuck for one in group):>7}{sum(one.fallbacks for one in group):>9}"
        )
        scores = f"{statistics.median(ends):+.3f} ({min(ends):+.3f} to {max(ends):+.3f}), {spread:.3f}"
        lines.append(f"{channel + ', ' + precision:<16}{counts}  {scores}")
    return lines


def draw(done: list[Trained], figure: Path) -> None:
    """Draw the course of each training: score over epochs, a panel for each channel."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown, axes = plt.subplots(1, len(CHANNELS), figsize=(9, 3.4), sharey=True, layout="constrained")
    colours = {"bf16": "#0b6e99", "fp32": "#d9730d"}
    for axis, channel in zip(cast("Any", axes), CHANNELS, strict=True):
        for one in (one for one in done if one.channel == channel):
            first = one.seed == 1
            axis.plot(one.course, color=colours[one.precision], lw=1, label=one.precision if first else None)
        axis.axhline(0, color="grey", lw=0.8, ls=":")
        axis.set(title=channel, xlabel=f"epoch of {_STEPS_OF_AN_EPOCH} steps")
    axes[0].set_ylabel("validation N_SSIM, mean of readings")
    axes[0].legend(frameon=False)
    figure.parent.mkdir(parents=True, exist_ok=True)
    shown.savefig(figure, dpi=130)
    plt.close(shown)


if __name__ == "__main__":
    raise SystemExit(main())
