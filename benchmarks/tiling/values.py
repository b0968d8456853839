"""Do tiles show? Tiled predictions against one pass over the whole volume: part of ``reconstruct.py``.

A small simulated volume with a large dark background is predicted by all ways with tiles of one size, small
against the volume, and an overlap of an eighth. Compared are voxels at least 16 from the volume's borders,
where the ways fill up differently what lies outside. Counts are scaled up such that rounding doesn't count.

In a small volume the specimen's own edges weigh much: the seam index of one pass over the volume, which has
no seams, is then not 1. So the index is also given over that of one pass at the same cuts, and the bar is on
this ratio.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Bars, say, table
from benchmarks.tiling.data import ZYX, fused_beside, view_on_disk
from benchmarks.tiling.methods import monai_spans, run_apart
from benchmarks.tiling.reference import ReferenceTiling

MOST_SEAM = 1.02
MOST_DIFFERENCE = 1e-3
MOST_SHIFTED = 0.01
BORDER = 16
SEED = 8
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the small comparison; ``margin`` is the reference's, ``other_tile`` makes the second grid."""

    shape: ZYX = (72, 176, 176)
    tile: ZYX = (32, 64, 64)
    overlap: ZYX = (4, 8, 8)
    margin: ZYX = (3, 4, 4)
    other_tile: ZYX = (48, 96, 96)


QUICK = Sizes((48, 96, 96), (24, 48, 48), (3, 6, 6), (2, 3, 3), (40, 72, 72))


@dataclass(frozen=True)
class Outcome:
    """How much tiles show in a prediction.

    Attributes
    ----------
    seam : seam index of prediction minus view, worst axis
    excess : largest ratio of the index of an axis to that of one pass over the volume, at the same cuts
    difference : largest difference to one pass over the whole volume, normalised intensity
    shifted : root mean square difference of two grids over the standard deviation of the output
    n_ssim : score against the simulated fused volume (reading 3d); 0 is a copy of the view, 1 is perfect
    """

    seam: float
    excess: float
    difference: float
    shifted: float
    n_ssim: float


def values_leg(work: Path, model: Path, title: str, ways: dict[str, Any], sizes: Sizes) -> dict[str, Outcome]:
    """Predict by all ways, on two grids each, and print the table; returns the outcomes by way."""
    view = view_on_disk(work / f"small_{'x'.join(map(str, sizes.shape))}.tif", sizes.shape, SEED, bright=True)
    folder = work / f"values_{model.name}"
    folder.mkdir(exist_ok=True)
    overlap = [o / t for o, t in zip(sizes.overlap, sizes.tile, strict=True)]
    task = {"view": str(view), "model": str(model)}
    sides = {"tile": sizes.tile, "margin": sizes.margin, "overlap": overlap}
    scale = run_apart({"do": "numbers", **task, **sides, "output": str(folder)})
    whole = np.load(folder / "whole.npy")
    judge = _Judge(view, whole, scale["high"] - scale["low"])
    rows = {
        "one pass over the volume": judge(whole, whole, ((), (), ())),
        "reference's scheme": judge(
            np.load(folder / "reference.npy"),
            np.load(folder / "reference_shifted.npy"),
            ReferenceTiling(sizes.shape, sizes.tile, sizes.margin).cuts(),
        ),
    }
    edges = [{e for span in axis for e in span} for axis in monai_spans(sizes.shape, sizes.tile, overlap)]
    cuts = tuple(tuple(sorted(e - {0, n})) for e, n in zip(edges, sizes.shape, strict=True))
    monai = [np.load(folder / f"monai{which}.npy") for which in ("", "_shifted")]
    rows["MONAI sliding window"] = judge(monai[0], monai[1], cuts)
    for name, settings in ways.items():
        grids = [
            {**settings, "patch_size": t, "overlap": sizes.overlap} for t in (sizes.tile, sizes.other_tile)
        ]
        result = run_apart({"do": "ours", **task, "settings": grids, "output": str(folder / "ours.tif")})
        first, second = (_read(Path(run["output"])) for run in result["runs"])
        rows[name] = judge(first, second, result["runs"][0]["cuts_zyx"])
    _print(title, rows, sizes)
    return rows


def judge_values(bars: Bars, rows: dict[str, Outcome], exact: list[str], what: str) -> None:
    """Print the bars for our ways; those of ``exact`` also for the difference to one pass.

    With instance norm, one pass has statistics of its own, so the index over that of it is only printed.
    """
    for name, row in rows.items():
        if not name.startswith("ours"):
            continue
        comparable = bool(exact)
        seam = f"{what}, {name}: seam index over that of one pass"
        bars.at_most(seam, row.excess, MOST_SEAM, judged=comparable)
        bars.at_most(f"{what}, {name}: two grids / output's std", row.shifted, MOST_SHIFTED, judged=True)
        if name in exact:
            bars.at_most(f"{what}, {name}: max difference", row.difference, MOST_DIFFERENCE, judged=True)


class _Judge:
    """Compares predictions in counts with the view and the prediction in one pass."""

    def __init__(self, view: Path, whole: Floats, scale: float) -> None:
        self._view, self._whole, self._scale = _read(view), whole, scale
        self._fused = _read(fused_beside(view))
        self._inner = tuple(slice(BORDER, n - BORDER) for n in whole.shape)

    def __call__(self, first: Floats, second: Floats, cuts: Any) -> Outcome:
        from lightsheet.evaluate.metrics import nssim
        from lightsheet.evaluate.seams import seam_index

        seam = seam_index(first, cuts, self._view)
        usual = seam_index(self._whole, cuts, self._view)
        ratios = [a / b for a, b in zip(seam.zyx, usual.zyx, strict=True) if not math.isnan(a)]
        here = self._inner
        difference = float(np.abs(first - self._whole)[here].max()) / self._scale
        apart = float(np.sqrt(np.mean((first - second)[here].astype(np.float64) ** 2)))
        return Outcome(
            seam.worst,
            max(ratios, default=math.nan),
            difference,
            apart / float(self._whole[here].std()),
            nssim(first, self._view, self._fused, "3d"),
        )


def _read(path: Path) -> Floats:
    from lightsheet.volumes.reading import read_volume

    return np.asarray(read_volume(path).data, np.float32)


def _print(title: str, rows: dict[str, Outcome], sizes: Sizes) -> None:
    by = [" x ".join(map(str, size)) for size in (sizes.shape, sizes.tile, sizes.overlap, sizes.margin)]
    say(f"\nDo tiles show? {title}")
    say(
        f"  simulated volume {by[0]}, tiles {by[1]}, overlap {by[2]} "
        f"(reference: crop and overlap {by[3]} each)"
    )
    lines = [
        [n, *_figures(r.seam, r.excess), f"{r.difference:.1e}", f"{r.shifted:.1e}", f"{r.n_ssim:+.3f}"]
        for n, r in rows.items()
    ]
    head = ["seam index", "/ one pass", "max difference to one pass", "two grids / std", "N_SSIM 3d"]
    table(["method", *head], lines)


def _figures(*values: float) -> list[str]:
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]
