"""Settings: contradictions are refused, and resumption knows what may change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lightsheet.cli.train import TrainCommand
from lightsheet.core.axes import RAW_IMAGE, SURFACE_DISTANCE
from lightsheet.core.errors import SettingsError
from lightsheet.fuse.training.settings import TrainSettings
from lightsheet.training.settings import FitSettings
from training_data import changed

BASE = TrainSettings(Path("t.csv"), Path("v.csv"), FitSettings(Path("models/m")))


def test_defaults_are_those_of_the_challenge_and_pass_the_check() -> None:
    BASE.check()
    assert BASE.fit.patch_size == (64, 256, 256)
    assert BASE.feat_channels == 16
    assert BASE.fit.logs == Path("models/m.training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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
        changed(BASE, **changes).check()


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"in_channels": 4}, "--in_channels: expected 3 for --image_groups data/raw_image.*, got 4"),
        ({"out_channels": 2}, "--out_channels: expected 1, the fused volume, got 2"),
    ],
)
def test_published_numbers_of_channels_that_do_not_fit_are_refused(
    channels: dict[str, int], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        TrainCommand(BASE, **channels).check()


def test_right_number_of_channels_is_accepted() -> None:
    TrainCommand(changed(BASE, image_groups=(RAW_IMAGE, SURFACE_DISTANCE)), in_channels=2).check()


def test_a_longer_run_is_the_same_run_and_another_patch_is_not() -> None:
    assert changed(BASE, epochs=7, num_workers=3, max_minutes=1.0).fixed() == BASE.fixed()
    assert changed(BASE, patch_size=(8, 8, 8)).fixed() != BASE.fixed()
    assert changed(BASE, seed=2).fixed() != BASE.fixed()


def test_kept_settings_survive_json() -> None:
    assert json.loads(json.dumps(BASE.fixed())) == BASE.fixed()


def test_preset_of_the_reference_names_existing_settings_and_its_recipe() -> None:
    file = Path(__file__).parents[2] / "resources" / "settings" / "reference.json"
    content = json.loads(file.read_text())
    fields = [*dataclasses.fields(TrainSettings), *dataclasses.fields(FitSettings)]
    assert set(content) <= {field.name for field in fields}
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
