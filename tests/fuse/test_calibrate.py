"""Fitting a guard: which samples it is fitted to, and what it learns of them."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import ModelError
from lightsheet.datasets.splits import read_pairs
from lightsheet.evaluate.metrics import nssim
from lightsheet.evaluate.ssim import READINGS
from lightsheet.fuse.guard.alterations import Alteration, altered_view
from lightsheet.fuse.guard.calibrate import (
    GATES,
    WHOLE,
    Sample,
    calibrate,
    drawn_samples,
    fit_guard,
    fit_shares,
    losses_left,
    sample_of,
    what_it_would_do,
)
from lightsheet.fuse.guard.guard import GUARD, Gate, guard_of
from lightsheet.fuse.inputs import prepare_inputs
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.fuse.training.pairs import open_pair
from lightsheet.models.folder import ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from networks_in_memory import model_of, random_network
from tiers import slow
from training_data import blobs, write_lists


@pytest.mark.parametrize(("pairs", "as_they_are"), [(2, 2), (3, 3), (40, 5)])
def test_samples_are_spread_over_the_pairs_and_half_of_them_or_more_are_altered(
    pairs: int, as_they_are: int
) -> None:
    numbers = list(range(pairs))
    samples = list(drawn_samples(numbers, 9, seed=4))  # type: ignore[arg-type]
    assert len(samples) == 9
    plain = [pair for pair, alteration in samples if alteration == Alteration()]
    assert plain[:as_they_are] == [number * pairs // as_they_are for number in range(as_they_are)]
    changed = samples[as_they_are:]
    assert sum(alteration != Alteration() for _, alteration in changed) >= len(changed) - 1
    assert {pair for pair, _ in changed} == {n * pairs // len(changed) for n in range(len(changed))}
    assert samples == list(drawn_samples(numbers, 9, seed=4))  # type: ignore[arg-type]
    assert samples != list(drawn_samples(numbers, 9, seed=5))  # type: ignore[arg-type]


def sample(number: int, quality: float) -> Sample:
    """A prediction that goes ``quality`` of the way from view to fused, beside noise."""
    view, fused = blobs((16, 24, 24), number)
    noise = 0.01 * np.random.default_rng(number).normal(size=view.shape)
    prediction = (view + quality * (fused - view) + noise).astype(np.float32)
    return Sample({"quality": quality, "other": float(number % 3)}, view, prediction, fused, view)


def test_a_guard_learns_from_a_feature_what_the_result_is_worth() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(number, float(rng.uniform(-1, 1))) for number in range(40)]
    guard = fit_guard(samples, "model")
    good, bad = (guard.judge({"quality": q, "other": 1.0}) for q in (0.8, -0.8))
    assert good.gate.share == 1.0
    assert min(good.expected) > 0.5
    assert bad.gate.share == 0.0
    without, with_guard = what_it_would_do(guard)
    assert without.mean() < 0 < with_guard.mean()
    assert np.mean(with_guard.min(axis=0) < -0.02) <= 0.05
    unlike = guard.judge({"quality": 30.0, "other": 1.0})
    assert unlike.gate.share == 0.0


def test_l_is_zero_for_a_copy_of_the_view_and_falls_with_the_score() -> None:
    one = sample(1, 0.7)
    plain = np.ones(7, np.float32)
    for prediction, wanted in ((one.view, 0.0), (one.fused, math.log(1e-3))):
        left = losses_left(dataclasses.replace(one, prediction=prediction), plain)
        assert left[:, GATES.index(WHOLE)] == pytest.approx(wanted, abs=1e-4)
    found = dict(zip(GATES, losses_left(one, plain).T, strict=True))
    assert (found[WHOLE] < found[Gate(0.75)]).all()
    assert (found[Gate(0.75)] < found[Gate(0.0, physics=True)]).all()
    assert found[WHOLE].max() < -0.3
    for reading, left in zip(READINGS, found[WHOLE], strict=True):
        score = nssim(one.prediction, one.view, one.fused, reading)
        assert left == pytest.approx(math.log(1 - score), abs=1e-4)
    # what is weighted by shares of zero is not applied: only the smoothing remains
    nothing = dict(zip(GATES, losses_left(one, np.zeros(7, np.float32)).T, strict=True))
    blurred = ndimage.gaussian_filter(one.view, 0.5, mode="nearest", truncate=4.0)
    smooth = np.array([math.log(1 - nssim(blurred, one.view, one.fused, reading)) for reading in READINGS])
    for gate, left in nothing.items():
        assert left == pytest.approx(smooth if gate.by_size else found[gate], abs=1e-4)
    nothing_to_mend = losses_left(dataclasses.replace(one, fused=one.view), plain)
    of_models = [number for number, gate in enumerate(GATES) if not gate.physics]
    assert np.isnan(nothing_to_mend[:, of_models]).all()


def test_what_remains_of_a_view_that_lacks_little_is_left_sharp() -> None:
    samples = []
    for number in range(16):
        fused, *errors = np.random.default_rng(number).random((3, 16, 24, 24), np.float32)
        errors = [0.1 * error for error in errors]
        view = fused + errors[0]
        samples.append(Sample({"quality": 1.0}, view, fused + 1.1 * errors[1], fused, view))
    guard = fit_guard(samples, "model")
    worth = dict(zip(guard.gates, guard.values.mean(axis=-1).max(axis=0), strict=True))
    assert worth[Gate(0.75)] < -0.2
    assert worth[Gate(0.75, sigma=0.5)] > 0.0
    assert worth[WHOLE] > 0.0
    assert guard.judge({"quality": 1.0}).gate == Gate(0.75)


def test_weighting_by_size_is_one_of_the_gates_and_wins_where_large_corrections_are_wrong() -> None:
    # small corrections are right, but where much is changed the wrong way was gone
    rng, samples = np.random.default_rng(0), []
    for number in range(24):
        one = sample(number, float(rng.uniform(0.7, 0.9)))
        wrong = rng.random(one.view.shape) < 0.02
        prediction = np.where(wrong, one.view + np.float32(1.5), one.prediction)
        samples.append(dataclasses.replace(one, prediction=prediction))
    guard = fit_guard(samples, "model")
    assert guard.shares[-1] < 0.2 < guard.shares[0]
    means = dict(zip(GATES, guard.values.max(axis=0).mean(axis=1), strict=True))
    assert means[Gate(1.0, by_size=1.0, sigma=0.5)] < means[WHOLE] - 0.1
    verdict = guard.judge({"quality": 0.8, "other": 1.0})
    assert verdict.gate.by_size == 1.0
    assert "weighted by size" in str(verdict)


def test_shares_are_those_of_the_corrections_that_were_right() -> None:
    view = np.zeros((2, 50, 50), np.float32)
    prediction = np.zeros_like(view)
    prediction[0], prediction[1] = 0.02, 0.8
    fused = np.zeros_like(view)
    fused[0], fused[1] = 0.016, 0.4
    shares = fit_shares([Sample({}, view, prediction, fused, view)])
    assert shares[0] == pytest.approx(1.0)
    assert shares[5] == pytest.approx(0.625, abs=0.01)
    np.testing.assert_array_equal(shares[1:5], 1.0)  # sizes that did not occur


@pytest.mark.parametrize(("norm", "count"), [("none", 8), slow("none", 16), slow("instance", 8)])
def test_calibration_writes_a_guard_that_keeps_what_a_random_network_would_spoil(
    tmp_path: Path, norm: str, count: int
) -> None:
    _, val = write_lists(tmp_path, train=1, val=2)
    # it multiplies the view by something that changes from voxel to voxel
    network, description = random_network(1, residual=True, norm=norm)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    folder = save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# test")
    pairs = [open_pair(pair, ModelInputs((RAW_IMAGE,))) for pair in read_pairs(val, tmp_path)]
    guard = calibrate(folder, pairs, count, device="cpu")
    assert guard.samples.shape[0] == count
    assert guard_of(open_model(folder.path)) is not None
    without, with_guard = what_it_would_do(guard)
    assert without.mean() < 0
    assert np.mean(with_guard.min(axis=0) < -0.1) <= 1 / 8 < np.mean(without.min(axis=0) < -0.1)
    assert with_guard.mean() > without.mean()


def test_the_physics_step_is_judged_by_its_result_on_the_same_view(tmp_path: Path) -> None:
    _, val = write_lists(tmp_path, train=1, val=1, shape=(24, 48, 48))
    pair = open_pair(read_pairs(val, tmp_path)[0], ModelInputs((RAW_IMAGE,)))
    network, description = random_network(residual=True)
    model = model_of(network, description)
    one = sample_of(model, pair, Alteration(), 0)
    volume = altered_view(pair, Alteration(), 0)
    scale = prepare_inputs(volume, model.settings.inputs).normalization
    stepped = scale.apply(PhysicsVolume(volume, estimate(volume)).read(0, volume.info.shape_zyx[0]))
    np.testing.assert_array_equal(one.stepped, stepped)
    assert np.abs(one.stepped - one.view).max() > 0.01
    left = losses_left(one, np.ones(7, np.float32))[:, GATES.index(Gate(0.0, physics=True))]
    scores = [nssim(stepped, one.view, one.fused, reading) for reading in READINGS]
    np.testing.assert_allclose(1 - np.exp(left), scores, atol=1e-6)


@pytest.mark.parametrize(("told", "known"), [((0.0,), False), ((1.0,), False), ((0.0, 1.0), True)])
def test_whether_the_light_was_told_counts_where_there_are_views_of_both_kinds(
    told: tuple[float, ...], known: bool
) -> None:
    samples = []
    for number in range(20):
        one = sample(number, number / 20 - 0.5)
        features = {**one.features, "light_told": told[number % len(told)]}
        samples.append(dataclasses.replace(one, features=features))
    guard = fit_guard(samples, "model")
    assert ("light_told" in guard.features) is known
    verdicts = [guard.judge({"quality": 0.4, "other": 1.0, "light_told": one}) for one in (0.0, 1.0)]
    assert not any("light_told" in verdict.unlike for verdict in verdicts)


def test_where_the_physics_step_does_better_than_the_model_it_is_chosen() -> None:
    def of(number: int, quality: float) -> Sample:
        one = sample(number, quality)
        better = (one.view + 0.5 * (one.fused - one.view)).astype(np.float32)
        return dataclasses.replace(one, stepped=better)

    rng = np.random.default_rng(0)
    guard = fit_guard([of(number, float(rng.uniform(-1, 1))) for number in range(40)], "model")
    good, bad = (guard.judge({"quality": q, "other": 1.0}) for q in (0.9, -0.8))
    assert good.gate.share > 0
    assert bad.gate == Gate(0.0, physics=True)
    assert min(bad.expected) > 0.3
    _, with_guard = what_it_would_do(guard)
    assert with_guard.min() > 0.2


def test_too_few_volumes_with_a_score_are_an_error() -> None:
    one = sample(0, 0.5)
    same = dataclasses.replace(one, fused=one.view)
    with pytest.raises(ModelError, match="expected at least 8 volumes with a score to fit the guard, got 3"):
        fit_guard([sample(n, 0.5) for n in range(3)] + [same] * 10, "model")


def test_a_guard_survives_its_file(tmp_path: Path) -> None:
    network, description = random_network(residual=True)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    folder = save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# test")
    guard = fit_guard([sample(number, number / 20 - 0.5) for number in range(20)], "model")
    (folder.path / GUARD).write_text(json.dumps(guard.as_json(folder)))
    read = guard_of(open_model(folder.path))
    assert read is not None
    assert read.gains is not None
    np.testing.assert_allclose(read.gains.gains, guard.gains.gains, atol=1e-5)  # type: ignore[union-attr]
    for quality in (-0.4, 0.0, 0.3):
        features = {"quality": quality, "other": 1.0}
        before, after = guard.judge(features), read.judge(features)
        assert before.gate == after.gate
        assert before.expected == pytest.approx(after.expected, abs=1e-3)
