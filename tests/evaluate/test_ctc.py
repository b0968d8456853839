"""Scores of cells: perfect input gives 1, and known faults give known numbers."""

from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.errors import LineageError, NotFoundError, VolumeError
from lightsheet.evaluate.cells.ctc import score_sequence, segmentation_score
from lightsheet.evaluate.cells.instances import instance_scores, overlaps_of, split_and_merged
from lightsheet.evaluate.cells.lineages import score_lineage
from lightsheet.volumes.labels import write_labels
from lightsheet.volumes.tracks.ctc import whole_sequence
from lightsheet.volumes.tracks.lineage import NOBODY
from tracks_data import SPACING, boxes, cells, sequence


def test_perfect_input_gives_exactly_1(tmp_path: Path) -> None:
    values = dict(score_sequence(*sequence(tmp_path)).values)
    assert values.pop("false_divisions_per_1000_links") == 0
    assert {"SEG", "DET", "TRA", "LNK", "CT", "TF", "BC(0)", "BC(3)", "CHOTA", "OP_CSB", "BIO"} <= set(values)
    assert {name: value for name, value in values.items() if value is not None and value != 1} == {}


def test_the_same_as_the_library_alone(tmp_path: Path) -> None:
    from ctc_metrics import evaluate_sequence

    truth, result = sequence(tmp_path)
    (result / "res_track.txt").write_text("1 0 1 0\n2 0 2 0\n3 2 2 0\n4 2 2 1\n")
    mask = boxes((3, 2), (4, 9), (2, 21))
    mask[:3] = 0
    write_labels(result / "mask002.tif", mask, SPACING)
    values = score_sequence(truth, result).values
    theirs = evaluate_sequence(str(result), str(truth), threads=1)
    for name in ("SEG", "DET", "TRA", "LNK", "CT", "TF", "BC(1)", "OP_CSB", "OP_CTB", "CHOTA"):
        assert values[name] == pytest.approx(theirs[name]), name
    assert values["SEG"] < 1
    assert values["TRA"] < 1
    assert values["division_recall"] == 0


def test_true_segmentations_of_single_planes(tmp_path: Path) -> None:
    truth, result = sequence(tmp_path)
    for path in (truth / "SEG").iterdir():
        path.unlink()
    write_labels(truth / "SEG" / "man_seg_001_002.tif", boxes((5, 4), (7, 20))[2:3], SPACING)
    masks = whole_sequence(result, "mask").paths
    # Of one object 12 of 20 voxels are shared, the other is the same.
    assert segmentation_score(truth / "SEG", masks) == pytest.approx((12 / 20 + 1) / 2)


def test_what_cannot_be_scored_is_told(tmp_path: Path) -> None:
    truth, result = sequence(tmp_path)
    write_labels(result / "mask001.tif", boxes((1, 3), (2, 20))[:5], SPACING)
    with pytest.raises(VolumeError, match="expected 6 x 8 x 32 voxels as in man_track001"):
        score_sequence(truth, result)
    write_labels(result / "mask001.tif", boxes((1, 3)), SPACING)
    with pytest.raises(
        LineageError, match=r"expected the labels of res_track\.txt, got a difference in label 2"
    ):
        score_sequence(truth, result)
    with pytest.raises(NotFoundError, match="expected TRA or SEG, got neither"):
        score_sequence(tmp_path, sequence(tmp_path / "b")[1])


def test_instances_are_matched_by_overlap() -> None:
    true, found = boxes((1, 2), (2, 12), (3, 20)), boxes((1, 3), (2, 12), (7, 27))
    scores = instance_scores(overlaps_of(true, found), (0.5, 0.7))
    assert [(one.matched, one.missed, one.extra) for one in scores] == [(2, 1, 1), (1, 2, 2)]
    assert scores[0].average_precision == 0.5
    assert scores[0].quality == pytest.approx((0.6 + 1) / 2)
    assert scores[1].f1 == pytest.approx(1 / 3)
    same = instance_scores(overlaps_of(true, true))
    assert all(one.average_precision == one.panoptic == 1 for one in same)
    nothing = boxes()
    assert instance_scores(overlaps_of(true, nothing), (0.5,))[0].average_precision == 0
    assert instance_scores(overlaps_of(nothing, nothing), (0.5,))[0].average_precision == 1
    with pytest.raises(VolumeError, match="expected masks of one shape"):
        overlaps_of(true, nothing[:2])


def test_split_and_merged_objects_are_counted() -> None:
    whole, halves = boxes((1, 2)), boxes((1, 2))
    halves[:, :, 4:] *= 2
    assert split_and_merged(overlaps_of(whole, halves)) == (1, 0)
    assert split_and_merged(overlaps_of(halves, whole)) == (0, 1)
    assert split_and_merged(overlaps_of(whole, whole)) == (0, 0)


def test_links_and_divisions_are_counted() -> None:
    true = cells()
    assert set(score_lineage(true, true).values.values()) == {1.0, 0.0}
    parents = true.parents.copy()
    daughter = int(np.flatnonzero(parents == true.divisions[0])[1])
    parents[daughter] = NOBODY
    scores = score_lineage(true, true.with_parents(parents))
    assert scores.links == (len(true.edges) - 1, 1, 0)
    assert scores.divisions == (0, 1, 0)
    other = true.parents.copy()
    other[daughter] = int(np.flatnonzero(true.times == true.times[daughter] - 1)[0])
    scores = score_lineage(true, true.with_parents(other))
    assert scores.links == (len(true.edges) - 1, 1, 1)
    assert scores.divisions == (0, 1, 1)


def test_sparse_truth_does_not_blame_for_cells_that_are_not_annotated() -> None:
    whole = cells()
    some = whole.taken(whole.places_um[:, 0] < 10)
    dense, sparse = (score_lineage(some, whole, sparse=flag) for flag in (False, True))
    assert dense.values["link_precision"] < 0.5
    assert sparse.values["link_F1"] == sparse.values["cell_F1"] == 1
