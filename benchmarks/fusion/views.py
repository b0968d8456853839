"""What each further view is worth: one model of up to four views, and fusion of the same views without one.

Trains a network on registered views (train_script.py --views 4) of simulated specimens of studies 1 and 3, of
which all views but the first were left out at random, and scores it on held-out specimens with the first
view, the first two, and so on. Beside it, the same views fused by content, as the target was made of four.
N_SSIM: 0 is the first view alone, 1 the fusion of all four. Each view costs the specimen the same dose, so
the score against the number of views is the score against dose. All images are simulated.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fusion.cases import Case, seen_case
from benchmarks.fusion.methods import View
from lightsheet.core.intensity import Normalization
from lightsheet.evaluate.metrics import nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.channels import add_views
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.models.folder import SETTINGS, open_model
from lightsheet.runtimes.blocks import predict_block
from lightsheet.runtimes.loading import LoadedModel, load_model
from lightsheet.simulate.fusion import ContentFusion
from recipes.commands import GROUPS, run, train_anyhow

STUDIES = (1, 3)
VIEWS = 4
_EPOCH = 200


def main() -> int:
    """Train, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/views"), help="folder of data and training")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--volumes", type=int, default=16, help="training specimens of each study")
    parser.add_argument("--images", type=int, default=6, help="held-out specimens of each study")
    parser.add_argument("--shape", default="48,128,128", help="size of all (Z,Y,X), voxels")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    z, y, x = map(int, arguments.shape.split(","))
    model = load_model(open_model(train(arguments)), "cpu")
    scores: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(arguments.images):
        for study in STUDIES:
            case = seen_case("nucleus", study, number, (z, y, x), VIEWS)
            for way, views, score in scores_of(case, model):
                scores.setdefault((way, views), []).append(score)
    means = {key: np.nanmean(np.array(some), axis=0) for key, some in scores.items()}
    lowest = {key: np.nanpercentile(np.array(some).min(axis=1), 5) for key, some in scores.items()}
    titles = "".join(f"{title:>10}" for title in ("mean tf", "mean 3d", "5th perc."))
    sys.stdout.write(f"{len(scores[('ours', 1)])} simulated specimens\n{'views':<26}{titles}\n")
    for key in sorted(means):
        cells = "".join(f"{value:>+10.3f}" for value in (*means[key], lowest[key]))
        sys.stdout.write(f"{f'{key[1]}, {key[0]}':<26}{cells}\n")
    if arguments.figure is not None:
        draw(means, arguments.figure)
    return 0


def train(arguments: argparse.Namespace) -> Path:
    """Simulate, convert, divide and train; what is done already is kept."""
    work: Path = arguments.output
    common = ["--count", arguments.volumes, "--shape", arguments.shape, "--seed", arguments.seed]
    for study in STUDIES:
        kind = ["--study", study, "--write_views", VIEWS, "--first_id", 1000 * study, "--workers", 2]
        run("simulate_dataset.py", work / "tiff" / f"study{study}", *kind, *common)
    run("convert_images.py", work / "tiff", work / "h5", "--workers", 2)
    shares = ["--val_share", 0.15, "--test_share", 0, "--seed", arguments.seed]
    run("create_splits.py", work / "h5", "--output_path", work / "splits", *shares)
    files = ["--data_root", work / "h5"]
    for part in ("train", "val"):
        lists = sorted((work / "splits").glob(f"Study*_nucleus_{part}.csv"))
        target = work / f"{part}.csv"
        target.write_text("".join(one.read_text() for one in lists))
        files += [f"--{part}_list", target]
    model = work / "Views4_Nucleus"
    if not (model / SETTINGS).is_file():
        budget = ["--epochs", math.ceil(arguments.steps / _EPOCH), "--samples_per_epoch", _EPOCH]
        budget += ["--patch_size", "32,64,64", "--seed", arguments.seed]
        options = ["--views", VIEWS, "--image_groups", GROUPS]
        train_anyhow(*options, *files, *budget, "--output_path", model)
    return model


def scores_of(case: Case, model: LoadedModel) -> list[tuple[str, int, tuple[float, float]]]:
    """Score predictions from, and fusions of, the first views of a specimen."""
    view = View(case)
    fused = view.normalization.apply(case.fused)
    inputs = prepare_inputs(view.volume, model.settings.inputs)
    own = view.channels(inputs)[: len(model.settings.inputs.image_groups)]
    counts = [case.view, *case.further]
    others = [Normalization(*np.percentile(some, (2, 99.8))).apply(some) for some in case.further]
    found = []
    for seen in range(1, VIEWS + 1):
        channels = add_views(own, others[: seen - 1], VIEWS)
        prediction = predict_block(model.facts, model.runtime, np.ascontiguousarray(channels))[0]
        plain = ContentFusion(case.spacing_um)
        for some, one in zip(counts[:seen], case.optics[:seen], strict=True):
            plain.add(some.astype(np.float32), one)
        for way, result in (("ours", prediction), ("fused by content", plain.result())):
            found.append((way, seen, both(result, view.values, fused)))
    return found


def both(
    result: NDArray[np.float32], view: NDArray[np.float32], fused: NDArray[np.float32]
) -> tuple[float, float]:
    """N_SSIM under both readings."""
    tf, three_d = (nssim(result, view, fused, reading) for reading in READINGS)
    return tf, three_d


def draw(means: dict[tuple[str, int], NDArray[np.float64]], target: Path) -> None:
    """Draw the score against the number of views."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for number, reading in enumerate(READINGS):
        for way, style in (("ours", "o-"), ("fused by content", "s--")):
            values = [means[way, views][number] for views in range(1, VIEWS + 1)]
            axes[number].plot(range(1, VIEWS + 1), values, style, label=way)
        axes[number].set(xlabel="views (dose in doses of one view)", title=f"SSIM read as {reading}")
        axes[number].set_xticks(range(1, VIEWS + 1))
        axes[number].grid(alpha=0.3)
    axes[0].set_ylabel("mean N_SSIM (simulated)")
    axes[0].legend()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
