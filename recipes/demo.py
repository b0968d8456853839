"""The whole job on simulated data: simulate, convert, split, train, fuse, score, report, picture.

``make demo`` runs this. Every step is one of the project's commands and is printed before it runs, so that
the same lines can be typed for other data. A step that has finished is not done again.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

from recipes import picture
from recipes.commands import CHANNELS, GROUPS, run


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
    picture.draw(demo / "report", demo / "fused", demo / "tiff", demo / "demo.png")
    minutes = (time.monotonic() - started) / 60
    missed = missed_rows(demo / "report" / "summary.csv")
    for line in missed:
        sys.stderr.write(f"demo: {line}\n")
    ended = "FAILED" if missed else "done"
    sys.stdout.write(f"demo: {ended} in {minutes:.1f} minutes; open {demo / 'report' / 'report.html'}\n")
    return 1 if missed else 0


def missed_rows(summary: Path) -> list[str]:
    """Rows of a report in which the prediction is not better than the view and the Gaussian of it."""
    with summary.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scope"] == "channel"]
    missed = []
    for channel in CHANNELS:
        means = {row["method"]: row for row in rows if row["group"] == channel}
        for name in ("n_ssim_tf_mean", "n_ssim_3d_mean"):
            got, gaussian = (float(means.get(m, {}).get(name, "nan")) for m in ("prediction", "gaussian"))
            bar = max(0.0, gaussian) if gaussian == gaussian else 0.0
            if not got > bar:
                missed.append(f"{channel}, {name}: expected more than {bar:+.3f}, got {got:+.3f}")
    return missed


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


if __name__ == "__main__":
    raise SystemExit(main())
