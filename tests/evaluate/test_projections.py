"""Maximum projections against numpy, their files and the montage."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.evaluate.projections import Projections, files_of, montage, write_projections


def projected(data: np.ndarray, steps: list[int]) -> Projections:
    result = Projections(data.shape, data.dtype)
    z = 0
    for step in steps:
        result.add(data[z : z + step])
        z += step
    return result


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_projections_are_numpys_maxima(dtype: str) -> None:
    data = np.random.default_rng(0).normal(0, 900, (9, 11, 13)).astype(dtype)
    for steps in ([9], [1] * 9, [4, 5]):
        ours = projected(data, steps)
        np.testing.assert_array_equal(ours.xy, data.max(axis=0))
        np.testing.assert_array_equal(ours.xz, data.max(axis=1))
        np.testing.assert_array_equal(ours.yz, data.max(axis=2))


def test_files_hold_counts_and_pixel_sizes(tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 60000, (5, 7, 6)).astype(np.uint16)
    files = files_of(tmp_path, "a")
    write_projections(projected(data, [5]), files, (2.0, 0.5, 0.25))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a_XY.tif",
        "a_XZ.tif",
        "a_YZ.tif",
        "a_projections.png",
    ]
    with tifffile.TiffFile(files["YZ"]) as tif:
        np.testing.assert_array_equal(tif.asarray(), data.max(axis=2))
        assert tif.series[0].axes == "ZY"
        assert tif.pages[0].resolution == pytest.approx((1e4 / 0.5, 1e4 / 2.0))
        assert tif.shaped_metadata[0]["pixel_size_um"] == [2.0, 0.5]


def test_montage_is_to_scale() -> None:
    """XY of 4 x 6 voxels of 1 µm, Z of 3 planes of 2 µm: pixels of 1 µm."""
    data = np.zeros((3, 4, 6), np.uint16)
    data[2, 1, 5] = 1000
    picture = montage(projected(data, [3]), (2.0, 1.0, 1.0))
    assert picture.shape == (4 + 6 + 6, 6 + 6 + 6)
    places = {tuple(int(i) for i in at) for at in np.argwhere(picture == 255)}
    assert (1, 5) in places  # XY: row Y, column X
    assert {(1, 6 + 6 + 4), (1, 6 + 6 + 5)} <= places  # YZ to the right: columns are Z, plane 2
    assert {(4 + 6 + 4, 5), (4 + 6 + 5, 5)} <= places  # XZ below: rows are Z
    assert picture[0, 0] == picture[1, 12] == 0


@pytest.mark.parametrize(("gain", "offset"), [(1e-12, 0.0), (1.0, -7000.0), (1e-3, 1e6)])
def test_a_montage_looks_the_same_whatever_the_numbers(gain: float, offset: float) -> None:
    data = np.random.default_rng(2).integers(0, 6000, (5, 7, 6)).astype(np.float64)
    wanted = montage(projected(data, [5]), None).astype(int)
    assert np.abs(montage(projected(gain * data + offset, [5]), None) - wanted).max() <= 1
    assert len(np.unique(wanted)) > 50
