"""Trackastra is run by its own Python; here a stand-in of its interface that takes the nearest cell."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.cli.cells.track import main
from lightsheet.simulate.movies.folder import make_movie, movie_job
from lightsheet.simulate.movies.specimen import Life
from lightsheet.volumes.labels import read_labels
from lightsheet.volumes.tracks.tables import read_table

MODEL = """
from types import SimpleNamespace
import numpy as np
from scipy import ndimage


class Graph:
    def __init__(self, nodes, edges):
        self.nodes, self._edges = nodes, edges

    def edges(self, data):
        return [(one, other, {"weight": weight}) for one, other, weight in self._edges]


class Trackastra:
    def __init__(self, where):
        print(where)

    @classmethod
    def from_pretrained(cls, name, device):
        assert name == "ctc"
        return cls(name)

    @classmethod
    def from_folder(cls, folder, device):
        return cls(folder)

    def track(self, images, masks, mode, max_distance=256):
        assert images.shape == masks.shape and images.dtype == np.float32
        assert images[masks > 0].mean() > 2 * images[masks == 0].mean()
        nodes, edges, before = {}, [], {}
        for time, mask in enumerate(masks):
            labels = np.unique(mask[mask > 0])
            now = dict(zip(labels.tolist(), np.array(ndimage.center_of_mass(mask > 0, mask, labels))))
            nodes |= {(time, label): {"time": time, "label": label} for label in now}
            for label, place in now.items():
                far = {one: np.linalg.norm(place - other) for one, other in before.items()}
                nearest = min(far, key=far.get, default=None)
                if nearest is not None and far[nearest] <= max_distance:
                    taken = any(edge[0] == (time - 1, nearest) for edge in edges)
                    if mode == "greedy" or not taken:
                        edges.append(((time - 1, nearest), (time, label), 0.75))
            before = now
        return Graph(nodes, edges)
"""


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated sequence of 12 frames in which cells divide, on a stage that stands still."""
    folder = tmp_path_factory.mktemp("movie")
    life = Life(4.0, cycle_frames=10, death=0, step_um=0.1, drift_um=0.0, jumps=0.0)
    make_movie(folder, movie_job(None, 3, 1, 12, (24, 80, 80), spacing_um=(0.4, 0.25, 0.25), life=life))
    return folder


def python_with(folder: Path, text: str | None) -> Path:
    """Python that has a module of the name of Trackastra."""
    start = folder / "python"
    begin = f"PYTHONPATH={folder} exec {sys.executable}"
    if text is None:
        begin = f"exec {sys.executable} -I"
    else:
        (folder / "trackastra").mkdir()
        (folder / "trackastra" / "__init__.py").write_text("")
        (folder / "trackastra" / "model.py").write_text(text)
    start.write_text(f'#!/bin/sh\n{begin} "$@"\n')
    start.chmod(0o755)
    return start


def words(movie: Path, out: Path, python: Path) -> list[str]:
    masks, images = str(movie / "01_GT" / "TRA"), str(movie / "01")
    return [masks, str(out), "--images", images, "--trackastra", str(python)]


def test_its_edges_become_tracks_and_masks_stay(movie: Path, tmp_path: Path) -> None:
    python = python_with(tmp_path, MODEL)
    assert main(words(movie, tmp_path / "out", python)) == 0
    lineage = read_table(tmp_path / "out" / "cells.csv")
    assert len(lineage.frames) == 12
    assert len(lineage.divisions) >= 3
    with (tmp_path / "out" / "cells.csv").open(newline="") as stream:
        certain = {row["certainty"] for row in csv.DictReader(stream)}
    assert {float(one) for one in certain} == {0.75, 1.0}  # of links, and of cells that come from none
    for path in sorted((tmp_path / "out").glob("mask*.tif")):
        before, _ = read_labels(movie / "01_GT" / "TRA" / path.name.replace("mask", "man_track"))
        np.testing.assert_array_equal(before > 0, read_labels(path)[0] > 0)
    assert not list(tmp_path.glob(".out.*"))
    none = tmp_path / "none"
    assert main([*words(movie, none, python), "--no_divisions", "--trackastra_model", str(tmp_path)]) == 0
    assert not len(read_table(none / "cells.csv").divisions)
    near = tmp_path / "near"
    assert main([*words(movie, near, python), "--max_distance_um", "0.3"]) == 0
    assert (read_table(near / "cells.csv").parents >= 0).sum() < (lineage.parents >= 0).sum()


def test_what_it_cannot_do_is_told_in_a_line(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "without").mkdir()
    bad = python_with(tmp_path / "bad", "raise ValueError('no weights')")
    without = python_with(tmp_path / "without", None)
    few = tmp_path / "few"
    few.mkdir()
    tifffile.imwrite(few / "t000.tif", np.zeros((24, 80, 80), np.uint16), photometric="minisblack")
    given = words(movie, tmp_path / "out", bad)
    images = given.index("--images")
    for line, told in (
        (given, "expected edges, got exit code 1, 'ValueError: no weights'"),
        (
            words(movie, tmp_path / "out", without),
            "expected a Python that has Trackastra, got one without; make",
        ),
        (
            words(movie, tmp_path / "out", tmp_path / "nothing"),
            "Python that has Trackastra, got 'No such file",
        ),
        ([*given[:images], *given[images + 2 :]], "--trackastra: expected --images with it, got none"),
        ([*given[:3], str(few), *given[4:]], "expected an image for each of 12 masks, got 1"),
        ([*given, "--states", str(few / "states.csv")], "--states: expected our own linking"),
    ):
        assert main(line) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
