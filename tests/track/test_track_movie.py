"""A movie of masks to a folder of the challenge: not a voxel changed but its number."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

from lightsheet.cli.cells.track import main
from lightsheet.cli.evaluate import main as evaluate
from lightsheet.evaluate.cells.ctc import score_sequence
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.simulate.movies.specimen import Life
from lightsheet.track.figures import places_in_tree
from lightsheet.track.link import linked
from lightsheet.track.settings import LinkSettings
from lightsheet.volumes.labels import read_labels
from lightsheet.volumes.objects import objects_of
from lightsheet.volumes.tracks.lineage import Lineage, Track
from lightsheet.volumes.tracks.tables import read_table, write_table
from lightsheet.volumes.tracks.validate import breaches
from tracks_data import boxes, cells, sequence


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated sequence of 14 frames in which cells divide."""
    folder = tmp_path_factory.mktemp("movie")
    life = Life(4.0, cycle_frames=10, death=0, step_um=0.12, jump_um=1.0, jumps=0.2)
    make_movie(folder, movie_job(None, 3, 1, 14, (24, 80, 80), spacing_um=(0.4, 0.25, 0.25), life=life))
    return folder


def test_objects_have_centre_and_size() -> None:
    found = objects_of(boxes((1, 2), (9, 20)))
    assert found.labels.tolist() == [1, 9]
    assert found.centres.tolist() == [[2.5, 3.5, 3.5], [2.5, 3.5, 21.5]]
    assert found.voxels.tolist() == [64, 64]


def test_a_tree_puts_mothers_between_their_daughters() -> None:
    tracks = [Track(1, 0, 2), Track(2, 0, 9), Track(3, 3, 5, 1), Track(4, 3, 9, 1), Track(5, 6, 9, 3)]
    assert places_in_tree(tracks) == {5: 0.0, 3: 0.0, 4: 1.0, 1: 0.5, 2: 2.0}


def test_an_input_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "cells.csv"
    write_table(source, cells())

    def linked_slowly(found: Lineage, settings: LinkSettings, evidence: None) -> Lineage:
        source.write_text(source.read_text() + "999,9,1,1,1,1,1,1,1,-1,0,1\n")
        return linked(found, settings, evidence)

    monkeypatch.setattr("lightsheet.track.predict.linked", linked_slowly)
    assert main([str(source), str(tmp_path / "out")]) == 2
    assert "written to while it was read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_far_apart_cost_no_memory() -> None:
    mask = boxes((1, 2), (2, 20)).astype(np.uint32)
    mask[mask == 2] = 4_000_000_000
    found = objects_of(mask)
    assert found.labels.tolist() == [1, 4_000_000_000]
    assert found.centres[1].tolist() == [2.5, 3.5, 21.5]


def test_a_movie_is_tracked(movie: Path, tmp_path: Path) -> None:
    out = tmp_path / "01_RES"
    shuffled = tmp_path / "masks"
    shuffled.mkdir()
    rng = np.random.default_rng(0)
    for path in sorted((movie / "01_GT" / "SEG").glob("*.tif")):  # labels that tell nothing
        mask, _ = read_labels(path)
        numbers = np.concatenate(([0], 1 + rng.permutation(int(mask.max()))))
        tifffile.imwrite(shuffled / path.name, numbers[mask].astype(np.uint16), photometric="minisblack")
    assert main([str(shuffled), str(out), "--spacing_um", "0.4,0.25,0.25", "--view"]) == 0
    with Image.open(out / "tracks.gif") as movie_file:
        assert sum(1 for _ in ImageSequence.Iterator(movie_file)) == 14
        assert movie_file.size == (480, 480)
    assert (out / "lineage.png").stat().st_size > 5000
    for path in sorted(out.glob("mask*.tif")):
        before, _ = read_labels(shuffled / path.name.replace("mask", "man_seg"))
        after, _ = read_labels(path)
        np.testing.assert_array_equal(before > 0, after > 0)
        pairs = np.unique(np.stack((before.ravel(), after.ravel())), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert not [line for line in breaches(out) if "one piece" not in line]
    values = score_sequence(movie / "01_GT", out).values
    assert values["DET"] == values["SEG"] == 1
    assert values["LNK"] > 0.99
    assert values["division_F1"] > 0.9
    record = json.loads((out / "tracking.json").read_text())
    assert record["found"]["cells"] == len(read_table(out / "cells.csv"))


def test_what_was_done_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_table(tmp_path / "cells.csv", cells())
    words = [str(tmp_path / "cells.csv"), str(tmp_path / "out")]
    assert main(words) == 0
    first = (tmp_path / "out" / "res_track.txt").stat().st_mtime_ns
    caplog.set_level("INFO", "lightsheet")
    assert main(words) == 0
    assert "done before, kept" in caplog.text
    assert (tmp_path / "out" / "res_track.txt").stat().st_mtime_ns == first
    assert main([*words, "--max_gap", "0"]) == 0
    assert (tmp_path / "out" / "res_track.txt").stat().st_mtime_ns != first


def write(folder: Path, **masks: np.ndarray) -> Path:
    folder.mkdir()
    for name, mask in masks.items():
        tifffile.imwrite(folder / f"{name}.tif", mask, photometric="minisblack")
    return folder


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({}, "expected masks, numbered by frame"),
        (
            {"m0": boxes((1, 2)), "m2": boxes((1, 2))},
            "expected a mask of each frame from 0 to 2, 1 are missing",
        ),
        ({"m0": boxes((1, 2)), "n1": boxes((1, 2))}, r"expected masks of one movie, got m\*, n\*"),
        ({"m0": boxes((1, 2)), "m1": boxes((1, 2))[:4]}, "expected 6 x 8 x 32 voxels as in the first frame"),
        ({"m0": boxes((1, 2)).astype(float) / 2}, "broken ones; is it an image"),
        ({"m0": boxes(), "m1": boxes()}, "expected masks with cells, got none in 2 frames"),
    ],
)
def test_movies_that_cannot_be_used(
    tmp_path: Path, masks: dict[str, np.ndarray], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "in", **masks)
    assert main([str(folder), str(tmp_path / "out"), "--spacing_um", "1,1,1"]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_places_are_scored_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(tmp_path / "cells.csv", cells())
    main([str(tmp_path / "cells.csv"), str(tmp_path / "out")])
    capsys.readouterr()
    words = ["--prediction", str(tmp_path / "out" / "cells.csv"), "--lineage", str(tmp_path / "cells.csv")]
    assert evaluate([*words, "--out", str(tmp_path / "report")]) == 0
    told = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert told["link_F1"] == told["division_F1"] == "1.0000"
    assert told["false_divisions_per_1000_links"] == "0.0000"
    geff = ["--prediction", str(tmp_path / "out" / "lineage.geff"), *words[2:]]
    assert evaluate([*geff, "--out", str(tmp_path / "report"), "--match_um", "0"]) == 2
    assert "--match_um: expected a length above 0" in capsys.readouterr().err


def test_sequences_are_scored_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence(tmp_path)
    words = ["--prediction", str(tmp_path), "--ctc", str(tmp_path), "--out", str(tmp_path / "report")]
    assert evaluate(words) == 0
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert dict(zip(head.split(), line.split(), strict=True))["TRA"] == "1.0000"
    assert "01_RES" in (tmp_path / "report" / "cells.csv").read_text()


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(tmp_path / "cells.csv", cells())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main([str(tmp_path / "cells.csv"), str(tmp_path / "out")]) == 2
    assert "got one of other files" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
