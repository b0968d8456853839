import pytest

from lightsheet.core.errors import SettingsError
from lightsheet.simulate.presets import PRESETS, checked_shape, preset_for

TABLE = {
    1: ((222, 731, 860), (1.0, 0.195, 0.195), ("nucleus", "membrane"), {0}),
    2: ((264, 2008, 1091), (1.0, 0.195, 0.195), ("nucleus",), {0}),
    3: ((891, 817, 817), (1.0, 0.39, 0.39), ("nucleus", "membrane"), {0, 1, 2}),
    4: ((80, 1920, 1920), (3.0, 0.33, 0.33), ("nucleus",), {2}),
    5: ((309, 1920, 1920), (1.01, 0.388, 0.388), ("nucleus",), {2}),
}


@pytest.mark.parametrize("study", TABLE)
def test_presets_are_those_of_the_challenge(study):
    preset = PRESETS[study]
    shape, spacing, channels, axes = TABLE[study]
    assert preset.shape_zyx == shape
    assert preset.spacing_um == spacing
    assert preset.channels == channels
    assert set(preset.decay_axes) == axes
    assert 2 <= preset.views <= 4


@pytest.mark.parametrize("study", TABLE)
def test_full_size_has_the_study_s_own_voxels(study):
    preset = PRESETS[study]
    assert preset.scaled_shape(1.0) == preset.shape_zyx
    assert preset.spacing_for(preset.shape_zyx) == preset.spacing_um


@pytest.mark.parametrize("study", TABLE)
def test_a_small_volume_shows_nuclei_of_several_voxels(study):
    preset = PRESETS[study]
    z, y, x = preset.spacing_for((48, 160, 160))
    assert y == x
    assert preset.nucleus_um / x == pytest.approx(10, abs=0.01)
    assert preset.nucleus_um / z >= 3.6
    assert z >= preset.spacing_um[0]


def test_a_little_smaller_volume_keeps_the_field():
    z, y, x = PRESETS[1].spacing_for((222, 366, 430))
    assert z == 1.0
    assert x * 430 == pytest.approx(0.195 * 860, rel=0.01)
    assert y == x


def test_scale_multiplies_the_size():
    assert PRESETS[1].scaled_shape(0.2) == (44, 146, 172)


def test_unknown_study():
    with pytest.raises(SettingsError, match=r"--study: expected one of 1, 2, 3, 4, 5, got 6"):
        preset_for(6)


def test_missing_channel_names_where_it_exists():
    with pytest.raises(SettingsError, match=r"--channel: expected nucleus for study 2, got membrane.*1, 3"):
        preset_for(2, "membrane")


@pytest.mark.parametrize("scale", [0, -1, 1.5, float("nan")])
def test_scale_outside_its_range(scale):
    with pytest.raises(SettingsError, match=r"--scale: expected a number above 0 and at most 1"):
        PRESETS[1].scaled_shape(scale)


def test_scale_too_small_for_a_specimen():
    with pytest.raises(SettingsError, match=r"--scale 0.01: expected at least \(8, 32, 32\) voxels"):
        PRESETS[1].scaled_shape(0.01)


def test_shape_too_small_for_a_specimen():
    with pytest.raises(SettingsError, match=r"--shape: expected at least \(8, 32, 32\).*got \(1, 64, 64\)"):
        checked_shape((1, 64, 64), "--shape")
