"""The guard: what it expects and decides, and what it knows of a view."""

import dataclasses
import json
import math

import numpy as np
import pytest

from guards import SHAPE, features, guard_for
from lightsheet.core.fields import object_of
from lightsheet.fuse.guard.evidence import sample_blocks
from lightsheet.fuse.guard.gain_map import GainSums, GainTable
from lightsheet.fuse.guard.gaussian_process import Process
from lightsheet.fuse.guard.guard import RISK, Gate, choose_gate, mean_gate
from networks_in_memory import model_of, random_network
from training_data import blobs

HALF_AND_WHOLE = (Gate(0.5), Gate(1.0))


def of_both(*rows: list[float]) -> np.ndarray:
    """Numbers for each gate, the same for both readings."""
    return np.stack([[row, row] for row in rows])


def test_the_gate_with_the_largest_expectation_is_taken() -> None:
    verdict = choose_gate(HALF_AND_WHOLE, *of_both([-0.5, -1.0], [0.1, 0.1]))
    assert verdict.gate.share == 1.0
    assert verdict.expected == pytest.approx((1 - math.exp(-1 + 0.005),) * 2)
    assert choose_gate(HALF_AND_WHOLE, *of_both([-0.5, -0.2], [0.1, 0.1])).gate.share == 0.5
    # what counts is the mean of the readings: what half of the correction wins in one it loses in the other
    spreads = np.full((2, 2), 0.1)
    verdict = choose_gate(HALF_AND_WHOLE, np.array([[-0.6, -1.0], [-0.7, -0.6]]), spreads)
    assert verdict.gate.share == 1.0
    assert verdict.expected == pytest.approx((1 - math.exp(-1 + 0.005), 1 - math.exp(-0.6 + 0.005)))
    assert str(verdict).startswith(
        "100% of the correction is applied: N_SSIM +0.63 (tf), +0.45 (3d) expected"
    )
    # but a gain in one reading makes up for no loss in the other
    verdict = choose_gate(HALF_AND_WHOLE, np.array([[-0.3, -2.0], [-0.3, 0.1]]), spreads)
    assert verdict.gate.share == 0.5


def test_doubt_costs_and_a_likely_loss_keeps_the_view() -> None:
    # the same mean, but an unsure guess expects less
    assert choose_gate(HALF_AND_WHOLE, *of_both([-0.5, -0.5], [0.1, 0.35])).gate.share == 0.5
    # the probability of a loss of -0.2 with spread 0.45 is 33 %
    kept = choose_gate(HALF_AND_WHOLE, *of_both([-0.2, -0.1], [0.45, 0.45]))
    assert kept.gate.share == 0.0
    assert kept.risk > RISK
    assert kept.risk == pytest.approx(0.3284, abs=1e-3)
    assert min(kept.expected) > 0
    assert choose_gate((Gate(1.0),), *of_both([0.3], [0.01])).gate.share == 0.0


def test_a_model_has_to_promise_more_than_the_physics_step() -> None:
    step = Gate(0.0, physics=True)
    gates = (Gate(1.0), step)
    # it promises less, or not enough more: the step
    verdict = choose_gate(gates, *of_both([-0.2, -0.4], [0.1, 0.1]))
    assert verdict.gate == step
    assert verdict.expected == pytest.approx((1 - math.exp(-0.4 + 0.005),) * 2)
    assert str(verdict).startswith(
        "the physics step is taken, of which the model does not promise enough more"
    )
    assert choose_gate(gates, *of_both([-0.5, -0.4], [0.1, 0.1])).gate == step
    assert choose_gate(gates, *of_both([-0.6, -0.4], [0.1, 0.1])).gate == Gate(1.0)
    # enough more, but a loss of 17 % is too likely beside a step that could be taken; without one it is not
    means, spreads = of_both([-0.4, 0.2], [0.42, 0.1])
    assert choose_gate(gates, means, spreads).gate == step
    assert choose_gate(gates[:1], means[:, :1], spreads[:, :1]).gate == Gate(1.0)
    # the step is taken too where no more is expected of it than of the view, and for an unlike view
    assert choose_gate(gates, *of_both([0.3, 0.2], [0.1, 0.1])).gate == step
    unlike = choose_gate(gates, *of_both([-1.0, -1.0], [0.1, 0.1]), unlike=("noise",))
    assert unlike.gate == step
    assert str(unlike).startswith("no gain expected: the view is unlike")


def test_the_step_is_taken_for_several_models_where_none_is_trusted() -> None:
    step = Gate(0.0, physics=True)
    assert mean_gate([step, step]) == step
    assert mean_gate([Gate(0.5), step]) == Gate(0.25)


def test_where_held_out_views_scattered_more_a_guess_is_less_sure() -> None:
    guard = guard_for(("noise",), -1.0)
    at_one = Process(0.0, 2.0, 1e-3, (0.5,))
    guard = dataclasses.replace(
        guard,
        samples=np.array([[-1.0], [1.0]]),
        processes=((Process(-1.0, 1e-3, 0.3, (1e6,)),) * 2,) * 2,
        scatters=(at_one,) * 2,
        scattered=np.array([[0.0, 2 * math.log(3)]] * 2),
    )
    usual, wide = guard.judge({"noise": -1.0}), guard.judge({"noise": 1.0})
    assert usual.expected[0] == pytest.approx(1 - math.exp(-1 + 0.3**2 / 2), abs=1e-3)
    assert wide.expected[0] == pytest.approx(1 - math.exp(-1 + 0.9**2 / 2), abs=1e-3)
    assert usual.risk < 0.001
    assert wide.risk == pytest.approx(0.133, abs=1e-3)


def test_a_view_unlike_all_held_out_ones_is_kept_and_told_by_what() -> None:
    guard = guard_for(("noise", "contrast"), -1.0)
    samples = np.array([[-1.0, -1.0], [1.0, 1.0]])
    guard = dataclasses.replace(
        guard, samples=samples, centre=np.array([5.0, 3.0]), spread=np.array([2.0, 0.1])
    )
    near = guard.judge({"noise": 5.0, "contrast": 3.0 + 1.35 * 0.1})
    assert (near.gate.share, near.unlike) == (1.0, ())
    far = guard.judge({"noise": 5.0, "contrast": 3.0 + 1.45 * 0.1})
    assert (far.gate.share, far.unlike) == (0.0, ("contrast",))
    assert str(far) == "no gain expected: the view is unlike all that the guard was fitted to, by contrast"
    assert far.record()["unlike"] == ["contrast"]
    assert guard.judge({"noise": 1.0, "contrast": 2.0}).unlike == ("noise", "contrast")


def test_a_view_far_from_all_held_out_ones_is_unlike_them_though_each_feature_occurs() -> None:
    guard = guard_for(("noise", "contrast"), -1.0)
    along = np.linspace(-1, 1, 9)
    guard = dataclasses.replace(
        guard,
        samples=np.stack([along, along], axis=1),
        values=np.full((2, 2, 9), -1.0),
        scattered=np.zeros((2, 9)),
    )
    # samples are 0.35 apart
    assert guard.judge({"noise": 0.2, "contrast": -0.2}).unlike == ()
    assert guard.judge({"noise": 0.3, "contrast": -0.26}).unlike == ("noise",)
    assert guard.judge({"noise": 0.8, "contrast": -0.9}).gate.share == 0.0
    assert guard.judge({"noise": 1.1, "contrast": 1.2}).unlike == ()


def test_corrections_are_applied_by_their_size() -> None:
    guard = guard_for(
        (), -1, corrections=np.array([0.1, 0.3], np.float32), shares=np.array([1, 0.5], np.float32)
    )
    view = np.full(6, 2.0, np.float32)
    prediction = view + np.array([0.05, -0.1, 0.2, 0.3, -1.0, 0.0], np.float32)
    result = guard.apply(view, prediction, Gate(0.5, by_size=1.0))
    np.testing.assert_allclose(result - view, [0.025, -0.05, 0.2 * 0.75 / 2, 0.075, -0.25, 0], atol=1e-6)
    np.testing.assert_array_equal(guard.apply(view, prediction, Gate(0.0)), view)


def test_blocks_lie_in_the_volume_at_multiples_of_the_stride_and_are_few() -> None:
    facts = model_of(*random_network()).facts
    for shape, most in (((40, 48, 56), 1), ((300, 900, 700), 8), ((5, 700, 9), 8)):
        blocks = sample_blocks(shape, facts)
        assert 1 <= len(blocks) <= most
        for block in blocks:
            for part, n, stride in zip(block, shape, facts.stride_zyx, strict=True):
                assert 0 <= part.start < part.stop <= n
                assert part.start % stride == 0
    starts = np.array([[part.start for part in block] for block in sample_blocks((300, 900, 700), facts)])
    assert (starts.max(axis=0) - starts.min(axis=0) > np.array([130, 380, 280])).all()


def test_features_do_not_change_with_the_camera_s_gain_and_are_finite() -> None:
    view = blobs(SHAPE, 0)[0]
    for data in (view, np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)):
        assert all(map(math.isfinite, features(data).values()))
    # a network that gives its view back, whatever the gain
    one, other = features(view, identity=True), features(view * 4, identity=True)
    assert one["noise"] == pytest.approx(other["noise"], abs=1e-4)
    assert one["fading"] == pytest.approx(other["fading"], abs=1e-2)


def test_the_gate_of_several_models_is_their_mean() -> None:
    gates = [Gate(1.0), Gate(0.5, by_size=1.0, sigma=0.5), Gate(0.0)]
    assert mean_gate(gates) == Gate(0.5, pytest.approx(1 / 3), pytest.approx(1 / 6))
    assert mean_gate([Gate(0.0), Gate(0.0)]) == Gate(0.0)


def test_gains_are_those_of_the_held_out_volumes_by_size_of_the_change_and_brightness() -> None:
    rng = np.random.default_rng(0)
    view = np.repeat(np.float32([0.1, 0.6]), 40)[None, :, None] * np.ones((150, 80, 80), np.float32)
    fused = view + np.where(rng.random(view.shape) < 0.5, np.float32(0.2), np.float32(-0.2))
    prediction = view.copy()
    prediction[:, 40:] += 0.75 * (fused - view)[:, 40:]  # bright places are mended, dark ones left
    sums = GainSums()
    sums.add(view, prediction, fused)
    gains = sums.table().at(view, prediction, 1.0)
    assert gains[:, 50:].mean() == pytest.approx(0.75, abs=0.05)
    assert gains[:, :30].mean() == pytest.approx(0.0, abs=0.05)
    np.testing.assert_allclose(sums.table().at(view, prediction, 0.5), 0.75 * gains, atol=1e-6)
    again = object_of(GainTable, json.loads(json.dumps(sums.table().as_json())))
    np.testing.assert_allclose(again.gains, sums.table().gains, atol=1e-5)
