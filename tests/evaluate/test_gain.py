"""N_IOU and task gain: known values, the challenge's form, Cellpose as a program of its own, the command."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli.evaluate import main
from lightsheet.core.errors import MissingExtraError, VolumeError
from lightsheet.core.processes import ElsewhereError
from lightsheet.evaluate.cells.gain import gain_of, lines_of_gain, means_of_gain, n_iou, score_masks
from lightsheet.segment.by_cellpose import by_cellpose
from lightsheet.segment.gain import GainScorer
from lightsheet.volumes.info import Overrides, VolumeInfo
from lightsheet.volumes.labels import Labels, write_labels
from lightsheet.volumes.reading import write_volume

FAKE = """
class Cellpose:
    def __init__(self, gpu, model_type):
        assert model_type in ("nuclei", "cyto3")
    def eval(self, image, channels, diameter=None, **rest):
        from scipy import ndimage
        if diameter is not None:
            assert rest == {"do_3D": True, "z_axis": 0, "anisotropy": 1.0}
        return ndimage.label(image > 0.5)[0], None, None, 7.0
"""


def boxes(*at: int, side: int = 6) -> Labels:
    """Boxes along X in a mask of 8 x 8 x 40 voxels."""
    mask = np.zeros((8, 8, 40), np.uint16)
    for number, x in enumerate(at, 1):
        mask[1:7, 1:7, x : x + side] = number
    return mask


TRUE = boxes(1, 11, 21, 31)


def test_perfect_masks_score_one_and_none_score_nothing() -> None:
    best = score_masks(TRUE, TRUE, "a")
    assert (best.iou, best.seg, best.ap50, best.count, best.count_error) == (1, 1, 1, 4, 0)
    none = score_masks(TRUE, TRUE * 0, "a")
    assert (none.iou, none.seg, none.ap50, none.count, none.count_error) == (0, 0, 0, 0, 1)


def test_scores_of_masks_that_are_off() -> None:
    moved = score_masks(TRUE, boxes(3, 13, 21), "a")  # two by 2 of 6 voxels, one as it is, one missed
    assert moved.iou == pytest.approx((0.5 + 0.5 + 1) / 4)
    assert moved.ap50 == pytest.approx(3 / 4)
    assert moved.count_error == 0.25
    joined = boxes(1, 11, 21, 31)
    joined[1:7, 1:7, 1:17] = 1  # two in one: it holds more than half of both, but has one partner
    joined[joined == 2] = 1
    both = score_masks(TRUE, joined, "a")
    share = 216 / (16 * 36)
    assert both.iou == pytest.approx((share + 2) / 4)
    assert both.seg == pytest.approx((2 * share + 2) / 4)
    with pytest.raises(VolumeError, match="masks of one shape"):
        score_masks(TRUE, TRUE[1:], "a")


def test_n_iou_is_the_challenges() -> None:
    assert n_iou(0.7, 0.6, 0.8) == pytest.approx(0.5)
    assert n_iou(0.5, 0.6, 0.8) == pytest.approx(-0.5)
    assert n_iou(0.7, 0.8, 0.8) is None


def test_gain_with_and_without_true_masks() -> None:
    found = {"view": boxes(3, 13), "prediction": boxes(1, 13, 21), "fused": TRUE}
    gain = gain_of("one", found)
    assert gain.scores["fused"].iou == 1
    assert gain.n_iou == pytest.approx((2.5 / 4 - 0.25) / 0.75)
    assert (gain.true, gain.truth) == (4, "masks found in the fused volume")
    told = gain_of("one", found, TRUE, view_true=boxes(2, 11, 21, 31))
    best = (5 / 7 + 3) / 4
    assert told.n_iou is None  # what was found in the fused volume is the truth: nothing to gain
    off = gain_of("one", {**found, "fused": boxes(2, 12, 22, 32)}, TRUE, view_true=boxes(2, 11, 21, 31))
    reference = (1 + 3 * 5 / 7) / 4
    assert off.n_iou == pytest.approx((2.5 / 4 - reference) / (best - reference))
    rows = lines_of_gain([gain, told])
    assert [row["segmented"] for row in rows[:3]] == ["view", "prediction", "fused"]
    means = means_of_gain([gain, told])
    assert means[1]["n_iou"] == pytest.approx(gain.n_iou)
    assert means[0]["count_error"] == 0.5


def fake(folder: Path, text: str) -> Path:
    """Python that has a module of the name of Cellpose."""
    (folder / "cellpose").mkdir(parents=True)
    (folder / "cellpose" / "__init__.py").write_text("")
    (folder / "cellpose" / "models.py").write_text(text)
    start = folder / "python"
    start.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    start.chmod(0o755)
    return start


def test_cellpose_is_run_by_its_own_python(tmp_path: Path) -> None:
    volumes = [(boxes(*at) > 0).astype(np.float32) for at in ((1, 11), (1, 11, 21), (1, 11, 21, 31))]
    found = by_cellpose(fake(tmp_path / "right", FAKE), volumes, (1.0, 1.0, 1.0), "nucleus")
    assert [int(labels.max()) for labels in found] == [2, 3, 4]
    np.testing.assert_array_equal(found[2] > 0, TRUE > 0)
    long = by_cellpose(fake(tmp_path / "long", FAKE), volumes, (2.0, 1.0, 1.0), "membrane")
    assert long[0].shape == TRUE.shape
    with pytest.raises(ElsewhereError, match="expected masks, got exit code 1, 'ValueError: no model'"):
        by_cellpose(fake(tmp_path / "wrong", "raise ValueError('no model')"), volumes, (1, 1, 1), "nucleus")
    with pytest.raises(MissingExtraError, match="Python that has Cellpose 3, got 'No such file"):
        by_cellpose(tmp_path / "none", volumes, (1, 1, 1), "nucleus")


def test_cellpose_that_is_not_there_is_told(tmp_path: Path) -> None:
    start = tmp_path / "python"
    start.write_text(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n')
    start.chmod(0o755)
    with pytest.raises(MissingExtraError, match=r'got one without; .*pip install "cellpose<4"'):
        by_cellpose(start, [TRUE.astype(np.float32)], (1, 1, 1), "nucleus")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """View, prediction and fused volume of boxes, and true masks."""
    rng = np.random.default_rng(0)
    for ending, mask in (("angle", boxes(1, 13)), ("pred", boxes(1, 11, 21)), ("fused", TRUE)):
        counts = (100 + 500 * (mask > 0) + rng.integers(0, 9, mask.shape)).astype(np.uint16)
        place = tmp_path / ("predictions" if ending == "pred" else "images")
        place.mkdir(exist_ok=True)
        name = "image_1_nucleus.tif" if ending == "pred" else f"image_1_nucleus_{ending}.tif"
        info = VolumeInfo(name, (8, 8, 40), "uint16", (1.0, 1.0, 1.0), "nucleus", 1)
        write_volume(place / name, counts, info)
    write_labels(tmp_path / "masks" / "image_1_nucleus_masks.tif", TRUE, (1.0, 1.0, 1.0))
    return tmp_path


def test_the_command_tells_the_gain(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = fake(images / "own", FAKE.replace("0.5", "300"))
    words = [
        "--prediction",
        images / "predictions",
        "--view",
        images / "images",
        "--fused",
        images / "images",
    ]
    asked = ["--iou", "--cellpose", python, "--masks", images / "masks", "--out", images / "out"]
    assert main([str(word) for word in (*words, *asked)]) == 0
    assert "N_IOU" in capsys.readouterr().out
    with (images / "out" / "iou.csv").open() as stream:
        rows = {row["segmented"]: row for row in csv.DictReader(stream)}
    assert float(rows["prediction"]["n_iou"]) == pytest.approx((0.75 - 1.5 / 4) / (1 - 1.5 / 4), abs=0.2)
    assert rows["fused"]["truth"] == "true masks"
    assert "Worth for finding objects" in (images / "out" / "report.html").read_text()


def test_flags_of_the_gain_ask_for_it(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--prediction",
        images / "predictions",
        "--view",
        images / "images",
        "--fused",
        images / "images",
    ]
    assert main([*map(str, words), "--masks", str(images / "masks"), "--out", str(images / "out")]) != 0
    assert "--masks: expected --iou with it, got none" in capsys.readouterr().err


def test_masks_that_are_not_there(images: Path) -> None:
    with pytest.raises(Exception, match=r"--masks .*: expected a folder, got nothing"):
        GainScorer(None, images / "nothing", Path("python"))
    scorer = GainScorer(None, images / "predictions" / "..", fake(images / "own", FAKE))
    where = images / "images" / "image_1_nucleus_fused.tif"
    with pytest.raises(Exception, match=r"expected true masks other.tif or other_masks.tif, got none"):
        scorer.score("other", where, where, where, Overrides())
