"""Volumes on other grids: known values, slabs as the whole, labels."""

import numpy as np
import pytest

from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from lightsheet.volumes.resampled import (
    nearest,
    resampled,
    resampled_planes,
    resampled_volume,
    shape_for,
    spacing_on,
    weights_along,
)

DATA = np.random.default_rng(0).random((20, 26, 31)).astype(np.float32)
SHAPES = [(20, 26, 31), (10, 13, 31), (41, 26, 15), (7, 60, 62)]


@pytest.mark.parametrize("new", [5, 19, 33])
def test_weights_add_up_and_keep_a_slope(new: int) -> None:
    weights = weights_along(20, new)
    assert weights is not None
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1, rtol=1e-6)
    slope = weights @ (np.arange(20, dtype=np.float32) + 0.5)
    inner = slice(new // 5 + 1, -(new // 5) - 1)  # within the border, where triangles are not cut
    np.testing.assert_allclose(slope[inner], ((np.arange(new) + 0.5) * 20 / new)[inner], atol=0.03)


def test_nothing_changes_on_the_same_grid() -> None:
    assert weights_along(7, 7) is None
    np.testing.assert_array_equal(resampled(DATA, (20, 26, 31)), DATA)


def test_halving_smooths_and_doubling_interpolates() -> None:
    line = np.array([0, 0, 8, 0, 0, 0], np.float32).reshape(1, 1, 6)
    np.testing.assert_allclose(resampled(line, (1, 1, 3)).ravel(), [1, 3, 0], atol=1e-6)
    np.testing.assert_allclose(
        resampled(line, (1, 1, 12)).ravel(), [0, 0, 0, 2, 6, 6, 2, 0, 0, 0, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_slabs_are_those_of_the_whole(shape: tuple[int, int, int]) -> None:
    info = VolumeInfo("a", (20, 26, 31), "float32", (2.0, 1.0, 1.0))
    volume = resampled_volume(LazyVolume(info, lambda first, last: DATA[first:last]), shape)
    whole = resampled(DATA, shape)
    assert volume.shape_zyx == shape
    assert volume.info.spacing_um == spacing_on((20, 26, 31), (2.0, 1.0, 1.0), shape)
    for first in range(0, shape[0], 6):
        planes = slice(first, min(first + 6, shape[0]))
        np.testing.assert_allclose(volume.read(planes.start, planes.stop), whole[planes], atol=1e-6)
        np.testing.assert_allclose(resampled_planes(DATA, shape, planes), whole[planes], atol=1e-6)


def test_labels_take_the_voxel_that_their_middle_lies_in() -> None:
    labels = np.array([1, 1, 2, 2, 3, 3], np.uint16).reshape(1, 1, 6)
    assert nearest(labels, (1, 1, 3)).ravel().tolist() == [1, 2, 3]
    assert nearest(labels, (2, 1, 12))[1].ravel().tolist() == [1] * 4 + [2] * 4 + [3] * 4


def test_a_grid_for_voxels_of_a_size() -> None:
    assert shape_for((10, 20, 30), (2.0, 1.0, 0.5), (1.0, 1.0, 1.0)) == (20, 20, 15)
    assert shape_for((1, 1, 1), (0.1, 0.1, 0.1), (5.0, 5.0, 5.0)) == (1, 1, 1)
