import numpy as np
import pytest

from lightsheet.simulate.fusion import ContentFusion, content_weight
from lightsheet.simulate.optics import Optics

SPACING = (2.0, 1.0, 1.0)
OPTICS = Optics(offset_counts=100.0)


def fused(*views):
    fusion = ContentFusion(SPACING)
    for view in views:
        fusion.add(view, OPTICS)
    return fusion.result()


def speckle(shape=(24, 48, 96)):
    return np.random.default_rng(0).gamma(0.5, 600, shape).astype(np.float32)


def test_equal_views_give_that_view():
    view = speckle() + 100
    assert np.allclose(fused(view, view, view), view, rtol=1e-5)


def test_each_side_is_taken_from_the_view_that_sees_it():
    truth = speckle()
    fade = np.exp(-np.arange(96, dtype=np.float32) / 16)
    left, right = truth * fade + 100, truth * fade[::-1] + 100
    result = fused(left, right)
    assert np.abs(result - left)[..., :12].mean() < 0.02 * left[..., :12].mean()
    assert np.abs(result - right)[..., -12:].mean() < 0.02 * right[..., -12:].mean()
    # a plain mean would lose half of the light at both ends
    assert result[..., :12].mean() > 1.7 * ((left + right) / 2)[..., :12].mean() - 100


def test_noise_is_no_content():
    rng = np.random.default_rng(1)
    signal = np.full((24, 48, 48), 300.0)
    noisy = (rng.poisson(signal / 2.2) * 2.2 + 100 + rng.normal(0, 3, signal.shape)).astype(np.float32)
    structure = noisy + np.float32(60) * (np.indices(signal.shape).sum(0) // 3 % 2).astype(np.float32)
    assert (
        content_weight(structure, SPACING, OPTICS).mean() > 5 * content_weight(noisy, SPACING, OPTICS).mean()
    )


def test_views_without_content_count_alike():
    rng = np.random.default_rng(2)
    one, two = (100 + rng.normal(0, 3, (24, 48, 48)).astype(np.float32) for _ in range(2))
    assert (fused(one, two) - (one + two) / 2).std() < 0.5
    assert fused(one, two).std() == pytest.approx(3 / np.sqrt(2), rel=0.06)


def test_nothing_to_fuse():
    with pytest.raises(ValueError, match="expected at least one view, got none"):
        ContentFusion(SPACING).result()
