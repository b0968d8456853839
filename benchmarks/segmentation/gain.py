"""What fusing is worth for finding nuclei: objects in view, physics step, prediction and fused volume.

Simulated images of the studies of Fuse My Cells with nuclei, of seeds that nothing was trained on. The
shipped network segments all four alike, at the size of the nuclei that it finds in the fused volume; the
simulator knows the true masks. N_IOU is the challenge's, of instances.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, say, table
from lightsheet.cli.apply import main as apply
from lightsheet.cli.simulate import main as simulate
from lightsheet.evaluate.cells.gain import MaskScores, n_iou, score_masks
from lightsheet.segment.predict import Segmenter
from lightsheet.segment.settings import SegmentSettings
from lightsheet.volumes.labels import read_labels
from lightsheet.volumes.reading import open_volume

SHIPPED = ROOT / "resources" / "models" / "Segment_Nuclei3D"
WAYS = ("view", "physics step", "prediction", "fused")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/gain"), help="folder of the images")
    parser.add_argument("--images", type=int, default=2, help="of each study")
    parser.add_argument("--studies", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--shape", default="40,128,128", help="size Z,Y,X in voxels")
    parser.add_argument("--seed", type=int, default=8800)
    arguments = parser.parse_args()
    segmenter = Segmenter(SHIPPED, SegmentSettings(device="cpu"))
    scores: dict[str, list[MaskScores]] = {way: [] for way in WAYS}
    gains: dict[str, list[float]] = {way: [] for way in WAYS}
    for study in arguments.studies:
        stacks = arguments.work / f"study{study}"
        asked = ["--study", str(study), "--channel", "nucleus", "--count", str(arguments.images)]
        simulate([str(stacks), *asked, "--shape", arguments.shape, "--seed", str(arguments.seed)])
        views = sorted(stacks.glob("*_angle.tif"))
        for way, model in (("physics", ["--model", "physics"]), ("predicted", [])):
            apply([*(str(stacks / "*_angle.tif"),), str(arguments.work / way / str(study)), *model])
        for view in views:
            one = of_image(view, arguments.work, study, segmenter)
            for way in WAYS:
                scores[way].append(one[way])
                gain = n_iou(one[way].iou, one["view"].iou, one["fused"].iou)
                gains[way] += [] if gain is None else [gain]
        say(f"  study {study}: done")
    table(
        ("segmented", "N_IOU", "IOU", "SEG", "AP50", "count error"), [row(way, scores, gains) for way in WAYS]
    )
    return 0


def of_image(view: Path, work: Path, study: int, segmenter: Segmenter) -> dict[str, MaskScores]:
    """Segment what there is of an image, and score it."""
    fused = view.with_name(view.name.replace("_angle", "_fused"))
    true, _ = read_labels(view.with_name(view.name.replace("_angle", "_labels")))
    with open_volume(fused) as volume:
        radius = segmenter.radius_um(volume)
    places = (
        view,
        work / "physics" / str(study) / view.name,
        work / "predicted" / str(study) / view.name,
        fused,
    )
    found = {}
    for way, path in zip(WAYS, places, strict=True):
        with open_volume(path) as volume:
            found[way] = score_masks(true, segmenter.labels(volume, radius), view.name)
    return found


def row(way: str, scores: dict[str, list[MaskScores]], gains: dict[str, list[float]]) -> Sequence[str]:
    """Return a row of means."""
    names = ("iou", "seg", "ap50", "count_error")
    means = [float(np.mean([getattr(one, name) for one in scores[way]])) for name in names]
    gain = f"{np.mean(gains[way]):.3f}" if gains[way] else "-"
    return way, gain, *(f"{value:.3f}" for value in means)


if __name__ == "__main__":
    raise SystemExit(main())
