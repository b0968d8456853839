"""How often the demo works: ``demo.py`` with several seeds, each in a folder of its own.

Prints for each row of its table in how many runs the prediction was above the Gaussian of the view, and the
median and range of its score. Exit code 1 if a run ended otherwise. A seed that is done is not done again.
All images are simulated.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path

from recipes.commands import CHANNELS
from recipes.demo import missed_rows

SCORES = ("n_ssim_tf_mean", "n_ssim_3d_mean")


def main() -> int:
    """Run the demo for all seeds; 1 if one did not end well."""
    arguments = parse()
    failed = []
    for seed in range(arguments.first, arguments.last + 1):
        folder = arguments.output / f"seed_{seed}"
        summary = folder / "report" / "summary.csv"
        if not summary.exists():
            size = ["--count", str(arguments.count), "--shape", arguments.shape]
            flags = ["--output", str(folder), "--minutes", str(arguments.minutes), "--seed", str(seed), *size]
            done = subprocess.run([sys.executable, "-m", "recipes.demo", *flags], check=False)
            if done.returncode != 0:
                failed.append(seed)
        elif missed_rows(summary):
            failed.append(seed)
        sys.stdout.write("\n".join(table(arguments.output)) + "\n")
        sys.stdout.flush()
    if failed:
        sys.stdout.write(f"seeds that failed: {failed}\n")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo_seeds"), help="folder of the demos")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--last", type=int, default=20, help="last seed")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time for each channel")
    parser.add_argument("--count", type=int, default=14, help="simulated images for each channel")
    parser.add_argument("--shape", default="48,160,160", help="size of the images (Z,Y,X), voxels")
    return parser.parse_args()


def table(output: Path) -> list[str]:
    """One line for each channel and reading, over all seeds that are done."""
    lines = [f"{'row':<16}{'runs':>6}{'above the Gaussian':>20}  N_SSIM: median (range)"]
    for channel in CHANNELS:
        for name in SCORES:
            found = [scores(path, channel, name) for path in output.glob("seed_*/report/summary.csv")]
            if not found:
                continue
            above = sum(got > max(0.0, gaussian) for got, gaussian in found)
            ours = [got for got, _ in found]
            told = f"{statistics.median(ours):+.3f} ({min(ours):+.3f} to {max(ours):+.3f})"
            reading = name.removeprefix("n_ssim_").removesuffix("_mean")
            lines.append(f"{f'{channel} {reading}':<16}{len(found):>6}{above:>20}  {told}")
    return lines


def scores(summary: Path, channel: str, name: str) -> tuple[float, float]:
    """Mean scores of the prediction and of the Gaussian."""
    with summary.open(newline="") as stream:
        rows = [
            row for row in csv.DictReader(stream) if row["scope"] == "channel" and row["group"] == channel
        ]
    found = {row["method"]: float(row[name]) for row in rows}
    return found.get("prediction", float("nan")), found.get("gaussian", 0.0)


if __name__ == "__main__":
    raise SystemExit(main())
