"""Cubes of known images: in micrometres, of planes too, with the drift of the specimen taken off."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.classify.crops import (
    Cutter,
)
from lightsheet.classify.extract import Drift, drift_between
from lightsheet.classify.movies import Cells, cells_in, movie_files
from lightsheet.cli.cells.classify import main
from lightsheet.volumes.info import Overrides
from lightsheet.volumes.labels import read_labels, write_labels


def test_cubes_are_of_micrometres() -> None:
    z, y, x = np.meshgrid(np.arange(20) * 2.0, np.arange(50), np.arange(60), indexing="ij")
    image = (0.02 * x + 0.01 * y - 0.005 * z).astype(np.float32)
    cutter = Cutter((2.0, 1.0, 1.0), 12.0, 8)
    cube, outside = cutter.image(image, np.array([10.0, 25.0, 30.0]))
    assert outside == 0
    step = np.arange(8) * 1.5 - 5.25
    wanted = 0.02 * (30 + step)[None, None] + 0.01 * (25 + step)[:, None] - 0.005 * (20 + step)[:, None, None]
    np.testing.assert_allclose(cube, wanted, atol=0.02)
    corner, outside = cutter.image(image, np.array([0.0, 0.0, 0.0]))
    assert outside == pytest.approx(1 - 0.5**3, abs=0.05)
    assert not corner[:4, :4, :4].any()
    labels = np.zeros(image.shape, np.uint16)
    labels[8:13, 22:29, 27:34] = 3
    mask = cutter.mask(labels, 3, np.array([10.0, 25.0, 30.0]))
    assert mask.sum() * 1.5**3 == pytest.approx(10 * 7 * 7, rel=0.1)


def test_planes_are_as_thick_as_a_nucleus() -> None:
    plane = np.ones((1, 40, 40), np.float32)
    cutter = Cutter((1.0, 1.0, 1.0), 16.0, 16, 6.0)
    cube, outside = cutter.image(plane, np.array([0.0, 20.0, 20.0]))
    np.testing.assert_array_equal(cube[:, 8, 8], [0] * 5 + [1] * 6 + [0] * 5)
    assert outside == 0
    _, outside = cutter.image(plane, np.array([0.0, 0.0, 20.0]))
    assert outside == pytest.approx(0.5, abs=0.05)
    labels = np.zeros(plane.shape, np.uint16)
    labels[:, 18:23, 17:24] = 3
    assert cutter.mask(labels, 3, np.array([0.0, 20.0, 20.0])).sum() == pytest.approx(5 * 7 * 6, rel=0.1)


def test_states_of_a_movie_in_2d(tmp_path: Path) -> None:
    y, x = np.indices((90, 90))
    for frame in range(3):
        labels = np.zeros((90, 90), np.uint16)
        for number, (cy, cx) in enumerate([(30, 30), (45 + frame, 45), (60, 55)], start=1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 50] = number
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / "images" / f"t{frame:03d}.tif", (100 + 400 * (labels > 0)).astype(np.uint16)
        )
        write_labels(tmp_path / "masks" / f"mask{frame:03d}.tif", labels[None], (1.0, 0.5, 0.5))
    words = ["--masks", str(tmp_path / "masks"), "--output", str(tmp_path / "told"), "--video"]
    assert main(["predict", str(tmp_path / "images"), *words, "--spacing_um", "1,0.5,0.5", "--register"]) == 0
    with (tmp_path / "told" / "states.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    assert {row["z_um"] for row in rows} == {"0.0000"}
    assert [row["remark"] for row in rows if row["t"] == "1"] == [""] * 3
    assert read_labels(tmp_path / "told" / "states001.tif")[0].shape == (1, 90, 90)
    assert (tmp_path / "told" / "states.gif").is_file()
    cells = cells_in(movie_files(tmp_path / "images", tmp_path / "masks"), Overrides((1.0, 0.5, 0.5)))
    assert cells.flat
    assert cells.usual_diameter_um() == pytest.approx(7.0, rel=0.03)  # 2 sqrt(50) pixels


def drawn(places: np.ndarray) -> np.ndarray:
    """An image (48, 48, 48) of small balls."""
    grid = np.stack(np.indices((48, 48, 48)))
    away = [((grid - place[:, None, None, None]) ** 2).sum(axis=0) for place in places]
    return np.exp(-np.min(away, axis=0) / 8).astype(np.float32)


def test_drift_is_found() -> None:
    places = np.random.default_rng(0).uniform(12, 36, (12, 3))
    one, two = drawn(places), drawn(places + (2, -3, 4))
    np.testing.assert_allclose(drift_between(one, two), (2, -3, 4), atol=0.5)
    assert not drift_between(one, one).any()
    noise = np.random.default_rng(1).normal(size=(2, 48, 48, 48)).astype(np.float32)
    bright = one + 20 * np.exp(
        -((np.indices(one.shape) - 24) ** 2).sum(axis=0) / 8
    )  # one cell that flares up
    assert np.abs(drift_between(one + 0.05 * noise[0], bright + 0.05 * noise[1])).max() < 1


def test_drift_is_that_of_the_cells_where_there_are_masks() -> None:
    """And of the images where there are none."""
    rng = np.random.default_rng(0)
    places = rng.uniform(12, 36, (12, 3))
    moved = places + (2, -3, 4) + rng.normal(0, 0.2, (12, 3))
    times = np.repeat([5, 6], 12)
    cells = Cells(
        times,
        np.tile(np.arange(1, 13), 2),
        np.concatenate([places, moved]),
        np.full(24, 50),
        np.full(24, -1),
        (2.0, 0.5, 0.5),
    )
    nothing = np.zeros((48, 48, 48), np.float32)
    before, found, after = Drift(cells).of(5, [drawn(places - (0, 3, 3)), drawn(places), nothing])
    np.testing.assert_allclose(after, (2, -3, 4), atol=0.2)
    np.testing.assert_allclose(before, (0, -3, -3), atol=0.5)
    assert not found.any()
