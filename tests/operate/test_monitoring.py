"""Whether a model has drifted: scores against those of its validation, images against its training."""

from pathlib import Path

import numpy as np
import pytest

from lightsheet.models.choose import shipped_models_folder
from lightsheet.models.folder import ModelFolder, open_model
from lightsheet.operate.monitoring import drift_of, quality_of, reference_scores, told
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import write_volume


def named(values: list[float]) -> dict[str, float]:
    return {f"image_{number}": value for number, value in enumerate(values)}


@pytest.fixture(scope="module")
def model() -> ModelFolder:
    return open_model(shipped_models_folder() / "Study1_Nucleus")


def test_lower_scores_are_a_drift_and_higher_or_few_ones_are_not() -> None:
    reference = list(np.linspace(0.6, 0.8, 12))
    lower = drift_of(named(list(np.linspace(0.1, 0.3, 12))), reference, 0.0)
    assert lower.drifted and lower.alarm and lower.p_value is not None and lower.p_value < 1e-4
    assert "have drifted" in told(lower)
    assert not drift_of(named(list(np.linspace(0.85, 0.95, 12))), reference, 0.0).drifted
    assert not drift_of(named(list(np.linspace(0.6, 0.8, 12))), reference, 0.0).drifted
    few = drift_of(named([0.1, 0.2]), reference, 0.0)
    assert few.p_value is None and not few.drifted


def test_images_below_the_threshold_are_named() -> None:
    found = drift_of({"a": 0.5, "b": 0.1, "c": float("nan")}, [0.5], 0.3)
    assert found.below == ("b", "c") and found.alarm and found.count == 2
    assert drift_of({}, [], 0.3).new is None
    assert told(drift_of({}, [], 0.3)) == "No fused volumes are there, so that nothing was scored."


def test_scores_of_reference_are_those_of_the_validation(model: ModelFolder) -> None:
    assert len(reference_scores(model)) == len(model.scores["volumes"])
    assert np.mean(reference_scores(model)) == pytest.approx(
        (model.scores["n_ssim_tf"] + model.scores["n_ssim_3d"]) / 2
    )


def test_images_without_use_and_unlike_ones_are_told(tmp_path: Path, model: ModelFolder) -> None:
    black = np.zeros((8, 20, 20), np.uint16)
    write_volume(tmp_path / "black.tif", black, VolumeInfo("b", black.shape, "uint16", (2.0, 0.5, 0.5)))
    assert quality_of(tmp_path / "black.tif", model).problem == "all voxels are 0"
    (tmp_path / "no.tif").write_bytes(b"no image")
    assert "expected a TIFF" in quality_of(tmp_path / "no.tif", model).problem
    noise = np.random.default_rng(0).integers(0, 5000, (16, 40, 40)).astype(np.uint16)
    write_volume(tmp_path / "noise.tif", noise, VolumeInfo("n", noise.shape, "uint16", (9.0, 4.0, 4.0)))
    assert {"spacing_z_um", "spacing_xy_um"} <= set(quality_of(tmp_path / "noise.tif", model).unlike)
