"""What a network's work is worth: N_SSIM against multiply-adds per voxel, each network trained for as long.

Reads the volumes that recipes/models.py made (as ablations.py does, a third of them). Every network gets the
same minutes of training with the recipe of the shipped models, one at a time, and is scored without a guard
on test images of quality.py: seen studies and unseen ones, mean N_SSIM of both readings. A cheaper network
takes more steps in that time, which is a part of what it is worth; the steps are told. The time is that of
one pass of PyTorch over a test image, beside it OpenVINO's where it is installed. What is measured already is
kept, so the command can be stopped. All images are simulated.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import say, table
from benchmarks.fusion.ablations import cases, lists_of, scores, write_lists
from benchmarks.fusion.methods import View
from lightsheet.core.axes import Floats
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.models.folder import SETTINGS, load_state, open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import load_model
from lightsheet.runtimes.openvino_runtime import has_openvino
from recipes.commands import GROUPS, train_anyhow
from recipes.models import LOSS, PATCHES

BEFORE = "16 maps, as before"
NETWORKS: dict[str, tuple[object, ...]] = {
    BEFORE: (),
    "8 maps": ("--feat_channels", 8),
    "4 maps": ("--feat_channels", 4),
    "folded, 16 maps": ("--fold", 2),
    "folded, 24 maps": ("--fold", 2, "--feat_channels", 24),
    "folded, 32 maps": ("--fold", 2, "--feat_channels", 32),
    "folded, 24 maps, residual blocks": ("--fold", 2, "--feat_channels", 24, "--backbone", "resunet3d"),
    "folded, 24 maps, shuffled up": ("--fold", 2, "--feat_channels", 24, "--backbone", "unet3d_pixelshuffle"),
}
_REPETITIONS = 3


@dataclass(frozen=True)
class Measured:
    """What was measured of a network.

    Attributes
    ----------
    macs : multiply-adds for each voxel
    weights : number of them
    steps : of the training
    scores : mean N_SSIM seen (tf, 3d) and unseen (tf, 3d), and the shares of losses of both
    seconds : by runtime, for a million voxels
    """

    macs: float
    weights: int
    steps: int
    scores: list[float]
    seconds: dict[str, float]

    @property
    def unseen(self) -> float:
        """Mean of both readings on unseen studies."""
        return (self.scores[2] + self.scores[3]) / 2


def main() -> int:
    """Train and measure what is not there yet, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/models"), help="folder that models.py filled")
    parser.add_argument("--output", type=Path, default=Path("runs/cost_of_quality"), help="of the trainings")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=6.0, help="of each training")
    parser.add_argument("--seed", type=int, default=1, help="of the trainings")
    parser.add_argument("--seen", type=int, default=2, help="test images of each of the seven sets")
    parser.add_argument("--unseen", type=int, default=12, help="test images of drawn studies by channel")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--one_of", type=int, default=3, help="train on every so many-th volume of the lists")
    parser.add_argument("--patch_size", default="32,64,64", help="patch (Z,Y,X), voxels")
    parser.add_argument("--figure", type=Path, help="picture of the table")
    arguments = parser.parse_args()
    write_lists(arguments)
    z, y, x = map(int, arguments.shape.split(","))
    views = [View(case) for case in cases(arguments.seen, arguments.unseen, (z, y, x))]
    found = {name: measured(name, views, arguments) for name in arguments.networks}
    print_table(found)
    if arguments.figure is not None:
        draw(found, arguments.figure, f"{arguments.minutes:g} minutes of training each, simulated images")
    return 0


def measured(name: str, views: list[View], arguments: argparse.Namespace) -> Measured:
    """Train a network and measure it; what was measured is kept beside the training."""
    target: Path = arguments.output / "".join(letter if letter.isalnum() else "_" for letter in name)
    kept = target.with_suffix(".json")
    setting = {one: str(value) for one, value in vars(arguments).items() if one not in ("networks", "figure")}
    if kept.is_file():
        known = json.loads(kept.read_text())
        if known["setting"] != setting:
            raise SystemExit(f"{kept}: expected {setting}, got {known['setting']}; give another --output")
        return Measured(**known["found"])
    if not (target / SETTINGS).is_file():
        lists = lists_of(arguments.output)
        files = ["--data_root", arguments.data, "--train_list", lists[0], "--val_list", lists[1]]
        budget = ["--patch_size", arguments.patch_size, "--max_minutes", arguments.minutes]
        more = [*LOSS, *PATCHES, *NETWORKS[name], "--seed", arguments.seed, "--output_path", target]
        train_anyhow("--image_groups", GROUPS, *files, *budget, *more)
    folder = open_model(target)
    facts = load_model(folder, "cpu", "fp32", "torch").facts
    runtimes = ("torch", "openvino") if has_openvino() else ("torch",)
    found = Measured(
        facts.whole.macs,
        sum(int(np.prod(values.shape)) for values in load_state(folder).values()),
        int(str(folder.settings.training["steps"])),
        scores(target, views, None),
        {runtime: seconds(target, runtime, views[0]) for runtime in runtimes},
    )
    kept.write_text(json.dumps({"setting": setting, "found": asdict(found)}) + "\n")
    return found


def seconds(folder: Path, runtime: str, view: View) -> float:
    """Shortest time of a pass, for a million voxels."""
    model = load_model(open_model(folder), "cpu", "fp32", runtime)  # type: ignore[arg-type]
    channels: Floats = view.channels(prepare_inputs(view.volume, model.settings.inputs))
    times = []
    for _ in range(1 + _REPETITIONS):  # the first one compiles
        started = time.perf_counter()
        predict_block(model.facts, model.runtime, channels)
        times.append(time.perf_counter() - started)
    return min(times) * 1e6 / channels[0].size


def print_table(found: dict[str, Measured]) -> None:
    """Print a line for each network."""
    runtimes = list(next(iter(found.values())).seconds)
    head = ["network", "multiply-adds", "weights", "steps", "seen tf / 3d", "unseen tf / 3d", "unseen losses"]
    head += [f"{runtime}, s/Mvoxel" for runtime in runtimes]
    rows = []
    for name, one in found.items():
        s = one.scores
        cells = [name, f"{one.macs:,.0f}", f"{one.weights:,}", f"{one.steps:,}"]
        cells += [f"{s[0]:+.3f} / {s[1]:+.3f}", f"{s[2]:+.3f} / {s[3]:+.3f}", f"{s[5]:.0%}"]
        rows.append(cells + [f"{one.seconds[runtime]:.2f}" for runtime in runtimes])
    table(head, rows)
    if BEFORE in found:
        before = found[BEFORE]
        cheap = [n for n, one in found.items() if 3 * one.macs <= before.macs and one.unseen >= before.unseen]
        say(
            f"a third of the work or less at no lower score (unseen, mean of both): {', '.join(cheap) or '-'}"
        )


def draw(found: dict[str, Measured], path: Path, title: str) -> None:
    """Draw scores over work."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    groups = {"studies that were trained on": 0, "unseen studies": 2}
    for axes, (group, first) in zip(figure.subplots(1, 2), groups.items(), strict=True):
        for name, one in found.items():
            score = (one.scores[first] + one.scores[first + 1]) / 2
            axes.plot(one.macs, score, "o", color="#0a6e78" if name.startswith("folded") else "#b5541c")
            axes.annotate(name, (one.macs, score), xytext=(6, 4), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(right=5 * max(one.macs for one in found.values()))
        axes.margins(y=0.15)
        axes.set_xlabel("multiply-adds for each voxel")
        axes.set_ylabel("N_SSIM, mean of both readings")
        axes.set_title(group, fontsize=10)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(main())
