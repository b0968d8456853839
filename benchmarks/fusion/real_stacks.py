"""The README's commands on real stacks: fused is real, the view is made from it by the forward model.

No public pairs of a real view and its fused volume are at hand. So each real stack stands for the fused
volume, and simulate_dataset.py --from_volume makes views of it: attenuation, blur, loss and noise on top.
Every specimen is in one list only. The report and the table say how the views were made.

Needs the folder of real stacks (``../shared/data``, or --stacks); ends with a message where it is not there.
"""

import argparse
import sys
from pathlib import Path

from recipes.commands import GROUPS, run
from recipes.stacks import as_tiff

# voxel size (z, y, x) in micrometres where the file itself does not say it
NUCLEI = {
    "nuclei3d/lateral_root_nuclei_lightsheet.tif": None,
    "nuclei3d/mouse_8cell.tif": None,
    "nuclei3d/neubias_nuclei_anisotropic.tif": "4.0,0.829,0.829",
    "nuclei3d/ovule_nuclei_1135.h5": "0.284,0.127,0.127",
}
STUDY = 0  # none of the challenge's


def main() -> int:
    """Make the views, convert, split, train, fuse, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--stacks", type=Path, default=Path("../shared/data"), help="folder of the real stacks"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/real_stacks"), help="folder of the results")
    parser.add_argument("--minutes", type=float, default=2.5, help="training time")
    parser.add_argument(
        "--views", type=int, default=4, help="views made of each stack, with other optics each"
    )
    parser.add_argument("--seed", type=int, default=0, help="of optics, lists and training")
    arguments = parser.parse_args()
    if not arguments.stacks.is_dir():
        sys.stderr.write(
            f"{arguments.stacks}: expected a folder of real stacks, got no such folder (--stacks)\n"
        )
        return 2
    out, seed = arguments.output, arguments.seed
    for number, (name, spacing) in enumerate(NUCLEI.items()):
        stack = as_tiff(arguments.stacks / name, out / "stacks")
        numbers = [
            "--count",
            arguments.views,
            "--first_id",
            number * arguments.views,
            "--seed",
            seed + number,
        ]
        known = ["--channel", "nucleus", "--study", STUDY, *(["--spacing_um", spacing] if spacing else [])]
        run("simulate_dataset.py", out / "tiff" / stack.stem, "--from_volume", stack, *numbers, *known)
    run("convert_images.py", out / "tiff", out / "h5", "--workers", 2)
    shares = ["--val_share", 0.25, "--test_share", 0.25, "--seed", seed]
    run("create_splits.py", out / "h5", "--output_path", out / "splits", *shares)
    lists, model = out / "splits" / f"Study{STUDY}_nucleus", out / "models" / f"Study{STUDY}_Nucleus"
    files = [
        "--data_root",
        out / "h5",
        "--train_list",
        f"{lists}_train.csv",
        "--val_list",
        f"{lists}_val.csv",
    ]
    budget = ["--patch_size", "32,64,64", "--max_minutes", arguments.minutes, "--seed", seed]
    run("train_script.py", "--image_groups", GROUPS, *files, "--output_path", model, *budget)
    run("apply_script.py", f"{lists}_test.csv", out / "fused", "--data_root", out / "h5", "--model", model)
    pairs = ["--csv", f"{lists}_test.csv", "--data_root", out / "h5"]
    run("evaluate_script.py", "--prediction", out / "fused", *pairs, "--out", out / "report")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
