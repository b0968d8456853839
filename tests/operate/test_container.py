"""The container's entry without a container: results, which model is taken, last lines."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightsheet.fuse.guard.guard import GUARD
from lightsheet.operate.container.contract import INPUT_FOLDER
from lightsheet.operate.container.main import main
from lightsheet.volumes.reading import read_volume
from platform_folders import SHIPPED, UUID, Platform, entry
from synthetic import embryo, write_tiff


def test_a_view_is_fused_under_its_name_and_its_metadata_are_kept(platform: Platform) -> None:
    view = platform.view()
    assert platform.run() == 0, platform.lines
    assert platform.names() == [UUID]
    result = read_volume(platform.results / UUID)
    assert result.data.shape == view.shape
    assert result.data.dtype == np.uint16
    assert not np.array_equal(result.data, view)
    assert result.info.spacing_um == pytest.approx((1.0, 0.195, 0.39))
    assert (result.info.channel, result.info.study) == ("nucleus", 3)
    assert result.info.metadata["lightsheet"]["model"] == "Study3_Nucleus"
    assert platform.lines[-1].startswith("1 fused, 0 handed on unchanged, 0 failed, in ")
    with tifffile.TiffFile(platform.results / UUID) as tif:  # what the platform's importer asks for
        tags = tif.pages[0].tags
        assert tags["ResolutionUnit"].value == 3
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(1e4 / 0.39)


def test_inputs_json_is_logged_and_not_needed(platform: Platform) -> None:
    platform.view()
    entry = {"slug": "fluorescence-lightsheet-3d-microscopy", "relative_path": str(INPUT_FOLDER)}
    listed = [{"interface": entry, "image": {"name": "uploaded.tif"}}]
    (platform.root / "input" / "inputs.json").write_text(json.dumps(listed))
    assert platform.run() == 0
    assert platform.said("uploaded as uploaded.tif")
    (platform.root / "input" / "inputs.json").write_text("{")
    assert platform.run() == 0
    assert platform.said("expected JSON")


def test_one_bad_image_does_not_stop_the_others_and_is_named_last(platform: Platform) -> None:
    platform.view("a.tif")
    (platform.images / "b.tif").write_bytes(b"")
    platform.view("c.tiff", np.full((4, 8, 8), 7, np.uint16))
    assert platform.run() == 1
    assert platform.names() == ["a.tif", "c.tiff"]
    assert platform.lines[-1].startswith("error: 1 of 3 images failed: ")
    assert "b.tif: expected a TIFF, got an empty file" in platform.lines[-1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.zeros((6, 20, 24), np.uint16), "all voxels are 0"),
        (np.full((6, 20, 24), 300, np.uint16), "all voxels have the value 300"),
        (np.where(np.arange(2880) % 3, 65535, 900).astype(np.uint16).reshape(6, 20, 24), "saturated"),
    ],
    ids=["empty", "constant", "saturated"],
)
def test_a_volume_with_nothing_to_restore_is_handed_on(platform: Platform, data: Any, why: str) -> None:
    platform.view(data=data)
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert np.array_equal(result.data, data)
    assert result.info.spacing_um == pytest.approx((1.0, 0.195, 0.39))
    assert why in result.info.metadata["lightsheet"]["reason"]
    assert platform.said("the view is handed on unchanged (scores 0)")


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 5), (3, 4, 2), (40, 2, 2)])
def test_a_tiny_volume_gives_a_result_of_its_shape(platform: Platform, shape: tuple[int, int, int]) -> None:
    data = np.random.default_rng(0).integers(100, 900, shape).astype(np.uint16)
    platform.view(data=data)
    assert platform.run() == 0, platform.lines
    result = read_volume(platform.results / UUID).data
    assert result.shape == shape
    assert result.dtype == np.uint16


def test_a_single_plane_is_handed_on(platform: Platform) -> None:
    plane = np.random.default_rng(0).integers(0, 900, (20, 30)).astype(np.uint16)
    tifffile.imwrite(platform.images / UUID, plane, metadata={"axes": "YX"})
    assert platform.run() == 0
    assert np.array_equal(tifffile.imread(platform.results / UUID), plane)


def test_real_numbers_that_can_not_be_counts_are_handed_on_in_their_type(platform: Platform) -> None:
    platform.view(data=np.full((4, 8, 8), 0.25, np.float32))
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert result.data.dtype == np.float32
    np.testing.assert_array_equal(result.data, np.full((4, 8, 8), 0.25))
    assert "all voxels have the value 0.25" in result.info.metadata["lightsheet"]["reason"]


def test_without_any_model_the_view_is_handed_on(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    (platform.root / "empty").mkdir()
    monkeypatch.setenv("LIGHTSHEET_MODELS", str(platform.root / "empty"))
    view = platform.view()
    assert platform.run() == 0
    result = read_volume(platform.results / UUID)
    assert np.array_equal(result.data, view)
    assert result.info.metadata["lightsheet"]["reason"] == "the view itself: there is no usable model"


def test_damaged_weights_of_the_tarball_leave_the_shipped_model(platform: Platform, models: Path) -> None:
    damaged = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "Mine")
    with (damaged / "weights.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"\0" * 100)
    view = platform.view()
    assert platform.run() == 0
    assert platform.said("Mine/weights.safetensors: expected the weights whose SHA-256")
    result = read_volume(platform.results / UUID)
    assert result.info.metadata["lightsheet"]["model"] == "Study3_Nucleus"
    assert not np.array_equal(result.data, view)


def test_a_tarball_s_model_comes_before_the_shipped_one(platform: Platform, models: Path) -> None:
    shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "models" / "Mine")
    platform.view()
    assert platform.run() == 0
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "Mine"


def test_a_tarball_for_the_other_channel_leaves_the_shipped_model(platform: Platform, models: Path) -> None:
    shutil.copytree(models / "Study1_Membrane", platform.root / "tarball" / "Mine")
    platform.view()
    assert platform.run() == 0
    model = read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"]
    assert model == "Study3_Nucleus"


def test_weights_that_do_not_fit_their_network_leave_the_next_best_model(
    platform: Platform, models: Path
) -> None:
    wrong = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "A_wrong")
    shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "B_right")
    settings = json.loads((wrong / "settings.json").read_text())
    settings["network"]["features"] *= 2
    (wrong / "settings.json").write_text(json.dumps(settings))
    shutil.rmtree(wrong / "openvino", ignore_errors=True)
    platform.view()
    assert platform.run() == 0, platform.lines
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "B_right"
    assert platform.said("A_wrong: expected weights that fit")


@pytest.mark.parametrize(
    ("changes", "options", "note", "model"),
    [
        ({}, {"study": "banana"}, "got 'banana'", "Generalist"),
        ({}, {"channel": "banana"}, "got 'banana'", "Study3_Nucleus"),
        (
            {"PhysicalSizeZ": -1},
            {},
            "expected a voxel size above 0, got PhysicalSizeZ '-1'",
            "Study3_Nucleus",
        ),
    ],
)
def test_nonsense_in_metadata_is_told_and_the_view_is_fused(
    platform: Platform, changes: dict[str, Any], options: dict[str, Any], note: str, model: str
) -> None:
    view = platform.view(changes=changes, **options)
    assert platform.run() == 0
    assert platform.said(note)
    result = read_volume(platform.results / UUID)
    assert result.info.metadata["lightsheet"]["model"] == model
    assert not np.array_equal(result.data, view)


def test_a_view_without_voxel_size_gets_the_one_of_the_model_s_training(platform: Platform) -> None:
    write_tiff(
        platform.images / UUID,
        embryo(),
        changes=dict.fromkeys(("spacing", "unit", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ")),
    )
    assert platform.run() == 0
    assert platform.said("voxel size unknown; ")
    assert read_volume(platform.results / UUID).info.metadata["lightsheet"]["model"] == "Study3_Nucleus"


def test_help_tells_the_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "LIGHTSHEET_OUTPUT" in capsys.readouterr().out


def test_the_entry_of_the_image_fuses_by_itself(platform: Platform) -> None:
    view = platform.view()
    done = entry(platform)
    assert done.returncode == 0, done.stderr
    assert read_volume(platform.results / UUID).data.shape == view.shape
    assert "peak memory" in done.stderr.strip().splitlines()[-1]


def test_where_the_guard_expects_no_gain_the_physics_step_is_taken(platform: Platform, models: Path) -> None:
    hopeless = shutil.copytree(models / "Study3_Nucleus", platform.root / "tarball" / "Hopeless")
    content = json.loads((SHIPPED / "Study3_Nucleus" / GUARD).read_text())
    nowhere = {"mean": 2.0, "lengths": [1e-3] * len(content["features"])}
    content["processes"] = [[process | nowhere for process in row] for row in content["processes"]]
    (hopeless / GUARD).write_text(json.dumps(content))
    view = platform.view()
    assert platform.run() == 0
    assert platform.lines[-1].startswith("1 fused, 0 handed on unchanged, 0 failed, in ")
    assert platform.said("no gain is expected of Hopeless: the physics step")
    result = read_volume(platform.results / UUID)
    assert np.any(result.data != view)
    assert np.corrcoef(result.data.ravel(), view.ravel())[0, 1] > 0.9
    made = result.info.metadata["lightsheet"]
    assert (made["guard"]["Hopeless"]["gate"], made["instead"]) == (0.0, "physics")
