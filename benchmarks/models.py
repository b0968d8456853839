"""Train the models in resources/models: one generalist for each channel, on simulated volumes of all studies.

``make models`` runs this. It goes on where it was stopped. The weights are kept as fp16, some 4 MB a model,
and exported for OpenVINO, 5 MB more, where it is installed; bfloat16 is judged on the validation volumes.
"""

import argparse
import sys
from pathlib import Path

from demo import CHANNELS, GROUPS, ROOT, run

sys.path.insert(0, str(ROOT / "Source"))

from lightsheet.core.model_folder import load_state, open_model, save_model
from lightsheet.fuse.openvino_runtime import has_openvino

STUDIES = {"nucleus": (1, 2, 3, 4, 5), "membrane": (1, 3)}


def main() -> int:
    """Simulate, convert, list and train for each channel; write the model folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("runs/models"), help="folder of data and trainings"
    )
    parser.add_argument("--models", type=Path, default=Path("resources/models"), help="folder of the models")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time for each channel")
    parser.add_argument("--volumes", type=int, default=30, help="simulated volumes for each channel")
    parser.add_argument("--shape", default="48,160,160", help="their size (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=100, help="of specimens, lists and training")
    arguments = parser.parse_args()
    out, seed = arguments.output, arguments.seed
    for channel in CHANNELS:
        work, studies = out / channel, STUDIES[channel]
        for study in studies:
            kind = ["--study", study, "--channel", channel, "--shape", arguments.shape]
            number = [
                "--count",
                arguments.volumes // len(studies),
                "--first_id",
                1000 * study,
                "--seed",
                seed,
            ]
            run("simulate_dataset.py", work / "tiff" / f"study{study}", *kind, *number)
        run("convert_images.py", work / "tiff", work / "h5", "--workers", 2)
        shares = ["--val_share", 0.15, "--test_share", 0, "--seed", seed]
        run("create_splits.py", work / "h5", "--output_path", work / "splits", *shares)
        lists = [joined(work / "splits", channel, part) for part in ("train", "val")]
        trained = work / f"Generalist_{channel.title()}"
        files = ["--data_root", work / "h5", "--train_list", lists[0], "--val_list", lists[1]]
        budget = ["--patch_size", "32,64,64", "--max_minutes", arguments.minutes, "--seed", seed]
        run("train_script.py", "--image_groups", GROUPS, *files, "--output_path", trained, *budget)
        shipped = arguments.models / trained.name
        ship(trained, shipped)
        if has_openvino():
            run("export_models.py", shipped, "--val_list", lists[1], "--data_root", work / "h5")
        else:
            sys.stdout.write(f"{shipped}: not exported for CPUs, OpenVINO is not installed\n")
    return 0


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
