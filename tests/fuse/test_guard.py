"""The guard: what it applies, what it keeps, and that it never stands in the way."""

import dataclasses
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.core.fields import object_of
from lightsheet.fuse.fuser import Fused
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard.evidence import features_of, predicted_blocks, sample_blocks
from lightsheet.fuse.guard.gain_map import GainSums, GainTable
from lightsheet.fuse.guard.gaussian_process import Process
from lightsheet.fuse.guard.guard import GUARD, RISK, Gate, Guard, choose_gate, guard_of, mean_gate
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.fuse.predict import Fuser
from lightsheet.models.folder import (
    ModelFolder,
    ModelInputs,
    ModelSettings,
    open_model,
    save_model,
)
from lightsheet.specimen.measure import measure
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume, read_info, read_volume, write_volume
from networks_in_memory import model_of, plain_inputs, random_network
from training_data import blobs
from volumes_in_memory import Memory

SHAPE = (40, 48, 56)
HALF_AND_WHOLE = (Gate(0.5), Gate(1.0))


def guard_for(names: tuple[str, ...], left: float, **changes: object) -> Guard:
    """A guard that expects the same L of every view, whatever its features."""
    number = len(names)
    guard = Guard(
        names,
        np.zeros(number),
        np.ones(number),
        np.array([[-1e6], [1e6]]) * np.ones(number),
        (Gate(0.5), Gate(1.0)),
        np.full((2, 2, 2), left),
        ((Process(left, 1e-3, 1e-3, (1e6,) * number),) * 2,) * 2,
        (Process(0.0, 1e-3, 1e-3, (1e6,) * number),) * 2,
        np.zeros((2, 2)),
        np.array([0.1, 0.3], np.float32),
        np.array([1.0, 1.0], np.float32),
    )
    return dataclasses.replace(guard, **changes)  # type: ignore[arg-type]


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


def features(data: np.ndarray, *, identity: bool = False) -> dict[str, float]:
    network, description = random_network(residual=True)
    if identity:
        torch.nn.init.zeros_(network.last_layer().weight)
        torch.nn.init.zeros_(network.last_layer().bias)
    model = model_of(network, description)
    volume = Memory(data)
    return features_of(list(predicted_blocks(volume, plain_inputs(model), model)), measure(volume))


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    network, description = random_network(residual=True)
    settings = ModelSettings(
        dict(description), ModelInputs((RAW_IMAGE,), 50.0, 100.0), (16, 16, 16), "nucleus", (1,)
    )
    return save_model(tmp_path / "model", settings, network.state_dict(), {}, {}, "# test")


def with_guard(folder: ModelFolder, left: float, **changes: object) -> ModelFolder:
    names = tuple(features(blobs(SHAPE, 0)[0]))
    content = guard_for(names, left, **changes).as_json(folder)
    (folder.path / GUARD).write_text(json.dumps(content))
    return open_model(folder.path)


def fuse(folder: ModelFolder, tmp_path: Path, name: str, **changes: object) -> tuple[Fused, np.ndarray]:
    view = tmp_path / "view.tif"
    if not view.exists():
        data = (1000 + 800 * blobs(SHAPE, 3)[0]).clip(0, 65535).astype(np.uint16)
        write_volume(view, data, VolumeInfo("v", SHAPE, "uint16", (1.0, 0.5, 0.5), "nucleus", 1))
    settings = FusionSettings(device="cpu", runtime="torch", **changes)  # type: ignore[arg-type]
    fused = Fuser([folder.path], settings).fuse(view, tmp_path / name)
    return fused, read_volume(tmp_path / name).data


def test_where_no_gain_is_expected_the_view_is_kept_voxel_by_voxel(
    folder: ModelFolder, tmp_path: Path
) -> None:
    fused, result = fuse(with_guard(folder, 0.5), tmp_path, "kept.tif", fallback="view")
    assert (fused.gate, fused.instead) == (0.0, "view")
    np.testing.assert_array_equal(result, read_volume(tmp_path / "view.tif").data)
    record = read_info(tmp_path / "kept.tif").metadata["lightsheet"]
    assert record["guard"]["model"]["gate"] == 0.0
    assert record["guard"]["model"]["risk"] > 0.99
    assert not list(tmp_path.glob(".*journal"))


def test_where_no_gain_is_expected_the_physics_step_is_taken(folder: ModelFolder, tmp_path: Path) -> None:
    fused, result = fuse(with_guard(folder, 0.5), tmp_path, "stepped.tif")
    assert (fused.gate, fused.instead) == (0.0, "physics")
    with open_volume(tmp_path / "view.tif") as volume:
        expected = PhysicsVolume(volume, estimate(volume)).read(0, SHAPE[0])
    np.testing.assert_array_equal(result, np.rint(expected))
    record = read_info(tmp_path / "stepped.tif").metadata["lightsheet"]
    assert (record["instead"], record["model"]) == ("physics", "model")
    again, _ = fuse(with_guard(folder, 0.5), tmp_path, "stepped.tif")
    assert (again.done_before, again.gate, again.instead) == (True, 0.0, "physics")


@pytest.mark.parametrize(
    ("dtype", "offset", "stored"),
    [
        ("uint8", 0.0, "float32"),
        ("int16", -900.0, "float32"),
        ("float32", -0.5, "float32"),
        ("uint32", 3e9, "float64"),
        ("int32", 0.0, "float64"),
    ],
)
def test_a_view_of_any_type_is_kept_voxel_by_voxel(
    folder: ModelFolder, tmp_path: Path, dtype: str, offset: float, stored: str
) -> None:
    scale = {"uint8": 40, "float32": 0.1}.get(dtype, 1000)
    data = (offset + scale * blobs(SHAPE, 3)[0].astype(np.float64).clip(0, 6)).astype(dtype)
    if dtype == "int32":
        data[0, 0, 0] = 2**30 + 1  # no number of float32
    write_volume(tmp_path / "view.tif", data, VolumeInfo("v", SHAPE, dtype, (1.0, 0.5, 0.5), "nucleus", 1))
    fused, result = fuse(with_guard(folder, 0.5), tmp_path, "kept.tif", fallback="view")
    assert fused.gate == 0.0
    assert result.dtype.name == stored
    np.testing.assert_array_equal(result, data)


@pytest.mark.slow
def test_the_part_of_the_view_that_remains_is_smoothed(folder: ModelFolder, tmp_path: Path) -> None:
    _, prediction = fuse(with_guard(folder, -1.0), tmp_path, "plain.tif", guard=False)
    half = with_guard(folder, -1.0, gates=(Gate(0.5, sigma=0.5),) * 2)
    _, result = fuse(half, tmp_path, "half.tif", patch_size=(16, 16, 16))
    view = read_volume(tmp_path / "view.tif").data.astype(np.float32)
    wanted = (ndimage.gaussian_filter(view, 0.5, mode="nearest", truncate=4.0) + prediction) / 2
    inside = (prediction > 0) & (prediction < 65535)
    assert np.abs(result - wanted)[inside].max() <= 1.01


def test_the_gate_of_several_models_is_their_mean() -> None:
    gates = [Gate(1.0), Gate(0.5, by_size=1.0, sigma=0.5), Gate(0.0)]
    assert mean_gate(gates) == Gate(0.5, pytest.approx(1 / 3), pytest.approx(1 / 6))
    assert mean_gate([Gate(0.0), Gate(0.0)]) == Gate(0.0)


@pytest.mark.parametrize("resume", [True, False])
def test_the_gate_scales_the_correction(folder: ModelFolder, tmp_path: Path, resume: bool) -> None:
    plain, prediction = fuse(with_guard(folder, -1.0), tmp_path, "plain.tif", guard=False, resume=resume)
    assert plain.gate == 1.0
    assert "gate" not in read_info(tmp_path / "plain.tif").metadata["lightsheet"]
    only_half = with_guard(folder, -1.0, gates=(Gate(0.5), Gate(0.5)))
    half, result = fuse(only_half, tmp_path, "half.tif", resume=resume)
    assert half.gate == 0.5
    view = read_volume(tmp_path / "view.tif").data.astype(float)
    inside = (prediction > 0) & (prediction < 65535)
    difference = result - (view + prediction) / 2
    assert np.abs(difference[inside]).max() <= 1.01
    assert np.abs(prediction - view)[inside].max() > 20


def test_the_map_of_gains_is_told_beside_the_result(folder: ModelFolder, tmp_path: Path) -> None:
    # a quarter of the error goes where little is changed, half of it elsewhere
    table = GainTable(np.array([0.1], np.float32), np.array([], np.float32), np.float32([[0.25], [0.5]]))
    guarded = with_guard(folder, -1.0, gates=(Gate(0.5), Gate(0.5)), gains=table)
    fuse(guarded, tmp_path, "result.tif", confidence=True)
    told = read_volume(tmp_path / "result_confidence.tif").data
    view, result = (read_volume(tmp_path / name).data.astype(float) for name in ("view.tif", "result.tif"))
    low, high = np.percentile(view, (2, 99.8))
    # half of the correction was applied, which leaves 1 - 0.5 * 1.5 of what the whole takes away
    changed = ndimage.uniform_filter(np.abs(result - view) * 2 / (high - low), (1, 9, 9), mode="nearest")
    assert set(np.unique(told)) == {188, 375}
    clear = np.abs(changed - 0.1) > 0.005
    np.testing.assert_array_equal((told == 375)[clear], (changed > 0.1)[clear])
    said = json.loads((tmp_path / "result_confidence.json").read_text())
    assert said == {
        "view": "view.tif",
        "expected_n_ssim": {
            "tf": pytest.approx(1 - math.exp(-1), abs=1e-3),
            "3d": pytest.approx(1 - math.exp(-1), abs=1e-3),
        },
        "gate": 0.5,
    }
    fuse(with_guard(folder, 0.5, gains=table), tmp_path, "kept.ome.tif", confidence=True)
    assert not read_volume(tmp_path / "kept_confidence.ome.tif").data.any()
    kept = json.loads((tmp_path / "kept_confidence.json").read_text())
    assert kept["expected_n_ssim"] == {"tf": 0, "3d": 0}


def test_gains_that_are_not_to_be_had(folder: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a guard\.json for --confidence, got none; make one with"):
        fuse(folder, tmp_path, "result.tif", confidence=True)
    with pytest.raises(ModelError, match=r"expected a guard\.json that tells gains"):
        fuse(with_guard(folder, -1.0), tmp_path, "result.tif", confidence=True)
    with pytest.raises(
        SettingsError, match="--confidence: expected the guard, which tells it, got --no_guard"
    ):
        fuse(folder, tmp_path, "result.tif", confidence=True, guard=False)
    assert not (tmp_path / "result.tif").exists()


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


def test_a_run_that_is_done_is_kept_with_its_gate_and_another_guard_makes_it_anew(
    folder: ModelFolder, tmp_path: Path
) -> None:
    guarded = with_guard(folder, 0.5)
    fuse(guarded, tmp_path, "result.tif")
    again, _ = fuse(guarded, tmp_path, "result.tif")
    assert again.done_before
    assert again.gate == 0.0
    other, _ = fuse(with_guard(folder, -1.0), tmp_path, "result.tif")
    assert not other.done_before
    assert other.gate == 1.0


def test_a_guard_is_made_once_for_an_opened_folder(folder: ModelFolder) -> None:
    opened = open_model(with_guard(folder, 0.5).path)
    first = guard_of(opened)
    assert first is not None
    assert guard_of(opened) is first
    again = guard_of(open_model(with_guard(folder, -1.0).path))
    assert again is not None
    assert again.values[0, 0, 0] != first.values[0, 0, 0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_sha256": "0" * 64}, "other weights"),
        ({"format_version": 99}, "format_version 99"),
        ({"samples": [[1.0, 2.0]]}, "features"),
        ({"processes": []}, "values of 2 readings, and processes of 0"),
        ({"scattered": [[0.0, 0.0]]}, "scatter of 2 readings and 2 samples expected"),
        ({"gates": [{"share": 1.0, "by_size": 0.0, "sigma": 0.0}]}, "1 gates, but 2 rows of values"),
        ({"shares": []}, "differ in number"),
        ({"gains": {"changes": [1.0], "brightness": [], "gains": [[1.0]]}}, "gains of 2 rows expected"),
        ({"centre": None}, "guard.json can't be used"),
    ],
)
def test_a_guard_that_can_not_be_used_is_told_and_does_not_stand_in_the_way(
    folder: ModelFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict, told: str
) -> None:
    guarded = with_guard(folder, -1.0)
    content = json.loads((guarded.path / GUARD).read_text()) | change
    (guarded.path / GUARD).write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert guard_of(open_model(folder.path)) is None
    assert told in caplog.text
    assert fuse(open_model(folder.path), tmp_path, "plain.tif")[0].gate == 1.0
