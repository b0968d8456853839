"""Train the models in resources/models: one generalist for each channel, on simulated volumes of all studies.

``make models`` runs this. It goes on where it was stopped. The weights are kept as fp16, some 4 MB a model,
and exported for OpenVINO, 5 MB more, where it is installed; bfloat16 is judged on the validation volumes.
The guard is fitted on the validation volumes and on simulated studies that were not trained on (unseen.py).
"""

import argparse
import subprocess
import sys
from pathlib import Path

from demo import CHANNELS, GROUPS, ROOT, run

sys.path.insert(0, str(ROOT / "Source"))

from lightsheet.core.model_folder import load_state, open_model, save_model
from lightsheet.fuse.openvino_runtime import has_openvino

STUDIES = {"nucleus": (1, 2, 3, 4, 5), "membrane": (1, 3)}
AUGMENTATIONS = ROOT / "resources" / "settings" / "other_optics.json"
LOSS = ("--use_fmc_loss", "--ssim_weight", 1, "--ssim_tf_weight", 1)
FIRST_UNSEEN = 50_000


def main() -> int:
    """Train a model for each channel and write its folder, with its export and its guard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/models"), help="folder of data and trainings"
    )
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the models")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time for each channel")
    parser.add_argument("--volumes", type=int, default=30, help="simulated volumes for each channel")
    parser.add_argument("--shape", default="48,160,160", help="their size (Z,Y,X), voxels")
    parser.add_argument("--unseen", type=int, default=60, help="specimens of unseen studies for each guard")
    parser.add_argument("--samples", type=int, default=150, help="views for each guard")
    parser.add_argument("--seed", type=int, default=100, help="of specimens, lists and training")
    arguments = parser.parse_args()
    for channel in CHANNELS:
        work = arguments.output / channel
        lists = simulated(work, channel, arguments)
        trained = work / f"Generalist_{channel.title()}"
        files = ["--data_root", work / "h5", "--train_list", lists["train"], "--val_list", lists["val"]]
        budget = ["--patch_size", "32,64,64", "--max_minutes", arguments.minutes, "--seed", arguments.seed]
        recipe = ["--augmentations", AUGMENTATIONS, *LOSS]
        run("train_script.py", "--image_groups", GROUPS, *files, "--output_path", trained, *budget, *recipe)
        shipped = arguments.models / trained.name
        ship(trained, shipped)
        if has_openvino():
            run("export_models.py", shipped, "--val_list", lists["val"], "--data_root", work / "h5")
        else:
            sys.stdout.write(f"{shipped}: not exported for CPUs, OpenVINO is not installed\n")
        unseen = unseen_list(work, channel, lists["val"], arguments)
        samples = ["--samples", arguments.samples, "--seed", arguments.seed]
        run("calibrate_guard.py", shipped, "--val_list", unseen, "--data_root", work, *samples)
    return 0


def simulated(work: Path, channel: str, arguments: argparse.Namespace) -> dict[str, Path]:
    """Simulate and convert volumes of all studies; the lists for training and validation."""
    studies = STUDIES[channel]
    for study in studies:
        kind = ["--study", study, "--channel", channel, "--shape", arguments.shape]
        number = ["--count", arguments.volumes // len(studies), "--first_id", 1000 * study]
        where = work / "tiff" / f"study{study}"
        run("simulate_dataset.py", where, *kind, *number, "--seed", arguments.seed)
    run("convert_images.py", work / "tiff", work / "h5", "--workers", 2)
    shares = ["--val_share", 0.15, "--test_share", 0, "--seed", arguments.seed]
    run("create_splits.py", work / "h5", "--output_path", work / "splits", *shares)
    return {part: joined(work / "splits", channel, part) for part in ("train", "val")}


def unseen_list(work: Path, channel: str, val_list: Path, arguments: argparse.Namespace) -> Path:
    """Simulate what the guard is fitted on; the list of it and the validation volumes.

    Two of three specimens are of studies that the model has not seen, the others of those it has.
    """
    new, studies = work / "unseen", STUDIES[channel]
    for study in studies:
        kind = ["--study", study, "--channel", channel, "--shape", "40,128,128"]
        number = ["--count", arguments.unseen // 2 // len(studies), "--first_id", 1000 * study]
        seed = ["--seed", FIRST_UNSEEN + arguments.seed]
        run("simulate_dataset.py", new / "tiff" / f"study{study}", *kind, *number, *seed)
    count = ["--count", str(arguments.unseen), "--seed", str(FIRST_UNSEEN + arguments.seed)]
    script = [sys.executable, str(ROOT / "benchmarks" / "unseen.py"), str(new / "tiff"), "--channel", channel]
    subprocess.run([*script, *count], check=True)
    run("convert_images.py", new / "tiff", new / "h5", "--workers", 2)
    views = sorted(str(path.relative_to(work)) for path in (new / "h5").rglob("*_angle.h5"))
    pairs = [(name, name.replace("_angle.h5", "_fused.h5")) for name in views]
    for line in val_list.read_text().split():
        view, fused = line.split(";")
        pairs.append((f"h5/{view}", f"h5/{fused}"))
    target = work / "guard.csv"
    target.write_text("".join(f"{view};{fused}\n" for view, fused in pairs))
    return target


def joined(folder: Path, channel: str, part: str) -> Path:
    """One list of all studies."""
    target = folder / f"all_{channel}_{part}.csv"
    target.write_text("".join(p.read_text() for p in sorted(folder.glob(f"Study*_{channel}_{part}.csv"))))
    return target


def ship(trained: Path, target: Path) -> None:
    """Write the model again with weights of half precision."""
    model = open_model(trained)
    card = (trained / "README.md").read_text(encoding="utf-8")
    save_model(target, model.settings, load_state(model), model.fingerprint, model.scores, card, half=True)
    sys.stdout.write(f"{target}: written\n")


if __name__ == "__main__":
    raise SystemExit(main())
