"""Augmentation: what moves moves together, what is optics touches the view alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lightsheet.core.errors import SettingsError
from lightsheet.training.augment import augment
from lightsheet.training.augment_settings import AugmentSettings, read_augmentations
from lightsheet.training.settings import FitSettings

NOTHING = AugmentSettings(flip_zyx=(0, 0, 0), rot90=0)


def patches(shape: tuple[int, int, int] = (6, 8, 8)) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two channels and a fused patch which are the same function of the place, up to a factor."""
    base = np.random.default_rng(0).random(shape).astype(np.float32)
    return np.stack((base, 2 * base)), 3 * base


def run(seed: int = 0, shape: tuple[int, int, int] = (6, 8, 8), **changes: Any) -> tuple[Any, Any]:
    settings = dataclasses.replace(NOTHING, **changes)
    return augment(*patches(shape), settings, np.random.default_rng(seed))


def test_nothing_wanted_nothing_changed() -> None:
    channels, fused = run()
    np.testing.assert_array_equal(channels, patches()[0])
    np.testing.assert_array_equal(fused, patches()[1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flip_mirrors_view_distance_and_fused_along_its_axis(axis: int) -> None:
    probabilities = tuple(float(a == axis) for a in range(3))
    channels, fused = run(flip_zyx=probabilities)
    np.testing.assert_array_equal(channels, np.flip(patches()[0], axis + 1))
    np.testing.assert_array_equal(fused, np.flip(patches()[1], axis))


def test_rotation_is_in_plane_and_moves_all_together() -> None:
    seen = set()
    for seed in range(30):
        channels, fused = run(seed, rot90=1.0)
        quarters = next(k for k in range(4) if np.array_equal(fused, np.rot90(patches()[1], k, (1, 2))))
        np.testing.assert_array_equal(channels, np.rot90(patches()[0], quarters, (2, 3)))
        seen.add(quarters)
    assert seen == {1, 2, 3}


def test_a_patch_that_is_not_square_is_rotated_by_180_degrees_only() -> None:
    for seed in range(10):
        _, fused = run(seed, shape=(6, 8, 10), rot90=1.0)
        np.testing.assert_array_equal(fused, np.rot90(patches((6, 8, 10))[1], 2, (1, 2)))


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": 1.0, "gain_range": (1.2, 1.2)},
        {"gamma": 1.0, "gamma_range": (2.0, 2.0)},
        {"noise": 1.0, "noise_sigma": 0.1},
        {"blur": 1.0, "blur_sigma": 2.0},
        {"fading": 1.0, "fading_depth": 2.0},
        {"clearer": 1.0},
    ],
)
def test_optics_change_the_view_alone(changes: dict[str, Any]) -> None:
    channels, fused = run(**changes)
    assert not np.allclose(channels[0], patches()[0][0])
    np.testing.assert_array_equal(channels[1], patches()[0][1])
    np.testing.assert_array_equal(fused, patches()[1])


def test_a_clearer_view_lies_between_view_and_fused() -> None:
    (view, _), fused = patches()
    shares = []
    for seed in range(20):
        channels, same = run(seed, clearer=1.0, clearer_share=0.5)
        np.testing.assert_array_equal(same, fused)
        share = (channels[0] - view) / (fused - view)
        shares.append(float(np.median(share)))
        np.testing.assert_allclose(share, shares[-1], atol=1e-3)
    assert 0 <= min(shares) < 0.1
    assert 0.4 < max(shares) <= 0.5


def test_fading_falls_along_one_axis_from_one_of_its_ends() -> None:
    view, ends = patches()[0][0], set()
    for seed in range(40):
        left = run(seed, fading=1.0, fading_depth=1.0)[0][0] / view
        axis = next(a for a in range(3) if np.ptp(left, axis=a).max() > 1e-4)
        others = tuple(a for a in range(3) if a != axis)
        assert np.ptp(left, axis=others).max() < 1e-5
        line = left.mean(axis=others)
        ends.add((axis, bool(line[0] > line[-1])))
        assert max(line[0], line[-1]) == pytest.approx(1.0)
        assert min(line) >= np.exp(-1.0)
        steps = np.diff(np.log(line))
        np.testing.assert_allclose(steps, steps.mean(), atol=1e-4)
    assert len(ends) == 6


def test_optics_do_what_they_say() -> None:
    view = patches()[0][0]
    np.testing.assert_allclose(run(gain=1.0, gain_range=(1.2, 1.2))[0][0], 1.2 * view, rtol=1e-6)
    np.testing.assert_allclose(run(gamma=1.0, gamma_range=(2.0, 2.0))[0][0], view**2, rtol=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(5):  # flips, rotation, elastic come first, then the decision to blur
        rng.random()
    rng.random()
    sigma = rng.uniform(0.0, 2.0)
    wanted = gaussian_filter(view, sigma)
    np.testing.assert_allclose(run(blur=1.0, blur_sigma=2.0)[0][0], wanted, rtol=1e-5)


def test_noise_has_at_most_the_wanted_standard_deviation() -> None:
    sigmas = [
        float((run(s, (16, 16, 16), noise=1.0, noise_sigma=0.1)[0][0] - patches((16, 16, 16))[0][0]).std())
        for s in range(20)
    ]
    assert max(sigmas) < 0.105
    assert np.mean(sigmas) == pytest.approx(0.05, abs=0.02)


def test_elastic_moves_all_channels_along_the_same_field() -> None:
    shape = (12, 16, 16)
    base = gaussian_filter(np.random.default_rng(1).random(shape), 2).astype(np.float32)
    settings = dataclasses.replace(NOTHING, elastic=1.0, elastic_voxels=1.0, elastic_grid=8)
    channels, fused = augment(np.stack((base, -base)), base, settings, np.random.default_rng(0))
    assert not np.allclose(fused, base, atol=1e-4)
    np.testing.assert_allclose(channels[0], fused, atol=1e-6)
    np.testing.assert_allclose(channels[1], -fused, atol=1e-6)


def test_elastic_field_has_the_wanted_size() -> None:
    shape = (32, 32, 32)
    place = np.broadcast_to(np.arange(32, dtype=np.float32)[:, None, None], shape)
    settings = dataclasses.replace(NOTHING, elastic=1.0, elastic_voxels=1.5, elastic_grid=8)
    moved = [
        augment(np.stack((place, place)), place, settings, np.random.default_rng(s))[1] for s in range(8)
    ]
    shifts = np.stack(moved)[:, 8:24] - place[8:24]
    assert shifts.std() == pytest.approx(1.5, rel=0.35)
    assert abs(np.diff(shifts, axis=-1)).mean() < 0.5


def test_same_state_of_the_generator_same_patch() -> None:
    settings = AugmentSettings(gain=0.5, noise=0.5, blur=0.5, elastic=0.5)
    for seed in range(5):
        first, second = (augment(*patches(), settings, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_file_of_augmentations_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"flip_zyx": [0, 0.5, 0.5], "noise": 0.3, "elastic_grid": 8}))
    wanted = AugmentSettings(flip_zyx=(0.0, 0.5, 0.5), noise=0.3, elastic_grid=8)
    assert read_augmentations(file) == wanted
    assert read_augmentations(None) == AugmentSettings()
    assert read_augmentations(Path("none")) == NOTHING


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"flip": 1}', "expected names out of flip_zyx, .*got 'flip'"),
        ('{"rot90": 2}', "expected probabilities from 0 to 1 for 'rot90', got 2"),
        ('{"flip_zyx": 0.5}', "expected a list of 3 numbers .*'flip_zyx', got 0.5"),
        ('{"noise_sigma": "much"}', "expected a number of at least 0 for 'noise_sigma', got 'much'"),
        ('{"gain": true}', "expected a number .*'gain', got True"),
        ('{"elastic_grid": 0}', "expected at least 1 for 'elastic_grid', got 0"),
        ("[1]", "expected an object, got list"),
        ("{", "expected JSON, got"),
    ],
)
def test_wrong_files_of_augmentations_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(SettingsError, match=f"--augmentations .*a.json: {message}"):
        read_augmentations(file)


def test_missing_file_of_augmentations(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--augmentations .*expected a readable JSON file, got 'No such"):
        read_augmentations(tmp_path / "none.json")


def test_grains_and_haze_keep_their_strength() -> None:
    rng = np.random.default_rng(0)
    view = np.zeros((1, 24, 24, 24), np.float32)
    sigmas = []
    for _ in range(20):
        noisy, _ = augment(view, view[0], AugmentSettings(noise=1.0, noise_sigma=0.5, noise_grain=2.0), rng)
        sigmas.append(float(noisy.std()))
        neighbours = np.corrcoef(noisy[0, :, :, 1:].ravel(), noisy[0, :, :, :-1].ravel())[0, 1]
        assert neighbours > -0.05
    assert max(sigmas) <= 0.5
    assert max(sigmas) > 0.3
    spot = np.zeros((1, 24, 24, 24), np.float32)
    spot[0, 12, 12, 12] = 100
    hazy, _ = augment(spot, spot[0], AugmentSettings(haze=1.0, haze_share=0.5, haze_sigma=2.0), rng)
    assert 50 <= hazy.max() < 100
    assert hazy.sum() == pytest.approx(100, rel=0.05)


def test_a_file_that_vanishes_while_a_training_runs_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / "augment.json"
    path.write_text('{"noise": 0.5}')
    settings = FitSettings(tmp_path / "m", augmentations=path)
    before = settings.fixed()
    path.unlink()
    assert settings.fixed() == before
    assert settings.augment.noise == 0.5
