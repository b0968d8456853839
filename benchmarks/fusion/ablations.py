"""What each part of the recipe is worth: the same training with one thing changed, on the same volumes.

Reads the volumes that models.py made (nuclei and membranes of all studies, and of drawn ones; a third of
them), trains every variant for the same number of steps from each of some seeds, and scores it without its
guard on test images of fusion_quality.py: seen and unseen, mean N_SSIM of both readings, and losses by the
worse one. The spread is that of the mean over the seeds; the minutes are those of a training. The variant
with a global pass (global_pass.py) shares the steps between its two networks. What is measured already is
kept, so the command can be stopped. All images are simulated.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the trainings share the cores

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import say
from benchmarks.fusion.cases import SETS, Case, seen_case, unseen_case
from benchmarks.fusion.global_pass import (
    as_channel,
    first_pass,
    train_global,
    with_global_pass,
    write_averages,
)
from benchmarks.fusion.methods import View
from lightsheet.core.axes import ZYX
from lightsheet.core.files import written_beside
from lightsheet.evaluate.metrics import LOSS_BELOW, nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.inference.for_volume import for_volume
from lightsheet.models.folder import SETTINGS, open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from recipes.commands import CHANNELS, GROUPS, train_anyhow
from recipes.models import BASE_PATCHES, GENERALIST, LOSS, OTHER_OPTICS, PATCHES, flags_of

RECIPE: dict[str, tuple[object, ...]] = {
    "image_groups": (GROUPS,),
    "augmentations": (None,),
    "patches": PATCHES[:2],
    "loss": LOSS,
}
GLOBAL_SHARE = 0.75
GLOBAL = "global pass for light path"
GLOBAL_FOLDER = "global"
PARTS = ("train", "val")
# Each variant replaces a part of the recipe, or adds flags.
VARIANTS: dict[str, dict[str, tuple[object, ...]]] = {
    "recipe": {},
    "image alone": {"image_groups": ("data/raw_image",)},
    "no light path": {"image_groups": ("data/raw_image,data/surface_distance",)},
    "no surface distance": {"image_groups": ("data/raw_image,data/light_map",)},
    "views altered": {"augmentations": (OTHER_OPTICS,)},
    "patches on the specimen": {"patches": BASE_PATCHES[:2]},
    "1 - SSIM, not 1 - N_SSIM": {"loss": ()},
    "no residual": {"more": ("--no_residual",)},
    "instance norm": {"more": ("--layer_norm", "instance")},
    "no average of weights": {"more": ("--ema", 0)},
    "constant learning rate": {"more": ("--schedule", "constant")},
    GLOBAL: {},
    "with physics": {"more": ("--use_physics",)},
    "with physics, weight x 5": {"more": ("--use_physics", "--physics_weight", 0.1)},
}


def main() -> int:
    """Train and score what is not there yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/models"), help="folder that models.py filled")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="folder of trainings")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of trainings")
    parser.add_argument("--seen", type=int, default=2, help="test images of each of the seven sets")
    parser.add_argument("--unseen", type=int, default=8, help="test images of drawn studies by channel")
    parser.add_argument("--shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--one_of", type=int, default=3, help="train on every so many-th volume of the lists")
    parser.add_argument("--patch_size", default="32,64,64", help="patch (Z,Y,X), voxels")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, each with one thread")
    parser.add_argument("--options", nargs="+", default=[], help="flags for train_script.py, no dashes")
    arguments = parser.parse_args()
    write_lists(arguments)
    if GLOBAL in arguments.variants:
        write_averages(arguments.data, arguments.output / GLOBAL_FOLDER)
    # all of one seed before the next: what is there when it is stopped can be compared
    jobs = [(variant, seed, arguments) for seed in arguments.seeds for variant in arguments.variants]
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = dict(zip(((v, s) for v, s, _ in jobs), pool.map(measured, jobs), strict=True))
    titles = "".join(f"{title:>18}" for title in ("seen tf", "seen 3d", "unseen tf", "unseen 3d"))
    say(f"{'variant':<28}{titles}{'seen losses':>13}{'unseen':>8}{'minutes':>9}")
    for variant in arguments.variants:
        mine = np.array([found[variant, seed] for seed in arguments.seeds])
        means, spread = mine.mean(axis=0), mine.std(axis=0)
        cells = "".join(f"{m:>+11.3f} ± {s:.3f}" for m, s in zip(means[:4], spread[:4], strict=True))
        say(f"{variant:<28}{cells}{means[4]:>13.1%}{means[5]:>8.1%}{means[6]:>9.1f}")
    return 0


def measured(job: tuple[str, int, argparse.Namespace]) -> list[float]:
    """Train a variant from a seed and score it; what was measured is kept beside the training."""
    variant, seed, arguments = job
    name = "".join(letter if letter.isalnum() else "_" for letter in variant)
    target: Path = arguments.output / f"{name}_{seed}"
    kept = target.with_suffix(".json")
    z, y, x = map(int, arguments.shape.split(","))
    names = ("steps", "one_of", "patch_size", "options", "seen", "unseen", "shape")
    setting = {one: getattr(arguments, one) for one in names}
    if kept.is_file():
        known = json.loads(kept.read_text())
        if known["setting"] != setting:
            raise SystemExit(f"{kept}: expected {setting}, got {known['setting']}; give another --output")
        measured_before: list[float] = known["found"]
        return measured_before
    first = first_network(seed, arguments) if variant == GLOBAL else None
    trained = train(variant, seed, target, arguments, first)
    views = [View(case) for case in cases(arguments.seen, arguments.unseen, (z, y, x))]
    minutes = open_model(trained).settings.training["minutes"]
    found = [*scores(trained, views, first), float(str(minutes))]
    kept.write_text(json.dumps({"setting": setting, "found": found}) + "\n")
    return found


def train(
    variant: str, seed: int, target: Path, arguments: argparse.Namespace, first: LoadedModel | None
) -> Path:
    """Train a variant from a seed, unless that is done."""
    if (target / SETTINGS).is_file():
        return target
    parts = {**RECIPE, **VARIANTS[variant]}
    flags: list[object] = ["--image_groups", *parts["image_groups"], *parts["loss"], *parts["patches"]]
    if parts["augmentations"][0] is not None:
        flags += ["--augmentations", *parts["augmentations"]]
    data, lists, steps = arguments.data, lists_of(arguments.output), arguments.steps
    if first is not None:
        made = arguments.output / GLOBAL_FOLDER / f"volumes_{seed}"
        data = with_global_pass(data, lists, first, made)
        steps = round(GLOBAL_SHARE * steps)
    files = ["--data_root", data, "--train_list", lists[0], "--val_list", lists[1]]
    # judged once, at the end: validation would take more time than training
    budget = ["--patch_size", arguments.patch_size, "--epochs", 1, "--samples_per_epoch", steps]
    more = [*parts.get("more", ()), *flags_of(arguments.options)]
    train_anyhow(*flags, *files, *budget, *more, "--seed", seed, "--output_path", target)
    return target


def write_lists(arguments: argparse.Namespace) -> None:
    """Take a part of all volumes: so few steps see no more, and the weights are judged sooner."""
    for part, target in zip(PARTS, lists_of(arguments.output), strict=True):
        lines = (arguments.data / "lists" / f"{GENERALIST}_{part}.csv").read_text().splitlines(keepends=True)
        lines = [line for line in lines if not line.startswith("stacks/")]  # parts of real stacks
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(target) as partial:
            partial.write_text("".join(lines[:: arguments.one_of]))


def lists_of(output: Path) -> list[Path]:
    """Training and validation volumes."""
    return [output / "lists" / f"{part}.csv" for part in PARTS]


def first_network(seed: int, arguments: argparse.Namespace) -> LoadedModel:
    """Train the network of the global pass, or take it from an earlier run."""
    folder = arguments.output / GLOBAL_FOLDER
    budget = ["--epochs", 1, "--samples_per_epoch", round((1 - GLOBAL_SHARE) * arguments.steps)]
    flags = [*budget, "--seed", seed, *flags_of(arguments.options)]
    return train_global(lists_of(arguments.output), folder, f"network_{seed}", flags)


def cases(seen: int, unseen: int, shape: ZYX) -> list[Case]:
    """Test images of both groups."""
    known = [seen_case(channel, study, number, shape) for number in range(seen) for channel, study in SETS]
    return known + [unseen_case(channel, number, shape) for number in range(unseen) for channel in CHANNELS]


def scores(folder: Path, views: list[View], first: LoadedModel | None) -> list[float]:
    """Mean N_SSIM seen (tf, 3d) and unseen (tf, 3d), and the shares of losses of both."""
    model = load_model(open_model(folder), "cpu")
    found: dict[str, list[list[float]]] = {"seen": [], "unseen": []}
    for view in views:
        inputs = prepare_inputs(view.volume, model.settings.inputs)
        fitted = for_volume(model, view.volume, inputs)
        channels = view.channels(inputs)
        if first is not None:
            channels[-1] = as_channel(first_pass(view.case.view, view.info, first))
        prediction = predict_block(fitted.facts, fitted.runtime, channels)[0]
        fused = view.normalization.apply(view.case.fused)
        found[view.case.group].append([nssim(prediction, view.values, fused, r) for r in READINGS])
    tables: dict[str, NDArray[np.float64]] = {group: np.array(some) for group, some in found.items()}
    means = [float(value) for group in ("seen", "unseen") for value in np.nanmean(tables[group], axis=0)]
    losses = [float(np.mean(tables[group].min(axis=1) < LOSS_BELOW)) for group in ("seen", "unseen")]
    return means + losses


if __name__ == "__main__":
    raise SystemExit(main())
