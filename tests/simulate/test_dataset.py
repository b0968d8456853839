import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.simulate.dataset import FROM_REAL, pair_from_stack, simulate_pair
from lightsheet.simulate.presets import PRESETS

SHAPE = (36, 96, 96)
COMBINATIONS = [(study, channel) for study, preset in PRESETS.items() for channel in preset.channels]
REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def pairs():
    made = {}

    def pair(study, channel):
        if (study, channel) not in made:
            made[study, channel] = simulate_pair(study, channel, 11, SHAPE)
        return made[study, channel]

    return pair


def correlation(a, b):
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


def test_there_are_seven_combinations():
    assert len(COMBINATIONS) == 7


@pytest.mark.parametrize(("study", "channel"), COMBINATIONS)
def test_fused_is_clearly_nearer_to_the_truth_than_the_view(study, channel, pairs):
    pair = pairs(study, channel)
    view, fused = correlation(pair.view, pair.density), correlation(pair.fused, pair.density)
    assert 1 - fused < 0.8 * (1 - view)
    assert fused > 0.88


@pytest.mark.parametrize(("study", "channel"), COMBINATIONS)
def test_counts_are_those_of_a_camera(study, channel, pairs):
    pair = pairs(study, channel)
    for volume in (pair.view, pair.fused):
        assert volume.dtype == np.uint16
        assert volume.shape == SHAPE
        assert 90 < np.percentile(volume, 2) < 210
        assert 300 < np.percentile(volume, 99.8) < 12000
        assert volume.max() < 40000
    assert pair.labels.dtype == np.uint16
    assert pair.labels.shape == SHAPE
    assert pair.spacing_um == PRESETS[study].spacing_for(SHAPE)


@pytest.mark.parametrize(("study", "channel"), COMBINATIONS)
def test_the_view_fades_along_the_study_s_axis(study, channel, pairs):
    pair = pairs(study, channel)
    optics = pair.parameters["views"][0]
    bright = pair.density > 0.6
    ratio = (pair.view[bright] - optics["offset_counts"]) / pair.density[bright]
    place = np.argwhere(bright) * pair.spacing_um
    place = (place - place.mean(0)) / place.std(0).mean()
    slopes = np.linalg.lstsq(np.c_[place, np.ones(len(place))], np.log(np.clip(ratio, 1, None)), rcond=None)[
        0
    ][:3]
    axes = [optics["illumination_axis"], optics["detection_axis"]]
    signs = [1 if optics[key] else -1 for key in ("illumination_from_high", "detection_from_high")]
    strongest = int(np.abs(slopes).argmax())
    assert strongest in PRESETS[study].decay_axes
    if study == 3:  # fades from both sides, the axis of the light is drawn
        assert all(sign * slopes[axis] > 0.1 for axis, sign in zip(axes, signs, strict=True))
    else:
        assert signs[axes.index(strongest)] * slopes[strongest] > 0.15
        assert np.delete(np.abs(slopes), strongest).max() < 0.7 * abs(slopes[strongest])


def test_same_seed_same_pair_and_another_seed_another():
    one, same, other = (simulate_pair(1, "nucleus", seed, (16, 48, 48)) for seed in (3, 3, 4))
    for name in ("view", "fused", "labels", "density"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert one.parameters == same.parameters != other.parameters


def test_parameters_say_that_it_is_simulated_and_fit_into_json(pairs):
    parameters = pairs(1, "nucleus").parameters
    assert "simulated" in parameters["simulated"]
    assert json.loads(json.dumps(parameters))["views"][1]["detection_axis"] == 0
    assert len(parameters["views"]) == PRESETS[1].views
    assert parameters["objects"] == pairs(1, "nucleus").labels.max()


def test_more_views_and_better_registration_are_nearer_to_the_truth():
    def quality(views, shift):
        pair = simulate_pair(1, "nucleus", 5, (24, 64, 64), views=views, misregistration_um=shift)
        return correlation(pair.fused, pair.density)

    assert quality(4, 0.0) > quality(2, 0.0)
    assert quality(2, 0.0) > quality(2, 1.5) + 0.01


def test_scale_and_spacing_can_be_chosen():
    pair = simulate_pair(4, "nucleus", 0, scale=0.1, spacing_um=(3.0, 0.8, 0.8))
    assert pair.view.shape == (8, 192, 192)
    assert pair.spacing_um == (3.0, 0.8, 0.8)


def test_no_membranes_in_study_4():
    with pytest.raises(SettingsError, match="expected nucleus for study 4, got membrane"):
        simulate_pair(4, "membrane", 0, SHAPE)


def stack(dtype=np.uint16, top=4000):
    pair = simulate_pair(1, "nucleus", 2, (24, 64, 64))
    return (pair.density / pair.density.max() * top).astype(dtype), pair.spacing_um


def test_view_of_a_real_stack_leaves_the_stack_as_it_is():
    data, spacing = stack()
    pair = pair_from_stack(data, spacing, PRESETS[1], 0)
    assert np.array_equal(pair.fused, data)
    assert pair.labels is None
    assert pair.parameters["simulated"] == FROM_REAL
    assert 0.4 < correlation(pair.view, data) < 0.99
    assert pair.view.mean() < data.mean()
    other = pair_from_stack(data, spacing, PRESETS[1], 1)
    assert pair.parameters["views"] != other.parameters["views"]


@pytest.mark.parametrize(
    ("dtype", "top", "factor"), [(np.uint8, 250, 1), (np.float32, 1.0, 10000), (np.float32, 900.0, 1)]
)
def test_other_types_become_counts(dtype, top, factor):
    data, spacing = stack(dtype, top)
    pair = pair_from_stack(data, spacing, PRESETS[1], 0)
    assert pair.parameters["counts_per_stored_value"] == pytest.approx(factor, rel=1e-6)
    assert np.abs(pair.fused - data.astype(float) * factor).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((8, 8), np.uint16), r"s.tif: expected a volume \(Z, Y, X\), got 2 axes"),
        (np.full((8, 8, 8), 5, np.uint16), "s.tif: expected a volume with structure, got 5 everywhere"),
        (
            np.linspace(-1, 1, 512, dtype=np.float32).reshape(8, 8, 8),
            "s.tif: expected finite intensities from 0 on",
        ),
        (np.full((8, 8, 8), np.nan, np.float32), "s.tif: expected finite intensities"),
        (
            np.arange(512, dtype=np.uint32).reshape(8, 8, 8) + np.uint32(3_000_000_000),
            "expected intensities that 50 counts tell apart, got 3e.09 to 3.00000051e.09",
        ),
        (
            np.linspace(1000, 1001, 512, dtype=np.float32).reshape(8, 8, 8),
            "got 1000 to 1001; subtract the offset",
        ),
    ],
)
def test_stacks_that_can_not_be_counts(data, message):
    with pytest.raises(VolumeError, match=message):
        pair_from_stack(data, (1.0, 1.0, 1.0), PRESETS[1], 0, "s.tif")


@pytest.mark.skipif(not REAL.exists(), reason="real stacks (../shared/data) are not there")
@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("membranes3d/lateral_root_membranes_lightsheet.tif", (0.25, 0.1625, 0.1625)),
        ("nuclei3d/mouse_8cell.tif", (1.75, 0.8, 0.8)),
    ],
)
def test_real_stacks_are_degraded_but_still_seen(name, spacing):
    data = tifffile.imread(REAL / name)
    pair = pair_from_stack(data, spacing, PRESETS[1], 0, name)
    assert np.array_equal(pair.fused, data)
    assert 0.6 < correlation(pair.view, pair.fused) < 0.99
    low, high = np.percentile(data, (2, 99.8))
    assert low < np.percentile(pair.view, 99.8) < high
