"""The whole job on simulated data: simulate, convert, split, train, fuse, score, report, picture.

``make demo`` runs this. Every step is one of the project's commands and is printed before it runs, so that
the same lines can be typed for other data. A step that has finished is not done again.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANNELS = ("nucleus", "membrane")
GROUPS = "data/raw_image,data/surface_distance,data/light_map"


def main() -> int:
    """Run all steps; returns the exit code of the first that fails, else 0."""
    arguments = parse()
    demo, seed, started = arguments.output, arguments.seed, time.monotonic()
    data = ["--count", arguments.count, "--shape", arguments.shape, "--seed", seed]
    run("simulate_dataset.py", demo / "tiff", "--study", arguments.study, "--channel", "both", *data)
    run("convert_images.py", demo / "tiff", demo / "h5", "--workers", 2)
    run(
        "create_splits.py", demo / "h5", "--output_path", demo / "splits", "--val_share", 0.15, "--seed", seed
    )
    for channel in CHANNELS:
        lists = demo / "splits" / f"Study{arguments.study}_{channel}"
        model = demo / "models" / f"Study{arguments.study}_{channel.title()}"
        files = [
            "--data_root",
            demo / "h5",
            "--train_list",
            f"{lists}_train.csv",
            "--val_list",
            f"{lists}_val.csv",
        ]
        budget = ["--patch_size", "32,64,64", "--max_minutes", arguments.minutes, "--seed", seed]
        run("train_script.py", "--image_groups", GROUPS, *files, "--output_path", model, *budget)
        run(
            "apply_script.py",
            f"{lists}_test.csv",
            demo / "fused",
            "--data_root",
            demo / "h5",
            "--model",
            model,
        )
    folders = ["--prediction", demo / "fused", "--fused", demo / "tiff", "--view", demo / "tiff"]
    run("evaluate_script.py", *folders, "--out", demo / "report")
    import picture

    picture.draw(demo / "report", demo / "fused", demo / "tiff", demo / "demo.png")
    minutes = (time.monotonic() - started) / 60
    sys.stdout.write(f"demo: done in {minutes:.1f} minutes; open {demo / 'report' / 'report.html'}\n")
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("demo"), help="folder of everything the demo makes"
    )
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="training time for each of the two channels"
    )
    parser.add_argument("--count", type=int, default=14, help="simulated images for each channel")
    parser.add_argument("--shape", default="48,160,160", help="size of the images (Z,Y,X), voxels")
    parser.add_argument(
        "--study", default="1", help="preset of spacing and decay (1 and 3 have both channels)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the specimens, the lists and the training")
    return parser.parse_args()


def run(script: str, *arguments: object) -> None:
    """Print a command as a user would type it and run it; end the demo if it fails."""
    words = [str(argument) for argument in arguments]
    sys.stdout.write(f"\n$ python Source/{script} {shlex.join(words)}\n")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, str(ROOT / "Source" / script), *words], check=False).returncode
    if code:
        sys.stderr.write(f"demo: {script} ended with exit code {code}\n")
        raise SystemExit(code)


if __name__ == "__main__":
    raise SystemExit(main())
