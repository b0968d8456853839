"""N_SSIM and the voxel-wise errors against numpy, scipy and scikit-image."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lightsheet.core.errors import VolumeError
from lightsheet.evaluate.metrics import normalized, nssim, relative_score, score
from lightsheet.evaluate.ssim import READINGS, Reading


def counts(seed: int, shape: tuple[int, int, int] = (16, 20, 24)) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).gamma(0.6, 400, shape).astype(np.uint16)


def view_of(fused: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Neighbours averaged, brighter, with an offset."""
    blurred = (fused + np.roll(fused, 1, 1) + np.roll(fused, 1, 2)) / 3.0
    return (1.5 * blurred + 100).astype(np.uint16)


def by_the_book(volume: NDArray[np.uint16], fused: NDArray[np.uint16]) -> float:
    """SSIM 3d after the challenge's normalisation, with numpy and scikit-image."""
    ours, truth = (
        (v - np.percentile(v, 2)) / (np.percentile(v, 99.8) - np.percentile(v, 2))
        for v in (volume.astype(np.float64), fused.astype(np.float64))
    )
    _, full = structural_similarity(
        ours,
        truth,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
        data_range=1.0,
        full=True,
    )
    return float(full[5:-5, 5:-5, 5:-5].mean())


def test_nssim_is_the_challenges_quotient() -> None:
    fused = counts(0)
    view = view_of(fused)
    prediction = ((view.astype(int) + fused) // 2).astype(np.uint16)
    ours, doing_nothing = by_the_book(prediction, fused), by_the_book(view, fused)
    expected = (ours - doing_nothing) / (1 - doing_nothing)
    assert nssim(prediction, view, fused, "3d") == pytest.approx(expected, abs=1e-5)
    assert 0 < expected < 1


@pytest.mark.parametrize("reading", READINGS)
def test_identity_is_0_perfect_is_1_shift_is_less(reading: Reading) -> None:
    fused = counts(1)
    view = view_of(fused)
    assert nssim(view, view, fused, reading) == 0.0
    assert nssim(fused, view, fused, reading) == 1.0
    assert nssim(np.roll(fused, 1, axis=1), view, fused, reading) < 0.99


@pytest.mark.parametrize("reading", READINGS)
def test_gain_and_offset_of_the_prediction_do_not_matter(reading: Reading) -> None:
    fused = counts(2)
    view = view_of(fused)
    prediction = np.maximum(fused, view).astype(np.float32)
    assert nssim(3 * prediction + 700, view, fused, reading) == pytest.approx(
        nssim(prediction, view, fused, reading), abs=1e-5
    )


def test_a_worse_prediction_is_below_0() -> None:
    fused = counts(3)
    noise = np.random.default_rng(4).permutation(fused.reshape(-1)).reshape(fused.shape)
    assert nssim(noise, view_of(fused), fused, "3d") < 0


def test_where_the_view_is_already_perfect() -> None:
    fused = counts(5)
    assert nssim(fused, fused, fused, "tf") == 0.0
    assert math.isnan(nssim(view_of(fused), fused, fused, "tf"))
    assert relative_score(1.0, 1.0) == 0.0
    assert math.isnan(relative_score(0.9, 1.0))
    assert relative_score(0.75, 0.5) == 0.5


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_volumes_have_defined_scores(value: int) -> None:
    """Equal percentiles: taken as it is. All background against all background is perfect, hence 0."""
    fused, flat = counts(6), np.full((16, 20, 24), value, np.uint16)
    assert nssim(flat, flat, flat, "tf") == 0.0
    for reading in READINGS:
        assert math.isfinite(nssim(flat, view_of(fused), fused, reading))
        assert math.isfinite(nssim(fused, flat, view_of(fused), reading))
    np.testing.assert_array_equal(normalized(flat), flat.astype(np.float32))
    assert math.isnan(score(flat, fused).pearson)


def test_errors_are_numpys_scipys_and_scikit_images() -> None:
    fused = counts(7)
    view = view_of(fused)
    ours, truth = normalized(view).astype(np.float64), normalized(fused).astype(np.float64)
    result = score(view, fused)
    assert result.mae == pytest.approx(np.abs(ours - truth).mean())
    assert result.psnr == pytest.approx(peak_signal_noise_ratio(truth, ours, data_range=1.0))
    assert result.pearson == pytest.approx(pearsonr(ours.ravel(), truth.ravel())[0])
    perfect = score(fused, fused)
    assert (perfect.mae, perfect.psnr, perfect.pearson) == (0.0, math.inf, pytest.approx(1.0))


def test_shapes_must_agree() -> None:
    with pytest.raises(
        VolumeError, match=r"expected volumes of one shape, got \(16, 20, 24\) and \(2, 3, 4\)"
    ):
        score(counts(0), counts(0, (2, 3, 4)))
