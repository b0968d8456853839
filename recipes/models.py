"""Train the models in resources/models: a generalist, and from it one for each kind.

``make models`` runs this. It goes on where it was stopped. A base sees nuclei and membranes of all studies of
the challenge and of drawn ones (simulate_dataset.py --study any), mostly patches with specimen in them, with
views altered in many ways. The generalist goes on from it with patches from anywhere and views as they are:
the 3d reading of the SSIM asks for the level of the background to a thousandth of the brightness. Both also
see parts of real stacks (--stacks), as microscopes drawn anew would show and fuse them. A quarter
of the views is moved towards the fused volume, since views that lack little are most easily spoilt. The
others start from the generalist and go on with one study and channel. Weights are kept as fp16, 4 MB a model,
and exported for OpenVINO, 5 MB more, where it is installed; bfloat16 is judged on the validation volumes. The
guards are fitted on validation volumes, new specimens of the studies, and simulated studies from ranges that
were not trained on (unseen.py). With --start the generalist goes on from a model that is there, and the base
is left out.

--data FOLDER trains on converted pairs instead, from the shipped generalist on: those models of which there
are pairs. Their guards are fitted on the validation volumes, as they are and altered.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from lightsheet.cli.simulate import main as simulate_main
from lightsheet.core.names import fused_beside
from lightsheet.fuse.guard.guard import GUARD
from lightsheet.models.folder import SETTINGS, load_state, open_model, save_model
from lightsheet.runtimes.openvino_runtime import has_openvino
from lightsheet.simulate.presets import PRESETS
from lightsheet.simulate.variety import DRAWN_STUDY
from recipes import ROOT
from recipes.commands import CHANNELS, GROUPS, run, train_anyhow
from recipes.stacks import STACKS, TESTED, as_tiff, stacks_in

BASE = "Base"
GENERALIST = "Generalist"
SETS = {
    f"Study{study}_{channel.title()}": (study, channel)
    for channel in CHANNELS
    for study, preset in PRESETS.items()
    if channel in preset.channels
}
MODELS = (GENERALIST, *SETS)
SHIPPED = ROOT / "resources" / "models"
OTHER_OPTICS, CLEARER = (
    ROOT / "resources" / "settings" / name for name in ("other_optics.json", "clearer.json")
)
LOSS = ("--use_fmc_loss", "--ssim_weight", 1, "--ssim_tf_weight", 1)
FIRST_UNSEEN = 50_000
NETWORK = ("--fold", 2, "--feat_channels", 24, "--light_share", 0.7)
# Of half of the views it is known from where the light came, as users may tell it (--light).
TOLD = ("--light_told", 0.5)
# Of the parts of a real stack, one of so many is for validation.
VALIDATED = 8
# Share of patches around a voxel of the specimen, and samples between validations: of the base, and after it.
BASE_PATCHES = ("--foreground_share", 0.75, "--samples_per_epoch", 400)
PATCHES = ("--foreground_share", 0.25, "--samples_per_epoch", 600)
GENERALIST_RATE, SPECIALIST_RATE = 2e-4, 3e-4
# The generalist's guard is fitted to so many times the views of another's: it gets all that no other fits.
GENERALIST_SAMPLES = 4


def main() -> int:
    """Simulate, train, and write the model folders with their exports and guards."""
    arguments = parse()
    if arguments.data is None:
        simulate(arguments)
        held_out = unseen_lists(arguments)
        if arguments.start is None:
            train(BASE, arguments)
    else:
        take(arguments)
        held_out = {name: arguments.output / "lists" / f"{name}_val.csv" for name in MODELS}
    wanted = [name for name in MODELS if name in arguments.only and held_out[name].stat().st_size]
    trained = [train(name, arguments) for name in wanted]
    for name, folder in zip(wanted, trained, strict=True):
        ship(folder, arguments.models / name)
        export(name, arguments)
    for name in wanted:
        if not (arguments.models / name / GUARD).is_file():
            times = GENERALIST_SAMPLES if name == GENERALIST else 1
            samples = ["--samples", times * arguments.samples, "--seed", arguments.seed]
            lists = ["--val_list", held_out[name], "--data_root", arguments.output]
            run("calibrate_guard.py", arguments.models / name, *lists, *samples)
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/models"), help="folder of data and trainings"
    )
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the models")
    parser.add_argument("--data", type=Path, help="converted pairs to train on, in place of simulated ones")
    parser.add_argument(
        "--start", type=Path, help="model folder of the same network that the generalist goes on from"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of the base")
    parser.add_argument("--generalist_minutes", type=float, default=40.0, help="of the generalist, from it")
    parser.add_argument("--set_minutes", type=float, default=2.0, help="of each of the others, from that")
    parser.add_argument("--volumes", type=int, default=12, help="simulated volumes of each study and channel")
    parser.add_argument("--drawn", type=int, default=40, help="volumes of drawn studies for each channel")
    parser.add_argument("--stacks", type=Path, help="folder of real stacks to train on parts of, too")
    parser.add_argument(
        "--tested", nargs="*", default=TESTED, help="stacks that are left out, for tests (default: some)"
    )
    parser.add_argument("--parts", type=int, default=16, help="parts of each real stack")
    parser.add_argument("--shape", default="48,160,160", help="size of volumes (Z,Y,X), voxels")
    parser.add_argument("--patch_size", default="32,64,64", help="training patch (Z,Y,X), voxels")
    parser.add_argument("--unseen", type=int, default=80, help="specimens of unseen studies for the guards")
    parser.add_argument("--unseen_shape", default="40,128,128", help="their size (Z,Y,X), voxels")
    parser.add_argument("--samples", type=int, default=120, help="views for a guard; generalist: 4 times")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate and convert")
    parser.add_argument("--seed", type=int, default=100, help="of specimens, lists and training")
    parser.add_argument("--only", nargs="+", default=MODELS, help="which models")
    parser.add_argument("--options", nargs="+", default=[], help="flags for train_script.py, no dashes")
    return parser.parse_args()


def simulate(arguments: argparse.Namespace) -> None:
    """Simulate and convert the volumes."""
    work, seed = arguments.output, ["--seed", arguments.seed]
    common = ["--shape", arguments.shape, "--workers", arguments.workers, *seed, *TOLD]
    kinds = [(str(study), study, channel, arguments.volumes) for study, channel in SETS.values()]
    kinds += [("any", DRAWN_STUDY, channel, arguments.drawn) for channel in CHANNELS]
    for number, (study, label, channel, count) in enumerate(kinds):
        where = work / "tiff" / f"study{label}_{channel}"
        kind = ["--study", study, "--channel", channel, "--count", count, "--first_id", 1000 * number]
        simulate_dataset(where, *kind, *common)
    run("convert_images.py", work / "tiff", work / "h5", "--workers", arguments.workers)
    if arguments.stacks is not None:
        see_stacks(arguments, work / "stacks", arguments.parts, arguments.shape)
    divide(arguments)


def see_stacks(arguments: argparse.Namespace, where: Path, count: int, shape: str, seed: int = 0) -> None:
    """Write and convert parts of the real stacks, as drawn microscopes show and fuse them."""
    if not arguments.stacks.is_dir():
        raise SystemExit(f"--stacks: expected a folder of real stacks, got {arguments.stacks}")
    for number, name in enumerate(stacks_in(arguments.stacks, arguments.tested)):
        channel, spacing = STACKS[name]
        source = as_tiff(arguments.stacks / name, where / "whole")
        known = ["--channel", channel, "--spacing_um", ",".join(map(str, spacing)), "--shape", shape]
        drawn = ["--study", "any", "--count", count, "--seed", arguments.seed + seed]
        first = ["--first_id", 1000 * number, "--workers", arguments.workers, *TOLD]
        simulate_dataset(where / "tiff" / channel, "--from_volume", source, *known, *drawn, *first)
    run("convert_images.py", where / "tiff", where / "h5", "--workers", arguments.workers)


def simulate_dataset(*arguments: object) -> None:
    """Run simulate_dataset.py in this process: there are many of it, and each start takes seconds."""
    words = [str(argument) for argument in arguments]
    sys.stdout.write(f"\n$ python Source/simulate_dataset.py {shlex.join(words)}\n")
    sys.stdout.flush()
    code = simulate_main(words)
    if code:
        raise SystemExit(code)


def take(arguments: argparse.Namespace) -> None:
    """Take a folder of converted pairs in the place of simulated ones."""
    if not arguments.data.is_dir():
        raise SystemExit(f"--data: expected a folder that convert_images.py wrote, got {arguments.data}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    place = arguments.output / "h5"
    if not place.exists():
        place.symlink_to(arguments.data.resolve(), target_is_directory=True)
    if place.resolve() != arguments.data.resolve():
        raise SystemExit(f"--output {arguments.output}: expected a folder for these data, got one of others")
    divide(arguments)


def divide(arguments: argparse.Namespace) -> None:
    """Write what each model is trained and judged on: lists/NAME_train.csv and NAME_val.csv."""
    work = arguments.output
    shares = ["--val_share", 0.15, "--test_share", 0, "--seed", arguments.seed]
    run("create_splits.py", work / "h5", "--output_path", work / "splits", *shares)
    for name in MODELS:
        for part in ("train", "val"):
            study, channel = SETS.get(name, ("*", "*"))
            pattern = f"Study{study}_{channel}_{part}.csv"
            target = work / "lists" / f"{name}_{part}.csv"
            join(sorted((work / "splits").glob(pattern)), target)
            if name == GENERALIST:
                with target.open("a") as file:
                    file.writelines(parts_of_stacks(work, validated=part == "val"))


def parts_of_stacks(work: Path, *, validated: bool) -> list[str]:
    """Lines of a list for the parts of real stacks; some of each stack are for validation."""
    views = sorted((work / "stacks" / "h5").rglob("*_angle.h5"))
    chosen = [view for number, view in enumerate(views) if (number % VALIDATED == 0) == validated]
    return [f"{view.relative_to(work)};{fused_beside(view.relative_to(work))}\n" for view in chosen]


def join(lists: list[Path], target: Path) -> None:
    """Write several lists as one, with paths relative to the folder above h5."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for one in lists for line in one.read_text().split()]
    target.write_text("".join(";".join(f"h5/{path}" for path in line.split(";")) + "\n" for line in lines))


def train(name: str, arguments: argparse.Namespace) -> Path:
    """Train a model: the base from nothing, the generalist from the base, the others from the generalist."""
    work = arguments.output
    target = work / "trained" / name
    listed = GENERALIST if name == BASE else name
    lists = [work / "lists" / f"{listed}_{part}.csv" for part in ("train", "val")]
    files = ["--data_root", work, "--train_list", lists[0], "--val_list", lists[1]]
    minutes = {BASE: arguments.minutes, GENERALIST: arguments.generalist_minutes}.get(
        name, arguments.set_minutes
    )
    budget = ["--patch_size", arguments.patch_size, "--max_minutes", minutes, "--seed", arguments.seed]
    recipe = [*LOSS, *network_of(arguments)]
    if name == BASE:
        recipe += [*BASE_PATCHES, "--augmentations", OTHER_OPTICS]
    else:
        start = base_of(arguments) if name == GENERALIST else work / "trained" / GENERALIST
        rate = GENERALIST_RATE if name == GENERALIST else SPECIALIST_RATE
        recipe += [*PATCHES, "--pretrained", start, "--learning_rate", rate]
        recipe += ["--augmentations", CLEARER] if name == GENERALIST else []
    recipe += ["--no_export", *flags_of(arguments.options)]  # what is shipped is exported, see below
    if not (target / SETTINGS).is_file():
        train_anyhow("--image_groups", GROUPS, *files, "--output_path", target, *budget, *recipe)
    return target


def base_of(arguments: argparse.Namespace) -> Path:
    """Return the model that the generalist goes on from; with data of the user's own the shipped one."""
    if arguments.start is not None:
        return Path(arguments.start)
    return SHIPPED / GENERALIST if arguments.data is not None else arguments.output / "trained" / BASE


def network_of(arguments: argparse.Namespace) -> tuple[object, ...]:
    """Return the network's flags: with data of the user's own those of the shipped generalist, its start."""
    if arguments.data is None:
        return NETWORK
    shipped = open_model(SHIPPED / GENERALIST).settings
    network, share = shipped.network, shipped.inputs.light_share
    return "--fold", network.get("fold", 1), "--feat_channels", network["features"], "--light_share", share


def flags_of(options: list[str]) -> list[str]:
    """Return names and values as flags and values: dashes would make them flags of the benchmark."""
    return [word if number % 2 else f"--{word}" for number, word in enumerate(options)]


def ship(trained: Path, target: Path, more: str = "") -> None:
    """Write the model again with weights of half precision, unless it is there already.

    Parameters
    ----------
    more : text that is added to its card
    """
    model = open_model(trained)
    card = (trained / "README.md").read_text(encoding="utf-8") + more
    if target.is_dir() and (target / "README.md").read_text(encoding="utf-8").strip() == card.strip():
        sys.stdout.write(f"{target}: is there already\n")
        return
    save_model(target, model.settings, load_state(model), model.fingerprint, model.scores, card, half=True)
    sys.stdout.write(f"{target}: written\n")


def export(name: str, arguments: argparse.Namespace) -> None:
    """Write the graphs for CPUs, unless they are there or can't be made here."""
    shipped = arguments.models / name
    if not has_openvino():
        sys.stdout.write(f"{shipped}: not exported for CPUs, OpenVINO is not installed\n")
    elif not (shipped / "openvino").is_dir():
        val_list = arguments.output / "lists" / f"{name}_val.csv"
        run("export_models.py", shipped, "--val_list", val_list, "--data_root", arguments.output)


def unseen_lists(arguments: argparse.Namespace) -> dict[str, Path]:
    """Simulate what the guards are fitted on; for each model a list of it and the validation volumes.

    Two thirds of the specimens are of studies from ranges that were not trained on, the others of the known.
    """
    work, seed = arguments.output / "unseen", FIRST_UNSEEN + arguments.seed
    for channel in CHANNELS:
        studies = [study for study, chosen in SETS.values() if chosen == channel]
        for study in studies:
            kind = ["--study", study, "--channel", channel, "--shape", arguments.unseen_shape, "--seed", seed]
            number = ["--count", max(1, arguments.unseen // 2 // len(studies)), "--first_id", 1000 * study]
            where = work / "tiff" / f"study{study}_{channel}"
            simulate_dataset(where, *kind, *number, "--workers", arguments.workers, *TOLD)
        drawn = work / "tiff" / f"drawn_{channel}"
        script = [sys.executable, "-m", "recipes.unseen", str(drawn)]
        count = ["--channel", channel, "--count", str(arguments.unseen), "--seed", str(seed)]
        count += ["--workers", str(arguments.workers)]
        subprocess.run([*script, *count, "--shape", arguments.unseen_shape], check=True)
    run("convert_images.py", work / "tiff", work / "h5", "--workers", arguments.workers)
    if arguments.stacks is not None:
        number = max(1, arguments.unseen // 4)
        see_stacks(arguments, work / "stacks", number, arguments.unseen_shape, FIRST_UNSEEN)
    return {name: guard_list(name, arguments) for name in MODELS}


def guard_list(name: str, arguments: argparse.Namespace) -> Path:
    """List what the guard of one model is fitted on."""
    work = arguments.output
    study, channel = SETS.get(name, ("*", "*"))
    made = work / "unseen" / "h5"
    folders = sorted({*made.glob(f"study{study}_{channel}"), *made.glob(f"drawn_{channel}")})
    folders += sorted((work / "unseen" / "stacks" / "h5").glob(channel))
    views = [path.relative_to(work) for folder in folders for path in sorted(folder.glob("*_angle.h5"))]
    lines = [f"{view};{fused_beside(view)}\n" for view in views]
    target = work / "lists" / f"{name}_guard.csv"
    target.write_text("".join(lines) + (work / "lists" / f"{name}_val.csv").read_text())
    return target


if __name__ == "__main__":
    raise SystemExit(main())
