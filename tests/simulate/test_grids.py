import numpy as np
import pytest
from scipy import ndimage

from lightsheet.simulate.grids import blur, coarse_factors, coarse_shape, downsample, smooth_noise, upsample


def test_downsample_is_the_mean_of_blocks_also_at_the_border():
    volume = np.random.default_rng(0).normal(size=(5, 7, 8)).astype(np.float32)
    coarse = downsample(volume, (2, 3, 4))
    assert coarse.shape == coarse_shape((5, 7, 8), (2, 3, 4)) == (3, 3, 2)
    for k in np.ndindex(coarse.shape):
        block = volume[tuple(slice(i * f, (i + 1) * f) for i, f in zip(k, (2, 3, 4), strict=True))]
        assert coarse[k] == pytest.approx(float(block.mean()), abs=1e-6)


def test_downsample_counts_integers_without_wrapping():
    assert downsample(np.full((4, 4, 4), 65535, np.uint16), (4, 4, 4)).item() == 65535


def test_upsample_keeps_a_ramp_between_the_centres_of_blocks():
    z, y, x = (np.arange(n, dtype=np.float32) for n in (12, 15, 8))
    ramp = 2 * z[:, None, None] - 3 * y[None, :, None] + 0.5 * x[None, None, :]
    back = upsample(downsample(ramp, (3, 5, 1)), (3, 5, 1), (12, 15, 8))
    assert np.allclose(back[1:-1, 2:-2], ramp[1:-1, 2:-2], atol=1e-4)


def test_upsample_of_a_single_block_is_constant():
    assert np.all(upsample(np.full((1, 1, 1), 3, np.float32), (4, 4, 4), (3, 4, 2)) == 3)


def test_blur_takes_sigma_in_micrometres():
    volume = np.zeros((21, 21, 21), np.float32)
    volume[10, 10, 10] = 1
    result = blur(volume, [2.0, 1.0, 0.0], (1.0, 0.5, 0.5))
    expected = ndimage.gaussian_filter(volume, (2.0, 2.0, 0.0), mode="nearest", truncate=3.0)
    assert np.allclose(result, expected, atol=1e-7)


def test_noise_is_standard_periodic_and_as_coarse_as_asked():
    noise = smooth_noise(np.random.default_rng(1), (32, 64, 64), (2.0, 1.0, 1.0), 3.0)
    assert abs(noise.mean()) < 1e-5
    assert noise.std() == pytest.approx(1, abs=1e-4)
    # a Gaussian of sigma s correlates white noise as exp(-d^2 / 4 s^2): at d = 2 s that is 1 / e
    for axis, step in ((1, 6), (2, 6), (0, 3)):
        assert np.mean(noise * np.roll(noise, step, axis)) == pytest.approx(np.exp(-1), abs=0.12)


def test_coarse_factors_follow_the_voxel_size():
    assert coarse_factors((3.0, 0.3, 0.5), 2.4) == (1, 8, 5)
