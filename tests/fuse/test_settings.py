"""Settings: contradictions are refused, and resumption knows what may change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import SettingsError
from lightsheet.fuse.settings import TrainSettings

BASE = TrainSettings(train_list=Path("t.csv"), val_list=Path("v.csv"), output_path=Path("models/m"))


def test_defaults_are_those_of_the_challenge_and_pass_the_check() -> None:
    BASE.check()
    assert BASE.patch_size == (64, 256, 256)
    assert BASE.feat_channels == 16
    assert BASE.logs == Path("models/m.training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"in_channels": 4},
            "--in_channels: expected 3 for --image_groups data/raw_image.*, got 4",
        ),
        ({"out_channels": 2}, "--out_channels: expected 1, the fused volume, got 2"),
        ({"samples_per_epoch": 0}, "--samples_per_epoch: expected at least 1, or -1 .*got 0"),
        ({"epochs": 0}, "--epochs: expected a number above 0, got 0"),
        ({"learning_rate": float("nan")}, "--learning_rate: expected a number above 0, got nan"),
        ({"max_minutes": -1.0}, "--max_minutes: expected a number above 0, got -1"),
        ({"ssim_weight": -1.0}, "--ssim_weight: expected 0 or more, got -1"),
        ({"ema": 1.5}, "--ema: expected a number from 0 to 1, got 1.5"),
        ({"patch_size": (64, 0, 64)}, r"--patch_size: expected three sizes .*\(64, 0, 64\)"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(BASE, **changes).check()


def test_right_number_of_channels_is_accepted() -> None:
    dataclasses.replace(BASE, image_groups=(RAW_IMAGE, SURFACE_DISTANCE), in_channels=2).check()


def test_a_longer_run_is_the_same_run_and_another_patch_is_not() -> None:
    assert dataclasses.replace(BASE, epochs=7, num_workers=3, max_minutes=1.0).fixed() == BASE.fixed()
    assert dataclasses.replace(BASE, patch_size=(8, 8, 8)).fixed() != BASE.fixed()
    assert dataclasses.replace(BASE, seed=2).fixed() != BASE.fixed()


def test_kept_settings_survive_json() -> None:
    assert json.loads(json.dumps(BASE.fixed())) == BASE.fixed()


def test_preset_of_the_reference_names_existing_settings_and_its_recipe() -> None:
    file = Path(__file__).parents[2] / "resources" / "settings" / "reference.json"
    content = json.loads(file.read_text())
    assert set(content) <= {field.name for field in dataclasses.fields(TrainSettings)}
    wanted = {
        "backbone": "unet3d",
        "feat_channels": 16,
        "layer_norm": "instance",
        "residual": False,
        "optimizer": "radam",
        "learning_rate": 0.001,
        "ssim_weight": 100.0,
        "ssim_tf_weight": 0.0,
        "ema": 0.0,
        "schedule": "constant",
        "precision": "fp32",
    }
    assert {name: content[name] for name in wanted} == wanted
