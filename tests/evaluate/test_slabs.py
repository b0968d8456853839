"""The Gaussian baseline against scipy, and volumes read side by side."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lightsheet.core.errors import VolumeError
from lightsheet.core.intensity import Normalization
from lightsheet.evaluate import slabs
from lightsheet.evaluate.gaussian import GaussianVolume
from lightsheet.evaluate.slabs import side_by_side
from volumes_in_memory import Memory


@pytest.mark.parametrize("sigma", [0.442, 0.5, 1.3])
@pytest.mark.parametrize("shape", [(9, 14, 17), (2, 3, 5)])
def test_gaussian_is_scipys(sigma: float, shape: tuple[int, int, int]) -> None:
    """Mirrored edges, also where an axis is shorter than the window; slabs fit together."""
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    filtered = GaussianVolume(Memory(data), sigma)
    expected = gaussian_filter(data.astype(np.float64), sigma)
    parts = [filtered.read(z, z + 1) for z in range(shape[0])]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)
    np.testing.assert_allclose(filtered.read(0, shape[0]), expected, atol=1e-6)


def test_gaussian_of_counts_is_rounded_to_counts() -> None:
    data = np.random.default_rng(1).integers(0, 65536, (6, 8, 9)).astype(np.uint16)
    filtered = GaussianVolume(Memory(data), 0.5).read(0, 6)
    assert filtered.dtype == np.uint16
    np.testing.assert_array_equal(filtered, np.rint(gaussian_filter(data.astype(np.float64), 0.5)))


def test_side_by_side_gives_every_plane_once_and_the_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.arange(7 * 2 * 3, dtype=np.uint16).reshape(7, 2, 3)
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2 * 4 * 6)  # two planes at a time
    scale = Normalization(10.0, 20.0)
    steps = list(side_by_side({"a": Memory(data)}, {"a": scale}, overlap=3))
    np.testing.assert_allclose(
        np.concatenate([step.new("a") for step in steps]), (data - 10.0) / 10, atol=1e-6
    )
    assert [step.first for step in steps] == [0, 0, 1, 3]
    for step in steps:
        held = step.slabs["a"]
        np.testing.assert_allclose(held, (data[step.first : step.first + len(held)] - 10.0) / 10, atol=1e-6)


def test_an_array_must_be_a_volume() -> None:
    with pytest.raises(VolumeError, match=r"expected a volume \(Z, Y, X\), got the shape \(3, 4\)"):
        Memory(np.zeros((3, 4)))
