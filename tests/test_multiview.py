"""Real pairs from four views: a simulated copy of the published layout, through all steps."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from lightsheet.volumes.reading import read_volume
from recipes.multiview import VIEWS, Microscope, main, on_one_grid, time_points

SPACING = 0.6
RAW = (1.2, 0.6, 0.6)


def specimen(seed: int) -> np.ndarray:
    """An egg of membranes on cubic voxels, with detail everywhere."""
    rng = np.random.default_rng(seed)
    shape = (56, 48, 64)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij", sparse=True)
    egg = (z / 0.75) ** 2 + (y / 0.8) ** 2 + (x / (0.85 - 0.2 * z)) ** 2 < 1
    cells = ndimage.gaussian_filter(rng.normal(size=shape), 2.5)
    walls = np.exp(-((cells / cells.std()) ** 2) / 0.1)
    return (np.where(egg, 200 + 3000 * walls, 0)).astype(np.float32)


def raw_views(truth: np.ndarray, folder: Path, time: int) -> None:
    """What the microscope writes: the specimen turned, seen from either side, blurred in the depth."""
    rng = np.random.default_rng(time)
    for number, (where, turns, opposite) in enumerate(VIEWS):
        seen = ndimage.shift(truth, rng.uniform(-2, 2, 3), order=1) if number else truth
        seen = np.rot90(seen, -turns, axes=(0, 2))
        if opposite:
            seen = seen[::-1]
        depth = np.linspace(0, 1, len(seen))[:, None, None]
        blurred = ndimage.gaussian_filter(seen, (2.0, 2.0, 2.0))
        seen = ((1 - depth) * seen + depth * blurred) * (1 - 0.6 * depth)
        if opposite:
            seen = seen[:, :, ::-1]
        stack = ndimage.zoom(seen, [SPACING / size for size in RAW], order=1, grid_mode=True, mode="nearest")
        stack = np.clip(stack + rng.normal(20, 5, stack.shape), 0, 65535).astype(np.uint16)
        path = folder / where / f"Cam_{'Right' if opposite else 'Left'}_{time:05d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, stack)


def likeness(volume: np.ndarray, truth: np.ndarray) -> float:
    inside = truth > 0
    return float(np.corrcoef(volume[inside].astype(float), truth[inside])[0, 1])


def test_a_view_without_shift_is_brought_back_onto_the_grid(tmp_path: Path) -> None:
    truth = specimen(0)
    raw_views(truth, tmp_path, 0)
    back = on_one_grid(tmp_path / "LC/Stack0000/Cam_Left_00000.tif", 0, False, Microscope(RAW), SPACING)
    assert back.shape == truth.shape
    turned = on_one_grid(tmp_path / "LC/Stack0001/Cam_Left_00000.tif", 1, False, Microscope(RAW), SPACING)
    assert turned.shape == truth.shape
    assert likeness(back, truth) > 0.7


def test_time_points_that_lack_a_view_are_left_out(tmp_path: Path) -> None:
    truth = specimen(0)
    for time in (3, 4):
        raw_views(truth, tmp_path / "DATA", time)
    (tmp_path / "DATA/RC/Stack0001/Cam_Right_00004.tif").unlink()
    assert list(time_points(tmp_path)) == [3]  # also a folder further down
    assert main(["--raw", str(tmp_path / "none"), "--output", str(tmp_path / "o")]) == 2


@pytest.mark.slow
def test_four_views_become_pairs_better_than_any_of_them(tmp_path: Path) -> None:
    for time in range(10):
        raw_views(specimen(1), tmp_path / "raw", time)
    words = ["--raw", str(tmp_path / "raw"), "--output", str(tmp_path / "out"), "--spacing_um", str(SPACING)]
    words += ["--raw_spacing_um", ",".join(map(str, RAW))]
    assert main(words) == 0
    truth = specimen(1)
    pairs = tmp_path / "out" / "pairs"
    for time in (0, 5):
        name = f"embryo_t{time:04d}_membrane"
        fused = read_volume(pairs / f"{name}_fused.tif")
        views = [read_volume(pairs / f"{name}_angle{n}.tif").data for n in ("", "2", "3", "4")]
        assert fused.info.spacing_um == pytest.approx((SPACING,) * 3)
        assert all(likeness(view, truth) > 0.6 for view in views)  # all are registered
        assert likeness(fused.data, truth) > max(likeness(view, truth) for view in views) + 0.02
    lists = {path.name: path.read_text().splitlines() for path in (tmp_path / "out" / "splits").glob("*.csv")}
    assert {name: len(lines) for name, lines in lists.items()} == {
        "Study9_membrane_train.csv": 6,
        "Study9_membrane_val.csv": 1,
        "Study9_membrane_test.csv": 1,
    }
    angle, fused_name = lists["Study9_membrane_train.csv"][0].split(";")
    assert (tmp_path / "out" / "h5" / angle).is_file() and (tmp_path / "out" / "h5" / fused_name).is_file()
    before = {path: path.stat().st_mtime_ns for path in pairs.glob("*.tif")}
    assert main([*words, "--only_pairs"]) == 0
    assert {path: path.stat().st_mtime_ns for path in pairs.glob("*.tif")} == before
