"""The forward model against closed formulas."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from lightsheet.core.errors import SettingsError
from lightsheet.simulate.optics import Optics, draw_views
from lightsheet.simulate.presets import PRESETS
from lightsheet.simulate.tissue import Tissue, tissue_of_volume
from lightsheet.simulate.views import degrade, shifted, to_counts

# nothing is lost, blurred or added, and shot noise is negligible
PERFECT = Optics(
    illumination_loss_per_um=0,
    detection_loss_per_um=0,
    psf_lateral_um=0,
    psf_axial_um=1e-6,
    sheet_waist_um=1e-6,
    scatter_blur_um=0,
    haze=0,
    absorbers_per_1000_um2=0,
    medium_counts=0,
    offset_counts=0,
    counts_per_photon=1e-8,
    read_noise_counts=0,
)
SPACING = (2.0, 1.0, 0.5)


def rng():
    return np.random.default_rng(0)


def everywhere(shape, spacing=SPACING):
    return Tissue(np.ones(shape, np.float32), (1, 1, 1), spacing)


def test_perfect_optics_return_the_volume():
    volume = rng().uniform(100, 1000, (6, 8, 10)).astype(np.float32)
    assert np.allclose(degrade(volume, SPACING, PERFECT, rng(), everywhere(volume.shape)), volume, rtol=1e-4)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("high", [False, True])
def test_illumination_follows_beer_and_lambert(axis, high):
    volume = np.full((12, 16, 20), 1000, np.float32)
    optics = replace(
        PERFECT, illumination_axis=axis, illumination_from_high=high, illumination_loss_per_um=0.05
    )
    view = degrade(volume, SPACING, optics, rng(), everywhere(volume.shape))
    path = (np.arange(volume.shape[axis]) + 0.5) * SPACING[axis]
    expected = 1000 * np.exp(-0.05 * (path[::-1] if high else path))
    others = tuple(k for k in range(3) if k != axis)
    assert np.allclose(view.mean(axis=others), expected, rtol=1e-3)
    assert view.std(axis=others).max() < 1


@pytest.mark.parametrize("high", [False, True])
def test_detection_loses_light_with_depth(high):
    volume = np.full((12, 16, 20), 1000, np.float32)
    optics = replace(PERFECT, detection_from_high=high, detection_loss_per_um=0.03)
    view = degrade(volume, SPACING, optics, rng(), everywhere(volume.shape))
    path = (np.arange(12) + 0.5) * 2.0
    expected = 1000 * np.exp(-0.03 * (path[::-1] if high else path))
    assert np.allclose(view.mean(axis=(1, 2)), expected, rtol=1e-3)


def test_light_is_lost_in_tissue_only():
    fraction = np.zeros((4, 8, 40), np.float32)
    fraction[:, :, 10:30] = 1
    optics = replace(PERFECT, illumination_loss_per_um=0.1)
    tissue = Tissue(fraction, (1, 1, 1), SPACING)
    view = degrade(np.full(fraction.shape, 1000, np.float32), SPACING, optics, rng(), tissue)
    assert np.allclose(view[..., :10], 1000, rtol=1e-3)
    assert np.allclose(view[..., 30:], 1000 * np.exp(-0.1 * 20 * 0.5), rtol=1e-3)


def width(view, axis, spacing):
    profile = view.sum(axis=tuple(k for k in range(3) if k != axis))
    place = np.arange(profile.size) * spacing
    mean = (profile * place).sum() / profile.sum()
    return np.sqrt((profile * (place - mean) ** 2).sum() / profile.sum())


def test_point_spread_is_longer_along_the_detection():
    volume = np.zeros((61, 41, 41), np.float32)
    volume[30, 20, 20] = 1e6
    optics = replace(PERFECT, psf_lateral_um=0.8, psf_axial_um=2.5, sheet_waist_um=1e6)
    view = degrade(volume, (0.5, 0.5, 0.5), optics, rng(), everywhere(volume.shape, (0.5, 0.5, 0.5)))
    # the filter is cut at three sigmas, which takes a little off the second moment
    assert width(view, 0, 0.5) == pytest.approx(2.5, rel=0.03)
    assert width(view, 1, 0.5) == pytest.approx(0.8, rel=0.03)
    assert width(view, 2, 0.5) == pytest.approx(0.8, rel=0.03)
    assert view.sum() == pytest.approx(1e6, rel=1e-3)


@pytest.mark.parametrize("place", [10, 40, 70])
def test_sheet_is_thin_at_its_waist_and_wider_away(place):
    volume = np.zeros((81, 7, 81), np.float32)
    volume[40, 3, place] = 1e6
    optics = replace(PERFECT, psf_axial_um=3.0, sheet_waist_um=1.5, sheet_rayleigh=0.3)
    view = degrade(volume, (0.5, 0.5, 0.5), optics, rng(), everywhere(volume.shape, (0.5, 0.5, 0.5)))
    sheet = 1.5**2 * (1 + (((place + 0.5) / 81 - 0.5) / 0.3) ** 2)
    assert width(view, 0, 0.5) == pytest.approx(np.sqrt(1 / (1 / sheet + 1 / 9)), rel=0.04)


def test_scattering_blurs_in_proportion_to_the_tissue_before_the_camera():
    volume = np.zeros((40, 61, 61), np.float32)
    volume[[4, 20, 36], 30, 30] = 1e6
    optics = replace(PERFECT, detection_loss_per_um=0.05, scatter_blur_um=1.2)
    view = degrade(volume, (1.0, 0.5, 0.5), optics, rng(), everywhere(volume.shape, (1.0, 0.5, 0.5)))
    for z in (4, 20, 36):
        depth = 0.05 * (z + 0.5)
        assert width(view[z : z + 1], 1, 0.5) == pytest.approx(1.2 * depth, rel=0.05)
        assert view[z].sum() == pytest.approx(1e6 * np.exp(-depth), rel=0.01)


def test_haze_returns_a_share_of_the_scattered_light():
    volume = np.full((10, 60, 60), 1000, np.float32)
    optics = replace(PERFECT, detection_loss_per_um=0.05, haze=0.5)
    tissue = everywhere(volume.shape, (1.0, 2.0, 2.0))
    view = degrade(volume, (1.0, 2.0, 2.0), optics, rng(), tissue)
    lost = 1 - np.exp(-0.05 * (np.arange(10) + 0.5))
    haze = ndimage.gaussian_filter1d(0.5 * lost, 10.0, mode="nearest", truncate=3.0)
    assert np.allclose(view.mean(axis=(1, 2)), 1000 * (1 - lost + haze), rtol=1e-4)


def test_granules_throw_stripes_along_the_light_which_go_on_behind_them():
    shape, spacing = (20, 60, 80), (1.0, 1.0, 1.0)
    optics = replace(PERFECT, absorbers_per_1000_um2=8, absorber_radius_um=1.0, absorber_depth=0.5)
    view = degrade(np.full(shape, 1000, np.float32), spacing, optics, rng(), everywhere(shape, spacing))
    along = np.diff(view, axis=2)
    assert along.max() < 1  # light never comes back
    assert view[..., -1].std() > 20
    assert view[..., 0].mean() > view[..., -1].mean()
    assert np.abs(np.diff(view, axis=1)).mean() > 2 * np.abs(along).mean()


def test_camera_adds_shot_noise_read_noise_and_offset():
    optics = replace(PERFECT, counts_per_photon=2.2, read_noise_counts=5.0, offset_counts=120.0)
    volume = np.full((20, 64, 64), 400, np.float32)
    view = degrade(volume, SPACING, optics, rng(), everywhere(volume.shape))
    assert view.mean() == pytest.approx(520, abs=0.6)
    assert view.var() == pytest.approx(2.2 * 400 + 25, rel=0.02)


def test_medium_glows_most_in_the_middle_of_the_sheet_s_height():
    optics = replace(PERFECT, medium_counts=100.0, sheet_height=0.25)
    view = degrade(np.zeros((4, 101, 6), np.float32), SPACING, optics, rng(), everywhere((4, 101, 6)))
    place = (np.arange(101) + 0.5) / 101 - 0.5
    assert np.allclose(view.mean(axis=(0, 2)), 100 * np.exp(-0.5 * (place / 0.25) ** 2), rtol=0.01)


@pytest.mark.parametrize("shift", [(0.4, -1.3, 2.0), (0.0, 0.0, 0.0), (-0.7, 0.2, -3.5)])
def test_shift_agrees_with_scipy(shift):
    volume = rng().normal(size=(7, 9, 11)).astype(np.float32)
    expected = ndimage.shift(volume, shift, order=1, mode="nearest")
    assert np.allclose(shifted(volume, list(shift)), expected, atol=1e-5)


def test_counts_are_rounded_and_clipped_not_wrapped():
    values = np.array([[[-3.0, 0.4, 0.6, 70000.0, 1234.5]]], np.float32)
    assert to_counts(values).ravel().tolist() == [0, 0, 1, 65535, 1234]


def test_light_and_camera_on_one_axis_are_refused():
    with pytest.raises(SettingsError, match="illumination axis that differs from the detection axis, got 0"):
        Optics(illumination_axis=0, detection_axis=0)


def test_degrade_guesses_the_tissue_when_it_is_not_told():
    volume = np.zeros((20, 60, 60), np.float32)
    volume[4:16, 12:48, 12:48] = 1000
    tissue = tissue_of_volume(volume, (2.0, 1.0, 1.0))
    assert tissue.extents_um() == pytest.approx((24, 36, 36), abs=8)
    optics = replace(PERFECT, illumination_loss_per_um=0.05)
    view = degrade(volume, (2.0, 1.0, 1.0), optics, rng())
    line = view[10, 30, 15:45]
    assert np.polyfit(np.arange(30), np.log(line), 1)[0] == pytest.approx(-0.05, abs=0.006)


@pytest.mark.parametrize("study", PRESETS)
def test_second_view_is_the_specimen_turned_by_half_a_turn(study):
    one, two = draw_views(PRESETS[study], rng(), (100.0, 100.0, 100.0), 2)
    assert (one.illumination_axis, one.detection_axis) == (two.illumination_axis, two.detection_axis)
    assert one.illumination_from_high != two.illumination_from_high
    assert one.detection_from_high != two.detection_from_high
    assert not one.illumination_from_high
    assert not one.detection_from_high
    assert one.misregistration_um == (0, 0, 0)
    assert two.misregistration_um != (0, 0, 0)


def test_study_3_is_seen_after_a_quarter_turn_too():
    views = draw_views(PRESETS[3], rng(), (100.0, 100.0, 100.0), 4)
    first = views[0]
    assert [(v.illumination_axis, v.detection_axis) for v in views[2:]] == 2 * [
        (first.detection_axis, first.illumination_axis)
    ]


@pytest.mark.parametrize("views", [1, 5])
def test_number_of_views(views):
    with pytest.raises(SettingsError, match=f"--views: expected 2 to 4, got {views}"):
        draw_views(PRESETS[1], rng(), (1.0, 1.0, 1.0), views)
