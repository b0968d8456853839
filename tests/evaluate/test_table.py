"""Summaries against numpy; CSV, JSON and text that other programs and people can read."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from lightsheet.evaluate.image import METHODS, ImageResult
from lightsheet.evaluate.metrics import Score
from lightsheet.evaluate.seams import SeamIndex
from lightsheet.evaluate.ssim import SsimByDepth
from lightsheet.evaluate.table import lines_of, summarise, text_table, write_csv, write_scores_json


def result(name: str, channel: str, study: int, prediction: float, view: float = 0.5) -> ImageResult:
    """Image whose prediction, view and Gaussian have the given SSIM in every plane, 0.1 more under 3d."""

    def score(ssim: float) -> Score:
        planes = SsimByDepth(np.full(3, ssim), np.full(3, ssim + 0.1 * (ssim < 0.9)), 5)
        return Score(planes, 0.25, math.inf if ssim == 1 else 20.0, 0.75)

    scores = {"prediction": score(prediction), "identity": score(view), "gaussian": score(view + 0.05)}
    profile = (np.ones(2), np.ones(3), np.ones(4))
    return ImageResult(
        name,
        (2, 3, 4),
        (1.0, 0.5, 0.5),
        channel,  # type: ignore[arg-type]
        study,
        scores,  # type: ignore[arg-type]
        SeamIndex((1.0, 1.5, math.nan)),
        {"view": profile},
        {},
        "made up",
        (),
        {"view": f"{name}.tif"},
    )


RESULTS = [
    result("a", "nucleus", 1, 0.75),
    result("b", "nucleus", 1, 0.4),
    result("c", "nucleus", 2, 1.0),
    result("d", "membrane", 1, 0.6),
]
LINES = [line for r in RESULTS for line in lines_of(r)]


def row(scope: str, group: str, method: str) -> dict[str, float]:
    rows = [r for r in summarise(LINES) if (r["scope"], r["group"], r["method"]) == (scope, group, method)]
    (only,) = rows
    return only


def test_a_line_per_image_and_method() -> None:
    assert [(line["image"], line["method"]) for line in LINES[:4]] == [
        *(("a", method) for method in METHODS),
        ("b", "prediction"),
    ]
    assert LINES[0]["n_ssim_tf"] == pytest.approx(0.5)
    assert LINES[0]["n_ssim_3d"] == pytest.approx((0.85 - 0.6) / 0.4)
    assert LINES[0]["seam_index"] == 1.5
    assert math.isnan(LINES[1]["seam_index"])


def test_summary_is_numpys() -> None:
    values = [0.5, -0.2, 1.0]
    nucleus = row("channel", "nucleus", "prediction")
    assert nucleus["images"] == 3
    assert nucleus["n_ssim_tf_mean"] == pytest.approx(np.mean(values))
    assert nucleus["n_ssim_tf_median"] == pytest.approx(0.5)
    assert nucleus["n_ssim_tf_p5"] == pytest.approx(np.percentile(values, 5))
    assert nucleus["n_ssim_tf_share_below_0"] == pytest.approx(1 / 3)
    assert row("all", "all", "prediction")["n_ssim_tf_mean"] == pytest.approx(np.mean([*values, 0.2]))
    assert row("study", "2", "prediction")["n_ssim_tf_mean"] == pytest.approx(1.0)
    assert row("study and channel", "1 membrane", "prediction")["n_ssim_tf_mean"] == pytest.approx(0.2)
    assert row("all", "all", "identity")["n_ssim_tf_mean"] == 0.0
    assert row("all", "all", "gaussian")["n_ssim_tf_mean"] == pytest.approx(0.1)


def test_undefined_scores_are_left_out_and_counted() -> None:
    lines = [*LINES, *lines_of(result("e", "nucleus", 1, 0.9, view=1.0))]
    rows = summarise(lines)
    pooled = next(r for r in rows if r["group"] == "nucleus" and r["method"] == "prediction")
    assert (pooled["images"], pooled["n_ssim_tf_undefined"]) == (4, 1)
    assert pooled["n_ssim_tf_mean"] == pytest.approx(np.mean([0.5, -0.2, 1.0]))
    lonely = summarise(lines_of(result("e", "nucleus", 1, 0.9, view=1.0)))[0]
    assert math.isnan(lonely["n_ssim_tf_mean"])


def test_csv_is_read_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "scores.csv", LINES)
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert float(rows[3]["n_ssim_tf"]) == pytest.approx(-0.2)
    assert rows[1]["seam_index"] == ""
    assert rows[6]["psnr"] == "inf"


def test_json_is_strict(tmp_path: Path) -> None:
    """No NaN and no Infinity, which other readers refuse."""
    write_scores_json(tmp_path / "scores.json", RESULTS, ["x.tif: broken"])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    assert content["failed"] == ["x.tif: broken"]
    third = content["images"][2]
    assert third["scores"]["prediction"]["psnr"] == "inf"
    assert third["scores"]["prediction"]["n_ssim_tf"] == 1.0
    assert third["seam_index_zyx"] == [1.0, 1.5, None]
    assert third["ssim_by_depth"]["identity"] == {"first_plane": 5, "tf": [0.5] * 3, "3d": [0.6] * 3}


def test_text_table_has_a_row_per_method_and_columns_per_channel_and_reading() -> None:
    table = text_table(summarise(LINES)).splitlines()
    assert [line.split("  ")[0] for line in table] == [
        "N_SSIM",
        "method",
        "prediction",
        "identity (the view)",
        "Gaussian of the view",
    ]
    assert table[0].split() == [
        "N_SSIM",
        "membrane",
        "tf",
        "membrane",
        "3d",
        "nucleus",
        "tf",
        "nucleus",
        "3d",
    ]
    assert len({len(line) for line in table[1:]}) == 1
    assert table[2].split()[1:9] == ["+0.200", "+0.200", "0", "%", "+0.250", "+0.250", "0", "%"]
    assert table[2].split()[9:13] == ["+0.433", "-0.130", "33", "%"]
    assert table[3].split()[3:6] == ["0.000", "0.000", "0"]
