"""Simulated movies: the same seed the same bytes, the truth agrees with itself, cells touch and divide."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from lightsheet.cli.cells.movies import main
from lightsheet.simulate.envelopes import whole_field
from lightsheet.simulate.movies.specimen import STATES, Life, Movie
from lightsheet.volumes.labels import read_labels
from lightsheet.volumes.reading import read_volume
from lightsheet.volumes.tracks.ctc import read_tracks
from lightsheet.volumes.tracks.validate import breaches

SMALL = ["--frames", "12", "--shape", "20,64,64", "--spacing_um", "0.5,0.3,0.3", "--seed", "4"]


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sim")
    assert main([str(folder), "--count", "1", *SMALL]) == 0
    return folder


def test_the_truth_keeps_the_rules(movie: Path) -> None:
    assert [line for line in breaches(movie) if "one piece" not in line] == []
    tracks = read_tracks(movie / "01_GT" / "TRA" / "man_track.txt")
    parents = [one.parent for one in tracks if one.parent]
    assert parents
    assert all(parents.count(parent) <= 2 for parent in parents)


def test_images_show_what_the_masks_say(movie: Path) -> None:
    image = read_volume(movie / "01" / "t005.tif")
    mask, _ = read_labels(movie / "01_GT" / "SEG" / "man_seg005.tif")
    np.testing.assert_allclose(image.info.spacing_um, (0.5, 0.3, 0.3))
    assert image.data[mask > 0].mean() > 2 * image.data[mask == 0].mean()


def test_states_follow_the_lineage(movie: Path) -> None:
    tracks = {one.label: one for one in read_tracks(movie / "01_GT" / "TRA" / "man_track.txt")}
    with (movie / "01_GT" / "states.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    mothers = {one.parent for one in tracks.values()} - {0}
    for row in rows:
        one, time = tracks[int(row["label"])], int(row["t"])
        assert one.begin <= time <= one.end
        if row["state"] == "new daughter":
            assert one.parent and time - one.begin < 2
        if one.label in mothers and one.end - time < 2:
            assert row["state"] == "mitotic"
    assert {"stable", "mitotic", "new daughter"} <= {row["state"] for row in rows}


def test_the_same_seed_gives_the_same_bytes(movie: Path, tmp_path: Path) -> None:
    main([str(tmp_path), "--count", "1", *SMALL])
    digests = [
        {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        for folder in (movie, tmp_path)
    ]
    assert digests[0] == digests[1]


def test_cells_may_look_unlike_and_live_the_same() -> None:
    envelope = whole_field((24, 96, 96), (0.5, 0.3, 0.3))
    plain, varied = (
        list(Movie(np.random.default_rng(1), envelope, Life(4.0, 12.0, 0.03, variety=much)).frames(12))
        for much in (0.0, 1.0)
    )
    ratios: list[float] = []
    sizes: dict[str, list[float]] = {state: [] for state in STATES}
    for one, other in zip(plain, varied, strict=True):
        assert one.states == other.states
        for label, state in one.states.items():
            there, as_well = one.labels == label, other.labels == label
            both = there & as_well
            ratios.append(other.density[both].mean() / one.density[both].mean())
            sizes[state].append(as_well.sum() / there.sum())
    assert 0.1 < np.std(np.log(ratios)) < 0.5
    assert 0.02 < np.mean(np.array(sizes["stable"]) < 0.85) < 0.2  # look condensed, and do not divide
    assert np.mean(np.array(sizes["mitotic"]) > 1.3) > 0.2  # divide, and hardly show it
    assert np.std(sizes["dying"]) < 0.1


def test_views_of_a_study(tmp_path: Path) -> None:
    words = [str(tmp_path), "--study", "1", "--views", "--frames", "2", "--count", "1", "--shape", "24,64,64"]
    assert main(words) == 0
    view, fused = (read_volume(tmp_path / name / "t001.tif").data for name in ("01_VIEW", "01"))
    assert view.shape == fused.shape == (24, 64, 64)
    assert not np.array_equal(view, fused)


def test_what_cannot_be_simulated_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--views"], "--views: expected a study"),
        (["--variety", "2"], "--variety: expected 0 to 1, got 2"),
        (["--frames", "0"], "--frames: expected at least 1, got 0"),
        (["--shape", "4,8,8"], "--shape: expected at least"),
        (
            ["--shape", "16,64,64"],
            "--shape: expected room for a nucleus of 4 um, got a field of 3.2 x 8 x 8 um",
        ),
    ):
        assert main([str(tmp_path), *words]) == 2
        assert told in capsys.readouterr().err
