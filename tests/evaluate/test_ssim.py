"""SSIM against scikit-image, torchmetrics and a second, plain implementation of TensorFlow's."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from lightsheet.core.errors import VolumeError
from lightsheet.evaluate.ssim import (
    SsimStream,
    gaussian_weights,
    ssim,
    ssim_by_depth,
    window_zyx,
)

SHAPES = [(17, 23, 29), (11, 40, 12), (30, 11, 64)]


def pair_of_volumes(shape: tuple[int, int, int], seed: int = 0) -> tuple[NDArray[np.float32], ...]:
    """Smooth structure with noise, and a blurred, dimmer version of it; some values far above 1."""
    rng = np.random.default_rng(seed)
    first = rng.gamma(0.5, 0.6, shape)
    second = first
    for axis in range(3):
        second = correlate1d(second, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    second = 0.8 * second + 0.05 * rng.standard_normal(shape)
    return first.astype(np.float32), second.astype(np.float32)


def skimage_3d(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    _, full = structural_similarity(
        first.astype(np.float64),
        second.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
        data_range=1.0,
        full=True,
    )
    return full[5:-5, 5:-5, 5:-5]


def tensorflow_by_hand(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """``tf.image.ssim(first, second, max_val=10)`` of a (Z, Y, X) array, written out with scipy.

    TensorFlow filters height and width (here Z and Y) of each colour (here X) with an 11 x 11 Gaussian
    without padding, multiplies luminance by contrast-structure, and averages over places, then colours.
    """
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window /= window.sum()

    def reduce(x: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in (0, 1):
            x = correlate1d(x, window, axis=axis)
        return x[5:-5, 5:-5]

    x, y = first.astype(np.float64), second.astype(np.float64)
    c1, c2 = (0.01 * 10) ** 2, (0.03 * 10) ** 2
    mean_x, mean_y = reduce(x), reduce(y)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * (reduce(x * y) - mean_x * mean_y) + c2) / (
        reduce(x * x) - mean_x**2 + reduce(y * y) - mean_y**2 + c2
    )
    return float((luminance * contrast).mean(axis=(0, 1)).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_3d_is_scikit_images(shape: tuple[int, int, int]) -> None:
    first, second = pair_of_volumes(shape)
    assert ssim(first, second, "3d") == pytest.approx(skimage_3d(first, second).mean(), abs=1e-9)


def test_each_plane_is_scikit_images() -> None:
    first, second = pair_of_volumes((19, 24, 30))
    ours = ssim_by_depth(first, second)
    assert ours.first_plane == 5
    np.testing.assert_allclose(ours.three_d, skimage_3d(first, second).mean(axis=(1, 2)), atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 24, 28), (12, 40, 16)])
def test_3d_is_torchmetrics(shape: tuple[int, int, int]) -> None:
    first, second = pair_of_volumes(shape)
    tensors = [torch.from_numpy(v.astype(np.float64))[None, None] for v in (first, second)]
    _, full = structural_similarity_index_measure(
        *tensors, sigma=1.5, kernel_size=11, data_range=1.0, return_full_image=True
    )
    inside = full[0, 0, 5:-5, 5:-5, 5:-5].mean()
    assert ssim(first, second, "3d") == pytest.approx(float(inside), abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_tf_is_tensorflows_formula(shape: tuple[int, int, int]) -> None:
    first, second = pair_of_volumes(shape)
    assert ssim(first, second, "tf") == pytest.approx(tensorflow_by_hand(first, second), abs=1e-9)


def test_tf_takes_x_as_colours() -> None:
    """Shuffling X changes the 3d reading, not tf; shuffling Y changes both."""
    first, second = pair_of_volumes((16, 20, 24))
    order = np.random.default_rng(1).permutation(20)
    in_x = np.random.default_rng(1).permutation(24)
    assert ssim(first[:, :, in_x], second[:, :, in_x], "tf") == pytest.approx(ssim(first, second, "tf"))
    assert abs(ssim(first[:, :, in_x], second[:, :, in_x], "3d") - ssim(first, second, "3d")) > 1e-4
    assert abs(ssim(first[:, order], second[:, order], "tf") - ssim(first, second, "tf")) > 1e-4


def test_raw_counts_keep_their_variance() -> None:
    """Equal percentiles leave counts as they are: float32 moments of 60,000² would be rounding noise."""
    rng = np.random.default_rng(2)
    first = (60_000 + rng.integers(0, 2, (14, 16, 18))).astype(np.float32)
    second = (60_000 + rng.integers(0, 2, (14, 16, 18))).astype(np.float32)
    assert ssim(first, second, "3d") == pytest.approx(skimage_3d(first, second).mean(), abs=1e-4)


def test_slabs_give_what_the_whole_gives() -> None:
    first, second = pair_of_volumes((37, 15, 21))
    whole = ssim_by_depth(first, second)
    for steps in ([1] * 37, [5, 20, 12], [36, 1]):
        stream = SsimStream((37, 15, 21))
        z = 0
        for step in steps:
            seen = slice(max(0, z - stream.overlap), z + step)
            stream.add(first[seen], second[seen], step)
            z += step
        np.testing.assert_array_equal(stream.result().tf, whole.tf)
        np.testing.assert_array_equal(stream.result().three_d, whole.three_d)


@pytest.mark.parametrize("shape", [(1, 20, 20), (4, 20, 9), (10, 3, 3), (1, 1, 1)])
def test_axes_shorter_than_the_window_shrink_it(shape: tuple[int, int, int]) -> None:
    """A perfect pair is 1 and the window is the largest odd size that fits."""
    first, second = pair_of_volumes((20, 20, 20))
    cut = tuple(slice(n) for n in shape)
    assert all(w % 2 == 1 and w <= n for w, n in zip(window_zyx(shape), shape, strict=True))
    assert ssim(first[cut], first[cut], "3d") == pytest.approx(1.0, abs=1e-12)
    assert ssim(first[cut], second[cut], "tf") < 1.0


def test_one_plane_is_the_plane_by_plane_ssim() -> None:
    """With a window of one plane, 3d is scikit-image's SSIM of that plane."""
    first, second = pair_of_volumes((1, 24, 30))
    _, full = structural_similarity(
        first[0].astype(np.float64),
        second[0].astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
        data_range=1.0,
        full=True,
    )
    assert ssim(first, second, "3d") == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_perfect_is_one_and_a_shift_is_less() -> None:
    first, _ = pair_of_volumes((16, 18, 20))
    for reading in ("tf", "3d"):
        assert ssim(first, first, reading) == 1.0
        assert ssim(first, np.roll(first, 1, axis=0), reading) < 0.999
        assert ssim(first, np.roll(first, 1, axis=2), reading) < 0.999


def test_weights_are_a_cut_gaussian() -> None:
    weights = gaussian_weights(11)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[5] / weights[4] == pytest.approx(np.exp(0.5 / 1.5**2))


def test_shapes_must_agree() -> None:
    with pytest.raises(VolumeError, match=r"expected two volumes .* of one shape, got \(2, 3, 4\)"):
        ssim(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), "tf")
