"""Pairs whose specimen is a real stack, by microscopes that are drawn."""

import re

import numpy as np
import pytest
from scipy import ndimage

from lightsheet.core.errors import VolumeError
from lightsheet.simulate.stacks import FROM_STACK, RULES, pair_of_stack

SHAPE = (24, 48, 40)
SPACING = (2.0, 0.7, 0.7)


def stack(shape=(40, 60, 64), seed=0):
    """Bright blobs on a dark ground, as counts."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.standard_normal(shape), (1.5, 4, 4))
    return (200 + 4000 * np.maximum(blobs / blobs.std() - 0.5, 0)).astype(np.uint16)


def pairs(count, **changes):
    arguments = {"stack": stack(), "spacing_um": SPACING, "channel": "nucleus", "shape": SHAPE} | changes
    return [pair_of_stack(seed=(3, number), **arguments) for number in range(count)]


def test_the_same_seed_gives_the_same_pair_and_another_one_another():
    first, second = pairs(2)
    again = pairs(1)[0]
    assert np.array_equal(first.view, again.view)
    assert np.array_equal(first.fused, again.fused)
    assert first.parameters == again.parameters
    assert not np.array_equal(first.view, second.view)


def test_microscopes_differ_in_all_that_is_drawn():
    made = [pair.parameters for pair in pairs(40, shape=(8, 32, 32))]
    views = [one["views"] for one in made]
    lit = {one["axes"][one["views"][0]["illumination_axis"]] for one in made}
    assert lit == {0, 1, 2}
    assert {one["fusion"] for one in made} == set(RULES)
    assert {len(some) for some in views} == {2, 3, 4}
    assert {some[0]["illumination_from_high"] for some in views} == {False, True}
    assert {some[0]["detection_from_high"] == some[1]["detection_from_high"] for some in views} == {
        False,
        True,
    }
    assert min(some[0]["detection_loss_per_um"] for some in views) == 0
    assert len({tuple(one["spacing_um"]) for one in made}) > 30
    assert all(one["simulated"] == FROM_STACK for one in made)


@pytest.mark.parametrize("shape", [(40, 60, 64), (13, 30, 25)])
def test_the_pair_is_of_the_size_asked_for_and_a_small_stack_is_mirrored(shape):
    for pair in pairs(4, stack=stack(shape)):
        assert pair.view.shape == pair.fused.shape == SHAPE
        assert pair.view.dtype == pair.fused.dtype == np.uint16
        assert pair.labels is None


def test_a_voxel_keeps_its_form_when_its_size_is_drawn():
    for pair in pairs(6):
        z, y, x = pair.spacing_um
        assert z / x == pytest.approx(SPACING[0] / SPACING[2])
        assert y == pytest.approx(x)


def test_the_target_is_brighter_than_the_view_and_shares_its_noise():
    """A fused volume is a mean in which the view has its part, so its noise goes with the view's."""
    shared, brighter = [], []
    for pair in pairs(12):
        view, fused = (one.astype(np.float32) for one in (pair.view, pair.fused))
        fine = [one - ndimage.gaussian_filter(one, 1) for one in (view, fused)]
        shared.append(np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1])
        brighter.append(np.percentile(fused, 95) >= 0.7 * np.percentile(view, 95))
    assert np.median(shared) > 0.3
    assert max(shared) < 0.999
    assert np.mean(brighter) > 0.9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((20, 40, 40), np.uint16), "expected a volume with structure, got 0 nearly everywhere"),
        (np.full((20, 40, 40), np.nan), "expected a volume (Z, Y, X) of finite values, got others"),
        (np.zeros((40, 40), np.uint16), "expected a volume (Z, Y, X) of finite values, got 2 axes"),
    ],
)
def test_what_shows_nothing_is_refused(data, message):
    with pytest.raises(VolumeError, match=re.escape(f"here: {message}")):
        pair_of_stack(data, SPACING, "nucleus", 0, SHAPE, "here")
