"""Lineages and the folders and tables that keep them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import LineageError, NotFoundError, VolumeError
from lightsheet.volumes.labels import as_labels, read_labels, renumbered, write_labels
from lightsheet.volumes.tracks.ctc import frames_in, read_tracks, track_faults, whole_sequence
from lightsheet.volumes.tracks.geff_files import read_geff, write_geff
from lightsheet.volumes.tracks.lineage import NOBODY, Track, lineage_of, tracks_of
from lightsheet.volumes.tracks.tables import read_table, write_table
from lightsheet.volumes.tracks.validate import breaches
from tracks_data import SPACING, boxes, cells, sequence


def test_tracks_end_at_divisions_and_gaps() -> None:
    places = np.arange(21.0).reshape(7, 3)
    lineage = lineage_of([1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 2, 3, 5, 6], places, [-1, 1, 2, 2, 3, 5, 6])
    number, tracks = tracks_of(lineage)
    assert number.tolist() == [1, 1, 2, 3, 2, 4, 4]
    assert tracks == [Track(1, 0, 1), Track(2, 2, 3, 1), Track(3, 2, 2, 1), Track(4, 5, 6, 2)]
    assert track_faults(tracks, 7) == []
    assert lineage.divisions.tolist() == [1]


def test_cells_left_out_hand_on_their_parents() -> None:
    lineage = lineage_of([1, 2, 3, 4], [0, 1, 2, 3], np.zeros((4, 3)), [-1, 1, 2, 3])
    assert lineage.taken(np.array([True, False, False, True])).parents.tolist() == [NOBODY, 0]
    assert lineage.taken(np.array([False, True, True, True])).parents.tolist() == [NOBODY, 0, 1]


@pytest.mark.parametrize(
    ("ids", "times", "parents", "told"),
    [
        ([1, 1], [0, 1], [-1, -1], "expected each id once, got 1 twice"),
        ([1, 2], [0, 0], [-1, 1], "expected a parent before its child"),
        ([1, 2], [0, 1], [2, 1], "expected a parent before its child"),
        ([1, 2], [0, 1], [-1, 7], "expected the parent of 2 among the cells, got 7"),
        ([1, 2], [-1, 1], [-1, -1], "expected time points from 0 on, got -1"),
    ],
)
def test_lineages_that_cannot_be(ids: list[int], times: list[int], parents: list[int], told: str) -> None:
    with pytest.raises(LineageError, match=told):
        lineage_of(ids, times, np.zeros((2, 3)), parents)


def test_a_table_is_read_back(tmp_path: Path) -> None:
    lineage = cells()
    write_table(tmp_path / "cells.csv", lineage, tracks_of(lineage)[0], SPACING)
    for given in (None, SPACING):  # micrometres are in it, voxels are not asked
        again = read_table(tmp_path / "cells.csv", given)
        np.testing.assert_allclose(again.places_um, lineage.places_um, rtol=1e-8)
        np.testing.assert_array_equal(again.parents, lineage.parents)
        np.testing.assert_allclose(again.radii_um, lineage.radii_um)
    head, first = (tmp_path / "cells.csv").read_text().splitlines()[:2]
    assert head.startswith("id,t,z,y,x,z_um")
    z, y, x, z_um, y_um, x_um = map(float, first.split(",")[2:8])
    np.testing.assert_allclose((z * 2, y * 0.5, x * 0.5), (z_um, y_um, x_um), rtol=1e-6)


def test_voxels_become_micrometres(tmp_path: Path) -> None:
    path = tmp_path / "spots.csv"
    path.write_text("ID;T;X;Y;Z;radius;parent_id\n5;0;10;20;3;4;-1\n6;1;10;20;3;4;5\n")
    lineage = read_table(path, SPACING)
    assert lineage.places_um.tolist() == [[6, 10, 5]] * 2
    assert lineage.radii_um.tolist() == [2, 2]
    assert lineage.parents.tolist() == [NOBODY, 0]


def test_trackmate_spots_are_read(tmp_path: Path) -> None:
    path = tmp_path / "spots.csv"
    rows = ["LABEL,ID,POSITION_X,POSITION_Y,POSITION_Z,FRAME,RADIUS", "Label,Spot ID,X,Y,Z,Frame,Radius"]
    rows += ["Label,Spot ID,X,Y,Z,Frame,R", ",,(um),(um),(um),,(um)", "a,7,1.5,2.5,3.5,0,2", "b,9,1,2,3,1,2"]
    path.write_text("\n".join(rows))
    lineage = read_table(path, SPACING)
    assert lineage.ids.tolist() == [7, 9]
    assert lineage.places_um[0].tolist() == [3.5, 2.5, 1.5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "expected a column 'id', got a, b"),
        ("id,t,x\n1,0,2\n", "expected columns z, y, x"),
        ("id,t,z,y,x\n", "expected a line for each cell"),
        ("id,t,z,y,x\n1,0,a,2,3\n", ":2: expected a number in column 3, got 'a'"),
        ("id,t,z,y,x\n1,0.5,1,2,3\n", ":2: expected a whole number in column 2, got 0.5"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(LineageError, match=told):
        read_table(path)


def test_a_geff_is_read_back(tmp_path: Path) -> None:
    lineage = cells()
    write_geff(tmp_path / "l.geff", lineage, tracks_of(lineage)[0], SPACING)
    again = read_geff(tmp_path / "l.geff")
    np.testing.assert_array_equal(again.ids, lineage.ids)
    np.testing.assert_array_equal(again.parents, lineage.parents)
    np.testing.assert_allclose(again.places_um, lineage.places_um)
    with pytest.raises(NotFoundError, match="got nothing"):
        read_geff(tmp_path / "none.geff")


def test_labels_keep_their_numbers_and_get_colours(tmp_path: Path) -> None:
    mask = boxes((1, 0), (700, 9))
    write_labels(tmp_path / "a.tif", mask, SPACING)
    again, spacing = read_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(again, mask)
    np.testing.assert_allclose(spacing, SPACING)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert np.shape(tif.imagej_metadata["LUTs"]) in ((3, 256), (1, 3, 256))
        assert tif.imagej_metadata["max"] == 700
        assert tif.pages[0].dtype == np.uint16
    large = mask.astype(np.uint32) * 200
    write_labels(tmp_path / "b.tif", large, None)
    again, _ = read_labels(tmp_path / "b.tif")
    assert again.dtype == np.uint32
    np.testing.assert_array_equal(again, large)
    write_labels(tmp_path / "c.tif", mask[2:3], SPACING)
    assert read_labels(tmp_path / "c.tif")[0].shape == (1, 8, 32)


def test_what_is_no_label_is_refused() -> None:
    assert as_labels(np.array([[[0, 70000]]], np.int64), "a").dtype == np.uint32
    with pytest.raises(VolumeError, match="expected labels from 0"):
        as_labels(np.array([[[-1, 2]]]), "a")
    with pytest.raises(VolumeError, match="broken ones; is it an image"):
        as_labels(np.array([[[0.5, 2]]]), "a")
    np.testing.assert_array_equal(renumbered(boxes((3, 2)), np.array([3]), np.array([9])), boxes((9, 2)))
    sparse = boxes((1, 2), (2, 20)).astype(np.uint32)
    sparse[sparse == 2] = 4_000_000_000
    new = renumbered(sparse, np.array([4_000_000_000, 1]), np.array([7, 70_000]))
    assert np.unique(new).tolist() == [0, 7, 70_000]
    np.testing.assert_array_equal(new == 7, sparse == 4_000_000_000)


def test_a_right_folder_breaks_no_rule(tmp_path: Path) -> None:
    sequence(tmp_path)
    assert list(breaches(tmp_path)) == []
    assert list(breaches(tmp_path / "01_RES")) == []


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            "1 0 1 0\n2 0 2 0\n3 2 2 1\n",
            "mask002.tif: expected label 4 in res_track.txt for frame 2, got none",
        ),
        ("1 0 1 0\n2 0 2 0\n3 2 2 1\n4 1 2 1\n", "mask001.tif: expected label 4, which res_track.txt has"),
        (
            "1 0 1 0\n2 0 2 0\n3 2 2 2\n4 2 2 1\n",
            "track 3: expected its parent 2 to end before it begins at 2",
        ),
        ("1 0 1 3\n2 0 2 0\n3 2 2 1\n4 2 2 1\n", "track 1: expected its parent 3 to end before"),
        ("1 0 1 0\n2 0 2 0\n3 2 2 9\n4 2 2 1\n", "track 3: expected its parent 9 in the table, got none"),
        ("1 0 1 0\n1 0 1 0\n2 0 2 0\n3 2 2 1\n4 2 2 1\n", "track 1: expected one line of it, got two"),
        ("1 1 0 0\n2 0 2 0\n3 2 2 1\n4 2 2 1\n", "track 1: expected an end after its begin, got 1 to 0"),
        ("1 0 1 0\n2 0 3 0\n3 2 2 1\n4 2 2 1\n", "track 2: expected an end before frame 3, got 3"),
        ("70000 0 1 0\n", "track 70000: expected a label from 1 to 65535"),
        ("1 0 1\n", "res_track.txt:1: expected four whole numbers"),
    ],
)
def test_wrong_tables_are_told(tmp_path: Path, table: str, told: str) -> None:
    _, result = sequence(tmp_path)
    (result / "res_track.txt").write_text(table)
    assert [line for line in breaches(result) if told in line]


def test_wrong_masks_are_told(tmp_path: Path) -> None:
    truth, result = sequence(tmp_path)
    mask = boxes((1, 3), (2, 20))
    mask[1, 2, 30] = 1
    write_labels(result / "mask001.tif", mask, SPACING)
    write_labels(result / "mask002.tif", boxes((3, 2), (4, 9), (2, 21))[:5], SPACING)
    lines = list(breaches(result))
    assert [line for line in lines if "mask001.tif: expected one piece of label 1, got 2" in line]
    assert [line for line in lines if "mask002.tif: expected 6 x 8 x 32 voxels, got 5 x 8 x 32" in line]
    (result / "mask001.tif").unlink()
    assert [line for line in breaches(result) if "expected a mask of frame 1, got none" in line]
    (truth / "SEG" / "man_seg001.tif").rename(truth / "SEG" / "man_seg0001.tif")
    assert [line for line in breaches(truth) if "expected numbers of one length" in line]


def test_frames_have_to_be_whole(tmp_path: Path) -> None:
    _, result = sequence(tmp_path)
    assert whole_sequence(result, "mask").digits == 3
    (result / "mask000.tif").unlink()
    with pytest.raises(LineageError, match="expected mask of every frame up to 2, 0 are missing"):
        whole_sequence(result, "mask")
    with pytest.raises(NotFoundError, match=r"expected frames t000\.tif"):
        frames_in(result, "t")
    with pytest.raises(NotFoundError, match="expected a table of tracks"):
        read_tracks(result / "none.txt")
