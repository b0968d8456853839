"""Gaussian processes: what they know, what they do not, and leaving out a sample."""

import numpy as np
import pytest

from lightsheet.core.fields import object_of
from lightsheet.fuse.guard.gaussian_process import Process, fit_process, fit_scatter


def samples(number: int = 40, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    places = rng.uniform(-2, 2, (number, 2))
    return places, np.sin(places[:, 0]) + 0.5 * places[:, 1] + noise * rng.normal(size=number)


def test_without_noise_it_goes_through_its_samples() -> None:
    places, values = samples()
    mean, spread = Process(0.0, 1.0, 1e-4, (1.0, 1.0)).at(places, places, values)
    np.testing.assert_allclose(mean, values, atol=1e-3)
    assert spread.max() < 0.01


def test_far_from_all_samples_it_knows_nothing() -> None:
    places, values = samples()
    mean, spread = Process(0.7, 1.5, 0.2, (1.0, 1.0)).at(np.array([[50.0, 50.0]]), places, values)
    assert mean[0] == pytest.approx(0.7)
    assert spread[0] == pytest.approx(np.hypot(1.5, 0.2))


def test_a_single_sample_gives_the_textbook_s_numbers() -> None:
    # k = exp(-1/2) between the two places; known variance 1 + 0.25
    mean, spread = Process(1.0, 1.0, 0.5, (1.0,)).at(np.array([[1.0]]), np.array([[0.0]]), np.array([3.0]))
    k = np.exp(-0.5)
    assert mean[0] == pytest.approx(1 + k / 1.25 * 2, rel=1e-5)
    assert spread[0] == pytest.approx(np.sqrt(1 - k**2 / 1.25 + 0.25), rel=1e-5)


def test_leaving_out_each_sample_is_the_same_as_removing_it() -> None:
    places, values = samples(15, 0.1)
    process = Process(0.1, 0.9, 0.2, (1.3, 0.8))
    means, spreads = process.without_each(places, values)
    for left_out in range(len(values)):
        kept = np.arange(len(values)) != left_out
        mean, spread = process.at(places[[left_out]], places[kept], values[kept])
        assert means[left_out] == pytest.approx(mean[0], abs=1e-4)
        assert spreads[left_out] == pytest.approx(spread[0], abs=1e-4)


def test_the_fit_finds_noise_and_predicts_new_samples() -> None:
    places, values = samples(120, 0.2)
    process = fit_process(places, values)
    assert process.noise == pytest.approx(0.2, abs=0.06)
    new = np.random.default_rng(1).uniform(-2, 2, (50, 2))
    mean, _ = process.at(new, places, values)
    error = mean - (np.sin(new[:, 0]) + 0.5 * new[:, 1])
    assert np.sqrt(np.mean(error**2)) < 0.12


def test_a_feature_that_tells_nothing_gets_a_long_scale() -> None:
    places, values = samples(80, 0.1)
    useless = np.random.default_rng(1).uniform(-2, 2, (80, 1))
    process = fit_process(np.hstack([places, useless]), values)
    assert process.lengths[2] > 2 * process.lengths[0]


def test_values_that_are_all_the_same_do_no_harm() -> None:
    places, _ = samples(10)
    process = fit_process(places, np.full(10, -0.5))
    mean, spread = process.at(places, places, np.full(10, -0.5))
    np.testing.assert_allclose(mean, -0.5)
    assert spread.max() < 0.1


def test_scatter_that_differs_from_place_to_place_is_found_and_right_on_average() -> None:
    rng = np.random.default_rng(2)
    places = rng.uniform(-2, 2, (300, 2))
    true = np.where(places[:, 0] > 0, 0.9, 0.3)
    values = true * rng.normal(size=(3, 300))
    told = np.zeros((3, 300)), np.full((3, 300), 0.5)
    process, logs = fit_scatter(places, *told, values)
    more, _ = process.at(np.array([[-1.5, 0.0], [1.5, 0.0]]), places, logs)
    np.testing.assert_allclose(0.5 * np.exp(more / 2), [0.3, 0.9], rtol=0.2)
    each, _ = process.without_each(places, logs)
    assert np.mean((values / (0.5 * np.exp(each / 2))) ** 2) == pytest.approx(1.0, abs=0.01)


def test_a_process_is_read_as_it_was_written() -> None:
    process = Process(0.1, 0.9, 0.2, (1.3, 0.8))
    assert object_of(Process, vars(process)) == process
    with pytest.raises(ValueError, match="expected a value for 'signal', got none"):
        object_of(Process, {"mean": 0.0})
