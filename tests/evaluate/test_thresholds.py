"""Scores of objects over thresholds, against those of StarDist's `matching` on drawn labels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lightsheet.cli.evaluate import main
from lightsheet.evaluate.cells.thresholds import CAICEDO, lines_of_objects, score_objects, summary_of_objects
from lightsheet.volumes.labels import write_labels

# Seed, threshold; matched, extra, missed, F1, precision, recall, AP, PQ: stardist 0.9.2, stardist.matching.
STARDIST = (
    (0, 0.5, 18, 4, 11, 0.70588, 0.81818, 0.62069, 0.54545, 0.45155),
    (0, 0.7, 4, 18, 25, 0.15686, 0.18182, 0.13793, 0.08511, 0.12142),
    (1, 0.5, 17, 7, 13, 0.62963, 0.70833, 0.56667, 0.45946, 0.42132),
    (2, 0.7, 8, 16, 20, 0.30769, 0.33333, 0.28571, 0.18182, 0.23265),
    (4, 0.5, 17, 7, 11, 0.65385, 0.70833, 0.60714, 0.48571, 0.43956),
    (5, 0.9, 1, 26, 28, 0.03571, 0.03704, 0.03448, 0.01818, 0.03247),
)  # fmt: skip


def drawn(seed: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Discs and the same ones moved, grown and some left out, each (1, 96, 96)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    true, found = np.zeros((96, 96), np.int32), np.zeros((96, 96), np.int32)
    for number in range(1, 31):
        cy, cx, radius = rng.uniform(5, 91), rng.uniform(5, 91), rng.uniform(3, 9)
        true[((y - cy) ** 2 + (x - cx) ** 2 < radius * radius) & (true == 0)] = number
        dy, dx, more = rng.normal(0, 1.2, 3)
        if rng.random() > 0.15:
            found[((y - cy - dy) ** 2 + (x - cx - dx) ** 2 < (radius + more) ** 2) & (found == 0)] = number
    return true[None], found[None]


@pytest.mark.parametrize("row", STARDIST, ids=lambda row: f"seed {row[0]} at {row[1]}")
def test_scores_are_those_of_stardist(row: tuple[float, ...]) -> None:
    seed, threshold, *wanted = row
    scores = score_objects("drawn", *drawn(int(seed)))  # type: ignore[arg-type]
    at = scores.by_threshold[CAICEDO.index(threshold)]
    found = [
        at.matched,
        at.extra,
        at.missed,
        at.f1,
        at.precision,
        at.recall,
        at.average_precision,
        at.panoptic,
    ]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_a_set_is_scored_over_its_objects_and_over_its_images() -> None:
    scores = [score_objects(str(seed), *drawn(seed)) for seed in range(3)]  # type: ignore[arg-type]
    summary = summary_of_objects(scores)
    half = [score.by_threshold[0] for score in scores]
    matched = sum(one.matched for one in half)
    assert summary["ap_50"] == matched / sum(one.matched + one.missed + one.extra for one in half)
    assert summary["ap_50_image"] == pytest.approx(np.mean([one.average_precision for one in half]))
    assert summary["mean_f1"] < summary["f1_50"]
    assert len(lines_of_objects(scores)) == 30
    nothing = score_objects("none", np.zeros((1, 4, 4), np.uint16), np.zeros((1, 4, 4), np.uint16))
    assert (nothing.jaccard, nothing.mean_f1) == (1.0, 1.0)


def test_the_command_scores_label_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        true, found = drawn(seed)
        write_labels(tmp_path / "true" / f"{name}_labels.tif", true.astype(np.uint16), None)
        write_labels(tmp_path / "found" / f"{name}.tif", found.astype(np.uint16), None)
        write_labels(tmp_path / "images" / f"{name}.tif", (true > 0).astype(np.uint16), None)
    words = ["--objects", tmp_path / "true", "--prediction", tmp_path / "found", "--out", tmp_path / "out"]
    assert main([*map(str, words), "--view", str(tmp_path / "images")]) == 0
    told = capsys.readouterr().out
    assert "ap_50" in told
    for name in ("objects.csv", "summary.csv", "objects.png", "worst.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    lines = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    assert len(lines) == 21
    (tmp_path / "found" / "three.tif").write_bytes((tmp_path / "found" / "one.tif").read_bytes())
    assert main(list(map(str, words))) == 2
    assert "expected a true label image three, got none" in capsys.readouterr().err
