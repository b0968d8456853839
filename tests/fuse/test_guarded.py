"""Fusing with a guard: what is kept, scaled and told, and that it never stands in the way."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from guards import SHAPE, features, guard_for
from lightsheet.core.axes import RAW_IMAGE
from lightsheet.core.errors import ModelError, SettingsError
from lightsheet.fuse.fuser import Fused
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.guard.gain_map import GainTable
from lightsheet.fuse.guard.guard import GUARD, Gate, guard_of
from lightsheet.fuse.physics.estimate import estimate
from lightsheet.fuse.physics.step import PhysicsVolume
from lightsheet.fuse.predict import Fuser
from lightsheet.models.folder import ModelFolder, ModelSettings, open_model, save_model
from lightsheet.models.inputs import ModelInputs
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import open_volume, read_info, read_volume, write_volume
from networks_in_memory import random_network
from training_data import blobs


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
