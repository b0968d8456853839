"""Crops as folders by class: they come back, are sorted by hand, and those of others are read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.classify.crops import NO_AFTER, Crops
from lightsheet.classify.folders import is_crops, load_crops, save_crops
from lightsheet.classify.rules import STATES, UNKNOWN
from lightsheet.classify.splits import split
from lightsheet.cli.cells.classify import main
from lightsheet.core.errors import NotFoundError, SettingsError, VolumeError
from lightsheet.volumes.info import Overrides


def crops_of(states: list[int]) -> Crops:
    rng = np.random.default_rng(0)
    count = len(states)
    data = rng.random((count, 4, 8, 8, 8)).astype(np.float16)
    numbers = np.arange(count)
    places = rng.random((count, 3))
    names = np.array(["a", "b"] * count)[:count]
    return Crops(data, np.array(states), names, numbers, numbers + 1, numbers, places, numbers, places[:, 0])


def test_crops_come_back_to_the_bit_from_file_and_folders(tmp_path: Path) -> None:
    crops = crops_of([0, 1, 2, 3, UNKNOWN])
    for name in ("crops", "crops.h5"):
        save_crops(tmp_path / name, crops)
        again = load_crops(tmp_path / name, Overrides())
        at = {name: row for row, name in enumerate(again.names)}
        order = np.array([at[name] for name in crops.names])
        for one in ("data", "states", "embryos", "families", "places_um", "flags", "side_um"):
            np.testing.assert_array_equal(getattr(again, one)[order], getattr(crops, one))
    folder = tmp_path / "crops" / "death" / "b_frame_003_nucleus_004"
    assert set((tmp_path / "crops").iterdir()) == {tmp_path / "crops" / name for name in (*STATES, "unknown")}
    binary = tifffile.imread(folder / "t" / "binary_label_cropped.tif")
    np.testing.assert_array_equal(binary, crops.data[3, 3] >= 0.5)


def test_a_crop_that_is_moved_is_of_the_other_class(tmp_path: Path) -> None:
    save_crops(tmp_path / "crops", crops_of([0, 1, 2, 3]))
    name = "a_frame_000_nucleus_001"
    shutil.move(tmp_path / "crops" / "mitotic" / name, tmp_path / "crops" / "death" / name)
    again = load_crops(tmp_path / "crops", Overrides())
    assert {one: STATES[s] for one, s in zip(again.names, again.states, strict=True)}[name] == "death"
    shutil.move(tmp_path / "crops" / "death", tmp_path / "crops" / "dead")
    with pytest.raises(VolumeError, match=r"dead: expected a class out of mitotic, .*, unknown, got 'dead'"):
        load_crops(tmp_path / "crops", Overrides())


def another(
    folder: Path, mask: str = "binary_label_cropped.tif", after: tuple[int, ...] = (20, 24, 24)
) -> Path:
    """A crop as system 003 has it: counts of any size, a mask, metadata of its own."""
    z, y, x = np.indices((20, 24, 24))
    nucleus = (z - 10) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 < 30
    counts = (200 + 900 * nucleus + np.random.default_rng(0).integers(0, 50, nucleus.shape)).astype(np.uint16)
    for time in ("t-1", "t"):
        (folder / time).mkdir(parents=True)
        tifffile.imwrite(folder / time / "raw_cropped.tif", counts, photometric="minisblack")
    if after:
        (folder / "t+1").mkdir()
        data = np.resize(counts, after)
        tifffile.imwrite(folder / "t+1" / "raw_cropped.tif", data, photometric="minisblack")
    tifffile.imwrite(folder / "t" / mask, nucleus.astype(np.uint8), photometric="minisblack")
    (folder / "metadata.json").write_text(json.dumps({"timeframe": 7, "node_id": "007_012"}))
    return folder


def test_folders_of_others_are_cut_as_movies_are(tmp_path: Path) -> None:
    given = ["--spacing_um", "0.5", "0.5", "0.5"]
    one = another(tmp_path / "in" / "stable" / "stack6_frame_007_nucleus_012_count_080", "label_cropped.tif")
    another(tmp_path / "in" / "mitotic" / "stack6_frame_009_nucleus_003_count_080", after=())
    assert is_crops(tmp_path / "in") and is_crops(one) and not is_crops(one / "t")
    crops = load_crops(tmp_path / "in", Overrides(spacing_um=(0.5, 0.5, 0.5)), 16)
    assert crops.names == ["stack6_frame_009_nucleus_003", "stack6_frame_007_nucleus_012"]
    assert [STATES[state] for state in crops.states] == ["mitotic", "stable"]
    assert (crops.flags & NO_AFTER > 0).tolist() == [True, False]
    inside = crops.data[1, 3] > 0.5
    assert crops.data[1, 1][inside].mean() > 0.8 and crops.data[1, 1][~inside].mean() < 0.2
    diameter = crops.side_um[1] * (6 * inside.sum() / np.pi) ** (1 / 3) / 16
    assert diameter == pytest.approx(2 * np.sqrt(30) * 0.5, rel=0.1)
    with pytest.raises(SettingsError, match="of one family"):
        split(crops, 0.2, 0)
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "in"), "--output", str(out), "--device", "cpu", *given]) == 0
    assert len((out / "states.csv").read_text().splitlines()) == 3


def test_folders_that_can_not_be_used_are_told(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(NotFoundError, match="expected crops, folders with t-1, t, t"):
        load_crops(tmp_path / "none", Overrides())
    known = Overrides(spacing_um=(1.0, 1.0, 1.0))
    other = another(tmp_path / "a" / "stable" / "c", after=(20, 24, 20))
    with pytest.raises(VolumeError, match=r"expected images of \(20, 24, 24\) voxels around frame 1"):
        load_crops(tmp_path / "a", known, 16)
    (other / "t" / "binary_label_cropped.tif").unlink()
    with pytest.raises(NotFoundError, match=r"expected raw_cropped\.tif and binary_label_cropped\.tif or"):
        load_crops(tmp_path / "a", known, 16)
    save_crops(tmp_path / "ours", crops_of([2]))
    about = next((tmp_path / "ours" / "stable").iterdir()) / "metadata.json"
    about.write_text(about.read_text().replace('"family": 0', '"family": "x"'))
    with pytest.raises(VolumeError, match=r"metadata\.json: expected what extract wrote, got"):
        load_crops(tmp_path / "ours", Overrides())


def test_two_crops_are_not_made_one(tmp_path: Path) -> None:
    crops = crops_of([0, 1])
    with pytest.raises(VolumeError, match="expected crops of unlike names, got several of a_frame_000"):
        save_crops(tmp_path / "crops", crops.some(np.array([0, 0])))
    assert not (tmp_path / "crops").exists()
