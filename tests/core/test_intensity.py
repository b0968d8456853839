"""Percentiles against numpy, and normalisation that is undone exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization, percentiles, percentiles_of_slabs
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume

RANDOM = np.random.default_rng(0)
VOLUMES: dict[str, np.ndarray] = {
    "uint16": RANDOM.integers(0, 65536, (7, 31, 29)).astype(np.uint16),
    "dim uint16": RANDOM.poisson(90, (7, 31, 29)).astype(np.uint16),
    "uint8": RANDOM.integers(0, 256, (5, 6, 7)).astype(np.uint8),
    "int16": RANDOM.integers(-300, 400, (5, 60, 7)).astype(np.int16),
    "float32": RANDOM.normal(0, 10, (5, 60, 7)).astype(np.float32),
    "one voxel": np.array([[[17]]], np.uint16),
}


@pytest.mark.parametrize("q", [(2.0, 99.8), (0.0, 100.0), (37.3, 50.0)])
@pytest.mark.parametrize("name", VOLUMES)
def test_percentiles_equal_numpys(name: str, q: tuple[float, float]) -> None:
    data = VOLUMES[name]
    expected = np.percentile(data.astype(np.float64), q)
    assert percentiles(data, q) == tuple(expected)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=60), st.floats(0, 100))
@settings(max_examples=200, deadline=None)
def test_percentiles_equal_numpys_for_any_counts(counts: list[int], percent: float) -> None:
    data = np.array(counts, np.uint16)
    low, _ = percentiles(data, (percent, 100.0))
    assert low == pytest.approx(np.percentile(data, percent), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("name", ["uint16", "float32"])
def test_percentiles_of_pieces_are_those_of_the_whole(name: str) -> None:
    data = VOLUMES[name]
    info = VolumeInfo("here", data.shape, str(data.dtype))
    lazy = LazyVolume(info, lambda z0, z1: data[z0:z1])
    assert percentiles_of_slabs(iter([data[:3], data[3:]])) == percentiles(data) == percentiles(lazy)


def test_percentiles_refuse_nothing_and_nan() -> None:
    with pytest.raises(VolumeError, match="expected at least one voxel, got an empty volume"):
        percentiles_of_slabs([])
    with pytest.raises(VolumeError, match="expected at least one voxel"):
        percentiles(np.zeros((0, 4, 4), np.float32))
    with pytest.raises(VolumeError, match="expected finite intensities, got NaN"):
        percentiles(np.full((4, 4, 4), np.nan, np.float32))


@pytest.mark.parametrize(("low", "high"), [(86.0, 2911.36), (0.0, 65535.0), (99.98, 101.2), (300.0, 301.0)])
def test_every_count_comes_back_from_float32(low: float, high: float) -> None:
    counts = np.arange(65536, dtype=np.uint16)
    normalization = Normalization(low, high)
    normalized = normalization.apply(counts)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (counts - low) / (high - low), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(normalization.undo_to(normalized, np.uint16), counts)


def test_equal_percentiles_leave_the_volume_as_it_is() -> None:
    counts = np.array([7, 7, 7, 9], np.uint16)
    np.testing.assert_array_equal(Normalization(7, 7).apply(counts), counts)
    np.testing.assert_array_equal(Normalization(7, 7).undo(counts.astype(np.float32)), counts)


def test_counts_out_of_range_are_clipped_not_wrapped() -> None:
    back = Normalization(0, 1000).undo_to(np.array([-1.0, 100.0], np.float32), np.uint16)
    assert back.tolist() == [0, 65535]
